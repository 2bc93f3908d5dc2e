# SPDX-License-Identifier: Apache-2.0
"""What is made of a crash against what gdb shows of a conventional core of the same crash, frame by frame and thread by
thread: of C in many ways to die, of servers (redis, nginx, PostgreSQL), of languages (C++, Rust, Go, Python, node). The small
core must show the same as the conventional one, in gdb and in lldb. The system's core pattern is changed while programs die,
under a lock, and put back. BUILD_DIR names the build folder; an argument names the parts to run (default: all)."""
import contextlib
import fcntl
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from framestest import by_gdb, difference, first_difference, plain, show, threads_of
from victimtest import BUILD, TMP, end, possible, report, run, say, start, start_ready, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.join(BUILD, "bench", "bench_crash")
FALL = os.path.join(BUILD, "victims", "fall")
SOURCES = os.path.join(HERE, "..", "victims", "languages")
PATTERN, LIMIT, LOCK = "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/core_pipe_limit", "/run/lock/trawl-core-pattern.lock"
SPECIFIERS = "%P %p %I %i %u %g %d %s %t %c"


@contextlib.contextmanager
def pattern():
    """Programs that die in here leave their evidence in the folder that is given."""
    folder = tempfile.mkdtemp(dir=TMP, prefix="c")
    short = os.path.join(tempfile.mkdtemp(dir="/tmp", prefix="ct"), "t")  # a pattern has at most 127 characters
    with open(short, "w") as f:
        f.write("#!/bin/sh\nexec /usr/bin/python3 %s/crash_tee.py %s %s \"$@\"\n" % (HERE, BENCH, folder))
    os.chmod(short, 0o755)
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(PATTERN) as f:
            before = f.read()
        try:
            with open(PATTERN, "w") as f:
                f.write("|%s %s" % (short, SPECIFIERS))
            yield folder
        finally:
            with open(PATTERN, "w") as f:
                f.write(before)
    shutil.rmtree(os.path.dirname(short))


class Crash:
    def __init__(self, folder, pid):
        self.folder, self.pid = folder, pid
        self.core, self.small = "%s/core-%d" % (folder, pid), self.path("core")
        wait_for(lambda: os.path.exists("%s/over-%d" % (folder, pid)), "the crash of %d" % pid, 60)
        self.out = {}
        self.frames = []
        with open(self.path("out"), errors="replace") as f:
            for line in f:
                word, _, rest = line.rstrip("\n").partition(" ")
                if word == "frame":
                    self.frames.append(rest)
                self.out[word] = rest
        with open(self.path("json"), encoding="utf-8") as f:
            self.json = json.load(f)
        with open(self.path("txt"), encoding="utf-8") as f:
            self.txt = f.read()

    def path(self, ending):
        return "%s/crash-%d.%s" % (self.folder, self.pid, ending)

    def cost(self):
        return "held %s ms, described in %s ms, %s MiB, core %d KiB of %d" % (
            int(self.out["held_us"]) // 1000, int(self.out["describe_us"]) // 1000, int(self.out["rss_kib"]) // 1024,
            os.path.getsize(self.small) >> 10, os.path.getsize(self.core) >> 10)


def die(folder, *command, **more):
    """Starts a program that dies by itself."""
    process = start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    wait_for(lambda: process.poll() is not None, " ".join(command), 60)
    return Crash(folder, process.pid)


def same_threads(here, there, most):
    for tid in sorted(there):
        a = here.get(tid, [])[:most]
        b = there[tid][:most]
        if [(f["pc"], plain(f["name"])) for f in a] != [(f["pc"], plain(f["name"])) for f in b]:
            return "thread %d: %s in the small core, %s in the conventional one" % (tid, show(a), show(b))
    return "" if sorted(here) == sorted(there) else "other threads"


def failing(crash):
    return crash.json["tid"]


