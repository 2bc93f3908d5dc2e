# SPDX-License-Identifier: Apache-2.0
"""How long a crashed process stays: from the signal to the process gone and its port free, in one run, on one machine, for the
same program (victim.c): no core at all, a handler that only closes the pipe, Trawl's handler by pipe and by socket, a plain core
file, systemd-coredump.

    cmake --build build/release && BUILD_DIR=build/release /usr/bin/python3 tests/bench/crash/run.py [--quick]

Medians of --runs crashes in ms, and their ratio to no core at all; of Trawl also how long its handler says that it held them,
which is from where it reads the core to where it lets go (starting it comes before, dying after). Nothing here passes or fails. Needs root; sets the machine's
core_pattern while it runs, under the lock that all tests share, and puts it back. systemd-coredump is measured where the package
is installed: without systemd as init a small activator stands in for its socket."""
import argparse
import fcntl
import glob
import json
import os
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("BUILD_DIR", "build/release")
VICTIM = os.path.join(BUILD, "bench", "bench_crash_victim")
CLOSE = os.path.join(BUILD, "bench", "bench_crash_close")
AGENT = os.path.join(BUILD, "bin", "trawl-agent")
PATTERN = "/proc/sys/kernel/core_pattern"
LOCK = "/run/lock/trawl-core-pattern.lock"
COREDUMPD = "/lib/systemd/systemd-coredump"
COREDUMP_SOCKET = "/run/systemd/coredump"


def arguments():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--runs", type=int, default=7, help="crashes of each way, of which the median is shown (7)")
    words.add_argument("--slow-runs", type=int, default=2, help="the same for core file and systemd-coredump (2)")
    words.add_argument("--mib", type=int, nargs="+", default=[64, 1024], help="sizes of the victim (64 1024)")
    words.add_argument("--threads", type=int, nargs="+", default=[4, 200], help="its threads (4 200)")
    words.add_argument("--random", action="store_true", help="its memory does not compress (else about as a heap does)")
    words.add_argument("--huge", action="store_true", help="its memory is on huge pages, which are quick to free")
    words.add_argument("--quick", action="store_true", help="64 MiB, 4 and 200 threads, 3 runs")
    words.add_argument("--only", nargs="+", metavar="WAY", help="only these: none, close, trawl, socket, file, systemd")
    chosen = words.parse_args()
    if chosen.quick:
        chosen.mib, chosen.runs, chosen.slow_runs = [64], 3, 1
    chosen.words = [w for w in ("random", "huge") if getattr(chosen, w)]
    return chosen


def set_pattern(text):
    with open(PATTERN, "w") as f:
        f.write(text)


def get_pattern():
    with open(PATTERN) as f:
        return f.read().strip()


def wait_free(port):
    """Until the port can be bound again."""
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return
            except OSError:
                time.sleep(0.0005)


def crash(mib, threads, words, core_limit):
    """ms from the signal to the process gone, and to its port free."""
    victim = subprocess.Popen([VICTIM, str(mib), str(threads)] + words, stdout=subprocess.PIPE, text=True,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (core_limit, core_limit)))
    port = int(victim.stdout.readline())
    time.sleep(0.2)
    pidfd = os.pidfd_open(victim.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    begin = time.monotonic()
    os.kill(victim.pid, signal.SIGSEGV)
    poll.poll()
    gone = time.monotonic()
    wait_free(port)
    free = time.monotonic()
    os.close(pidfd)
    victim.wait()
    return (gone - begin) * 1e3, (free - begin) * 1e3


class NoCore:
    name, core_limit, slow = "none", 0, False

    def __enter__(self):
        set_pattern("core")
        return self

    def __exit__(self, *_):
        pass

    def after(self):
        """What a crash left behind is done with."""

    def held_ms(self):
        """How long the handler itself says that it kept each process of which it has evidence."""
        return []


class Close(NoCore):
    name = "close"

    def __enter__(self):
        set_pattern("|" + os.path.abspath(CLOSE))
        return self


class Trawl(NoCore):
    name = "trawl"

    def __enter__(self):
        self.state = tempfile.mkdtemp(prefix="trawl-crash-")
        # Only what nobody but root can change may become the kernel's program.
        self.folder = tempfile.mkdtemp(prefix="trawl-crash-", dir="/run")
        self.program = shutil.copy(AGENT, self.folder)
        self.run("install")
        return self

    def settings(self):
        return ["--state-dir", self.state, "--crash-file", self.folder + "/crash.conf", "--crash-socket", self.folder + "/sock"]

    def run(self, *verb):
        subprocess.run([self.program, "crash-handler", *verb, *self.settings()], check=True, stdout=subprocess.DEVNULL)

    def after(self):
        """Until the handler has ended, so that one crash does not slow down the next."""
        deadline = time.monotonic() + 60
        while handlers(self.state) and time.monotonic() < deadline:
            time.sleep(0.02)

    def held_ms(self):
        held = []
        for path in glob.glob(os.path.join(self.state, "crash", "*.json")):
            with open(path) as f:
                held.append(json.load(f)["held_us"] / 1e3)
        return held

    def __exit__(self, *_):
        self.run("remove")
        shutil.rmtree(self.state)
        shutil.rmtree(self.folder)


class Socket(Trawl):
    """The same over the socket of a listener, where the kernel has it."""

    name = "socket"

    def run(self, verb):
        if verb == "install":
            self.listener = subprocess.Popen([self.program, "crash-listen", *self.settings()], stderr=subprocess.DEVNULL)
            while not os.path.exists(self.folder + "/sock"):
                time.sleep(0.01)
            super().run("install", "--socket")
        else:
            super().run(verb)
            self.listener.terminate()
            self.listener.wait()


def handlers(state):
    """Crashes that were begun there and are not told yet."""
    folder = os.path.join(state, "crash")
    return [n for n in os.listdir(folder) if n.endswith(".begun")] if os.path.isdir(folder) else []


class File(NoCore):
    name, core_limit, slow = "file", resource.RLIM_INFINITY, True

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="trawl-core-", dir="/var/tmp")
        set_pattern(self.folder + "/core")
        return self

    def after(self):
        for n in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, n))

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


