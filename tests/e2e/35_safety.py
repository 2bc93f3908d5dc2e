# SPDX-License-Identifier: Apache-2.0
"""What captures of every kind do to a process: nothing that it, its parent or its children could notice but a moment.
Each check has a control: bench_capture_naive, gdb or a plain program does the harm, and the check must see it.
COUNT (100) is how many captures the stressed target must bear, SEED (random, printed) makes a run come back, CAPTURES (20) is
how many of each kind the calls are tried with.
Cases may be named as arguments. BUILD_DIR names the build folder. Ends only what it started, by pid."""
import ctypes
import os
import random
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from victimtest import *  # noqa: E402,F403

COUNT = int(os.environ.get("COUNT", "100"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
CAPTURES = int(os.environ.get("CAPTURES", "20"))
STORMS = min(CAPTURES, 8)
SHORT = 5
HOLD_MS = "3000"
ORDINARY_UID = 64997  # nobody's, so that a limit of processes counts ours alone
random.seed(SEED)
_skipped_kinds = set()


def each_kind(what, wanted=None):
    """The kinds that exist; says once of each other that it was left out."""
    for kind in wanted or KINDS:
        if known(kind):
            yield kind
        elif kind not in _skipped_kinds:
            _skipped_kinds.add(kind)
            report("kind " + kind, "not in this build", skip=True)


def take_many(kind, victim, count, *options):
    """(how many succeeded, the problem): a worker that dies is a problem, a refusal is said."""
    done, text = 0, ""
    for _ in range(count):
        answer = take(kind, victim.pid, *options)
        if crashed(answer):
            return done, crashed(answer)
        # No socket, no log: a proper answer, found by looking at it.
        done += not answer["error"] or (kind in ("net", "logs") and answer["error"] == "notfound")
        text = answer["text"] or text
    return done, "" if done else "none of %d succeeded: %s" % (count, text)


# ---- calls and signals ----

def ask_calls(victim):
    """(kinds of calls, EINTR, other returns, names)"""
    time.sleep(0.1)  # what was interrupted sleeps again
    words = victim.ask().split()
    return int(words[0]), int(words[1]), int(words[2]), " ".join(words[3:])


def no_system_call_is_interrupted():
    for kind in each_kind("calls"):
        victim = Victim("syscalls", stderr=subprocess.DEVNULL)
        done, problem = take_many(kind, victim, CAPTURES)
        calls, interrupted, other, names = ask_calls(victim)
        if not problem and (interrupted or other):
            problem = "%d EINTR, %d other returns: %s" % (interrupted, other, names)
        if not problem and calls < 30:
            problem = "only %d kinds of calls" % calls
        report("%s: %d captures, %d kinds of calls, no EINTR" % (kind, done, calls), problem or free(victim.pid))
        victim.end()
    victim = Victim("syscalls", stderr=subprocess.DEVNULL)
    for _ in range(3):
        subprocess.run([NAIVE, "interrupt", str(victim.pid)], check=True)
    _, interrupted, _, names = ask_calls(victim)
    report("control: a naive stop is seen, %d EINTR" % interrupted, "" if interrupted >= 8 else names)
    victim.end()


def no_signal_is_lost():
    for kind in each_kind("storm"):
        victim = Victim("storm")
        done, problem = take_many(kind, victim, STORMS if kind in STOPPING else 2)
        problem = problem or free(victim.pid)
        time.sleep(0.2)
        sent, received, disordered, sigchld = map(int, victim.ask().split())
        if not problem and (sent != received or disordered or sigchld or sent < 100):
            problem = "%d sent, %d received, %d out of order, %d SIGCHLD" % (sent, received, disordered, sigchld)
        report("%s: %d captures, %d signals, none lost, no SIGCHLD" % (kind, done, sent), problem)
        victim.end()
    victim = Victim("storm")
    for _ in range(300):
        subprocess.run([NAIVE, "interrupt", str(victim.pid)], check=True)
    os.kill(victim.pid, signal.SIGCHLD)
    sent, received, _, sigchld = map(int, victim.ask().split())
    report("control: swallowed signals (%d) and a SIGCHLD are seen" % (sent - received),
           "" if received < sent and sigchld == 1 else "%d of %d, %d" % (received, sent, sigchld))
    victim.end()


# ---- what is left behind ----

# Figures that move by themselves (SigQ is its user's), and memory in use: the red zone and the frames below it may touch a page of a stack.
MOVING = re.compile(r"ctxt_switches|^(State|SigQ|VmRSS|RssAnon|RssFile|VmHWM|VmPTE)$")


def outside(pid):
    """All that /proc tells of it and that a capture has no business to change."""
    seen = {}
    for tid in tids(pid):
        for name, value in status(pid, tid).items():
            if not MOVING.search(name):
                seen["%s of %d" % (name, tid)] = value
    for name in ("limits", "cgroup", "environ", "cmdline", "coredump_filter", "oom_score_adj", "timerslack_ns", "loginuid",
                 "personality", "maps", "auxv", "mountinfo", "setgroups"):
        seen[name] = read("/proc/%d/%s" % (pid, name))
    for fd in os.listdir("/proc/%d/fd" % pid):
        seen["fd " + fd] = os.readlink("/proc/%d/fd/%s" % (pid, fd)) + read("/proc/%d/fdinfo/%s" % (pid, fd))
    for name in ("cwd", "root", "exe"):
        seen[name] = os.readlink("/proc/%d/%s" % (pid, name))
    seen["children"] = children(pid)
    return seen


def difference(before, after):
    for name in sorted(set(before) | set(after)):
        if before.get(name) != after.get(name):
            return "%s: %r became %r" % (name, before.get(name), after.get(name))
    return ""


def everything_is_as_before():
    victim = Victim("state")
    victim.ask()
    for kind in each_kind("state"):
        seen, told = outside(victim.pid), victim.ask()
        done, problem = take_many(kind, victim, SHORT)
        problem = problem or free(victim.pid) or difference(seen, outside(victim.pid))
        now = victim.ask()
        if not problem and now != told:
            problem = "inside: %s became %s" % (told, now)
        report("%s: descriptors, masks, stacks, limits, children, status as before" % kind, problem)
    seen, told = outside(victim.pid), victim.ask()
    subprocess.run(["prlimit", "--pid", str(victim.pid), "--nofile=100"], check=True)
    changed = difference(seen, outside(victim.pid)) and victim.ask() != told
    report("control: a changed limit is seen inside and outside", "" if changed else "it is not")
    victim.end()


def an_unreaped_child_would_be_seen():
    parent = start("sh", "-c", "true & sleep 60 & exec sleep 60")
    got = wait_for(lambda: [c for c in children(parent.pid) if c[2] == "Z"] and lasting_children(parent.pid, (), 0.2), "a zombie")
    states = sorted(c[2] for c in got)
    report("control: a zombie and a lasting child are seen", "" if states == ["S", "Z"] else repr(got))
    for child in got:
        if child[2] != "Z":
            os.kill(child[0], signal.SIGKILL)


# ---- targets that are not as usual ----

def a_stopped_process_stays_stopped():
    victim = Victim("threads", "3")
    os.kill(victim.pid, signal.SIGSTOP)
    os.waitpid(victim.pid, os.WUNTRACED)
    for kind in each_kind("stopped"):
        answer = take(kind, victim.pid)
        problem = crashed(answer) or (sentence(answer) if answer["error"] else "") or free(victim.pid, stopped="t")
        states = [status(victim.pid, t).get("State", "X")[0] for t in tids(victim.pid)]
        if not problem and set(states) != {"T"}:
            problem = "states %s" % states
        if not problem and os.waitpid(victim.pid, os.WUNTRACED | os.WNOHANG)[0]:
            problem = "its parent was told of another stop"
        report("%s: a stopped process stays stopped%s" % (kind, " (%s)" % answer["text"] if answer["error"] else ""), problem)
    os.kill(victim.pid, signal.SIGCONT)
    report("it goes on when it is told to", "" if victim.ask() else "it does not")
    victim.end()


def unharmed(name, victim, wanted=None, must=(), ask=True, options=()):
    """One capture of each kind: done, or refused by a sentence; the victim lives on, free. `must`: kinds that must be done."""
    for kind in each_kind(name, wanted):
        before = [c[0] for c in children(victim.pid)]
        answer = take(kind, victim.pid, *options)
        problem = crashed(answer) or (sentence(answer) if answer["error"] else "") or free(victim.pid)
        if not problem and kind in must and answer["error"]:
            problem = "%s: %s" % (answer["error"], answer["text"])
        if not problem and lasting_children(victim.pid, before, 0.3):
            problem = "left behind: %s" % lasting_children(victim.pid, before, 0.3)
        if not problem and ask and not victim.ask():
            problem = "it does not answer"
        words = answer["text"] if answer["error"] else "done" + ("; " + answer["missing"] if answer["missing"] else "")
        report("%s: %s: %s" % (name, kind, words[:150]), problem)


def a_thread_in_uninterruptible_sleep():
    victim = Victim("vfork")
    wait_for(lambda: children(victim.pid), "the child of vfork")
    unharmed("vfork", victim, must=("triage", "stacks", "stacks0"), ask=False)
    for kind in each_kind("vfork", ["stacks"]):
        answer = take(kind, victim.pid)
        report("stacks: the thread in vfork is said to be missing (%s)" % answer["missing"][:100],
               "" if answer.get("missed") == 1 and answer["missing"] else repr(answer))
    victim.end()


def a_process_that_ends_meanwhile():
    for kind in each_kind("ending"):
        problem, gone, ended = "", 0, 0
        for i in range(12):
            victim = Victim("threads", "40")
            worker = subprocess.Popen(take_command(kind, victim.pid), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(random.random() * 0.03 * (i % 4))
            victim.process.kill()
            try:
                out, err = worker.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.communicate()
                problem = "the worker hangs"
                break
            answer = parse_take(out, err, worker.returncode)
            # Found gone before it began: said on stderr, exit code 1.
            if answer["error"] == "none" and worker.returncode == 1 and err.strip() and "Sanitizer" not in err:
                gone += 1
            else:
                problem = problem or crashed(answer)
            gone += answer["error"] == "gone"
            victim.process.wait(10)
            ended += 1
            victim.end()
        report("%s: 12 processes that end during it (%d found gone)" % (kind, gone), problem)
    zombie = start("true")
    wait_for(lambda: status(zombie.pid)["State"][0] == "Z", "a zombie")
    for kind in each_kind("ending"):
        answer = take(kind, zombie.pid)
        problem = "" if answer["code"] > 0 else repr(answer)
        report("%s: a zombie is refused or said to be gone: %s" % (kind, answer["text"][:80]), problem)
    zombie.wait()


def pid_1_of_a_namespace():
    probe = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True)
    if probe.returncode:
        raise Skip("no pid namespaces here: " + probe.stderr.strip())
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    victim = Victim(*inside, victim_path("beat"), "--mib", "8", wrapped="beat")
    first = status(victim.pid).get("NSpid", "").split()
    report("the victim is pid 1 inside", "" if first[-1:] == ["1"] and len(first) == 2 else repr(first))
    unharmed("pid 1 of a container", victim, must=("triage", "stacks", "stacks0", "mini"))
    victim.end()
    for kind in each_kind("pid 1", STOPPING):
        done = subprocess.run(inside + ["sh", "-c", " ".join(take_command(kind, 1)) + "; true"], capture_output=True, text=True)
        answer = parse_take(done.stdout, done.stderr, 1)
        report("%s of pid 1 itself: %s" % (kind, answer["text"][:100]),
               "" if answer["error"] == "refused" and not sentence(answer) else repr(answer))


def in_namespaces_of_its_own():
    flags = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run(flags + ["true"], capture_output=True).returncode:
        raise Skip("no namespaces here")
    hidden = "mount -t tmpfs none /mnt && cp %s /mnt/hidden && exec /mnt/hidden 3" % victim_path("threads")
    victim = Victim(*flags, "sh", "-c", hidden, wrapped="hidden")
    unharmed("container", victim, must=("triage", "stacks", "stacks0", "mini", "core"))
    for kind in each_kind("container", ["stacks", "stacks0"]):
        take(kind, victim.pid, "-o", TMP)
        text = read(os.path.join(TMP, kind + ".txt"))
        report("%s: functions are named though the program lies where we cannot see it" % kind,
               "" if text.count("victim_inner") >= 1 else text[:500])
    victim.end()


def behind_seccomp():
    victim = Victim("sandbox")
    unharmed("seccomp", victim, must=("triage", "stacks", "stacks0", "mini"))
    for kind in each_kind("seccomp", ["core"]):
        answer = take(kind, victim.pid)
        right = answer["error"] == "refused" and "seccomp" in answer["text"] and "--live" in answer["text"]
        report("core: refused for its filter, with the option that helps: %s" % answer["text"], "" if right else repr(answer))
        answer = take(kind, victim.pid, "--live")
        report("core --live is taken", "" if not answer["error"] and victim.ask() else repr(answer))
    victim.end()


def traced_by_another():
    victim = Victim("threads", "3")
    tracer = start(NAIVE, "interrupt", str(victim.pid), HOLD_MS)
    wait_for(lambda: status(victim.pid).get("TracerPid", "0") != "0", "the tracer")
    for kind in each_kind("traced", STOPPING):
        answer = take(kind, victim.pid)
        right = answer["error"] == "refused" and "trace" in answer["text"]
        report("%s of a process that is being debugged: %s" % (kind, answer["text"]), "" if right else repr(answer))
    report("control: a traced process is seen", "" if held(victim.pid) else "it is not")
    tracer.kill()
    tracer.wait()
    victim.end()


def thousands_of_threads():
    victim = Victim("beat", "--mib", "16", "--threads", "3000", "--quiet")
    unharmed("3,000 threads", victim, must=("triage",))
    victim.end()


def _cc_32(path):
    source = path + ".c"
    with open(source, "w") as f:
        f.write('void _start(void) { for (;;) __asm__ volatile("int $0x80" :: "a"(29)); }\n')
    return subprocess.run(["cc", "-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector",
                           "-fcf-protection=none", "-o", path, source], capture_output=True, text=True)


def a_32_bit_process():
    path = os.path.join(TMP, "narrow")
    built = _cc_32(path)
    if built.returncode:
        raise Skip("this compiler makes no 32-bit programs")
    try:
        process = start(path)
    except OSError as e:
        raise Skip("this kernel runs no 32-bit programs: %s" % e)
    wait_for(lambda: status(process.pid).get("State", "X")[0] in "SZ", "it sleeps")
    if process.poll() is not None:
        raise Skip("this kernel runs no 32-bit programs")
    for kind in each_kind("32 bit"):
        answer = take(kind, process.pid)
        problem = crashed(answer) or (sentence(answer) if answer["error"] else "") or free(process.pid)
        if not problem and kind == "core" and not answer["error"]:
            problem = "taken"
        report("32-bit: %s: %s" % (kind, answer["text"][:100] or "done"), problem)
    process.kill()


def on_stacks_with_data_below():
    """Injection writes below the stack pointer: where other data is, it must not."""
    for where in (["coroutines"], ["altstack"], ["coroutines", "and-one"], ["altstack", "and-one"]):
        for kind in each_kind("corners", STOPPING):
            victim = Victim("corners", *where)
            problem, text = "", "done"
            for _ in range(SHORT):
                answer = take(kind, victim.pid)
                problem = problem or crashed(answer) or (sentence(answer) if answer["error"] else "") or free(victim.pid)
                text = answer["text"] or text
            if not problem and victim.ask() != "0":
                problem = "data below a stack was changed (%s)" % text
            report("%s on small stacks (%s): %s" % (kind, " ".join(where), text[:120]), problem)
            victim.end()
    victim = Victim("corners", "coroutines")
    subprocess.run([NAIVE, "below", str(victim.pid)], check=True)
    report("control: 2 KiB written below a stack pointer are seen", "" if int(victim.ask()) > 0 else "they are not")
    victim.end()


# ---- limits ----

class Cgroup:
    """A memory cgroup of our own, version 1 or 2; removed at the end."""

    def __init__(self, name, limit_mib):
        for root, limit, events in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
                                    ("/sys/fs/cgroup", "memory.max", "memory.events")):
            self.path, self.events = "%s/trawl-test-%d-%s" % (root, os.getpid(), name), events
            try:
                os.mkdir(self.path)
                with open(os.path.join(self.path, limit), "w") as f:
                    f.write(str(limit_mib << 20))
                at_end(self.remove)
                return
            except OSError as e:
                why = e
                self.remove()
        raise Skip("no memory cgroup can be made here: %s" % why)

    def join(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w") as f:
            f.write(str(os.getpid()))

    def kills(self):
        found = re.search(r"oom_kill (\d+)", read(os.path.join(self.path, self.events)))
        return int(found.group(1)) if found else -1

    def remove(self):
        for _ in range(200):
            try:
                os.rmdir(self.path)
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.02)


def at_the_limit_of_a_memory_cgroup():
    """With little room left, and a reader so slow that every page written meanwhile must be copied."""
    for limit_mib in (138, 180):
        group = Cgroup("full-%d" % limit_mib, limit_mib)
        victim = Victim("beat", "--mib", "128", "--threads", "8", preexec_fn=group.join)
        for kind, options in (("core", ()), ("core", ("--rate", "40M")), ("mini", ()), ("stacks", ())):
            if not known(kind):
                continue
            before = group.kills()
            answer = take(kind, victim.pid, *options)
            problem = crashed(answer) or (sentence(answer) if answer["error"] else "")
            if not victim.alive():
                problem = "the target was killed for want of memory: " + answer["text"]
            elif group.kills() > before:
                # The target next time: with memory.oom.group everything in it goes along.
                problem = "the twin was killed by the kernel, not let go in time: " + answer["text"]
            problem = problem or free(victim.pid)
            report("%d MiB in a cgroup of %d MiB: %s: %s" % (128, limit_mib, " ".join((kind,) + options),
                                                            answer["text"][:120] or "done"), problem)
        victim.end()
    group = Cgroup("control", 64)
    over = subprocess.run([sys.executable, "-c", "x = b'x' * (200 << 20)"], preexec_fn=group.join, capture_output=True)
    report("control: a cgroup that is full kills, and that is seen", "" if over.returncode == -9 and group.kills() == 1 else
           "%d, %d kills" % (over.returncode, group.kills()))


def at_the_limit_of_processes():
    if os.geteuid():
        raise Skip("needs root")
    threads = 6
    command = ["setpriv", "--reuid=%d" % ORDINARY_UID, "--regid=%d" % ORDINARY_UID, "--clear-groups", "prlimit",
               "--nproc=%d:%d" % (threads, threads)]
    program = os.path.join(TMP, "beat")
    shutil.copy(victim_path("beat"), program)  # where anybody may reach it
    os.chmod(TMP, 0o755)
    victim = Victim(*command, program, "--mib", "8", "--threads", str(threads), wrapped="beat")
    if len(tids(victim.pid)) != threads:
        raise RuntimeError("it has %d threads" % len(tids(victim.pid)))
    unharmed("no more processes allowed", victim, must=("triage", "stacks", "stacks0", "mini"))
    for kind in each_kind("nproc", ["core"]):
        answer = take(kind, victim.pid)
        report("core: refused with the reason: %s" % answer["text"], "" if answer["error"] == "refused" else repr(answer))
    victim.end()


def without_memory_for_a_copy():
    """What vm.overcommit_memory=2 does on a machine that is full. It is one setting for the whole machine and in no namespace,
    so that it is left as it is: a mapping larger than the machine makes the kernel's usual rule say the same."""
    victim = Victim("beat", "--mib", "8", "--unforkable")
    unharmed("no memory for a copy", victim, must=("triage", "stacks", "stacks0", "mini"))
    for kind in each_kind("nomem", ["core"]):
        answer = take(kind, victim.pid)
        right = answer["error"] == "refused" and "memory" in answer["text"]
        report("core: refused with the reason: %s" % answer["text"], "" if right else repr(answer))
    victim.end()
    control = Victim("beat", "--mib", "8")
    answer = take("core", control.pid) if known("core") else {"error": ""}
    report("control: without that mapping it is taken", answer["text"] if answer["error"] else "")
    control.end()


# ---- stress ----

class Worker:
    """A capture that may be killed at a random instant."""

    def __init__(self, kind, pid):
        self.process = subprocess.Popen(take_command(kind, pid), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.target = pid

    def kill_after(self, delay_s, from_trace):
        if from_trace:
            while self.process.poll() is None and status(self.target).get("TracerPid", "0") == "0":
                pass
        end = time.monotonic() + delay_s
        while time.monotonic() < end:
            pass
        if self.process.poll() is None:
            self.process.kill()
            return True
        return False

    def finish(self):
        out, err = self.process.communicate(timeout=60)
        return parse_take(out, err, self.process.returncode)


def after_effects(victim, tolerate_zombies=()):
    """What is wrong with it after a capture, and the zombies that a killed worker left."""
    if not victim.alive():
        return "the target is dead: %s" % victim.process.returncode, []
    problem = free(victim.pid)
    left = [c for c in lasting_children(victim.pid, tolerate_zombies) if c[1] != "offspring"]
    running = [c for c in left if c[2] != "Z"]
    if running and not problem:
        problem = "a twin is left: %s" % running
    return problem, [c[0] for c in left if c[2] == "Z"]


def typical(kind, victim):
    """(wall seconds, pause seconds) of a capture that is left alone; None when it is always refused."""
    answer, began = {}, 0
    for _ in range(3):
        began = time.monotonic()
        answer = take(kind, victim.pid)
        if not answer["error"]:
            return time.monotonic() - began, answer["pause_us"] / 1e6
    say("%s of the stressed target: %s" % (kind, answer["text"]))
    return time.monotonic() - began, 0.005


def tidy(victim, zombies):
    """Has what killed workers left reaped, as the broker does; "" or the problem."""
    done = subprocess.run([TAKE, "tidy", str(victim.pid)], capture_output=True, text=True)
    if "usage" in done.stderr or "not known" in done.stdout:
        report("zombies are tidied up", "this build cannot: %d left" % len(zombies), skip=True)
        return
    left = [c for c in lasting_children(victim.pid) if c[1] != "offspring"]
    report("what %d killed workers left is tidied up (%s)" % (len(zombies), done.stdout.strip()),
           "left: %s, exit code %d %s" % (left, done.returncode, done.stderr) if left or done.returncode else "")


def ask_stress(victim):
    """(wrong, idle workers, calls interrupted, words)"""
    answer = (victim.ask().split(" ", 3) + [""])[:4]
    return int(answer[0]), int(answer[1]), int(answer[2]), answer[3]


def one_of_stress(victim, kind, usual, zombies):
    """One capture, perhaps killed: ("taken", "refused" or "killed", the problem); adds to zombies."""
    wall, pause = usual
    _, _, before, _ = ask_stress(victim)
    worker = Worker(kind, victim.pid)
    killed = False
    if random.random() < 0.6:
        from_trace = kind in STOPPING and random.random() < 0.6
        killed = worker.kill_after(random.uniform(0, 1.2 * pause if from_trace else wall), from_trace)
    answer = worker.finish()
    end = "killed" if killed else "refused" if answer["error"] else "taken"
    problem, more = after_effects(victim, zombies)
    zombies += more
    if problem:
        return end, problem
    wrongs, _, interrupted, words = ask_stress(victim)
    if wrongs:
        return end, "%d wrong: %s" % (wrongs, words)
    if not killed and interrupted > before:
        return end, "epoll_wait was interrupted"
    return end, "" if killed else crashed(answer)


def stress():
    say("SEED=%d COUNT=%d" % (SEED, COUNT))
    victim = Victim("stress")
    wait_for(lambda: ask_stress(victim)[1] == 0, "all workers at work")
    have = [k for k in each_kind("stress") if k not in ("net", "logs")]
    usual = {k: typical(k, victim) for k in have}
    counts, zombies, problem = {"taken": 0, "refused": 0, "killed": 0}, [], ""
    for number in range(COUNT):
        kind = random.choice(have)
        end, problem = one_of_stress(victim, kind, usual[kind], zombies)
        counts[end] += 1
        if problem:
            problem = "capture %d (%s, %s): %s" % (number, kind, end, problem)
            break
    report("%d captures of a stressed target: %d taken, %d refused, %d workers killed; alive, free, nothing wrong" %
           (COUNT, counts["taken"], counts["refused"], counts["killed"]), problem)
    if not victim.alive():
        return
    report("at least a third of the workers were killed and a quarter of the captures succeeded",
           "" if problem or COUNT < 50 or 3 * counts["killed"] >= COUNT and 4 * counts["taken"] >= COUNT else repr(counts))
    say("%d calls interrupted and %d zombies left by killed workers" % (ask_stress(victim)[2], len(zombies)))
    tidy(victim, zombies)
    ask_stress(victim)
    time.sleep(0.5)
    wrongs, idle, _, words = ask_stress(victim)
    report("all its workers work on", words if idle or wrongs else "")
    victim.end()


def harm(how, hold_ms="0"):
    """The stressed target after a naive capture that is killed while it holds; what the checks say."""
    victim = Victim("stress")
    wait_for(lambda: ask_stress(victim)[1] == 0, "all workers at work")
    for _ in range(1 if hold_ms != "0" else 10):
        worker = start(NAIVE, how, str(victim.pid), hold_ms)
        if hold_ms != "0":
            wait_for(lambda: held(victim.pid) or not victim.alive(), "it is held")
            worker.kill()
        worker.wait()
    time.sleep(0.1)
    problem = "the target is dead" if not victim.alive() else free(victim.pid, seconds=1)
    words = "" if problem else victim.ask()
    victim.end()
    return problem, words


def stress_controls():
    problem, _ = harm("exitkill", "30000")
    report("control: a target taken along by its tracer is seen", "" if "dead" in problem else repr(problem))
    problem, _ = harm("sigstop", "30000")
    report("control: a target left stopped is seen", "" if "state T" in problem else repr(problem))
    for how in ("registers", "redzone"):
        problem, words = harm(how)
        report("control: spoilt %s are seen (%s)" % (how, words),
               "" if not problem and int(words.split()[0]) > 0 else "%r %r" % (problem, words))


def private_mib(pid):
    """Memory that is this process's alone, of its Rss; None when it is gone."""
    text = read("/proc/%d/smaps_rollup" % pid)
    figures = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.M))
    if not figures:
        return None
    return (int(figures["Private_Dirty"]) + int(figures["Private_Clean"])) / 1024, int(figures["Rss"]) / 1024


