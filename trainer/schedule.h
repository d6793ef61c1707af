// Learning rate schedules with the formulas of transformers.optimization.
#ifndef BERTUNE_SCHEDULE_H
#define BERTUNE_SCHEDULE_H

#include "trainer/config.h"

// The learning rate of step (0-based) of total. Warm-up: warmup_steps, else ceil(warmup_ratio * total).
double schedule_rate(const Config *config, int64_t step, int64_t total);

#endif
