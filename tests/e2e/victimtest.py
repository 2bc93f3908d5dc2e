# SPDX-License-Identifier: Apache-2.0
"""What the scenarios of the capture engine share (30_stacks to 36_load, tests/bench/capture): victims that are started and
asked, captures by bench_take, and what /proc says of a process afterwards. BUILD_DIR names the build folder. Everything
that was started is ended, by pid, when the script ends. Waits are for conditions, with a deadline."""
import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

BUILD = os.environ.get("BUILD_DIR") or sys.exit("BUILD_DIR must name a build folder")
TAKE = os.path.join(BUILD, "bench", "bench_take")
NAIVE = os.path.join(BUILD, "bench", "bench_capture_naive")
TMP = tempfile.mkdtemp(prefix="trawl-victims-")
KINDS = ["triage", "stacks", "stacks0", "mini", "core", "profile", "net", "logs"]
STOPPING = ["stacks", "mini", "core"]
OPTIONS = {"profile": ["--for", "200ms"]}
_processes = []
_endings = []
passed = failed = skipped = 0


def _clean_up():
    for ending in reversed(_endings):
        ending()
    for p in _processes:
        end(p)
    shutil.rmtree(TMP, ignore_errors=True)


atexit.register(_clean_up)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
at_end = _endings.append


# ---- counting ----

class Skip(Exception):
    pass


def report(name, problem="", skip=False):
    global passed, failed, skipped
    if skip:
        skipped += 1
        print("skip  %s: %s" % (name, problem))
    elif problem:
        failed += 1
        print("FAIL  %s: %s" % (name, problem))
    else:
        passed += 1
        print("ok    %s" % name)
    sys.stdout.flush()


def say(text):
    print("      " + text, flush=True)


def possible(name, program, *tools):
    """Whether the scenario can run here; reports by this name why it cannot: a failure only when the program was not built."""
    if not os.path.exists(program):
        report(name, program + " was not built")
    elif os.geteuid() != 0:
        report(name, "needs root", skip=True)
    elif not all(shutil.which(tool) for tool in tools):
        report(name, "needs %s (deploy/deps.sh)" % " and ".join(tools), skip=True)
    else:
        return True
    return False


def run(cases, checks=False):
    """Runs all, or those named as arguments; returns the exit code. With `checks`, each case is one check, named as it is."""
    wanted = sys.argv[1:]
    unknown = [w for w in wanted if w not in [c.__name__ for c in cases]]
    if unknown:
        print("no case %s; there are: %s" % (", ".join(unknown), " ".join(c.__name__ for c in cases)), file=sys.stderr)
        return 2
    for function in cases:
        if wanted and function.__name__ not in wanted:
            continue
        name = function.__name__.replace("_", " ") if checks else function.__name__
        began = time.monotonic()
        try:
            function()
            if checks:
                report(name)
        except Skip as why:
            report(name, str(why), skip=True)
        except Exception as e:  # a failing case must not hide the ones after it
            traceback.print_exc(file=sys.stdout)
            report(name, "%s: %s" % (type(e).__name__, str(e)[:3000]))
        if os.environ.get("TIMES"):
            say("%s took %.1f s" % (function.__name__, time.monotonic() - began))
    return finish()


def finish():
    """The last line, and the exit code."""
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0


def wait_for(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError("%s: not within %d s" % (what, seconds))
        time.sleep(0.005)


# ---- victims ----

def start(*command, **more):
    """With start_new_session=True its session is ended with it: what it started and leaves behind."""
    process = subprocess.Popen(command, **more)
    process.leads = bool(more.get("start_new_session"))
    _processes.append(process)
    return process


def start_ready(*command, **more):
    """Starts a program that writes "ready" when it stands where it shall be looked at; what else it says is in `words`."""
    process = start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)
    words = process.stdout.readline().split()
    if not words or words[0] != "ready":
        raise RuntimeError("%s did not begin" % " ".join(command))
    process.words = words[1:]
    return process


def ask(process):
    """The line that it answers to a line."""
    process.stdin.write("?\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the victim is gone (%s)" % process.poll())
    return line.strip()


def end(process):
    if process.poll() is None:
        if process.leads:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def running():
    """The pids of those that were started and not ended."""
    return [p.pid for p in _processes if p.poll() is None]


def victim_path(name):
    return os.path.join(BUILD, "victims", name)


class Victim:
    """A program of tests/victims (or a command that ends in one): says "ready", answers a line with a line."""

    def __init__(self, *command, wrapped=False, **more):
        if not wrapped:
            command = (victim_path(command[0]),) + command[1:]
        self.process = start_ready(*command, **more)
        self.ready = self.process.words
        self.pid = self.process.pid
        if wrapped:
            name = os.path.basename(command[-1]) if wrapped is True else wrapped
            self.pid = wait_for(lambda: self._inner(name), "the wrapped process")

    def _inner(self, name):
        todo = [self.process.pid]
        while todo:
            pid = todo.pop()
            if read("/proc/%d/comm" % pid).strip() == name[:15]:
                return pid
            todo += [c[0] for c in children(pid)]
        return 0

    def ask(self, seconds=60):
        return ask(self.process)

    def alive(self):
        return self.process.poll() is None

    def end(self):
        end(self.process)
        self.process.stdin.close()
        self.process.stdout.close()


