// A group of gradients of parameters, computed by one launch: matrix products over the lines of a batch and sums of
// columns, each too small to fill a GPU. Operations that are "all lines" append to the device's group; it is launched
// at the next device_sync.
#ifndef BERTUNE_GROUP_CUH
#define BERTUNE_GROUP_CUH

#include <cuda_runtime.h>

#include "kernels/kernels.h"

// out (N, K) = a^T b over the M lines of a (M, N) and b (M, K), or added to it.
typedef struct {
    float *out;
    const float *a, *b;
    size_t out_line, a_line, b_line;  // floats
    Extent M;
    int N, K;
    bool accumulate;
} GroupProduct;

// sum[j] = sum over the M lines of a[i, j], and product[j] = sum of a[i, j] * b[i, j / share] where product is not
// NULL; a (M, N), b (M, N / share). Or added to them. Without a: both become zero, or stay.
typedef struct {
    float *sum, *product;  // (N), each may be NULL
    const float *a, *b;
    Extent M;
    int N, share;
    bool accumulate;
} GroupSum;

enum { GROUP_PRODUCTS = 16, GROUP_SUMS = 16 };

typedef struct {
    int products, sums;
    GroupProduct product[GROUP_PRODUCTS];
    GroupSum sum[GROUP_SUMS];
} Group;

typedef struct CudaDevice CudaDevice;

// Append, after launching the group where it is full.
void group_add_product(CudaDevice *device, GroupProduct product);
void group_add_sum(CudaDevice *device, GroupSum sum);

#endif
