#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# How the tree looks: what clang-format, a short reader and a few patterns can tell. What it cannot tell is in
# CONTRIBUTING.md. Prints `file:line: what`, one line a finding; exit 1 when there is one. Warnings do not count.
#
# usage: tests/style.sh [DIR]      (default: this repository)

set -eu

cd "${1:-$(dirname "$0")/..}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Recorded material is what it is; everything else is ours.
listed() {
    if ! git ls-files -co --exclude-standard 2>/dev/null; then
        find . -type f -not -path './build*' -not -path './.git/*' | sed 's,^\./,,'
    fi | grep -vE '^tests/(fixtures|golden|fuzz/corpus)/|(^|/)node_modules/' | LC_ALL=C sort -u |
        while IFS= read -r file; do
            [ ! -f "$file" ] || [ -L "$file" ] || echo "$file"
        done
}

listed >"$tmp/all"
grep -E '\.(c|h)$' "$tmp/all" >"$tmp/c" || true
grep -E '\.(c|h|def|sh|cmake|py|js|proto)$|(^|/)CMakeLists\.txt$|^\.ci/run$' "$tmp/all" >"$tmp/code" || true
[ -s "$tmp/c" ] || { echo "style: no sources found in $(pwd)" >&2; exit 1; }

# Every language we use: a licence line on top, no blanks at a line's end, no path of somebody's machine.
xargs awk '
function report(line, what) { print FILENAME ":" line ": " what }
function ends() { if (name && !licence) print name ":1: no SPDX line in its first three lines" }
FNR == 1 { ends(); name = FILENAME; licence = 0 }
FNR <= 3 && name ~ /\.(c|h|def)$/ && $0 == "/* SPDX-License-Identifier: Apache-2.0 */" { licence = 1 }
FNR <= 3 && name !~ /\.(c|h|def)$/ && /^(#|\/\/|\/\*) SPDX-License-Identifier: Apache-2\.0/ { licence = 1 }
/[ \t\r]$/ { report(FNR, "blank at the end of the line") }
END { ends() }
' <"$tmp/code" >>"$tmp/out"

# A name after the slash, so that this very pattern does not match itself.
xargs grep -nIE '(^|[^A-Za-z0-9_.%}*-])/(work|root|home/[a-z]+)/[A-Za-z0-9_.]' /dev/null <"$tmp/all" |
    awk -F: '{ print $1 ":" $2 ": path of one machine: " substr($0, length($1 $2) + 3) }' >>"$tmp/out" || true

# C: what the formatter lets pass. Strings and comments are told apart, for // and for the words of unfinished work.
xargs awk '
function report(line, what) { print FILENAME ":" line ": " what }
function ends() {
    if (!name) return
    if (prose < 40) print name ":2: no opening paragraph (what it is for, its invariant, who calls it)"
    if (lines > 800) print name ":" lines ": " lines " lines; split it (600 is much, 800 the end)"
    else if (lines > 600) print name ":" lines ": warning: " lines " lines; split it soon"
}
FNR == 1 { ends(); name = FILENAME; in_comment = 0; opened = 0; prose = 0; opening = 1 }
{
    lines = FNR; rest = $0
    was_comment = in_comment
    if (index($0, "\t")) report(FNR, "tab")
    if ($0 ~ /(^|[^A-Za-z_])(TODO|FIXME|XXX)([^A-Za-z_]|$)/) report(FNR, "unfinished work belongs in an issue")
    started = 0
    while (1) {
        if (in_comment) {
            if (!match(rest, /\*\//)) break
            rest = substr(rest, RSTART + 2); in_comment = 0
        }
        if (!match(rest, /"|\047|\/\*|\/\//)) break
        mark = substr(rest, RSTART, RLENGTH); rest = substr(rest, RSTART)
        if (mark == "//") { report(FNR, "comments are written /* so */"); break }
        if (mark == "/*") { rest = substr(rest, 3); in_comment = 1; started = 1; continue }
        if (mark == "\"") hit = match(rest, /^"([^"\\]|\\.)*"/); else hit = match(rest, /^\047([^\047\\]|\\.)*\047/)
        if (!hit) break
        rest = substr(rest, RLENGTH + 1)
    }
    if (opening && FNR > 1 && (was_comment || started)) prose += length($0)
    else if (FNR > 3 && prose) opening = 0
    else if ($0 !~ /^[ \t]*$/ && FNR > 1) opening = 0
}
END { ends() }
' <"$tmp/c" >>"$tmp/out"

if command -v clang-format >/dev/null 2>&1; then
    xargs clang-format --dry-run -Werror <"$tmp/c" 2>&1 | grep -E ': (error|warning): ' |
        awk -F: '!seen[$1]++ { print $1 ":" $2 ": not as clang-format writes it (clang-format -i " $1 ")" }' >>"$tmp/out" || true
else
    echo "clang-format:1: not installed; run deploy/deps.sh" >>"$tmp/out"
fi

cat "$tmp/out"
bad=$(grep -vc ': warning: ' "$tmp/out" || true)
echo "style: $(wc -l <"$tmp/all" | tr -d ' ') files, $bad findings" >&2
[ "$bad" -eq 0 ]