# ---- captures ----

def take_command(kind, pid, *options):
    return [TAKE, kind, str(pid)] + OPTIONS.get(kind, []) + list(options)


def parse_take(out, err, code):
    line = out.strip().splitlines()[-1] if out.strip() else ""
    if not line.startswith("{"):
        return {"error": "none", "text": err.strip() or "no answer", "code": code, "paused": False,
                "pause_us": 0, "missing": "", "sanitizer": ""}
    answer = json.loads(line)
    answer["code"] = code
    answer["error"] = answer["error"].lower().replace("err_", "")  # "refused", "gone", ...; "" when it was taken
    answer["sanitizer"] = err[:3000] if "Sanitizer" in err or "runtime error:" in err else ""
    return answer


def take(kind, pid, *options, seconds=60, prefix=()):
    """What bench_take says of one capture; "code" is its exit code (negative: the signal that ended it)."""
    done = subprocess.run(list(prefix) + take_command(kind, pid, *options), capture_output=True, text=True, timeout=seconds)
    return parse_take(done.stdout, done.stderr, done.returncode)


_known = {}


def known(kind):
    """Whether this build has the kind at all."""
    if kind not in _known:
        idle = Victim("idle")
        answer = take(kind, idle.pid)
        _known[kind] = "not known" not in answer["text"]
        idle.end()
    return _known[kind]


def kinds(wanted=None):
    """The kinds that this build has; the others are reported as skipped once."""
    have = []
    for kind in wanted or KINDS:
        if known(kind):
            have.append(kind)
    return have


def crashed(answer):
    """A refusal or failure is an answer; a worker that died, or said nothing, is not."""
    if answer["sanitizer"]:
        return answer["sanitizer"]
    if answer["code"] < 0 or answer["error"] == "none":
        return "worker ended with %s: %s" % (answer["code"], answer["text"][-600:])
    return ""


def sentence(answer):
    """Whether a refusal says something: the problem, or nothing."""
    text = answer["text"]
    if len(text.split()) < 4 or "\n" in text or text[0].isupper() or text.endswith("."):
        return "not a sentence for people: '%s'" % text
    return ""


# ---- what /proc says ----

def read(path):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def tids(pid):
    try:
        return [int(t) for t in os.listdir("/proc/%d/task" % pid)]
    except OSError:
        return []


def status(pid, tid=None):
    """Name -> value of /proc/PID/status (or of one thread)."""
    text = read("/proc/%d/status" % pid if tid is None else "/proc/%d/task/%d/status" % (pid, tid))
    return dict((line.split(":", 1)[0], line.split(":", 1)[1].strip()) for line in text.splitlines() if ":" in line)


def held(pid, stopped="tT"):
    """What holds a thread of it: "" when all run untraced."""
    for tid in tids(pid):
        fields = status(pid, tid)
        state, tracer = fields.get("State", "X")[0], fields.get("TracerPid", "0")
        if state in stopped or tracer != "0":
            return "thread %d is in state %s, traced by %s" % (tid, state, tracer)
    return ""


def free(pid, seconds=5, stopped="tT"):
    """Becomes free within the time? "" or what holds it."""
    end = time.monotonic() + seconds
    while True:
        if status(pid).get("State", "Z")[0] in "ZX":
            return "the process is gone"
        problem = held(pid, stopped)
        if not problem or time.monotonic() > end:
            return problem
        time.sleep(0.005)


def stat_of(pid):
    """(comm, state, parent) or None."""
    text = read("/proc/%d/stat" % pid)
    found = re.match(r"\d+ \((.*)\) (\S) (\d+) ", text, re.S)
    return (found.group(1), found.group(2), int(found.group(3))) if found else None


def children(pid):
    """(pid, comm, state) of each child, of whichever thread, zombies too."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = stat_of(int(name))
            if stat and stat[2] == pid:
                found.append((int(name), stat[0], stat[1]))
    return sorted(found)


def lasting_children(pid, before=(), seconds=1.0):
    """Children that stay, besides those known before: (pid, comm, state). A process that forks has others all the time."""
    end = time.monotonic() + seconds
    staying = None
    while True:
        now = {c[0]: c for c in children(pid) if c[0] not in before}
        staying = now if staying is None else {p: now[p] for p in staying if p in now}
        if not staying or time.monotonic() > end:
            return sorted(staying.values())
        time.sleep(0.02)
