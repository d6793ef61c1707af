// Matrix products by every set of micro-kernels that this processor runs, against plain sums in double, at sizes around
// tiles, panels and blocks. Most operands are small whole numbers: their products and sums are exact in fp32 and in
// bfloat16, so that one wrong or missing element shows. Whatever lies around the matrices is not-a-number.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include "kernels/cpu/product.h"
#include "tests/ref.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

typedef enum { ADD_NOTHING, ADD_LINE, ADD_MATRIX, ADD_OUT, ADDS } Add;

typedef struct {
    size_t M, N, K;
    bool a_columns, b_transposed;  // how the operands lie
    Add add;
    bool roomy, finish;
    size_t gap;   // floats between the lines of the matrices; 0: they also end where their memory ends
    size_t line;  // where not 0, the distance of the operands' lines
    bool fractions;
} Case;

// Lines of floats in memory of its own, with not-a-number between, before and behind them.
typedef struct {
    float *memory, *at;
    size_t lines, width, stride, count;
} Matrix;

static uint64_t random_state;

static Matrix make_matrix(size_t lines, size_t width, size_t stride, size_t gap) {
    Matrix m = {.lines = lines, .width = width, .stride = stride, .count = lines ? (lines - 1) * stride + width : 0};
    m.count += 2 * gap;
    m.memory = check_calloc(m.count, sizeof *m.memory);
    m.at = m.memory + gap;
    for (size_t i = 0; i < m.count; i++) { m.memory[i] = NAN; }
    return m;
}

static void fill(Matrix m, size_t width, bool fractions) {
    for (size_t i = 0; i < m.lines; i++) {
        for (size_t j = 0; j < width; j++) {
            const double value = ref_random(&random_state);
            m.at[i * m.stride + j] = (float)(fractions ? value : round(8.0 * value));
        }
    }
}

static Matrix make_operand(const Case *c, size_t lines, size_t width) {
    Matrix m = make_matrix(lines, width, c->line ? c->line : width + c->gap, c->gap);
    fill(m, width, c->fractions);
    return m;
}

// What a product needs, and what is to come of it.
typedef struct {
    Matrix a, b, add, out;
    Matrix finished;   // laid out as out: how often
    double *expected;  // (M, N), dense
} Setting;

static size_t whole_vectors(size_t N) { return (N + MICRO_LANES - 1) / MICRO_LANES * MICRO_LANES; }

// Where out is roomy, what is added must be so, too: it is read by the same vectors.
static Setting make_setting(const Case *c) {
    const size_t width = c->roomy ? whole_vectors(c->N) : c->N;
    Setting s = {.a = c->a_columns ? make_operand(c, c->K, c->M) : make_operand(c, c->M, c->K),
                 .b = c->b_transposed ? make_operand(c, c->N, c->K) : make_operand(c, c->K, c->N),
                 .add = make_matrix(c->add == ADD_LINE ? 1 : c->M, width, width + c->gap, c->gap),
                 .out = make_matrix(c->M, width, width + c->gap, c->gap),
                 .finished = make_matrix(c->M, width, width + c->gap, c->gap),
                 .expected = check_calloc(c->M * c->N, sizeof(double))};
    fill(s.add, c->N, c->fractions);
    for (size_t i = 0; i < c->M * c->N; i++) { s.finished.at[i / c->N * s.finished.stride + i % c->N] = 0.0f; }
    return s;
}

static void free_setting(Setting *s) {
    free(s->a.memory);
    free(s->b.memory);
    free(s->add.memory);
    free(s->out.memory);
    free(s->finished.memory);
    free(s->expected);
}

// The elements of an operand in double, rounded as the micro-kernels do, those of one sum side by side; free it.
static double *dense(Matrix m, bool by_columns, bool pairs) {
    const size_t lines = by_columns ? m.width : m.lines, width = by_columns ? m.lines : m.width;
    double *elements = check_calloc(lines * width, sizeof *elements);
    for (size_t i = 0; i < lines * width; i++) {
        const size_t line = by_columns ? i % width : i / width, column = by_columns ? i / width : i % width;
        const double value = m.at[line * m.stride + column];
        elements[i] = pairs ? ref_bfloat16(value) : value;
    }
    return elements;
}

