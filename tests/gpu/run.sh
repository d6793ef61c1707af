#!/usr/bin/env bash
# Builds bertune with its CUDA backend on a machine with a GPU and runs everything that needs one: tests, comparisons of
# losses, sanitizers, several ranks, the benchmark. Never stops at a failure; a table and summary.json say what went well.
#
#   run.sh [--only NAME,...] [--skip NAME,...] [--quick] [--time SECONDS] [OUT_DIR]
#
#   --only, --skip  steps, or the beginnings of their names (memcheck, losses); build and data are always made, but not
#                   where --skip names them
#   --quick         one sanitizer, a short benchmark
#   --time          begins no step when so many seconds have passed, and lets none go on for longer
#   OUT_DIR         gpu-run; steps of an earlier run there stay in the table. OUT_DIR.tar.gz has all of it
#
# Exit code 0: nothing failed; 1: something did; 69: there is no GPU, so little was tested.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
only="" skip="" quick="" broken="" seconds=100000 out=gpu-run command="$(basename "$0") $*"

usage() {
    sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$0"
    exit "$1"
}
while [ $# -gt 0 ]; do
    case $1 in
        --only | --skip | --time)
            [ $# -gt 1 ] || usage 64 >&2
            case $1 in --only) only=$2 ;; --skip) skip=$2 ;; --time) seconds=$2 ;; esac
            shift
            ;;
        --quick) quick=1 ;;
        --help) usage 0 ;;
        -*) usage 64 >&2 ;;
        *) out=$1 ;;
    esac
    shift
done

# NAME LIMIT HOW: in this order, those to run beside others (`with`) up to the next that runs alone.
steps() {
    cat <<'END'
machine 60 alone
build 540 alone
info 60 alone
architectures 60 alone
data 60 alone
kernels_ops 120 alone
kernels_attention 120 alone
kernels_cls_attention 120 alone
kernels_dropout 120 alone
kernels_adamw 120 alone
model 120 alone
reduce_staged_1 60 alone
reduce_staged_2 60 alone
losses_fp32 120 alone
losses_pytorch 60 alone
losses_tf32 60 alone
losses_bf16 60 alone
repeat 120 alone
ranks_2 120 alone
ranks_4 120 alone
nccl_one_gpu 120 alone
bench_16 120 alone
bench_128 120 alone
bench_1024 180 alone
race 590 alone
trials 590 alone
END
    local tool what
    for tool in memcheck racecheck synccheck initcheck; do
        for what in kernels_{ops,attention,cls_attention,dropout,adamw} model train train_bf16; do
            [ "$quick" ] && [ "$tool-$what" != memcheck-train ] || echo "${tool}_$what 580 with"
        done
    done
}
together=6  # sanitizers at a time

# named LIST NAME: whether the list has the name or a beginning of it.
named() {
    local item
    for item in ${1//,/ }; do [[ $2 != "$item" && $2 != "${item}"_* ]] || return 0; done
    return 1
}
wanted() {
    if [ -n "$skip" ] && named "$skip" "$1"; then return 1; fi
    [ -z "$only" ] || [ "$1" = build ] || [ "$1" = data ] || named "$only" "$1"
}

# Of several, the first in the order of the linker: the system's, else PyTorch's wheels.
find_nccl() {
    local file
    file=$(ldconfig -p | sed -n 's/.*libnccl[.]so[.]2 .*=> //p' | head -n 1)
    [ -n "$file" ] || file=$("${PYTHON:-python3}" -c '
import glob, sys
print(next((file for path in sys.path if path for file in glob.glob(path + "/nvidia/nccl/lib/libnccl.so.2")), ""))' || true)
    [ -n "$file" ] || file=$(find -L /usr/local /opt -name libnccl.so.2 -print -quit 2>/dev/null || true)
    [ -z "$file" ] || dirname "$file"
}

mkdir -p "$out"
out=$(realpath "$out")
export OUT=$out WORK=$source/build/gpu-work BUILD=${BUILD:-$source/build/gpu} BERTUNE_QUICK=$quick
PATH=$PATH:/usr/local/cuda/bin
BERTUNE_NCCL=$(find_nccl)
export PATH BERTUNE_NCCL LC_ALL=C.UTF-8
gpu=""
if [[ $(nvidia-smi -L 2>/dev/null || true) == GPU* ]]; then gpu=1; fi

# summarize: the table, and the same as JSON, of all steps that have a result.
summarize() {
    steps | cut -d ' ' -f 1 | "${PYTHON:-python3}" "$here/summary.py" "$out" "$command" >"$out/summary.txt.part"
    mv "$out/summary.txt.part" "$out/summary.txt"
}

# conclude NAME CODE SECONDS: what a step's exit code and its log mean. Without a GPU its absence is no failure.
conclude() {
    local name=$1 code=$2 log=$out/$1.log status=ok
    case $code in
        0) ;;
        77) status=skipped ;;
        124 | 137) status=failed && printf "\nnote: timed out\n" >>"$log" ;;
        *) if [ "$code" = 69 ] && [ -z "$gpu" ]; then status=skipped; else status=failed; fi ;;
    esac
    [ "$name" != build ] || [ -e "$WORK/built" ] || broken=1
    printf '%s\t%s\t%s\n' "$status" "$3" "$code" >"$out/$name.result"
    printf '%-28s %-8s %7.1f s\n' "$name" "$status" "$3"
}

# run NAME LIMIT
run() {
    local name=$1 limit=$2 code=0 begin=$EPOCHREALTIME left=$((seconds - SECONDS))
    if [ "$left" -le 0 ]; then
        echo "skipped: no time was left" >"$out/$name.log"
        code=77
    elif [ -n "$broken" ]; then
        echo "skipped: the build failed" >"$out/$name.log"
        code=77
    else
        timeout --kill-after 10 "$((limit < left ? limit : left))" bash "$here/steps.sh" "$name" \
            >"$out/$name.log" 2>&1 </dev/null &
        wait $! || code=$?
    fi
    conclude "$name" "$code" "$(awk "BEGIN { print $EPOCHREALTIME - $begin }")"
}

# Ends what runs beside this, too.
interrupted() {
    jobs -p | xargs -r kill 2>/dev/null || true
    exit 130
}
trap interrupted INT TERM
while read -r name limit how; do
    wanted "$name" || continue
    if [ "$how" = with ]; then
        while [ "$(jobs -rp | wc -l)" -ge "$together" ]; do wait -n || true; done
        { trap interrupted INT TERM && run "$name" "$limit"; } &
    else
        wait
        run "$name" "$limit"
    fi
    summarize
done < <(steps)
wait
summarize
cat "$out/summary.txt"
tar -C "$(dirname "$out")" -czf "$out.tar.gz" "$(basename "$out")"
echo "all of it: $out.tar.gz"
if grep -lq '^failed' "$out"/*.result; then exit 1; fi
[ -n "$gpu" ] || exit 69
