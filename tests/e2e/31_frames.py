# SPDX-License-Identifier: Apache-2.0
"""Captured frames against gdb's live backtrace, address by address and function by function, of the programs that people
run: servers (nginx, PostgreSQL), languages (C++, Go, Rust, node, Java, Python), static and stripped programs, thousands of
threads. Where a frame differs, the artifact must say why by itself, and what it says must be true. BUILD_DIR names the build
folder; an argument names the parts to run (default: all)."""
import glob
import os
import re
import shutil
import subprocess
import sys

from framestest import by_gdb, compare, difference, is_guess, take, threads_of
from victimtest import BUILD, TAKE, TMP, end, finish, possible, report, run, say, start, start_ready, wait_for

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "victims", "languages")
PYTHON = "/usr/bin/python3"
THREADS = 3000


def source(name):
    return os.path.abspath(os.path.join(SOURCES, name))


def build(name, *command):
    """Compiles; the path of the program, or None (and a skip or a failure is reported)."""
    if not shutil.which(command[0]):
        report(name, "no %s here (deploy/deps.sh)" % command[0], skip=True)
        return None
    path = os.path.join(TMP, name)
    run = subprocess.run([*command, "-o", path, ] if "%o" not in command else [path if c == "%o" else c for c in command],
                         capture_output=True, text=True, cwd=TMP,
                         env=dict(os.environ, GOCACHE=os.path.join(TMP, "go"), GOFLAGS="-mod=mod", HOME=os.environ.get("HOME", TMP)))
    if run.returncode:
        report(name, "does not compile: " + run.stderr.strip()[-500:])
        return None
    return path


def names(frames):
    return [f["function"] or "?" for f in frames]


def in_order(wanted, found):
    """Whether each of `wanted` (a part of a name) stands in `found`, one after the other."""
    rest = iter(found)
    return all(any(w in name for name in rest) for w in wanted)


def expect_order(name, evidence, *wanted):
    """Some thread has these functions, innermost first."""
    stacks = [names(g["frames"]) for g in evidence["groups"]]
    report(name, "" if any(in_order(wanted, s) for s in stacks) else "%s not in %s" % (list(wanted), stacks))


# ---- servers ----

def nginx():
    if not shutil.which("nginx"):
        report("nginx", "not here (deploy/deps.sh)", skip=True)
        return
    conf = os.path.join(TMP, "nginx.conf")
    with open(conf, "w") as f:
        f.write("daemon off; worker_processes 1; pid %s/nginx.pid; error_log %s/nginx.log;\n"
                "events { worker_connections 64; }\n"
                "http { access_log off; server { listen unix:%s/nginx.sock; location / { return 200; } } }\n" % (TMP, TMP, TMP))
    master = start("nginx", "-c", conf, "-p", TMP, start_new_session=True)
    children = "/proc/%d/task/%d/children" % (master.pid, master.pid)
    wait_for(lambda: os.path.exists(TMP + "/nginx.sock") and open(children).read().split(), "nginx")
    worker = int(open(children).read().split()[0])
    compare("nginx, master", master.pid)
    compare("nginx, worker", worker)
    end(master)


def find_backend(postmaster):
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            pid = int(path.split("/")[2])
            with open(path) as f:
                parent = int(f.read().rsplit(") ", 1)[1].split()[1])
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                if parent == postmaster and b"SELECT" in f.read():
                    return pid
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
    wait_for(lambda: find_backend(server.pid), "a backend")
    evidence = compare("PostgreSQL, a backend in a query", find_backend(server.pid))
    expect_order("PostgreSQL: the query is seen", evidence, "WaitLatch", "pg_sleep", "PortalRun", "PostgresMain", "main")
    compare("PostgreSQL, postmaster", server.pid)
    end(client)
    end(server)


# ---- languages ----

def cplusplus():
    path = build("cplusplus", "g++", "-O2", "-g", "-pthread", source("frames.cc"))
    if not path:
        return
    process = start_ready(path)
    evidence = compare("C++ -O2", process.pid)
    expect_order("C++: a template under a lambda", evidence, "stand", "SquareIdLi3EE4area", "in_lambda")
    expect_order("C++: a destructor during unwinding", evidence, "stand", "GuardD", "in_unwinding")
    end(process)


