// Groups of gradients (group.cuh), and the operations that append to them. Every output is summed by one block over the
// lines in their order: no atomics, the same bits whatever the batch was bounded by.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/product.cuh"

typedef Tile<2, 4, 2, 2> GroupTile;  // 64 x 64
enum {
    GROUP_STAGES = 3,  // fit into the shared memory of every GPU
    SUM_COLUMNS = 32,
    SUM_LINES = GroupTile::THREADS / SUM_COLUMNS
};

__host__ __device__ static inline int ceiling(int count, int each) { return (count + each - 1) / each; }

__host__ __device__ static inline int tiles_of(const GroupProduct &p) {
    return ceiling(p.N, GroupTile::M) * ceiling(p.K, GroupTile::N);
}

__device__ static void add_up(float *out, float sum, bool accumulate) {
    if (out) { *out = accumulate ? *out + sum : sum; }
}

template <Precision P>
__device__ static void product_block(float *shared, const GroupProduct &p, int tile) {
    typedef TileProduct<GroupTile, P, false, false, false, GROUP_STAGES> Product;
    const int across = ceiling(p.K, GroupTile::N);
    const Place place = {tile / across * GroupTile::M, tile % across * GroupTile::N, p.N, p.K, extent_now(p.M)};
    const Operand a = operand(p.a, p.a_line), b = operand(p.b, p.b_line);
    Sums<GroupTile> sums = {};
    Product(shared, a, b, place).finish(&sums);
    for_fragments<GroupTile>(sums, place, [&](const int lines[2], const int columns[2], const float values[4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const size_t line = static_cast<size_t>(lines[i / 2]), column = static_cast<size_t>(columns[i % 2]);
            if (lines[i / 2] >= place.M || columns[i % 2] >= place.N) { continue; }
            add_up(p.out + line * p.out_line + column, values[i], p.accumulate);
        }
    });
}

// add(sum of a, sum of a * b) over the thread's lines of one column, in their order; several lines are read at the same
// time.
template <bool PRODUCT>
__device__ __forceinline__ void sum_lines(const GroupSum &s, int column, int first, int M, float *sum, float *product) {
    enum { AHEAD = 8 };
    const int b_line = s.N / s.share;
    const float *a = s.a + column, *b = PRODUCT ? s.b + column / s.share : NULL;
    for (int line = first; line < M; line += AHEAD * SUM_LINES) {
        float x[AHEAD], y[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int i = line + k * SUM_LINES;
            x[k] = i < M ? a[static_cast<size_t>(i) * static_cast<size_t>(s.N)] : 0.0f;
            if (PRODUCT) { y[k] = i < M ? b[static_cast<size_t>(i) * static_cast<size_t>(b_line)] : 0.0f; }
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            *sum += x[k];
            if (PRODUCT) { *product += x[k] * y[k]; }
        }
    }
}

__device__ static void sum_block(float *shared, const GroupSum &s, int block) {
    const int column = static_cast<int>(threadIdx.x) % SUM_COLUMNS, first = static_cast<int>(threadIdx.x) / SUM_COLUMNS;
    const int j = block * SUM_COLUMNS + column, M = s.a ? extent_now(s.M) : 0;
    float sum = 0.0f, product = 0.0f;
    if (j < s.N && s.product) {
        sum_lines<true>(s, j, first, M, &sum, &product);
    } else if (j < s.N) {
        sum_lines<false>(s, j, first, M, &sum, &product);
    }
    shared[2 * threadIdx.x] = sum;
    shared[2 * threadIdx.x + 1] = product;
    __syncthreads();
    if (first != 0 || j >= s.N) { return; }
    for (int part = 1; part < SUM_LINES; part++) {
        sum += shared[2 * (part * SUM_COLUMNS + column)];
        product += shared[2 * (part * SUM_COLUMNS + column) + 1];
    }
    add_up(s.sum ? s.sum + j : NULL, sum, s.accumulate);
    add_up(s.product ? s.product + j : NULL, product, s.accumulate);
}

template <Precision P>
__global__ void __launch_bounds__(GroupTile::THREADS) group_kernel(const Group group) {
    SHARED_MEMORY(float, shared);
    int block = static_cast<int>(blockIdx.x);
    for (int i = 0; i < group.products; i++) {
        const int tiles = tiles_of(group.product[i]);
        if (block < tiles) {
            product_block<P>(shared, group.product[i], block);
            return;
        }
        block -= tiles;
    }
    for (int i = 0; i < group.sums; i++) {
        const int blocks = ceiling(group.sum[i].N, SUM_COLUMNS);
        if (block < blocks) {
            sum_block(shared, group.sum[i], block);
            return;
        }
        block -= blocks;
    }
}

