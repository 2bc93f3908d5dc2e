#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs what Trawl needs to be built and tested on Debian 12 or later: Debian packages, and a static mbedTLS built
# from Debian's own newer source package, because Debian 12 ships 2.28, whose branch has ended. Idempotent: a second
# run finds everything in place and takes about a second. Called by tests/run.sh and deploy/quickstart.sh.
#
# The one invariant: the system's apt configuration and running services are as before. The newer source package is
# fetched with an apt state of its own, verified with the Debian keyring; services are kept from starting.

set -eu

usage() {
	cat <<'END'
usage: deploy/deps.sh [--build | --run-farm | --prefix]
  (nothing)    everything: build, test, and the services that the tests capture
  --build      only what is needed to build the three programs
  --run-farm   --build, and what deploy/quickstart.sh runs as a farm
  --prefix     print the folder that mbedTLS is installed in, and do nothing
As root, or as a user with sudo (asked only when a package is missing).
TRAWL_DEPS=DIR chooses where mbedTLS is kept (default: $XDG_CACHE_HOME/trawl/deps, or ~/.cache/trawl/deps).
END
}

say() { echo "deps: $*"; }
die() { echo "deps: $*" >&2; exit 1; }

prefix="${TRAWL_DEPS:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/trawl/deps}/mbedtls"

# "a|b" means: a, or b where this release has no a. "?cmd:pkg" means: pkg, unless the command exists already.
build_pkgs="cmake ninja-build gcc libc6-dev pkg-config python3 ca-certificates dpkg-dev debian-archive-keyring
	libuv1-dev libnghttp2-dev nanopb libnanopb-dev protobuf-compiler python3-protobuf liblmdb-dev libdw-dev libelf-dev
	zlib1g-dev libxxhash-dev liblzma-dev libbz2-dev libzstd-dev libiberty-dev libjansson-dev libinih-dev"
farm_pkgs="redis-server nginx iproute2 openssl procps util-linux"
# What the tests of the capture engine capture: a program in each language. Debian's JRE runs a .java file by itself.
target_pkgs="?go:golang-go ?rustc:rustc ?java:openjdk-17-jre-headless|default-jre-headless postgresql-15|postgresql"
test_pkgs="git g++ clang libclang-rt-14-dev|libclang-rt-dev clang-tidy clang-format cppcheck gcc-mingw-w64-x86-64-win32
	gdb libc6-dbg strace file faketime python3-grpcio python3-grpc-tools ?node:nodejs ?npm:npm
	lldb-14|lldb elfutils wrk zstd $target_pkgs"

case "${1-}" in
'') wanted="$build_pkgs $farm_pkgs $test_pkgs" ;;
--build) wanted="$build_pkgs" ;;
--run-farm) wanted="$build_pkgs $farm_pkgs" ;;
--prefix) echo "$prefix"; exit 0 ;;
-h | --help) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

tmp=$(mktemp -d "${TMPDIR:-/tmp}/trawl-deps.XXXXXX")
policy=/usr/sbin/policy-rc.d
policy_ours=
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

cleanup() {
	if [ -n "$policy_ours" ]; then
		$sudo rm -f "$policy"
		[ ! -e "$tmp/policy-rc.d" ] || $sudo cp -p "$tmp/policy-rc.d" "$policy"
	fi
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

installed() {
	case "$(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null)" in ?i*) return 0 ;; esac
	return 1
}

# Prints the names of the wanted packages that are missing, one entry (with its alternatives) a line.
missing() {
	for want in $wanted; do
		case "$want" in
		\?*:*)
			cmd=${want%%:*}
			command -v "${cmd#?}" >/dev/null 2>&1 && continue
			want=${want#*:}
			;;
		esac
		have=
		for name in $(echo "$want" | tr '|' ' '); do
			installed "$name" && have=1
		done
		[ -n "$have" ] || echo "$want"
	done
}

# The first of several alternatives that this release offers; fails with the names when there is none.
choose() {
	for name in $(echo "$1" | tr '|' ' '); do
		if apt-cache show "$name" >/dev/null 2>&1; then
			echo "$name"
			return 0
		fi
	done
	die "no package '$1' in this release"
}

