#!/usr/bin/env bash
# Builds the pure crate (API types and life cycle) alone, so that it does not rely on features that other crates enable, and
# checks that it depends on no async runtime and no Kubernetes client.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$(cargo tree --locked --package berth-core --edges normal,build --prefix none --format '{p}' | cut -d ' ' -f 1 | sort -u)
found=$(grep -xE 'tokio|kube-client|kube-runtime|hyper|reqwest|async-std|smol' <<<"$tree" || true)
if [ -n "$found" ]; then
    echo "berth-core is pure and must not depend on:" $found >&2
    for crate in $found; do cargo tree --locked --package berth-core --edges normal,build --invert "$crate" >&2 || true; done
    exit 1
fi
echo "berth-core: $(wc -l <<<"$tree") crates in its tree, no client and no runtime among them"
# A target folder of its own, so that this build does not evict the workspace's, which has other features.
cargo check --locked --quiet --package berth-core --target-dir target/pure
