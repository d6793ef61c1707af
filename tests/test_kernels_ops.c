// Every operation but attention, dropout and the optimiser against the referee, at sizes around the vector widths, with
// one, two and three workers. Outputs that are written, not added to, start as not-a-number.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "tests/ref.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static const int sizes[] = {1, 3, 15, 16, 17, 33, 63, 64, 65, 127, 128, 129};
static const int widths[] = {1, 3, 8, 15, 16, 17, 32, 48, 63, 65, 127, 128, 129, 256, 384};
static const Tolerance exact = {0.0, 0.0}, tight = {1e-6, 1e-6}, sums = {1e-5, 2e-5};

static Array empty(Bench *bench, int lines, int width) {
    return bench_fill(bench, (size_t)lines * (size_t)width, (double)NAN);
}

static Array random_lines(Bench *bench, int lines, int width, double scale) {
    return bench_random(bench, (size_t)lines * (size_t)width, scale, 0.0);
}

// A parameter's gradient before an operation that adds to it, or overwrites whatever it is.
static Array gradient(Bench *bench, int lines, int width, bool accumulate) {
    return accumulate ? random_lines(bench, lines, width, 1.0) : empty(bench, lines, width);
}

// Indices below limit in an order without pattern.
static void fill_indices(int32_t *indices, int count, int limit) {
    for (int i = 0; i < count; i++) { indices[i] = i * 37 % 101 % limit; }
}

static void embedding_case(Bench *bench, int T, int H) {
    enum { WORDS = 11, POSITIONS = 7, PADDING = 3 };
    int32_t ids[256], positions[256];
    fill_indices(ids, T, WORDS);
    fill_indices(positions, T, POSITIONS);
    int32_t *device_ids = bench_list(bench, ids, (size_t)T), *at = bench_list(bench, positions, (size_t)T);
    Array word = random_lines(bench, WORDS, H, 1.0), position = random_lines(bench, POSITIONS, H, 1.0);
    Array type = random_lines(bench, 1, H, 1.0), out = empty(bench, T, H);
    Device *device = bench->device;
    ON_WORKERS(bench, embedding_forward(device, out.device, word.device, position.device, type.device, device_ids, at,
                                        extent(T), H));
    ref_embedding_forward(out.host, word.host, position.host, type.host, ids, positions, T, H);
    bench_check(bench, "embedding_forward", out, tight);

    Array dout = random_lines(bench, T, H, 1.0);  // added to the tables, which serve as their own gradients
    for (int padding = -1; padding <= PADDING; padding += PADDING + 1) {
        ON_WORKERS(bench, embedding_backward(device, word.device, position.device, type.device, dout.device, device_ids,
                                             at, padding, true, WORDS, POSITIONS, extent(T), H));
        ref_embedding_backward(word.host, position.host, type.host, dout.host, ids, positions, padding, T, H);
    }
    Array alone[3] = {empty(bench, WORDS, H), empty(bench, POSITIONS, H), empty(bench, 1, H)};
    for (int i = 0; i < 3; i++) { memset(alone[i].host, 0, alone[i].count * sizeof *alone[i].host); }
    ON_WORKERS(bench, embedding_backward(device, alone[0].device, alone[1].device, alone[2].device, dout.device,
                                         device_ids, at, PADDING, false, WORDS, POSITIONS, extent(T), H));
    ref_embedding_backward(alone[0].host, alone[1].host, alone[2].host, dout.host, ids, positions, PADDING, T, H);
    for (int i = 0; i < 3; i++) { bench_check(bench, "embedding_backward: written", alone[i], sums); }
    bench_check(bench, "embedding_backward: dword", word, sums);
    bench_check(bench, "embedding_backward: dposition", position, sums);
    bench_check(bench, "embedding_backward: dtype", type, sums);
    bench_clear(bench);
}

static void embedding(Bench *bench) {
    for (size_t i = 0; i < LENGTH(widths); i++) { embedding_case(bench, 33, widths[i]); }
    for (size_t i = 0; i < LENGTH(sizes); i++) { embedding_case(bench, sizes[i], 48); }
}

