/* Products of small matrices whose sizes are known only at run time, as in a filter or a robot's joints. */
#include "bench.h"

enum { COUNT = 24, MOST = 24 };

static struct {
    int rows, inner, columns;
    double left[MOST * MOST], right[MOST * MOST], product[MOST * MOST];
} jobs[COUNT];

static void setup(void) {
    for (int k = 0; k < COUNT; k++) {
        jobs[k].rows = 6 + (int)(next_random() % (MOST - 5));
        jobs[k].inner = 6 + (int)(next_random() % (MOST - 5));
        jobs[k].columns = 6 + (int)(next_random() % (MOST - 5));
        for (int i = 0; i < MOST * MOST; i++) {
            jobs[k].left[i] = (double)(next_random() % 2000) / 512.0 - 2.0;
            jobs[k].right[i] = (double)(next_random() % 2000) / 768.0 - 1.0;
        }
    }
}

static void multiply(int rows, int inner, int columns, double *restrict product, const double *left,
                     const double *right) {
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < columns; j++) product[i * columns + j] = 0.0;
        for (int k = 0; k < inner; k++) {
            double factor = left[i * inner + k];
            for (int j = 0; j < columns; j++) product[i * columns + j] += factor * right[k * columns + j];
        }
    }
}

static void run(void) {
    for (int k = 0; k < COUNT; k++)
        multiply(jobs[k].rows, jobs[k].inner, jobs[k].columns, jobs[k].product, jobs[k].left, jobs[k].right);
}

static uint64_t checksum(void) { return hash_bytes(jobs, sizeof jobs); }
