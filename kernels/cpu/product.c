// See product.h. The order of loops: blocks of M and K that the second-level cache holds, panels of B as wide as a
// tile, tiles. B is read where it lies as long as its columns are contiguous and fill whole vectors; else, and for
// pairs of bfloat16, a panel is packed. Every element is summed over K in one order, however M and N are cut.
#include "kernels/cpu/product.h"

#include <string.h>

#include "kernels/cpu/transpose.h"

enum { BLOCK_M = 512, BLOCK_K = 1024 };
enum { PADDING = 16 };  // floats behind a packed line of A, so that lines do not crowd the cache

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t units_of(const MicroKernels *kernels, size_t K) { return kernels->pair_lines ? (K + 1) / 2 : K; }

// Where the packed operands lie in the scratch memory.
typedef struct {
    size_t panel, pairs, end;
} ScratchPlan;

static ScratchPlan plan_of(const MicroKernels *kernels, const Product *p) {
    const size_t units = units_of(kernels, smaller(p->K, BLOCK_K)), width = kernels->lanes * kernels->vectors;
    ScratchPlan plan = {.panel = kernels->pair_lines ? (smaller(p->M, BLOCK_M) + PADDING) * (units + PADDING) : 0};
    plan.panel = (plan.panel + 15) / 16 * 16;  // keeps the panel aligned
    plan.pairs = plan.panel + units * width;
    plan.end = plan.pairs + (kernels->pair_lines ? units * width : 0);
    return plan;
}

size_t product_scratch(const MicroKernels *kernels, const Product *product) { return plan_of(kernels, product).end; }