static void layernorm_case(Bench *bench, int M, int N, float epsilon, bool in_place) {
    Device *device = bench->device;
    Array in = bench_random(bench, (size_t)M * (size_t)N, 2.0, 0.5), weight = random_lines(bench, 1, N, 1.0);
    Array bias = random_lines(bench, 1, N, 1.0), out = empty(bench, M, N), rstd = empty(bench, M, 1);
    Array normalized = in_place ? in : empty(bench, M, N);
    ON_WORKERS(bench, layernorm_forward(device, out.device, normalized.device, rstd.device, in.device, weight.device,
                                        bias.device, epsilon, extent(M), N));
    ref_layernorm_forward(out.host, normalized.host, rstd.host, in.host, weight.host, bias.host, (double)epsilon, M, N);
    bench_check(bench, "layernorm_forward", out, sums);
    bench_check(bench, "layernorm_forward: normalized", normalized, sums);
    bench_check(bench, "layernorm_forward: rstd", rstd, sums);

    Array dout = random_lines(bench, M, N, 1.0), din = empty(bench, M, N);
    ON_WORKERS(bench, layernorm_backward_input(device, din.device, dout.device, normalized.device, rstd.device,
                                               weight.device, extent(M), N));
    ref_layernorm_backward_input(din.host, dout.host, normalized.host, rstd.host, weight.host, M, N);
    bench_check(bench, "layernorm_backward_input", din, sums);
    for (int accumulate = 0; accumulate <= 1; accumulate++) {
        Array dweight = gradient(bench, 1, N, accumulate), dbias = gradient(bench, 1, N, accumulate);
        ON_WORKERS(bench, layernorm_backward_parameters(device, dweight.device, dbias.device, dout.device,
                                                        normalized.device, accumulate, extent(M), N));
        ref_layernorm_backward_parameters(dweight.host, dbias.host, dout.host, normalized.host, accumulate, M, N);
        bench_check(bench, "layernorm_backward_parameters: dweight", dweight, sums);
        bench_check(bench, "layernorm_backward_parameters: dbias", dbias, sums);
    }
    bench_clear(bench);
}

static void layernorm(Bench *bench) {
    for (size_t i = 0; i < LENGTH(widths); i++) { layernorm_case(bench, 5, widths[i], 1e-3f, i % 2 == 1); }
    for (size_t i = 0; i < LENGTH(sizes); i++) { layernorm_case(bench, sizes[i], 32, 1e-12f, false); }
}

static void residual_layernorm_case(Bench *bench, int M, int N, float probability, bool in_place) {
    const Dropout dropout = {.probability = probability, .seed = 42, .step = 3, .site = 9};
    int32_t positions[256], rows[256];
    fill_indices(positions, M, 100);
    fill_indices(rows, M, 90);
    const Lines lines = {(uint32_t *)rows, positions};
    const Lines device_lines = {bench_list(bench, rows, (size_t)M), bench_list(bench, positions, (size_t)M)};
    Array in = random_lines(bench, M, N, 1.0), residual = random_lines(bench, M, N, 2.0);
    Array weight = random_lines(bench, 1, N, 1.0), bias = random_lines(bench, 1, N, 1.0);
    Array normalized = in_place ? in : empty(bench, M, N), out = empty(bench, M, N), rstd = empty(bench, M, 1);
    ON_WORKERS(bench, residual_layernorm_forward(bench->device, out.device, normalized.device, rstd.device, in.device,
                                                 residual.device, weight.device, bias.device, 1e-3f, device_lines,
                                                 dropout, extent(M), N));
    ref_residual_layernorm_forward(out.host, normalized.host, rstd.host, in.host, residual.host, weight.host, bias.host,
                                   (double)1e-3f, lines, dropout, M, N);
    bench_check(bench, "residual_layernorm_forward", out, sums);
    bench_check(bench, "residual_layernorm_forward: normalized", normalized, sums);
    bench_check(bench, "residual_layernorm_forward: rstd", rstd, sums);
    bench_clear(bench);
}

