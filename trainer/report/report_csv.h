// The table of a report as comma-separated values.
#ifndef BERTUNE_REPORT_CSV_H
#define BERTUNE_REPORT_CSV_H

#include <stdio.h>

#include "trainer/report/report.h"

// One record for each run and trial after RFC 4180, best first, with a header; parameters of all groups are columns.
// Numbers are those of the files to the last bit; what is not known is empty.
void report_write_csv(const Report *report, FILE *out);

// finished, stopped, ...
const char *state_name(State state);

#endif
