#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""From the crash of a process to the process gone and its port free, by who handles it, in one run: no core at all, a bare
handler that only closes the pipe, Trawl's, a plain core file, systemd-coredump where it is installed. Prints ratios to no
core at all. The core pattern is the system's: a lock is held, and it is put back.

usage: run.py BUILD_DIR [-m MIB] [-t THREADS] [-n RUNS] [--slow-runs N]   (a release build; as root)"""
import argparse
import atexit
import fcntl
import os
import resource
import shutil
import socket
import statistics
import subprocess
import time

args = argparse.ArgumentParser()
args.add_argument("build")
args.add_argument("-m", "--mib", type=int, default=1024)
args.add_argument("-t", "--threads", type=int, default=200)
args.add_argument("-n", "--runs", type=int, default=7)
args.add_argument("--slow-runs", type=int, default=2)
args = args.parse_args()
VICTIM = os.path.join(args.build, "victims", "crash")
PATTERN = "/proc/sys/kernel/core_pattern"
ROOT = "/var/lib/trawl-bench-%d" % os.getpid()
lock = open("/run/lock/trawl-core-pattern.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
before = open(PATTERN).read()
os.mkdir(ROOT, 0o755)


def put(text):
    with open(PATTERN, "w") as f:
        f.write(text)


def put_back():
    put(before)
    shutil.rmtree(ROOT, ignore_errors=True)


atexit.register(put_back)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def one(limit, **more):
    """Milliseconds until it is gone, and until its port can be bound again."""
    port = free_port()
    p = subprocess.Popen([VICTIM, str(args.threads), str(args.mib), str(port), "segv"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, cwd=ROOT,
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit)))
    assert p.stdout.readline() == b"ready\n"
    began = time.monotonic()
    p.stdin.close()
    p.wait()
    gone = time.monotonic()
    while True:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                break
            except OSError:
                pass
    free = time.monotonic()
    for name in os.listdir(ROOT):
        if name.startswith("core"):
            os.unlink(os.path.join(ROOT, name))
    return (gone - began) * 1e3, (free - began) * 1e3


def bare():
    path = ROOT + "/bare"
    source = "#include <unistd.h>\nint main(void) { char b[65536]; (void)!read(0, b, sizeof b); close(0); return 0; }\n"
    subprocess.run(["cc", "-O2", "-static", "-x", "c", "-", "-o", path], input=source.encode(), check=True)
    return "|" + path


def trawl():
    agent = ROOT + "/trawl-agent"
    shutil.copy2(os.path.join(args.build, "bin", "trawl-agent"), agent)
    subprocess.run(["strip", agent], check=True)
    options = ["--state-dir", ROOT + "/state", "--crash-file", ROOT + "/handler"]
    put("core")
    subprocess.run([agent, "crash-handler", "install", *options], check=True, stdout=subprocess.DEVNULL)
    return open(PATTERN).read()


systemd = next((p for p in ("/lib/systemd/systemd-coredump", "/usr/lib/systemd/systemd-coredump") if os.path.exists(p)), None)
ways = [("no core at all", "core", 0, args.runs), ("bare handler", bare(), 0, args.runs), ("trawl", trawl(), 0, args.runs),
        ("plain core file", "core", resource.RLIM_INFINITY, args.slow_runs)]
if systemd:
    ways.append(("systemd-coredump", "|%s %%P %%u %%g %%s %%t %%c %%h" % systemd, resource.RLIM_INFINITY, args.slow_runs))
else:
    print("systemd-coredump is not installed: left out")
found = {}
# Turn by turn, so that what else the machine does meets all alike.
for turn in range(args.runs):
    for name, pattern, limit, runs in ways:
        if turn < runs:
            put(pattern)
            found.setdefault(name, []).append(one(limit))
            put(before)
            time.sleep(0.3 if name == "trawl" else 0)  # its describing is not the next one's
base = statistics.median(g for g, f in found["no core at all"])
print("%d MiB, %d threads; ms until the process is gone (median, least to most), until its port is free (median)" %
      (args.mib, args.threads))
for name, values in found.items():
    gone = sorted(g for g, f in values)
    print("  %-18s %9.1f  (%.1f to %.1f)  %9.1f   %7.2f times no core" %
          (name, statistics.median(gone), gone[0], gone[-1], statistics.median(f for g, f in values),
           statistics.median(gone) / base))
