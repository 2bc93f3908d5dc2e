#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Crashes that the kernel hands over a socket to `trawl-agent crash-listen`: with the agent dead and alive, the listener
killed and stopped, its children killed, many at once, a socket that an init system holds, a handler that was there before,
and peers that are not the kernel. The pattern is the system's: a lock is held while it is changed. KILLS is how often a
child of the listener is killed (20), LOOP how long the crash loop is (40), MANY how many crash at once (80)."""
import atexit
import fcntl
import glob
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time

import trawltest
from trawltest import BIN, TMP, Agent, Collector, case, check, check_equal, main, pb, wait_for

VICTIM = os.path.join(os.environ.get("TRAWL_VICTIMS") or os.path.join(os.path.dirname(BIN), "victims"), "crash")
KILLS, LOOP, MANY = (int(os.environ.get(n, d)) for n, d in (("KILLS", "20"), ("LOOP", "40"), ("MANY", "80")))
PATTERN, MODES, SUID = "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/core_modes", "/proc/sys/fs/suid_dumpable"


def give_up(why):
    print("skip all: %s\n0 passed, 0 failed, 1 skipped" % why)
    raise SystemExit(0)


if os.geteuid() != 0:
    give_up("only root can change the core pattern")
if not os.path.exists(MODES) or "socket" not in open(MODES).read().split():
    give_up("this kernel (%s) hands no crash to a socket" % os.uname().release)
ASKS = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 17)
os.makedirs("/run/lock", exist_ok=True)
lock = open("/run/lock/trawl-core-pattern.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
ROOT = "/var/lib/trawl-e2e-%d" % os.getpid()  # only root can write there, unlike /tmp
os.mkdir(ROOT, 0o755)
STATE, SOCKET = ROOT + "/state", ROOT + "/crash.sock"
AGENT, SPOOL = ROOT + "/trawl-agent", STATE + "/crash"
SETTINGS = ["--state-dir", STATE, "--crash-file", ROOT + "/handler", "--policy", ROOT + "/policy", "--user", "nobody",
            "--crash-socket", SOCKET]
PREVIOUS, SUID_BEFORE = open(PATTERN).read().rstrip("\n"), open(SUID).read()
for name in glob.glob(BIN + "/trawl*"):
    shutil.copy2(name, ROOT)
trawltest.BIN = ROOT
LOG = os.path.join(TMP, "listener.log")


def set_pattern(text):
    with open(PATTERN, "w") as f:
        f.write(text + "\n")


def pattern():
    return open(PATTERN).read().rstrip("\n")


@atexit.register
def put_back():
    set_pattern(PREVIOUS)
    with open(SUID, "w") as f:
        f.write(SUID_BEFORE)
    shutil.rmtree(ROOT, ignore_errors=True)


def ours():
    return ("@@" if ASKS else "@") + SOCKET


def command(*words, ok=True):
    r = subprocess.run([AGENT, "crash-handler", *words, *SETTINGS], capture_output=True, text=True)
    check(not ok or r.returncode == 0, r.stderr)
    return r


def status():
    return json.loads(command("status", "-o", "json").stdout)


class Listener:
    """`trawl-agent crash-listen`; `held`: a listening socket as an init system would give it."""

    def __init__(self, held=None):
        def pass_on():
            os.dup2(held.fileno(), 3)
        self.begin = os.path.getsize(LOG) if os.path.exists(LOG) else 0
        # The shell only makes LISTEN_PID the pid of what it becomes.
        words = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh"] if held else []
        self.process = subprocess.Popen([*words, AGENT, "crash-listen", *SETTINGS], stdin=subprocess.DEVNULL,
                                        stdout=open(LOG, "ab"), stderr=subprocess.STDOUT, close_fds=not held,
                                        preexec_fn=pass_on if held else None)
        self.pid = self.process.pid
        atexit.register(self.kill)
        wait_for(self.is_there, "the listener")

    def is_there(self):
        check(self.process.poll() is None, "the listener ended: " + open(LOG).read()[-1000:])
        return holder() == self.pid and os.path.exists(SOCKET) and "listens at" in open(LOG).read()[self.begin:]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)

    def children(self):
        try:
            return [int(p) for p in open("/proc/%d/task/%d/children" % (self.pid, self.pid)).read().split()]
        except OSError:
            return []


def holder():
    """Who has the lock, whatever stands in the kernel's pattern."""
    for line in open("/proc/locks"):
        words = line.split()
        if words[1] == "POSIX" and os.path.exists(SOCKET + ".lock") and \
                int(words[5].split(":")[2]) == os.stat(SOCKET + ".lock").st_ino:
            return int(words[4])
    return 0


