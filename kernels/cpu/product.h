// Matrix products of one worker: out (M, N) = A (M, K) B (K, N) + add, cut into tiles that a micro-kernel computes in
// registers. Micro-kernels are one template, micro.h, compiled once for each instruction set.
#ifndef BERTUNE_PRODUCT_H
#define BERTUNE_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>

enum { MICRO_ROWS = 6, MICRO_VECTORS = 4, MICRO_LANES = 16 };  // the largest tile: 6 lines of 4 vectors of 16 floats

// One tile in units of 32 bits: a float, or a pair of bfloat16 that follow each other in K.
typedef struct {
    float *out;
    size_t out_line;
    const float *add;  // what the sums start with; NULL: zero
    size_t add_line;
    const float *a;  // element (i, k) at i * a_line + k * a_step
    size_t a_line, a_step;
    const float *b;  // element (k, j) at k * b_step + j
    size_t b_step;
    const float *next;  // memory that will be read soon: a cache line at each next + k * next_step is fetched
    size_t next_step;
    size_t K;  // units
} Tile;

typedef void Micro(const Tile *tile);

// The micro-kernels of an instruction set for 1 to MICRO_ROWS lines of 1 to `vectors` vectors of `lanes` floats.
typedef struct {
    const char *name;
    size_t lanes, vectors;
    Micro *micro[MICRO_ROWS][MICRO_VECTORS];
    // Rounding to bfloat16; NULL where units are floats. Units of M lines: pairs of neighbours, an odd last one with 0.
    void (*pair_columns)(float *units, size_t units_line, const float *in, size_t in_line, size_t M, size_t K);
    // Units of ceil(K / 2) lines: element j of lines 2 i and 2 i + 1, an odd last line with 0.
    void (*pair_lines)(float *units, size_t units_line, const float *in, size_t in_line, size_t K, size_t N);
} MicroKernels;

// Those that this processor runs, best first, ended by NULL: fp32, then pairs of bfloat16.
const MicroKernels *const *micro_supported(void);

// The best of them, with pairs or without; NULL: none.
const MicroKernels *micro_best(bool pairs);

typedef struct Product Product;
struct Product {
    float *out;
    size_t out_line;
    bool roomy;        // the lines of out, and of add, have room for whole vectors; out's may be overwritten behind N
    const float *add;  // added to the product; NULL: nothing. Line 0 serves all lines when add_line is 0. May be out
    size_t add_line;
    const float *a;  // element (i, k) at i * a_line + k * a_step; one of the two is 1
    size_t a_line, a_step;
    const float *b;  // element (k, j) at k * b_step + j * b_column; one of the two is 1
    size_t b_step, b_column;
    size_t M, N, K;
    // Called for each finished tile, still in the cache; NULL: nothing.
    void (*finish)(const Product *product, size_t line, size_t column, size_t lines, size_t columns);
    float *finish_operand;  // what finish reads or writes besides, laid out as out
};

// scratch: of the calling worker, product_scratch floats.
void product_compute(const MicroKernels *kernels, const Product *product, float *scratch);
size_t product_scratch(const MicroKernels *kernels, const Product *product);

#endif
