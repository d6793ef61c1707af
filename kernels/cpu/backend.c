// The CPU among the backends: opening, closing, and the table of its functions.
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu/cpu.h"

static const char *lacks(int index, Precision precision) {
    (void)index;
    if (precision == PRECISION_TF32) { return "tf32 needs a CUDA device"; }
    if (precision == PRECISION_BF16 && !micro_best(true)) {
        return "bf16 needs a processor with AVX512-BF16, which this one lacks";
    }
    return NULL;
}

// All processors together are one device.
static int count(const char **why_none) {
    *why_none = NULL;
    return 1;
}

static bool describe(int index, DeviceInfo *info, Error *error) {
    (void)index, (void)error;
    *info = (DeviceInfo){.multiprocessors = omp_get_num_procs()};
    snprintf(info->name, sizeof info->name, "%s", micro_best(false)->name);
    return true;
}

static Device *open(int index, int threads, Precision precision, Error *error) {
    const char *lack = lacks(index, precision);
    if (lack) {
        error_set(error, EX_UNAVAILABLE, "%s", lack);
        return NULL;
    }
    CpuDevice *cpu = check_calloc(1, sizeof *cpu);
    cpu->base.backend = &cpu_backend;
    cpu->threads = threads < 1 ? 1 : threads;
    cpu->scratch = check_calloc((size_t)cpu->threads, sizeof *cpu->scratch);
    cpu->fp32 = micro_best(false);
    cpu->kernels = precision == PRECISION_BF16 ? micro_best(true) : cpu->fp32;
    omp_set_dynamic(0);
    return &cpu->base;
}

void cpu_device_close(Device *device) {
    CpuDevice *cpu = cpu_device(device);
    for (int i = 0; i < cpu->threads; i++) {
        for (int use = 0; use < SCRATCHES; use++) { free(cpu->scratch[i][use].memory); }
    }
    free(cpu->scratch);
    free(cpu);
}

const char *cpu_device_model(const Device *device) {
    (void)device;
    return micro_best(false)->name;
}

int cpu_device_threads(const Device *device) { return cpu_device(device)->threads; }

#define ENTRY(name) .name = cpu_##name,
const Backend cpu_backend = {.kind = DEVICE_CPU,
                             .name = "cpu",
                             .built = "built",
                             .lacks = lacks,
                             .count = count,
                             .describe = describe,
                             .open = open,
                             BACKEND_OPERATIONS(ENTRY)};
