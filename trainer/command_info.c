// `bertune info` and `bertune --version`: what this build and machine can do, one `name: value` a line.
#include <hdf5.h>
#include <jansson.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/nccl_api.h"
#include "kernels/kernels.h"
#include "trainer/commands.h"

static void print_libraries(void) {
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    unsigned major, minor, release;
    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = 0;
    H5get_libversion(&major, &minor, &release);
    printf("mpi: %s\n", mpi);
    printf("hdf5: %u.%u.%u, parallel\n", major, minor, release);
    printf("jansson: %s\n", JANSSON_VERSION);
}

static void print_gpu(int index) {
    DeviceInfo gpu;
    Error error;
    if (!device_describe(DEVICE_CUDA, index, &gpu, &error)) {
        printf("gpu %d: %s\n", index, error.text);
        return;
    }
    printf("gpu %d: %s, GPU-", index, gpu.name);
    for (size_t i = 0; i < sizeof gpu.uuid; i++) {
        printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", gpu.uuid[i]);
    }
    printf(", compute capability %d.%d, %d multiprocessors, %zu MiB, reached by", gpu.major, gpu.minor,
           gpu.multiprocessors, gpu.memory >> 20);
    for (int i = 0; i < 64; i++) {
        if (gpu.peers >> i & 1) { printf(" %d", i); }
    }
    printf("%s\n", gpu.peers ? "" : " none");
    if (index == 0) { printf("driver: CUDA %d.%d\n", gpu.driver / 1000, gpu.driver % 1000 / 10); }
}

static void print_gpus(void) {
    const char *none = "";
    Error error;
    const int count = device_count(DEVICE_CUDA, &none);
    const Nccl *nccl = nccl_load(&error);
    if (nccl) {
        printf("nccl: %d.%d.%d\n", nccl->version / 10000, nccl->version / 100 % 100, nccl->version % 100);
    } else {
        printf("nccl: none: %s\n", error.text);
    }
    printf("gpus: %d%s%s\n", count, count ? "" : ": ", count ? "" : none);
    for (int i = 0; i < count; i++) { print_gpu(i); }
}

static void print_info(void) {
    const bool cuda = strncmp(device_built(DEVICE_CUDA), "not", 3) != 0;
    printf("version: %s\ncommit: %s\ncompiler: %s\nbackends: cpu%s\ncuda: %s\n", BERTUNE_VERSION, BERTUNE_COMMIT,
           BERTUNE_COMPILER, cuda ? " cuda" : "", device_built(DEVICE_CUDA));
    print_libraries();
    DeviceInfo processor;
    Error error;
    CHECK(device_describe(DEVICE_CPU, 0, &processor, &error));
    if (cuda) { print_gpus(); }
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    printf("host: %s\nprocessors: %d\ninstruction set: %s\nbf16: %s\n", host, omp_get_num_procs(), processor.name,
           device_lacks(DEVICE_CPU, 0, PRECISION_BF16) ? "no" : "yes");
}

int command_info(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("Usage: bertune info\nPrints version, backends, libraries and devices, one `name: value` a line.");
        return EX_OK;
    }
    if (argc > 1) { return usage_error("info", "unexpected argument `%s`", argv[1]); }
    if (strcmp(argv[0], "--version") == 0) { printf("bertune %s\n", BERTUNE_VERSION); }
    print_info();
    return EX_OK;
}
