#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real programs fail in front of a real agent, and `trawl exceptions --follow` tells: redis, nginx, PostgreSQL, C++, Rust,
Python, node, Java, a process killed for memory, one restarted by a shell loop. Each is one group, with the signal, thread
and frames that gdb finds in a conventional core of the same crash; an incident opened by itself holds the evidence."""
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from exceptiontest import VICTIMS, CorePattern, Follower, Handler, Program, Saver, children, gdb_core, own_copy, own_name, read, write
from framestest import bare, demangle, difference, plain
from trawltest import TMP, Agent, Collector, Skip, case, check, check_equal, free_ports, main, pb, start, wait_for

DEADLINE = 30  # generous; what it took is printed
MEMORY = "/sys/fs/cgroup/memory"
c = Collector("--evidence-host-hour", "200", "--incidents-hour", "200")
sre = c.person("sre")
pattern = saver = handler = follower = None
programs, expected = {}, {}


class Expected:
    """One failure: which process, and what was told of it."""

    def __init__(self, name, match, at):
        self.name, self.match, self.at = name, match, at

    def told(self):
        """The first line that is told of it; prints how long it took."""
        e = follower.first(self.match, self.name + " is told", DEADLINE)
        expected[self.name] = self
        self.e = e
        print("      %s: %.2f s from the failure to the line of 'trawl exceptions --follow'; %s" %
              (self.name, e["came"] - self.at, e["group"]))
        return e


def of_process(pid):
    return lambda e: e["pid"] == pid


def missing(tool):
    if not shutil.which(tool):
        raise Skip("no %s here (deploy/deps.sh)" % tool)


def compiled(name, *command):
    missing(command[0])
    path = os.path.join(TMP, name)
    subprocess.run([*command, "-o", path], check=True, cwd=TMP)
    return path


def crash_of(name, pid, at):
    """A crash told of this process, compared with the core that the handler of before got."""
    e = Expected(name, lambda e: e["pid"] == pid and e["source"] == "crash", at).told()
    e["core"] = saver.core(pid)
    return e


def frames_are_those_of_gdb(e, program):
    """Names and order of the failing thread's frames, as far as they travel with the exception."""
    stacks, failed = gdb_core(program, e["core"])
    check_equal(e["tid"], failed, "the thread that failed")
    theirs = [f for f in stacks[failed] if not f["inlined"]]
    ours = [f for f in e["frames"]]
    clean = demangle(sorted({f["function"] for f in ours if f["function"]}))
    for number, (a, b) in enumerate(zip(ours, theirs)):
        name = a["function"]
        if b["name"] == "None" or name is None or name.startswith("<signal"):
            continue
        check(plain(name) == plain(b["name"]) or bare(clean.get(name, name)) == bare(b["name"]),
              "frame %d: %s here, %s in gdb" % (number, name, b["name"]))
    named = [f for f in ours if f["function"]]
    check(len(ours) >= min(len(theirs), 3), "%d frames here, %d in gdb" % (len(ours), len(theirs)))
    return len(named), len(theirs)


def says(e, **wanted):
    for key, value in wanted.items():
        check_equal(e[key], value, key)


# ---- the stage ----

@case
def an_agent_with_a_crash_handler_behind_one_that_was_there():
    global pattern, saver, handler, follower
    if os.geteuid():
        raise Skip("needs root")
    pattern, saver = CorePattern(), Saver()
    write("/proc/sys/kernel/core_pattern", saver.pattern)
    names = ["exc-redis", "exc-nginx", "exc-cplusplus", "exc-rust", "exc-python", "exc-node", "exc-java", "exc-worker", "exc-hog"]
    agent = Agent(c, "web-1", "--follow", ",".join(names), role="web")
    agent.wait_online()
    handler = Handler(agent)
    check(read("/proc/sys/kernel/core_pattern") != saver.pattern, "the handler is not in the core pattern")
    follower = Follower(sre)


def begin(name, *arguments, **more):
    programs[name] = Program(name, *arguments, **more)
    return programs[name]


