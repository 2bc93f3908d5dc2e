# SPDX-License-Identifier: Apache-2.0
"""Captured stacks against gdb's, function by function and thread by thread, of an idle redis-server and of a victim with
inlined functions; and what a client of redis-server notices of captures. BUILD_DIR names the build folder.
Ends only what it started, by pid."""
import os
import re
import socket
import subprocess
import sys
import threading
import time

from framestest import plain
from victimtest import BUILD, TMP, Victim, finish, possible, report, run, say, start, wait_for

CAPTURE = os.path.join(BUILD, "bench", "bench_stacks")
CAPTURES_UNDER_LOAD = 20

# Runs inside gdb: one line a frame. Frames that gdb guesses from call sites of tail calls are not on the stack, and are left
# out. "start": how far the place is behind the symbol that gdb finds for it.
IN_GDB = r"""
import gdb, re
gdb.execute("set backtrace past-main on")
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame, exact = gdb.newest_frame(), True
    while frame:
        if frame.type() != gdb.TAILCALL_FRAME:
            pc = frame.pc() - (0 if exact else 1)
            text = gdb.execute("info symbol %d" % pc, to_string=True)
            found = re.match(r"\S+ \+ (\d+) in section", text)
            offset = int(found.group(1)) if found else (0 if " in section" in text else -1)
            if offset >= 0 and not exact:
                offset += 1
            print("FRAME", thread.ptid[1], offset, int(frame.type() == gdb.INLINE_FRAME), frame.name())
        if frame.type() == gdb.NORMAL_FRAME:
            exact = False
        elif frame.type() == gdb.SIGTRAMP_FRAME:
            exact = True
        frame = frame.older()
"""


def by_gdb(pid):
    script = os.path.join(TMP, "frames.py")
    with open(script, "w") as f:
        f.write(IN_GDB)
    out = subprocess.run(["gdb", "-nx", "-batch", "-p", str(pid), "-x", script], capture_output=True, text=True,
                         env=dict(os.environ, DEBUGINFOD_URLS="")).stdout
    stacks = {}
    for line in out.splitlines():
        if line.startswith("FRAME "):
            _, tid, offset, inlined, name = line.split(" ", 4)
            stacks.setdefault(int(tid), []).append((name, int(offset), inlined == "1"))
    return stacks


def by_us(pid):
    run = subprocess.run([CAPTURE, str(pid)], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError("capture: " + run.stderr.strip())
    stacks, tids = {}, []
    for line in run.stdout.split("--- modules ---")[0].splitlines():
        if re.match(r"\d+ threads?: ", line):
            tids = [int(t) for t in re.findall(r" \((\d+)\)", line)]
        frame = re.match(r"#\d+ +(\S+?)(?:\+0x([0-9a-f]+))? .*?\((inlined, )?[^()]*\)$", line)
        if frame:
            for tid in tids:
                stacks.setdefault(tid, []).append((frame.group(1), int(frame.group(2) or "0", 16), bool(frame.group(3))))
    return stacks, run.stdout


def same(ours, theirs):
    """The same name, or the same distance from the beginning of a function: then it is another of its names."""
    if theirs[0] == "None":
        return ours[0] == "??" or ours[1] == theirs[1]
    return plain(ours[0]) == plain(theirs[0]) or (not ours[2] and ours[1] == theirs[1])


def difference(ours, theirs):
    if sorted(ours) != sorted(theirs):
        return "threads %s here, %s in gdb" % (sorted(ours), sorted(theirs))
    for tid in sorted(ours):
        if len(ours[tid]) != len(theirs[tid]):
            return "thread %d: %s here, %s in gdb" % (tid, [f[0] for f in ours[tid]], [f[0] for f in theirs[tid]])
        for number, (a, b) in enumerate(zip(ours[tid], theirs[tid])):
            if not same(a, b):
                return "thread %d, frame %d: %s here, %s in gdb" % (tid, number, a, b)
    return ""


def compare(name, pid):
    """An idle process wakes now and then, so it may take more than one look until both saw it asleep."""
    problem = ""
    for _ in range(10):
        ours, _ = by_us(pid)
        theirs = by_gdb(pid)
        problem = difference(ours, theirs)
        if not problem:
            frames = sum(len(s) for s in ours.values())
            report("%s: %d threads, %d frames as in gdb" % (name, len(ours), frames))
            return
    report(name + ": frames as in gdb", problem)


def start_redis():
    path = os.path.join(TMP, "redis.sock")
    process = start("redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", TMP, "--appendonly", "no",
                    stdout=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(path), "redis-server")
    return process, path


class Client(threading.Thread):
    """Asks redis-server one thing after the other, and keeps the times."""

    def __init__(self, path):
        super().__init__()
        self.path, self.times, self.errors, self.done = path, [], [], False

    def run(self):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(5)
                s.connect(self.path)
                number = 0
                while not self.done:
                    number += 1
                    began = time.monotonic()
                    s.sendall(b"SET k %d\r\nGET k\r\n" % number)
                    wanted = b"+OK\r\n$%d\r\n%d\r\n" % (len(str(number)), number)
                    got = b""
                    while len(got) < len(wanted):
                        piece = s.recv(4096)
                        if not piece:
                            raise ConnectionError("closed")
                        got += piece
                    self.times.append(time.monotonic() - began)
                    if got != wanted:
                        self.errors.append("%r for %r" % (got, wanted))
        except OSError as e:
            self.errors.append(repr(e))

    def end(self):
        self.done = True
        self.join()
        self.times.sort()
        at = lambda part: 1000 * self.times[min(len(self.times) - 1, int(len(self.times) * part))]
        return "%d requests, p50 %.2f p99.9 %.2f longest %.2f ms" % (len(self.times), at(0.5), at(0.999), at(1))


def clients_notice_nothing(pid, path):
    quiet = Client(path)
    quiet.start()
    time.sleep(1)
    say("without captures: " + quiet.end())
    client = Client(path)
    client.start()
    for _ in range(CAPTURES_UNDER_LOAD):
        by_us(pid)
    words = client.end()
    say("with %d captures: %s" % (CAPTURES_UNDER_LOAD, words))
    report("clients of redis-server see no error", "; ".join((quiet.errors + client.errors)[:3]))


def nothing_is_left(pid):
    with open("/proc/%d/status" % pid) as f:
        status = f.read()
    state = re.search(r"State:\s+(\S)", status).group(1)
    tracer = re.search(r"TracerPid:\s+(\d+)", status).group(1)
    report("redis-server runs on, traced by nobody", "" if tracer == "0" and state in "RSD" else "%s %s" % (state, tracer))


def no_network(pid):
    """Debug information is looked for on this host only, whatever the environment says."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.1)
        url = "http://127.0.0.1:%d" % server.getsockname()[1]
        subprocess.run([CAPTURE, str(pid)], stdout=subprocess.DEVNULL, check=True, env=dict(os.environ, DEBUGINFOD_URLS=url))
        try:
            server.accept()
            report("no debuginfod server is asked", "it was")
        except TimeoutError:
            report("no debuginfod server is asked")
        except OSError as e:
            report("no debuginfod server is asked", "" if "timed out" in str(e) else repr(e))


def stacks():
    redis, path = start_redis()
    compare("idle redis-server", redis.pid)
    compare("a victim with inlined functions", Victim("threads", "7").pid)
    clients_notice_nothing(redis.pid, path)
    nothing_is_left(redis.pid)
    no_network(redis.pid)


sys.exit(run([stacks]) if possible("stacks", CAPTURE, "gdb", "redis-server") else finish())
