// See placement.h. Every rank learns what all see and decides for all alike. GPUs are told apart by UUID: their numbers
// mean nothing outside of a process (CUDA_VISIBLE_DEVICES), and a host's name little within containers.
#include "comm/placement.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/nccl_api.h"

// Who computes where. GPUs of all ranks are numbered without repetition.
typedef struct {
    const Sight *sights;
    int ranks;
    const Gpu **gpus;  // sorted by UUID, no two alike
    size_t count;
    int *owner;   // (count) the rank that has the GPU for itself, or -1
    bool *tried;  // (count)
    int *place;   // (ranks) of a rank's GPU in its own list, or -1
} Plan;

static int compare(const void *left, const void *right) {
    const Gpu *const *a = left, *const *b = right;
    return memcmp((*a)->uuid, (*b)->uuid, sizeof(*a)->uuid);
}

static size_t number_of(const Plan *plan, const Gpu *gpu) {
    return (size_t)((const Gpu **)bsearch(&gpu, plan->gpus, plan->count, sizeof(Gpu *), compare) - plan->gpus);
}

static void number_gpus(Plan *plan) {
    size_t all = 0;
    for (int r = 0; r < plan->ranks; r++) { all += (size_t)plan->sights[r].count; }
    plan->gpus = check_calloc(all, sizeof(Gpu *));
    for (int r = 0; r < plan->ranks; r++) {
        for (int i = 0; i < plan->sights[r].count; i++) { plan->gpus[plan->count++] = &plan->sights[r].gpus[i]; }
    }
    qsort(plan->gpus, all, sizeof(Gpu *), compare);
    plan->count = 0;
    for (size_t i = 0; i < all; i++) {
        if (i == 0 || compare(&plan->gpus[i - 1], &plan->gpus[i]) != 0) { plan->gpus[plan->count++] = plan->gpus[i]; }
    }
}

// Gives the rank a GPU for itself: a free one, or one whose owner can move on to another (Kuhn's matching).
static bool find_own(Plan *plan, int rank) {
    const Sight *sight = &plan->sights[rank];
    for (int move = 0; move < 2; move++) {
        for (int i = 0; i < sight->count; i++) {
            const size_t gpu = number_of(plan, &sight->gpus[i]);
            if (plan->tried[gpu] || (plan->owner[gpu] >= 0 && !move)) { continue; }
            plan->tried[gpu] = true;
            if (plan->owner[gpu] >= 0 && !find_own(plan, plan->owner[gpu])) { continue; }
            plan->owner[gpu] = rank;
            plan->place[rank] = i;
            return true;
        }
    }
    return false;
}

static void give_own(Plan *plan) {
    plan->owner = check_calloc(plan->count, sizeof *plan->owner);
    plan->tried = check_calloc(plan->count, sizeof *plan->tried);
    plan->place = check_calloc((size_t)plan->ranks, sizeof *plan->place);
    for (size_t i = 0; i < plan->count; i++) { plan->owner[i] = -1; }
    for (int r = 0; r < plan->ranks; r++) {
        memset(plan->tried, 0, plan->count * sizeof *plan->tried);
        plan->place[r] = -1;
        find_own(plan, r);
    }
}

// The first rank that sees no GPU, else the first that got none of its own, or -1.
static int find_lost(const Plan *plan) {
    int lost = -1;
    for (int r = plan->ranks - 1; r >= 0; r--) {
        if (plan->place[r] < 0) { lost = r; }
    }
    for (int r = plan->ranks - 1; r >= 0; r--) {
        if (plan->sights[r].count == 0) { lost = r; }
    }
    return lost;
}

// Each rank without a GPU of its own gets the one that it sees with the fewest ranks on it.
static void give_shared(Plan *plan) {
    int *users = check_calloc(plan->count, sizeof *users);
    for (size_t i = 0; i < plan->count; i++) { users[i] = plan->owner[i] >= 0; }
    for (int r = 0; r < plan->ranks; r++) {
        const Sight *sight = &plan->sights[r];
        if (plan->place[r] >= 0) { continue; }
        for (int i = plan->place[r] = 0; i < sight->count; i++) {
            const size_t best = number_of(plan, &sight->gpus[plan->place[r]]);
            if (users[number_of(plan, &sight->gpus[i])] < users[best]) { plan->place[r] = i; }
        }
        users[number_of(plan, &sight->gpus[plan->place[r]])]++;
    }
    free(users);
}

