#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Our gRPC server (proto/grpc.c on common/conn.c) against stock clients over mTLS: Python's from Debian, Node's from npm,
# and openssl for what no gRPC client would do. BUILD_DIR names the build folder with e2e/interop_echo_server.
# Invariant: it stops, by number, only what it started, and ends within its limits.

set -u

cd "$(dirname "$0")/../.." || exit 1
build=${BUILD_DIR:?BUILD_DIR must name a build folder}
server=$build/e2e/interop_echo_server
cache=${TRAWL_INTEROP_CACHE:-$build/interop-node}
work=$(mktemp -d "${TMPDIR:-/tmp}/trawl-interop.XXXXXX")
python=${TRAWL_PYTHON:-/usr/bin/python3}
passed=0 failed=0 skipped=0
port=0

ok() { echo "ok    $1"; passed=$((passed + 1)); }
bad() { echo "FAIL  $1: $2"; failed=$((failed + 1)); }
skip() { echo "skip  $1: $2"; skipped=$((skipped + 1)); }

# alive PID: a process that ended and waits for its parent is not.
alive() { grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null; }

cleanup() {
    [ ! -s "$work/pid" ] || kill "$(cat "$work/pid")" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# new_ca NAME
new_ca() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/$1.key" &&
        openssl req -x509 -new -key "$work/$1.key" -sha256 -days 2 -subj "/CN=$1" \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
            -out "$work/$1.pem"
}

# issue FILE CA SAN USAGE
issue() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/$1.ec" &&
        openssl pkcs8 -topk8 -nocrypt -in "$work/$1.ec" -out "$work/$1.key" &&
        openssl req -new -key "$work/$1.key" -subj "/CN=$1" -out "$work/$1.csr" &&
        printf 'subjectAltName=%s\nextendedKeyUsage=%s\nbasicConstraints=critical,CA:FALSE\n' "$3" "$4" >"$work/ext" &&
        openssl x509 -req -in "$work/$1.csr" -CA "$work/$2.pem" -CAkey "$work/$2.key" -CAcreateserial \
            -days 1 -sha256 -extfile "$work/ext" -out "$work/$1.pem"
}

certificates() {
    new_ca ca && new_ca strange-ca &&
        issue server ca "URI:spiffe://test/collector/main,IP:127.0.0.1,DNS:localhost" serverAuth &&
        issue sre ca URI:spiffe://test/sre/alice clientAuth &&
        issue agent ca URI:spiffe://test/agent/web-1 clientAuth &&
        issue stranger strange-ca URI:spiffe://test/sre/alice clientAuth
}

# Asks the server to end; fails when it is still there after 10 s.
stop_server() {
    local pid i
    pid=$(cat "$work/pid")
    kill -TERM "$pid"
    for ((i = 0; i < 100; i++)); do
        alive "$pid" || return 0
        sleep 0.1
    done
    return 1
}

# start_server PORT: 0 chooses one. Waits until it listens.
start_server() {
    local i pid
    : >"$work/out"
    "$server" "$1" "$work/ca.pem" "$work/server.pem" "$work/server.key" >"$work/out" 2>>"$work/server.log" &
    pid=$!
    echo "$pid" >"$work/pid"
    for ((i = 0; i < 100; i++)); do
        port=$(sed -n 's/^listening //p' "$work/out")
        [ -z "$port" ] || return 0
        alive "$pid" || break
        sleep 0.1
    done
    cat "$work/server.log"
    return 1
}

# A script that a client runs in the middle: ends the server in order, starts it again on the same port.
write_restart() {
    {
        echo '#!/bin/bash'
        echo 'set -u'
        declare -p work server port
        declare -f alive stop_server start_server
        # shellcheck disable=SC2016
        echo 'stop_server && start_server "$port"'
    } >"$work/restart"
    chmod +x "$work/restart"
}

