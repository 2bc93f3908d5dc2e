#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""C++ exceptions as they are thrown, and exceptions that applications report: exact counts, stacks as gdb has them, the
cut-off and what a storm loses by it, nothing left behind by whoever dies, other processes untouched; reports with the
kernel's word on who sent them, floods counted to the last one. Needs BUILD_DIR (bench_take) besides TRAWL_BIN."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from standin import StandIn
from trawltest import BIN, SOURCE, TMP, Agent, Collector, Skip, case, check, check_equal, main, pb, start, wait_for
import trawltest

BUILD = os.environ.get("BUILD_DIR") or sys.exit("BUILD_DIR must name a build folder")
TAKE = os.path.join(BUILD, "bench", "bench_take")
RUNTIME = "std::runtime_error"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


# ---- victims ----

def built(name, *flags):
    path = os.path.join(TMP, name)
    if not shutil.which("g++"):
        raise Skip("needs g++ (deploy/deps.sh)")
    if not os.path.exists(path):
        subprocess.check_call(["g++", "-O2", "-g", "-pthread", *flags, "-o", path,
                               os.path.join(SOURCE, "tests/victims/languages/throws.cc")])
    return path


class Victim:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, bufsize=1)
        trawltest._processes.append(self.process)
        self.pid = self.process.pid
        check_equal(self.process.stdout.readline(), "ready\n")

    def say(self, line):
        self.process.stdin.write(line + "\n")

    def ask(self, line):
        self.say(line)
        return int(self.process.stdout.readline().split()[1])

    def storm(self, ms):
        return self.ask("storm %d" % ms) * 1000.0 / ms

    def end(self):
        self.process.kill()
        self.process.wait()


def probe_address(pid):
    """Where __cxa_throw of the shared library is in this process."""
    with open("/proc/%d/maps" % pid) as f:
        first = next(line for line in f if "libstdc++" in line)
    library = first.split()[-1]
    names = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout
    return int(first.split("-")[0], 16) + int(re.search(r"^(\w+) T __cxa_throw@", names, re.M).group(1), 16)


def is_probed(pid):
    with open("/proc/%d/mem" % pid, "rb") as f:
        f.seek(probe_address(pid))
        return f.read(1) == b"\xcc"  # int3


def wait_counted(pid, what):
    """Until throws are counted: the program that counts is attached right after the breakpoint is there, which is all that can
    be seen from outside."""
    wait_for(lambda: is_probed(pid), what)
    time.sleep(0.3)


def is_armed(pid):
    """Whether it holds a probe: the kernel has finished setting it. Who is killed before, in the middle of the system call,
    leaves it behind (uprobes: "failed to unregister, leaking uprobe")."""
    folder = "/proc/%d/fd/" % pid
    return any("perf_event" in os.readlink(folder + fd) for fd in os.listdir(folder) if os.path.islink(folder + fd))


def begin_take(pid, folder, *options, prefix=()):
    return subprocess.Popen([*prefix, TAKE, "throws", str(pid), "-o", folder, *options], stdout=subprocess.PIPE, text=True)


def end_take(process, folder):
    verdict = json.loads(process.communicate()[0])
    path = folder + "/throws.json"
    return verdict, json.load(open(path)) if os.path.exists(path) else None


def by_type(evidence):
    counts = {}
    for group in evidence["groups"]:
        counts[group["type"]] = counts.get(group["type"], 0) + group["count"]
    return counts


def need_root():
    if os.geteuid() != 0:
        raise Skip("needs root")
    if not os.path.exists("/sys/bus/event_source/devices/uprobe"):
        raise Skip("this kernel has no uprobes")


# ---- the kind ----

def count_known(path):
    victim, folder = Victim(path), tempfile.mkdtemp(dir=TMP)
    take = begin_take(victim.pid, folder, "--for", "5s")
    if "static" not in path:
        wait_counted(victim.pid, "the probe is set")
    else:
        time.sleep(1)
    check_equal(victim.ask("throw 60 20 5"), 300)
    verdict, evidence = end_take(take, folder)
    check_equal(verdict["error"], "")
    check(not verdict["paused"], "nothing was stopped")
    check_equal(by_type(evidence), {RUNTIME: 150, "app::timeout<int>": 75, "int": 75})
    check_equal((evidence["thrown"], evidence["unnamed"], evidence["cut_off"]), (300, 0, False))
    folded = open(folder + "/throws.folded").read().splitlines()
    check_equal(sum(int(line.rsplit(" ", 1)[1]) for line in folded), 300, "folded adds up")
    victim.end()
    return evidence


