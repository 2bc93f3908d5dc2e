#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# All tests, from a fresh clone, with no set-up by hand: cheap and telling steps first, so that the first failure says
# most. Goes on after a failure. Logs lie in build/logs; the last line is `N passed, N failed, N skipped` over everything.

set -u

usage() {
    cat <<'END'
usage: tests/run.sh [--quick] [--long] [--only STEP]... [--list]
  --quick      layers, style and the unit tests only
  --long       fuzz 50 times as long, and clang-tidy and cppcheck
  --only STEP  only this step (may be repeated); "bench" compares captures with gcore, gdb and eu-stack, and is in no other run
  --list       name the steps
TRAWL_E2E=asan runs all scenarios on the sanitized programs instead of the release; TRAWL_BUILD=DIR builds elsewhere.
END
}

cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
all="deps layers style lint unit threads fuzz mingw release e2e sanitized bench"
steps=${all/ lint/}
steps=${steps/ bench/}
only='' long=''
while [ $# -gt 0 ]; do
    case $1 in
    --quick) only="deps layers style unit" ;;
    --long) long=1 steps=${all/ bench/} ;;
    --only)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        only="$only $2"
        shift
        ;;
    --list) echo "$all"; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
for step in $only; do
    case " $all " in
    *" $step "*) ;;
    *) echo "run: no step '$step'; there are: $all" >&2; exit 2 ;;
    esac
done

build=${TRAWL_BUILD:-$root/build}
logs=$build/logs
jobs=$(nproc)
mkdir -p "$logs"
passed=0 failed=0 skipped=0

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}

say() { echo "== $*"; }

# count PASSED FAILED SKIPPED
count() { passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3)); }

# Runs a command as one test: its output goes to a log, and is shown when it fails.
one() {
    local name=$1 log="$logs/${1//[^A-Za-z0-9_.-]/_}.log" start=$SECONDS
    shift
    if "$@" >"$log" 2>&1; then
        echo "ok    $name ($((SECONDS - start)) s)"
        count 1 0 0
    else
        cat "$log"
        echo "FAIL  $name ($((SECONDS - start)) s), log: $log"
        count 0 1 0
        return 1
    fi
}

