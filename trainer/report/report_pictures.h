// The pictures of a report. Each writes an <svg>, or nothing where there is nothing to show. EX_UNAVAILABLE: no
// gnuplot.
#ifndef BERTUNE_REPORT_PICTURES_H
#define BERTUNE_REPORT_PICTURES_H

#include <stdio.h>

#include "trainer/report/report.h"

// The best entries have a colour each, the others are grey.
enum { COLOURS = 6, DRAWN_WORKERS = 200 };
extern const char *const entry_colours[COLOURS];  // #rrggbb
extern const char *const state_colours[STATES];
extern const char winner_colour[];

// The picture's label is the caption in English.
typedef bool Picture(const Group *group, FILE *out, const char *label, Error *error);

// Over epochs, all entries.
Picture picture_train_loss, picture_validation_loss, picture_metric;
// Over steps, of the best entry (or of the only one).
Picture picture_step_loss;
// Of sweeps: what parameters matter, which values led where, who did what when.
Picture picture_importance, picture_parallel, picture_gantt;

// The entry that single pictures show: the best, or the first with a history; NULL: none.
const Entry *group_shown(const Group *group);

#endif
