// What the CPU as a device lends to operations: memory is the process's own, workers are OpenMP's threads.
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

void cpu_device_run(Device *device, void (*body)(void *context), void *context) {
#pragma omp parallel num_threads(cpu_device(device)->threads)
    body(context);
}

void cpu_device_sync(Device *device) {
    (void)device;
#pragma omp barrier
}

bool device_leader(void) { return omp_get_thread_num() == 0; }

Range own_share(size_t count, size_t grain) {
    const size_t worker = (size_t)omp_get_thread_num(), workers = (size_t)omp_get_num_threads();
    const size_t blocks = (count + grain - 1) / grain;
    const size_t begin = blocks * worker / workers * grain, end = blocks * (worker + 1) / workers * grain;
    return (Range){begin < count ? begin : count, end < count ? end : count};
}

void *cpu_device_alloc(Device *device, size_t bytes) {
    (void)device;
    return check_aligned(bytes);
}

void cpu_device_free(Device *device, void *memory) {
    (void)device;
    free(memory);
}

void cpu_device_zero(Device *device, void *memory, size_t bytes) {
    (void)device;
    const Range range = own_share(bytes, 4096);
    memset((char *)memory + range.begin, 0, range.end - range.begin);
}

void cpu_device_upload(Device *device, void *to, const void *host, size_t bytes) {
    (void)device;
    memcpy(to, host, bytes);
}

void cpu_device_download(Device *device, void *host, const void *from, size_t bytes) {
    (void)device;
    memcpy(host, from, bytes);
}

float *device_scratch(CpuDevice *device, ScratchUse use, size_t count) {
    Scratch *scratch = &device->scratch[omp_get_thread_num()][use];
    if (scratch->capacity < count) {
        free(scratch->memory);
        scratch->memory = check_aligned(count * sizeof(float));
        scratch->capacity = count;
    }
    return scratch->memory;
}

void device_product(CpuDevice *device, const MicroKernels *kernels, Product product) {
    product_compute(kernels, &product, device_scratch(device, SCRATCH_PRODUCT, product_scratch(kernels, &product)));
}
