#include "kernels/cuda/linear_kernels.cuh"

void linear_launch_tf32(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner,
                        TileSize size) {
    (b_inner ? launch_precision<PRECISION_TF32, true> : launch_precision<PRECISION_TF32, false>)(device, program,
                                                                                                 linear, size);
}
