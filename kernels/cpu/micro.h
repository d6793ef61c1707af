// The template of the micro-kernels: a tile of sums is held in registers while K goes by; each unit of A is broadcast
// against vectors of B. Included once by each micro_*.c, which says what it is compiled for:
//   KERNELS           name of the MicroKernels it defines
//   LANES, VECTORS    floats of a vector; vectors of a tile's line, so that the sums fit the registers
//   MULTIPLY_ADD      (sum, unit of A, vector of B) -> sum + A B; default: plain fp32
#include "kernels/cpu/product.h"

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef float InMemory __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

#ifndef MULTIPLY_ADD
#define MULTIPLY_ADD(sum, a, b) ((sum) + (a) * (b))
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

static inline __attribute__((always_inline)) void tile_compute(const Tile *tile, const size_t rows,
                                                               const size_t vectors) {
    Vector sums[MICRO_ROWS][VECTORS];
    const size_t a_line = tile->a_line, a_step = tile->a_step, b_step = tile->b_step;
    UNROLL for (size_t i = 0; i < rows; i++) {
        UNROLL for (size_t v = 0; v < vectors; v++) {
            sums[i][v] =
                tile->add ? (Vector) * (const InMemory *)(tile->add + i * tile->add_line + v * LANES) : (Vector){0};
        }
    }
    const float *a = tile->a, *b = tile->b;
    const float *next = tile->next;
    const size_t next_step = tile->next_step;
    for (size_t k = tile->K; k > 0; k--, a += a_step, b += b_step, next += next_step) {
        __builtin_prefetch(next, 0, 2);
        Vector line[VECTORS];
        UNROLL for (size_t v = 0; v < vectors; v++) { line[v] = *(const InMemory *)(b + v * LANES); }
        UNROLL for (size_t i = 0; i < rows; i++) {
            UNROLL for (size_t v = 0; v < vectors; v++) {
                sums[i][v] = MULTIPLY_ADD(sums[i][v], a[i * a_line], line[v]);
            }
        }
    }
    UNROLL for (size_t i = 0; i < rows; i++) {
        UNROLL for (size_t v = 0; v < vectors; v++) {
            *(InMemory *)(tile->out + i * tile->out_line + v * LANES) = sums[i][v];
        }
    }
}

#define MICRO(rows, vectors) \
    static void micro_##rows##x##vectors(const Tile *tile) { tile_compute(tile, rows, vectors); }
#define MICRO_ALL_ROWS(vectors) \
    MICRO(1, vectors) MICRO(2, vectors) MICRO(3, vectors) MICRO(4, vectors) MICRO(5, vectors) MICRO(6, vectors)
MICRO_ALL_ROWS(1)
MICRO_ALL_ROWS(2)
#if VECTORS > 2
MICRO_ALL_ROWS(3)
MICRO_ALL_ROWS(4)
#define MICRO_ROW(rows) \
    { micro_##rows##x1, micro_##rows##x2, micro_##rows##x3, micro_##rows##x4 }
#else
#define MICRO_ROW(rows) \
    { micro_##rows##x1, micro_##rows##x2 }
#endif

#ifndef PAIRS
#define PAIRS .pair_columns = NULL, .pair_lines = NULL
#endif

const MicroKernels KERNELS = {
    .name = NAME,
    .lanes = LANES,
    .vectors = VECTORS,
    .micro = {MICRO_ROW(1), MICRO_ROW(2), MICRO_ROW(3), MICRO_ROW(4), MICRO_ROW(5), MICRO_ROW(6)},
    PAIRS};
