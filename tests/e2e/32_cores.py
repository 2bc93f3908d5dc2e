# SPDX-License-Identifier: Apache-2.0
"""What gdb, lldb and elfutils make of the kinds mini and core: of a C victim (dynamic, static, stripped, deleted, with
AddressSanitizer), redis-server, python3, node, Java, PostgreSQL and Go; and that a core from a snapshot is of one instant,
where a live one is not. BUILD_DIR names the build folder. Ends only what it started, by pid."""
import array
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys

from victimtest import TAKE, TMP, ask, end, finish, report, run, running, start, start_ready, victim_path, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
LEDGER_MIB = 64
SNAPSHOTS = 5
LIVE = 3
START = 1000

# Runs inside gdb: threads, their frames, and what is asked of it.
IN_GDB = r"""
import gdb, os
gdb.execute("set backtrace past-main on")
gdb.execute("set pagination off")
for thread in sorted(gdb.selected_inferior().threads(), key=lambda t: t.ptid[1]):
    thread.switch()
    frame, names = gdb.newest_frame(), []
    while frame:
        names.append(frame.name() or "?")
        if frame.name() == "victim_call":
            frame.select()
            print("LOCAL", thread.ptid[1], int(gdb.parse_and_eval("number")), gdb.parse_and_eval("text").string())
        frame = frame.older()
    print("THREAD", thread.ptid[1], ";".join(names))
for line in os.environ.get("FIND", "").splitlines():
    start, length, text = line.split(" ", 2)
    at = gdb.selected_inferior().search_memory(int(start, 16), int(length, 16), text.encode())
    if at is not None:
        print("FOUND", hex(at), bytes(gdb.selected_inferior().read_memory(at, len(text))).decode())
for name in os.environ.get("EVALUATE", "").splitlines():
    print("VALUE", gdb.parse_and_eval(name).string())
"""


def take(kind, pid, *options):
    """The path of the file, and what is said of it."""
    run = subprocess.run([TAKE, kind, str(pid), "-o", TMP, *options], capture_output=True, text=True)
    said = json.loads(run.stdout)
    if said["error"]:
        raise RuntimeError("%s: %s" % (said["error"], said["text"]))
    return os.path.join(TMP, kind + ".core"), said


KINDS = [("mini",), ("core",), ("core", "--live")]


def segments(path):
    """(address, bytes in the file, bytes in memory, offset) of each."""
    with open(path, "rb") as f:
        head = f.read(64)
        offset, = struct.unpack_from("<Q", head, 32)
        count, = struct.unpack_from("<H", head, 56)
        f.seek(offset)
        table = f.read(count * 56)
    for i in range(count):
        kind, flags, offset, address, _, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", table, i * 56)
        if kind == 1:
            yield address, in_file, in_memory, offset


def by_gdb(executable, core=None, pid=None, find="", evaluate=""):
    script = os.path.join(TMP, "in_gdb.py")
    with open(script, "w") as f:
        f.write(IN_GDB)
    command = ["gdb", "-nx", "-batch"] + (["-p", str(pid)] if pid else [executable, core]) + ["-x", script]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace",
                         env=dict(os.environ, DEBUGINFOD_URLS="", FIND=find, EVALUATE=evaluate))
    threads, rest = {}, []
    for line in run.stdout.splitlines():
        word, _, tail = line.partition(" ")
        if word == "THREAD":
            tid, _, names = tail.partition(" ")
            threads[int(tid)] = names.split(";")
        elif word in ("LOCAL", "FOUND", "VALUE"):
            rest.append(line)
    return threads, rest, run.stdout + run.stderr


def by_lldb(executable, core, *commands):
    run = ["lldb", "-x", "-b", "-o", "target create --core %s %s" % (core, executable)]
    for command in ("thread list", "thread backtrace all") + commands:
        run += ["-o", command]
    return subprocess.run(run, capture_output=True, text=True, errors="replace", env=dict(os.environ, DEBUGINFOD_URLS="")).stdout


def differ(live, core):
    """An idle process wakes now and then: only threads that slept at both times can be compared."""
    if sorted(live) != sorted(core):
        return "threads %s live, %s in the core" % (sorted(live), sorted(core))
    for tid in live:
        if live[tid] != core[tid]:
            return "thread %d: %s live, %s in the core" % (tid, live[tid], core[tid])
    return ""


