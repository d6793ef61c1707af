#!/usr/bin/env bash
# A run of 90 steps is killed again and again at random moments, goes on each time with a random number of ranks, and
# ends with the bytes of a run that was left alone; after each kill everything that has its name is whole.
# Before that: a run goes on from its checkpoint of every single step, and ends with the same bytes.
# Usage: kills.sh BERTUNE [KILLS [MODE [RANKS [SEED]]]], by default 12 kills, elastic, "1 2 4", 1. With another mode than
# elastic every run keeps its number of ranks. Then, where FAULTS names the library of tests/faults, the program is
# stopped at the system calls of a whole run, and these fail, one at a time: at all of them where KILLS is 100 or more.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
export OMPI_MCA_ess_singleton_isolated=1
kills=${2:-12} mode=${3:-elastic} ranks_list=${4:-1 2 4} seed=${5:-1}
faults=${FAULTS:-}
set_up
read -ra choices <<<"$ranks_list"
run=(train.determinism="$mode" train.num_train_epochs=6 train.max_steps=90 run.save_steps=4)
RANDOM=$seed
echo "seed $seed, $kills kills, determinism $mode, ranks $ranks_list"

# ends_like REFERENCE RUN: the same weights, moments and lines.
ends_like() {
    local file event
    for file in final/model.safetensors checkpoints/step-00000090/{model,optimizer}.safetensors; do
        same "$1/$file" "$2/$file"
    done
    for event in step epoch end; do
        events "$1" $event >"$scratch/a"
        events "$2" $event >"$scratch/b"
        same "$scratch/a" "$scratch/b"
    done
}

# Three epochs of ten steps, the last batch of each smaller, a schedule, the best checkpoint so far.
each=(train.determinism="$mode" train.global_batch_size=26 train.lr_scheduler_type=linear train.warmup_ratio=0.2
    run.save_steps=1 run.save_total_limit=99)
train 0 0 run.dir=steps "${each[@]}"
equal "$(events steps step | wc -l)" 30
for ((step = 1; step < 30; step++)); do
    cp -r steps cut
    train 0 0 run.dir=cut "run.resume=cut/checkpoints/step-$(printf %08d $step)" "${each[@]}"
    for file in final/model.safetensors checkpoints/step-00000030/{{model,optimizer}.safetensors,state.json}; do
        same "steps/$file" "cut/$file"
    done
    equal "$(readlink cut/checkpoints/best)" "$(readlink steps/checkpoints/best)"
    for event in step epoch checkpoint end; do
        events steps $event >"$scratch/a"
        events cut $event >"$scratch/b"
        same "$scratch/a" "$scratch/b"
    done
    rm -r cut
done
echo "29 of 29 resumes, one after each step, end with the same bytes"

for ranks in "${choices[@]}"; do
    begun=$(date +%s%N)
    train "$ranks" 0 run.dir="whole$ranks" "${run[@]}"
    length=$((($(date +%s%N) - begun) / 1000000))
    [ "$mode" != elastic ] || ends_like "whole${choices[0]}" "whole$ranks"
done

# stopped: whether the job has ended by itself.
stopped() { ! kill -0 "$pid" 2>/dev/null; }

step_now() { sed -n '$s/.*"step": \([0-9]*\).*/\1/p' run/metrics.jsonl 2>/dev/null || true; }

# Until the moment of the kill: some time since the start, a step, or a save that has just begun.
await_moment() {
    local goal now
    case $((RANDOM % 4)) in
        0)
            now=$((RANDOM % (length / 2 + 1)))
            sleep "$((now / 1000)).$(printf %03d $((now % 1000)))"
            ;;
        1 | 2)
            now=$(step_now)
            goal=$((${now:-0} + 1 + RANDOM % 6))
            until stopped || [ "$(step_now | grep . || echo 0)" -ge "$goal" ]; do sleep 0.01; done
            sleep "0.0$((RANDOM % 30 + 10))"
            ;;
        3)
            sleep "0.$((RANDOM % 4))"
            until stopped || compgen -G 'run/checkpoints/.tmp-step-*' >/dev/null; do sleep 0.002; done
            ;;
    esac
}