def golang():
    path = build("golang", "go", "build", "-o", "%o", source("frames.go"))
    if not path:
        return
    process = start_ready(path)
    evidence = compare("Go", process.pid, may_explain=True)
    expect_order("Go: nested functions", evidence, "syscall.read", "main.inner", "main.middle", "main.outer", "runtime.goexit")
    end(process)
    stripped = build("golang_stripped", "go", "build", "-ldflags=-s -w", "-o", "%o", source("frames.go"))
    process = start_ready(stripped)
    _, evidence = take("stacks0", process.pid)
    cut = [g for g in evidence["groups"] if g["why_no_more"]]
    report("Go, stripped: what cannot be unwound is said",
           "" if cut and "no unwind information" in evidence["missing"] else evidence["missing"] or "nothing is said")
    sections = subprocess.run(["readelf", "-SW", stripped], capture_output=True, text=True).stdout
    report("Go, stripped: and it is true", "" if ".debug_frame" not in sections and ".eh_frame" not in sections else sections)
    end(process)


def rust():
    path = build("rust", "rustc", "--edition", "2021", "-O", "-g", source("frames.rs"))
    if not path:
        return
    process = start_ready(path)
    compare("Rust -O", process.pid, ("stacks",))
    evidence = compare("Rust -O", process.pid, ("stacks0",), may_explain=True)
    expect_order("Rust: a trait object under a closure", evidence, "sleep", "area", "middle", "outer")
    end(process)


def python():
    process = start_ready(PYTHON, source("frames.py"), cwd=TMP)
    evidence = compare("Python, native frames", process.pid)
    wanted = ["leaf", "middle", "Outer.method", "generator", "<lambda>", "_PyEval_EvalFrameDefault", "through_c"]
    expect_order("Python: functions between the native ones that run them", evidence, *wanted)
    frames = [f for g in evidence["groups"] for f in g["frames"] if f["function"] == "leaf"]
    with open(source("frames.py")) as f:
        line = next(n for n, text in enumerate(f, 1) if "time.sleep(" in text)
    problem = [f for f in frames if f["kind"] != "python" or f["file"] != source("frames.py") or f["line"] != line]
    report("Python: file and line of the call", problem or ("" if frames else "no frame"))
    report("Python: nothing is missing", evidence["missing"])
    report("Python: folded", "" if ";leaf (frames.py:%d);" % line in evidence["folded"] else evidence["folded"])
    end(process)


def all_sleep(pid):
    return all(open(path).read().rsplit(") ", 1)[1][0] == "S" for path in glob.glob("/proc/%d/task/*/stat" % pid))


def python_versions():
    """Those that are installed, by their own word against ours: faulthandler prints each thread's functions and lines."""
    found = sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3"))) + [PYTHON]
    dump = "import faulthandler,signal,runpy,sys;faulthandler.register(signal.SIGUSR1,all_threads=True);" \
           "runpy.run_path(sys.argv[1])"
    for path in found:
        version = subprocess.run([path, "-c", "import sys;print('%d.%d' % sys.version_info[:2])"], capture_output=True,
                                 text=True).stdout.strip()
        errors = os.path.join(TMP, "python.err")
        with open(errors, "w") as f:
            process = start_ready(path, "-c", dump, source("frames.py"), cwd=TMP, stderr=f)
        name = "Python %s (%s)" % (version, "shared" if "pyenv" in path else "system")
        wait_for(lambda: all_sleep(process.pid), "all threads wait")  # a running one has no stack without a stop
        _, evidence = take("stacks0", process.pid)
        if not 8 <= int(version.split(".")[1]) <= 12:
            words = evidence["missing"]
            report(name + ": said to be unknown", "" if "python frames: %s: " % version in words else words or "nothing is said")
            end(process)
            continue
        os.kill(process.pid, 10)
        wait_for(lambda: open(errors).read().count("File ") >= 20 and open(errors).read().endswith("\n"), "faulthandler")
        theirs = [re.findall(r'File "(.*)", line (\d+) in (\S+)', part) for part in open(errors).read().split("hread 0x")[1:]]
        ours = [[(f["file"], str(f["line"]), f["function"].rsplit(".", 1)[-1]) for f in g["frames"] if f["kind"] == "python"]
                for g in evidence["groups"] for _ in g["threads"]]
        # Files are told by their base name: what was run by a relative path is kept so until 3.8.
        bare = lambda stacks: sorted([(os.path.basename(a), b, c) for a, b, c in s] for s in stacks if s)
        report(name + ": functions and lines as the interpreter's own", "" if bare(ours) == bare(theirs) else
               "%s here, %s there" % (bare(ours), bare(theirs)))
        report(name + ": each between the native frames that run it",
               "" if all(starts_between(g["frames"]) for g in evidence["groups"]) else [names(g["frames"]) for g in evidence["groups"]])
        end(process)


