// The CPU as a device: memory is the process's own, threads are OpenMP's.
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

Device *device_open(int threads) {
    Device *device = check_calloc(1, sizeof *device);
    device->threads = threads < 1 ? 1 : threads;
    device->scratch = check_calloc((size_t)device->threads, sizeof *device->scratch);
    device->scratch_capacity = check_calloc((size_t)device->threads, sizeof *device->scratch_capacity);
    omp_set_dynamic(0);
    omp_set_num_threads(device->threads);  // oneDNN follows it
    return device;
}

void device_close(Device *device) {
    if (!device) { return; }
    for (int i = 0; i < device->threads; i++) { free(device->scratch[i]); }
    free(device->scratch);
    free(device->scratch_capacity);
    free(device);
}

const char *device_name(void) { return "cpu"; }

int device_threads(const Device *device) { return device->threads; }

static void *aligned(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes ? bytes : 64) != 0) {
        die(EX_UNAVAILABLE, "out of memory: %zu bytes for the device", bytes);
    }
    return memory;
}

void *device_alloc(Device *device, size_t bytes) {
    (void)device;
    return memset(aligned(bytes), 0, bytes);
}

void device_free(Device *device, void *memory) {
    (void)device;
    free(memory);
}

void device_zero(Device *device, void *memory, size_t bytes) {
    FOR_RANGES(device, bytes, 4096) memset((char *)memory + range.begin, 0, range.end - range.begin);
}

void device_upload(Device *device, void *to, const void *host, size_t bytes) {
    (void)device;
    memcpy(to, host, bytes);
}

void device_download(Device *device, void *host, const void *from, size_t bytes) {
    (void)device;
    memcpy(host, from, bytes);
}

float *device_scratch(Device *device, size_t count) {
    int thread = omp_get_thread_num();
    if (device->scratch_capacity[thread] < count) {
        free(device->scratch[thread]);
        device->scratch[thread] = aligned(count * sizeof(float));
        device->scratch_capacity[thread] = count;
    }
    return device->scratch[thread];
}