def check(name, crash, program, signal_name, may_explain=False, most=200):
    """Equal to gdb of the conventional core: all threads of the evidence, and of the small core."""
    theirs = by_gdb(program, crash.core)
    problem, explanations = difference(crash.json, {t: f for t, f in theirs.items()}, may_explain)
    if problem and most < 200:
        ours = threads_of(crash.json)[0]
        number = first_difference(ours[failing(crash)][:most], theirs[failing(crash)][:most])
        problem = "" if number is None else "frame %d: %s here, %s in gdb" % (
            number, show(ours[failing(crash)])[:most], show(theirs[failing(crash)])[:most])
    words = " (but: %s)" % ", ".join(sorted(explanations)) if explanations and not problem else ""
    report("%s: %d threads, %d frames as gdb has them of a conventional core%s" %
           (name, len(theirs), sum(len(f) for f in theirs.values()), words), problem[:1500])
    problem = same_threads(by_gdb(program, crash.small), theirs, most)
    report(name + ": gdb shows the same of the small core", problem[:1500])
    if crash.json["type"] != signal_name or crash.out["type"] != signal_name:
        report(name + ": the signal", "%s, not %s" % (crash.json["type"], signal_name))
    told = [f.split(" ")[0].rstrip("!").rpartition("+") for f in crash.frames]
    native = [f for f in threads_of(crash.json)[0][failing(crash)]][:24]
    told = [(m, int(o, 16)) for (m, _, o), f in zip(told, crash.frames) if "+0x" in f.split(" ")[0]]
    wanted = [(f.get("module", ""), int(f["offset"], 16) if "offset" in f else 0) for f in native]
    if not any(f["kind"] == "python" for g in crash.json["groups"] for f in g["frames"]):
        report(name + ": the exception tells the same frames", "" if told == wanted[:len(told)] and len(told) == len(wanted) else
               "%s, not %s" % (told, wanted))
    say(crash.cost())
    return theirs




# ---- C ----

WAYS = {
    "segv": ("SIGSEGV", "by_segv"), "abort": ("SIGABRT", "by_abort"), "overflow": ("SIGSEGV", "by_overflow"),
    "overflow_handled": ("SIGSEGV", "by_overflow"), "call": ("SIGSEGV", "by_call"), "wild_call": ("SIGSEGV", "by_wild_call"),
    "divide": ("SIGFPE", "by_divide"), "bus": ("SIGBUS", "by_bus"), "text": ("SIGSEGV", "by_text"),
    "assertion": ("SIGABRT", "by_assertion"), "free": ("SIGABRT", "by_free"), "inlined": ("SIGSEGV", "put_inside"),
}


def c():
    with pattern() as folder:
        crashes = {way: die(folder, FALL, way, "3") for way in WAYS}
        crashes["bad_stack"] = die(folder, FALL, "bad_stack", "3")
    for way, (signal_name, function) in WAYS.items():
        crash = crashes[way]
        check("C, " + way, crash, FALL, signal_name, most=20 if "overflow" in way else 200)
        if not any((" %s " % function) in f for f in crash.frames):
            report("C, %s: the frame of the crash" % way, "no %s in %s" % (function, crash.frames))
    bad = crashes["bad_stack"]
    report("C, bad stack: the place, and why there is no more", "" if any("by_bad_stack" in f for f in bad.frames[:1]) and
           bad.json["missing"] else "%s; missing: %s" % (bad.frames, bad.json["missing"]))
    for way, wanted in (("segv", "in no mapping: a null pointer"), ("overflow", "it has overflowed"), ("text", "r-xp"),
                        ("assertion", "inventory >= 0"), ("free", "invalid pointer"), ("overflow_handled", "signal handler")):
        report("C, %s: the page says '%s'" % (way, wanted), "" if wanted in crashes[way].txt else crashes[way].txt[:1500])
    handled = crashes["overflow_handled"]
    report("C, overflow: the fault that the handler was called for", "" if handled.json.get("handled_code_name") in
           ("SEGV_MAPERR", "SEGV_ACCERR") and "it has overflowed" in handled.txt else handled.txt[:1200])
    report("C, overflow: the handler's frame is one", "" if any("<signal handler called>" in f for f in
           crashes["overflow_handled"].frames) else crashes["overflow_handled"].frames)
    control(crashes["segv"])
    lldb(crashes["segv"])


