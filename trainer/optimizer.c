// See optimizer.h.
#include "trainer/optimizer.h"

#include <math.h>

AdamW optimizer_factors(const Config *config, double rate, int64_t step, double gradient_norm) {
    const double beta1 = config->adam_beta1, beta2 = config->adam_beta2;
    const double clipped = config->max_grad_norm > 0 ? config->max_grad_norm / (gradient_norm + 1e-6) : 1.0;
    return (AdamW){.gradient_scale = (float)fmin(clipped, 1.0),
                   .decay = (float)(1.0 - rate * config->weight_decay),
                   .rest1 = (float)(1.0 - beta1),
                   .beta2 = (float)beta2,
                   .rest2 = (float)(1.0 - beta2),
                   .step_size = (float)(rate / (1.0 - pow(beta1, (double)step))),
                   .root_correction = (float)sqrt(1.0 - pow(beta2, (double)step)),
                   .epsilon = (float)config->adam_epsilon};
}

// One call for each run of neighbouring tensors with the same decay; with the scope `all` that is the whole buffer.
void optimizer_update(Device *device, float *parameters, float *first_moment, float *second_moment,
                      const float *gradient, const Layout *layout, int64_t scope, AdamW adamw) {
    const bool everything = scope == DECAY_ALL;
    AdamW plain = adamw;
    plain.decay = 1.0f;
    for (int i = 0; i < layout->count;) {
        const bool decay = everything || layout->tensors[i].decay;
        const size_t begin = layout->tensors[i].offset;
        while (i < layout->count && (everything || layout->tensors[i].decay) == decay) { i++; }
        const size_t end = i < layout->count ? layout->tensors[i].offset : layout->total;
        adamw_update(device, parameters + begin, first_moment + begin, second_moment + begin, gradient + begin,
                     decay ? adamw : plain, end - begin);
    }
}