# start RANKS: in the background, its processes to be found by `processes`.
start() {
    local launch=()
    [ "$1" = 0 ] || launch=(mpirun -np "$1")
    "${launch[@]}" "$bertune" train c.yaml run.dir=run "${run[@]}" >"$out" 2>"$err" &
    pid=$!
}
processes() { cat /proc/"$pid"/task/*/children 2>/dev/null || true; }

# check_run: what is there after a kill.
check_run() {
    local code=0 name
    "$bertune" verify run >"$scratch/verified" 2>&1 || code=$?
    case $code in
        0) ;;
        66) [ ! -e run ] || [ -z "$(ls run)" ] || fail "verify: $(cat "$scratch/verified")" ;;
        *) fail "unreadable after kill $done_kills: $(cat "$scratch/verified")" ;;
    esac
    for name in run/checkpoints/.t* run/.t*; do
        if [ -e "$name" ] && [ "$name" != "$seen" ]; then  # not one from an earlier kill
            inside=$((inside + 1))
            seen=$name
            break
        fi
    done
}

done_kills=0 seen='' inside=0 alone=0 finished=0 resumed=0
ranks=${choices[RANDOM % ${#choices[@]}]}
rm -rf run
while true; do
    [ "$mode" != elastic ] || ranks=${choices[RANDOM % ${#choices[@]}]}
    launched=$ranks
    [ "$ranks" != 1 ] || [ $((RANDOM % 2)) = 0 ] || launched=0
    start "$launched"
    if [ "$done_kills" -lt "$kills" ]; then await_moment; fi
    if [ "$done_kills" -lt "$kills" ] && ! stopped; then
        read -ra children <<<"$(processes | tr '\n' ' ')"
        if [ ${#children[@]} -gt 1 ] && [ $((RANDOM % 4)) = 0 ]; then
            kill -9 "${children[RANDOM % ${#children[@]}]}" 2>/dev/null || true  # one rank: mpirun ends the others
            alone=$((alone + 1))
        else
            kill -9 "$pid" "${children[@]}" 2>/dev/null || true
            # The list may lack some that were just being started.
            for each in $(leftovers); do kill -9 "$each" 2>/dev/null || true; done
        fi
    fi
    await_launcher "$pid"
    wait_for 20 gone
    resumed=$((resumed + $(grep -c 'going on from' "$err" || true)))
    if [ "$code" = 0 ]; then
        ends_like "whole$ranks" run
        finished=$((finished + 1))
        rm -rf run
        [ "$done_kills" -lt "$kills" ] || break
        ranks=${choices[RANDOM % ${#choices[@]}]}
    else
        [ "$code" = 137 ] || fail "exit code $code after a kill"
        done_kills=$((done_kills + 1))
        check_run
    fi
done
none_left
echo "$done_kills kills ($inside inside a save, $alone of one rank), $resumed starts from a checkpoint, $finished runs" \
    "finished: all states readable, all ends equal; mpirun locked itself out $locked times"

# A run of 6 steps with 3 saves.
[ -n "$faults" ] || exit 0
short=(train.max_steps=6 run.save_steps=2 run.save_total_limit=1)
every=$((kills < 12 ? 47 : kills < 100 ? 19 : 1))
train 0 0 run.dir=short "${short[@]}"
export ASAN_OPTIONS="$ASAN_OPTIONS:verify_asan_link_order=0"
# with KIND ERROR AT: runs below the library, the code in $code.
with() {
    code=0
    FAULTS_BELOW=/broken FAULTS_KIND=$1 FAULTS_ERROR=$2 FAULTS_AT=$3 FAULTS_COUNT=$scratch/count LD_PRELOAD=$faults \
        timeout 120 "$bertune" train c.yaml run.dir="$scratch/work/broken" "${short[@]}" >"$out" 2>"$err" || code=$?
}
with none EIO 0
equal "$code" 0 "without faults: $(cat "$err")"
calls=$(cat "$scratch/count")
[ "$calls" -gt 100 ] || fail "only $calls calls are seen"
tried=0
for ((at = 1; at <= calls; at += every)); do
    for fault in kill:EIO kill-in:EIO error:EIO broken:ENOSPC; do
        rm -rf broken
        with ${fault%:*} "${fault#*:}" $at
        case $fault:$code in
            kill*:137 | error:*:0 | error:*:7[34] | broken:*:7[34] | broken:*:0) ;;
            *) fail "$fault at call $at: exit code $code" ;;
        esac
        if [ "$code" != 0 ] && [ -e broken ] && [ -n "$(ls broken)" ]; then
            expect 0 "$bertune" verify broken
        fi
        train 0 0 run.dir=broken "${short[@]}"
        same short/final/model.safetensors broken/final/model.safetensors
        tried=$((tried + 1))
    done
done
echo "$tried faults at $calls calls of a run: all states readable, all ends equal"