def control(crash):
    """A core with another program counter must be found unequal."""
    theirs = by_gdb(FALL, crash.core)
    wrong = os.path.join(TMP, "wrong.core")
    with open(crash.small, "rb") as f:
        data = bytearray(f.read())
    pc = theirs[failing(crash)][0]["pc"]
    at = data.find(pc.to_bytes(8, "little"))
    data[at:at + 8] = (pc + 64).to_bytes(8, "little")
    with open(wrong, "wb") as f:
        f.write(data)
    report("control: a wrong core is found unequal", "" if same_threads(by_gdb(FALL, wrong), theirs, 200) else "it is not")
    crash.json["groups"][0]["frames"][0]["address"] = "0x1"
    report("control: wrong evidence is found unequal", "" if difference(crash.json, theirs, False)[0] else "it is not")


def lldb(crash):
    tool = shutil.which("lldb") or shutil.which("lldb-14")
    if not tool:
        report("lldb", "not here (deploy/deps.sh)", skip=True)
        return
    stacks = []
    for core in (crash.core, crash.small):
        out = subprocess.run([tool, "--batch", "-o", "bt all", "-c", core, FALL], capture_output=True, text=True,
                             env=dict(os.environ, DEBUGINFOD_URLS="")).stdout
        stacks.append(re.findall(r"frame #\d+: (0x[0-9a-f]+)", out))
    report("lldb shows the same of both cores: %d frames" % len(stacks[0]),
           "" if stacks[0] and stacks[0] == stacks[1] else "%s, %s" % tuple(stacks))


def many():
    with pattern() as folder:
        crash = die(folder, FALL, "segv", "200")
    check("200 threads", crash, FALL, "SIGSEGV")


def stripped():
    """Without symbols, and without a loader: places must be right where names cannot be."""
    source = os.path.join(HERE, "..", "victims", "fall.c")
    ways = {"stripped": ["-s"], "static": ["-static"], "static, stripped": ["-static", "-s"], "fixed": ["-no-pie"]}
    for name, options in ways.items():
        path = os.path.join(TMP, "fall-" + name.replace(", ", "-"))
        made = subprocess.run(["gcc", "-O2", "-pthread", "-D_GNU_SOURCE", *options, "-o", path, source], capture_output=True, text=True)
        if made.returncode:
            report("C, " + name, "does not compile: " + made.stderr[-300:])
            continue
        with pattern() as folder:
            crash = die(folder, path, "segv", "2")
            handled = die(folder, path, "overflow_handled")
        check("C, %s" % name, crash, path, "SIGSEGV")
        check("C, %s, in a handler" % name, handled, path, "SIGSEGV", most=20)


# ---- servers ----

def redis():
    program = shutil.which("redis-server")
    if not program:
        report("redis", "not here (deploy/deps.sh)", skip=True)
        return
    path = os.path.join(TMP, "redis.sock")
    server = start(program, "--port", "0", "--enable-debug-command", "yes", "--unixsocket", path, "--save", "", "--dir", TMP, stdout=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(path), "redis")
    with pattern() as folder:
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.sendall(b"DEBUG SEGFAULT\r\n")
        wait_for(lambda: server.poll() is not None, "the end of redis", 60)
        crash = Crash(folder, server.pid)
    check("redis, DEBUG SEGFAULT", crash, os.path.realpath(program), "SIGSEGV")
    names = [f.split(" ")[1] for f in crash.frames]
    report("redis: the fault that its handler was called for", "" if crash.json.get("handled_code_name") and
           crash.json.get("fault_address") and "raised again" in crash.out["message"] else crash.txt[:1200])
    report("redis: the true place below the handler", "" if any("signal" in f for f in crash.frames) and
           "debugCommand" in " ".join(names) else crash.frames)