# many NAME COMMAND...: a client script that prints its own cases and counts them.
many() {
    local name=$1 p f s rc
    shift
    timeout 150 "$@" >"$work/client.out" 2>"$work/client.err"
    rc=$?
    grep -E '^(ok|FAIL)' "$work/client.out"
    read -r p f s <<<"$(tail -n 1 "$work/client.out" | tr -cd '0-9 ' | tr -s ' ')"
    if [ -z "${p-}" ] || { [ $rc -ne 0 ] && [ "${f:-0}" -eq 0 ]; }; then
        tail -n 20 "$work/client.err"
        bad "$name" "exit code $rc without a count"
        return
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# python_cases NAME [restart COMMAND]
python_cases() {
    local name=$1
    shift
    if ! "$python" -c 'import grpc, grpc_tools' 2>/dev/null; then
        skip "$name" "python3-grpcio or python3-grpc-tools is not installed (deploy/deps.sh installs them)"
        return
    fi
    many "$name" "$python" -B tests/interop/client.py "$port" "$work" "$@"
}

# The exact packages of package-lock.json, checked by their hashes, once per build folder.
install_node_client() {
    cmp -s tests/interop/package-lock.json "$cache/package-lock.json" && [ -f "$cache/installed" ] && return 0
    mkdir -p "$cache" && cp tests/interop/package.json tests/interop/package-lock.json "$cache" &&
        (cd "$cache" && timeout 120 npm ci --ignore-scripts --no-audit --no-fund) >"$work/npm.log" 2>&1 &&
        touch "$cache/installed"
}

node_cases() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        skip node "node or npm is not installed (deploy/deps.sh installs them)"
    elif ! install_node_client; then
        tail -n 5 "$work/npm.log"
        skip node "npm cannot fetch @grpc/grpc-js"
    else
        NODE_PATH=$cache/node_modules many node node tests/interop/client.js "$port" "$work"
    fi
}

# handshake openssl-arguments: whether a TLS handshake with a client certificate succeeds.
handshake() {
    timeout 10 openssl s_client -connect "127.0.0.1:$port" -CAfile "$work/ca.pem" -verify_return_error \
        -cert "$work/sre.pem" -key "$work/sre.key" "$@" </dev/null >"$work/tls.out" 2>&1
}

tls_cases() {
    if handshake -tls1_2 -alpn h2 && grep -q 'ALPN protocol: h2' "$work/tls.out"; then
        ok tls_handshake_of_openssl
    else
        bad tls_handshake_of_openssl "$(tail -n 3 "$work/tls.out" | tr '\n' ' ')"
    fi
    # The positive control above shows that it is the version, nothing else, that is refused. SECLEVEL=0: openssl itself
    # would not offer it otherwise.
    if handshake -tls1_1 -cipher ALL:@SECLEVEL=0; then
        bad tls_1_1_is_refused "the handshake succeeded"
    elif grep -qiE 'alert protocol version|handshake failure|no protocols' "$work/tls.out"; then
        ok tls_1_1_is_refused
    else
        bad tls_1_1_is_refused "$(tail -n 3 "$work/tls.out" | tr '\n' ' ')"
    fi
}

# What the clients did to it (a hundred connections, 3 MB messages, a reader that stalled before 2 GB) took little memory.
# A sanitizer keeps what was freed, so there the figure means nothing.
memory_case() {
    local pid peak
    pid=$(cat "$work/pid")
    peak=$(awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status")
    if grep -q asan "/proc/$pid/maps"; then
        skip server_memory_is_bounded "the server runs under a sanitizer"
    elif [ "${peak:-9999}" -le 250 ]; then
        ok server_memory_is_bounded
    else
        bad server_memory_is_bounded "peak $peak MiB, limit 250 MiB"
    fi
}

log_cases() {
    local text
    for text in 'peer showed no certificate' "not signed by this fleet's CA" 'older TLS version'; do
        if grep -q "$text" "$work/server.log"; then
            ok "log_says_$(echo "$text" | tr -c 'a-zA-Z0-9\n' _)"
        else
            bad "log_says_$(echo "$text" | tr -c 'a-zA-Z0-9\n' _)" "$(tail -n 3 "$work/server.log" | tr '\n' ' ')"
        fi
    done
}

# Ends on SIGTERM: nothing was left open, and under a sanitizer nothing leaked.
stop_case() {
    if ! stop_server; then
        kill -KILL "$(cat "$work/pid")"
        bad server_stops "still there after 10 s"
    elif grep -qE 'ERROR: |runtime error' "$work/server.log"; then
        grep -E -A 20 'ERROR: |runtime error' "$work/server.log" | head -n 60
        bad server_stops "a sanitizer complained"
    else
        ok server_stops
    fi
    : >"$work/pid"
}

if [ ! -x "$server" ]; then
    echo "20_interop: no '$server': build it first" >&2
    exit 2
fi
if ! certificates >"$work/openssl.log" 2>&1 || ! start_server 0; then
    cat "$work/openssl.log"
    bad interop "cannot start the server"
else
    write_restart
    tls_cases
    node_cases
    python_cases python
    memory_case
    python_cases python_restart restart "$work/restart"
    log_cases
    stop_case
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