static void residual_layernorm(Bench *bench) {
    for (size_t i = 0; i < LENGTH(widths); i++) {
        residual_layernorm_case(bench, 17, widths[i], 0.25f, false);
        residual_layernorm_case(bench, 17, widths[i], 0.25f, true);
        residual_layernorm_case(bench, 17, widths[i], 0.0f, i % 2 == 0);
    }
}

// What a product over `depth` may be off by, of operands in -1 .. 1. Tf32 keeps 10 bits behind the point, rounded or
// cut off as the device likes.
static Tolerance products(const Bench *bench, int depth) {
    if (bench->precision == PRECISION_TF32) { return (Tolerance){2e-3, 2e-3 * sqrt(1.0 + depth)}; }
    return (Tolerance){1e-6, 1e-6 + 2e-7 * depth};
}

// What the device's products see of an array: rounded where its precision says how.
static const double *operand(Bench *bench, Array array) {
    if (bench->precision != PRECISION_BF16) { return array.host; }
    Array rounded = bench_fill(bench, array.count, 0.0);
    for (size_t i = 0; i < array.count; i++) { rounded.host[i] = ref_bfloat16(array.host[i]); }
    return rounded.host;
}

static void linear_forward_case(Bench *bench, int M, int N, int K) {
    Device *device = bench->device;
    Array in = random_lines(bench, M, K, 1.0), weight = random_lines(bench, N, K, 1.0);
    Array bias = random_lines(bench, 1, N, 1.0), out = empty(bench, M, N);
    const double *host_in = operand(bench, in), *host_weight = operand(bench, weight);
    ON_WORKERS(bench, linear_forward(device, out.device, in.device, weight.device, bias.device, extent(M), N, K));
    ref_linear_forward(out.host, host_in, host_weight, bias.host, M, N, K);
    bench_check(bench, "linear_forward", out, products(bench, K));

    Array derivative = empty(bench, M, N), activated = empty(bench, M, N), alone = empty(bench, M, N);
    ON_WORKERS(bench, linear_gelu_forward(device, activated.device, derivative.device, in.device, weight.device,
                                          bias.device, extent(M), N, K));
    ref_linear_gelu_forward(activated.host, derivative.host, host_in, host_weight, bias.host, M, N, K);
    bench_check(bench, "linear_gelu_forward", activated, products(bench, K));
    bench_check(bench, "linear_gelu_forward: derivative", derivative, products(bench, K));
    ON_WORKERS(bench,
               linear_gelu_forward(device, alone.device, NULL, in.device, weight.device, bias.device, extent(M), N, K));
    memcpy(alone.host, activated.host, alone.count * sizeof *alone.host);
    bench_check(bench, "linear_gelu_forward without derivative", alone, products(bench, K));
    bench_clear(bench);
}

static void linear_backward_input_case(Bench *bench, int M, int N, int K) {
    Device *device = bench->device;
    Array dout = random_lines(bench, M, N, 1.0), weight = random_lines(bench, N, K, 1.0);
    const double *host_dout = operand(bench, dout), *host_weight = operand(bench, weight);
    Array residual = random_lines(bench, M, K, 1.0), din = empty(bench, M, K), sum = empty(bench, M, K);
    ON_WORKERS(bench, linear_backward_input(device, din.device, dout.device, weight.device, NULL, extent(M), N, K));
    ref_linear_backward_input(din.host, host_dout, host_weight, NULL, M, N, K);
    bench_check(bench, "linear_backward_input", din, products(bench, N));
    ON_WORKERS(bench,
               linear_backward_input(device, sum.device, dout.device, weight.device, residual.device, extent(M), N, K));
    ref_linear_backward_input(sum.host, host_dout, host_weight, residual.host, M, N, K);
    bench_check(bench, "linear_backward_input with residual", sum, products(bench, N));
    ON_WORKERS(bench, linear_backward_input(device, residual.device, dout.device, weight.device, residual.device,
                                            extent(M), N, K));
    memcpy(residual.host, sum.host, sum.count * sizeof *sum.host);
    bench_check(bench, "linear_backward_input onto residual", residual, products(bench, N));

    Array derivative = random_lines(bench, M, K, 1.0), dgelu = empty(bench, M, K);
    ON_WORKERS(bench, linear_gelu_backward_input(device, dgelu.device, dout.device, weight.device, derivative.device,
                                                 extent(M), N, K));
    ref_linear_gelu_backward_input(dgelu.host, host_dout, host_weight, derivative.host, M, N, K);
    bench_check(bench, "linear_gelu_backward_input", dgelu, products(bench, N));
    bench_clear(bench);
}