static void expect(const Setting *s, const Case *c, bool pairs) {
    double *a = dense(s->a, c->a_columns, pairs), *b = dense(s->b, !c->b_transposed, pairs);
    for (size_t i = 0; i < c->M; i++) {
        for (size_t j = 0; j < c->N; j++) {
            const size_t line = c->add == ADD_LINE ? 0 : i;
            double sum = c->add == ADD_NOTHING ? 0.0 : (double)s->add.at[line * s->add.stride + j];
            for (size_t k = 0; k < c->K; k++) { sum += a[i * c->K + k] * b[j * c->K + k]; }
            s->expected[i * c->N + j] = c->finish ? 2.0 * sum + 1.0 : sum;
        }
    }
    free(a);
    free(b);
}

// Doubles a tile and adds 1, so that a call before the sum is whole shows in the result.
static void finish_tile(const Product *p, size_t line, size_t column, size_t lines, size_t columns) {
    if (line + lines > p->M || column + columns > p->N) { fail_msg("finish called outside of the product"); }
    for (size_t i = line; i < line + lines; i++) {
        for (size_t j = column; j < column + columns; j++) {
            const size_t at = i * p->out_line + j;
            p->out[at] = 2.0f * p->out[at] + 1.0f;
            p->finish_operand[at]++;
        }
    }
}

static Product product_of(const Setting *s, const Case *c) {
    const float *adds[ADDS] = {[ADD_LINE] = s->add.at, [ADD_MATRIX] = s->add.at, [ADD_OUT] = s->out.at};
    return (Product){.out = s->out.at,
                     .out_line = s->out.stride,
                     .roomy = c->roomy,
                     .add = adds[c->add],
                     .add_line = c->add == ADD_LINE ? 0 : s->add.stride,
                     .a = s->a.at,
                     .a_line = c->a_columns ? 1 : s->a.stride,
                     .a_step = c->a_columns ? s->a.stride : 1,
                     .b = s->b.at,
                     .b_step = c->b_transposed ? 1 : s->b.stride,
                     .b_column = c->b_transposed ? s->b.stride : 1,
                     .M = c->M,
                     .N = c->N,
                     .K = c->K,
                     .finish = c->finish ? finish_tile : NULL,
                     .finish_operand = s->finished.at};
}

// With scratch memory that holds not-a-number and ends where product_scratch says.
static void compute(const MicroKernels *kernels, Product product) {
    const size_t count = product_scratch(kernels, &product);
    float *scratch = check_calloc(count, sizeof *scratch);
    for (size_t i = 0; i < count; i++) { scratch[i] = NAN; }
    product_compute(kernels, &product, scratch);
    free(scratch);
}

static void describe(char *text, size_t size, const MicroKernels *kernels, const Case *c) {
    snprintf(text, size, "%s: %zu x %zu x %zu, A by %s, B %s, add %d, gap %zu, line %zu%s%s", kernels->name, c->M, c->N,
             c->K, c->a_columns ? "columns" : "lines", c->b_transposed ? "transposed" : "direct", (int)c->add, c->gap,
             c->line, c->roomy ? ", roomy" : "", c->finish ? ", finish" : "");
}

static void check_out(const char *name, const Setting *s, const Case *c) {
    const Tolerance exact = {0.0, 0.0}, rounded = {1e-6, 1e-6 + 2e-7 * (double)c->K};
    float *values = check_calloc(c->M * c->N, sizeof *values);
    for (size_t i = 0; i < c->M * c->N; i++) {
        const size_t at = i / c->N * s->out.stride + i % c->N;
        const float times = s->finished.at[at];
        values[i] = s->out.at[at];
        if (times != (float)c->finish) { fail_msg("%s: element %zu was finished %g times", name, i, (double)times); }
    }
    ref_check(name, values, s->expected, c->M * c->N, c->fractions ? rounded : exact);
    free(values);
}

