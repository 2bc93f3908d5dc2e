#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The main job on one machine, from a fresh clone: builds, makes a fleet, starts a collector and six hosts with real
# services under light load, then does what an SRE would: looks, captures, shows, fetches. Leaves the farm running.
#
#   deploy/quickstart.sh          everything; run again: reuses what is there
#   deploy/quickstart.sh up       only starts the farm
#   deploy/quickstart.sh down     stops exactly what was started
#
# Hosts are network and PID namespaces when root, else addresses 127.0.0.11 to .16 with user namespaces where allowed.

set -u
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
bin=${TRAWL_BIN:-$root/build/release/bin}
farm=${TRAWL_FARM:-${TMPDIR:-/var/tmp}/trawl-farm-$(id -u)}
hosts="web-1 web-2 web-3 web-4 web-5 web-6"
# Names and addresses follow from the folder, so that farms in several folders do not meet.
octet=$(($(printf %s "$farm" | cksum | cut -d' ' -f1) % 250 + 1))
bridge=trawl$octet
subnet=10.231.$octet
PATH=$PATH:/usr/sbin:/sbin

say() { echo "==> $*"; }
die() { echo "quickstart: $*" >&2; exit 1; }

# ---- stopping: only what the pid files name, checked against the start time noted with each pid ----

start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

note_pid() { echo "$2 $(start_time "$2")" >"$farm/pids/$1"; }

is_running() { # NAME
    local pid ticks
    [ -f "$farm/pids/$1" ] && read -r pid ticks <"$farm/pids/$1" && [ -n "$ticks" ] &&
        [ "$(start_time "$pid")" = "$ticks" ]
}

# The whole session hears it: a parent `unshare` blocks SIGTERM, and its child is what has to end.
tell_one() { # NAME SIGNAL
    local pid ticks
    is_running "$1" && read -r pid ticks <"$farm/pids/$1" && kill "-$2" -- "-$pid" 2>/dev/null
}