static void linear_backward_weight_case(Bench *bench, int M, int N, int K) {
    Device *device = bench->device;
    Array dout = random_lines(bench, M, N, 1.0), in = random_lines(bench, M, K, 1.0);
    Array unused = empty(bench, N, K);
    const double *host_dout = operand(bench, dout), *host_in = operand(bench, in);
    for (int accumulate = 0; accumulate <= 1; accumulate++) {
        Array dweight = gradient(bench, N, K, accumulate), dbias = gradient(bench, 1, N, accumulate);
        ON_WORKERS(bench, linear_backward_weight(device, dweight.device, dbias.device, dout.device, in.device,
                                                 accumulate, extent(M), N, K));
        ref_linear_backward_weight(dweight.host, unused.host, host_dout, host_in, accumulate, M, N, K);
        // Sums of columns are no products: their operand is never rounded.
        ref_linear_backward_weight(unused.host, dbias.host, dout.host, in.host, accumulate, M, N, K);
        bench_check(bench, "linear_backward_weight: dweight", dweight, products(bench, M));
        bench_check(bench, "linear_backward_weight: dbias", dbias, sums);
    }
    bench_clear(bench);
}

static void linear_case(Bench *bench, int M, int N, int K) {
    linear_forward_case(bench, M, N, K);
    linear_backward_input_case(bench, M, N, K);
    linear_backward_weight_case(bench, M, N, K);
}

// The last shapes have lines of 4 KiB, which products pack, and sums over more than one block.
static void linear(Bench *bench) {
    const int shapes[][2] = {{1, 1}, {2, 384}, {3, 15}, {8, 32}, {33, 48}, {129, 65}, {256, 64}};
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        for (size_t j = i % 4; j < LENGTH(shapes); j += 4) { linear_case(bench, sizes[i], shapes[j][0], shapes[j][1]); }
    }
    linear_case(bench, 77, 20, 1024);
    linear_case(bench, 33, 1024, 96);
    linear_case(bench, 7, 17, 1030);
}

// A rank may have no line at all.
static void linear_of_nothing(Bench *bench) {
    Device *device = bench->device;
    Array weight = random_lines(bench, 3, 5, 1.0), bias = random_lines(bench, 1, 3, 1.0), none = empty(bench, 0, 1);
    float *nothing = none.device;
    ON_WORKERS(bench, linear_forward(device, nothing, nothing, weight.device, bias.device, extent(0), 3, 5);
               linear_gelu_forward(device, nothing, nothing, nothing, weight.device, bias.device, extent(0), 3, 5);
               linear_backward_input(device, nothing, nothing, weight.device, nothing, extent(0), 3, 5);
               linear_gelu_backward_input(device, nothing, nothing, weight.device, nothing, extent(0), 3, 5));
    ON_WORKERS(bench,
               linear_backward_weight(device, weight.device, bias.device, nothing, nothing, true, extent(0), 3, 5));
    bench_check(bench, "dweight of no lines, added to", weight, exact);
    bench_check(bench, "dbias of no lines, added to", bias, exact);
    Array dweight = empty(bench, 3, 5), dbias = empty(bench, 1, 3);
    ON_WORKERS(bench,
               linear_backward_weight(device, dweight.device, dbias.device, nothing, nothing, false, extent(0), 3, 5));
    ref_linear_backward_weight(dweight.host, dbias.host, none.host, none.host, false, 0, 3, 5);
    bench_check(bench, "dweight of no lines, written", dweight, exact);
    bench_check(bench, "dbias of no lines, written", dbias, exact);
}