def nginx():
    if not shutil.which("nginx"):
        report("nginx", "not here (deploy/deps.sh)", skip=True)
        return
    conf = os.path.join(TMP, "nginx.conf")
    with open(conf, "w") as f:
        f.write("daemon off; worker_processes 1; pid %s/nginx.pid; error_log %s/nginx.log;\n"
                "events { worker_connections 64; }\n"
                "http { access_log off; server { listen unix:%s/nginx.sock; location / { return 200; } } }\n" % (TMP, TMP, TMP))
    os.chmod(TMP, 0o755)
    master = start("nginx", "-c", conf, "-p", TMP, start_new_session=True)
    children = "/proc/%d/task/%d/children" % (master.pid, master.pid)
    wait_for(lambda: os.path.exists(TMP + "/nginx.sock") and open(children).read().split(), "nginx")
    worker = int(open(children).read().split()[0])
    wait_for(lambda: "S (sleeping)" in open("/proc/%d/status" % worker).read(), "nginx's worker to wait")
    with pattern() as folder:
        os.kill(worker, signal.SIGSEGV)
        wait_for(lambda: glob.glob(folder + "/over-*") or not os.path.exists("/proc/%d" % worker), "nginx's worker", 60)
        try:
            crash = Crash(folder, worker) if wait_for(lambda: os.path.exists("%s/over-%d" % (folder, worker)), "", 10) else None
        except TimeoutError:
            crash = None
    end(master)
    if not crash:
        report("nginx, a worker", "the kernel starts no handler for it here", skip=True)
        return
    check("nginx, a worker killed", crash, os.path.realpath(shutil.which("nginx")), "SIGSEGV")


def find_backend(postmaster):
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                parent = int(f.read().rsplit(") ", 1)[1].split()[1])
            with open(os.path.dirname(path) + "/cmdline", "rb") as f:
                if parent == postmaster and b"SELECT" in f.read():
                    return int(path.split("/")[2])
        except (OSError, ValueError, IndexError):
            continue
    return 0


