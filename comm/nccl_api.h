// The functions of NVIDIA's NCCL that are used, found at run time: the program builds and starts without NCCL. Names
// and ABI are those of <nccl.h> since NCCL 2.13.
#ifndef BERTUNE_NCCL_API_H
#define BERTUNE_NCCL_API_H

#include "kernels/check.h"

typedef struct {
    char internal[128];
} NcclUniqueId;

typedef struct ncclComm NcclComm;
struct CUstream_st;  // *cudaStream_t

enum { NCCL_SUCCESS = 0, NCCL_REMOTE_ERROR = 6, NCCL_IN_PROGRESS = 7 };  // ncclResult_t
enum { NCCL_FLOAT = 7 };                                                 // ncclDataType_t
enum { NCCL_SUM = 0 };                                                   // ncclRedOp_t

typedef struct {
    int version;  // 22809 for 2.28.9
    int (*ncclGetVersion)(int *version);
    int (*ncclGetUniqueId)(NcclUniqueId *id);
    int (*ncclCommInitRank)(NcclComm **comm, int ranks, NcclUniqueId id, int rank);
    int (*ncclAllReduce)(const void *send, void *receive, size_t count, int type, int operation, NcclComm *comm,
                         struct CUstream_st *stream);
    int (*ncclCommGetAsyncError)(NcclComm *comm, int *result);
    int (*ncclCommAbort)(NcclComm *comm);
    int (*ncclCommDestroy)(NcclComm *comm);
    const char *(*ncclGetErrorString)(int result);
    const char *(*ncclGetLastError)(NcclComm *comm);
} Nccl;

// The library libnccl.so.2, loaded once, or NULL with EX_UNAVAILABLE and why not.
const Nccl *nccl_load(Error *error);

#endif
