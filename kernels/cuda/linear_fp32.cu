#include "kernels/cuda/linear_kernels.cuh"

void linear_launch_fp32(CudaDevice *device, const LineProgram *program, const Linear &linear, bool b_inner) {
    (b_inner ? launch_precision<PRECISION_FP32, true> : launch_precision<PRECISION_FP32, false>)(device, program,
                                                                                                 linear);
}

size_t linear_resident_bytes(int K) {
    return TileProduct<SmallTile, PRECISION_TF32, true, false, true>::SHARED +
           resident_bytes<SmallTile, PRECISION_BF16>(K);
}
