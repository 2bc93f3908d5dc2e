#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The crash handler in the kernel's core pattern, with no agent running: every crash is counted once, the process is let
go, whoever was in the pattern before is served as before, and the pattern is put back. The pattern is the system's: a lock
is held while it is changed. KILLS is how often a handler is killed (30), LOOP how long the crash loop is (40)."""
import atexit
import fcntl
import glob
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

from trawltest import BIN, Skip, case, check, check_equal, main, pb, wait_for

VICTIM = os.path.join(os.environ.get("TRAWL_VICTIMS") or os.path.join(os.path.dirname(BIN), "victims"), "crash")
KILLS, LOOP = int(os.environ.get("KILLS", "30")), int(os.environ.get("LOOP", "40"))
PATTERN = "/proc/sys/kernel/core_pattern"
if os.geteuid() != 0:
    print("skip all: only root can change the core pattern\n0 passed, 0 failed, 1 skipped")
    raise SystemExit(0)
lock = open("/run/lock/trawl-core-pattern.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
ROOT = "/var/lib/trawl-e2e-%d" % os.getpid()  # only root can write there, unlike /tmp
os.mkdir(ROOT, 0o755)
AGENT, SPOOL, PREVIOUS = ROOT + "/trawl-agent", ROOT + "/state/crash", open(PATTERN).read().rstrip("\n")
shutil.copy2(BIN + "/trawl-agent", AGENT)
OPTIONS = ["--state-dir", ROOT + "/state", "--crash-file", ROOT + "/handler", "--policy", ROOT + "/policy", "--user", "nobody"]


def set_pattern(text):
    with open(PATTERN, "w") as f:
        f.write(text + "\n")


def pattern():
    return open(PATTERN).read().rstrip("\n")


@atexit.register
def put_back():
    set_pattern(PREVIOUS)
    shutil.rmtree(ROOT, ignore_errors=True)


def command(*words, ok=True):
    r = subprocess.run([AGENT, "crash-handler", *words, *OPTIONS], capture_output=True, text=True)
    check(not ok or r.returncode == 0, r.stderr)
    return r


def status():
    return json.loads(command("status", "-o", "json").stdout)


def victim(threads=0, mib=0, how="segv", limit=0, before=(), **more):
    import resource
    def core_limit():
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    p = subprocess.Popen([*before, VICTIM, str(threads), str(mib), "0", how], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         preexec_fn=core_limit, **more)
    check_equal(p.stdout.readline(), b"ready\n")
    return p


def crash(p):
    p.stdin.close()
    p.wait()
    return p.pid


def told():
    out = {}
    for path in glob.glob(SPOOL + "/*.pb"):
        try:
            e = pb.Exception.FromString(open(path, "rb").read())
        except OSError:
            continue
        out[e.pid] = e
    return out


def text_of(e, ending="txt"):
    return open("%s/%s.%s" % (SPOOL, e.id.hex(), ending), errors="replace").read()


def settled():
    return wait_for(lambda: status()["begun"] == 0, "handlers to end", 30)


def fresh():
    """An empty spool."""
    settled()
    shutil.rmtree(SPOOL, ignore_errors=True)
    command("install")


@case
def installing_twice_changes_nothing_and_does_not_chain_to_itself():
    set_pattern("core")
    command("install")
    first = pattern()
    command("install")
    check_equal(pattern(), first)
    check_equal(status()["previous"], "core")
    check(len(first) < 128, first)


@case
def a_place_that_others_can_write_is_refused():
    r = subprocess.run([BIN + "/trawl-agent", "crash-handler", "install", *OPTIONS], capture_output=True, text=True)
    if BIN.startswith("/tmp/"):
        check(r.returncode != 0 and "others than root" in r.stderr, r.stderr)


@case
def two_hundred_threads_are_described_without_an_agent():
    p = victim(threads=200, mib=32)
    pid = crash(p)
    check_equal(p.returncode, -signal.SIGSEGV)
    e = wait_for(lambda: told().get(pid), "the crash to be told", 40)
    check_equal((e.type, e.signal, e.process, list(e.saved)), ("SIGSEGV", 11, "crash", ["crash"]))
    check("fail_here" in e.frames[0].function, str(e.frames[:2]))
    check("sleep_deep" in text_of(e), "frames of the other threads")
    check_equal(os.stat("%s/%s.pb" % (SPOOL, e.id.hex())).st_mode & 0o777, 0o600)


@case
def an_abort_is_described():
    pid = crash(victim(how="abort"))
    e = wait_for(lambda: told().get(pid), "the crash to be told", 30)
    check_equal((e.type, e.signal_code), ("SIGABRT", -6))
    check(any("fail_here" in f.function for f in e.frames), str(e.frames))


@case
def of_a_protected_process_only_who_and_what_is_known():
    ours = pattern()
    set_pattern(ours.replace("%d", "2"))  # as the kernel says it of a setuid program (fs.suid_dumpable)
    pid = crash(victim(limit=1 << 30))
    e = wait_for(lambda: told().get(pid), "the crash to be told", 30)
    set_pattern(ours)
    check_equal((e.process, e.type, list(e.saved)), ("crash", "SIGSEGV", []))
    check("setuid" in e.missing, e.missing)
    settled()  # the marker goes after the event has its place
    check_equal([os.path.basename(n) for n in glob.glob("%s/%s.*" % (SPOOL, e.id.hex()))], [e.id.hex() + ".pb"])
    with open(ROOT + "/policy", "w") as f:
        f.write("crash-memory = all\n")
    set_pattern(ours.replace("%d", "2"))
    pid = crash(victim())
    e = wait_for(lambda: told().get(pid), "the crash to be told", 30)
    set_pattern(ours)
    os.unlink(ROOT + "/policy")
    check_equal(list(e.saved), ["crash"], "what the owner allows: " + e.missing)


@case
def in_a_pid_namespace_numbers_are_the_hosts():
    p = victim(before=("unshare", "-p", "-f", "--kill-child"), threads=2)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(p.pid)], capture_output=True, text=True).stdout.split()
    p.stdin.close()
    p.wait()
    # Process 1 of a namespace ignores what it does not handle, but not its own fault.
    e = wait_for(lambda: told().get(int(children[0])), "the crash under its pid of the host", 30)
    check_equal(e.process, "crash")


def save_core(name):
    path = ROOT + "/" + name
    with open(path, "w") as f:
        f.write("#!/bin/sh\nexec cat > %s/$1.core\n" % ROOT)
    os.chmod(path, 0o755)
    return path


def load_segments(data):
    """What the kernel wrote, without what differs from one crash to the next of one program: counts and sizes."""
    check_equal(data[:4], b"\x7fELF")
    count = int.from_bytes(data[56:58], "little")
    last = data[64 + (count - 1) * 56:64 + count * 56]
    return count, int.from_bytes(last[8:16], "little") + int.from_bytes(last[32:40], "little")


@case
def a_program_that_was_there_before_gets_the_whole_core():
    command("remove")
    set_pattern("|%s p%%p" % save_core("keeper"))
    plain = victim(mib=8)
    plain_pid = crash(plain)
    plain_core = wait_for(lambda: finished("%s/p%d.core" % (ROOT, plain_pid)), "the core without us")
    command("install")
    check_equal(status()["previous"], "|%s/keeper p%%p" % ROOT)
    fresh()
    pid = crash(victim(mib=8))
    core = wait_for(lambda: finished("%s/p%d.core" % (ROOT, pid)), "the core with us")
    check_equal(load_segments(core)[1], len(core), "the core is as long as its headers say")
    check_equal(len(plain_core), load_segments(plain_core)[1])
    r = subprocess.run(["gdb", "-batch", "-ex", "bt", VICTIM, "%s/p%d.core" % (ROOT, pid)], capture_output=True, text=True)
    check("fail_here" in r.stdout, r.stdout + r.stderr)
    wait_for(lambda: told().get(pid), "the crash to be told, too", 30)
    command("remove")
    check_equal(pattern(), "|%s/keeper p%%p" % ROOT)
    set_pattern("core")
    command("install")


def finished(path):
    """The bytes of a file once it has stopped growing for as long as its headers say."""
    try:
        data = open(path, "rb").read()
        return data if len(data) > 64 and load_segments(data)[1] <= len(data) else None
    except (OSError, AssertionError):
        return None


@case
def a_file_that_was_there_before_is_written_as_the_process_would():
    command("remove")
    set_pattern("core.%e.%p")
    command("install")
    place = ROOT + "/place"
    os.mkdir(place)
    os.chown(place, 65534, 65534)
    pid = crash(victim(limit=1 << 30, cwd=place, mib=4))
    core = wait_for(lambda: finished("%s/core.crash.%d" % (place, pid)), "the core file")
    check_equal(os.stat("%s/core.crash.%d" % (place, pid)).st_mode & 0o777, 0o600)
    check_equal(load_segments(core)[1], len(core))
    pid = crash(victim(limit=0, cwd=place))
    settled()
    check(not os.path.exists("%s/core.crash.%d" % (place, pid)), "no core is written with a limit of 0")
    pid = crash(victim(limit=65536, cwd=place))
    settled()
    check_equal(os.stat("%s/core.crash.%d" % (place, pid)).st_size, 65536)
    command("remove")
    check_equal(pattern(), "core.%e.%p")
    set_pattern("core")
    command("install")


def all_counted():
    s = status()
    return s["to_tell"] + s["counted"] + s["begun"]


@case
def a_crash_loop_is_counted_exactly_and_described_at_most_three_times():
    fresh()
    began = time.monotonic()
    for _ in range(LOOP):
        crash(victim())
    settled()
    s = status()
    check_equal(s["to_tell"] + s["counted"], LOOP, str(s))
    check_equal(s["to_tell"], 3)
    check_equal(len(glob.glob(SPOOL + "/*.core.zst")), 3)
    print("     %d crashes in %.1f s" % (LOOP, time.monotonic() - began))


def handlers():
    out = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path, "rb").read().split(b"\0")
        except OSError:
            continue
        if words[:2] == [AGENT.encode(), b"crash"]:
            out.append(int(path.split("/")[2]))
    return out


@case
def a_handler_killed_at_any_instant_costs_no_count():
    fresh()
    random.seed(7)
    killed = 0
    for _ in range(KILLS):
        p = victim(threads=20, mib=4, how=random.choice(("segv", "abort")))
        p.stdin.close()
        # Before its marker is there a handler is not yet one: then the kernel's log has to tell of the crash.
        wait_for(lambda: marked(p.pid), "a marker")
        until = time.monotonic() + random.random() * 0.06
        while time.monotonic() < until:
            pass
        for pid in handlers():
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
        p.wait()
    wait_for(lambda: not handlers(), "handlers to end", 30)
    check_equal(all_counted() - sum(has_two(n) for n in glob.glob(SPOOL + "/*.begun")), KILLS, "killed %d" % killed)
    check(killed > 0, "no handler was killed: nothing was tested")
    print("     %d of %d handlers were killed" % (killed, KILLS))


def marked(pid):
    """Whether a marker, or what became of it, speaks of this process."""
    for path in glob.glob(SPOOL + "/*.begun") + glob.glob(SPOOL + "/*.pb"):
        try:
            if pb.Exception.FromString(open(path, "rb").read()).pid == pid:
                return True
        except OSError:
            pass
    return status()["counted"] > 0 and not handlers()


def has_two(marker):
    """A marker beside its record is one crash: the agent tells one."""
    return os.path.exists(marker[:-len("begun")] + "pb")


@case
def what_somebody_else_put_there_meanwhile_is_left_alone():
    set_pattern("/somebody/else")
    r = command("remove", ok=False)
    check(r.returncode != 0 and "/somebody/else" in r.stderr, r.stderr)
    check_equal(pattern(), "/somebody/else")
    command("remove", "--force")
    check_equal(pattern(), "core")
    command("remove")
    check_equal(pattern(), "core")


main()
