#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# 50 simulated hosts in one process against a real collector (tests/bench/farm): every order is done by every host, none
# twice, none is left on either side. Times are not judged here.
# Positive control: of hosts that never come to an end of their work the same program has to say so.

set -u
bin=${TRAWL_BIN:-build/release/bin}
farm=${BUILD_DIR:-$(dirname "$bin")}/bench/bench_farm
passed=0 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

judge() { # NAME RESULT
	if [ "$2" = 0 ]; then
		passed=$((passed + 1)); echo "ok    $1"
	else
		failed=$((failed + 1)); echo "FAIL  $1"; cat "$work/out"
	fi
}

timeout 300 "$farm" --hosts 50 --check --bin "$bin" --cache "$work/cache" >"$work/out" 2>&1
judge "50 hosts: every order done by every host, none twice, none left" $?

timeout 300 "$farm" --hosts 5 --check --rounds 1 --artifact 999999 --work 700000 --limit 5 --bin "$bin" --cache "$work/cache" \
	>"$work/out" 2>&1
status=$?
[ "$status" = 1 ] && grep -q '^WRONG' "$work/out"
judge "control: hosts that never answer are found out" $?

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