static int ranks_on(const Plan *plan, const char *host) {
    int count = 0;
    for (int r = 0; r < plan->ranks; r++) { count += strcmp(plan->sights[r].host, host) == 0; }
    return count;
}

static int gpus_on(const Plan *plan, const char *host) {
    bool *seen = check_calloc(plan->count, sizeof *seen);
    int count = 0;
    for (int r = 0; r < plan->ranks; r++) {
        const Sight *sight = &plan->sights[r];
        for (int i = 0; strcmp(sight->host, host) == 0 && i < sight->count; i++) {
            bool *gpu = &seen[number_of(plan, &sight->gpus[i])];
            count += !*gpu;
            *gpu = true;
        }
    }
    free(seen);
    return count;
}

static void uuid_text(char text[48], const unsigned char uuid[16]) {
    int length = sprintf(text, "GPU");
    for (int i = 0; i < 16; i++) {
        const bool dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
        length += sprintf(text + length, "%s%02x", dash ? "-" : "", uuid[i]);
    }
}

// Why a rank got no GPU of its own, and what helps.
static void explain(const Plan *plan, int lost, char *why, size_t why_size, char *remedy, size_t remedy_size) {
    const Sight *sight = &plan->sights[lost];
    if (sight->count == 0) {
        snprintf(why, why_size, "no GPU for rank %d on host %s: %s", lost, sight->host, sight->lacks);
        snprintf(remedy, remedy_size, "use run.device=cpu or auto");
        return;
    }
    const int other = plan->owner[number_of(plan, &sight->gpus[0])];
    const int gpus = gpus_on(plan, sight->host), ranks = ranks_on(plan, sight->host);
    char uuid[48];
    uuid_text(uuid, sight->gpus[0].uuid);
    snprintf(why, why_size,
             "rank %d and rank %d are both on GPU %d of host %s (%s, %s), which has %d GPU%s for %d ranks",
             other < lost ? other : lost, other < lost ? lost : other, sight->gpus[0].index, sight->host,
             sight->gpus[0].name, uuid, gpus, gpus == 1 ? "" : "s", ranks);
    if (gpus < ranks) {
        snprintf(remedy, remedy_size,
                 "start at most %d rank%s there, or let them take turns through host memory with run.share_gpu=true",
                 gpus, gpus == 1 ? "" : "s");
    } else {
        snprintf(remedy, remedy_size, "let each rank see a GPU of its own (CUDA_VISIBLE_DEVICES, srun --gpu-bind)");
    }
}

