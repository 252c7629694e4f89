/* A libnvidia-ml.so.1 without a GPU behind it. What the devices are, and what was set on them, is in a file
 * that all processes map (CIQ_FAKE_NVML), as the driver's state outlives processes: clocks that a killed
 * process has locked stay locked. `state.py` describes the same structure. Reading changes nothing, unless
 * the scenario counts reads. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15 };
enum { GPUS = 8, INSTANCES = 7, PROCESSES = 8, MEMORY_CLOCKS = 4 };
#define MAGIC 0x43495147u
#define LIMIT_TDP 0xffffff01u
#define LIMIT_UNLIMITED 0xffffff02u

typedef struct {
    char uuid[64], name[64], pci[32], instances[INSTANCES][64], log[2048];
    uint64_t memory, reasons, burst;
    uint32_t burst_reads, burst_mhz, major, minor, persistence, mig, instance_count;
    uint32_t sm_mhz, mem_mhz, base_mhz, min_mhz, max_mhz, step_mhz, off_mhz, mem_clocks[MEMORY_CLOCKS];
    uint32_t locked_sm[2], locked_mem[2];
    uint32_t power_mw, limit_mw, default_mw, min_mw, max_mw, temperature;
    uint32_t core_error, memory_error, power_error, reset_error, symbolic_error, power_read_error;
    uint32_t lost, calls_left, pids[PROCESSES], pid_count;
} gpu_t;

typedef struct {
    uint32_t magic, size, count, old_driver, init_error;
    char driver[32];
    gpu_t gpus[GPUS];
} state_t;

typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef uintptr_t handle_t; /* index + 1, and instance + 1 in the byte above */

static state_t *state;
static char mapped[4096];
static int initialised;

static int attach(void) {
    const char *path = getenv("CIQ_FAKE_NVML");
    if (!path || strlen(path) >= sizeof mapped) return DRIVER_NOT_LOADED;
    if (state && !strcmp(path, mapped)) return SUCCESS;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return DRIVER_NOT_LOADED;
    void *place = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (place == MAP_FAILED) return DRIVER_NOT_LOADED;
    if (state) munmap(state, sizeof *state);
    state = place;
    strcpy(mapped, path);
    return state->magic == MAGIC && state->size == sizeof *state ? SUCCESS : DRIVER_NOT_LOADED;
}

static int find(handle_t handle, gpu_t **gpu) {
    if (!initialised) return UNINITIALIZED;
    int status = attach();
    if (status) return status;
    unsigned index = (unsigned)(handle & 255);
    if (!index || index > state->count) return INVALID_ARGUMENT;
    *gpu = &state->gpus[index - 1];
    if ((*gpu)->calls_left && !--(*gpu)->calls_left) (*gpu)->lost = 1;
    return (*gpu)->lost ? GPU_IS_LOST : SUCCESS;
}

static int instance(handle_t handle) { return (int)(handle >> 8) - 1; }

/* what belongs to the whole card cannot be asked of an instance */
static int find_card(handle_t handle, gpu_t **gpu) {
    int status = find(handle, gpu);
    return status ? status : instance(handle) >= 0 ? NOT_SUPPORTED : SUCCESS;
}

#define CARD gpu_t *gpu; int status = find_card(handle, &gpu); if (status) return status
#define DEVICE gpu_t *gpu; int status = find(handle, &gpu); if (status) return status
#define REFUSE(code) do { if (code) return (int)(code); } while (0)

static int put(char *target, unsigned length, const char *text) {
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(target, text);
    return SUCCESS;
}

