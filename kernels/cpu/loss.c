// Softmax cross-entropy of a batch's logits, in double: B * C elements are few.
#include <math.h>

#include "kernels/cpu/cpu.h"

void cpu_cross_entropy(Device *device, float *losses, float *dlogits, const float *logits, const int32_t *labels,
                       Factor scale, Extent B, int C) {
    (void)device;
    const Range range = own_share(count_of(B), 1);
    for (size_t b = range.begin; b < range.end; b++) {
        const float *x = logits + b * (size_t)C;
        double largest = x[0], sum = 0.0;
        for (int c = 1; c < C; c++) { largest = x[c] > largest ? x[c] : largest; }
        for (int c = 0; c < C; c++) { sum += exp(x[c] - largest); }
        losses[b] = (float)(largest + log(sum) - x[labels[b]]);
        if (!dlogits) { continue; }
        for (int c = 0; c < C; c++) {
            double probability = exp(x[c] - largest) / sum;
            dlogits[b * (size_t)C + (size_t)c] = (float)(scale.value * (probability - (c == labels[b])));
        }
    }
}
