// See divergence.h.
#include "trainer/divergence.h"

bool divergence_check(Divergence *divergence, int64_t step, double loss, double factor, int64_t window, Error *error) {
    const int64_t steps = ++divergence->steps;
    divergence->mean += (loss - divergence->mean) / (double)(steps < window ? steps : window);
    if (steps < window) { return true; }
    if (steps == window || divergence->mean < divergence->best) { divergence->best = divergence->mean; }
    const double base = divergence->best > DIVERGENCE_FLOOR ? divergence->best : DIVERGENCE_FLOOR;
    return factor <= 0 || divergence->mean <= factor * base ||
           error_set(error, EX_DIVERGED,
                     "diverged at step %lld: the mean loss of the last %lld steps is %g, and was %g at best "
                     "(train.divergence_factor %g); the checkpoints are kept: go on from one of them, as with "
                     "run.resume=CHECKPOINT, at a lower train.learning_rate",
                     (long long)step, (long long)window, divergence->mean, divergence->best, factor);
}
