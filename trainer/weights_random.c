// Random weights as Hugging Face initialises BERT. Every element is a function of (seed, tensor, place in the full
// tensor), so that the weights do not depend on the active vocabulary.
#include <math.h>
#include <string.h>

#include "kernels/philox.h"
#include "trainer/weights.h"

// Standard normal numbers by Box and Muller's transform (1958), two for each Philox counter.
static void fill_normal(float *out, size_t count, float deviation, uint64_t seed, uint32_t tensor) {
    for (size_t i = 0; i < count; i += 2) {
        const Philox r = philox((uint32_t)(i / 2), (uint32_t)(i / 2 >> 32), tensor, 0x696E6974u /* "init" */,
                                (uint32_t)seed, (uint32_t)(seed >> 32));
        const double u = ((double)r.lane[0] + 0.5) / 4294967296.0, v = ((double)r.lane[1] + 0.5) / 4294967296.0;
        const double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586 * v;
        out[i] = (float)(deviation * radius * cos(angle));
        if (i + 1 < count) { out[i + 1] = (float)(deviation * radius * sin(angle)); }
    }
}

static void fill(float *out, size_t count, float value) {
    for (size_t i = 0; i < count; i++) { out[i] = value; }
}

void weights_randomize(Weights *weights, const Bert *bert, const ModelConfig *config, uint64_t seed) {
    const size_t H = (size_t)bert->H;
    const float deviation = config->initializer_range;
    for (int i = 0; i < bert->layout.count; i++) {
        const Tensor *tensor = &bert->layout.tensors[i];
        float *out = weights->parameters + tensor->offset;
        if (tensor->offset < bert->norm_weight) { continue; }  // the embeddings are drawn as full tables below
        if (tensor->columns) {
            fill_normal(out, tensor->count, deviation, seed, (uint32_t)i);
        } else {
            const bool norm_weight = strstr(tensor->name, "LayerNorm.weight") != NULL;
            fill(out, tensor->count, norm_weight ? 1.0f : 0.0f);
        }
    }
    fill_normal(weights->word, (size_t)config->vocab_size * H, deviation, seed, 1u << 20);
    fill_normal(weights->position, (size_t)config->max_positions * H, deviation, seed, (1u << 20) + 1);
    fill_normal(weights->type, (size_t)config->type_vocab_size * H, deviation, seed, (1u << 20) + 2);
    fill(weights->word + (size_t)config->pad_token_id * H, H, 0.0f);
    weights_take_rows(weights, bert, config);
}
