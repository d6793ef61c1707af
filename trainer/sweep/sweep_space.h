// The parameters of a sweep: which values there are, and the trials that follow from them.
#ifndef BERTUNE_SWEEP_SPACE_H
#define BERTUNE_SWEEP_SPACE_H

#include "trainer/sweep/sweep.h"
#include "trainer/yaml.h"

// Reads the mapping `parameters` of the file at path, in W&B's words: value; values, probabilities; distribution with
// min, max, q, mu, sigma; or parameters inside of a section. A name is that of a key (train.learning_rate, or
// learning_rate of model and train), or several with commas between, whose values are lists that go together. Fills
// keys, trials (at most run_cap, unless that is 0) and values. EX_CONFIG with file and line.
bool sweep_space_expand(Sweep *sweep, const char *path, const YamlNode *parameters, int64_t run_cap, Error *error);

#endif