def compare(name, executable, pid, kinds=KINDS):
    """The same frames as gdb shows live. A process that works between two looks gets some tries."""
    for kind in kinds:
        problem, frames = "", 0
        for _ in range(5):
            live, _, _ = by_gdb(executable, pid=pid)
            core, said = take(kind[0], pid, *kind[1:])
            dead, _, _ = by_gdb(executable, core)
            problem, frames = differ(live, dead), sum(len(f) for f in dead.values())
            if not problem and said["missed"] == 0:
                break
        report("%s, %s: gdb shows all %d threads, %d frames as live" % (name, " ".join(kind), len(dead), frames), problem)


def clean(name, path, kind):
    """elfutils finds nothing to complain of, and the file is as long as its headers say."""
    problems = []
    for option in ("-n", "-l", "-h"):
        run = subprocess.run(["eu-readelf", option, path], capture_output=True, text=True, errors="replace")
        if run.returncode or run.stderr:
            problems.append("eu-readelf %s: %s" % (option, run.stderr.strip()))
    end = max(offset + in_file for _, in_file, _, offset in segments(path))
    if end != os.path.getsize(path):
        problems.append("%d bytes, headers say %d" % (os.path.getsize(path), end))
    report("%s, %s: elfutils reads it" % (name, kind), "; ".join(problems))


def of_a_victim():
    path = victim_path("known")
    v = start_ready(path, "16", "5")
    ask(v)
    compare("C program", path, v.pid)
    for kind in KINDS:
        name = " ".join(kind)
        core, said = take(kind[0], v.pid, *kind[1:])
        threads, rest, _ = by_gdb(path, core, evaluate="changed_data")
        wanted = {"%d heap text of thread %d" % (41000 + i, i) for i in range(1, 6)}
        seen = {line.split(" ", 2)[2] for line in rest if line.startswith("LOCAL")}
        report("C program, %s: gdb shows locals and what they point at" % name, "" if seen == wanted else str(seen ^ wanted))
        report("C program, %s: gdb shows changed data" % name, "" if "VALUE changed data" in rest else str(rest[-1:]))
        clean("C program", core, name)
        text = by_lldb(path, core, "thread select 3", "frame select --relative 4", "p changed_data")
        tids = {int(t) for t in re.findall(r"thread #\d+: tid = (\d+)", text)}
        problem = "" if tids == set(threads) else "threads %s, in gdb %s" % (sorted(tids), sorted(threads))
        for i in range(1, 6):
            if not re.search(r'victim_call\(number=%d, text="heap text of thread %d"\)' % (41000 + i, i), text):
                problem = problem or "no frame of thread %d" % i
        if "changed data" not in text:
            problem = problem or "no changed data"
        report("C program, %s: lldb shows all threads, locals, heap and data" % name, problem)
    size = os.path.getsize(core)
    report("C program: 20 TiB of reserved memory cost nothing", "" if size < 32 << 20 else "%d bytes" % size)
    mine = os.stat(core).st_blocks * 512
    report("C program: zeros take no place on disk", "" if mine <= size else "%d of %d bytes" % (mine, size))
    end(v)


def find_text(name, executable, core, text):
    """By gdb, in every segment that has bytes: the file's own bytes are not trusted."""
    asked = "\n".join("%x %x %s" % (a, in_file, text) for a, in_file, _, _ in segments(core) if in_file)
    _, rest, said = by_gdb(executable, core, find=asked)
    found = [line for line in rest if line.startswith("FOUND")]
    report("%s: gdb finds a text of its heap" % name, "" if found and found[0].endswith(text) else "not found: " + said[-200:])


def of_node():
    if not shutil.which("node"):
        return report("node", "not installed", skip=True)
    script = "global.kept = ['Trawl', 'heap', 'text', 'of', 'node'].join('-'); console.log('ready'); setInterval(() => {}, 1e6)"
    v = start_ready("node", "-e", script)
    compare("node", shutil.which("node"), v.pid, [("core",)])
    core, said = take("core", v.pid)
    find_text("node", shutil.which("node"), core, "Trawl-heap-text-of-node")
    end(v)


JAVA = """public class Heap {
    static String kept;
    public static void main(String[] a) throws Exception {
        kept = String.join("-", "Trawl", "heap", "text", "of", "Java");
        System.out.println("ready");
        Thread.sleep(1000000);
    }
}
"""


def of_java():
    if not shutil.which("javac"):
        return report("Java", "no javac", skip=True)
    with open(os.path.join(TMP, "Heap.java"), "w") as f:
        f.write(JAVA)
    subprocess.run(["javac", "-d", TMP, os.path.join(TMP, "Heap.java")], check=True)
    v = start_ready("java", "-Xmx4g", "-cp", TMP, "Heap")
    core, said = take("core", v.pid)
    dead, _, _ = by_gdb(shutil.which("java"), core)
    tasks = len(os.listdir("/proc/%d/task" % v.pid))
    report("Java: gdb shows all %d threads" % tasks, "" if abs(len(dead) - tasks) <= 1 else "%d" % len(dead))
    find_text("Java", shutil.which("java"), core, "Trawl-heap-text-of-Java")
    size, reserved = os.path.getsize(core), sum(m for _, _, m, _ in segments(core))
    report("Java: its reserved heap costs nothing", "" if size < 256 << 20 else "%d of %d bytes" % (size, reserved))
    end(v)