def read_as_must_not_be(pid, mib):
    """By process_vm_readv, which pins pages and thereby copies those that are shared."""
    class Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    largest = max((m for m in read("/proc/%d/maps" % pid).splitlines() if " rw-p " in m),
                  key=lambda m: int(m.split("-")[1].split()[0], 16) - int(m.split("-")[0], 16))
    begin = int(largest.split("-")[0], 16) + (4 << 20)
    buffer = ctypes.create_string_buffer(1 << 20)
    for i in range(mib):
        here, there = Part(ctypes.addressof(buffer), 1 << 20), Part(begin + (i << 20), 1 << 20)
        ctypes.CDLL(None).process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)


def the_twin_does_not_grow_by_being_read():
    """Of memory that nobody writes meanwhile, not a page is copied: target and twin share all of it until the end."""
    if not known("core"):
        raise Skip("no core in this build")
    victim = Victim("beat", "--mib", "96", "--quiet")
    worker = subprocess.Popen(take_command("core", victim.pid, "--rate", "64M"), stdout=subprocess.PIPE, text=True)
    twin = wait_for(lambda: [c[0] for c in children(victim.pid)], "the twin")[0]
    samples = []
    while worker.poll() is None:
        sample = private_mib(twin)
        if sample and sample[1] > 90:
            samples.append(sample)
        time.sleep(0.05)
    answer = parse_take(worker.communicate()[0], "", worker.returncode)
    words = "Rss %.0f MiB, at most %.1f MiB of it its own, %d looks" % (samples[0][1], max(s[0] for s in samples), len(samples))
    right = len(samples) >= 5 and max(s[0] for s in samples) < 4 and not answer["error"]
    report("the twin does not grow by being read: " + words, "" if right else repr(answer))
    worker = subprocess.Popen(take_command("core", victim.pid, "--rate", "64M"), stdout=subprocess.DEVNULL)
    twin = wait_for(lambda: [c[0] for c in children(victim.pid) if (private_mib(c[0]) or (0, 0))[1] > 90], "the twin")[0]
    before = private_mib(twin)[0]
    read_as_must_not_be(twin, 32)
    after = private_mib(twin)[0]
    report("control: read by process_vm_readv it grows from %.1f to %.1f MiB" % (before, after), "" if after > before + 16 else "no")
    worker.wait()
    victim.end()


def main():
    if not os.path.exists(TAKE) or not os.path.exists(NAIVE):
        report("safety", "%s was not built" % (NAIVE if os.path.exists(TAKE) else TAKE))
        print("%d passed, %d failed, %d skipped" % (0, 1, 0))
        return 1
    return run([no_system_call_is_interrupted, no_signal_is_lost, everything_is_as_before, an_unreaped_child_would_be_seen,
                a_stopped_process_stays_stopped, a_thread_in_uninterruptible_sleep, a_process_that_ends_meanwhile,
                pid_1_of_a_namespace, in_namespaces_of_its_own, behind_seccomp, traced_by_another, thousands_of_threads,
                a_32_bit_process, on_stacks_with_data_below, at_the_limit_of_a_memory_cgroup, at_the_limit_of_processes,
                without_memory_for_a_copy, stress, stress_controls, the_twin_does_not_grow_by_being_read])


sys.exit(main())
