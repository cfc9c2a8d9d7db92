#!/bin/sh
# Puts the servers that Berth manages into HAProxy's configuration, so that a restart or reload of HAProxy keeps them.
#
# Usage: berth-servers.sh start|reload
#
# Reads your configuration, asks Berth for the servers of each backend that has a line `# berth-servers BACKEND`, writes them
# behind that line into a copy of the configuration, checks the copy, and puts it where HAProxy loads it from. When Berth cannot be
# reached, or answers with something that HAProxy refuses, the servers of the last time are used.
#
# `start` always leaves a configuration that HAProxy accepts, if there ever was one: for ExecStartPre. `reload` fails when your
# configuration is wrong, and changes nothing: for ExecReload. README.md beside this file shows both.
#
# Settings, from the environment:
#   BERTH_SERVERS_URL      where Berth serves the servers: BERTH_SERVERS_URL/BACKEND. Required.
#   BERTH_SERVERS_CURL     a file of options for curl, such as `cert`, `key` and `cacert`. Default: none
#   BERTH_SERVERS_CONFIG   your configuration. Default: /etc/haproxy/haproxy.cfg
#   BERTH_SERVERS_STATE    a folder for the copies. Default: /var/lib/berth-haproxy
#   BERTH_SERVERS_OUTPUT   the configuration that HAProxy loads; in the same file system. Default: haproxy.cfg in that folder
#   BERTH_SERVERS_TIMEOUT  how many seconds one backend may take. Default: 5
#   HAPROXY                the program. Default: haproxy
#
# In the folder: BACKEND.fetched and BACKEND.etag are what Berth said last, BACKEND.good is what HAProxy accepted last.
set -eu
umask 077
PATH=$PATH:/usr/sbin:/sbin

say() { echo "berth-servers: $*" >&2; }
fail() { say "$*"; exit 1; }

mode=${1:-}
case $mode in
start | reload) ;;
*) fail "say start or reload, not '$mode'" ;;
esac
url=${BERTH_SERVERS_URL:-}
config=${BERTH_SERVERS_CONFIG:-/etc/haproxy/haproxy.cfg}
state=${BERTH_SERVERS_STATE:-/var/lib/berth-haproxy}
output=${BERTH_SERVERS_OUTPUT:-$state/haproxy.cfg}
timeout=${BERTH_SERVERS_TIMEOUT:-5}
haproxy=${HAPROXY:-haproxy}

# The backends that have a line `# berth-servers BACKEND`.
backends() {
    awk '$1 == "#" && $2 == "berth-servers" && NF == 3 && $3 ~ /^[A-Za-z0-9_.:-]+$/ { print $3 }' "$config" | sort -u
}

# Whether a file is what Berth says of a backend: `# backend NAME, COUNT servers`, and as many lines `server ...`. A cut-off answer
# or the page of some proxy is not.
is_whole() { # FILE BACKEND
    awk -v backend="$2" '
        NR == 1 { headed = $1 == "#" && $2 == "backend" && $3 == backend "," && $5 == "servers"; count = $4; next }
        $1 == "server" && NF >= 3 { found++; next }
        { other++ }
        END { exit !(headed && count ~ /^[0-9]+$/ && found + 0 == count + 0 && !other) }
    ' "$1"
}

# Asks Berth for the servers of a backend. Fails only when Berth cannot be reached, so that nobody waits for the next backend too.
fetch() { # BACKEND
    copy=$state/$1
    set -- "$1" --silent --show-error --proto '=http,https' --connect-timeout 2 --max-time "$timeout" --max-filesize 16777216 \
        --dump-header "$copy.head" --output "$copy.new" --write-out '%{http_code}'
    if [ -n "${BERTH_SERVERS_CURL:-}" ]; then set -- "$@" --config "$BERTH_SERVERS_CURL"; fi
    if [ -s "$copy.etag" ] && [ -f "$copy.fetched" ]; then
        set -- "$@" --header "If-None-Match: $(cat "$copy.etag")"
    fi
    backend=$1
    shift
    rm -f "$copy.new"
    code=$(curl "$@" "$url/$backend" 2>"$copy.error") || {
        say "Berth cannot be reached at $url/$backend: $(cat "$copy.error")"
        return 1
    }
    case $code in
    304) ;;
    200)
        if [ -f "$copy.new" ] && is_whole "$copy.new" "$backend"; then
            # Without an ETag the next answer is never 304. The old one must not stay beside the new copy.
            rm -f "$copy.etag"
            mv "$copy.new" "$copy.fetched"
            sed -n 's/^[Ee][Tt][Aa][Gg]: *//p' "$copy.head" | tr -d '\r' | tail -n 1 >"$copy.etag.new"
            mv "$copy.etag.new" "$copy.etag"
        else
            say "what $url/$backend answered is not the list of servers of '$backend'; it is ignored"
        fi
        ;;
    *) say "$url/$backend answered with status $code; is the URL right, and does Berth know the backend?" ;;
    esac
}

# Writes the configuration with the servers of all backends in it to candidate.cfg, from BACKEND.KIND.
render() { # KIND
    awk -v folder="$state" -v kind="$1" '
        { print }
        $1 == "#" && $2 == "berth-servers" && NF == 3 && $3 ~ /^[A-Za-z0-9_.:-]+$/ {
            file = folder "/" $3 "." kind
            while ((getline line < file) > 0) print line
            close(file)
        }
    ' "$config" >"$state/candidate.cfg"
}

accepted() { # FILE
    "$haproxy" -c -f "$1" >"$state/check.log" 2>&1
}

refusal() { grep -v '^\[NOTICE\]' "$state/check.log" >&2 || true; }

install_candidate() { mv "$state/candidate.cfg" "$output"; }

[ -n "$url" ] || fail "BERTH_SERVERS_URL is not set: it says where Berth serves the lists of servers"
[ -r "$config" ] || fail "cannot read $config: BERTH_SERVERS_CONFIG names your configuration of HAProxy"
command -v curl >/dev/null || say "curl is not installed, so the servers of the last time are used"
mkdir -p "$state"
exec 9>"$state/lock"
flock -w 60 9 || fail "another run has held $state/lock for a minute"

names=$(backends)
[ -n "$names" ] || say "no line '# berth-servers BACKEND' in $config, so no servers are put into it"
for name in $names; do
    fetch "$name" || break
done
for name in $names; do
    [ -f "$state/$name.fetched" ] || say "the servers of '$name' are not known yet; it begins without them"
done

render fetched
if accepted "$state/candidate.cfg"; then
    for name in $names; do
        [ ! -f "$state/$name.fetched" ] || cp "$state/$name.fetched" "$state/$name.good"
    done
    install_candidate
    exit 0
fi
say "HAProxy refuses $config with the servers that Berth lists now:"
refusal

render good
if accepted "$state/candidate.cfg"; then
    say "the servers that it accepted the last time are used"
    install_candidate
    exit 0
fi
say "HAProxy refuses $config with the servers of the last time too, so the fault is in $config:"
refusal
rm -f "$state/candidate.cfg"
[ "$mode" = start ] || fail "nothing was changed; HAProxy goes on with $output"
if [ ! -f "$output" ] || ! accepted "$output"; then fail "there is no earlier configuration to fall back to"; fi
say "HAProxy starts with $output, from before that fault"
