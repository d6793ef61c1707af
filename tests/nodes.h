// Several nodes, imitated by cutting the ranks of this one into groups, so that the code between nodes runs, too.
#ifndef BERTUNE_NODES_H
#define BERTUNE_NODES_H

#include "comm/comm.h"

// The ways in which ranks are cut into nodes; within each, nodes are numbered in the order of their first ranks.
enum { REAL, PAIRS, ALTERNATING, FIRST_ALONE, LAYOUTS };

// Collective. The ranks of real as if they lay on several nodes; release with nodes_close (collective).
Comm nodes_open(const Comm *real, int layout);
void nodes_close(Comm *comm, int layout);

#endif
