#!/usr/bin/env bash
# Runs a command with MPI, HDF5 and the other libraries of the bundle around these sources, or with the machine's own
# where the sources are in no bundle: with.sh COMMAND [ARGUMENT ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/root
lib=$root/usr/lib/x86_64-linux-gnu
paths=${LD_LIBRARY_PATH:-}
if [ -d "$lib" ]; then
    export PATH=$root/usr/bin:$PATH
    paths=$lib:$lib/openmpi/lib${paths:+:$paths}
    # Open MPI, PMIx and hwloc look for their plug-ins where they were installed, unless they are told.
    export OPAL_PREFIX=$root/usr OPAL_LIBDIR=$lib OMPI_MCA_mca_base_component_path=$lib/openmpi/lib/openmpi3
    export PMIX_PREFIX=$lib/pmix2 PMIX_MCA_mca_base_component_path=$lib/pmix2/lib/pmix HWLOC_PLUGINS_PATH=$lib/hwloc
fi
[ -z "${BERTUNE_NCCL:-}" ] || paths=${paths:+$paths:}$BERTUNE_NCCL  # the folder of libnccl.so.2, last
[ -z "$paths" ] || export LD_LIBRARY_PATH=$paths
unset BERTUNE_NCCL
# Root may run it (containers), and any number of ranks; on one machine they need no network, and all cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_hwloc_base_binding_policy=none
exec "$@"
