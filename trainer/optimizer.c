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

typedef struct {
    Device *device;
    OptimizerBuffers buffers;
    const Layout *layout;
    const Slice *slices;
    int count;
    int64_t scope;
    AdamW decayed, plain;
} Update;

static void update_slice(const Update *u, Slice slice, bool decay) {
    const OptimizerBuffers *b = &u->buffers;
    adamw_update(u->device, b->parameters + slice.begin, b->first_moment + slice.begin, b->second_moment + slice.begin,
                 b->gradient + slice.begin, decay ? u->decayed : u->plain, slice.end - slice.begin);
}

int optimizer_part(const Layout *layout, int64_t scope, int first, Slice *part, bool *decay) {
    int i = first;
    *decay = scope == DECAY_ALL || layout->tensors[i].decay;
    part->begin = layout->tensors[i].offset;
    while (i < layout->count && (scope == DECAY_ALL || layout->tensors[i].decay) == *decay) { i++; }
    part->end = i < layout->count ? layout->tensors[i].offset : layout->total;
    return i;
}

static void update(void *context) {
    const Update *u = context;
    Slice part;
    bool decay;
    for (int i = 0; i < u->layout->count;) {
        i = optimizer_part(u->layout, u->scope, i, &part, &decay);
        for (int s = 0; s < u->count; s++) {
            const Slice slice = {u->slices[s].begin > part.begin ? u->slices[s].begin : part.begin,
                                 u->slices[s].end < part.end ? u->slices[s].end : part.end};
            if (slice.begin < slice.end) { update_slice(u, slice, decay); }
        }
    }
}

void optimizer_update(Device *device, OptimizerBuffers buffers, const Layout *layout, const Slice *slices, int count,
                      int64_t scope, AdamW adamw) {
    Update context = {device, buffers, layout, slices, count, scope, adamw, adamw};
    context.plain.decay = 1.0f;
    device_run(device, update, &context);
}