// The GELU by itself, behind a product with the unit matrix, which changes nothing.
static void gelu_case(Bench *bench, int M, int N) {
    Device *device = bench->device;
    Array in = random_lines(bench, M, N, 6.0), unit = bench_fill(bench, (size_t)N * (size_t)N, 0.0);
    Array none = bench_fill(bench, (size_t)N, 0.0), out = empty(bench, M, N), derivative = empty(bench, M, N);
    for (int i = 0; i < N; i++) { unit.host[i * N + i] = 1.0; }
    bench_upload(bench, unit);
    ON_WORKERS(bench, linear_gelu_forward(device, out.device, derivative.device, in.device, unit.device, none.device,
                                          extent(M), N, N));
    ref_linear_gelu_forward(out.host, derivative.host, in.host, unit.host, none.host, M, N, N);
    bench_check(bench, "linear_gelu_forward of a unit", out, tight);
    bench_check(bench, "linear_gelu_forward of a unit: derivative", derivative, tight);
    bench_clear(bench);
}

static void tanh_case(Bench *bench, int M, int N) {
    Device *device = bench->device;
    Array in = random_lines(bench, M, N, 6.0), dout = random_lines(bench, M, N, 1.0);
    Array out = empty(bench, M, N), din = empty(bench, M, N);
    ON_WORKERS(bench, tanh_forward(device, out.device, in.device, extent(M), N));
    ref_tanh_forward(out.host, in.host, M, N);
    bench_check(bench, "tanh_forward", out, tight);
    ON_WORKERS(bench, tanh_backward(device, din.device, dout.device, out.device, extent(M), N));
    ref_tanh_backward(din.host, dout.host, out.host, M, N);
    bench_check(bench, "tanh_backward", din, tight);
    bench_clear(bench);
}

static void activations(Bench *bench) {
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        gelu_case(bench, sizes[i], widths[i]);
        tanh_case(bench, sizes[i], widths[i]);
    }
    gelu_case(bench, 200, 48);
}

enum { CHAIN = 37, WIDE = 96, NARROW = 48 };

typedef struct {
    Device *device;
    Array in, up, down, bias, wide, narrow, out, rstd, sum;
    Lines lines;
    Dropout dropout;
} Chain;

static void run_chain(void *context) {
    const Chain *c = context;
    Device *device = c->device;
    const Extent M = extent(CHAIN);
    linear_gelu_forward(device, c->wide.device, NULL, c->in.device, c->up.device, c->bias.device, M, WIDE, NARROW);
    linear_forward(device, c->narrow.device, c->wide.device, c->down.device, c->bias.device, M, NARROW, WIDE);
    residual_layernorm_forward(device, c->out.device, c->narrow.device, c->rstd.device, c->narrow.device, c->in.device,
                               c->bias.device, c->bias.device, 1e-3f, c->lines, c->dropout, M, NARROW);
    tanh_forward(device, c->out.device, c->out.device, M, NARROW);
    linear_backward_input(device, c->sum.device, c->wide.device, c->up.device, c->out.device, M, WIDE, NARROW);
}

// Operations by lines follow each other without device_sync, since each worker goes on with the lines that it computed.
static void lines_stay_with_workers(Bench *bench) {
    int32_t numbers[CHAIN];
    fill_indices(numbers, CHAIN, 50);
    const Lines lines = {(uint32_t *)numbers, numbers};
    const int32_t *list = bench_list(bench, numbers, CHAIN);
    Chain c = {.device = bench->device,
               .in = random_lines(bench, CHAIN, NARROW, 1.0),
               .up = random_lines(bench, WIDE, NARROW, 0.2),
               .down = random_lines(bench, NARROW, WIDE, 0.2),
               .bias = random_lines(bench, 1, WIDE, 1.0),
               .wide = empty(bench, CHAIN, WIDE),
               .narrow = empty(bench, CHAIN, NARROW),
               .out = empty(bench, CHAIN, NARROW),
               .rstd = empty(bench, CHAIN, 1),
               .sum = empty(bench, CHAIN, NARROW),
               .lines = {(const uint32_t *)list, list},
               .dropout = {.probability = 0.25f, .seed = 7}};
    device_run(bench->device, run_chain, &c);
    ref_linear_gelu_forward(c.wide.host, NULL, c.in.host, c.up.host, c.bias.host, CHAIN, WIDE, NARROW);
    ref_linear_forward(c.narrow.host, c.wide.host, c.down.host, c.bias.host, CHAIN, NARROW, WIDE);
    ref_residual_layernorm_forward(c.out.host, c.narrow.host, c.rstd.host, c.narrow.host, c.in.host, c.bias.host,
                                   c.bias.host, 1e-3, lines, c.dropout, CHAIN, NARROW);
    ref_tanh_forward(c.out.host, c.out.host, CHAIN, NARROW);
    ref_linear_backward_input(c.sum.host, c.wide.host, c.up.host, c.out.host, CHAIN, WIDE, NARROW);
    bench_check(bench, "a chain of operations", c.sum, sums);
}

