// `bertune info` and `bertune --version`: what this build and machine can do, one `name: value` a line.
#include <dnnl.h>
#include <hdf5.h>
#include <jansson.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "trainer/commands.h"

static void print_libraries(void) {
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    unsigned major, minor, release;
    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = 0;
    H5get_libversion(&major, &minor, &release);
    const dnnl_version_t *onednn = dnnl_version();
    printf("mpi: %s\n", mpi);
    printf("hdf5: %u.%u.%u, parallel\n", major, minor, release);
    printf("onednn: %d.%d.%d\n", onednn->major, onednn->minor, onednn->patch);
    printf("jansson: %s\n", JANSSON_VERSION);
}

static const char *instruction_set(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) { return "AVX-512"; }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) { return "AVX2"; }
#endif
    return "baseline";
}

static void print_info(void) {
    printf("version: %s\ncommit: %s\ncompiler: %s\nbackends: cpu\ncuda: not built\n", BERTUNE_VERSION, BERTUNE_COMMIT,
           BERTUNE_COMPILER);
    print_libraries();
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    printf("host: %s\nprocessors: %d\ninstruction set: %s\n", host, omp_get_num_procs(), instruction_set());
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