void group_flush(CudaDevice *device) {
    Group *group = &device->group;
    int blocks = 0;
    for (int i = 0; i < group->products; i++) { blocks += tiles_of(group->product[i]); }
    for (int i = 0; i < group->sums; i++) { blocks += ceiling(group->sum[i].N, SUM_COLUMNS); }
    if (blocks == 0) { return; }
    lines_flush(device);
    const dim3 grid(static_cast<unsigned>(blocks));
    switch (device->precision) {
        case PRECISION_FP32:
            cuda_launch(device, group_kernel<PRECISION_FP32>, grid, GroupTile::THREADS,
                        TileProduct<GroupTile, PRECISION_FP32, false, false, false, GROUP_STAGES>::SHARED, *group);
            break;
        case PRECISION_TF32:
            cuda_launch(device, group_kernel<PRECISION_TF32>, grid, GroupTile::THREADS,
                        TileProduct<GroupTile, PRECISION_TF32, false, false, false, GROUP_STAGES>::SHARED, *group);
            break;
        case PRECISION_BF16:
            cuda_launch(device, group_kernel<PRECISION_BF16>, grid, GroupTile::THREADS,
                        TileProduct<GroupTile, PRECISION_BF16, false, false, false, GROUP_STAGES>::SHARED, *group);
            break;
    }
    group->products = group->sums = 0;
}

void group_add_product(CudaDevice *device, GroupProduct product) {
    if (device->group.products == GROUP_PRODUCTS) { group_flush(device); }
    device->group.product[device->group.products++] = product;
}

void group_add_sum(CudaDevice *device, GroupSum sum) {
    if (device->group.sums == GROUP_SUMS) { group_flush(device); }
    device->group.sum[device->group.sums++] = sum;
}

void cuda_linear_backward_weight(Device *device, float *dweight, float *dbias, const float *dout, const float *in,
                                 bool accumulate, Extent M, int N, int K) {
    const size_t width = static_cast<size_t>(N), depth = static_cast<size_t>(K);
    const GroupProduct product = {dweight, dout, in, depth, width, depth, M, N, K, accumulate};
    const GroupSum sum = {dbias, NULL, dout, NULL, M, N, 1, accumulate};
    group_add_product(cuda_device(device), product);
    group_add_sum(cuda_device(device), sum);
    cuda_settle(cuda_device(device));
}

void cuda_layernorm_backward_parameters(Device *device, float *dweight, float *dbias, const float *dout,
                                        const float *normalized, bool accumulate, Extent M, int N) {
    const GroupSum sum = {dbias, dweight, dout, normalized, M, N, 1, accumulate};
    group_add_sum(cuda_device(device), sum);
    cuda_settle(cuda_device(device));
}

// Head a's lines of the weights, a D .. a D + D - 1, meet only its own part of the sequences' lines.
static void add_head_products(CudaDevice *device, float *dweight, const float *in, const float *other, bool accumulate,
                              Extent B, int A, int D) {
    const size_t H = static_cast<size_t>(A) * static_cast<size_t>(D);
    for (int a = 0; a < A; a++) {
        const size_t line = static_cast<size_t>(a) * static_cast<size_t>(D);
        const GroupProduct product = {
            dweight + line * H,  in + line, other + static_cast<size_t>(a) * H, H, H, static_cast<size_t>(A) * H, B, D,
            static_cast<int>(H), accumulate};
        group_add_product(device, product);
    }
}

void cuda_cls_attention_backward_weight(Device *device, ClsProjectionGradients gradients, const float *dattended,
                                        const float *dcontext, ClsAttention saved, const float *q, bool accumulate,
                                        Extent B, int A, int D) {
    CudaDevice *cuda = cuda_device(device);
    add_head_products(cuda, gradients.key_weight, q, dattended, accumulate, B, A, D);
    add_head_products(cuda, gradients.value_weight, dcontext, saved.mixed, accumulate, B, A, D);
    const GroupSum key = {gradients.key_bias, NULL, NULL, NULL, B, A * D, 1, accumulate};
    const GroupSum value = {NULL, gradients.value_bias, dcontext, saved.kept, B, A * D, D, accumulate};
    group_add_sum(cuda, key);
    group_add_sum(cuda, value);
    cuda_settle(cuda);
}