static void cross_entropy_case(Bench *bench, int B, int C, double scale) {
    int32_t labels[256];
    fill_indices(labels, B, C);
    const int32_t *device_labels = bench_list(bench, labels, (size_t)B);
    Array logits = random_lines(bench, B, C, scale), losses = empty(bench, B, 1), dlogits = empty(bench, B, C);
    Device *device = bench->device;
    ON_WORKERS(bench, cross_entropy(device, losses.device, dlogits.device, logits.device, device_labels,
                                    (Factor){0.125f, NULL}, extent(B), C));
    ref_cross_entropy(losses.host, dlogits.host, logits.host, labels, 0.125, B, C);
    bench_check(bench, "cross_entropy", losses, tight);
    bench_check(bench, "cross_entropy: dlogits", dlogits, tight);
    Array only_losses = empty(bench, B, 1);
    ON_WORKERS(bench, cross_entropy(device, only_losses.device, NULL, logits.device, device_labels,
                                    (Factor){1.0f, NULL}, extent(B), C));
    memcpy(only_losses.host, losses.host, (size_t)B * sizeof(double));
    bench_check(bench, "cross_entropy without gradient", only_losses, tight);
    bench_clear(bench);
}

static void cross_entropies(Bench *bench) {
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        cross_entropy_case(bench, sizes[i], 2, 3.0);
        cross_entropy_case(bench, sizes[i], 5, 1e4);
    }
    cross_entropy_case(bench, 17, 77, 3.0);
}

static void lines_case(Bench *bench, int M, int N) {
    int32_t picked[256];
    for (int i = 0; i < M; i++) { picked[i] = 2 * (M - 1 - i); }
    const int32_t *device_picked = bench_list(bench, picked, (size_t)M);
    Array all = random_lines(bench, 2 * M, N, 1.0), some = empty(bench, M, N);
    Device *device = bench->device;
    ON_WORKERS(bench, gather_lines(device, some.device, all.device, device_picked, extent(M), N));
    ref_gather_lines(some.host, all.host, picked, M, N);
    bench_check(bench, "gather_lines", some, exact);
    Array more = random_lines(bench, M, N, 1.0);
    ON_WORKERS(bench, scatter_add_lines(device, all.device, more.device, device_picked, extent(M), N));
    ref_scatter_add_lines(all.host, more.host, picked, M, N);
    bench_check(bench, "scatter_add_lines", all, tight);
    const size_t count = (size_t)M * (size_t)N;
    ON_WORKERS(bench, add(device, some.device, more.device, count));
    ref_add(some.host, more.host, count);
    bench_check(bench, "add", some, tight);
    bench_clear(bench);
}

static void moving_lines(Bench *bench) {
    for (size_t i = 0; i < LENGTH(sizes); i++) { lines_case(bench, sizes[i], widths[i]); }
}

static void test_square_sum(void **state) {
    (void)state;
    const size_t counts[] = {0, 1, 15, 17, 129, 8191, 8192, 8193, 30000};
    double first_sums[LENGTH(counts)];
    for (int threads = 1; threads <= 3; threads++) {
        Bench bench;
        bench_open(&bench, threads);
        for (size_t i = 0; i < LENGTH(counts); i++) {
            Array in = bench_random(&bench, counts[i], 100.0, 0.0);
            const double sum = square_sum(bench.device, in.device, counts[i]);
            const double truth = ref_square_sum(in.host, counts[i]);
            assert_true(fabs(sum - truth) <= 1e-12 * truth);
            if (threads == 1) { first_sums[i] = sum; }
            assert_true(sum == first_sums[i]);
        }
        bench_close(&bench);
    }
}