stop_one() { # NAME
    local tries=0
    while is_running "$1" && [ $tries -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    tell_one "$1" KILL
    rm -f "$farm/pids/$1"
}

down() {
    [ -d "$farm" ] || { say "no farm in $farm"; return 0; }
    for h in $hosts; do tell_one "$h" TERM; done
    for h in $hosts; do stop_one "$h"; done
    tell_one collector TERM
    stop_one collector
    if [ -f "$farm/network" ]; then
        for h in $hosts; do ip netns del "$bridge-$h" 2>/dev/null; done
        ip link del "$bridge" 2>/dev/null
    fi
    rm -rf "$farm"
    say "the farm is stopped, $farm removed"
}

# ---- starting ----

prepare() {
    say "dependencies"
    deploy/deps.sh --build >"$farm.log" 2>&1 && deploy/deps.sh --run-farm >>"$farm.log" 2>&1 ||
        { cat "$farm.log"; die "dependencies could not be installed"; }
    say "build"
    { cmake --preset release && cmake --build --preset release --target trawl trawl-agent trawl-collector; } \
        >"$farm.log" 2>&1 || { cat "$farm.log"; die "the build failed"; }
    rm -f "$farm.log"
}

make_network() {
    [ "$(id -u)" -eq 0 ] && [ -z "${TRAWL_FARM_LOOPBACK:-}" ] || return 1
    ip link add "$bridge" type bridge 2>/dev/null || return 1
    touch "$farm/network"
    ip addr add "$subnet.1/24" dev "$bridge" && ip link set "$bridge" up || return 1
    local i=10
    for h in $hosts; do
        i=$((i + 1))
        ip netns add "$bridge-$h" &&
            ip link add "${bridge}v$i" type veth peer name eth0 netns "$bridge-$h" &&
            ip link set "${bridge}v$i" master "$bridge" up &&
            ip -n "$bridge-$h" addr add "$subnet.$i/24" dev eth0 &&
            ip -n "$bridge-$h" link set eth0 up && ip -n "$bridge-$h" link set lo up || return 1
    done
}

wait_for() { # SECONDS WHAT COMMAND...
    local left=$(($1 * 10)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || { tail -3 "$farm/collector.log" >&2; die "waited in vain for $what; see $farm/*/log"; }
        sleep 0.1
    done
}

start_collector() { # ADDRESS
    say "collector on $1"
    "$bin/trawl-collector" init "$farm/data" --fleet quickstart --address "$1" >/dev/null ||
        die "no fleet could be made"
    setsid "$bin/trawl-collector" run --data "$farm/data" --listen "$1" >"$farm/collector.log" 2>&1 </dev/null &
    note_pid collector $!
    wait_for 10 "the collector" "$bin/trawl" --context "$farm/data/admin" hosts -o json
    "$bin/trawl-collector" issue --data "$farm/data" --role sre sre --out "$farm/sre" >/dev/null &&
        "$bin/trawl-collector" issue --data "$farm/data" --role developer dev --out "$farm/dev" >/dev/null ||
        die "no certificates could be issued"
}

start_host() { # NAME NUMBER COLLECTOR ZONE
    local name=$1 number=$2 collector=$3 zone=$4 dir=$farm/$1 run='' address=127.0.0.$2
    mkdir -p "$dir"
    (umask 077 && "$bin/trawl" --context "$farm/data/admin" enroll --label role=web --label "zone=$zone" -o json |
        sed 's/.*"token":"\([^"]*\)".*/\1/' >"$dir/token") && [ -s "$dir/token" ] || die "no join token for $name"
    if [ -f "$farm/network" ]; then
        address=$subnet.$number
        run="ip netns exec $bridge-$name unshare --pid --fork --kill-child=TERM --mount --uts --mount-proc"
    elif unshare --user --map-current-user --pid --fork --mount-proc true 2>/dev/null; then
        run="unshare --user --map-current-user --pid --fork --kill-child=TERM --mount-proc"
    else
        touch "$farm/shared"
    fi
    setsid $run "$root/deploy/hosts/host.sh" "$name" "$address" "$dir" "$bin" "$collector" "$dir/token" \
        >"$farm/$name.log" 2>&1 </dev/null &
    note_pid "$name" $!
}

all_online() {
    [ "$("$bin/trawl" --context "$farm/sre" hosts -l role=web -o json | grep -c '"state":"online"')" -eq 6 ]
}

all_counted() {
    [ "$("$bin/trawl" --context "$farm/sre" counters cpu.busy -l role=web --last 1m -o json 2>/dev/null |
        grep -o '"host":"web-[1-6]"' | sort -u | wc -l)" -eq 6 ]
}

all_loaded() {
    local h requests rest
    for h in $hosts; do
        read -r requests rest 2>/dev/null <"$farm/$h/load" && [ "$requests" -ge 3 ] || return 1
    done
}

up() {
    if [ -d "$farm/pids" ]; then
        local h ok=1
        for h in $hosts collector; do is_running "$h" || ok=0; done
        [ $ok -eq 1 ] && all_online && { say "the farm runs already"; return 0; }
        down
    fi
    mkdir -p "$farm/pids" || die "cannot make $farm"
    chmod 711 "$farm"
    local address=127.0.0.1 number=10 zone=a
    if make_network; then
        address=$subnet.1
    else
        [ -f "$farm/network" ] && { down >/dev/null; mkdir -p "$farm/pids"; chmod 711 "$farm"; }
        say "no network namespaces here: hosts are addresses 127.0.0.11 to 127.0.0.16"
    fi
    start_collector "$address"
    say "six hosts: redis-server, nginx, a Python web server, light load, an agent each"
    for h in $hosts; do
        number=$((number + 1))
        start_host "$h" "$number" "$address" "$zone"
        [ $zone = a ] && zone=b || zone=a
    done
    wait_for 30 "six hosts online" all_online
    wait_for 30 "the services" all_loaded
    say "waiting for the first counters (a block every 10 s)"
    wait_for 30 "counters of six hosts" all_counted
}

# ---- what an SRE does ----

show_off() {
    export TRAWL_CONTEXT=$farm/sre
    local incident out
    say "trawl hosts"
    "$bin/trawl" hosts || die "hosts failed"
    say "trawl capture -l role=web --process redis-server --what triage,stacks,counters,events,logs --last 60s"
    local code=3 tries=0
    while [ $code -eq 3 ] && [ $tries -lt 3 ]; do
        [ $tries -eq 0 ] || say "not whole (a machine as busy as this one may not stop a thread in time): once more"
        tries=$((tries + 1))
        out=$("$bin/trawl" capture -l role=web --process redis-server --what triage,stacks,counters,events,logs \
            --last 60s -m "quickstart")
        code=$?
        echo "$out"
        [ -f "$farm/shared" ] && break
    done
    if [ $code -eq 3 ] && [ -f "$farm/shared" ]; then
        say "no PID namespaces here: each agent sees all six redis-servers, and only one can trace each at a time"
        code=0
    fi
    [ $code -eq 0 ] || die "the capture ended with exit code $code"
    incident=$(echo "$out" | grep -o 'INC-[0-9]*-[0-9A-Z]*' | head -1)
    say "trawl show $incident"
    "$bin/trawl" show "$incident" | head -40
    say "a developer fetches it: trawl fetch $incident -o $farm/fetched"
    "$bin/trawl" --context "$farm/dev" fetch "$incident" -o "$farm/fetched" || die "fetch failed"
    cat <<END

The farm is running. Look further:
  export TRAWL_CONTEXT=$farm/sre PATH=$bin:\$PATH
  trawl top -n 1                        busiest processes of the farm
  trawl counters cpu.busy --last 1m     any counter, all hosts
  trawl capture -l zone=a --process nginx
  less $farm/fetched/$incident/report.txt
Stop it:  deploy/quickstart.sh down
END
}

case ${1:-all} in
down) down ;;
up) prepare && up ;;
all) prepare && up && show_off ;;
*) echo "usage: deploy/quickstart.sh [up|down]" >&2; exit 2 ;;
esac
