#!/usr/bin/env bash
# A rank is killed or stopped, or asked to stop, in every phase of a run: who it was is said once, with the right exit
# code and in time, and no process and no shared memory is left. And what is slow but alive is left alone.
# Usage: watchdog.sh BERTUNE [TRIALS [SEED]]: TRIALS of each kind in each phase, with a table at the end, or one as a
# test. Times are measured with all other work on the machine, and may be longer by what it needs for a whole short run.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
trials=${2:-1}
RANDOM=${3:-$$}
aim=$(dirname "$bertune")/watchdog_aim hang=$(dirname "$bertune")/watchdog_hang
for helper in "$aim" "$hang"; do [ -x "$helper" ] || fail "no $helper: build the tests"; done
unset OMPI_MCA_odls_base_sigkill_timeout  # as it is for users: a second from mpirun's TERM to its KILL
deadline=3
set_up
sed -i "s/^run:/run:\n  step_timeout: $deadline/; s/num_train_epochs: 3/num_train_epochs: 6/" c.yaml

# The shared memory of the run: Open MPI's, whose names have the number of the job, which an earlier one may have had. The
# watchdog's has no name.
kept() { find /dev/shm "$segments" -newer "$scratch/begun" -name "*.$(printf %x "$job").*" 2>/dev/null; }
none_kept() {
    local left=500
    while [ -n "$(kept)" ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "shared memory is left: $(kept | tr '\n' ' ')($1)"
        sleep 0.02
    done
}

ended() { ! kill -0 "$1" 2>/dev/null; }

# start RANKS ARGUMENT ...: a run in the background; sets $launcher.
start() {
    local ranks=$1
    shift
    touch "$scratch/begun"
    mpirun -np "$ranks" "$bertune" train c.yaml run.dir=run "$@" >"$out" 2>"$err" &
    launcher=$!
}

# strike RANKS PHASE RANK SIGNAL MICROSECONDS TO ARGUMENT ...: starts a run, sends the signal TO the `rank` or the
# `launcher` so long after the rank has entered the phase, and waits for the end. Sets $code, $seconds from the signal to
# when all are gone, the rank's $pid, the phase in which the signal $hit, whether the rank had $left MPI before, and the
# number of MPI's $job.
strike() {
    local ranks=$1 phase=$2 rank=$3 signal=$4 delay=$5 to=$6 sent
    shift 6
    start "$ranks" "$@"
    local target=()
    [ "$to" = rank ] || target=("$launcher")
    hit='' left=0
    read -r sent pid hit _ left job < <("$aim" "$phase" "$rank" "$signal" "$delay" "${target[@]}") || true
    # Behind MPI nobody waits for the rank that sees the others off.
    [ "$signal:$rank:$left" != 19:0:1 ] || kill -CONT "$pid"
    await_launcher $launcher
    wait_for 10 gone
    seconds=$(awk -v sent="${sent:-0}" -v now="$(date +%s.%N)" 'BEGIN { printf "%.2f", now - sent }')
    [ "$locked" != 0 ] || return 0
    # It was not the ranks that took so long, and the exit code is not theirs.
    [ "$hit" = init ] || fail "mpirun has locked itself out after signal $signal in $hit"
    seconds=0 locked=0 lockouts=$((lockouts + 1))
    [ "$signal" != 19 ] || code=81
}
lockouts=0

# aimed RANKS PHASE RANK SIGNAL ...: `strike` of a new run, again where the signal came too late: the last phases come
# once and are short, and the machine may be busy.
missed=0
aimed() {
    local tries
    for tries in 1 2 3 4 5 6; do
        rm -rf run
        strike "$@"
        case $4:$2:$3:$left:$hit:$code in
            19:*:0:1:end:0) return ;;  # it was stopped and went on
            *::0 | 9:final:*:0 | 9:end:*:0 | 19:final:*:0 | 19:end:*:0) missed=$((missed + 1)) ;;
            *) return ;;
        esac
    done
    fail "$2 was missed $tries times"
}

# within SECONDS WHAT
within() {
    awk -v a="$seconds" -v b="$1" -v slack="$slack" 'BEGIN { exit !(a <= b + slack) }' ||
        fail "$2: $seconds s, at most $1 s and $slack s"
}

# record KIND PHASE: for the table.
record() { echo "$1 $2 $hit $seconds" >>"$scratch/table"; }