def of_redis():
    if not shutil.which("redis-server"):
        return report("redis-server", "not installed", skip=True)
    path = os.path.join(TMP, "redis.sock")
    v = start("redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", TMP, stdout=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(path), "redis-server")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b"SET key Trawl-heap-text-of-redis\r\n")
        s.recv(64)
        compare("redis-server", shutil.which("redis-server"), v.pid)
        core, _ = take("core", v.pid)
        find_text("redis-server", shutil.which("redis-server"), core, "Trawl-heap-text-of-redis")
        s.sendall(b"PING\r\n")
        report("redis-server: answers on", "" if s.recv(64) == b"+PONG\r\n" else "it does not")
    end(v)


def of_python():
    script = "import threading, time; kept = '-'.join(['Trawl', 'heap', 'text', 'of', 'python']); " \
             "[threading.Thread(target=time.sleep, args=(1000,), daemon=True).start() for _ in range(3)]; " \
             "print('ready', flush=True); time.sleep(1000)"
    v = start_ready("/usr/bin/python3", "-c", script)
    compare("python3", "/usr/bin/python3", v.pid)
    core, _ = take("core", v.pid)
    find_text("python3", "/usr/bin/python3", core, "Trawl-heap-text-of-python")
    end(v)


def build(name, *options, compiler="cc"):
    path = os.path.join(TMP, name)
    command = [compiler, "-O2", "-g", "-D_GNU_SOURCE", "-pthread", *options, "-o", path,
               os.path.join(HERE, "..", "victims", "known.c")]
    run = subprocess.run(command, capture_output=True, text=True)
    return path if run.returncode == 0 else None