def victim(threads=0, mib=0, how="segv", limit=0, before=(), **more):
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


def told_of(pid):
    return wait_for(lambda: told().get(pid), "the crash to be told", 40)


def text_of(e, ending="txt"):
    return open("%s/%s.%s" % (SPOOL, e.id.hex(), ending), errors="replace").read()


def settled():
    return wait_for(lambda: status()["begun"] == 0, "children to end", 40)


def counted():
    s = status()
    return s["to_tell"] + s["counted"]


def fresh():
    """An empty spool, and the listener that there is installed."""
    wait_for(lambda: not listener.children(), "children to end", 40)
    shutil.rmtree(SPOOL, ignore_errors=True)
    command("install", "--socket")


listener = None


@case
def every_help_is_its_own():
    for words, wanted in ((["crash-handler", "--help"], "crash-handler install [--socket]|remove|status"),
                          (["crash-handler", "install", "--help"], "crash-handler install [--socket]|remove|status"),
                          (["crash-handler", "help"], "crash-handler install [--socket]|remove|status"),
                          (["crash-listen", "--help"], "usage: trawl-agent crash-listen"),
                          (["--help"], "usage: trawl-agent COMMAND")):
        r = subprocess.run([AGENT, *words], capture_output=True, text=True)
        check_equal((r.returncode, wanted in r.stdout), (0, True), "%s: %s" % (words, r.stdout[:200]))


@case
def without_a_listener_nothing_is_installed():
    set_pattern("core")
    r = command("install", "--socket", ok=False)
    check(r.returncode != 0 and "nobody listens" in r.stderr, r.stderr)
    check_equal(pattern(), "core")
    check(not os.path.exists(ROOT + "/handler"), "nothing is written down, either")


@case
def it_is_installed_and_known():
    global listener
    listener = Listener()
    check_equal(os.stat(SOCKET).st_mode & 0o777, 0o600)
    command("install", "--socket")
    check_equal(pattern(), ours())
    command("install", "--socket")
    s = status()
    check_equal((s["installed"], s["mode"], s["listener"], s["listener_pid"], s["previous"]),
                (True, "socket", "alive", listener.pid, "core"))
    check("alive, pid %d" % listener.pid in command("status").stdout, command("status").stdout)
    r = subprocess.run([AGENT, "crash-listen", *SETTINGS], capture_output=True, text=True, timeout=20)
    check(r.returncode != 0 and "another crash listener" in r.stderr, "a second one: " + r.stderr)


@case
def two_hundred_threads_are_described_without_an_agent():
    p = victim(threads=200, mib=32)
    pid = crash(p)
    check_equal(p.returncode, -signal.SIGSEGV)
    e = told_of(pid)
    check_equal((e.type, e.signal, e.process, e.tid, e.uid, list(e.saved)), ("SIGSEGV", 11, "crash", pid, 0, ["crash"]))
    check("fail_here" in e.frames[0].function, str(e.frames[:2]))
    check("sleep_deep" in text_of(e), "frames of the other threads")
    check("memory" not in e.missing and "thread's" not in e.missing, e.missing)
    check_equal(os.stat("%s/%s.pb" % (SPOOL, e.id.hex())).st_mode & 0o777, 0o600)


@case
def signal_user_and_thread_are_those_of_the_crash():
    p = victim(threads=2, how="abort", before=("setpriv", "--reuid=33", "--regid=33", "--clear-groups"))
    e = told_of(crash(p))
    check_equal((e.type, e.signal, e.signal_code, e.uid), ("SIGABRT", 6, -6, 33))
    check(any("fail_here" in f.function for f in e.frames), str(e.frames))
    code = "import ctypes, os, threading; t = threading.Thread(target=lambda: ctypes.string_at(0)); " \
           "threading.Thread(target=lambda: (print(os.getpid(), flush=True), t.start())).start()"
    p = subprocess.run(["/usr/bin/python3", "-c", code], stdout=subprocess.PIPE, text=True)
    check_equal(p.returncode, -signal.SIGSEGV)
    e = told_of(int(p.stdout))
    check(e.tid > e.pid, "another thread than the first has failed: %d of %d" % (e.tid, e.pid))


@case
def in_a_pid_namespace_numbers_are_the_hosts():
    p = victim(before=("unshare", "-p", "-f", "--kill-child"), threads=2)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(p.pid)], capture_output=True, text=True).stdout.split()
    p.stdin.close()
    p.wait()
    e = told_of(int(children[0]))
    check_equal((e.process, e.tid), ("crash", int(children[0])))


