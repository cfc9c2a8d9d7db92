#!/usr/bin/env bash
# Runs every bench and prints one table of all figures. A bench prints each figure as a line of five fields:
#   figure | value | reference | ratio | target
# The rest of its output goes to standard error.
set -euo pipefail
cd "$(dirname "$0")/.."
header='figure | value | reference | ratio | target'
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
# What a Server costs the API server comes first.
for bench in tests/benches $(ls -d */benches shared/*/benches | grep -v '^tests/'); do
    package=$(sed -n 's/^name = "\(.*\)"/\1/p' "$(dirname "$bench")/Cargo.toml" | head -1)
    echo "bench: $package" >&2
    # Each time: a bench of a controller's crate builds its program anew, alone and so without the providers of tests.
    cargo build --quiet --release --workspace --bins
    cargo bench --quiet --package "$package" --benches | tee >(grep -E '^[^|]+(\|[^|]*){4}$' >>"$rows") >&2
done
if [ ! -s "$rows" ]; then echo "bench: no figures" >&2; exit 1; fi
{ echo "$header"; grep -vE '^ *figure *\|' "$rows" | grep -vE '^[-| ]+$'; } |
    awk -F ' *\\| *' '{for (i = 1; i <= 5; i++) {cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i)}}
        END {for (row = 1; row <= NR; row++) {line = ""; for (i = 1; i <= 5; i++) line = line sprintf("%-*s  ", width[i], cell[row, i]); sub(/ +$/, "", line); print line}}'
