# SPDX-License-Identifier: Apache-2.0
"""What the scenarios of exceptions share besides trawltest: the kernel's core pattern under a lock, put back in every case;
a handler that was there before and saves every core; exceptions as `trawl exceptions --follow` tells them, with the time at
which they came; a conventional core as gdb reads it."""
import atexit
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time

from framestest import IN_GDB
from trawltest import BIN, TMP, check, start, wait_for

CORE_PATTERN = "/proc/sys/kernel/core_pattern"
LOCK = "/run/lock/trawl-core-pattern.lock"  # whoever changes the core pattern in a test holds it
VICTIMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "victims", "failing")


def read(path):
    with open(path, errors="replace") as f:
        return f.read()


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


class CorePattern:
    """The system's core pattern is ours as long as this exists, and as it was afterwards, whatever happens."""

    def __init__(self):
        os.makedirs(os.path.dirname(LOCK), exist_ok=True)
        self.lock = open(LOCK, "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.before = read(CORE_PATTERN)
        atexit.register(self.put_back)

    def put_back(self):
        if self.lock:
            write(CORE_PATTERN, self.before.rstrip("\n") + "\n")
            self.lock.close()
            self.lock = None


class Saver:
    """A handler as a host may have had before: saves every core as core.PID, and writes a line for each."""

    def __init__(self, keep=True):
        self.directory = os.path.join(TMP, "cores")
        os.makedirs(self.directory, exist_ok=True)
        self.list = os.path.join(self.directory, "list")
        self.program = os.path.join(self.directory, "save")
        take = 'cat > %s/core.$1 && mv %s/core.$1 %s/whole.$1' % ((self.directory,) * 3) if keep else 'wc -c > /dev/null'
        write(self.program, '#!/bin/sh\nPATH=/usr/bin:/bin\n%s\necho "$1 $2" >> %s\n' % (take, self.list))
        os.chmod(self.program, 0o755)

    @property
    def pattern(self):
        return "|%s %%P %%s" % self.program

    def pids(self):
        """The processes whose core it got whole."""
        return [int(line.split()[0]) for line in read(self.list).splitlines()] if os.path.exists(self.list) else []

    def core(self, pid):
        """The file with the core of a process, when it is there."""
        path = os.path.join(self.directory, "whole.%d" % pid)
        return wait_for(lambda: os.path.exists(path) and path, "the core of process %d" % pid)


class Handler:
    """trawl-agent as the kernel's crash handler, for the agent with this state directory."""

    def __init__(self, agent):
        # Only what nobody but root can change may become the kernel's program.
        self.directory = tempfile.mkdtemp(prefix="trawl-crash-", dir="/run")
        self.program = shutil.copy(BIN + "/trawl-agent", self.directory)
        self.settings = ["--state-dir", agent.directory + "/state", "--crash-file", self.directory + "/crash.conf"]
        atexit.register(self.remove)
        self.installed = False
        self.run("install")
        self.installed = True

    def run(self, verb):
        done = subprocess.run([self.program, "crash-handler", verb, *self.settings],
                              capture_output=True, text=True)
        check(done.returncode == 0, "crash-handler %s: %s" % (verb, done.stderr))
        return done

    def remove(self):
        if self.installed:
            self.installed = False
            self.run("remove")
        shutil.rmtree(self.directory, ignore_errors=True)


class Follower(threading.Thread):
    """`trawl exceptions --follow -o json`: what it tells, with the monotonic time at which each line came."""

    def __init__(self, person, *arguments):
        super().__init__(daemon=True)
        self.told = []
        self.process = subprocess.Popen([BIN + "/trawl", "--context", person.directory, "exceptions", "--follow",
                                         "-o", "json", *arguments], stdout=subprocess.PIPE, text=True,
                                        stderr=open(os.path.join(TMP, "follower.log"), "a"))
        atexit.register(self.end)
        self.start()

    def run(self):
        for line in self.process.stdout:
            e = json.loads(line)
            e["came"] = time.monotonic()
            self.told.append(e)

    def of(self, match):
        return [e for e in list(self.told) if match(e)]

    def first(self, match, what, seconds=30):
        return wait_for(lambda: (self.of(match) or [None])[0], what, seconds)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def gdb_core(program, core):
    """tid -> frames, as framestest.by_gdb() of a living process; and the thread that gdb stands in."""
    script = os.path.join(TMP, "frames.py")
    write(script, "import gdb\nprint('FAILED', gdb.selected_thread().ptid[1])\n" + IN_GDB)
    out = subprocess.run(["gdb", "-nx", "-batch", "-ex", "set auto-load off", program, core, "-x", script],
                         capture_output=True, text=True, errors="replace", env=dict(os.environ, DEBUGINFOD_URLS="")).stdout
    stacks, failed = {}, 0
    for line in out.splitlines():
        if line.startswith("FAILED "):
            failed = int(line.split()[1])
        if not line.startswith("FRAME "):
            continue
        _, tid, pc, offset, inlined, name = line.split(" ", 5)
        if int(pc) == 0 and int(tid) in stacks:
            continue
        stacks.setdefault(int(tid), []).append(
            {"pc": int(pc), "offset": int(offset), "inlined": inlined == "1", "name": name})
    return stacks, failed


class Program:
    """A program whose name is its own on this machine, with its log in a file, that is told what to do by lines."""

    def __init__(self, name, *arguments, **more):
        self.name = name
        self.log = os.path.join(TMP, name + ".out")
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=open(self.log, "ab"),
                                        stderr=subprocess.STDOUT, text=True, bufsize=1, **more)
        self.pid = self.process.pid
        atexit.register(self.end)

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def own_name(name, program):
    """A program under another name: a link, so that it finds what belongs to it."""
    path = os.path.join(TMP, name)
    os.symlink(os.path.realpath(program), path)
    return path


def own_copy(name, program):
    path = os.path.join(TMP, name)
    shutil.copy(os.path.realpath(program), path)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


def children(pid):
    try:
        return [int(p) for p in read("/proc/%d/task/%d/children" % (pid, pid)).split()]
    except OSError:
        return []
