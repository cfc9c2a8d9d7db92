#!/usr/bin/env bash
# Mutation testing of the rules that everything rests on: life cycle (claims and guards included) and protocol. Fails below 95 % caught.
# The outcome, with each survivor, is in mutants.out. Arguments go to cargo-mutants (such as --shard 1/4).
set -euo pipefail
cd "$(dirname "$0")/.."
mutants=$(scripts/tools.sh cargo-mutants)
# cargo finds it as `cargo mutants`; called by its path it wants that word too. Status 2 says that mutants survived.
status=0
nice "$mutants" mutants --package berth-core --file 'shared/core/src/lifecycle/**' --file shared/core/src/protocol.rs \
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
