// Micro-kernels for processors with AVX2 and FMA: 12 of 16 registers hold sums. Compiled with -march=x86-64-v3.
#define KERNELS micro_avx2
#define NAME "AVX2"
#define LANES 8
#define VECTORS 2
#include "kernels/cpu/micro.h"