@case
def of_a_protected_process_only_who_and_what_is_known():
    with open(SUID, "w") as f:
        f.write("2\n")
    p = subprocess.run(["/usr/bin/python3", "-c", "import os; print(os.getpid(), flush=True); os.setuid(33); os.abort()"],
                       stdout=subprocess.PIPE, text=True)
    with open(SUID, "w") as f:
        f.write(SUID_BEFORE)
    e = told_of(int(p.stdout))
    check_equal((e.type, list(e.saved)), ("SIGABRT", []))
    check("setuid" in e.missing, e.missing)
    settled()  # the marker goes after the event has its place
    check_equal([os.path.basename(n) for n in glob.glob("%s/%s.*" % (SPOOL, e.id.hex()))], [e.id.hex() + ".pb"])


@case
def who_connects_by_himself_is_refused():
    settled()
    before, log = counted(), open(LOG).read()
    for words in (b"", b"\x7fELF" + b"\0" * 5000, b"\x10\0\0\0\x10\0\0\0\x0f\0\0\0\0\0\0\0"):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(SOCKET)
            s.settimeout(20)
            try:
                s.send(words)
                check_equal(s.recv(100), b"", "an answer")
            except (BrokenPipeError, ConnectionResetError):
                pass  # it was refused before it had said anything
    said = "pid %d connected to the crash socket by itself" % os.getpid()
    wait_for(lambda: open(LOG).read()[len(log):].count(said) == 3, "the log says so")
    check_equal((counted(), status()["begun"]), (before, 0))
    r = subprocess.run(["setpriv", "--reuid=33", "--regid=33", "--clear-groups", "/usr/bin/python3", "-c",
                        "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])", SOCKET], capture_output=True)
    check(r.returncode != 0 and b"PermissionError" in r.stderr, "nobody but root gets so far")
    told_of(crash(victim()))


@case
def a_crash_loop_is_counted_exactly():
    fresh()
    for _ in range(LOOP):
        crash(victim())
    settled()
    s = status()
    check_equal(s["to_tell"] + s["counted"], LOOP, str(s))
    check_equal(s["to_tell"], 3)


@case
def more_at_once_than_are_handled_at_once_wait():
    fresh()
    many = [victim(threads=4) for _ in range(MANY)]
    for p in many:
        p.stdin.close()
    for p in many:
        check_equal(p.wait(60), -signal.SIGSEGV)
    settled()
    check_equal(counted(), MANY)


@case
def a_child_killed_at_any_instant_costs_no_count():
    fresh()
    random.seed(7)
    killed = 0
    for _ in range(KILLS):
        wait_for(lambda: not listener.children(), "the one before to end", 40)
        before = status()["counted"]
        p = victim(threads=20, mib=4, how=random.choice(("segv", "abort")))
        p.stdin.close()
        # Before its marker is there a child is not yet a handler: then the kernel's log has to tell of the crash.
        wait_for(lambda: is_marked(p.pid) or status()["counted"] > before, "a marker")
        until = time.monotonic() + random.random() * 0.04
        while time.monotonic() < until:
            pass
        for pid in listener.children():
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
        check_equal(p.wait(20) < 0, True)
    wait_for(lambda: not listener.children(), "children to end", 40)
    s = status()
    twice = sum(os.path.exists(n[:-len("begun")] + "pb") for n in glob.glob(SPOOL + "/*.begun"))
    check_equal(s["to_tell"] + s["counted"] + s["begun"] - twice, KILLS, "killed %d" % killed)
    check(killed > 0, "no child was killed: nothing was tested")
    print("     %d children were killed" % killed)


def is_marked(pid):
    for path in glob.glob(SPOOL + "/*.begun") + glob.glob(SPOOL + "/*.pb"):
        try:
            if pb.Exception.FromString(open(path, "rb").read()).pid == pid:
                return True
        except OSError:
            pass
    return False


def save_core(name, body):
    path = ROOT + "/" + name
    with open(path, "w") as f:
        f.write("#!/bin/sh\n" + body + "\n")
    os.chmod(path, 0o755)
    return path


def load_segments(data):
    check_equal(data[:4], b"\x7fELF")
    count = int.from_bytes(data[56:58], "little")
    last = data[64 + (count - 1) * 56:64 + count * 56]
    return count, int.from_bytes(last[8:16], "little") + int.from_bytes(last[32:40], "little")


def finished(path):
    try:
        data = open(path, "rb").read()
        return data if len(data) > 64 and load_segments(data)[1] <= len(data) else None
    except (OSError, AssertionError):
        return None


