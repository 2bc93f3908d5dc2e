#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kill -9 of a process that writes to the store under load, at random instants: nothing that it acknowledged is lost,
# doubled or wrong, and a writer that acknowledges too early is found out. BUILD_DIR names the build folder.
# Invariant: only processes that store_kill itself started are killed.
#
# usage: tests/e2e/40_store_kill.sh [TIMES]       (default: 50, or TRAWL_KILLS)

set -u

build=${BUILD_DIR:?BUILD_DIR must name a build folder}
times=${1:-${TRAWL_KILLS:-50}}
program=$build/e2e/store_kill
[ -x "$program" ] || program=$build/bench/bench_store_kill
passed=0 failed=0 skipped=0

ok() { echo "ok    $1"; passed=$((passed + 1)); }
bad() { echo "FAIL  $1: $2"; failed=$((failed + 1)); }

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

if [ ! -x "$program" ]; then
    bad "store_kill" "$program was not built"
    finish
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/trawl-store-kill.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

"$program" "$work/store" "$times" >"$work/out" 2>&1
code=$?
if [ "$code" -eq 0 ]; then
    ok "nothing lost, doubled or wrong: $(tail -n 1 "$work/out")"
else
    cat "$work/out"
    bad "nothing lost, doubled or wrong" "exit code $code"
fi

# The control ends at the first loss; that it has to lose within 50 kills is what is tested. Exit 1 is "something lost".
"$program" "$work/early" 50 --ack-early >"$work/out" 2>&1
code=$?
if [ "$code" -eq 1 ] && grep -q 'acknowledged, .* there' "$work/out"; then
    ok "control: acknowledging before the commit is found losing records"
else
    cat "$work/out"
    bad "control: acknowledging before the commit is found losing records" "exit code $code"
fi
finish