class Systemd(NoCore):
    """systemd-coredump(8), with a stand-in for the socket unit: each connection becomes the descriptor of one program."""

    name, core_limit, slow = "systemd", resource.RLIM_INFINITY, True

    def __enter__(self):
        os.makedirs(os.path.dirname(COREDUMP_SOCKET), exist_ok=True)
        os.makedirs("/var/lib/systemd/coredump", exist_ok=True)
        if os.path.exists(COREDUMP_SOCKET):
            os.unlink(COREDUMP_SOCKET)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(COREDUMP_SOCKET)
        self.listener.listen(8)
        self.server = os.fork()
        if self.server == 0:
            self.serve()
        set_pattern("|%s %%P %%u %%g %%s %%t %%c %%h" % COREDUMPD)
        return self

    def serve(self):
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = self.listener.accept()
            if os.fork() == 0:
                os.dup2(connection.fileno(), 3)
                os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
                os.execv(COREDUMPD, [COREDUMPD])
            connection.close()

    def after(self):
        folder = "/var/lib/systemd/coredump"
        self.stored = [n for n in os.listdir(folder) if "bench_crash" in n]
        for n in self.stored:
            os.unlink(os.path.join(folder, n))

    def __exit__(self, *_):
        os.kill(self.server, signal.SIGKILL)
        os.waitpid(self.server, 0)
        self.listener.close()
        os.unlink(COREDUMP_SOCKET)


def measure(way, mib, threads, words, runs):
    gone, free = [], []
    for _ in range(runs):
        g, f = crash(mib, threads, words, way.core_limit)
        way.after()
        gone.append(g)
        free.append(f)
    return gone, free


def has_socket():
    modes = "/proc/sys/kernel/core_modes"
    return os.path.exists(modes) and "socket" in open(modes).read().split()


def ways_of(chosen):
    found = [NoCore, Close, Trawl] + ([Socket] if has_socket() else []) + [File] + ([Systemd] if os.path.exists(COREDUMPD) else [])
    return [w for w in found if not chosen.only or w.name in chosen.only or w.name == "none"]


def bench(chosen):
    print("%-24s %-8s %10s %10s %10s %10s   %s" % ("victim", "way", "gone ms", "port ms", "least", "most", "to none"))
    for mib in chosen.mib:
        for threads in chosen.threads:
            none = None
            for kind in ways_of(chosen):
                with kind() as way:
                    gone, free = measure(way, mib, threads, chosen.words,
                                         chosen.slow_runs if kind.slow else chosen.runs)
                    held = way.held_ms()
                middle = statistics.median(gone)
                none = none or middle
                kept = "   held %.1f" % statistics.median(held) if held else ""
                print("%-24s %-8s %10.1f %10.1f %10.1f %10.1f   %.2f%s" % (
                    "%d MiB, %d threads" % (mib, threads), way.name, middle, statistics.median(free), min(gone), max(gone),
                    middle / none, kept), flush=True)
    if not os.path.exists(COREDUMPD):
        print("systemd-coredump was not measured: the package systemd-coredump is not installed")


def main():
    chosen = arguments()
    if os.geteuid() != 0:
        sys.exit("only root can set core_pattern")
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = get_pattern()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            bench(chosen)
        finally:
            set_pattern(before)


main()
