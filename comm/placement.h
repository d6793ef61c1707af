// Which device each rank computes on, and how gradients travel between these.
#ifndef BERTUNE_PLACEMENT_H
#define BERTUNE_PLACEMENT_H

#include "comm/reduce.h"

typedef enum { WISH_AUTO, WISH_CPU, WISH_CUDA } PlacementWish;

typedef struct {
    DeviceKind kind;
    int index;  // of this rank's GPU
    Transport transport;
    char why[512];  // one line for people: what was picked, and why
} Placement;

// Collective. Gives each rank a GPU of its own where this is possible, whether ranks see all GPUs of their node or only
// those that a batch system bound them to. AUTO: else all use CPUs. CUDA: else EX_UNAVAILABLE with what to do, on every
// rank; with share_gpu, ranks then share GPUs. Groups of a node begin with different GPUs (comm->seat). Kind, transport
// and why are the same on every rank.
bool placement_choose(const Comm *comm, PlacementWish wish, bool share_gpu, Placement *placement, Error *error);

// What a rank sees, and the decision about it, which needs nothing else.
enum { SIGHT_GPUS = 32 };  // more are not used
typedef struct {
    unsigned char uuid[16];
    char name[44];
    int index;
} Gpu;
typedef struct {
    char host[64];
    int count;        // of GPUs that can be used
    char lacks[256];  // why others, or any, cannot
    int nccl;         // its version, 0 for none
    char no_nccl[256];
    Gpu gpus[SIGHT_GPUS];
} Sight;
bool placement_decide(const Sight *sights, int ranks, int rank, PlacementWish wish, bool share_gpu,
                      Placement *placement, Error *error);

#endif