# Packages of services start them on installation; the farm starts its own, and a developer's machine should not get any.
hold_services() {
	if [ -e "$policy" ]; then $sudo cp -p "$policy" "$tmp/policy-rc.d"; fi
	policy_ours=1
	printf '#!/bin/sh\nexit 101\n' >"$tmp/policy-new"
	$sudo install -m 755 "$tmp/policy-new" "$policy"
}

install_packages() {
	entries=$(missing)
	if [ -z "$entries" ]; then
		say "Debian packages: all in place"
		return 0
	fi
	[ -z "$sudo" ] || command -v sudo >/dev/null 2>&1 || die "not root and no sudo; missing: $(echo "$entries" | tr '\n' ' ')"
	say "apt-get update"
	$sudo apt-get update -qq
	names=
	for entry in $entries; do names="$names $(choose "$entry")"; done
	say "apt-get install:$names"
	hold_services
	# shellcheck disable=SC2086
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $names \
		>"$tmp/apt.log" 2>&1 || { tail -n 40 "$tmp/apt.log" >&2; die "apt-get install failed"; }
	for service in redis-server nginx postgresql; do
		case " $names" in
		*" $service "* | *" $service" | *" $service-"[0-9]*)
			say "service $service: installed, not started"
			# Not at the next boot either. Without systemctl there is nothing that would start it.
			if command -v systemctl >/dev/null 2>&1; then $sudo systemctl disable -q "$service" >/dev/null 2>&1 || true; fi
			;;
		esac
	done
}

# What Trawl asks of mbedTLS, asked of the compiler: $@ are its flags. The handshakes run on a pool, hence threading.
mbedtls_ok() {
	cat >"$tmp/probe.c" <<'END'
#include <mbedtls/build_info.h>
#if MBEDTLS_VERSION_NUMBER < 0x03060600
#error too old
#endif
#if !defined(MBEDTLS_THREADING_C) || !defined(MBEDTLS_THREADING_PTHREAD)
#error no threading
#endif
#if defined(MBEDTLS_SSL_OUT_CONTENT_LEN) && defined(MBEDTLS_SSL_VARIABLE_BUFFER_LENGTH)
#error these two together break peers that send 16 KiB records
#endif
END
	cc -E "$@" "$tmp/probe.c" >/dev/null 2>&1
}

