// `bertune info` and `bertune --version`: what this build and machine can do, one `name: value` a line.
#include <hdf5.h>
#include <jansson.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

static void print_info(void) {
    printf("version: %s\ncommit: %s\ncompiler: %s\nbackends: cpu\ncuda: not built\n", BERTUNE_VERSION, BERTUNE_COMMIT,
           BERTUNE_COMPILER);
    print_libraries();
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    printf("host: %s\nprocessors: %d\ninstruction set: %s\nbf16: %s\n", host, omp_get_num_procs(),
           device_instructions(), device_lacks(PRECISION_BF16) ? "no" : "yes");
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
