#!/usr/bin/env bash
# bertune report: the page, the table and the event files of runs and sweeps, whole, unfinished, damaged and hostile.
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/lib.sh
. "$here/lib.sh"
export OMPI_MCA_ess_singleton_isolated=1
for tool in gnuplot python3; do
    if ! command -v $tool >/dev/null; then
        echo "SKIPPED: no $tool"
        exit 77
    fi
done
report() { expect "$1" env PATH="${search:-$PATH}" "$bertune" report "${@:2}"; }
check() { python3 "$here/report_check.py" "$@" >"$scratch/check" 2>&1 || fail "$*: $(tail -n 3 "$scratch/check")"; }
temporaries() { find . -name '.*.tmp-*'; }
set_up

# Two runs, one of a name that means something to HTML, shells, gnuplot and CSV.
evil=$'runs/<script>alert("x")<\'$(touch hacked) `touch hacked` \\n, @0@ {好} &amp;'
train 0 0 run.dir="$evil" train.learning_rate=1e-3 train.num_train_epochs=2
train 2 0 run.dir=runs/plain
report 0 runs -o report.html --csv table.csv --tensorboard events
equal "$(cat "$out" "$err")" ""
check html report.html "$evil" runs/plain
absent hacked
check csv table.csv "$evil" runs/plain
contains table.csv ',train.num_train_epochs,train.learning_rate,'
mapfile -d '' written < <(find events -type f -print0 | sort -z)
equal "${#written[@]}" 2
for file in "${written[@]}"; do
    run=runs/plain
    case $file in events/plain/*) ;; *) run=$evil ;; esac
    check events "$file" "$run"
    code=0
    python3 "$here/report_check.py" tensorboard "$(dirname "$file")" "$run" 2>"$err" || code=$?
    [ "$code" != 77 ] || echo "SKIPPED: TensorBoard's own reader (python3 -m pip install tensorboard)"
    [ "$code" = 77 ] || [ "$code" = 0 ] || fail "TensorBoard reads $file in another way"
done

# The same files, the same bytes; stdout; several arguments, none counted twice.
report 0 runs -o again.html --csv again.csv --tensorboard again
same report.html again.html
same table.csv again.csv
diff -r events again || fail "other event files"
report 0 runs/plain/ "$evil" runs --csv -
cmp -s <(sort "$out") <(sed 's,runs/plain/,runs/plain,' table.csv | sort) || fail "other runs"
report 0 runs -o - && same "$out" report.html
report 0 runs/plain -o one.html
contains one.html "training loss over steps; dark"

# The command of the page repeats the best run, whatever its name.
check html report.html "$evil" runs/plain
best=$(sed -n '2s/^,"*//p' table.csv)
mkdir bin && ln -s "$bertune" bin/bertune
PATH=$PWD/bin:$PATH expect 0 bash -c "$(cat "$scratch/check")"
case $best in runs/plain*) run=runs/plain ;; *) run=$evil ;; esac
same "$run/final/model.safetensors" "$run-again/final/model.safetensors"
absent hacked
rm -r "$run-again"

# A sweep with names of the same kind.
# shellcheck disable=SC2016
sweep='sw <b>"$(id)"'
# shellcheck disable=SC2016
python3 "$here/report_sweep.py" "$sweep" 24 4 '<i>"$(id)" `id` {@0@} 节点'
report 0 "$sweep" -o sweep.html --csv sweep.csv --tensorboard sweep
check sweep sweep.html "$sweep"
equal "$(find sweep -type f | wc -l)" 25
for trial in 0000 0001; do  # the second diverged
    check events "sweep/$sweep/$trial/events.out.tfevents.bertune" "$sweep/trials/$trial"
done
equal "$(tail -n +2 sweep.csv | cut -d, -f 1-2 | sed 's/.*,//' | sort | tr '\n' ' ')" "$(seq -f %04g 0 23 | tr '\n' ' ')winner "
sed -i 's/maximize/minimize/' "$sweep/sweep.json"
report 0 "$sweep" --csv least.csv
tail -n +2 least.csv | grep -v ',winner,' | sed 's/.*,validation_accuracy,//; s/,.*//' | grep . >"$scratch/least"
same "$scratch/least" <(sort -g "$scratch/least")
report 0 . -o all.html  # runs and a sweep
contains all.html 'id="g2"'

