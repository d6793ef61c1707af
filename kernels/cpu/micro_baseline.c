// Micro-kernels for any processor, 128-bit vectors.
#define KERNELS micro_baseline
#define NAME "baseline"
#define LANES 4
#define VECTORS 2
#include "kernels/cpu/micro.h"
