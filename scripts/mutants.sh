#!/usr/bin/env bash
# Runs mutation tests of the life cycle (with claims and guards) and of the protocol. Fails when tests catch fewer than 95 % of
# the mutants. The result, with every survivor, is in mutants.out. Arguments, such as --shard 1/4, go to cargo-mutants.
set -euo pipefail
cd "$(dirname "$0")/.."
mutants=$(scripts/tools.sh cargo-mutants)
# Called by its path instead of as `cargo mutants`, it still expects the word `mutants`. Status 2 means survivors, status 3
# timeouts.
status=0
nice "$mutants" mutants --package berth-core --file 'shared/core/src/lifecycle/**' --file 'shared/core/src/protocol/**' \
    --timeout 300 --no-shuffle "$@" || status=$?
case $status in 0 | 2 | 3) ;; *) exit "$status" ;; esac
count() { if [ -f "mutants.out/$1.txt" ]; then wc -l <"mutants.out/$1.txt"; else echo 0; fi; }
caught=$(($(count caught) + $(count timeout)))
missed=$(count missed)
total=$((caught + missed))
if [ "$total" -eq 0 ]; then echo "mutants: none were tried" >&2; exit 1; fi
echo "mutants: $caught of $total caught ($((caught * 1000 / total / 10)).$((caught * 1000 / total % 10)) %)"
if [ "$missed" -gt 0 ]; then cat mutants.out/missed.txt; fi
[ $((caught * 100)) -ge $((total * 95)) ]
