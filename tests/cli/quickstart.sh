#!/usr/bin/env bash
# ./quickstart in a copy of the tree as a clone would have it: exit code, predictions, and nothing but build/ and runs/.
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/lib.sh
. "$here/lib.sh"
root=$(cd "$here/../.." && pwd)

mkdir tree
(cd "$root" && find . -mindepth 1 -maxdepth 1 ! -name build ! -name runs ! -name .git -exec cp -r {} "$scratch/work/tree/" \;)
cd tree
find . | sort >../before
LIMIT=600 expect 0 ./quickstart
contains "$out" "文本: 好吃"
equal "$(grep -A 1 '^文本: 好吃' "$out" | tail -n 1)" "预测标签: 积极"
equal "$(grep -A 1 '^文本: 难吃' "$out" | tail -n 1)" "预测标签: 消极"
find . -path ./build -prune -o -path ./runs -prune -o -print | sort >../after
same ../before ../after
[ -x build/release/bertune ] || fail "no build/release/bertune"

expect 66 ./quickstart no-such-file.csv
contains "$err" no-such-file.csv
expect 64 ./quickstart one two

# A bad file is refused before anything of the earlier run is touched.
(cd runs && find . -type f -exec sha256sum {} + | sort -k 2) >../runs.before
printf 'label,review\nx,好\n' >../bad.csv
LIMIT=600 expect 65 ./quickstart ../bad.csv
contains "$err" "bad.csv:2"
(cd runs && find . -type f -exec sha256sum {} + | sort -k 2) >../runs.after
same ../runs.before ../runs.after
echo passed
