// What the kernels of attention share: sequences found by their lines, dropout bits of probabilities.
#ifndef BERTUNE_ATTENTION_CUH
#define BERTUNE_ATTENTION_CUH

#include "kernels/cuda/warp.cuh"
#include "kernels/philox.h"

// The sequence that line t belongs to, 0 <= t < starts[B].
__device__ __forceinline__ int sequence_of(const int32_t *starts, int B, int t) {
    int low = 0, high = B;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (starts[middle] <= t) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// The factors of dropout for four queries 4 * quad .. and one key; see kernels/philox.h.
__device__ __forceinline__ void dropout_factors(float factors[4], const Dropout &dropout, uint32_t row, int head,
                                                int quad, int key) {
    const uint32_t threshold = philox_threshold(dropout.probability), now = dropout.now ? *dropout.now : dropout.step;
    const Philox bits = philox(static_cast<uint32_t>(key) | static_cast<uint32_t>(quad) << 16, row, now,
                               dropout.site | static_cast<uint32_t>(head) << 16, static_cast<uint32_t>(dropout.seed),
                               static_cast<uint32_t>(dropout.seed >> 32));
    const float keep = 1.0f / (1.0f - dropout.probability);
    for (int i = 0; i < 4; i++) { factors[i] = bits.lane[i] < threshold ? 0.0f : keep; }
}

#endif