# Runs a program that ends with `N passed, N failed, N skipped`, and adds its numbers. A program that does not say them,
# or whose exit code says something else, has failed.
many() {
    local name=$1 log="$logs/${1//[^A-Za-z0-9_.-]/_}.log" start=$SECONDS rc line p f s
    shift
    "$@" >"$log" 2>&1
    rc=$?
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
    read -r p f s <<<"$(tr -cd '0-9 \n' <<<"${line:-0 0 0}" | tr -s ' ')"
    if [ -z "$line" ] || { [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; }; then
        echo "      $name: exit code $rc$([ "$rc" -eq 124 ] && echo ', out of time'), '${line:-no count}'" >>"$log"
        f=$((f + 1))
    fi
    count "$p" "$f" "$s"
    if [ "$f" -gt 0 ]; then
        cat "$log"
        echo "FAIL  $name: $p passed, $f failed, $s skipped ($((SECONDS - start)) s), log: $log"
        return 1
    fi
    grep -E '^skip ' "$log" | sed "s,^skip ,skip  $name:,"
    echo "ok    $name: $p passed$([ "$s" -gt 0 ] && echo ", $s skipped") ($((SECONDS - start)) s)"
}

# build_preset PRESET [TARGET...]: once per run. The compiler's words are kept from a build that succeeds.
declare -A built
make_preset() {
    local preset=$1
    shift
    cmake --preset "$preset" -B "$build/$preset" && cmake --build "$build/$preset" -j "$jobs" -- -k 0 "$@"
}
build_preset() {
    local key="$*"
    if [ -z "${built[$key]-}" ]; then
        built[$key]=no
        one "build $1" make_preset "$@" && built[$key]=yes
    fi
    [ "${built[$key]}" = yes ]
}

step_deps() { one deps sh deploy/deps.sh; }

step_layers() {
    one layers sh tests/layers.sh
    one layers-self-test sh tests/layers.sh --self-test
}

step_style() { one style sh tests/style.sh; }

step_lint() {
    build_preset dev || return
    one clang-tidy cmake --build "$build/dev" --target tidy
    one cppcheck cmake --build "$build/dev" --target cppcheck
}

step_unit() {
    local program found=
    build_preset asan || return
    # By source, not by what lies in the folder: a renamed test leaves its old program behind.
    for source in tests/unit/*/test_*.c; do
        [ -e "$source" ] || continue
        program=$(unit_name "$source") found=1
        many "$program" timeout --kill-after=10 900 "$build/asan/unit/$program"
    done
    [ -n "$found" ] || { echo "FAIL  no unit tests"; count 0 1 0; }
    for source in tests/fuzz/fuzz_*.c; do
        [ -e "$source" ] || continue
        program=$(basename "$source" .c)
        mkdir -p "$build/empty"
        one "replay_${program#fuzz_}" timeout --kill-after=10 120 "$build/asan/fuzz/$program" "$(seeds "$program")"
    done
}

unit_name() { # tests/unit/LAYER/test_NAME.c -> unit_LAYER_NAME
    local layer=${1%/*} name
    name=$(basename "$1" .c)
    echo "unit_${layer##*/}_${name#test_}"
}

seeds() { # fuzz_NAME -> its folder of seeds, or an empty one
    local dir=tests/fuzz/corpus/${1#fuzz_}
    [ -d "$dir" ] && echo "$dir" || echo "$build/empty"
}

step_threads() {
    local program targets=() steady=()
    for source in tests/unit/*/test_*thread*.c tests/unit/common/test_{conn,conn_refused,log,tls}.c; do
        [ -e "$source" ] && targets+=("$(unit_name "$source")")
    done
    if [ ${#targets[@]} -eq 0 ]; then
        echo "skip  threads: no unit test is named *thread*"
        count 0 0 1
        return
    fi
    build_preset tsan "${targets[@]}" || return
    # This compiler's thread sanitizer cannot place its shadow when the kernel randomises more address bits than it knew.
    setarch "$(uname -m)" -R true 2>/dev/null && steady=(setarch "$(uname -m)" -R)
    for program in "${targets[@]}"; do
        many "tsan_$program" timeout --kill-after=10 900 "${steady[@]}" "$build/tsan/unit/$program"
    done
}

# A fixed number of runs, from a fixed seed, so that a failure comes back; the time is only a bound for slow targets.
fuzz_one() {
    local program=$1 factor=1 found="$build/fuzz/found/$1"
    [ -n "$long" ] && factor=50
    rm -rf "$found"
    mkdir -p "$found/new"
    timeout --kill-after=10 $((60 + 20 * factor)) "$build/fuzz/fuzz/$program" -seed=1 -runs=$((20000 * factor)) \
        -max_total_time=$((20 * factor)) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$found/" "$found/new" "$(seeds "$program")"
}

step_fuzz() {
    local program running=0 programs=()
    for source in tests/fuzz/fuzz_*.c; do
        [ -e "$source" ] && programs+=("$(basename "$source" .c)")
    done
    if [ ${#programs[@]} -eq 0 ]; then
        echo "FAIL  no fuzz targets"
        count 0 1 0
        return
    fi
    build_preset fuzz "${programs[@]}" || return
    mkdir -p "$build/empty"
    for program in "${programs[@]}"; do
        # As many at a time as there are cores.
        [ "$running" -ge "$jobs" ] && { wait -n; running=$((running - 1)); }
        (
            fuzz_one "$program" >"$logs/$program.log" 2>&1
            echo $? >"$logs/$program.rc"
        ) &
        running=$((running + 1))
    done
    wait
    for program in "${programs[@]}"; do
        # The log is shown by `one`, which needs a command that fails as the target did.
        one "$program, $(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$program.log") runs" \
            sh -c 'tail -n 60 "$1.log"; exit "$(cat "$1.rc")"' - "$logs/$program"
    done
}

step_mingw() { build_preset mingw; }

is_static() {
    file -L "$1"
    file -L "$1" | grep -qE 'statically linked|static-pie linked' && ! ldd "$1"
}

step_release() {
    build_preset release || return
    for program in trawl-agent trawl; do
        one "$program is static" is_static "$build/release/bin/$program"
    done
    one "trawl-collector is there" test -x "$build/release/bin/trawl-collector"
}

# scenarios PRESET PREFIX SCRIPT... : on the programs of this preset.
scenarios() {
    local preset=$1 prefix=$2 script
    shift 2
    for script; do
        TRAWL_BIN=$build/$preset/bin BUILD_DIR=$build/$preset TRAWL_SOURCE=$root \
            many "$prefix$(basename "$script" .sh)" timeout --kill-after=20 300 bash "$script"
    done
}

step_e2e() {
    local preset=${TRAWL_E2E:-release} all
    build_preset "$preset" || return
    all=(tests/e2e/[0-9][0-9]_*.sh)
    [ -e "${all[0]}" ] || { echo "FAIL  no scenarios"; count 0 1 0; return; }
    scenarios "$preset" "" "${all[@]}"
}

# The scenarios in which most happens once more on the sanitized programs, with fewer rounds.
step_sanitized() {
    build_preset asan || return
    ROUNDS=10 KILLS=4 COUNT=30 CAPTURES=5 scenarios asan asan_ tests/e2e/{10,12,13,35,41,42,43,44,50,72,75}_*.sh
}

# Figures, not checks: only on a machine that is left alone do they mean anything.
step_bench() {
    build_preset release || return
    BUILD_DIR=$build/release /usr/bin/python3 tests/bench/capture/run.py --quick
}

for step in ${only:-$steps}; do
    say "$step"
    "step_$step"
done
say "$((SECONDS / 60)) min $((SECONDS % 60)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