# named RANK: by bertune in one line, or, while MPI starts or ends, by mpirun at least.
named() {
    local count
    count=$(grep -c "^bertune: rank [0-9]* (host " "$err" || true)
    if [ "$count" = 0 ] && { [ "$hit" = init ] || [ "$hit" = start ] || [ "$left" = 1 ]; }; then
        # It does not always say which.
        grep -q "process rank $1 with PID\|\[\[[0-9]*,[0-9]*\],$1\]\|job has been aborted" "$err" ||
            fail "nothing is said of rank $1 ($hit)"
        return
    fi
    equal "$count" 1 "lines that name a rank"
    grep -q "^bertune: rank $1 (host [^,]*, pid $pid) " "$err" || fail "rank $1 ($hit) is not named"
}

# few PHASE: what makes a run come to the phase soon.
few() { case $1 in final | end) echo train.max_steps=2 ;; *) echo train.num_train_epochs=1000 ;; esac; }

# delay PHASE: microseconds into it.
delay() {
    case $1 in
        init) echo $((RANDOM % 300 * 1000)) ;;
        start | read | step | reduce) echo $((RANDOM % 500)) ;;
        end) echo $((RANDOM % 2000)) ;;
        *) echo $((RANDOM % 5000)) ;;
    esac
}

slack=$(date +%s.%N)
train 4 0 run.dir=short train.max_steps=2
slack=$(awk -v begun="$slack" -v now="$(date +%s.%N)" 'BEGIN { printf "%.2f", now - begun }')
phases=(init start read load step reduce evaluate save final end)
[ "$trials" = 1 ] || echo "killed, stopped and asked in each phase $trials times" >&2
for ((trial = 0; trial < trials; trial++)); do
    for i in "${!phases[@]}"; do
        phase=${phases[i]}
        ranks=$((2 + (i + trial) % 2 * 2)) more=$(few "$phase")
        rank=$((RANDOM % ranks))

        # Killed.
        aimed $ranks "$phase" $rank 9 "$(delay "$phase")" rank "$more"
        [ "$code" = 137 ] || fail "exit code $code after rank $rank of $ranks was killed in $phase ($hit)"
        within 10 "killed in $phase"
        named $rank
        none_kept "killed in $phase ($hit)"
        record killed "$phase"

        # Stopped.
        aimed $ranks "$phase" $rank 19 "$(delay "$phase")" rank "$more"
        if [ "$rank:$left" = 0:1 ]; then
            equal "$code" 0 "exit code after rank 0 was stopped for a moment behind MPI"
        else
            [ "$code" = 81 ] || fail "exit code $code after rank $rank of $ranks was stopped in $phase ($hit)"
            within $((deadline + 5)) "stopped in $phase"
            named $rank
        fi
        none_kept "stopped in $phase ($hit)"
        record stopped "$phase"

        # Asked to stop, through mpirun or one rank alone; what is over anyway may come to its end.
        to=$([ $((RANDOM % 2)) = 0 ] && echo rank || echo launcher)
        aimed $ranks "$phase" $rank 12 "$(delay "$phase")" "$to" "$more"
        case $phase:$code in
            *:75 | final:0 | end:0) ;;
            *) fail "exit code $code after the $to was asked to stop in $phase" ;;
        esac
        within 5 "asked to stop in $phase"
        find run/checkpoints -mindepth 1 -name 'step-*' | grep -q . || fail "no checkpoint after $phase"
        expect 0 "$bertune" verify run
        [ "$code" = 0 ] || [ ! -e run/final ] || fail "final/ of a run that was stopped in $phase"
        none_kept "asked in $phase"
        record asked "$phase"
    done
done

# An evaluation that was given up is made up for, and nothing else changes. Twice at the same epoch, too.
ends_like() {
    same "$1/final/model.safetensors" "$2/final/model.safetensors"
    for event in step epoch end; do
        events "$1" $event >"$scratch/a"
        events "$2" $event >"$scratch/b"
        same "$scratch/a" "$scratch/b"
    done
}
# A model and data with which a step and an evaluation take a second and more.
mkdir -p large
sed 's/"hidden_size": 32/"hidden_size": 256/; s/"num_hidden_layers": 2/"num_hidden_layers": 4/
     s/"intermediate_size": 64/"intermediate_size": 1024/' model/config.json >large/config.json
cp vocab.txt large
expect 0 "$bertune" prepare reviews.csv --out slow.h5 --vocab vocab.txt --max-length 48 --test-size 0.7
slow=(model.path=large data.path=slow.h5 train.global_batch_size=96 train.num_train_epochs=2)
train 2 0 run.dir=slow "${slow[@]}"
rm -rf run
for to in launcher rank rank; do
    strike 2 evaluate 0 12 0 $to "${slow[@]}"
    [ "$code" = 75 ] || fail "exit code $code after the $to was asked to stop in evaluation"
    equal "$(events run step | wc -l)" 1 steps
    equal "$(events run epoch | wc -l)" 0 epochs
