// The page of a report: one file in two languages, without scripts and without anything from elsewhere.
#ifndef BERTUNE_REPORT_HTML_H
#define BERTUNE_REPORT_HTML_H

#include <stdio.h>

#include "trainer/report/report.h"

// Writes the page. EX_UNAVAILABLE where gnuplot is missing or fails.
bool report_write_html(const Report *report, FILE *out, Error *error);

// Writes a text, escaped already, in both languages, of which the page shows one.
void put_pair(FILE *out, const char *english, const char *chinese);

// The same with values. Both formats take the same arguments, texts among which are escaped already.
void put_both(FILE *out, const char *english, const char *chinese, ...)
    __attribute__((format(printf, 2, 4), format(printf, 3, 4)));

// The parts of a group: how it went, how busy its workers were, its table, what its best got right, the command that
// repeats it.
void put_summary(FILE *out, const Group *group);
void put_workers(FILE *out, const Group *group);
void put_table(FILE *out, const Group *group);
void put_confusion(FILE *out, const Group *group);
void put_command(FILE *out, const Group *group);

// Shows four significant digits, and all of them to programs: <data value="0.8712345">0.8712</data>.
void put_number(FILE *out, double value);
void put_duration(FILE *out, double seconds);
void put_state(FILE *out, State state);

#endif
