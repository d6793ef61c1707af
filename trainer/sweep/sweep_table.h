// The results of a sweep for people and for programs: a table on stdout, and table.csv.
#ifndef BERTUNE_SWEEP_TABLE_H
#define BERTUNE_SWEEP_TABLE_H

#include <stdio.h>

#include "trainer/sweep/sweep_board.h"

// Prints the trials, best first, how many steps they took, and the winner.
void sweep_table_print(const Board *board, FILE *out);

// Writes table.csv into the sweep's directory.
bool sweep_table_write(const Board *board, Error *error);

// Prints the trials that there would be.
void sweep_table_plan(const Sweep *sweep, FILE *out);

#endif