// Only elements, and where there is room whole vectors, may be written.
static void check_surroundings(const char *name, Matrix out, const Case *c) {
    const size_t before = (size_t)(out.at - out.memory), width = c->roomy ? whole_vectors(c->N) : c->N;
    for (size_t i = 0; i < out.count; i++) {
        const bool inside = i >= before && i < out.count - before && (i - before) % out.stride < width;
        if (!inside && !isnan(out.memory[i])) { fail_msg("%s: %zu of out's memory was written", name, i); }
    }
}

static void run_case_on(const MicroKernels *kernels, const Case *c) {
    char name[200];
    describe(name, sizeof name, kernels, c);
    Setting s = make_setting(c);
    if (c->add == ADD_OUT) { memcpy(s.out.memory, s.add.memory, s.out.count * sizeof(float)); }
    expect(&s, c, kernels->pair_lines != NULL);
    compute(kernels, product_of(&s, c));
    check_out(name, &s, c);
    check_surroundings(name, s.out, c);
    free_setting(&s);
}

static void run_case(Case c) {
    for (const MicroKernels *const *kernels = micro_supported(); *kernels; kernels++) { run_case_on(*kernels, &c); }
}

// The case with both orders of both operands.
static void run_orders(Case c) {
    for (int order = 0; order < 4; order++) {
        c.a_columns = order % 2 == 1;
        c.b_transposed = order / 2 == 1;
        run_case(c);
    }
}

static bool toss(void) { return ref_random(&random_state) < 0.0; }

// With what is added, room, gaps and the call at the end left to chance.
static Case chance(size_t M, size_t N, size_t K) {
    return (Case){.M = M,
                  .N = N,
                  .K = K,
                  .add = (Add)((ref_random(&random_state) + 1.0) / 2.0 * ADDS),
                  .roomy = toss(),
                  .finish = toss(),
                  .gap = toss() ? 0 : 19};
}

static void test_supported(void **state) {
    (void)state;
    const MicroKernels *const *kernels = micro_supported();
    assert_non_null(*kernels);
    for (; *kernels; kernels++) {
        print_message("running %s\n", (*kernels)->name);
        assert_true((*kernels)->lanes <= MICRO_LANES && (*kernels)->vectors <= MICRO_VECTORS);
        assert_ptr_equal((*kernels)->pair_lines != NULL, (*kernels)->pair_columns != NULL);
    }
    assert_ptr_equal(micro_best(false), *micro_supported());
    assert_null(micro_best(false)->pair_lines);
    assert_true(!micro_best(true) || micro_best(true)->pair_lines);
}

static void test_sizes(void **state) {
    (void)state;
    const size_t lines[] = {1, 2, 3, 4, 5, 6, 7, 13};
    const size_t columns[] = {1, 3, 4, 8, 15, 16, 17, 32, 33, 48, 63, 64, 65, 130};
    const size_t depths[] = {0, 1, 2, 3, 17, 64, 255, 511, 512, 513, 1023, 1024, 1025, 1100};
    for (size_t n = 0; n < LENGTH(columns); n++) {
        for (size_t k = 0; k < LENGTH(depths); k++) {
            run_orders(chance(lines[(n + k) % LENGTH(lines)], columns[n], depths[k]));
        }
    }
}

// All ways to add, with and without room and the call at the end.
static void test_options(void **state) {
    (void)state;
    for (int options = 0; options < ADDS * 8; options++) {
        const Case c = {
            .add = (Add)(options / 8), .roomy = options & 1, .finish = options & 2, .gap = options & 4 ? 7 : 0};
        const size_t sizes[][3] = {{7, 37, 9}, {6, 64, 33}, {2, 18, 1026}};
        for (size_t i = 0; i < LENGTH(sizes); i++) {
            Case sized = c;
            sized.M = sizes[i][0];
            sized.N = sizes[i][1];
            sized.K = sizes[i][2];
            run_orders(sized);
        }
    }
}