static void note(gpu_t *gpu, const char *what, unsigned low, unsigned high) {
    size_t used = strlen(gpu->log);
    snprintf(gpu->log + used, sizeof gpu->log - used, "%s %u %u\n", what, low, high);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int status = attach();
    if (!status && state->init_error) status = (int)state->init_error;
    if (!status) initialised++;
    return status;
}
int nvmlShutdown(void) {
    if (!initialised) return UNINITIALIZED;
    initialised--;
    return SUCCESS;
}
const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "The operation was successful";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case FUNCTION_NOT_FOUND: return "Function Not Found";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    if (!initialised) return UNINITIALIZED;
    return put(text, length, state->driver);
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!initialised) return UNINITIALIZED;
    int status = attach();
    if (!status) *count = state->count;
    return status;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t *handle) {
    if (!initialised) return UNINITIALIZED;
    int status = attach();
    if (status) return status;
    if (index >= state->count) return INVALID_ARGUMENT;
    if (state->gpus[index].lost) return GPU_IS_LOST;
    *handle = index + 1;
    return SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, handle_t *handle) {
    if (!initialised) return UNINITIALIZED;
    int status = attach();
    if (status) return status;
    for (unsigned i = 0; i < state->count; i++) {
        gpu_t *gpu = &state->gpus[i];
        if (gpu->lost) { if (!strcmp(gpu->uuid, uuid)) return GPU_IS_LOST; continue; }
        if (!strcmp(gpu->uuid, uuid)) { *handle = i + 1; return SUCCESS; }
        for (unsigned j = 0; j < gpu->instance_count; j++)
            if (!strcmp(gpu->instances[j], uuid)) { *handle = (i + 1) | (handle_t)(j + 1) << 8; return SUCCESS; }
    }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(handle_t handle, char *text, unsigned length) {
    DEVICE;
    return put(text, length, instance(handle) < 0 ? gpu->uuid : gpu->instances[instance(handle)]);
}
int nvmlDeviceGetName(handle_t handle, char *text, unsigned length) {
    DEVICE;
    int result = put(text, length, gpu->name);
    if (!result && instance(handle) >= 0 && strlen(text) + 12 < length) strcat(text, " MIG 1g.10gb");
    return result;
}
int nvmlDeviceGetIndex(handle_t handle, unsigned *index) {
    CARD;
    *index = (unsigned)(gpu - state->gpus);
    return SUCCESS;
}
int nvmlDeviceGetMinorNumber(handle_t handle, unsigned *minor) { return nvmlDeviceGetIndex(handle, minor); }
int nvmlDeviceGetPciInfo_v3(handle_t handle, pci_t *pci) {
    CARD;
    memset(pci, 0, sizeof *pci);
    sscanf(gpu->pci, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
    return put(pci->bus_id, sizeof pci->bus_id, gpu->pci);
}
int nvmlDeviceGetMemoryInfo(handle_t handle, memory_t *memory) {
    DEVICE;
    memory->total = instance(handle) < 0 ? gpu->memory : gpu->memory / 8;
    memory->used = 0;
    memory->free = memory->total;
    return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(handle_t handle, int *major, int *minor) {
    DEVICE;
    *major = (int)gpu->major;
    *minor = (int)gpu->minor;
    return SUCCESS;
}
int nvmlDeviceGetPersistenceMode(handle_t handle, unsigned *mode) {
    CARD;
    *mode = gpu->persistence;
    return SUCCESS;
}
int nvmlDeviceGetMigMode(handle_t handle, unsigned *current, unsigned *pending) {
    CARD;
    *current = *pending = gpu->mig;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(handle_t handle, unsigned *count) {
    CARD;
    *count = INSTANCES;
    return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(handle_t handle, unsigned index, handle_t *found) {
    CARD;
    if (!gpu->mig || index >= gpu->instance_count) return NOT_FOUND;
    *found = handle | (handle_t)(index + 1) << 8;
    return SUCCESS;
}
int nvmlDeviceIsMigDeviceHandle(handle_t handle, unsigned *answer) {
    DEVICE;
    *answer = instance(handle) >= 0;
    return SUCCESS;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle_t handle, handle_t *parent) {
    DEVICE;
    *parent = handle & 255;
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(handle_t handle, unsigned *count, process_t *processes) {
    CARD;
    unsigned room = *count;
    *count = gpu->pid_count;
    if (!gpu->pid_count) return SUCCESS;
    if (room < gpu->pid_count) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < gpu->pid_count; i++)
        processes[i] = (process_t){gpu->pids[i], 512ull << 20, 0xffffffffu, 0xffffffffu};
    return SUCCESS;
}

static unsigned clamp(unsigned value, const uint32_t *locked) {
    if (!locked[0]) return value;
    return value < locked[0] ? locked[0] : value > locked[1] ? locked[1] : value;
}
int nvmlDeviceGetClockInfo(handle_t handle, unsigned kind, unsigned *mhz) {
    CARD;
    if (kind == 2) *mhz = clamp(gpu->mem_mhz, gpu->locked_mem);
    else if (kind > 2) return NOT_SUPPORTED;
    else *mhz = gpu->burst_reads ? gpu->burst_mhz : clamp(gpu->sm_mhz, gpu->locked_sm) - gpu->off_mhz;
    return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(handle_t handle, unsigned kind, unsigned *mhz) {
    CARD;
    *mhz = kind == 2 ? gpu->mem_clocks[0] : gpu->max_mhz;
    return SUCCESS;
}
int nvmlDeviceGetSupportedMemoryClocks(handle_t handle, unsigned *count, unsigned *clocks) {
    CARD;
    unsigned room = *count, found = 0;
    while (found < MEMORY_CLOCKS && gpu->mem_clocks[found]) found++;
    *count = found;
    if (room < found) return INSUFFICIENT_SIZE;
    memcpy(clocks, gpu->mem_clocks, found * sizeof *clocks);
    return SUCCESS;
}
int nvmlDeviceGetSupportedGraphicsClocks(handle_t handle, unsigned memory, unsigned *count, unsigned *clocks) {
    CARD;
    (void)memory;
    unsigned room = *count;
    *count = (gpu->max_mhz - gpu->min_mhz) / gpu->step_mhz + 1;
    if (room < *count) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) clocks[i] = gpu->max_mhz - i * gpu->step_mhz;
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(handle_t handle, unsigned *mw) {
    CARD;
    REFUSE(gpu->power_read_error);
    *mw = gpu->power_mw;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(handle_t handle, unsigned sensor, unsigned *celsius) {
    CARD;
    (void)sensor;
    *celsius = gpu->temperature;
    return SUCCESS;
}
int nvmlDeviceGetPowerManagementLimit(handle_t handle, unsigned *mw) {
    CARD;
    REFUSE(gpu->power_read_error);
    *mw = gpu->limit_mw;
    return SUCCESS;
}
int nvmlDeviceGetPowerManagementDefaultLimit(handle_t handle, unsigned *mw) {
    CARD;
    REFUSE(gpu->power_read_error);
    *mw = gpu->default_mw;
    return SUCCESS;
}
int nvmlDeviceGetPowerManagementLimitConstraints(handle_t handle, unsigned *low, unsigned *high) {
    CARD;
    REFUSE(gpu->power_read_error);
    *low = gpu->min_mw;
    *high = gpu->max_mw;
    return SUCCESS;
}
static int reasons(handle_t handle, unsigned long long *found) {
    CARD;
    *found = gpu->reasons;
    if (gpu->burst_reads) {
        gpu->burst_reads--;
        *found |= gpu->burst;
    }
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksEventReasons(handle_t handle, unsigned long long *found) {
    return state && state->old_driver ? FUNCTION_NOT_FOUND : reasons(handle, found);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(handle_t handle, unsigned long long *found) {
    return reasons(handle, found);
}

int nvmlDeviceSetGpuLockedClocks(handle_t handle, unsigned low, unsigned high) {
    CARD;
    REFUSE(gpu->core_error);
    int symbolic = low >= LIMIT_TDP;
    if (symbolic) REFUSE(gpu->symbolic_error);
    if (symbolic != (high >= LIMIT_TDP) || low > high) return INVALID_ARGUMENT;
    gpu->locked_sm[0] = low == LIMIT_TDP ? gpu->base_mhz : low == LIMIT_UNLIMITED ? gpu->min_mhz : low;
    gpu->locked_sm[1] = high == LIMIT_TDP ? gpu->base_mhz : high == LIMIT_UNLIMITED ? gpu->max_mhz : high;
    note(gpu, "core", gpu->locked_sm[0], gpu->locked_sm[1]);
    return SUCCESS;
}
int nvmlDeviceResetGpuLockedClocks(handle_t handle) {
    CARD;
    REFUSE(gpu->reset_error);
    gpu->locked_sm[0] = gpu->locked_sm[1] = 0;
    note(gpu, "core", 0, 0);
    return SUCCESS;
}
int nvmlDeviceSetMemoryLockedClocks(handle_t handle, unsigned low, unsigned high) {
    CARD;
    REFUSE(gpu->memory_error);
    gpu->locked_mem[0] = low;
    gpu->locked_mem[1] = high;
    note(gpu, "memory", low, high);
    return SUCCESS;
}
int nvmlDeviceResetMemoryLockedClocks(handle_t handle) {
    CARD;
    REFUSE(gpu->reset_error);
    gpu->locked_mem[0] = gpu->locked_mem[1] = 0;
    note(gpu, "memory", 0, 0);
    return SUCCESS;
}
int nvmlDeviceSetPowerManagementLimit(handle_t handle, unsigned mw) {
    CARD;
    REFUSE(gpu->power_error);
    if (mw < gpu->min_mw || mw > gpu->max_mw) return INVALID_ARGUMENT;
    gpu->limit_mw = mw;
    note(gpu, "power", mw, mw);
    return SUCCESS;
}