# "URI suite-family" of every Debian archive that this machine's own sources name, for both source formats.
system_mirrors() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
		awk '$1 == "deb" || $1 == "deb-src" { for (i = 2; i < NF; i++) if ($i ~ /^[a-z+]+:\//) print $i, $(i + 1) }'
	for file in /etc/apt/sources.list.d/*.sources; do
		[ ! -f "$file" ] || awk '
			function flush(   i, j, n, m, u, s) {
				n = split(uris, u, " "); m = split(suites, s, " ")
				if (enabled) for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) print u[i], s[j]
				uris = suites = field = ""; enabled = 1
			}
			BEGIN { enabled = 1 }
			/^#/ { next }
			/^[ \t]*$/ { flush(); next }
			/^[A-Za-z-]+:/ { field = tolower($1); $1 = "" }
			field == "uris:" { uris = uris " " $0 }
			field == "suites:" { suites = suites " " $0 }
			field == "enabled:" && tolower($0) ~ /no|false/ { enabled = 0 }
			END { flush() }' "$file"
	done
}

# An apt that has nothing in common with the system's but its proxy settings and the keyring.
private_apt_setup() {
	main_uri=$(system_mirrors | awk '$2 ~ /^(bookworm|trixie|forky|stable|testing|sid)$/ && $1 ~ /debian\/?$/ { print $1; exit }')
	security_uri=$(system_mirrors | awk '$2 ~ /-security$/ && $1 ~ /debian-security\/?$/ { print $1; exit }')
	main_uri=${main_uri:-http://deb.debian.org/debian}
	security_uri=${security_uri:-http://deb.debian.org/debian-security}
	keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	# Keys of trixie came to Debian 12 with this version of the keyring; it comes from the system's own sources.
	have=$(dpkg-query -W -f='${Version}' debian-archive-keyring)
	if dpkg --compare-versions "$have" lt 2023.3+deb12u2; then
		say "apt-get install: debian-archive-keyring (the one here, $have, cannot verify trixie)"
		$sudo apt-get update -qq
		$sudo apt-get install -y -qq --no-install-recommends debian-archive-keyring >/dev/null
	fi
	mkdir -p "$tmp/state/lists/partial" "$tmp/cache/archives/partial" "$tmp/parts" "$tmp/source"
	cat >"$tmp/debian.sources" <<END
Types: deb-src
URIs: $main_uri
Suites: trixie trixie-updates
Components: main
Signed-By: $keyring

Types: deb-src
URIs: $security_uri
Suites: trixie-security
Components: main
Signed-By: $keyring
END
	# The hooks of the system's apt (desktop catalogues, cache cleaning) have no business with this one.
	cat >"$tmp/apt.conf" <<END
Dir::Etc::sourcelist "$tmp/debian.sources";
Dir::Etc::sourceparts "$tmp/parts";
Dir::Etc::preferencesparts "$tmp/parts";
Dir::State "$tmp/state";
Dir::Cache "$tmp/cache";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::AllowInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
END
	# As root, apt downloads as its own user; let it reach these folders.
	if [ "$(id -u)" = 0 ] && id _apt >/dev/null 2>&1; then
		chmod 755 "$tmp"
		chown _apt "$tmp/state/lists/partial" "$tmp/cache/archives/partial" "$tmp/source"
	fi
}

fetch_mbedtls() {
	private_apt_setup
	say "mbedTLS: source package of trixie from $main_uri, with an apt state of its own"
	apt-get -c "$tmp/apt.conf" update -qq || die "could not read the trixie suites from $main_uri"
	newest=$(apt-cache -c "$tmp/apt.conf" showsrc mbedtls |
		awk '$1 == "Version:" { print $2 }' | sort -V | tail -n 1)
	dpkg --compare-versions "${newest:-0}" ge 3.6.6 || die "mbedtls >= 3.6.6 not found there, newest is '${newest:-none}'"
	(cd "$tmp/source" && apt-get -c "$tmp/apt.conf" source -qq "mbedtls=$newest") >"$tmp/source.log" 2>&1 ||
		{ tail -n 20 "$tmp/source.log" >&2; die "could not fetch mbedtls $newest"; }
	tree=$(find "$tmp/source" -mindepth 1 -maxdepth 1 -type d)
	[ -f "$tree/include/mbedtls/build_info.h" ] || die "unexpected source package layout in $tree"
}

build_mbedtls() {
	fetch_mbedtls
	say "mbedTLS: building $newest"
	for option in THREADING_C THREADING_PTHREAD; do python3 "$tree/scripts/config.py" set "MBEDTLS_$option"; done
	python3 "$tree/scripts/config.py" unset MBEDTLS_SSL_RENEGOTIATION
	staging="$prefix.new.$$"
	rm -rf "$staging"
	mkdir -p "${prefix%/*}"
	{
		cmake -S "$tree" -B "$tmp/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE=-O2 \
			-DCMAKE_INSTALL_PREFIX="$staging" -DCMAKE_INSTALL_LIBDIR=lib -DENABLE_TESTING=Off -DENABLE_PROGRAMS=Off \
			-DGEN_FILES=Off -DMBEDTLS_FATAL_WARNINGS=Off \
			-DUSE_STATIC_MBEDTLS_LIBRARY=On -DUSE_SHARED_MBEDTLS_LIBRARY=Off &&
			cmake --build "$tmp/build" && cmake --install "$tmp/build"
	} >"$tmp/build.log" 2>&1 || { tail -n 40 "$tmp/build.log" >&2; rm -rf "$staging"; die "building mbedTLS failed"; }
	mbedtls_ok -I "$staging/include" || { rm -rf "$staging"; die "the mbedTLS just built is not as configured"; }
	# A half-made folder must never be taken for a finished one: it appears under its name in one step.
	rm -rf "$prefix"
	mv "$staging" "$prefix"
	say "mbedTLS: $newest installed in $prefix"
}

ensure_mbedtls() {
	if mbedtls_ok -I "$prefix/include" && [ -f "$prefix/lib/libmbedtls.a" ]; then
		say "mbedTLS: in place in $prefix"
	elif mbedtls_ok && [ -f "$(cc -print-file-name=libmbedtls.a)" ]; then
		say "mbedTLS: the system's own is new enough"
	else
		build_mbedtls
	fi
}

install_packages
# Two builds at a time on one machine (a test run beside a quickstart) share the folder.
mkdir -p "${prefix%/*}"
(
	flock 9
	ensure_mbedtls
) 9>"${prefix%/*}/.lock"