def starts_between(frames):
    """After each row of Python functions comes the native function that runs them."""
    for a, b in zip(frames, frames[1:]):
        if a["kind"] == "python" and b["kind"] != "python" and not (b["function"] or "").startswith("_PyEval_EvalFrame") \
                and not b.get("inlined"):
            return False
    return True


def node():
    if not shutil.which("node"):
        report("node", "not here", skip=True)
        return
    path = os.path.realpath("/usr/bin/node" if os.path.exists("/usr/bin/node") else shutil.which("node"))
    process = start_ready(path, source("frames.js"), "idle")
    compare("node, idle", process.pid)
    end(process)
    options = ["--perf-basic-prof", "--interpreted-frames-native-stack"]
    process = start_ready(path, *options, source("frames.js"), "wait", cwd=TMP)
    evidence = compare("node, in JavaScript", process.pid, may_explain=True)
    expect_order("node: JavaScript functions between the native frames", evidence,
                 "FutexEmulation", "inner ", "middle ", "outer ", "Builtins_JSEntry", "LoadEnvironment", "_start")
    main = [g for g in evidence["groups"] if any(t["tid"] == process.pid for t in g["threads"])][0]
    report("node: the main thread's stack is whole", main["why_no_more"])
    end(process)
    names_file = "/tmp/perf-%d.map" % process.pid
    if os.path.exists(names_file):
        os.unlink(names_file)
    process = start_ready(path, "--interpreted-frames-native-stack", source("frames.js"), "wait", cwd=TMP)
    _, evidence = take("stacks", process.pid)
    report("node without a list of names: said", "" if "perf-" in evidence["missing"] else evidence["missing"] or "nothing is said")
    report("node without a list of names: and it is true", "" if not os.path.exists("/tmp/perf-%d.map" % process.pid) else "there is one")
    end(process)
    process = start_ready(path, *options, source("frames.js"), "spin", cwd=TMP)
    verdict, evidence = take("stacks", process.pid)
    expect_order("node, computing: its function is named", evidence, "inner ")
    end(process)
    os.unlink("/tmp/perf-%d.map" % process.pid)


def java():
    if not shutil.which("java") or not shutil.which("javac"):
        report("Java", "no JDK here", skip=True)
        return
    subprocess.run(["javac", "-d", TMP, source("Frames.java")], check=True)
    process = start_ready("java", "-Xshare:auto", "-Xmx64m", "-cp", TMP, "Frames")
    evidence = compare("Java", process.pid, may_explain=True)
    guesses = [f for g in evidence["groups"] for f in g["frames"] if is_guess(f)]
    report("Java: interpreted frames are marked", "" if guesses else "none is")
    report("Java: and said to have no name", "" if "perf-" in evidence["missing"] else evidence["missing"] or "nothing is said")
    native = [g for g in evidence["groups"] if not any(is_guess(f) for f in g["frames"])]
    report("Java: %d threads of the machine itself are whole" % sum(g["count"] for g in native),
           [g["why_no_more"] for g in native if g["why_no_more"]] or ("" if native else "none"))
    end(process)