// What the GELU and its derivative tend to; both multiply infinity by 0 at minus infinity, as PyTorch does.
static void gelu_extremes(Bench *bench) {
    const double values[] = {0.0, -0.0, 1e-30, -1e-30, 5.0, -5.0, 13.3, -13.3, 30.0, -30.0, 1e30, -1e30};
    const int count = LENGTH(values);
    Array in = bench_fill(bench, LENGTH(values), 0.0), one = bench_fill(bench, 1, 1.0),
          zero = bench_fill(bench, 1, 0.0);
    Array out = empty(bench, count, 1), derivative = empty(bench, count, 1);
    memcpy(in.host, values, sizeof values);
    bench_upload(bench, in);
    ON_WORKERS(bench, linear_gelu_forward(bench->device, out.device, derivative.device, in.device, one.device,
                                          zero.device, extent(count), 1, 1));
    ref_linear_gelu_forward(out.host, derivative.host, in.host, one.host, zero.host, count, 1, 1);
    bench_check(bench, "gelu of extremes", out, tight);
    bench_check(bench, "gelu of extremes: derivative", derivative, tight);
}

// Fails unless exactly the elements begin .. end are not-a-number.
static void check_nans(Bench *bench, const char *name, Array array, size_t begin, size_t end) {
    float *values = bench_download(bench, array);
    for (size_t i = 0; i < array.count; i++) {
        if (isnan(values[i]) != (i >= begin && i < end)) {
            fail_msg("%s: element %zu is %g", name, i, (double)values[i]);
        }
    }
    free(values);
}

enum { M = 3, N = 33, BAD = N + 20 };  // a not-a-number in line 1 of 3

static Array random_with_nan(Bench *bench, double nan_value) {
    Array in = random_lines(bench, M, N, 1.0);
    in.host[BAD] = nan_value;
    bench_upload(bench, in);
    return in;
}

static void nan_in_activations(Bench *bench) {
    Device *device = bench->device;
    for (double sign = -1.0; sign <= 1.0; sign += 2.0) {
        Array in = random_with_nan(bench, sign * (double)NAN), ones = bench_fill(bench, in.count, 1.0);
        Array zero = bench_fill(bench, 1, 0.0), out = bench_fill(bench, in.count, 0.0);
        Array derivative = bench_fill(bench, in.count, 0.0);
        linear_gelu_forward(device, out.device, derivative.device, in.device, ones.device, zero.device, extent(M * N),
                            1, 1);
        check_nans(bench, "linear_gelu_forward", out, BAD, BAD + 1);
        check_nans(bench, "linear_gelu_forward: derivative", derivative, BAD, BAD + 1);
        linear_gelu_backward_input(device, out.device, ones.device, ones.device, derivative.device, extent(M * N), 1,
                                   1);
        check_nans(bench, "linear_gelu_backward_input", out, BAD, BAD + 1);
        linear_gelu_backward_input(device, out.device, in.device, ones.device, ones.device, extent(M * N), 1, 1);
        check_nans(bench, "linear_gelu_backward_input: dout", out, BAD, BAD + 1);
        tanh_forward(device, out.device, in.device, extent(M), N);
        check_nans(bench, "tanh_forward", out, BAD, BAD + 1);
        bench_clear(bench);
    }
}

static void nan_in_lines(Bench *bench) {
    Device *device = bench->device;
    Array in = random_with_nan(bench, (double)NAN), weight = random_lines(bench, N, N, 1.0);
    Array bias = random_lines(bench, 1, N, 1.0), out = bench_fill(bench, in.count, 0.0);
    Array normalized = bench_fill(bench, in.count, 0.0), rstd = bench_fill(bench, M, 0.0);
    layernorm_forward(device, out.device, normalized.device, rstd.device, in.device, weight.device, bias.device, 1e-12f,
                      extent(M), N);
    check_nans(bench, "layernorm_forward", out, N, 2 * N);
    check_nans(bench, "layernorm_forward: rstd", rstd, 1, 2);
    linear_forward(device, out.device, in.device, weight.device, bias.device, extent(M), N, N);
    check_nans(bench, "linear_forward", out, N, 2 * N);
    linear_backward_input(device, out.device, in.device, weight.device, NULL, extent(M), N, N);
    check_nans(bench, "linear_backward_input", out, N, 2 * N);
    linear_backward_weight(device, weight.device, bias.device, in.device, in.device, true, extent(M), N, N);
    check_nans(bench, "linear_backward_weight: dbias", bias, BAD - N, BAD - N + 1);
    assert_true(isnan(square_sum(device, in.device, in.count)));
}