@case
def programs_run_and_their_logs_are_followed():
    if shutil.which("g++"):
        begin("exc-cplusplus", compiled("exc-cplusplus", "g++", "-O2", "-g", VICTIMS + "/failing.cc"))
    if shutil.which("rustc"):
        begin("exc-rust", compiled("exc-rust", "rustc", "-g", "-O", VICTIMS + "/failing.rs"))
    begin("exc-python", own_name("exc-python", "/usr/bin/python3"), VICTIMS + "/failing.py")
    if shutil.which("node"):
        begin("exc-node", own_name("exc-node", shutil.which("node")), VICTIMS + "/failing.js")
    if shutil.which("java"):  # it runs a source file by itself
        begin("exc-java", own_name("exc-java", shutil.which("java")), "-Xmx128m", VICTIMS + "/Failing.java")
    waiting = dict(programs)

    def warm():
        for p in list(waiting.values()):
            if follower.of(lambda e: e["pid"] == p.pid or e["process"] == p.name):
                del waiting[p.name]
            else:
                p.say("warm")
        time.sleep(0.3)
        return not waiting
    wait_for(warm, "an error trace of each log is told: %s" % list(waiting), DEADLINE)


# ---- crashes ----

@case
def redis_debug_segfault():
    missing("redis-server")
    port = free_ports(1)[0]
    path = own_copy("exc-redis", shutil.which("redis-server"))
    p = begin("exc-redis", path, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", TMP,
              "--enable-debug-command", "yes")
    wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "redis serves")
    with socket.create_connection(("127.0.0.1", port)) as s:
        at = time.monotonic()
        s.sendall(b"DEBUG SEGFAULT\r\n")
        e = crash_of("redis DEBUG SEGFAULT", p.pid, at)
    says(e, type="SIGSEGV", signal=11, process="exc-redis", tid=p.pid, executable=path)
    frames_are_those_of_gdb(e, path)


@case
def an_nginx_worker_killed():
    missing("nginx")
    path = own_copy("exc-nginx", shutil.which("nginx"))
    conf = os.path.join(TMP, "nginx.conf")
    write(conf, "daemon off; worker_processes 1; pid %s/nginx.pid; error_log %s/nginx.log;\n"
          "events { worker_connections 64; }\n"
          "http { access_log off; server { listen unix:%s/nginx.sock; location / { return 200; } } }\n" % (TMP, TMP, TMP))
    p = begin("exc-nginx", path, "-c", conf, "-p", TMP)
    worker = wait_for(lambda: children(p.pid), "a worker")[0]
    wait_for(lambda: "epoll" in read("/proc/%d/wchan" % worker) or os.path.exists(TMP + "/nginx.sock"), "the worker waits")
    at = time.monotonic()
    os.kill(worker, signal.SIGSEGV)
    wait_for(lambda: children(p.pid) and children(p.pid)[0] != worker, "the master starts another worker")
    print("      another worker %.3f s after the crash" % (time.monotonic() - at))
    e = crash_of("an nginx worker killed by SIGSEGV", worker, at)
    says(e, type="SIGSEGV", signal=11, process="exc-nginx", tid=worker)
    frames_are_those_of_gdb(e, path)


def backend_of(postmaster):
    for pid in children(postmaster):
        try:
            if "SELECT" in read("/proc/%d/cmdline" % pid):
                return pid
        except OSError:
            pass
    return 0