@case
def throws_of_all_threads_are_counted_exactly():
    need_root()
    count_known(built("throws"))


@case
def statically_linked_programs_are_probed_too():
    need_root()
    count_known(built("throws-static", "-static"))


IN_GDB = r"""
import gdb
gdb.execute("set pagination off")
gdb.execute("catch throw")
for i in range(4):
    gdb.execute("run < INPUT" if i == 0 else "continue")
    frame, names = gdb.newest_frame(), []
    while frame:
        sal = frame.find_sal()
        name = frame.name() or ""
        names.append("%s@%s:%d" % (name, sal.symtab.filename.split("/")[-1] if sal.symtab else "", sal.line if sal.symtab else 0))
        frame = frame.older()
    print("STACK " + " | ".join(names))
gdb.execute("kill")
"""


def bare(function):
    """Without parameters, template arguments' blanks, and a symbol's version."""
    return re.sub(r"\(.*\)| ", "", function or "").lstrip("_")  # clone3 has two names


@case
def stacks_are_those_of_gdb():
    need_root()
    if not shutil.which("gdb"):
        raise Skip("needs gdb")
    path = built("throws")
    with open(TMP + "/gdb.py", "w") as f:
        f.write(IN_GDB.replace("INPUT", TMP + "/gdb.in"))
    with open(TMP + "/gdb.in", "w") as f:
        f.write("throw 4 10 1\n")
    out = subprocess.run(["gdb", "-nx", "-batch", "-ex", "set auto-load off", "-x", TMP + "/gdb.py", path], capture_output=True,
                         text=True, env=dict(os.environ, DEBUGINFOD_URLS="")).stdout
    theirs = set()
    for line in out.splitlines():
        if line.startswith("STACK "):
            frames = [f.rsplit("@", 1) for f in line[6:].split(" | ")][1:]  # the first is __cxa_throw
            theirs.add(tuple((bare(n), place) for n, place in frames if not place.startswith(":")))
    check_equal(len(theirs), 3, "three different stacks in gdb: %s" % out[-2000:])
    ours = set()
    for group in count_known(path)["groups"]:
        for stack in group["stacks"]:
            check_equal(stack["incomplete"], None)
            ours.add(tuple((bare(f["function"]), "%s:%d" % (f["file"], f["line"])) for f in stack["frames"] if f.get("file")))
    check_equal(ours, theirs)


@case
def a_storm_loses_little_and_is_cut_off():
    need_root()
    victim, ms, ratios = Victim(built("throws")), 1500, []
    probed, folder = 0, tempfile.mkdtemp(dir=TMP)
    for _ in range(5):  # without, with, without: the machine is not alone
        before = victim.storm(ms)
        take = begin_take(victim.pid, folder, "--for", "3s")
        wait_for(lambda: is_probed(victim.pid), "the probe is set")
        during = victim.storm(ms)
        verdict, evidence = end_take(take, folder)
        ratios.append(during / ((before + victim.storm(ms)) / 2))
        check(evidence["cut_off"] and evidence["unseen_us"] > 1000000, "cut off: %r" % {**evidence, "groups": 0})
        check("cut off" in verdict["missing"], verdict["missing"])
        probed = max(probed, evidence["thrown"])
    ratios.sort()
    print("      a storm of %.0f throws a second keeps %.3f of its speed (median of 5; %.3f to %.3f); at most %d met the probe "
          "in 3 s: at 16 us each %.2f %%" % (before, ratios[2], ratios[0], ratios[-1], probed, probed * 16e-6 / 3 * 100))
    check(ratios[2] > 0.8, "it keeps its speed")
    # A program that is probed all the time would have kept a tenth: the control.
    check(probed < before * ms / 1000 / 20, "only some met the probe: %d" % probed)
    victim.end()