// Points the tile at columns j .. j + columns of B in the block of K, packed into `panel` where it must be.
static void take_panel(Tile *tile, const MicroKernels *kernels, const Product *p, size_t k, size_t depth, size_t j,
                       size_t columns, float *panel, float *pairs) {
    const size_t width = (columns + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
    const float *b = p->b + k * p->b_step + j * p->b_column;
    tile->b = panel;
    tile->b_step = width;
    if (p->b_column != 1) {
        if (kernels->pair_columns) {
            kernels->pair_columns(pairs, tile->K, b, p->b_column, columns, depth);
            transpose(panel, width, pairs, tile->K, columns, tile->K);
        } else {
            transpose(panel, width, b, p->b_column, columns, depth);
        }
    } else if (kernels->pair_lines || columns < width) {
        if (columns < width) { memset(panel, 0, tile->K * width * sizeof *panel); }
        if (kernels->pair_lines) {
            kernels->pair_lines(panel, width, b, p->b_step, depth, columns);
        } else {
            for (size_t i = 0; i < depth; i++) { memcpy(panel + i * width, b + i * p->b_step, columns * sizeof *b); }
        }
    } else {
        tile->b = b;
        tile->b_step = p->b_step;
    }
}

// A tile whose last vector reaches over the end of out's lines goes through memory of its own.
static void compute_edge(Micro *micro, const Tile *tile, size_t lines, size_t columns) {
    enum { WIDTH = MICRO_VECTORS * MICRO_LANES };
    float sums[MICRO_ROWS * WIDTH] = {0};
    Tile inner = *tile;
    inner.out = sums;
    inner.out_line = inner.add_line = WIDTH;
    if (tile->add) {
        inner.add = sums;
        for (size_t i = 0; i < lines; i++) {
            memcpy(sums + i * WIDTH, tile->add + i * tile->add_line, columns * sizeof *sums);
        }
    }
    micro(&inner);
    for (size_t i = 0; i < lines; i++) {
        memcpy(tile->out + i * tile->out_line, sums + i * WIDTH, columns * sizeof *sums);
    }
}

// Where the next panel's operands lie. They are fetched into the cache while tiles of this panel are computed: one
// column of cache lines a tile, of B first, then of out and of what finish reads.
typedef struct {
    const float *begin;  // of B; NULL: there is no next panel, or it does not lie in regular steps
    size_t step;         // from a unit of K to the next
    size_t tile, round;  // from a tile to the next, and to the one behind `vectors` tiles
    size_t column;       // of out
} Ahead;

static Ahead panel_ahead(const MicroKernels *kernels, const Product *p, size_t k, size_t depth, size_t j) {
    enum { LINE = 16 };  // floats of a cache line
    const size_t units = units_of(kernels, depth), pair = depth > units ? 2 : 1;
    if (j >= p->N) { return (Ahead){0}; }
    const float *begin = p->b + k * p->b_step + j * p->b_column;
    if (p->b_column == 1) { return (Ahead){begin, pair * p->b_step, kernels->lanes, p->b_step, j}; }
    if (p->b_column != depth) { return (Ahead){0}; }
    return (Ahead){begin, LINE, units * LINE, kernels->vectors * units * LINE, j};
}

static void look_ahead(Tile *tile, const MicroKernels *kernels, const Product *p, Ahead ahead, size_t line,
                       size_t lines, size_t number) {
    const size_t rounds = kernels->pair_lines ? 2 : 1, round = number / kernels->vectors;
    const size_t vector = number % kernels->vectors;
    tile->next = tile->b;
    tile->next_step = 0;
    if (!ahead.begin) { return; }
    if (round < rounds) {
        tile->next = ahead.begin + vector * ahead.tile + round * ahead.round;
        tile->next_step = ahead.step;
    } else if (round < rounds + 2 && tile->K <= 2 * lines) {
        const float *operand = round == rounds ? p->out : p->finish_operand;
        if (!operand) { return; }
        tile->next = operand + line * p->out_line + ahead.column + vector * kernels->lanes;
        tile->next_step = p->out_line;
    }
}

static void compute_tiles(const MicroKernels *kernels, const Product *p, Tile tile, Tile block, Ahead ahead,
                          size_t line, size_t lines, size_t column, size_t columns, bool last) {
    const size_t vectors = (columns + kernels->lanes - 1) / kernels->lanes;
    const bool edge = vectors * kernels->lanes > columns && !p->roomy;
    for (size_t i = 0; i < lines; i += MICRO_ROWS) {
        const size_t rows = smaller(lines - i, MICRO_ROWS);
        look_ahead(&tile, kernels, p, ahead, line, lines, i / MICRO_ROWS);
        Micro *micro = kernels->micro[rows - 1][vectors - 1];
        tile.a = block.a + i * tile.a_line;
        tile.out = p->out + (line + i) * p->out_line + column;
        tile.add = block.add ? block.add + (line + i) * block.add_line + column : NULL;
        if (edge) {
            compute_edge(micro, &tile, rows, columns);
        } else {
            micro(&tile);
        }
        if (last && p->finish) { p->finish(p, line + i, column, rows, columns); }
    }
}

// Replaces the block's A, `lines` x `depth` floats, by a copy rounded to pairs.
static void round_a(Tile *block, const MicroKernels *kernels, float *pairs, size_t lines, size_t depth) {
    const bool by_lines = block->a_step == 1;
    const size_t stride = (by_lines ? block->K : lines) + PADDING;
    if (by_lines) {
        kernels->pair_columns(pairs, stride, block->a, block->a_line, lines, depth);
    } else {
        kernels->pair_lines(pairs, stride, block->a, block->a_step, depth, lines);
    }
    block->a = pairs;
    block->a_line = by_lines ? stride : 1;
    block->a_step = by_lines ? 1 : stride;
}

// One block of M and K: A is rounded to pairs once, then all panels of B go by.
static void compute_block(const MicroKernels *kernels, const Product *p, size_t line, size_t k, float *scratch) {
    const ScratchPlan plan = plan_of(kernels, p);
    const size_t lines = smaller(p->M - line, BLOCK_M), depth = smaller(p->K - k, BLOCK_K);
    const size_t width = kernels->lanes * kernels->vectors;
    Tile block = {.out_line = p->out_line,
                  .add = k ? p->out : p->add,
                  .add_line = k ? p->out_line : p->add_line,
                  .a = p->a + line * p->a_line + k * p->a_step,
                  .a_line = p->a_line,
                  .a_step = p->a_step,
                  .K = units_of(kernels, depth)};
    if (kernels->pair_lines) { round_a(&block, kernels, scratch, lines, depth); }
    for (size_t j = 0; j < p->N; j += width) {
        const size_t columns = smaller(p->N - j, width);
        Tile tile = block;
        take_panel(&tile, kernels, p, k, depth, j, columns, scratch + plan.panel, scratch + plan.pairs);
        const Ahead ahead = panel_ahead(kernels, p, k, depth, j + width);
        compute_tiles(kernels, p, tile, block, ahead, line, lines, j, columns, k + depth == p->K);
    }
}

// With nothing to sum over, out is what is added, or zero.
static void compute_nothing(const Product *p) {
    for (size_t i = 0; i < p->M; i++) {
        for (size_t j = 0; j < p->N; j++) { p->out[i * p->out_line + j] = p->add ? p->add[i * p->add_line + j] : 0.0f; }
    }
    if (p->finish && p->M && p->N) { p->finish(p, 0, 0, p->M, p->N); }
}

void product_compute(const MicroKernels *kernels, const Product *product, float *scratch) {
    if (product->K == 0) { compute_nothing(product); }
    for (size_t line = 0; line < product->M; line += BLOCK_M) {
        for (size_t k = 0; k < product->K; k += BLOCK_K) { compute_block(kernels, product, line, k, scratch); }
    }
}