@case
def a_postgresql_backend_aborts():
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not folders:
        raise Skip("no PostgreSQL here (deploy/deps.sh)")
    tools, data = folders[-1], os.path.join(TMP, "pg")
    as_user = {"user": "postgres", "group": "postgres", "cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    os.mkdir(data)
    shutil.chown(data, "postgres", "postgres")
    subprocess.run([tools + "/initdb", "-D", data, "-A", "trust", "--no-sync", "--no-instructions"], check=True, **as_user)
    server = subprocess.Popen([tools + "/postgres", "-D", data, "-k", data, "-c", "listen_addresses=", "-c", "fsync=off",
                               "-c", "shared_buffers=8MB"], **as_user)
    programs["postgres"] = server

    def answers():
        return subprocess.run([tools + "/psql", "-h", data, "-d", "postgres", "-c", "SELECT 1"], **as_user).returncode == 0
    try:
        wait_for(answers, "PostgreSQL answers")
        client = subprocess.Popen([tools + "/psql", "-h", data, "-d", "postgres", "-c", "SELECT pg_sleep(3600)"], **as_user)
        pid = wait_for(lambda: backend_of(server.pid), "a backend")
        at = time.monotonic()
        os.kill(pid, signal.SIGABRT)
        e = crash_of("a PostgreSQL backend aborts", pid, at)
        client.wait(20)
        wait_for(answers, "PostgreSQL answers again")
        says(e, type="SIGABRT", signal=6, tid=pid)
        frames_are_those_of_gdb(e, tools + "/postgres")
    finally:
        server.terminate()
        server.wait(20)


@case
def a_cplusplus_terminate():
    p = programs.get("exc-cplusplus") or missing("g++")
    at = time.monotonic()
    p.say("fail")
    check_equal(p.process.wait(20), -6, "it ended by")
    e = crash_of("a C++ terminate", p.pid, at)
    says(e, type="SIGABRT", signal=6, tid=p.pid)
    frames_are_those_of_gdb(e, os.path.join(TMP, "exc-cplusplus"))
    # Told at once when the crash is known first; the words of the log join it when they are read before it.
    print("      with its last words: %s" % ("no such account" in e["message"]))


# ---- error traces ----

def trace_of(name, what, type_part, at, *functions):
    p = programs.get(name)
    if not p:
        raise Skip("%s is not here (deploy/deps.sh)" % name)
    e = Expected(what, lambda e: (e["pid"] == p.pid or e["process"] == p.name) and type_part in e["type"] and
                 "warm" not in e["message"], at).told()
    found = [f["function"] or "" for f in e["frames"]]
    rest = iter(found)
    check(all(any(wanted in name for name in rest) for wanted in functions), "%s not in %s" % (list(functions), found))
    return e


def fails(name):
    if name in programs:
        programs[name].say("fail")
    return time.monotonic()


@case
def a_rust_panic():
    e = trace_of("exc-rust", "a Rust panic", "panic", fails("exc-rust"))
    check_equal(programs["exc-rust"].process.wait(20), 101, "exit code")
    check("no such account: 4711" in e["message"], e["message"])


@case
def a_python_exception():
    e = trace_of("exc-python", "a Python exception", "AccountError", fails("exc-python"), "find")
    says(e, message="no such account: 4711", language="python")
    check_equal(e["tags"].get("cause"), "KeyError", "its cause")


@case
def a_node_exception():
    e = trace_of("exc-node", "a node exception", "AccountError", fails("exc-node"), "find", "checkOut")
    says(e, message="no such account: 4711")


@case
def a_java_exception():
    e = trace_of("exc-java", "a Java exception", "AccountException", fails("exc-java"), "checkOut", "main")
    says(e, message="no such account: 4711", language="java")


# ---- killed, and restarted ----

@case
def a_process_killed_for_memory():
    if not os.path.isdir(MEMORY):
        raise Skip("no memory cgroup (v1) here")
    group = "%s/trawl-exceptions-%d" % (MEMORY, os.getpid())
    os.mkdir(group)
    try:
        write(group + "/memory.limit_in_bytes", str(48 << 20))
        hog = own_name("exc-hog", "/usr/bin/python3")
        p = begin("exc-hog", hog, "-c", "import sys\nsys.stdin.readline()\nkept = [bytearray(1 << 20) for _ in range(1 << 10)]\n")
        write(group + "/cgroup.procs", str(p.pid))
        at = time.monotonic()
        p.say("go")
        check_equal(p.process.wait(20), -9, "it ended by")
        e = Expected("a process killed for memory", of_process(p.pid), at).told()
        says(e, source="oom_kill", process="exc-hog")
    finally:
        wait_for(lambda: not read(group + "/cgroup.procs"), "the group is empty")
        os.rmdir(group)


@case
def a_worker_restarted_by_a_shell_loop():
    worker = os.path.join(TMP, "exc-worker")
    write(worker, "#!/bin/sh\nread word && [ \"$word\" != fail ] && exit 0\nexit 3\n")
    os.chmod(worker, 0o755)
    p = begin("exc-loop", "/bin/sh", "-c", "while :; do %s || echo again; done" % worker)
    first = wait_for(lambda: children(p.pid), "a worker")[0]
    wait_for(lambda: read("/proc/%d/comm" % first).strip() == "exc-worker", "the worker runs")
    events = lambda: [e for e in sre.trawl_json("events", "--last", "1m") if e["pid"] == first]
    wait_for(events, "the agent has seen the worker")
    at = time.monotonic()
    p.say("fail")
    second = wait_for(lambda: [x for x in children(p.pid) if x != first], "another worker")[0]
    e = Expected("a worker restarted by a shell loop", of_process(first), at).told()
    says(e, source="process_exit", process="exc-worker")
    says(e, type="exit 3")
    chained = "(%d) restarted as %d after" % (first, second)
    wait_for(lambda: [x for x in sre.trawl_json("events", "--last", "1m") if chained in x["text"]], chained)


# ---- groups, evidence ----

@case
def each_is_one_group_told_once():
    check(expected, "nothing was told")
    time.sleep(3)  # what would be told twice is held back for 1.5 s at most
    groups = {}
    for x in expected.values():
        told = follower.of(x.match)
        told = [e for e in told if "warm" not in e["message"]]
        check_equal(len(told), 1, "%s was told as %s" % (x.name, [(e["source"], e["type"], e["message"]) for e in told]))
        check_equal(told[0]["count"], 1, x.name)
        check(told[0]["group"], x.name + " has no group")
        groups.setdefault(told[0]["group"], []).append(x.name)
    check_equal([names for names in groups.values() if len(names) > 1], [], "different failures in one group")
    listed = {g["id"]: g for g in sre.trawl_json("groups", "--last", "1h")}
    for group, names in groups.items():
        check_equal(listed[group]["count"], 1, names[0])
        check_equal(listed[group]["state"], "new", names[0])


def incident_of(x):
    group = [p for p in sre.trawl_json("group", x.e["group"]) if p["part"] == "group"][0]
    return group["incidents"][-1] if group["incidents"] else None


@case
def an_incident_opened_by_itself_has_the_evidence_of_each_crash():
    crashes = [x for x in expected.values() if x.e["source"] == "crash"]
    check(crashes, "no crash was told")
    for x in crashes:
        incident = wait_for(lambda: incident_of(x), "an incident of " + x.name)
        kinds = lambda: {a.kind for a in sre.artifacts(incident) if a.sealed}
        wait_for(lambda: "crash" in kinds(), "evidence of %s, has %s" % (x.name, kinds()), DEADLINE)
        out = os.path.join(TMP, "fetched")
        done = sre.trawl("fetch", incident, "-o", out)
        check(done.returncode in (0, 3), done.stdout + done.stderr)
        files = {os.path.basename(f): f for f in glob.glob(out + "/" + incident + "/web-1/*")}
        x.files = {end: [f for n, f in files.items() if "crash" in n and n.endswith(end)] for end in (".txt", ".json", ".core")}
        for end, found in x.files.items():
            check_equal(len(found), 1, "%s: crash%s among %s" % (x.name, end, sorted(files)))
        shown = sre.trawl("show", incident).stdout
        check(x.e["group"] in shown, "trawl show does not name the group: " + shown[:500])


@case
def the_evidence_has_the_frames_of_a_conventional_core():
    fetched = [x for x in expected.values() if getattr(x, "files", None)]
    check(fetched, "there is no evidence to compare")
    for x in fetched:
        program = x.e["executable"]
        with open(x.files[".json"][0]) as f:
            evidence = json.load(f)
        theirs, _ = gdb_core(program, x.e["core"])
        problem, _ = difference(evidence, theirs, True)
        check(not problem, "%s: %s" % (x.name, problem))
        from_ours, _ = gdb_core(program, x.files[".core"][0])
        check_equal([f["pc"] for f in from_ours[x.e["tid"]]], [f["pc"] for f in theirs[x.e["tid"]]],
                    x.name + ": frames that gdb finds in our core")
        frames = sum(len(s) for s in theirs.values())
        print("      %s: %d threads, %d frames as gdb has them of the conventional core" % (x.name, len(theirs), frames))


@case
def the_minute_before_and_after_is_there_a_minute_later():
    x = min((x for x in expected.values() if x.e["source"] == "crash"), key=lambda x: x.at)
    incident = incident_of(x)
    kinds = lambda: {a.kind: a for a in sre.artifacts(incident) if a.sealed}
    wait_for(lambda: {"counters", "events"} <= set(kinds()), "counters and events of the minutes around, have %s" % list(kinds()), 90)
    out = os.path.join(TMP, "around")
    sre.trawl("fetch", incident, "-o", out, "--kind", "counters,events")
    at = x.e["time"][:19]
    files = glob.glob(out + "/" + incident + "/web-1/counters*.csv")
    check(files, "no counters were fetched")
    moments = sorted(set(re.findall(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", read(files[0]))))
    check(moments and moments[0].replace(" ", "T") < at < moments[-1].replace(" ", "T"),
          "the counters go from %s to %s, the crash was at %s" % (moments[:1], moments[-1:], at))


@case
def following_ends_with_ctrl_c_and_the_core_pattern_is_as_it_was():
    check_equal(follower.interrupt(), 0, "exit code after Ctrl-C")
    handler.remove()
    check_equal(read("/proc/sys/kernel/core_pattern").strip(), saver.pattern, "core pattern after removal")
    pattern.put_back()


main()
