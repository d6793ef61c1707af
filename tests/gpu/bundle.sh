#!/usr/bin/env bash
# Packs bertune's sources, the libraries that they need beside CUDA's, and data for a machine with a GPU but without
# MPI, HDF5, a network and root's packages: bundle.sh OUT.tar.gz [REVIEWS.csv MODEL_DIR]
# Without data, the sample reviews of the sources are trained on. Needs Debian 12 on x86-64, its package servers (no
# package is installed) and git.
set -euo pipefail
if [ $# != 1 ] && [ $# != 3 ]; then
    echo "Usage: $0 OUT.tar.gz [REVIEWS.csv MODEL_DIR]" >&2
    exit 64
fi
limit=$((60 * 1000 * 1000))
source=$(cd "$(dirname "$0")/../.." && pwd)
out=$(realpath -m -- "$1")
csv=${2:+$(realpath -e -- "$2")}
model=${3:+$(realpath -e -- "$3")}
triplet=x86_64-linux-gnu

# All of these; of the packages that they depend on, only the shared libraries that they load.
packages=(openmpi-bin openmpi-common libopenmpi3 libopenmpi-dev libpmix2 libhdf5-openmpi-103-1 libhdf5-openmpi-dev
    libfyaml0 libfyaml-dev libjansson4 libjansson-dev libutf8proc2 libutf8proc-dev libxxhash0 libxxhash-dev libssl3
    libssl-dev libcmocka0 libcmocka-dev libboost-context1.74.0 libboost-context1.74-dev pkgconf-bin libpkgconf3)
# Of every machine: mixing these with its own would break programs. The rest loads no libraries.
everywhere='libc6|libc-bin|libgcc-s1|gcc-[0-9]+-base|libstdc[+][+]6'
useless='(lib)?perl.*|.*debconf.*|dpkg|tar|passwd|adduser|openssh-client|install-info|.*-common|libicu.*'

say() { printf '== %s\n' "$*"; }
megabytes() { du -s --apparent-size -B 1 "$1" | awk '{ printf "%.1f MB", $1 / 1e6 }'; }

work=$(mktemp -d "${TMPDIR:-/tmp}/bertune-bundle-XXXXXX")
trap 'rm -rf "$work"' EXIT
bundle=$work/bertune-gpu
root=$bundle/root
lib=$root/usr/lib/$triplet
mkdir -p "$bundle/bertune" "$root" "$work/packages" "$work/others"

# The libraries that these depend on: a package's name and colon, then its dependencies; virtual ones are in <>.
closure() {
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        "$@" | grep -o '^[a-z0-9][a-z0-9+.-]*' | sort -u | grep -vxE "$everywhere|$useless"
}

# unpack FOLDER PACKAGE ...
unpack() {
    local folder=$1
    shift
    (cd "$work/packages" && apt-get download -qq -o APT::Sandbox::User=root "$@")
    for name in "$@"; do dpkg -x "$work/packages/${name}_"*.deb "$folder"; done
}

say "downloading packages"
mapfile -t runtime < <(printf '%s\n' "${packages[@]}" | grep -v -e '-dev$')
mapfile -t others < <(closure "${runtime[@]}" | grep -vxF "$(printf '%s\n' "${packages[@]}")")
unpack "$root" "${packages[@]}"
unpack "$work/others" "${others[@]}"
(cd "$work/packages" && printf '%s\n' *.deb) >"$bundle/packages.txt"

say "leaving out what nobody loads"
rm -rf "$root"/usr/share/{bug,doc,doc-base,javascript,lintian,man} "${root:?}/etc" "$lib/fortran"
find "$root" \( -name '*.a' -o -name '*.la' -o -name '*.mod' -o -name '*.jar' -o -name '*_fortran*' -o -name '*_cpp*' \
    -o -name 'libmpi_*' -o -name 'libhdf5*_hl.*' -o -name 'liboshmem*' -o -name 'mca_*osh*' -o -name 'mca_sshmem*' -o -name 'mca_spml*' \
    -o -name 'mca_memheap*' -o -name 'mca_scoll*' -o -name 'mca_atomic*' -o -name '*verbs*' -o -name '*usnic*' \
    -o -name '*psm*' -o -name '*ucx*' -o -name '*ofi*' -o -name 'mca_btl_openib*' -o -name '*_uct*' \) \
    ! -type d -delete
cp -r "$root/usr/include/$triplet/." "$root/usr/include/"  # a folder that only the machine's compiler searches
find "$root" -xtype l -delete  # Debian's alternatives, and links to what is gone

# What every program and library here loads, from the others; all lie in one folder.
find "$root" -type f \( -name '*.so*' -o -path '*/bin/*' \) -print0 |
    LD_LIBRARY_PATH=$lib:$lib/openmpi/lib:$work/others/usr/lib/$triplet:$work/others/lib/$triplet \
        xargs -0 -n 1 ldd 2>/dev/null >"$work/loads" || true
grep -o "$work/others/[^ ]*" "$work/loads" | sort -u | while read -r library; do
    cp -L "$library" "$lib/$(basename "$library")"
done
if grep 'not found' "$work/loads"; then
    echo "bundle.sh: the libraries above are missing" >&2
    exit 70
fi

# Names of the programs that CMake and scripts look for. pkg-config needs a library of the bundle's and a new root.
ln -sf orterun "$root/usr/bin/mpirun"
cat >"$root/usr/bin/pkg-config" <<'END'
#!/bin/sh
root=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
lib=$root/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH="$lib" PKG_CONFIG_LIBDIR="$lib/pkgconfig:$root/usr/share/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
exec "$root/usr/bin/pkgconf" "$@"
END
chmod +x "$root/usr/bin/pkg-config"

say "adding sources and data"
(cd "$source" && git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar -cf - --null -T -) | tar -xf - -C "$bundle/bertune"
{
    echo "commit: $(git -C "$source" rev-parse HEAD)"
    echo "changed files: $(git -C "$source" status --porcelain | wc -l)"
    echo "sha256 of all files: $(cd "$bundle/bertune" && find . -type f -print0 | LC_ALL=C sort -z |
        xargs -0 sha256sum | sha256sum | cut -c 1-64)"
} >"$bundle/source.txt"
if [ "$csv" ]; then
    mkdir -p "$bundle/data/model"
    cp "$csv" "$bundle/data/reviews.csv"
    for file in config.json vocab.txt model.safetensors; do
        [ ! -e "$model/$file" ] || cp "$model/$file" "$bundle/data/model/"
    done
fi

mkdir -p "$(dirname "$out")"
tar -C "$work" -cf - --owner=0 --group=0 --sort=name bertune-gpu | gzip -9 >"$out.part"
mv "$out.part" "$out"
for part in bertune root data; do
    [ ! -e "$bundle/$part" ] || printf '%-12s %s\n' "$part/" "$(megabytes "$bundle/$part")"
done
printf '%-12s %s\n' "$(basename "$out")" "$(megabytes "$out")"
if [ "$(stat -c %s "$out")" -gt "$limit" ]; then
    echo "bundle.sh: $out is larger than $((limit / 1000000)) MB" >&2
    exit 73
fi
