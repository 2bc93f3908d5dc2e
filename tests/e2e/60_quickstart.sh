#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The quickstart does what the README says: starts a farm, captures, fetches, and `down` leaves nothing behind. On the
# running farm: the capture of all kinds, that no client of a service saw an error, and that the frames of an idle
# redis-server are those that gdb shows. Ends with `N passed, N failed, N skipped`.

set -u
cd "$(dirname "$0")/../.." || exit 1
TRAWL_FARM=$(mktemp -d /var/tmp/trawl-e2e-farm.XXXXXX) && rmdir "$TRAWL_FARM"
export TRAWL_FARM
bin=${TRAWL_BIN:-$PWD/build/release/bin}
export TRAWL_BIN=$bin
out=$(mktemp -d)
passed=0 failed=0 skipped=0
trap 'deploy/quickstart.sh down >/dev/null 2>&1; rm -rf "$out"' EXIT

ok() { echo "ok    $1"; passed=$((passed + 1)); }
bad() { echo "FAIL  $1: ${2:-}"; failed=$((failed + 1)); }
skip() { echo "skip  $1: $2"; skipped=$((skipped + 1)); }
check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$out/log" 2>&1; then ok "$name"; else bad "$name" "$(tail -20 "$out/log")"; fi
}

check "the quickstart ends with code 0" deploy/quickstart.sh
begin=$SECONDS
check "a second run takes under 30 s" deploy/quickstart.sh
[ $((SECONDS - begin)) -lt 30 ] || bad "a second run takes under 30 s" "$((SECONDS - begin)) s"
fetched=$(ls -d "$TRAWL_FARM"/fetched/INC-* 2>/dev/null | head -1)
check "a bundle was fetched with its report" grep -q "Commonest stacks" "$fetched/report.txt"
check "the manifest names every host" sh -c "[ \$(grep -o '\"host\":\"web-[1-6]\"' '$fetched/manifest.json' | sort -u | wc -l) -eq 6 ]"

export TRAWL_CONTEXT=$TRAWL_FARM/sre
begin=$(date +%s%N)
check "one command captures every kind on six hosts" \
    "$bin/trawl" capture -l role=web --what triage,stacks,counters,events,logs --last 60s \
    --pause-max 250ms
echo "      took $((($(date +%s%N) - begin) / 1000000)) ms with $(cut -d' ' -f1 /proc/loadavg) as load average"

errors=$(cat "$TRAWL_FARM"/web-*/load | awk '{e += $2; r += $1} END {print e, r}')
case $errors in
"0 "[1-9]*) ok "no client of a service saw an error in ${errors#0 } requests" ;;
*) bad "no client of a service saw an error" "errors and requests: $errors" ;;
esac

# ---- the frames of redis, as Trawl and as gdb show them: per thread the list of its functions. Leading underscores are
# left out (__clone3 and clone3 are one place), and so are the frames that gdb only guesses from tail calls. ----
functions_of_trawl() {
    awk '/^[0-9]+ threads?:/ {n = $1; next}
         /^#/ {f = $2; sub(/\+0x.*/, "", f); sub(/^_+/, "", f); s = s " " f; next}
         n && /^$/ {for (i = 0; i < n; i++) print s; s = ""; n = 0}' "$1" | sort
}
cat >"$out/frames.py" <<'END'
import gdb
gdb.execute("set backtrace past-main on")
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame, names = gdb.newest_frame(), []
    while frame:
        if frame.type() != gdb.TAILCALL_FRAME:
            names.append((frame.name() or "??").lstrip("_"))
        frame = frame.older()
    print("FRAMES " + " ".join(names))
END
functions_of_gdb() { sed -n 's/^FRAMES//p' "$1" | sort; }
if [ "$(id -u)" -ne 0 ]; then
    skip "frames of redis equal gdb's" "the redis of the farm lies in another user namespace"
elif ! command -v gdb >/dev/null; then
    skip "frames of redis equal gdb's" "no gdb here"
else
    stacks=$(ls "$fetched"/web-1/stacks-redis-server-*.txt | head -1)
    pid=$(pgrep -x redis-server | while read -r p; do
        [ "$(readlink "/proc/$p/cwd")" = "$TRAWL_FARM/web-1/redis" ] && echo "$p"; done | head -1)
    gdb -batch -nx -p "$pid" -x "$out/frames.py" >"$out/gdb" 2>/dev/null
    functions_of_trawl "$stacks" >"$out/a"
    functions_of_gdb "$out/gdb" >"$out/b"
    if [ -s "$out/a" ] && diff "$out/a" "$out/b" >"$out/diff"; then
        ok "frames of redis equal gdb's ($(wc -l <"$out/a") threads, $(wc -w <"$out/a") frames)"
    else
        bad "frames of redis equal gdb's" "$(cat "$out/diff")"
    fi
fi

check "down ends with code 0" deploy/quickstart.sh down
left=$(pgrep -f "$TRAWL_FARM" | grep -v "^$$\$")
[ -z "$left" ] && ok "nothing of the farm is left running" || bad "nothing of the farm is left running" "$left"
[ ! -e "$TRAWL_FARM" ] && ok "its folder is gone" || bad "its folder is gone"

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