static void version_text(char text[16], int version) {
    snprintf(text, 16, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

// Whether NCCL loads everywhere, and is the same; and a text that says so.
static bool have_nccl(const Plan *plan, char *text, size_t size) {
    char version[16], first[16];
    version_text(first, plan->sights[0].nccl);
    for (int r = 0; r < plan->ranks; r++) {
        const Sight *sight = &plan->sights[r];
        version_text(version, sight->nccl);
        if (sight->nccl == 0) {
            snprintf(text, size, "rank %d on host %s: %s", r, sight->host, sight->no_nccl);
            return false;
        }
        if (sight->nccl != plan->sights[0].nccl) {
            snprintf(text, size, "rank 0 has NCCL %s, rank %d on host %s has %s", first, r, sight->host, version);
            return false;
        }
    }
    snprintf(text, size, "NCCL %s", first);
    return true;
}

// All have a GPU, shared or not.
static void use_gpus(const Plan *plan, bool shared, int rank, Placement *placement) {
    const Gpu *gpu = &plan->sights[rank].gpus[plan->place[rank]];
    const char *name = plan->sights[0].gpus[plan->place[0]].name;
    char nccl[400] = "";
    placement->kind = DEVICE_CUDA;
    placement->index = gpu->index;
    placement->transport = REDUCE_STAGED;
    if (shared) {
        snprintf(placement->why, sizeof placement->why, "cuda: %d ranks share %zu GPU%s (%s), sums through host memory",
                 plan->ranks, plan->count, plan->count == 1 ? "" : "s", name);
    } else if (plan->ranks == 1) {
        snprintf(placement->why, sizeof placement->why, "cuda: %s", name);
    } else {
        const bool loaded = have_nccl(plan, nccl, sizeof nccl);
        placement->transport = loaded ? REDUCE_NCCL : REDUCE_STAGED;
        snprintf(placement->why, sizeof placement->why, "cuda: a GPU for each of %d ranks (%s), %s%s", plan->ranks,
                 name, loaded ? "" : "sums through host memory: ", nccl);
    }
}

static bool decide(Plan *plan, int rank, PlacementWish wish, bool share_gpu, Placement *placement, Error *error) {
    char why[400], remedy[200];
    number_gpus(plan);
    give_own(plan);
    const int lost = find_lost(plan);
    if (lost >= 0) {
        explain(plan, lost, why, sizeof why, remedy, sizeof remedy);
        if (wish == WISH_AUTO) {
            snprintf(placement->why, sizeof placement->why, "cpu: %s", why);
            return true;
        }
        if (!share_gpu || plan->sights[lost].count == 0) {
            return error_set(error, EX_UNAVAILABLE, "run.device: cuda: %s; %s", why, remedy);
        }
        give_shared(plan);
    }
    use_gpus(plan, lost >= 0, rank, placement);
    return true;
}

bool placement_decide(const Sight *sights, int ranks, int rank, PlacementWish wish, bool share_gpu,
                      Placement *placement, Error *error) {
    *placement = (Placement){.kind = DEVICE_CPU, .transport = REDUCE_SHARED, .why = "cpu: run.device=cpu"};
    if (wish == WISH_CPU) { return true; }
    Plan plan = {.sights = sights, .ranks = ranks};
    const bool ok = decide(&plan, rank, wish, share_gpu, placement, error);
    free(plan.gpus);
    free(plan.owner);
    free(plan.tried);
    free(plan.place);
    return ok;
}

// Why the GPU cannot be used, or NULL.
static const char *unusable(int index, const DeviceInfo *info, Error *error) {
    if (info->driver / 1000 < info->runtime / 1000) {  // CUDA is compatible within a major version
        error_set(error, EX_UNAVAILABLE, "needs a driver for CUDA %d.%d, found %d.%d: update the driver",
                  info->runtime / 1000, info->runtime % 1000 / 10, info->driver / 1000, info->driver % 1000 / 10);
        return error->text;
    }
    return device_lacks(DEVICE_CUDA, index, PRECISION_FP32);
}

// The first GPUs of the list are taken first: those of groups before this one go to its end.
static void turn(Sight *sight, int seats) {
    Gpu turned[SIGHT_GPUS];
    for (int i = 0; i < sight->count; i++) { turned[i] = sight->gpus[(i + seats) % sight->count]; }
    memcpy(sight->gpus, turned, (size_t)sight->count * sizeof *turned);
}

static void look(const Comm *comm, Sight *sight) {
    const char *why = "";
    Error error;
    snprintf(sight->host, sizeof sight->host, "%s", comm->host);
    const int visible = device_count(DEVICE_CUDA, &why);
    if (visible == 0) { snprintf(sight->lacks, sizeof sight->lacks, "%s", why); }
    for (int i = 0; i < visible && sight->count < SIGHT_GPUS; i++) {
        DeviceInfo info;
        why = device_describe(DEVICE_CUDA, i, &info, &error) ? unusable(i, &info, &error) : error.text;
        if (why) {
            snprintf(sight->lacks, sizeof sight->lacks, "GPU %d: %s", i, why);
            continue;
        }
        Gpu *gpu = &sight->gpus[sight->count++];
        memcpy(gpu->uuid, info.uuid, sizeof gpu->uuid);
        snprintf(gpu->name, sizeof gpu->name, "%s", info.name);
        gpu->index = i;
    }
    turn(sight, comm->seat);
    if (sight->count == 0 || comm->size == 1) { return; }
    const Nccl *nccl = nccl_load(&error);
    sight->nccl = nccl ? nccl->version : 0;
    if (!nccl) { snprintf(sight->no_nccl, sizeof sight->no_nccl, "%s", error.text); }
}

bool placement_choose(const Comm *comm, PlacementWish wish, bool share_gpu, Placement *placement, Error *error) {
    Sight *sights = check_calloc((size_t)comm->size, sizeof *sights);
    Sight *mine = check_calloc(1, sizeof *mine);
    if (wish != WISH_CPU) { look(comm, mine); }
    CHECK_MPI(MPI_Allgather(mine, sizeof *mine, MPI_BYTE, sights, sizeof *mine, MPI_BYTE, comm->world));
    const bool ok = placement_decide(sights, comm->size, comm->rank, wish, share_gpu, placement, error);
    free(mine);
    free(sights);
    return ok;
}
