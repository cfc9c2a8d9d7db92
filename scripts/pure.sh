#!/usr/bin/env bash
# The pure crate (API types and life cycle) is built alone, so that no other crate's features help it, and what it depends
# on holds no async runtime and no Kubernetes client.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$(cargo tree --locked --package berth-core --edges normal,build --prefix none --format '{p}' | cut -d ' ' -f 1 | sort -u)
found=$(grep -xE 'tokio|kube-client|kube-runtime|hyper|reqwest|async-std|smol' <<<"$tree" || true)
if [ -n "$found" ]; then
    echo "berth-core depends on what a pure crate must not need:" $found >&2
    for crate in $found; do cargo tree --locked --package berth-core --edges normal,build --invert "$crate" >&2 || true; done
    exit 1
fi
echo "berth-core: $(wc -l <<<"$tree") crates in its tree, no client and no runtime among them"
# A folder of its own: with the workspace's, features of other crates would be shared.
cargo check --locked --quiet --package berth-core --target-dir target/pure
