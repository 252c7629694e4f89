/* Times one kernel: include this file, define setup(), run() and checksum() of all that a run made.
 *
 *     PROGRAM WINDOWS MILLISECONDS
 *
 * prints the checksum of the first call, for each window the seconds of one call, and the checksum of the
 * last call. A window is as many calls as fill MILLISECONDS. Time is that of the processor in this process,
 * so that what other programs take does not count. WINDOWS of 0 prints one checksum alone.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void setup(void);
static void run(void);
static uint64_t checksum(void);

/* through a pointer that may change at any time, so that no call is left out or moved */
static void (*volatile kernel)(void) = run;

static uint64_t hash_bytes(const void *data, size_t size) {
    const unsigned char *bytes = data;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

static uint64_t random_state = 88172645463325252u;

static uint64_t next_random(void) { /* xorshift64 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* the last core that this process may use: the first is where systems do their chores */
static void stay_on_one_core(void) {
#ifdef __linux__
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) return;
    for (int core = CPU_SETSIZE - 1; core >= 0; core--) {
        if (CPU_ISSET(core, &cores)) {
            CPU_ZERO(&cores);
            CPU_SET(core, &cores);
            sched_setaffinity(0, sizeof cores, &cores); /* if not, the figures are noisier, not wrong */
            return;
        }
    }
#endif
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double time_calls(long calls) {
    double start = seconds();
    for (long i = 0; i < calls; i++) kernel();
    return seconds() - start;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s WINDOWS MILLISECONDS\n", argv[0]);
        return 2;
    }
    int windows = atoi(argv[1]);
    double target = 1e-3 * atof(argv[2]);
    stay_on_one_core();
    setup();
    kernel();
    printf("checksum %016llx\n", (unsigned long long)checksum());
    if (windows < 1) return 0;

    long calls = 1;
    double spent = time_calls(calls);
    while (spent < target / 2) { /* this warms up, too */
        calls *= 2;
        spent = time_calls(calls);
    }
    calls = (long)((double)calls * target / spent) + 1;
    for (int i = 0; i < windows; i++) printf("seconds %.9e\n", time_calls(calls) / (double)calls);
    printf("checksum %016llx\n", (unsigned long long)checksum());
    return 0;
}