// Around the blocks of lines.
static void test_many_lines(void **state) {
    (void)state;
    const size_t depths[] = {1, 2, 3, 17};
    for (size_t i = 0; i < 4; i++) {
        run_orders(chance(511 + i, 33, depths[i]));
        run_orders(chance(3, 511 + i, depths[i]));
        run_orders(chance(510 + i, 513 - i, 3));
    }
    run_orders(chance(513, 20, 1025));
    run_orders(chance(1030, 5, 17));
}

// Lines whole multiples of 4 KiB apart, which crowd the cache.
static void test_crowded_lines(void **state) {
    (void)state;
    const size_t sizes[][3] = {{37, 130, 70}, {31, 96, 33}, {64, 81, 1027}, {515, 100, 5}};
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        Case c = chance(sizes[i][0], sizes[i][1], sizes[i][2]);
        c.line = c.K > 1024 ? 2048 : 1024;
        run_orders(c);
    }
}

static void test_nothing(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        run_orders(chance(0, 17, 5));
        run_orders(chance(5, 0, 5));
        run_orders(chance(5, 17, 0));
    }
}

// What rounding is like where it happens.
static void test_fractions(void **state) {
    (void)state;
    const size_t sizes[][3] = {{7, 33, 1}, {13, 65, 64}, {6, 64, 513}, {5, 19, 1100}, {40, 100, 1024}};
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        Case c = chance(sizes[i][0], sizes[i][1], sizes[i][2]);
        c.fractions = true;
        run_orders(c);
    }
}

static void check_cuts_on(const MicroKernels *kernels, const Case *c, size_t line, size_t column) {
    Setting whole = make_setting(c);
    Product product = product_of(&whole, c);
    Matrix cut = make_matrix(c->M, c->N, c->N, 0);
    compute(kernels, product);
    for (int part = 0; part < 4; part++) {
        const size_t i = part % 2 ? line : 0, j = part / 2 ? column : 0;
        Product p = product;
        p.out = cut.at + i * cut.stride + j;
        p.out_line = cut.stride;
        p.add += i * p.add_line + j;
        p.a += i * p.a_line;
        p.b += j * p.b_column;
        p.M = part % 2 ? c->M - line : line;
        p.N = part / 2 ? c->N - column : column;
        compute(kernels, p);
    }
    if (memcmp(cut.memory, whole.out.memory, cut.count * sizeof(float)) != 0) {
        fail_msg("%s: cut at (%zu, %zu) the product of K = %zu differs", kernels->name, line, column, c->K);
    }
    free(cut.memory);
    free_setting(&whole);
}

// The bits do not depend on how lines and columns are cut: workers and ranks count on it.
static void test_cuts(void **state) {
    (void)state;
    const size_t depths[] = {3, 200, 1030};
    for (const MicroKernels *const *kernels = micro_supported(); *kernels; kernels++) {
        for (size_t k = 0; k < LENGTH(depths); k++) {
            for (int order = 0; order < 4; order++) {
                const Case c = {.M = 37,
                                .N = 96,
                                .K = depths[k],
                                .a_columns = order % 2 == 1,
                                .b_transposed = order / 2 == 1,
                                .add = ADD_MATRIX,
                                .line = order == 1 ? 1024 : 0,
                                .fractions = true};
                check_cuts_on(*kernels, &c, 17, 41);
                check_cuts_on(*kernels, &c, 36, 1);
            }
        }
    }
}

static int seed_random(void **state) {
    (void)state;
    random_state = 1;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_supported),
        cmocka_unit_test_setup(test_sizes, seed_random),
        cmocka_unit_test_setup(test_options, seed_random),
        cmocka_unit_test_setup(test_many_lines, seed_random),
        cmocka_unit_test_setup(test_crowded_lines, seed_random),
        cmocka_unit_test_setup(test_nothing, seed_random),
        cmocka_unit_test_setup(test_fractions, seed_random),
        cmocka_unit_test_setup(test_cuts, seed_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
