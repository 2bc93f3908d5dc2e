#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Who may include whom. The picture is in CONTRIBUTING.md: common <- proto <- rule <- {agent, collector, cli}; the programs
# never include each other, what asks the operating system knows almost nothing of the rest, and every third-party library has
# one home, so that it can be replaced by changing one file. Also: #ifdef of an operating system outside its home, and
# functions that nobody here may call. Prints `file:line: rule: what`, one line a violation; exit 1 when there is one.
#
# usage: tests/layers.sh [DIR]          check the tree at DIR (default: this repository)
#        tests/layers.sh --self-test    plant one violation of every kind in a copy; fail unless each is found

set -eu

here=$(cd "$(dirname "$0")/.." && pwd)

# The rules. Every decision is made on the path of the file and on its text without comments and strings.
rules='
function report(rule, what) { print FILENAME ":" FNR ": " rule ": " what; found++ }

# The line without comments, strings and character constants; `in_comment` lives from line to line.
function code(s,    out) {
    out = ""
    if (in_comment) {
        if (!match(s, /\*\//)) return ""
        s = substr(s, RSTART + 2); in_comment = 0
    }
    while (match(s, /"|\047|\/\*|\/\//)) {
        out = out substr(s, 1, RSTART - 1)
        mark = substr(s, RSTART, RLENGTH); s = substr(s, RSTART)
        if (mark == "//") return out
        if (mark == "/*") {
            s = substr(s, 3); out = out " "
            if (!match(s, /\*\//)) { in_comment = 1; return out }
            s = substr(s, RSTART + 2)
        } else {
            if (mark == "\"") hit = match(s, /^"([^"\\]|\\.)*"/); else hit = match(s, /^\047([^\047\\]|\\.)*\047/)
            if (!hit) return out
            out = out mark mark; s = substr(s, RLENGTH + 1)
        }
    }
    return out s
}

function generated(name) { return name ~ /\.pb\.h$/ || name ~ /(^|\/)descriptor_set\.h$/ }

# An include of ours: may this folder know that one?
function check_ours(name,    to, own) {
    if (name ~ /\.\.\//) { report("layers", "include \"" name "\" climbs; name it from the root of the tree"); return }
    if (layer == "os") {
        own = FILENAME; sub(/[^\/]*$/, "", own)
        if (name ~ /^common\/(err|buf|text|port)\.(h|def)$/) return
        if (name ~ /^agent\/os\/[a-z0-9_]+\.h$/) return
        if (name ~ /\// && index(name, own) == 1) return
        if (name !~ /\//) { report("os-includes", "\"" name "\": name it from the root of the tree"); return }
        report("os-includes", "agent/os may include only common/{err,buf,text,port}.h and its own, not \"" name "\"")
        return
    }
    if (name ~ /^agent\/os\/[a-z0-9_]+\//) {
        report("os-includes", "\"" name "\" belongs to one operating system; ask through agent/os/*.h"); return
    }
    if (generated(name)) {
        if (layer == "common") report("layers", "common may not include generated \"" name "\"")
        return
    }
    if (name !~ /\//) { report("layers", "\"" name "\": name it from the root of the tree"); return }
    to = name; sub(/\/.*/, "", to)
    if (to == layer || to == "common" || (to == "proto" && layer != "common")) return
    if (to == "rule" && (layer == "agent" || layer == "collector" || layer == "cli")) return
    report("layers", layer " may not include " to ": \"" name "\"")
}

# A home of several files may share a header; nobody else may see it, or the library has escaped.
function check_private(name) {
    if (name ~ /^common\/[a-z_]+_mbed\.h$/ && FILENAME !~ /^common\/((tls|pki)[a-z_]*\.c|[a-z_]+_mbed\.h)$/)
        report("home", "\"" name "\" is private to tls and pki")
    if (name ~ /^proto\/grpc_internal\.h$/ && FILENAME !~ /^proto\/grpc[a-z0-9_]*\.c$/)
        report("home", "\"" name "\" is private to grpc")
}

# A library has one home: `homes` is a pattern of the files that may include it.
function home(library, homes) { if (FILENAME !~ homes) report("home", library " has one home, and this is not it") }

function check_library(name) {
    if (name ~ /^(mbedtls|psa)\//) home("mbedTLS", "^common/((tls|pki)[a-z_]*\\.c|[a-z_]+_mbed\\.h)$")
    else if (name ~ /^nghttp2\//) home("nghttp2", "^proto/grpc([a-z0-9_]*\\.c|_internal\\.h)$")
    else if (name ~ /^(nanopb\/)?pb_(en|de)code\.h$/) home("nanopb", "^proto/codec[a-z_]*\\.c$")
    else if (name == "lmdb.h") home("LMDB", "^collector/store_lmdb[a-z_]*\\.c$")
    else if (name ~ /^elfutils\// || name ~ /^(libelf|gelf|dwarf|libdw)\.h$/)
        home("elfutils", "^(agent/os/linux/unwind[a-z_]*|collector/symbols[a-z_]*)\\.c$")
    else if (name == "lzma.h") home("liblzma", "^collector/symbols[a-z_]*\\.c$")
    else if (name ~ /^(zlib|zconf)\.h$/) home("zlib", "^agent/os/linux/gzip\\.c$")
    else if (name ~ /^(zstd|zstd_errors|zdict)\.h$/) home("zstd", "^common/zip[a-z_]*\\.c$")
    else if (name == "xxhash.h") home("xxHash", "^common/xxh64\\.c$")
    else if (name == "ini.h") home("inih", "^common/conf\\.c$")
    else if (name == "microhttpd.h") home("libmicrohttpd", "^collector/http\\.c$")
    else if (name ~ /^curl\//) home("libcurl", "^collector/webhook\\.c$")
    else if (name == "jansson.h") home("jansson", "^((collector|cli)/|agent/intake_json\\.c$)")
    else if (name ~ /^libiberty\//) home("libiberty", "^(agent/os/linux/demangle|collector/symbols[a-z_]*)\\.c$")
    else if (name == "uv.h" || name ~ /^uv\//) {
        if (FILENAME ~ /^(agent\/os|proto|rule)\// ||
            FILENAME ~ /^collector\/((keys|group|report)\.|store\.h$)/ || FILENAME ~ /^cli\/(select|render)\./ ||
            FILENAME ~ /^common\/(buf|err|text|list|id|conf|zip|log)\./)
            report("uv", "libuv is banned from what is pure")
    } else return 0
    return 1
}

FNR == 1 {
    in_comment = 0
    layer = FILENAME; sub(/\/.*/, "", layer)
    if (FILENAME ~ /^agent\/os\//) layer = "os"
    files++
}

{ text = code($0) }

text ~ /^[ \t]*#[ \t]*include/ && match($0, /[<"][^>"]+[>"]/) {
    name = substr($0, RSTART + 1, RLENGTH - 2)
    check_private(name)
    if (!check_library(name) && substr($0, RSTART, 1) == "\"") check_ours(name)
    next
}

text ~ /^[ \t]*#[ \t]*(if|elif)/ {
    if (text ~ /(^|[^A-Za-z0-9_])(_WIN32|_WIN64|WIN32|__MINGW32__|__MINGW64__|__linux__|__linux|__gnu_linux__|__unix__|__APPLE__|__FreeBSD__)([^A-Za-z0-9_]|$)/ &&
        FILENAME !~ /^(agent\/os\/|common\/port)/)
        report("os-ifdef", "an operating system is told apart only in agent/os and common/port")
}

text ~ /[a-z][ \t]*\(/ {
    if (match(text, /(^|[^A-Za-z0-9_])(strcpy|strcat|sprintf|vsprintf|atoi|atol|atoll|atof|sscanf|vsscanf|fscanf|alloca|__builtin_alloca|gets|system|popen)[ \t]*\(/)) {
        name = substr(text, RSTART, RLENGTH); gsub(/[^a-z_]/, "", name)
        report("banned", name "() is not used here")
    }
    if (FILENAME != "common/text.c" && match(text, /(^|[^A-Za-z0-9_])(strto(l|ul|ll|ull|imax|umax|d|f|ld))[ \t]*\(/)) {
        name = substr(text, RSTART, RLENGTH); gsub(/[^a-z_]/, "", name)
        report("banned", name "() turns bad text into a number; common/text.h has strict ones")
    }
}

END { print files + 0 " " found + 0 > counts }
'

# Checks the tree at $1: violations on stdout.
check() {
    counts=$(mktemp)
    (
        cd "$1"
        find common proto rule agent collector cli -type f \( -name '*.c' -o -name '*.h' \) 2>/dev/null | LC_ALL=C sort |
            xargs -r awk -v counts="$counts" "$rules"
    )
    read -r files found <"$counts" || { files=0; found=0; }
    rm -f "$counts"
    echo "layers: $files files, $found violations" >&2
    [ "$files" -gt 0 ] && [ "$found" -eq 0 ]
}

# file | rule that must name it (none: must stay silent) | the line planted at its end
plants() {
    cat <<'END'
common/planted.c|layers|#include "proto/grpc.h"
common/planted.c|layers|#include "agent/ring.h"
common/planted.c|layers|#include "trawl.pb.h"
common/planted.c|layers|#include "../agent/ring.h"
common/planted.c|layers|#include "buf.h"
proto/planted.c|layers|#include "collector/store.h"
proto/planted.c|layers|#include "rule/language.h"
common/planted.c|layers|#include "rule/language.h"
rule/planted.c|layers|#include "agent/ring.h"
rule/planted.c|layers|#include "collector/store.h"
rule/planted.c|layers|#include "agent/os/exception.h"
agent/os/planted.h|os-includes|#include "rule/language.h"
agent/planted.c|layers|#include "collector/store.h"
agent/planted.c|layers|#include "cli/render.h"
collector/planted.c|layers|#include "agent/ring.h"
collector/planted.c|layers|#include "cli/render.h"
cli/planted.c|layers|#include "collector/store.h"
cli/planted.c|layers|#include "agent/ring.h"
cli/planted.h|layers|#  include "agent/ring.h"
cli/planted.c|layers|#include "tests/check.h"
agent/os/planted.h|os-includes|#include "common/log.h"
agent/os/linux/planted.c|os-includes|#include "common/tls.h"
agent/os/linux/planted.c|os-includes|#include "agent/ring.h"
agent/os/linux/planted.c|os-includes|#include "proto/grpc.h"
agent/os/linux/planted.c|os-includes|#include "agent/os/windows/reader.h"
agent/os/windows/planted.c|os-includes|#include "agent/os/linux/reader.h"
agent/planted.c|os-includes|#include "agent/os/linux/reader.h"
common/conn.c|home|#include <mbedtls/ssl.h>
common/tls.h|home|#include <mbedtls/ssl.h>
collector/planted.c|home|#include <psa/crypto.h>
collector/planted.c|home|#include "mbedtls/sha256.h"
collector/planted.c|home|#include "common/tls_mbed.h"
common/conn.c|home|#include "common/pki_mbed.h"
collector/planted.c|home|#include "proto/grpc_internal.h"
common/planted.c|home|#include <nghttp2/nghttp2.h>
proto/codec.c|home|#include <nghttp2/nghttp2.h>
proto/grpc.c|home|#include <pb_encode.h>
collector/planted.c|home|#include <pb_decode.h>
collector/store.h|home|#include <lmdb.h>
agent/planted.c|home|#include <lmdb.h>
agent/os/linux/stacks.c|home|#include <elfutils/libdwfl.h>
agent/worker.c|home|#include <gelf.h>
agent/worker.c|home|#include <libelf.h>
collector/groups.c|home|#include <elfutils/libdw.h>
collector/symbols.h|home|#include <libelf.h>
agent/os/linux/unwind.c|home|#include <libiberty/demangle.h>
agent/os/linux/unwind.c|home|#include <lzma.h>
agent/planted.c|home|#include <zstd.h>
agent/os/linux/profile_write.c|home|#include <zlib.h>
common/zip.c|home|#include <zlib.h>
agent/delta.c|home|#include <xxhash.h>
cli/planted.c|home|#include <ini.h>
collector/planted.c|home|#include <microhttpd.h>
collector/planted.c|home|#include <curl/curl.h>
agent/planted.c|home|#include <jansson.h>
agent/intake.c|home|#include <jansson.h>
agent/os/linux/throws.c|home|#include <libiberty/demangle.h>
agent/os/linux/planted.c|uv|#include <uv.h>
proto/grpc.c|uv|#include <uv.h>
collector/keys.c|uv|#include <uv.h>
collector/store.h|uv|#include <uv.h>
collector/group.c|uv|#include <uv.h>
collector/report.c|uv|#include "uv.h"
rule/engine.c|uv|#include <uv.h>
rule/language.h|uv|#include "uv.h"
cli/select.c|uv|#include <uv.h>
cli/render.h|uv|#include <uv.h>
common/buf.c|uv|#include <uv.h>
common/err.h|uv|#include <uv.h>
common/text.c|uv|#include <uv.h>
common/list.h|uv|#include <uv.h>
common/conf.c|uv|#include <uv.h>
common/zip.c|uv|#include <uv.h>
common/log.c|uv|#include <uv.h>
common/buf.c|os-ifdef|#ifdef _WIN32
common/buf.c|os-ifdef|#if defined(__linux__)
agent/planted.c|os-ifdef|#ifndef __unix__
collector/planted.c|os-ifdef|#if defined(X) || defined(WIN32)
cli/planted.c|os-ifdef|#elif defined(__APPLE__)
cli/planted.c|banned|void p1(void) { strcpy(a, b); }
cli/planted.c|banned|void p2(void) { strcat (a, b); }
cli/planted.c|banned|void p3(void) { sprintf(a, "%s", b); }
cli/planted.c|banned|void p4(void) { vsprintf(a, "%s", b); }
cli/planted.c|banned|int p5(void) { return atoi(a); }
cli/planted.c|banned|long p6(void) { return atol(a); }
cli/planted.c|banned|long p7(void) { return strtol(a, 0, 10); }
agent/os/linux/planted.c|banned|long p8(void) { return strtoul(a, 0, 10); }
cli/planted.c|banned|long p9(void) { return strtoll(a, 0, 10); }
cli/planted.c|banned|long p10(void) { return strtoull(a, 0, 10); }
cli/planted.c|banned|double p11(void) { return strtod(a, 0); }
common/text.c|banned|int p12(void) { return sscanf(a, "%d", &b); }
cli/planted.c|banned|void *p13(void) { return alloca(9); }
cli/planted.c|banned|void p14(void) { gets(a); }
cli/planted.c|banned|int p15(void) { return system("x"); }
cli/planted.c|banned|void *p16(void) { return popen("x", "r"); }
cli/planted.c|banned|int p17(void) { /* fine */ return system("/* not a comment"); }
common/text.c|none|long q1(void) { return strtol(a, 0, 10); }
common/planted.c|none|#include "common/buf.h"
proto/planted.c|none|#include "trawl.pb.h"
rule/planted.c|none|#include "proto/kinds.h"
rule/planted.c|none|#include "common/text.h"
agent/planted.c|none|#include "rule/engine.h"
collector/planted.c|none|#include "rule/language.h"
cli/planted.c|none|#include "rule/language.h"
agent/planted.c|none|#include "agent/os/process.h"
agent/os/linux/planted.c|none|#include "agent/os/linux/reader.h"
agent/os/linux/unwind.c|none|#include <elfutils/libdwfl.h>
collector/symbols_planted.c|none|#include <libiberty/demangle.h>
collector/symbols_planted.c|none|#include <lzma.h>
agent/os/linux/gzip.c|none|#include <zlib.h>
agent/os/linux/demangle.c|none|#include <libiberty/demangle.h>
agent/intake_json.c|none|#include <jansson.h>
common/pki_read.c|none|#include "common/pki_mbed.h"
common/planted.c|none|#include <uv.h>
common/port.h|none|#ifdef _WIN32
agent/os/linux/planted.c|none|#ifdef __linux__
cli/planted.c|none|int q2(void) { return 0; /* system("x") is not a call here */ }
cli/planted.c|none|const char *q3(void) { return "call system(x)"; }
cli/planted.c|none|int q4(void) { return file_system(1) + my_atoi(2); }
END
}

self_test() {
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    mkdir "$dir/tree"
    for folder in common proto rule agent collector cli; do
        [ ! -d "$here/$folder" ] || cp -R "$here/$folder" "$dir/tree/"
    done
    plants >"$dir/plants"
    while IFS='|' read -r file rule line; do
        mkdir -p "$dir/tree/${file%/*}"
        printf '\n%s\n' "$line" >>"$dir/tree/$file"
        echo "$file:$(wc -l <"$dir/tree/$file" | tr -d ' '): $rule" >>"$dir/expected"
    done <"$dir/plants"
    check "$dir/tree" >"$dir/out" 2>/dev/null || true
    total=0 wrong=0
    while IFS=' ' read -r place rule; do
        total=$((total + 1))
        case $rule in
        none) grep -qF "$place " "$dir/out" && { wrong=$((wrong + 1)); echo "layers: falsely reported: $(grep -F "$place " "$dir/out")"; } ;;
        *) grep -qF "$place $rule: " "$dir/out" || { wrong=$((wrong + 1)); echo "layers: not found: $place $rule"; } ;;
        esac
    done <"$dir/expected"
    echo "layers: self-test: $total planted, $wrong wrong"
    [ "$total" -gt 80 ] && [ "$wrong" -eq 0 ]
}

case "${1-}" in
--self-test) self_test ;;
-*) sed -n '/^# usage/,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
*) check "${1:-$here}" ;;
esac
