// Runs that belong to no sweep, as one group.
#ifndef BERTUNE_REPORT_RUNS_H
#define BERTUNE_REPORT_RUNS_H

#include "trainer/report/report.h"

// Reads count run directories. Their parameters are the keys of the configuration in which they differ. EX_DATAERR
// names file and line. Free with group_free, also after an error.
bool runs_read(Group *group, char *const *directories, size_t count, Error *error);

// Whether a process works on the run right now.
bool run_is_locked(const char *directory);

#endif
