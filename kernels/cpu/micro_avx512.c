// Micro-kernels for processors with AVX-512: 24 of 32 registers hold sums. Compiled with -march=x86-64-v4.
#define KERNELS micro_avx512
#define NAME "AVX-512"
#define LANES 16
#define VECTORS 4
#include "kernels/cpu/micro.h"
