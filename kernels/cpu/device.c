// The CPU as a device: memory is the process's own, workers are OpenMP's threads.
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

const char *device_lacks(Precision precision) {
    if (precision == PRECISION_TF32) { return "tf32 needs a CUDA device"; }
    if (precision == PRECISION_BF16 && !micro_best(true)) {
        return "bf16 needs a processor with AVX512-BF16, which this one lacks";
    }
    return NULL;
}

Device *device_open(int threads, Precision precision) {
    CHECK(!device_lacks(precision));
    Device *device = check_calloc(1, sizeof *device);
    device->threads = threads < 1 ? 1 : threads;
    device->scratch = check_calloc((size_t)device->threads, sizeof *device->scratch);
    device->fp32 = micro_best(false);
    device->kernels = precision == PRECISION_BF16 ? micro_best(true) : device->fp32;
    omp_set_dynamic(0);
    return device;
}

void device_close(Device *device) {
    if (!device) { return; }
    for (int i = 0; i < device->threads; i++) {
        for (int use = 0; use < SCRATCHES; use++) { free(device->scratch[i][use].memory); }
    }
    free(device->scratch);
    free(device->sums);
    free(device);
}

const char *device_name(void) { return "cpu"; }

const char *device_instructions(void) { return micro_best(false)->name; }

int device_threads(const Device *device) { return device->threads; }

void device_run(Device *device, void (*body)(void *context), void *context) {
#pragma omp parallel num_threads(device->threads)
    body(context);
}

void device_sync(Device *device) {
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

void *device_alloc(Device *device, size_t bytes) {
    (void)device;
    return check_aligned(bytes);
}

void device_free(Device *device, void *memory) {
    (void)device;
    free(memory);
}

void device_zero(Device *device, void *memory, size_t bytes) {
    (void)device;
    const Range range = own_share(bytes, 4096);
    memset((char *)memory + range.begin, 0, range.end - range.begin);
}

void device_upload(Device *device, void *to, const void *host, size_t bytes) {
    (void)device;
    memcpy(to, host, bytes);
}

void device_download(Device *device, void *host, const void *from, size_t bytes) {
    (void)device;
    memcpy(host, from, bytes);
}

float *device_scratch(Device *device, ScratchUse use, size_t count) {
    Scratch *scratch = &device->scratch[omp_get_thread_num()][use];
    if (scratch->capacity < count) {
        free(scratch->memory);
        scratch->memory = check_aligned(count * sizeof(float));
        scratch->capacity = count;
    }
    return scratch->memory;
}

void device_product(Device *device, const MicroKernels *kernels, Product product) {
    product_compute(kernels, &product, device_scratch(device, SCRATCH_PRODUCT, product_scratch(kernels, &product)));
}
