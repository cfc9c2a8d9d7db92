#!/usr/bin/env bash
# Runs every bench with tiny sizes and without optimisation. Fails when one fails or prints no figure; what the figures are does not
# matter.
set -euo pipefail
cd "$(dirname "$0")/.."
export BERTH_BENCH_SMOKE=1
output=$(mktemp)
trap 'rm -f "$output"' EXIT
for manifest in */Cargo.toml shared/*/Cargo.toml; do
    benches=$(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' "$manifest")
    for bench in $benches; do
        # With the features of the whole workspace, so that nothing is built anew.
        cargo bench --quiet --workspace --profile dev --bench "$bench" | tee "$output"
        if ! grep -qE '^[^|]+(\|[^|]*){4}$' "$output"; then echo "bench-smoke: $bench printed no figure" >&2; exit 1; fi
    done
done
