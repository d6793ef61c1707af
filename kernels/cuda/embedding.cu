// The gradients of the embedding tables: a block a row of a table and a chunk of the tokens. It lists the tokens that
// use the row and adds their lines in their order: no atomics, although more than half of the tokens may be one id.
// Where there are several chunks, a second launch adds these up.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/warp.cuh"

enum { EMB_THREADS = 256, EMB_CHUNK = 1024, EMB_WARPS = EMB_THREADS / WARP };

typedef struct {
    float *dword, *dposition, *dtype;
    const float *dout;
    const int32_t *ids, *positions;
    int V, P, padding;
    bool accumulate;
    Extent T;
    int H;
    float *parts;  // (chunks, V + P + 1, H) where there are several chunks, else NULL
    int chunks;
} EmbeddingBackward;

// Fills list with the tokens begin .. end - 1 of which keys[] is `key` (keys NULL: all), in their order; gives their
// number.
__device__ static int list_tokens(uint16_t *list, int *counts, const int32_t *keys, int key, int begin, int end) {
    const int warp = static_cast<int>(threadIdx.x / WARP), lane = static_cast<int>(threadIdx.x % WARP);
    int listed = 0;
    for (int t0 = begin; t0 < end; t0 += EMB_THREADS) {
        const int t = t0 + static_cast<int>(threadIdx.x);
        const bool mine = t < end && (!keys || keys[t] == key);
        const unsigned votes = __ballot_sync(0xFFFFFFFFu, mine);
        if (lane == 0) { counts[warp] = __popc(votes); }
        __syncthreads();
        int at = listed + __popc(votes & ((1u << lane) - 1u));
        for (int w = 0; w < EMB_WARPS; w++) {
            if (w < warp) { at += counts[w]; }
            listed += counts[w];
        }
        if (mine) { list[at] = static_cast<uint16_t>(t - begin); }
        __syncthreads();
    }
    return listed;
}

__global__ void __launch_bounds__(EMB_THREADS) embedding_backward_kernel(const EmbeddingBackward e) {
    __shared__ uint16_t list[EMB_CHUNK];
    __shared__ int counts[EMB_WARPS];
    // The type's row, which has most to add up, comes first.
    const int row = e.V + e.P - static_cast<int>(blockIdx.x), chunk = static_cast<int>(blockIdx.y), T = extent_now(e.T);
    const int begin = chunk * EMB_CHUNK, end = begin + EMB_CHUNK < T ? begin + EMB_CHUNK : T;
    if (e.parts && begin >= T) { return; }
    const bool word = row < e.V, position = !word && row < e.V + e.P;
    const int32_t *keys = word ? e.ids : position ? e.positions : NULL;
    const bool skipped = word && row == e.padding;
    const int count = skipped ? 0 : list_tokens(list, counts, keys, word ? row : row - e.V, begin, end);
    const size_t H = static_cast<size_t>(e.H), rows = static_cast<size_t>(e.V + e.P + 1);
    float *table = word       ? e.dword + static_cast<size_t>(row) * H
                   : position ? e.dposition + static_cast<size_t>(row - e.V) * H
                              : e.dtype;
    float *out = e.parts ? e.parts + (static_cast<size_t>(chunk) * rows + static_cast<size_t>(row)) * H : table;
    if (count == 0 && !e.parts && e.accumulate) { return; }
    for (size_t h = threadIdx.x; h < H; h += EMB_THREADS) {
        float sum = 0.0f;
#pragma unroll 8
        for (int i = 0; i < count; i++) { sum += e.dout[static_cast<size_t>(begin + list[i]) * H + h]; }
        out[h] = e.parts || !e.accumulate ? sum : out[h] + sum;
    }
}

__global__ void __launch_bounds__(EMB_THREADS) embedding_sum_kernel(const EmbeddingBackward e) {
    const size_t H = static_cast<size_t>(e.H), words = static_cast<size_t>(e.V) * H;
    const size_t positions = static_cast<size_t>(e.P) * H, all = words + positions + H;
    const size_t i = static_cast<size_t>(blockIdx.x) * EMB_THREADS + threadIdx.x;
    if (i >= all) { return; }
    const int used = (extent_now(e.T) + EMB_CHUNK - 1) / EMB_CHUNK;
    float sum = 0.0f;
    for (int chunk = 0; chunk < used; chunk++) { sum += e.parts[static_cast<size_t>(chunk) * all + i]; }
    float *out = i < words               ? e.dword + i
                 : i < words + positions ? e.dposition + (i - words)
                                         : e.dtype + (i - words - positions);
    *out = e.accumulate ? *out + sum : sum;
}

void cuda_embedding_backward(Device *device, float *dword, float *dposition, float *dtype, const float *dout,
                             const int32_t *ids, const int32_t *positions, int padding, bool accumulate, int V, int P,
                             Extent T, int H) {
    CudaDevice *cuda = cuda_device(device);
    lines_flush(cuda);
    const size_t rows = static_cast<size_t>(V) + static_cast<size_t>(P) + 1;
    const unsigned chunks = blocks_for(static_cast<size_t>(T.most), EMB_CHUNK);
    EmbeddingBackward e = {dword, dposition, dtype,      dout, ids, positions, V,
                           P,     padding,   accumulate, T,    H,   NULL,      static_cast<int>(chunks)};
    if (chunks > 1) {
        e.parts = static_cast<float *>(
            cuda_work(cuda, WORK_EMBEDDING, chunks * rows * static_cast<size_t>(H) * sizeof(float)));
    }
    cuda_launch(cuda, embedding_backward_kernel, dim3(static_cast<unsigned>(rows), chunks), EMB_THREADS, 0, e);
    if (chunks > 1) {
        cuda_launch(cuda, embedding_sum_kernel, dim3(blocks_for(rows * static_cast<size_t>(H), EMB_THREADS)),
                    EMB_THREADS, 0, e);
    }
    cuda_settle(cuda);
}
