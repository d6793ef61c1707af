#include "kernels/cuda/linear_kernels.cuh"

void linear_launch_bf16(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner,
                        TileSize size) {
    (b_inner ? launch_precision<PRECISION_BF16, true> : launch_precision<PRECISION_BF16, false>)(device, program,
                                                                                                 linear, size);
}