# What is going on or was not begun: a cut line, no epoch yet, no line at all, no trial, a claim, an empty claim.
mkdir going going/{a,b,c,d}
head -c 3000 runs/plain/metrics.jsonl >going/a/metrics.jsonl
head -n 1 runs/plain/metrics.jsonl >going/b/metrics.jsonl
: >going/c/metrics.jsonl
sed 's/"validation_loss": [^}]*, "seconds"/"seconds"/; s/"loss": [0-9.e-]*/"loss": null, "loss_not_finite": true/' \
    runs/plain/metrics.jsonl | grep -v '"end"' >going/d/metrics.jsonl
cp -r runs/plain going/$'e\e[31m\xff\n'  # nothing that a page may hold
ln -s ../runs/plain going/link
echo 'train: {learning_rates: 1}' >going/a/config.yaml
report 0 going -o going.html --csv going.csv --tensorboard going-events
contains "$err" "warning: the report lacks the parameters of a run: going/a/config.yaml:1"
lacks going.csv "going/link"
for line in "going/a,interrupted,0," "going/b,interrupted,0,0," "going/c,interrupted,0,0," "going/d,diverged,3,48,"; do
    contains going.csv "$line"
done
expect 0 python3 -c 'import fcntl, subprocess, sys
with open("going/b/.lock", "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    sys.exit(subprocess.call(sys.argv[1:]))' "$bertune" report going/a going/b --csv -
contains "$out" "going/a,interrupted,"
contains "$out" "going/b,running,"
metric='"metric": {"name": "accuracy", "goal": "maximize"}, "parameters": ["x"]'
mkdir -p begun/claims none
echo "{$metric, \"trials\": []}" >none/sweep.json
trial() { echo "{\"trial\": $1, \"parameters\": {\"x\": $2}}"; }
echo "{$metric, \"trials\": [$(trial 0 1e-3), $(trial 1 '"y"'), $(trial 2 true), $(trial 3 7)]}" >begun/sweep.json
: >begun/claims/0000-0001.1
echo '{"worker": "a:0", "begin": 1700000000.5}' | tee begun/claims/000{1,2}-0001.1 begun/claims/0000-0001.1.tmp-a-1 >/dev/null
touch -d '2 minutes ago' begun/claims/0002-0001.1
echo '{"worker": "a:0", "begin": 1700000000.5, "end": 1700000001.5}' >begun/claims/0003-0001.1
report 0 none begun -o begun.html --csv begun.csv
for line in 0,waiting,0.001 1,running,y 2,interrupted,true 3,interrupted,7; do
    IFS=, read -r trial state value <<<"$line"
    contains begun.csv ",000$trial,begun/trials/000$trial,$state,0,0,accuracy,,,,,$value,,"
done
for page in going begun; do python3 -c 'import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])' $page.html; done
contains begun.html "No epoch has been scored yet"

# Errors leave what was there before, and nothing else.
echo before >kept.html
refused() { # CODE MESSAGE DIRECTORY ...
    report "$1" -o kept.html --csv kept.csv "${@:3}"
    contains "$err" "$2"
    equal "$(cat kept.html)" before
    absent kept.csv
    equal "$(temporaries)" ""
}
mkdir damaged
metrics() { cp runs/plain/metrics.jsonl damaged/ && sed -i "$1" damaged/metrics.jsonl; }
metrics '3s/}$//' && refused 65 "damaged/metrics.jsonl:3: " damaged
metrics '4s/.*/[]/' && refused 65 "damaged/metrics.jsonl:4: " damaged
metrics '5s/"loss": [0-9.e-]*/"loss": NaN/' && refused 65 "damaged/metrics.jsonl:5: " damaged
metrics '5s/"loss": [0-9.e-]*/"loss": "low"/' && refused 65 "\`loss\`: expected a number" damaged
metrics '5s/"loss": [0-9.e-]*/"loss": 1e999/' && refused 65 "damaged/metrics.jsonl:5: " damaged
metrics '5s/"step": 4/"step": 4.5/' && refused 65 "\`step\`: expected an integer" damaged
metrics '5s/"step": 4/"step": -4/' && refused 65 "\`step\`: expected an integer" damaged
metrics 's/"loss": [0-9.]*, "l/"loss": 1.7e308, "l/; s/"validation_accuracy": [0-9.]*/"validation_accuracy": -1.7e308/'
report 0 damaged -o huge.html
metrics 's/"confusion": \[\[/"confusion": [["/' && refused 65 "not a JSON object" damaged
metrics 's/"confusion": \[\[[0-9]*/"confusion": [[-1/' && refused 65 "a square of counts" damaged
metrics 's/"confusion": \[\[[0-9]*, /"confusion": [[/' && refused 65 "a square of counts" damaged
rm damaged/metrics.jsonl
plan() { printf '%s' "$1" >damaged/sweep.json; }
plan "$(head -c 100000 /dev/zero | tr '\0' '[')" && refused 65 "damaged/sweep.json: " damaged
plan '{}' && refused 65 "\`metric\`" damaged
plan '{"metric": 7}' && refused 65 "\`metric\`: expected an object" damaged
plan "{$metric}" && refused 65 "\`trials\`" damaged
plan "{$metric, \"trials\": [7]}" && refused 65 "\`trials\`" damaged
plan "{$metric, \"trials\": [{\"trial\": 1}]}" && refused 65 "\`trial\`" damaged
plan "{$metric, \"trials\": [{\"trial\": 0, \"parameters\": {\"x\": [1]}}]}" && refused 65 "\`x\`" damaged
plan "{$metric, $metric}" && refused 65 "duplicate" damaged
plan "{$metric, \"trials\": [{\"trial\": 0, \"parameters\": {\"x\": 1}}]}" && report 0 damaged --csv -
mkdir damaged/{results,claims}
result() { printf '%s' "$1" >damaged/results/0000-0001.json; }
result '{"trial": 1, "status": "paused"}' && refused 65 "0000-0001.json: \`trial\`" damaged
result '{"trial": -1, "status": "paused"}' && refused 65 "0000-0001.json: \`trial\`" damaged
result '{"trial": 0, "status": "<b>"}' && refused 65 "\`status\`" damaged
result '{"trial": 0, "status": "paused", "epochs": 1e3}' && refused 65 "\`epochs\`" damaged
result "$(head -c 2000000 /dev/zero | tr '\0' ' ')" && refused 65 "larger than" damaged
result '{"trial": 0, "status": "finished", "epochs": 1, "metric": 1e308, "begin": 0, "end": 1e12, "seconds": 1e308}'
report 0 damaged -o - --csv damaged.csv
result '{"trial": 0, "status": "paused", "begin": -1}' && refused 65 "\`begin\`: expected seconds since 1970" damaged
result '{"trial": 0, "status": "paused", "end": 1e300}' && refused 65 "\`end\`: expected seconds since 1970" damaged
rm damaged/results/0000-0001.json
echo '{"begin": "now"}' >damaged/claims/0000-0001.1
refused 65 "0000-0001.1: \`begin\`" damaged
mkdir empty pipe
mkfifo pipe/metrics.jsonl
refused 66 "no run (metrics.jsonl) and no sweep (sweep.json)" empty
refused 66 "no run" pipe
refused 66 "No such file or directory" runs nowhere
refused 66 "not a directory" c.yaml
report 73 runs -o nowhere/report.html
report 64 runs
report 64 -o report.html
report 64 runs -o same --csv same
report 64 runs -o
report 64 runs --format pdf
report 0 --help
contains "$out" "--tensorboard"

# Without gnuplot, or with one that fails, lies or says more than a picture.
mkdir tools
search=$PWD/tools
refused 69 "apt-get install gnuplot-nox" runs
report 0 runs --csv other.csv
same other.csv table.csv
search=$PWD/tools:$PATH
gnuplot() { printf '#!/bin/sh\n%s\n' "$1" >tools/gnuplot && chmod +x tools/gnuplot; }
gnuplot 'echo no terminal svg >&2; exit 1' && refused 69 "no terminal svg" runs
gnuplot 'kill -11 $$' && refused 69 "signal 11" runs
gnuplot 'exit 0' && refused 69 "incomplete" runs
gnuplot 'echo "<svg><g"' && refused 69 "incomplete" runs
gnuplot 'echo "<svg><script>alert(1)</script></svg>"' && refused 69 "unknown element" runs
picture='<path onload="a" d="M0,0" id="i" fill="url(#x)" stroke="red"/>'
gnuplot "echo '<svg><g onclick=\"a\">$picture</g><title>t</title><script/x></svg>'" && refused 69 "unknown element" runs
gnuplot "echo '<svg><g onclick=\"a\">$picture</g><title><b></title></svg>'" && report 0 runs -o - && cp "$out" odd.html
contains odd.html '<g><path d="M0,0" stroke="red"/>'
none_left