@case
def others_that_share_the_library_are_not_touched():
    need_root()
    victim, other, folder = Victim(built("throws")), Victim(built("throws")), tempfile.mkdtemp(dir=TMP)
    alone = other.storm(1000)
    take = begin_take(victim.pid, folder, "--for", "12s")  # the storm ends long before
    wait_for(lambda: is_probed(victim.pid), "the probe is set")
    check(not is_probed(other.pid), "the other one has no probe")
    beside = other.storm(1500)
    check(is_probed(victim.pid) and not is_probed(other.pid), "still so")
    print("      another process on the same library: %.3f of its speed" % (beside / alone))
    verdict, evidence = end_take(take, folder)
    check_equal(evidence["thrown"], 0, "its throws are not counted")
    check("0 thrown" in open(folder + "/throws.txt").read(), "none is said")
    victim.end()
    other.end()


@case
def the_probe_goes_with_who_set_it():
    need_root()
    victim, folder = Victim(built("throws")), tempfile.mkdtemp(dir=TMP)
    take = begin_take(victim.pid, folder, "--for", "30s")
    wait_for(lambda: is_armed(take.pid) and is_probed(victim.pid), "the probe is set")
    take.kill()
    wait_for(lambda: not is_probed(victim.pid), "the probe is gone", 5)
    take.wait()
    check_equal(victim.ask("throw 4 100 2"), 8)
    victim.end()


