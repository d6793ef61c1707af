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
echo passed
