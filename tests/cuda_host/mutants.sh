#!/usr/bin/env bash
# Are the tests of the label `cuda` worth anything? Breaks one line of the CUDA backend at a time, in a copy of the
# working tree, and says which test notices. Takes an hour and is no part of CTest.
# Usage: mutants.sh [REGULAR-EXPRESSION of the mutants' names]; MUTANTS_DIR: of the copy, kept, to go on with.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
wanted=${1:-.}
scratch=${MUTANTS_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/bertune-mutants-XXXXXX")}
[ -n "${MUTANTS_DIR:-}" ] || trap 'rm -rf "$scratch"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

# name | file | which of the lines that hold the text | text | what it becomes (nothing: it goes); \| is a |.
mutants() {
    cat <<'MUTANTS'
lines: the last element of a line is left out|kernels/cuda/lines_run.cuh|2|k < rows.count && h < rows.N|k < rows.count && h < rows.N - 1
lines: dropout takes another lane's bits|kernels/cuda/lines_run.cuh|1|bits.lane[q] <|bits.lane[3 - q] <
lines: dropout forgets the token's position|kernels/cuda/lines_run.cuh|1|first[k] + static_cast<uint32_t>(c)|static_cast<uint32_t>(c)
lines: position by the id of the word|kernels/cuda/lines_run.cuh|1|step.index[1][rows.line(k)]|step.index[0][rows.line(k)]
lines: the mean without its last exchange|kernels/cuda/lines_run.cuh|1|distance; distance /= 2|distance > 1; distance /= 2
lines: no __syncwarp before the small gradient is read|kernels/cuda/lines_run.cuh|1|__syncwarp();|
lines: no __syncwarp before the loss|kernels/cuda/lines_run.cuh|2|__syncwarp();|
lines: all blocks of a product store|kernels/cuda/linear_kernels.cuh|1|tile.pitch, blockIdx.y == 0|tile.pitch, true
lines: a product takes what it may not run twice|kernels/cuda/lines.cu|1|if (reads(program, out) |if (false && reads(program, out) 
attention: dropout of the wrong query|kernels/cuda/attention.cu|1|*= factors[q]|*= factors[3 - q]
attention: a tile too few|kernels/cuda/attention.cu|1|left < 0 ? 0 : left < ATT_TILE|left < 0 ? 0 : left <= 1 ? 0 : left < ATT_TILE
attention: scores behind the keys stay|kernels/cuda/attention.cu|1|j < keys ? s[j] / sum : 0.0f|s[j] / sum
attention: a copy is not waited for|kernels/cuda/attention.cu|1|copy_wait<GROUPS>();|copy_wait<GROUPS + 1>();
attention: no barrier behind the copies|kernels/cuda/attention.cu|1|__syncthreads();|
attention: no barrier behind the scores|kernels/cuda/attention.cu|2|__syncthreads();|
attention: no barrier behind the softmax|kernels/cuda/attention.cu|3|__syncthreads();|
attention: no barrier before the next values|kernels/cuda/attention.cu|4|__syncthreads();|
attention: no barrier behind backward's scores|kernels/cuda/attention.cu|5|__syncthreads();|
attention: no barrier behind the queries' dropout|kernels/cuda/attention.cu|6|__syncthreads();|
attention: no barrier before dq|kernels/cuda/attention.cu|7|__syncthreads();|
attention: no barrier behind a chunk of dq|kernels/cuda/attention.cu|8|__syncthreads();|
attention: no barrier behind the keys' scores|kernels/cuda/attention.cu|9|__syncthreads();|
attention: no barrier behind the keys' dropout|kernels/cuda/attention.cu|10|__syncthreads();|
attention: no barrier before the keys' second dropout|kernels/cuda/attention.cu|11|__syncthreads();|
attention: no barrier before dk and dv|kernels/cuda/attention.cu|12|__syncthreads();|
attention: no barrier behind a chunk of dk and dv|kernels/cuda/attention.cu|13|__syncthreads();|
cls attention: dropout of the wrong query|kernels/cuda/cls_attention.cu|1|return factors[0];|return factors[1];
cls attention: every head has the first one's weights|kernels/cuda/cls_attention.cu|1|weight[(h.a * h.D + d) * h.H + i]|weight[d * h.H + i]
cls attention: no barrier behind the softmax|kernels/cuda/cls_attention.cu|3|__syncthreads();|
cls attention: no barrier in backward|kernels/cuda/cls_attention.cu|6|__syncthreads();|
embedding: a token is listed a place too late|kernels/cuda/embedding.cu|1|if (w < warp)|if (w <= warp)
embedding: only the first chunk counts|kernels/cuda/embedding.cu|1|chunk < used|chunk < 1
embedding: the padding's row gets a gradient|kernels/cuda/embedding.cu|1|word && row == e.padding|word && row == -1
embedding: no barrier behind the counts|kernels/cuda/embedding.cu|1|__syncthreads();|
embedding: no barrier behind the list|kernels/cuda/embedding.cu|2|__syncthreads();|
group: lines beyond the batch's count|kernels/cuda/group.cu|1|p.N, p.K, extent_now(p.M)|p.N, p.K, p.M.most
group: columns beyond the matrix are stored|kernels/cuda/group.cu|1|lines[i / 2] >= place.M \|\| columns[i % 2] >= place.N|lines[i / 2] >= place.M
group: a share of the lines is left out|kernels/cuda/group.cu|1|int part = 1;|int part = 2;
group: gradients are never added up|kernels/cuda/group.cu|1|accumulate ? *out + sum : sum|sum
group: no barrier behind the sums|kernels/cuda/group.cu|1|__syncthreads();|
product: copies are one group late|kernels/cuda/product.cuh|1|copy_wait<STAGES - 2>();|copy_wait<STAGES - 1>();
product: no barrier behind the copies|kernels/cuda/product.cuh|1|__syncthreads();|
product: TF32 reads the neighbour's word|kernels/cuda/product.cuh|1|i, depth + word)|i, depth + (word ^ 1))
linear: the other lines are not left out|kernels/cuda/linear_kernels.cuh|1|extent_now(linear.M)|linear.M.most
step: the loss is not looked at|kernels/cuda/steps.cu|1|\|\| !isfinite(u.sums[u.blocks])|
step: a halted run goes on|kernels/cuda/steps.cu|1|*u.halted \|\| |
step: every weight decays|kernels/cuda/steps.cu|1|if (!u.decay)|if (false)
step: nothing is clipped|kernels/cuda/steps.cu|1|u.max_norm > 0.0f|u.max_norm < 0.0f
step: sequences begin where another step's do|kernels/cuda/steps.cu|1|step.first_sequence + index + i|step.first_sequence + i
step: no barrier within a sum|kernels/cuda/steps.cu|2|__syncthreads();|
step: dropout is the same in all steps|trainer/bert_state.h|1|state->step ? &state->step->step : NULL|NULL
nccl: no wait for the gradient|comm/reduce_nccl.c|1|CHECK_CUDA(cudaStreamWaitEvent(by->stream, by->final, 0));|
nccl: the gradient's event is not recorded|comm/reduce_nccl.c|1|CHECK_CUDA(cudaEventRecord(by->final, cuda_stream(reducer->device)));|
nccl: no wait for the sums|comm/reduce_nccl.c|1|CHECK_CUDA(cudaStreamWaitEvent(cuda_stream(reducer->device), by->summed, 0));|
nccl: the sums' event is not recorded|comm/reduce_nccl.c|1|CHECK_CUDA(cudaEventRecord(by->summed, by->stream));|
nccl: a bucket is summed too early|comm/reduce_nccl.c|1|by->done, 0, 1).begin >= begin; by->done++|by->done, 0, 1).end >= begin; by->done++
nccl: it is not asked how it is|comm/reduce_nccl.c|1|if (!still_well((ByNccl *)reducer, &error)) {|if (false && !still_well((ByNccl *)reducer, &error)) {
staged: rank 0 copies its gradient too early|comm/reduce_staged.c|2|reducer_publish(host);|
recorded: windows share their results|trainer/recorded.c|1|r->slot = (r->slot + 1) % WINDOWS;|
recorded: a window of one step more|trainer/recorded.c|1|r->results + (window->begin - r->first)|r->results + (window->begin - r->first + 1)
recorded: steps run past a checkpoint|trainer/recorded.c|1|limit = limit < r->end ? limit : r->end;|limit = r->end;
recorded: a window is not waited for|trainer/recorded.c|1|while (!device_done(r->use.device, slot)) {|while (false) {
MUTANTS
}

# mutate FILE N TEXT OTHER: in the N-th line that holds the text.
mutate() {
    WHICH=$2 TEXT=$3 OTHER=$4 perl -i -pe '
        my $at = index($_, $ENV{TEXT});
        substr($_, $at, length $ENV{TEXT}) = $ENV{OTHER} if $at >= 0 && ++$n == $ENV{WHICH};' "$1"
}

tests=(ops attention cls_attention dropout adamw)
build() {
    cmake --build "$scratch/build" --target bertune_on_host cuda_reduce cuda_model "${tests[@]/#/cuda_kernels_}" \
        >"$scratch/log" 2>&1
}

# ask ORDER TESTS: whether they fail, and which.
ask() {
    if ! CUDA_HOST_ORDER=$1 ctest --test-dir "$scratch/build" -L cuda -R "^($2)\$" --stop-on-failure \
        -j 2 >"$scratch/log" 2>&1; then
        caught="$(sed -n 's/.*- \([a-z_0-9]*\) (.*/\1/p' "$scratch/log" | head -n 1) ($1)"
        return 0
    fi
    return 1
}

# look FILE: the quick tests that know of the file, then the runs. Sets `caught`.
look() {
    local order
    caught=
    for order in early late; do
        case $1 in
            kernels/*) ask $order "cuda_kernels_.*" && return ;;
            comm/*) ask $order "cuda_reduce_.*" && return ;;
        esac
    done
    case $1 in kernels/*) ask early "cuda_model|cuda_model_late" && return ;; esac
    ask early "cuda_train|cuda_run" || true
}

mkdir -p "$scratch/tree"
(cd "$here" && git ls-files -co --exclude-standard -z | xargs -0 cp --parents -u -t "$scratch/tree" 2>/dev/null) || true
cmake -G Ninja -S "$scratch/tree" -B "$scratch/build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBERTUNE_TESTS=ON \
    -DBERTUNE_CUDA=OFF >/dev/null
build || { tail -n 20 "$scratch/log" && exit 1; }
if [ "$wanted" = . ]; then
    look kernels/cuda/lines.cu
    [ -z "$caught" ] || { echo "without any mutant: $caught" && tail -n 40 "$scratch/log" && exit 1; }
fi

survivors=0
while IFS= read -r mutant; do
    IFS='|' read -r name file which text other <<<"${mutant//\\|/$'\001'}"
    text=${text//$'\001'/|} other=${other//$'\001'/|}
    [[ $name =~ $wanted ]] || continue
    cp -p "$scratch/tree/$file" "$scratch/original"
    mutate "$scratch/tree/$file" "$which" "$text" "$other"
    if cmp -s "$scratch/tree/$file" "$scratch/original"; then
        result="NOT THERE: $file has no such line any more"
    elif ! build; then
        result="DOES NOT BUILD: $(grep -m 1 error "$scratch/log")"
    else
        look "$file"
        result=${caught:-SURVIVED}
    fi
    case $result in [A-Z]*) survivors=$((survivors + 1)) ;; esac
    printf '%-60s %s\n' "$name" "$result"
    cp "$scratch/original" "$scratch/tree/$file"
done < <(mutants)
exit $((survivors > 0))
