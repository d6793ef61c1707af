// See parallel_io.h.
#include "comm/parallel_io.h"

hid_t parallel_access(const Comm *comm) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0 || H5Pset_fapl_mpio(access, comm->world, MPI_INFO_NULL) < 0) {
        die(EX_UNAVAILABLE, "HDF5 cannot read in parallel here");
    }
    return access;
}

hid_t parallel_transfer(void) {
    hid_t transfer = H5Pcreate(H5P_DATASET_XFER);
    if (transfer < 0 || H5Pset_dxpl_mpio(transfer, H5FD_MPIO_COLLECTIVE) < 0) {
        die(EX_UNAVAILABLE, "HDF5 cannot read in parallel here");
    }
    return transfer;
}
