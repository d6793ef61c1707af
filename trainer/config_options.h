// The option table; see config.h.
#ifndef BERTUNE_CONFIG_OPTIONS_H
#define BERTUNE_CONFIG_OPTIONS_H

#include "trainer/config.h"

typedef enum { OPTION_TEXT, OPTION_INTEGER, OPTION_REAL, OPTION_BOOLEAN, OPTION_CHOICE } OptionType;

typedef struct {
    const char *key;  // section.name
    OptionType type;
    size_t offset;         // of the field in Config: char[], int64_t, double, bool, int64_t
    const char *fallback;  // the default, as it would stand in a file; "": unset
    double least, most;    // of numbers
    bool above_least;      // least itself is not allowed
    const char *choices;   // of OPTION_CHOICE: names separated by '|', in the order of their enum
    const char *help;
} Option;

extern const Option config_options[];
extern const int config_option_count;

// The option named key, or NULL.
const Option *option_find(const char *key);

// The known key nearest to key by edit distance, or NULL when none is near.
const char *option_nearest(const char *key);

// Parses text into the option's field. On failure error holds what was expected, without a place.
bool option_parse(Config *config, const Option *option, const char *text, Error *error);

// Writes the option's value as option_parse reads it.
void option_format(const Config *config, const Option *option, char *text, size_t size);

#endif
