// AdamW over the flat buffer of a model: the factors of a step from the configuration, and which tensors are decayed.
#ifndef BERTUNE_OPTIMIZER_H
#define BERTUNE_OPTIMIZER_H

#include "comm/reduce.h"
#include "trainer/config.h"
#include "trainer/layout.h"

// The factors of a step (1-based) with its learning rate; clips the gradient of that norm to train.max_grad_norm, as
// torch.nn.utils.clip_grad_norm_.
AdamW optimizer_factors(const Config *config, double rate, int64_t step, double gradient_norm);

// The longest run of neighbouring tensors from tensor `first` on that are all decayed or all not; gives the tensor
// behind it. With the scope `all` that is the whole layout.
int optimizer_part(const Layout *layout, int64_t scope, int first, Slice *part, bool *decay);

// Buffers of the layout in device memory.
typedef struct {
    float *parameters, *first_moment, *second_moment;
    const float *gradient;
} OptimizerBuffers;

// Updates parameters and moments in the given slices of the buffers. Tensors outside of the scope (DecayScope) are
// updated without decay.
void optimizer_update(Device *device, OptimizerBuffers buffers, const Layout *layout, const Slice *slices, int count,
                      int64_t scope, AdamW adamw);

#endif