def postgresql():
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not folders:
        report("PostgreSQL", "not here (deploy/deps.sh)", skip=True)
        return
    tools, data = folders[-1], os.path.join(TMP, "pg")
    as_user = {"user": "postgres", "group": "postgres", "cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    os.chmod(TMP, 0o755)
    os.mkdir(data)
    shutil.chown(data, "postgres", "postgres")
    subprocess.run([tools + "/initdb", "-D", data, "-A", "trust", "--no-sync"], check=True, **as_user)
    server = start(tools + "/postgres", "-D", data, "-k", data, "-c", "listen_addresses=", "-c", "fsync=off",
                   start_new_session=True, **as_user)
    wait_for(lambda: subprocess.run([tools + "/psql", "-h", data, "-d", "postgres", "-c", "SELECT 1"], **as_user).returncode == 0,
             "PostgreSQL to answer")
    client = start(tools + "/psql", "-h", data, "-d", "postgres", "-c", "SELECT pg_sleep(3600)", **as_user)
    backend = wait_for(lambda: find_backend(server.pid), "a backend")
    with pattern() as folder:
        os.kill(backend, signal.SIGABRT)
        crash = Crash(folder, backend)
    check("PostgreSQL, a backend killed", crash, tools + "/postgres", "SIGABRT")
    report("PostgreSQL: the query is seen", "" if "pg_sleep" in " ".join(crash.frames) else crash.frames)
    end(client)
    end(server)


# ---- languages ----

def build(name, text, *command):
    if not shutil.which(command[0]):
        report(name, "no %s here (deploy/deps.sh)" % command[0], skip=True)
        return None
    source, path = os.path.join(TMP, name + command[-1]), os.path.join(TMP, name)
    with open(source, "w") as f:
        f.write(text)
    run_it = subprocess.run([*command[:-1], "-o", path, source], capture_output=True, text=True, cwd=TMP,
                            env=dict(os.environ, GOCACHE=os.path.join(TMP, "go"), HOME=os.environ.get("HOME", TMP)))
    if run_it.returncode:
        report(name, "does not compile: " + run_it.stderr.strip()[-500:])
        return None
    return path


def cplusplus():
    path = build("cplusplus", "#include <stdexcept>\nstruct Book { void sell() { throw std::runtime_error(\"no stock\"); } };\n"
                 "__attribute__((noinline)) void order(Book &b) { b.sell(); }\nint main() { Book b; order(b); }\n",
                 "g++", "-O2", "-g", ".cc")
    if not path:
        return
    with pattern() as folder:
        crash = die(folder, path)
    check("C++ terminate", crash, path, "SIGABRT")
    report("C++: who threw it", "" if "order" in " ".join(crash.frames) else crash.frames)


def rust():
    path = build("rust", "#[inline(never)]\nfn order(n: &[u32], i: usize) -> u32 { n[i] }\n"
                 "fn main() { let n = vec![1, 2]; println!(\"{}\", order(&n, std::env::args().count() + 5)); }\n",
                 "rustc", "-O", "-g", "-C", "panic=abort", ".rs")
    if not path:
        return
    with pattern() as folder:
        crash = die(folder, path)
    check("Rust panic=abort", crash, path, "SIGABRT", may_explain=True)
    report("Rust: who panicked", "" if "order" in " ".join(crash.frames) else crash.frames)


def golang():
    path = build("golang", "package main\n\n//go:noinline\nfunc order(n []int, i int) int { return n[i] }\n\n"
                 "func main() { println(order([]int{1}, 7)) }\n", "go", "build", ".go")
    if not path:
        return
    with pattern() as folder:
        crash = die(folder, path, env=dict(os.environ, GOTRACEBACK="crash"))
    check("Go, GOTRACEBACK=crash", crash, path, "SIGABRT", may_explain=True)


def python():
    program = os.path.realpath("/usr/bin/python3")
    text = "import ctypes, os, sys\n\ndef inner():\n    %s\n\ndef outer():\n    inner()\n\nouter()\n"
    with pattern() as folder:
        crashes = {}
        for name, line in (("os.abort()", "os.abort()"), ("ctypes", "ctypes.string_at(8)")):
            script = os.path.join(TMP, "python-%s.py" % name[:2])
            with open(script, "w") as f:
                f.write(text % line)
            crashes[name] = die(folder, program, script)
    for name, crash in crashes.items():
        check("Python, " + name, crash, program, "SIGABRT" if "abort" in name else "SIGSEGV")
        stack = [f for g in crash.json["groups"] for f in g["frames"] if f["kind"] == "python"]
        names = [f["function"] for f in stack]
        report("Python, %s: its own functions" % name, "" if names[-3:] == ["inner", "outer", "<module>"] else
               "%s; missing: %s" % (names, crash.json["missing"]))


def node():
    program = shutil.which("node")
    if not program:
        report("node", "not here (deploy/deps.sh)", skip=True)
        return
    with pattern() as folder:
        crash = die(folder, program, "-e", "function inner() { process.abort(); }\nfunction outer() { inner(); }\nouter();")
    check("node, process.abort()", crash, os.path.realpath(program), "SIGABRT", may_explain=True)


def java():
    if not shutil.which("java") or not shutil.which("javac"):
        report("Java", "no JDK here", skip=True)
        return
    subprocess.run(["javac", "-d", TMP, os.path.join(SOURCES, "Frames.java")], check=True)
    process = start_ready("java", "-Xshare:auto", "-Xmx64m", "-XX:ErrorFile=/dev/null", "-cp", TMP, "Frames", cwd=TMP)
    with pattern() as folder:
        os.kill(process.pid, signal.SIGSEGV)  # its own handler writes a report, and aborts
        wait_for(lambda: process.poll() is not None, "the end of java", 60)
        crash = Crash(folder, process.pid)
    program = os.path.realpath(shutil.which("java"))
    theirs = by_gdb(program, crash.core)
    problem, explanations = difference(crash.json, theirs, True)
    report("Java, SIGSEGV: %d threads, frames as gdb has them of a conventional core (but: %s)" %
           (len(theirs), ", ".join(sorted(explanations))), problem[:1500])
    report("Java: its own handler's end", "" if crash.json["type"] == "SIGABRT" and "abort" in " ".join(crash.frames) else crash.frames)
    say(crash.cost())


def main():
    if not possible("frames of crashes", BENCH, "gdb"):
        return run([])
    return run([c, many, stripped, redis, nginx, postgresql, cplusplus, rust, golang, python, node, java])


if __name__ == "__main__":
    sys.exit(main())