def behind(previous):
    """Ours is put behind what stands there."""
    command("remove")
    set_pattern(previous)
    command("install", "--socket")
    check_equal((pattern(), status()["previous"]), (ours(), previous))


@case
def a_program_that_was_there_before_gets_the_whole_core():
    fresh()
    keeper = save_core("keeper", 'echo "$@" > %s/$1.words; exec cat > %s/$1.core' % (ROOT, ROOT))
    behind("|%s %%P %%p %%i %%I %%u %%d %%s %%c" % keeper)
    p = victim(mib=8, limit=4096)
    pid = crash(p)
    core = wait_for(lambda: finished("%s/%d.core" % (ROOT, pid)), "the core")
    check_equal(load_segments(core)[1], len(core), "the core is as long as its headers say")
    check_equal(open("%s/%d.words" % (ROOT, pid)).read().split(), [str(n) for n in (pid, pid, pid, pid, 0, 1, 11, 4096)])
    r = subprocess.run(["gdb", "-batch", "-ex", "bt", VICTIM, "%s/%d.core" % (ROOT, pid)], capture_output=True, text=True)
    check("fail_here" in r.stdout, r.stdout + r.stderr)
    told_of(pid)
    command("remove")
    check(pattern().startswith("|" + keeper), pattern())
    set_pattern("core")
    command("install", "--socket")


@case
def a_program_that_dies_of_its_core_does_not_go_round():
    fresh()
    behind("|" + save_core("dies", 'cat > /dev/null; echo died >> %s/deaths; kill -SEGV $$' % ROOT))
    crash(victim())
    wait_for(lambda: os.path.exists(ROOT + "/deaths"), "the program to run")
    settled()
    wait_for(lambda: counted() == 2 and not listener.children(), "its own crash to be told, too")
    check_equal(open(ROOT + "/deaths").read().split(), ["died"])
    behind_core()


def behind_core():
    command("remove")
    set_pattern("core")
    command("install", "--socket")


@case
def a_file_that_was_there_before_is_written_within_the_core_limit():
    fresh()
    behind("core.%e.%p")
    place = ROOT + "/place"
    os.mkdir(place)
    os.chown(place, 65534, 65534)
    pid = crash(victim(limit=1 << 30, cwd=place, mib=4))
    core = wait_for(lambda: finished("%s/core.crash.%d" % (place, pid)), "the core file")
    check_equal(load_segments(core)[1], len(core))
    pid = crash(victim(limit=0, cwd=place))
    settled()
    check(not os.path.exists("%s/core.crash.%d" % (place, pid)), "no core is written with a limit of 0")
    pid = crash(victim(limit=65536, cwd=place))
    settled()
    check_equal(os.stat("%s/core.crash.%d" % (place, pid)).st_size, 65536)
    behind_core()


@case
def a_kernel_that_does_not_ask_is_understood():
    fresh()
    set_pattern("@" + SOCKET)  # as Linux 6.16 has it
    e = told_of(crash(victim(threads=4, mib=32)))
    check_equal((e.type, "fail_here" in e.frames[0].function if e.frames else e.missing), ("SIGSEGV", True))
    # What was installed is the other one: to put it right again is what 'install' is for.
    command("install", "--socket")
    check_equal(pattern(), ours())


@case
def a_killed_listener_is_known_and_another_takes_over():
    global listener
    fresh()
    listener.kill()
    check_equal((pattern(), status()["listener"]), (ours(), "dead"))
    check("DEAD" in command("status").stdout, command("status").stdout)
    before = counted()
    p = victim()
    crash(p)
    check_equal((p.returncode, counted()), (-signal.SIGSEGV, before), "it dies, and leaves nothing")
    listener = Listener()
    check_equal(status()["listener"], "alive")
    told_of(crash(victim(how="abort")))
    listener.kill()
    command("remove")
    check_equal(pattern(), "core", "also without a listener")
    check(not os.path.exists(ROOT + "/handler"), "nothing is left to be put back")
    listener = Listener()
    check_equal(pattern(), "core", "it was removed: no listener puts it back")


