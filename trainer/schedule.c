// See schedule.h.
#include "trainer/schedule.h"

#include <math.h>

double schedule_rate(const Config *config, int64_t step, int64_t total) {
    const double rate = config->learning_rate;
    if (config->lr_scheduler_type == SCHEDULE_CONSTANT) { return rate; }
    const int64_t warmup =
        config->warmup_steps ? config->warmup_steps : (int64_t)ceil(config->warmup_ratio * (double)total);
    if (step < warmup) { return rate * ((double)step / (double)(warmup > 1 ? warmup : 1)); }
    const int64_t rest = total - warmup > 1 ? total - warmup : 1;
    switch (config->lr_scheduler_type) {
        case SCHEDULE_LINEAR:
            return rate * fmax(0.0, (double)(total - step) / (double)rest);
        case SCHEDULE_COSINE:
            return rate * fmax(0.0, 0.5 * (1.0 + cos(M_PI * ((double)(step - warmup) / (double)rest))));
        default:
            return rate;
    }
}
