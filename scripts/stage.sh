#!/usr/bin/env bash
# Runs one stage of the Makefile, and prints its name, status and duration.
# Usage: scripts/stage.sh NAME COMMAND...
set -euo pipefail
name=$1
shift
echo "== $name: $*"
begin=$SECONDS
status=0
"$@" || status=$?
took=$((SECONDS - begin))
if [ "$status" -ne 0 ]; then
    echo "== $name: FAILED with status $status after $took s" >&2
    exit "$status"
fi
echo "== $name: ok, $took s"
if [ -n "${BERTH_TIMINGS:-}" ]; then printf '%6d s  %s\n' "$took" "$name" >>"$BERTH_TIMINGS"; fi