# ---- how a program was made ----

def static():
    path = build("static", "gcc", "-O2", "-g", "-static", "-pthread", "-D_GNU_SOURCE",
                 os.path.join(SOURCES, "..", "threads.c"))
    if path:
        process = start_ready(path, "3")
        compare("a static program", process.pid)
        end(process)


def stripped():
    path = build("stripped", "gcc", "-O2", "-s", "-pthread", "-D_GNU_SOURCE", os.path.join(SOURCES, "..", "threads.c"))
    if path:
        process = start_ready(path, "3")
        evidence = compare("a stripped program", process.pid)
        plain = [f for g in evidence["groups"] for f in g["frames"] if f.get("module") == "stripped"]
        problem = [f for f in plain if f["function"] and f["function"] != "_start" or not f["build_id"] or not f["offset"]]
        report("a stripped program: module, build-id and offset of each frame", problem or ("" if plain else "none"))
        end(process)


def no_rules():
    """Without unwind information at all: marked, or said."""
    path = build("norules", "gcc", "-O2", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fomit-frame-pointer",
                 "-pthread", "-D_GNU_SOURCE", os.path.join(SOURCES, "..", "threads.c"))
    if not path:
        return
    process = start_ready(path, "3")
    for kind in ("stacks", "stacks0"):
        _, evidence = take(kind, process.pid)
        sleepers = [g for g in evidence["groups"] if g["threads"][0]["name"] == "sleeper"][0]
        said = any(is_guess(f) for f in sleepers["frames"]) or sleepers["why_no_more"] in evidence["missing"]
        report("no unwind information, %s: said" % kind, "" if said and sleepers["why_no_more"] else sleepers)
    end(process)


def thousands():
    process = start_ready(os.path.join(BUILD, "victims", "threads"), str(THREADS))
    verdict, evidence = take("stacks", process.pid, "--pause-max", "10s")
    busiest = evidence["groups"][0]
    report("%d threads: one group, one pause of %.1f ms" % (THREADS, verdict["pause_us"] / 1000),
           "" if busiest["count"] == THREADS and verdict["threads"] == THREADS + 1 else "%s" % verdict)
    expect_order("%d threads: their functions" % THREADS, evidence, "victim_inner", "victim_middle", "victim_outer", "sleeper")
    zero, evidence = take("stacks0", process.pid)
    report("%d threads without a stop: the same group" % THREADS,
           "" if evidence["groups"][0]["signature"] == busiest["signature"] and
           evidence["groups"][0]["count"] == THREADS else "%s" % zero)
    say("stacks: %d KiB, %.2f s of CPU; stacks0: %d KiB, %.2f s" %
        (verdict["rss_kib"], verdict["cpu_us"] / 1e6, zero["rss_kib"], zero["cpu_us"] / 1e6))
    refused, _ = take("stacks", process.pid, "--pause-max", "5ms")
    report("%d threads: refused above the limit, with the options" % THREADS,
           "" if re.match(r"pause would be \d+ ms, limit 5.0 ms: --pause-max allows more, 'stacks0' stops nothing$",
                          refused["text"]) and not refused["paused"] else "%s" % refused)
    end(process)


# ---- positive control ----

def control():
    """A comparison that could not fail would be none: frames of another process are not those of this one."""
    first = start_ready(os.path.join(BUILD, "victims", "threads"), "1")
    second = start_ready(os.path.join(BUILD, "victims", "frames"), "signal")
    _, evidence = take("stacks0", first.pid)
    theirs = by_gdb(second.pid)
    tid = min(threads_of(evidence)[0])
    evidence["groups"] = [g for g in evidence["groups"] if g["threads"][0]["tid"] == tid]
    problem, _ = difference(evidence, {tid: theirs[second.pid]}, True)
    report("a difference is found", "" if problem else "it was not")
    end(first)
    end(second)


sys.exit(run([control, nginx, postgresql, cplusplus, golang, rust, python, python_versions, node, java, static, stripped,
              no_rules, thousands]) if possible("frames", TAKE, "gdb") else finish())