@case
def a_listener_that_stops_puts_the_pattern_back_and_in_again():
    global listener
    set_pattern("core.%e")
    command("install", "--socket")
    check_equal(listener.stop(), 0)
    check_equal((pattern(), os.path.exists(SOCKET)), ("core.%e", False))
    s = status()
    check_equal((s["installed"], s["mode"], s["listener"]), (False, "socket", "stopped"))
    listener = Listener()
    wait_for(lambda: pattern() == ours(), "the pattern to be in again")
    listener.stop()
    set_pattern("/somebody/else")
    listener = Listener()
    check_equal(pattern(), "/somebody/else", "what somebody else put there meanwhile is left alone")
    r = command("remove", ok=False)
    check(r.returncode != 0 and "/somebody/else" in r.stderr, r.stderr)
    listener.stop()
    check_equal(pattern(), "/somebody/else")
    command("remove", "--force")
    check_equal(pattern(), "core.%e")
    listener = Listener()
    set_pattern("core")


@case
def what_is_begun_when_it_stops_is_finished():
    global listener
    fresh()
    many = [victim(threads=50, mib=4) for _ in range(6)]
    for p in many:
        p.stdin.close()
    wait_for(lambda: status()["begun"] > 0 or counted() > 0, "one of them")
    check_equal(listener.stop(), 0)
    for p in many:
        p.wait(30)
    settled()
    check_equal(pattern(), "core")
    # Those that died after the pattern was back went where they went before: nowhere.
    check(0 < counted() <= len(many), str(status()))
    listener = Listener()


@case
def by_pipe_and_back():
    fresh()
    command("install")
    check(pattern().startswith("|" + AGENT), pattern())
    s = status()
    check_equal((s["installed"], s["mode"], s["previous"]), (True, "pipe", "core"))
    told_of(crash(victim()))
    command("install", "--socket")
    check_equal((pattern(), status()["previous"]), (ours(), "core"))


@case
def somebody_elses_socket_is_left_alone():
    command("remove")
    set_pattern("@/run/somebody-else.sock")
    for how in ((), ("--socket",)):
        r = command("install", *how, ok=False)
        check(r.returncode != 0 and "somebody-else" in r.stderr, r.stderr)
    check_equal(pattern(), "@/run/somebody-else.sock")
    set_pattern("core")


@case
def a_socket_that_an_init_system_holds_keeps_crashes_while_the_listener_is_away():
    global listener
    listener.stop()
    held = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    held.bind(SOCKET)
    os.umask(before)
    held.listen(64)
    listener = Listener(held)
    fresh()
    pid = crash(victim())
    told_of(pid)
    listener.kill()
    check_equal(status()["listener"], "waiting")
    p = victim(threads=3)
    p.stdin.close()
    wait_for(lambda: "CoreDumping:\t1" in open("/proc/%d/status" % p.pid).read(), "the crash to wait")
    check_equal(p.poll(), None)
    listener = Listener(held)
    check_equal(p.wait(20), -signal.SIGSEGV)
    told_of(p.pid)
    check_equal(listener.stop(), 0)
    check_equal((pattern(), os.path.exists(SOCKET)), ("core", True), "the socket is the init system's")
    command("remove")
    held.close()
    os.unlink(SOCKET)
    listener = Listener()


@case
def with_an_agent_crashes_are_told_and_so_is_the_listeners_death():
    global listener
    collector = Collector()
    agent = Agent(collector, "web-1", "--crash-file", ROOT + "/handler", "--crash-socket", SOCKET).wait_online()
    spool = agent.directory + "/state"  # what the handler writes is to be where this agent looks
    settings = [spool if word == STATE else word for word in SETTINGS]
    subprocess.run([AGENT, "crash-handler", "install", "--socket", *settings], check=True, stdout=subprocess.DEVNULL)
    crash(victim())
    wait_for(lambda: glob.glob(spool + "/crash/*.told"), "the crash to be told", 30)
    person = collector.person("admin")

    def told_by(kind):
        r = subprocess.run([trawltest.BIN + "/trawl", "--context", person.directory, "exceptions", "-o", "json"],
                           capture_output=True, text=True)
        return [e for e in map(json.loads, r.stdout.splitlines()) if kind in json.dumps(e)]
    wait_for(lambda: told_by("SIGSEGV"), "the crash in the CLI")
    check_equal(told_by("crash-listener"), [])
    listener.kill()
    wait_for(lambda: told_by("crash-listener"), "the listener's death to be told", 40)
    log = open(agent.log).read()
    check("does not answer at %s" % SOCKET in log, log[-2000:])
    listener = Listener()
    wait_for(lambda: "answers again" in open(agent.log).read(), "its return", 30)
    check_equal(len(told_by("crash-listener")), 1, "it is told once")
    check_equal(agent.stop(), 0)
    check_equal(pattern(), ours(), "an agent's stop leaves the listener's pattern alone")
    command("remove")
    check_equal(pattern(), "core")
    check_equal(listener.stop(), 0)


main()