static void nan_in_logits(Bench *bench) {
    const int32_t labels[M] = {0, 0, 32};
    const int32_t *device_labels = bench_list(bench, labels, M);
    Array in = random_with_nan(bench, (double)NAN), losses = bench_fill(bench, M, 0.0);
    Array dlogits = bench_fill(bench, in.count, 0.0);
    cross_entropy(bench->device, losses.device, dlogits.device, in.device, device_labels, (Factor){1.0f, NULL},
                  extent(M), N);
    check_nans(bench, "cross_entropy", losses, 1, 2);
    check_nans(bench, "cross_entropy: dlogits", dlogits, N, 2 * N);
}

typedef struct {
    Device *device;
    int started, leaders, seen[3], workers_seen;
    size_t bytes;
    char *memory;
} Region;

static void meet(void *context) {
    Region *region = context;
    __atomic_fetch_add(&region->started, 1, __ATOMIC_SEQ_CST);
    if (device_leader()) { __atomic_fetch_add(&region->leaders, 1, __ATOMIC_SEQ_CST); }
    device_sync(region->device);
    const int started = __atomic_load_n(&region->started, __ATOMIC_SEQ_CST);
    region->seen[__atomic_fetch_add(&region->workers_seen, 1, __ATOMIC_SEQ_CST)] = started;
}

// Behind device_sync every worker sees that all have started.
static void workers_meet(Bench *bench) {
    const int threads = device_threads(bench->device);
    Region region = {.device = bench->device};
    device_run(bench->device, meet, &region);
    assert_int_equal(region.started, threads);
    assert_int_equal(region.leaders, 1);
    for (int i = 0; i < threads; i++) { assert_int_equal(region.seen[i], threads); }
    assert_true(device_leader());
}

static void zeroing(Bench *bench) {
    const size_t counts[] = {0, 1, 1023, 1024, 1025, 5000};
    for (size_t i = 0; i < LENGTH(counts); i++) {
        Array array = bench_fill(bench, counts[i] + 1, (double)NAN);
        ON_WORKERS(bench, device_zero(bench->device, array.device, counts[i] * sizeof(float)));
        check_nans(bench, "device_zero", array, counts[i], counts[i] + 1);
    }
}

static void test_measures(void **state) {
    (void)state;
    Bench bench;
    bench_open(&bench, 2);
    const double flops = device_peak_flops(bench.device), bandwidth = device_copy_bandwidth(bench.device);
    print_message("%s: %.3g FLOP/s, copies %.3g B/s\n", device_model(bench.device), flops, bandwidth);
    assert_true(flops > 0.0 && isfinite(flops));
    assert_true(bandwidth > 0.0 && isfinite(bandwidth));
    bench_close(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        BENCH_TEST(workers_meet),
        BENCH_TEST(zeroing),
        BENCH_TEST(embedding),
        BENCH_TEST(layernorm),
        BENCH_TEST(residual_layernorm),
        BENCH_TEST(linear),
        BENCH_TEST_WITH(linear, PRECISION_BF16),
        BENCH_TEST_WITH(linear, PRECISION_TF32),
        BENCH_TEST(linear_of_nothing),
        BENCH_TEST(activations),
        BENCH_TEST(lines_stay_with_workers),
        BENCH_TEST(cross_entropies),
        BENCH_TEST(moving_lines),
        cmocka_unit_test(test_square_sum),
        BENCH_TEST(gelu_extremes),
        BENCH_TEST(nan_in_activations),
        BENCH_TEST(nan_in_lines),
        BENCH_TEST(nan_in_logits),
        cmocka_unit_test(test_measures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
