# shellcheck shell=bash
# Sourced by ./quickstart and ./runtests: finds what is missing and installs it where that is allowed.

say() { printf '\n== %s\n' "$*"; }

# Prints Debian's names of what the build needs and this machine lacks; $1 = tests: what the tests need, too.
missing_packages() {
    local command module
    while read -r command package; do
        command -v "$command" >/dev/null 2>&1 || echo "$package"
    done <<'TOOLS'
cc gcc
cmake cmake
ninja ninja-build
pkg-config pkg-config
mpirun openmpi-bin
TOOLS
    while read -r module package; do
        [ "$module" != cmocka ] || [ "$1" = tests ] || continue
        pkg-config --exists "$module" 2>/dev/null || echo "$package"
    done <<'LIBRARIES'
ompi-c libopenmpi-dev
hdf5-openmpi libhdf5-openmpi-dev
libfyaml libfyaml-dev
jansson libjansson-dev
libutf8proc libutf8proc-dev
libxxhash libxxhash-dev
libcrypto libssl-dev
cmocka libcmocka-dev
LIBRARIES
    if [ "$1" = tests ]; then  # the CUDA backend on processors is C++
        command -v c++ >/dev/null || echo g++
        printf '#include <boost/context/detail/fcontext.hpp>\n' | c++ -E -x c++ - >/dev/null 2>&1 ||
            echo libboost-context-dev
        command -v gnuplot >/dev/null || echo gnuplot-nox  # `bertune report`
        command -v python3 >/dev/null || echo python3
    fi
    printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1 || echo libc6-dev
}

install_missing() {
    local missing sudo=""
    missing=$(missing_packages "$1" | sort -u | tr '\n' ' ')
    [ -n "${missing// /}" ] || return 0
    [ "$(id -u)" = 0 ] || sudo="sudo"
    if ! command -v apt-get >/dev/null || { [ -n "$sudo" ] && ! sudo -n true 2>/dev/null && ! [ -t 0 ]; }; then
        echo "missing: $missing" >&2
        echo "as root: apt-get install $missing" >&2
        exit 69
    fi
    say "installing $missing"
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive sh -c \
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing" >/dev/null
}

# Installs Slurm for its tests, which need root: others, and machines without these packages, see them skipped. What apt
# would start of it is not started (the tests start their own), unless somebody has a policy for that already.
install_slurm() {
    local command package policy=/usr/sbin/policy-rc.d missing=""
    while read -r command package; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing="$missing $package"
    done <<'TOOLS'
slurmctld slurmctld
slurmd slurmd
sbatch slurm-client
munged munge
ip iproute2
TOOLS
    pkg-config --exists pmix || missing="$missing libpmix-dev"
    [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    say "installing$missing"
    if [ -e $policy ]; then policy=""; else printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy; fi
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive sh -c \
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing" >/dev/null ||
        echo "Slurm cannot be installed: its tests will be skipped" >&2
    [ -z "$policy" ] || rm -f "$policy"
}

# Open MPI: root may run it (containers), more ranks than cores are allowed, and no warnings where the kernel forbids
# one process to copy from another.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none
if [ "$(nproc)" -lt 2 ]; then export OMPI_MCA_rmaps_base_oversubscribe=1; fi
