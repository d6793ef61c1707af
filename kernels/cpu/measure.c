// What this machine can do at most, measured with all workers at once: the yardsticks of a profile.
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { RUNS = 20, PEAK_UNITS = 400000, COPY_BYTES = 96 << 20 };

static double best_of(Device *device, void (*body)(void *context), void *context) {
    double best = 0.0;
    for (int run = 0; run < RUNS; run++) {
        const double begin = omp_get_wtime();
        cpu_device_run(device, body, context);
        const double seconds = omp_get_wtime() - begin;
        best = run == 0 || seconds < best ? seconds : best;
    }
    return best;
}

// The largest tile over and over on operands that stay in the first-level cache.
static void multiply_add(void *context) {
    const MicroKernels *kernels = context;
    enum { WIDTH = MICRO_VECTORS * MICRO_LANES };
    float out[MICRO_ROWS * WIDTH] = {0}, b[WIDTH] = {0}, a[MICRO_ROWS] = {0};
    const Tile tile = {.out = out, .out_line = WIDTH, .a = a, .a_line = 1, .b = b, .next = b, .K = PEAK_UNITS};
    kernels->micro[MICRO_ROWS - 1][kernels->vectors - 1](&tile);
}

double cpu_device_peak_flops(Device *device) {
    const CpuDevice *cpu = cpu_device(device);
    const MicroKernels *kernels = cpu->kernels;
    const double products = (double)MICRO_ROWS * (double)(kernels->lanes * kernels->vectors) * PEAK_UNITS *
                            (kernels->pair_lines ? 2.0 : 1.0);
    return 2.0 * products * cpu->threads / best_of(device, multiply_add, (void *)kernels);
}

static void copy(void *context) {
    char *memory = context;
    const Range own = own_share(COPY_BYTES, 4096);
    memcpy(memory + COPY_BYTES + own.begin, memory + own.begin, own.end - own.begin);
}

double cpu_device_copy_bandwidth(Device *device) {
    char *memory = cpu_device_alloc(device, 2 * (size_t)COPY_BYTES);
    const double seconds = best_of(device, copy, memory);
    cpu_device_free(device, memory);
    return 2.0 * COPY_BYTES / seconds;
}
