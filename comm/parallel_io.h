// HDF5 property lists for reading one file by all ranks together.
#ifndef BERTUNE_PARALLEL_IO_H
#define BERTUNE_PARALLEL_IO_H

#include <hdf5.h>

#include "comm/comm.h"

// File access over the communicator; close with H5Pclose.
hid_t parallel_access(const Comm *comm);
// Collective transfers; close with H5Pclose.
hid_t parallel_transfer(void);

#endif