done
train 2 0 run.dir=run "${slow[@]}"
ends_like slow run
# One rank after another is asked in the other phases.
train 2 0 run.dir=whole
rm -rf run
for phase in step save evaluate load reduce save; do strike 2 $phase 1 12 $((RANDOM % 2000)) rank; done
train 2 0 run.dir=run
ends_like whole run

# Stopped for less than the deadline.
rm -rf run
start 2
read -r _ pid _ < <("$aim" step 1 19 0)
sleep $((deadline - 2))
kill -CONT "$pid"
await_launcher $launcher
equal "$code" 0 "after a short stop"
ends_like whole run

# run.step_timeout=0: not watched, and a kill is still mpirun's to notice.
rm -rf run
start 2 run.step_timeout=0
read -r _ pid _ < <("$aim" step 1 19 0)
sleep $((deadline + 2))
kill -0 $launcher || fail "it is watched"
kill -CONT "$pid"
await_launcher $launcher
equal "$code" 0 "without a watchdog"
ends_like whole run

# Steps, and an evaluation on rank 0 alone, that take longer than the time-out.
train 2 0 run.dir=alive "${slow[@]}" run.step_timeout=1
lacks "$err" "rank 0 (" "slow but alive"
ends_like slow alive

# A rank that hangs without being stopped, all that wait, and ranks that are not lost.
expect 81 mpirun -np 3 "$hang" hang $deadline
equal "$(grep -c "^bertune: rank 2 (host .* made no progress for $deadline s in computing at step 7;" "$err")" 1
expect 81 mpirun -np 3 "$hang" wait $deadline
equal "$(grep -c "^bertune: all 3 ranks of host .* waited for $((deadline + 2)) s in computing at step 7: " "$err")" 1
for how in slow busy save; do
    expect 0 mpirun -np 3 "$hang" $how 1
    [ ! -s "$err" ] || fail "$how is not left alone"
done
expect 70 mpirun -np 3 "$hang" error $deadline
equal "$(grep -c "^bertune: rank" "$err")" 1 "lines that name a rank that says its error itself"
contains "$err" "as it was asked to"

# `bertune prepare`: nothing or all, and no other file.
for ((i = 0; i < 100; i++)); do tail -n +2 "$samples"; done | cat <(head -n 1 "$samples") - >long.csv
prepare=("$bertune" prepare long.csv --out prepared/d.h5 --build-vocab=500 --vocab-out prepared/v.txt --max-length 48)
caught() { [ $((0x$(sed -n 's/^SigCgt:\t//p' "/proc/$1/status") & 0x800)) != 0 ]; }
mkdir prepared
begun=$(date +%s%N)
expect 0 "${prepare[@]}"
length=$((($(date +%s%N) - begun) / 1000000))
early=0
for ((i = 0; i < 12 * trials; i++)); do
    signal=$((i % 3 == 0 ? 12 : i % 3 == 1 ? 15 : 2))
    rm -rf prepared/*
    set -m  # else SIGINT is ignored behind `&`
    "${prepare[@]}" >"$out" 2>"$err" &
    pid=$!
    set +m
    until ended $pid || caught $pid 2>/dev/null; do sleep 0.001; done
    sleep "$(awk -v random="$RANDOM" -v length_ms=$length 'BEGIN { printf "%.3f", random / 32768 * length_ms / 1000 }')"
    kill -$signal $pid 2>/dev/null || true
    code=0
    wait $pid || code=$?
    found=$(find prepared -mindepth 1 -printf '%f ' | sort)
    case $code:$found in
        0:*d.h5*) equal "$(find prepared -type f | wc -l)" 2 "files of prepare" ;;
        75: | 130:) early=$((early + 1)) ;;
        *) fail "exit code $code of prepare after signal $signal, with the files: $found" ;;
    esac
done
[ $early -gt 0 ] || fail "prepare was never stopped"

echo "$missed signals came too late and were repeated, mpirun locked itself out $lockouts times," \
    "prepare stopped early $early times of $((12 * trials)), a short run took $slack s"
if [ "$trials" -gt 1 ]; then
    awk '{ n[$1 " " $2]++; s[$1 " " $2] += $4; if ($4 > m[$1 " " $2]) m[$1 " " $2] = $4; h[$1 " " $2] += $2 == $3 }
         END { for (k in n) printf "%-20s %3d trials  mean %.2f s  longest %.2f s  hit in that phase %d\n", k, n[k],
                   s[k] / n[k], m[k], h[k] }' "$scratch/table" | sort
fi
none_left
