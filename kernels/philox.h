// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11),
// and the one rule by which elements find their random bits. Included by every backend, so that all draw the same.
//
// Hidden states: element h of a line of N belongs to lane h / Q of counter h % Q, Q = ceil(N / 4).
// Attention: query i, key j of a head belong to lane i % 4 of counter (i / 4, j).
// An element is dropped when its 32 bits are below probability * 2^32.
#ifndef BERTUNE_PHILOX_H
#define BERTUNE_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_FUNCTION static inline __host__ __device__
#else
#define PHILOX_FUNCTION static inline
#endif

typedef struct {
    uint32_t lane[4];
} Philox;

PHILOX_FUNCTION Philox philox(uint32_t counter0, uint32_t counter1, uint32_t counter2, uint32_t counter3, uint32_t k0,
                              uint32_t k1) {
    // In 64-bit lanes of which the low half counts, so that compilers vectorise the products without shuffling halves.
    const uint64_t low = 0xFFFFFFFFu;
    uint64_t c0 = counter0, c1 = counter1, c2 = counter2, c3 = counter3;
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (c0 & low) * 0xD2511F53u, p1 = (c2 & low) * 0xCD9E8D57u;
        c0 = p1 >> 32 ^ c1 ^ k0;
        c1 = p1;
        c2 = p0 >> 32 ^ c3 ^ k1;
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const Philox result = {{(uint32_t)c0, (uint32_t)c1, (uint32_t)c2, (uint32_t)c3}};
    return result;
}

// Elements whose bits are below this are dropped.
PHILOX_FUNCTION uint32_t philox_threshold(float probability) {
    double threshold = (double)probability * 4294967296.0;
    return threshold >= 4294967295.0 ? 4294967295u : (uint32_t)threshold;
}

#endif
