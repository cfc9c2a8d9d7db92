#!/usr/bin/env bash
# Checks licences, bans and sources of all dependencies. Advisories come from a public git host; where it is unreachable, they
# are not checked, and this script prints so. With BERTH_REQUIRE_ADVISORIES=1, that is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
deny=$(scripts/tools.sh cargo-deny)

"$deny" --all-features check --hide-inclusion-graph bans licenses sources

# Tries to reach the host first, for 20 s, because cargo-deny itself waits for minutes where packets are dropped.
database=https://github.com/RustSec/advisory-db
if GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote --quiet --exit-code "$database" HEAD >/dev/null 2>&1; then
    "$deny" --all-features check advisories
    echo "deny: bans, licences, sources and advisories were checked"
elif [ "${BERTH_REQUIRE_ADVISORIES:-}" = 1 ]; then
    echo "deny: advisories are required, and $database cannot be reached" >&2
    exit 1
else
    echo "deny: bans, licences and sources were checked; ADVISORIES WERE NOT: $database cannot be reached"
fi