@case
def what_cannot_be_is_refused_in_words():
    need_root()
    victim, folder = Victim(built("throws")), tempfile.mkdtemp(dir=TMP)
    os.chmod(folder, 0o777)
    with open("/proc/sys/kernel/perf_event_paranoid") as f:
        paranoid = f.read().strip()
    own = subprocess.Popen([*NOBODY, built("throws")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    trawltest._processes.append(own)
    check_equal(own.stdout.readline(), b"ready\n")
    verdict, _ = end_take(begin_take(own.pid, folder, prefix=NOBODY), folder)
    check("not permitted" in verdict["text"] and "perf_event_paranoid %s" % paranoid in verdict["text"] and
          "CAP_PERFMON" in verdict["text"], verdict["text"])
    sleeper = start(["sleep", "60"], TMP + "/sleep.log")
    verdict, _ = end_take(begin_take(sleeper.pid, folder), folder)
    check("no __cxa_throw" in verdict["text"], verdict["text"])
    verdict, _ = end_take(begin_take(victim.pid, folder, "--for", "61s"), folder)
    check("limit" in verdict["text"] and "--for" in verdict["text"], verdict["text"])
    victim.end()


@case
def one_that_nobody_catches_is_seen_before_its_process_ends():
    need_root()
    victim, folder = Victim(built("throws")), tempfile.mkdtemp(dir=TMP)
    take = begin_take(victim.pid, folder, "--for", "20s")
    wait_for(lambda: is_probed(victim.pid), "the probe is set")
    victim.say("end")
    verdict, evidence = end_take(take, folder)
    check_equal(by_type(evidence), {RUNTIME: 1})
    check_equal(bare(evidence["groups"][0]["stacks"][0]["frames"][0]["function"]), "parse_number")
    check("process ended" in verdict["missing"], verdict["missing"])


# ---- the agent ----

def with_agent(name, *arguments):
    """A stand-in, and an agent that joined and speaks to it."""
    collector = Collector(name="c-" + name)
    agent = Agent(collector, name, *arguments)
    agent.wait_online()
    return StandIn(collector), agent


def watchers(agent):
    """The broker and its children."""
    def children(pid):
        done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
        return [int(p) for p in done.stdout.split()]
    brokers = children(agent.process.pid)
    return brokers, [c for b in brokers for c in children(b)]


@case
def a_watched_process_is_told_of_exactly_and_followed():
    need_root()
    stand_in, agent = with_agent("watch", "--throws", "throws")
    victim = Victim(built("throws"))
    wait_counted(victim.pid, "the agent probes it")
    check_equal(victim.ask("throw 80 25 4"), 320)
    for type_name, count in [(RUNTIME, 160), ("app::timeout<int>", 80), ("int", 80)]:
        stand_in.wait_count(count, type=type_name)
        check_equal(stand_in.count(type=type_name, pid=victim.pid), count)
    first = stand_in.get(type=RUNTIME)[0]
    check_equal((first.source, first.language, first.process, first.pid), (pb.CPP_THROW, "c++", "throws", victim.pid))
    check(first.executable.endswith("/throws") and first.frames and first.tid and first.start_ticks, first)
    check("parse_number" in first.frames[0].function and first.frames[0].file == "throws.cc", first.frames[0])
    check(first.frames[0].build_id == first.frames[1].build_id and first.frames[0].offset, first.frames[0])
    check(abs(first.wall_us - time.time() * 1e6) < 30e6, "its time")
    check(any(e.by_site and e.count > 1 for e in stand_in.get(type=RUNTIME)), "most are told together")
    victim.end()
    again = Victim(built("throws"))  # restarted by its supervisor
    wait_counted(again.pid, "the agent probes it again")
    check_equal(again.ask("throw 8 40 1"), 8)
    stand_in.wait_count(4, type=RUNTIME, pid=again.pid)
    again.storm(2500)
    wait_for(lambda: stand_in.get(cut_off=True), "cut off is told")
    print("      " + stand_in.get(cut_off=True)[0].message)
    again.end()
    agent.stop()


@case
def probes_go_with_the_watch_the_broker_and_the_agent():
    need_root()
    stand_in, agent = with_agent("deaths", "--throws", "throws-d")
    victim = Victim(built("throws-d"))
    for who in ("watch", "broker", "agent"):
        wait_for(lambda: is_probed(victim.pid), "the agent probes it")
        brokers, children = watchers(agent)
        check(brokers and children, "there are a broker and a watch")
        if who == "watch":  # the deaths of the others are waited for by itself
            wait_for(lambda: is_armed(children[0]), "the probe is set")
        os.kill({"watch": children[0], "broker": brokers[0], "agent": agent.process.pid}[who], 9)
        wait_for(lambda: not is_probed(victim.pid), "the probe is gone with the " + who, 10)
        if who == "broker":  # nothing privileged is left: the agent has to be started anew
            agent.kill()
            agent.start()
    agent.process.wait()
    speed = victim.storm(500)
    check(speed > 100000, "it throws freely: %d a second" % speed)
    victim.end()


@case
def the_owner_of_the_host_has_the_last_word():
    need_root()
    policy = TMP + "/policy.conf"
    with open(policy, "w") as f:
        f.write("kinds = triage,stacks\n")
    stand_in, agent = with_agent("policy", "--throws", "throws-p", "--policy", policy)
    victim = Victim(built("throws-p"))
    wait_for(lambda: stand_in.texts("throws are not watched"), "the refusal is told")
    check(not is_probed(victim.pid), "no probe")
    agent.stop()
    with open(policy, "w") as f:
        f.write("kinds = triage,throws\n")
    agent.start()
    wait_for(lambda: is_probed(victim.pid), "allowed now")
    with open(policy, "w") as f:
        f.write("never = throws-p\n")
    wait_for(lambda: not is_probed(victim.pid), "forbidden again while it is watched", 15)
    victim.end()
    agent.stop()


# ---- reports ----

SEND = """import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for i in range(int(sys.argv[3])):
    s.sendto(sys.argv[2].encode(), sys.argv[1])
"""


def send(path, report, count=1, uid=0):
    who = ["setpriv", "--reuid=%d" % uid, "--regid=%d" % uid, "--clear-groups"] if uid else []
    process = subprocess.Popen([*who, "/usr/bin/python3", "-c", SEND, path, report, str(count)])
    trawltest._processes.append(process)
    return process


@case
def applications_report():
    if os.geteuid() != 0:
        raise Skip("needs root: users are changed")
    path = TMP + "/exceptions.sock"
    os.chmod(TMP, 0o777)
    stand_in, agent = with_agent("reports", "--intake", path)
    wait_for(lambda: os.path.exists(path), "the socket")
    report = {"type": "KeyError", "message": "'user' of 42", "language": "python", "level": "error",
              "stack": [{"function": "load", "file": "app.py", "line": 12, "module": "app"}, "main"], "tags": {"tenant": "7"},
              "pid": 1, "uid": 4242}
    process = send(path, json.dumps(report), uid=65534)
    check_equal(process.wait(), 0)
    stand_in.wait_count(1, type="KeyError")
    got = stand_in.get(type="KeyError")[0]
    check_equal((got.source, got.message, got.language, got.uid, got.pid),
                (pb.REPORTED, "'user' of 42", "python", 65534, process.pid), "of the kernel, not of the report")
    check_equal([(f.function, f.file, f.line) for f in got.frames], [("load", "app.py", 12), ("main", "", 0)])
    check_equal({t.key: t.value for t in got.tags}, {"level": "error", "tenant": "7"})
    done = subprocess.run([BIN + "/trawl-agent", "emit", "--socket", path, "--type", "backup-failed", "--message", "no space",
                           "--tag", "job=nightly", "--stack", "-"], input="copy\nmain\n", capture_output=True, text=True)
    check_equal((done.returncode, done.stdout, done.stderr), (0, "", ""))
    stand_in.wait_count(1, type="backup-failed")
    got = stand_in.get(type="backup-failed")[0]
    check_equal(([f.function for f in got.frames], got.uid, got.tags[0].value), (["copy", "main"], 0, "nightly"))
    for bad in ["{", "[]", "{}", '{"type": 5}', '{"type": "x", "stack": 7}', "\xff", '{"type":"x","type":"y"}', "[" * 30000]:
        check_equal(send(path, bad).wait(), 0)
    wait_for(lambda: stand_in.texts("uid 0 sent"), "bad reports are told of, the first at once")
    check_equal(send(path, json.dumps({"type": "after"})).wait(), 0)
    stand_in.wait_count(1, type="after")
    agent.stop()
    check(not os.path.exists(path), "the socket is gone with the agent")


@case
def emit_says_what_is_wrong():
    def emit(*arguments):
        done = subprocess.run([BIN + "/trawl-agent", "emit", *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
    code, text = emit("--type", "x", "--socket", TMP + "/none.sock")
    check(code == 1 and TMP + "/none.sock" in text and "intake" in text, text)
    code, text = emit("--message", "x")
    check(code == 2 and "--type" in text, text)
    code, text = emit("--typ", "x")
    check(code == 2 and "did you mean '--type'" in text, text)
    code, text = emit("--type", "x", "--tag", "novalue")
    check(code == 2 and "KEY=VALUE" in text, text)
    code, text = emit("--type", "x", "--message", "m" * 40000)
    check(code == 2 and "32768" in text, text)
    code, text = emit("--help")
    check(code == 0 and "example" in text, text)


@case
def a_flood_of_one_user_is_counted_and_starves_nobody():
    if os.geteuid() != 0:
        raise Skip("needs root: users are changed")
    path, flood = TMP + "/flood.sock", 100000
    os.chmod(TMP, 0o777)
    stand_in, agent = with_agent("flood", "--intake", path)
    wait_for(lambda: os.path.exists(path), "the socket")
    began = time.monotonic()
    noisy = send(path, json.dumps({"type": "noise", "message": "again"}), flood, 65534)
    quiet = 0
    while noisy.poll() is None and quiet < 100:
        check_equal(send(path, json.dumps({"type": "quiet", "message": "heard"}), 1, 12345).wait(), 0)
        quiet += 1
    check_equal(noisy.wait(), 0)
    took = time.monotonic() - began
    check(quiet > 3, "the flood lasts long enough to tell: %d" % quiet)
    stand_in.wait_count(quiet, type="quiet")
    check_equal(stand_in.count(type="quiet"), quiet, "the other user")

    def total():
        over = sum(int(re.search(r"reported (\d+)", t).group(1)) for t in stand_in.texts("uid 65534 reported"))
        return stand_in.count(type="noise") + over
    wait_for(lambda: total() >= flood, "all of the flood", 30)
    check_equal(total(), flood)
    ticks = open("/proc/%d/stat" % agent.process.pid).read().rsplit(")", 1)[1].split()
    print("      %d reports in %.1f s: %d taken, the rest counted; %d reports of another user in between; the agent used "
          "%.2f s of CPU" % (flood, took, stand_in.count(type="noise"), quiet, (int(ticks[11]) + int(ticks[12])) / 100))
    agent.stop()


main()
