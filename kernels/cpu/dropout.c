// Inverted dropout of hidden states; the bits of an element are named in kernels/philox.h.
#include "kernels/cpu/dropout.h"

#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/philox.h"

static MULTIVERSION void drop_elements(float *out, const float *in, uint32_t row, int32_t position, Dropout dropout,
                                       size_t N) {
    const uint32_t threshold = philox_threshold(dropout.probability);
    const float scale = 1.0f / (1.0f - dropout.probability);
    const uint32_t quarter = (uint32_t)((N + 3) / 4), k0 = (uint32_t)dropout.seed, k1 = (uint32_t)(dropout.seed >> 32);
    enum { CHUNK = 64 };
    const uint32_t first = (uint32_t)position * quarter;
    for (uint32_t c = 0; c < quarter; c += CHUNK) {
        const uint32_t count = quarter - c < CHUNK ? quarter - c : CHUNK;
        uint32_t bits[4][CHUNK];
#pragma omp simd
        for (uint32_t j = 0; j < count; j++) {
            Philox r = philox(first + c + j, row, dropout.step, dropout.site, k0, k1);
            bits[0][j] = r.lane[0];
            bits[1][j] = r.lane[1];
            bits[2][j] = r.lane[2];
            bits[3][j] = r.lane[3];
        }
        for (uint32_t lane = 0; lane < 4; lane++) {
            const size_t begin = (size_t)lane * quarter + c, end = begin + count < N ? begin + count : N;
#pragma omp simd
            for (size_t h = begin; h < end; h++) { out[h] = bits[lane][h - begin] < threshold ? 0.0f : in[h] * scale; }
        }
    }
}

void dropout_line(float *out, const float *in, uint32_t row, int32_t position, Dropout dropout, size_t N) {
    if (dropout.probability > 0.0f) {
        drop_elements(out, in, row, position, dropout, N);
    } else if (out != in) {
        memcpy(out, in, N * sizeof *out);
    }
}

void cpu_dropout_apply(Device *device, float *out, const float *in, Lines lines, Dropout dropout, Extent M, int N) {
    (void)device;
    const size_t width = (size_t)N;
    const Range range = own_share(count_of(M), 1);
    for (size_t i = range.begin; i < range.end; i++) {
        dropout_line(out + i * width, in + i * width, lines.rows[i], lines.positions[i], dropout, width);
    }
}
