#include "kernels/cuda/linear_kernels.cuh"

void linear_launch_fp32(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner,
                        TileSize size) {
    (b_inner ? launch_precision<PRECISION_FP32, true> : launch_precision<PRECISION_FP32, false>)(device, program,
                                                                                                 linear, size);
}