def of_builds():
    for name, options in (("static", ["-static"]), ("static PIE", ["-static-pie"]), ("not PIE", ["-no-pie"]),
                          ("AddressSanitizer", ["-fsanitize=address"])):
        path = build("known-" + name.replace(" ", "-"), *options)
        if not path:
            report(name, "cannot be built here", skip=True)
            continue
        v = start_ready(path, "1", "3", env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
        compare(name, path, v.pid)
        core, _ = take("core", v.pid)
        size = os.path.getsize(core)
        report("%s: no more than what it uses" % name, "" if size < 64 << 20 else "%d bytes" % size)
        end(v)


def of_stripped_and_deleted():
    path, other = build("known-gone"), os.path.join(TMP, "kept")
    shutil.copy(path, other)
    subprocess.run(["strip", path], check=True)
    v = start_ready(path, "1", "3")
    os.unlink(path)
    for kind in KINDS[1:]:
        core, _ = take(kind[0], v.pid, *kind[1:])
        _, rest, _ = by_gdb(other, core)
        report("deleted executable, %s: gdb shows locals with a copy of it" % " ".join(kind),
               "" if sum("heap text" in line for line in rest) == 3 else str(rest))
        text = subprocess.run(["eu-unstrip", "-n", "--core", core], capture_output=True, text=True).stdout
        report("deleted executable, %s: its build-id is in the core" % " ".join(kind), "" if "known-gone" in text else text)
        code = subprocess.run(["gdb", "-nx", "-batch", other, core, "-ex", "x/4i main"], capture_output=True, text=True).stdout
        report("deleted executable, %s: its code is in the core" % " ".join(kind), "" if code.count("<main") == 4 else code[-200:])
    end(v)


GO = """package main
import ("fmt"; "strings"; "time")
var kept string
func main() {
    kept = strings.Join([]string{"Trawl", "heap", "text", "of", "Go"}, "-")
    for i := 0; i < 10; i++ { go func() { time.Sleep(time.Hour) }() }
    fmt.Println("ready")
    time.Sleep(time.Hour)
}
"""


def of_go():
    if not shutil.which("go"):
        return report("Go", "not installed", skip=True)
    source, path = os.path.join(TMP, "heap.go"), os.path.join(TMP, "heap-go")
    with open(source, "w") as f:
        f.write(GO)
    run = subprocess.run(["go", "build", "-o", path, source], capture_output=True, text=True,
                         env=dict(os.environ, GOCACHE=os.path.join(TMP, "go"), GOFLAGS="-mod=mod", CGO_ENABLED="0", GO111MODULE="off"))
    if run.returncode:
        return report("Go", "cannot build: " + run.stderr[-100:], skip=True)
    v = start_ready(path)
    compare("Go", path, v.pid, [("mini",), ("core",)])
    core, _ = take("core", v.pid)
    find_text("Go", path, core, "Trawl-heap-text-of-Go")
    end(v)


def of_postgres():
    programs = sorted(os.path.join(d, "postgres") for d, _, files in os.walk("/usr/lib/postgresql") if "initdb" in files)
    if not programs or os.geteuid() != 0:
        return report("PostgreSQL", "not installed, or not root", skip=True)
    folder, binaries = os.path.join(TMP, "pg"), os.path.dirname(programs[-1])
    os.chmod(TMP, 0o755)
    os.mkdir(folder)
    shutil.chown(folder, "postgres")
    as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    subprocess.run(as_owner + [binaries + "/initdb", "-D", folder, "-A", "trust"], stdout=subprocess.DEVNULL, check=True)
    v = start(*as_owner, programs[-1], "-D", folder, "-k", folder, "-h", "", "-c", "shared_buffers=64MB",
              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    psql = as_owner + ["psql", "-h", folder, "-d", "postgres", "-tAc"]
    wait_for(lambda: subprocess.run(psql + ["select 1"], capture_output=True).returncode == 0, "PostgreSQL", 60)
    subprocess.run(psql + ["create table t as select 'Trawl-' || 'shared-text-' || i as x from generate_series(1, 2000) i"],
                   check=True, stdout=subprocess.DEVNULL)
    before = shared_of(v.pid)
    compare("PostgreSQL", programs[-1], v.pid, [("mini",), ("core",)])
    core, said = take("core", v.pid)
    find_text("PostgreSQL", programs[-1], core, "Trawl-shared-text-1999")
    size, after = os.path.getsize(core), shared_of(v.pid)
    report("PostgreSQL: shared memory that was not touched is not in it", "" if size < 100 << 20 else "%d bytes" % size)
    report("PostgreSQL: none was touched by it", "" if after <= before + 1024 else "%d KiB before, %d after" % (before, after))
    v.terminate()
    v.wait()


def shared_of(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"RssShmem:\s+(\d+)", f.read()).group(1))


def read_memory(core, table, address, count):
    for start, in_file, _, offset in table:
        if start <= address and address + count <= start + in_file:
            core.seek(offset + address - start)
            return core.read(count)
    raise RuntimeError("%x is not in the core" % address)


def audit(path, books, memory, number):
    """What a reader of the core sees wrong with the ledger; "" nothing."""
    table = list(segments(path))
    with open(path, "rb") as f:
        busy, amount = struct.unpack("<QQ", read_memory(f, table, books, 16))
        opened, = struct.unpack("<Q", read_memory(f, table, memory, 8))
        closed, = struct.unpack("<Q", read_memory(f, table, memory + 4096 + number * 8, 8))
        accounts = array.array("q", read_memory(f, table, memory + 4096, number * 8))
    lacking = START * number - sum(accounts)
    problems = []
    if opened - closed not in (0, 1):
        problems.append("%d moves open" % (opened - closed))
    if lacking != 0 and not (busy == 1 and lacking == amount):
        problems.append("%d lacking, %d on its way" % (lacking, amount if busy else 0))
    return ", ".join(problems)


def of_one_instant():
    v = start_ready(victim_path("ledger"), str(LEDGER_MIB))
    books, memory, number = ask(v).split()
    place = int(books, 16), int(memory, 16), int(number)
    wrong, pauses = [], []
    for _ in range(SNAPSHOTS):
        core, said = take("core", v.pid)
        pauses.append(said["pause_us"] / 1000)
        wrong.append(audit(core, *place))
    report("ledger: %d cores from snapshots are each of one instant (pauses %s ms)" % (SNAPSHOTS, pauses),
           "; ".join(w for w in wrong if w))
    wrong = [audit(take("core", v.pid, "--live")[0], *place) for _ in range(LIVE)]
    report("ledger: control: live cores are not (%s)" % next((w for w in wrong if w), ""), "" if any(wrong) else "all were right")
    end(v)


def nothing_is_left():
    left = running()
    report("nothing is left running", "" if not left else str(left))


def main():
    for tool in ("gdb", "lldb", "eu-readelf"):
        if not shutil.which(tool):
            report("cores", "no " + tool, skip=True)
            return finish()
    return run([of_a_victim, of_one_instant, of_builds, of_stripped_and_deleted, of_redis, of_python, of_node, of_java, of_go,
                of_postgres, nothing_is_left])


sys.exit(main())
