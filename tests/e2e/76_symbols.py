#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Symbols on the collector: what `trawl symbols add` sends, what is kept of it, what is refused, and that neither a damaged
file nor a death in the middle leaves anything behind. The names in a table are compared with addr2line's, for programs in C,
C++, Rust and Go. BUILD_DIR names the build folder (bench_symbols looks addresses up)."""
import glob
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import grpc

from trawltest import BIN, PIECE, TMP, Collector, Skip, case, check, check_equal, main, pb, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("BUILD_DIR") or os.path.dirname(BIN)
BENCH = os.path.join(BUILD, "bench/bench_symbols")
LARGE = next((p for p in ("/usr/bin/node", "/usr/bin/gdb") if os.path.exists(p)), BIN + "/trawl-collector")
SAMPLES = 3000

c = Collector()
dev = c.person("developer")

PROGRAM = r"""
#include <stdio.h>
static inline __attribute__((always_inline)) int twice(int x) { return x * 2 + 1; }
__attribute__((noinline)) int checkout(int a) { int s = 0; for (int i = 0; i < a; i++) s += twice(i) ^ %d; return s; }
__attribute__((noinline)) static int pay(int a) { return checkout(a) + twice(a); }
int main(int argc, char **argv) { (void)argv; printf("%%d\n", pay(argc)); return 0; }
"""
made = 0


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=TMP)
    check_equal(done.returncode, 0, "%s: %s" % (" ".join(command), done.stderr))
    return done.stdout


def program(*flags):
    """A new C program, each with its own build-id."""
    global made
    made += 1
    path = os.path.join(TMP, "server%d" % made)
    with open(path + ".c", "w") as f:
        f.write(PROGRAM % made)
    run("gcc", "-O2", "-g", "-Wl,--build-id", *flags, "-o", path, path + ".c")
    return path


def build_id(path):
    return re.search(r"Build ID: ([0-9a-f]+)", run("readelf", "-n", path)).group(1)


def listed():
    return {f.build_id.hex(): f for f in dev.many("Symbols", pb.SymbolsRequest(), pb.SymbolFile)}


def add(*words):
    """What `trawl symbols add` says of each file, its summary, and its exit status."""
    done = dev.trawl("symbols", "add", *words, "-o", "json")
    import json
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    check(lines or done.returncode, done.stderr)
    return [x for x in lines if x["type"] == "file"], lines[-1] if lines else {}, done


def upload(pieces, seconds=60):
    call = dev.channel.stream_unary("/trawl.v1.Operations/SymbolsAdd", request_serializer=pb.SymbolPiece.SerializeToString,
                                    response_deserializer=pb.SymbolFile.FromString)
    return call(pieces, timeout=seconds, wait_for_ready=True)


def pieces_of(data, name="x", size=None):
    count = max(1, (len(data) + PIECE - 1) // PIECE)
    for no in range(count):
        yield pb.SymbolPiece(name=name if no == 0 else "", data=data[no * PIECE:(no + 1) * PIECE], last=no == count - 1,
                             size_bytes=(len(data) if size is None else size) if no == 0 else 0)


def refusal(data, **more):
    try:
        upload(pieces_of(data, **more))
    except grpc.RpcError as e:
        return "%s: %s" % (e.code().name, e.details())
    raise AssertionError("it was taken")


def alive():
    check(c.process.poll() is None, "the collector ended with %r" % c.process.returncode)


def open_files():
    """Files that the collector holds in its data directory without a name."""
    found = []
    for fd in glob.glob("/proc/%d/fd/*" % c.process.pid):
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if "/symbols-" in target:
            found.append(target)
    return found


def children():
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                if int(f.read().rsplit(")", 1)[1].split()[1]) == c.process.pid:
                    found.append(int(path.split("/")[2]))
        except (OSError, IndexError):
            pass
    return found


# ---- what is in a table ----

def sections_of_code(path):
    ranges = []
    for line in run("readelf", "-SW", path).splitlines():
        words = line.replace("[ ", "[").split()
        if len(words) > 8 and words[0].startswith("[") and "X" in words[7] and words[1] == ".text":
            ranges.append((int(words[3], 16), int(words[5], 16)))
    return ranges


def last_part(name):
    """The name without its parameters, template arguments and scope, which the two write differently."""
    name = re.sub(r"\{+[^}]*\}+|\[[^\]]*\]|->", "", name.split("(")[0])
    while re.search(r"<[^<>]*>", name):
        name = re.sub(r"<[^<>]*>", "", name)
    return name.rstrip(":").split("::")[-1].split(" ")[-1].split(".")[-1]


def same_name(ours, theirs):
    return last_part(ours) == last_part(theirs) or (len(ours) >= 126 and ours[:110] in theirs)


def aliases_of(path):
    """Address -> all names that a symbol table has for it: libc has several for one function."""
    found = {}
    for line in run("nm", "-C", path).splitlines():
        words = line.split(" ", 2)
        if len(words) == 3 and words[0]:
            found.setdefault(words[0], set()).add(last_part(words[2]))
    return [names for names in found.values() if len(names) > 1]


def are_aliases(ours, theirs, aliases):
    pair = {last_part(ours), last_part(theirs)}
    return any(pair <= names for names in aliases)


def compare(path, lines_wanted=0.99, names_wanted=0.97, inlined=True):
    chance = random.Random(7)
    addresses = ["%x" % (start + chance.randrange(size)) for start, size in sections_of_code(path) for _ in range(SAMPLES)]
    asked = "\n".join(addresses) + "\n"
    ours = subprocess.run([BENCH, path, "-"], input=asked, capture_output=True, text=True).stdout.splitlines()
    theirs = subprocess.run(["addr2line", "-f", "-i", "-a", "-C", "-e", path], input=asked, capture_output=True, text=True).stdout
    groups = [part.strip().splitlines() for part in re.split(r"^0x[0-9a-f]+$", theirs, flags=re.M)[1:]]
    check_equal((len(ours), len(groups)), (len(addresses), len(addresses)), "answers")
    aliases = aliases_of(path)
    names = lines = known = padding = 0
    example = ""
    for address, own, group in zip(addresses, ours, groups):
        function, place = own.split("\t")
        file, line = place.rsplit(":", 1)
        their_file, their_line = group[1].split(" (")[0].rsplit(":", 1)
        their_line = their_line if their_line.isdigit() else "0"
        if function == "?":  # between two functions: addr2line names the one before
            padding += 1
            continue
        known += 1
        if not inlined and len(group) > 2:
            names += 1
            lines += line == their_line
            continue
        is_named = same_name(function, group[0]) or are_aliases(function, group[0], aliases)
        names += is_named
        same = line == their_line and (line == "0" or file.split("/")[-1] == their_file.split("/")[-1])
        lines += same
        if not same or not is_named:
            example = example or "%s: %s, addr2line %s" % (address, own, group[:2])
    print("      %s: %d addresses, %d between functions; names equal %d, lines equal %d of %d%s"
          % (os.path.basename(path), len(addresses), padding, names, lines, known, "; " + example if example else ""))
    check(known > len(addresses) * 0.8, "most of the code is known")
    check(names >= names_wanted * known, "names")
    check(lines >= lines_wanted * known, "lines")
    return ours


def language(name, *command):
    if not shutil.which(command[0]):
        raise Skip("no %s here (deploy/deps.sh)" % command[0])
    path = os.path.join(TMP, name)
    done = subprocess.run([*command, os.path.join(HERE, "../victims/languages", name)], capture_output=True, text=True, cwd=TMP,
                          env=dict(os.environ, GOCACHE=os.path.join(TMP, "go")))
    check_equal(done.returncode, 0, done.stderr)
    return path + ".exe"


@case
def names_and_lines_of_c_are_addr2lines():
    compare(BIN + "/trawl")


@case
def names_and_lines_of_cplusplus_are_addr2lines():
    compare(language("frames.cc", "g++", "-O2", "-g", "-pthread", "-static", "-Wl,--build-id", "-o", "frames.cc.exe"), 0.98, 0.9)


@case
def names_and_lines_of_rust_are_addr2lines():
    compare(language("frames.rs", "rustc", "--edition", "2021", "-O", "-g", "-C", "link-arg=-Wl,--build-id", "-o", "frames.rs.exe"),
            0.97, 0.9)


@case
def names_and_lines_of_go_are_addr2lines():
    # Binutils 2.40 names the caller where Go inlined (with the callee's line): names are compared elsewhere.
    compare(language("frames.go", "go", "build", "-ldflags=-B=0x" + "ab" * 20, "-o", "frames.go.exe"), 0.97, 0.95, inlined=False)


# ---- adding ----

@case
def better_replaces_worse_and_never_the_other_way():
    path = program()
    run("objcopy", "--only-keep-debug", path, path + ".debug")
    run("strip", "-g", "-o", path + ".symtab", path)
    files, total, done = add(path + ".symtab")
    check_equal((files[0]["state"], done.returncode, files[0]["lines"]), ("added", 0, 0), str(files))
    before = listed()[build_id(path)]
    check(before.functions > 2 and before.lines == 0 and before.added_by == "developer/developer", str(before))
    files, total, done = add(path + ".debug")
    check_equal((files[0]["state"], done.returncode), ("added", 0), str(files))
    check("replaces a table without lines" in files[0]["text"], files[0]["text"])
    after = listed()[build_id(path)]
    check(after.lines > 2 and after.functions >= before.functions, str(after))
    for worse, force in ((path + ".symtab", []), (path + ".symtab", ["--force"]), (path, []), (path, ["--force"])):
        files, total, done = add(worse, *force)
        check_equal((files[0]["state"], done.returncode, total["as_good"]), ("as good", 0, 1), str(files))
    check_equal(listed()[build_id(path)], after, "what is there stays")
    reply = upload(pieces_of(open(path + ".symtab", "rb").read(), name="other"))
    check(not reply.kept and "as good or better" in reply.text, str(reply))
    one = list(dev.many("Symbols", pb.SymbolsRequest(build_id=bytes.fromhex(build_id(path))), pb.SymbolFile))
    check_equal(one, [after], "asked for by its build-id")
    check_equal(list(dev.many("Symbols", pb.SymbolsRequest(build_id=b"\1" * 20), pb.SymbolFile)), [], "an unknown one")
    c.kill()
    c.start()
    dev.reconnect()
    check_equal(listed()[build_id(path)], after, "after the collector was killed")


@case
def a_directory_gives_what_is_in_it_once():
    tree = os.path.join(TMP, "tree")
    os.makedirs(tree + "/bin")
    paths = [program() for _ in range(3)]
    for path in paths:
        number = build_id(path)
        folder = tree + "/.build-id/" + number[:2]
        os.makedirs(folder, exist_ok=True)
        run("objcopy", "--only-keep-debug", path, "%s/%s.debug" % (folder, number[2:]))
        run("strip", "-g", "-o", tree + "/bin/" + os.path.basename(path), path)
    outside = program()
    os.symlink(outside, tree + "/bin/link")
    os.symlink(TMP, tree + "/loop")
    with open(tree + "/notes.txt", "w") as f:
        f.write("not a program")
    run("gcc", "-O2", "-Wl,--build-id=none", "-o", tree + "/bin/anonymous", outside + ".c")
    files, total, done = add(tree)
    check_equal((total["added"], total["refused"], total["duplicates"], done.returncode), (3, 0, 3, 0), str(total))
    check(all(f["path"].endswith(".debug") and f["lines"] > 2 for f in files), str(files))
    check(build_id(outside) not in listed(), "a link is not followed out of the directory")
    files, total, done = add(tree)
    check_equal((total["added"], total["as_good"], done.returncode), (0, 3, 0), "again: %s" % total)
    done = dev.trawl("symbols", "add", tree, outside, tree + "/notes.txt")
    check_equal(done.returncode, 3, done.stdout)
    check("5 files, 1 added, 3 already as good, 1 refused" in done.stdout and "notes.txt: it is not an ELF file" in done.stdout,
          done.stdout)
    done = dev.trawl("symbols", "list")
    check("server" in done.stdout and "FUNCTIONS" in done.stdout, done.stdout)


@case
def what_cannot_be_used_is_refused_with_what_would_be_right():
    path = program()
    run("gcc", "-O2", "-g", "-Wl,--build-id=none", "-o", path + ".noid", path + ".c")
    run("gcc", "-O2", "-g", "-c", "-o", path + ".o", path + ".c")
    run("gcc", "-O2", "-s", "-static-pie", "-Wl,--build-id", "-o", path + ".bare", path + ".c")
    data = open(path, "rb").read()
    with open(path + ".cut", "wb") as f:
        f.write(data[:len(data) // 2])
    for file, word in ((path + ".noid", "--build-id"), (path + ".o", "object file"), (path + ".c", "not an ELF file"),
                       (path + ".cut", "cut off"), (path + ".bare", "stripped")):
        files, total, done = add(file)
        check_equal((files[0]["state"], done.returncode), ("refused", 1), file)
        check(word in files[0]["text"], "%s: %s" % (file, files[0]["text"]))
        text = refusal(open(file, "rb").read())  # and by the collector itself
        check(word in text and text.startswith("FAILED_PRECONDITION"), text)
    check_equal(dev.trawl("symbols", "add", "/nowhere").returncode, 1)
    check("no such file" in dev.trawl("symbols", "add", "/nowhere").stderr, "a path that is not there")
    check_equal(dev.trawl("symbols", "add").returncode, 2)
    check("more than 2 GiB" in refusal(data, size=3 << 30), "too large")
    check("cut off" in refusal(data, size=len(data) + 1), "less than was said")
    text = refusal(b"")
    check("not an ELF file" in text, text)

    def without_last():
        for piece in pieces_of(data + b"\0" * PIECE):
            if not piece.last:
                yield piece
    try:
        upload(without_last())
        raise AssertionError("taken without a last piece")
    except grpc.RpcError as e:
        check("cut off" in e.details(), e.details())
    wait_for(lambda: not open_files() and not children(), "no file and no child is left")
    alive()


@case
def damaged_files_give_a_refusal_or_a_table_never_more():
    chance = random.Random(3)
    path = program()
    data = open(path, "rb").read()
    refused = taken = 0
    for i in range(60):
        bad = bytearray(data)
        begin = chance.choice((0, len(data) // 2, len(data) - 2000))
        for _ in range(chance.choice((1, 20, 400))):
            bad[chance.randrange(begin, len(bad))] = chance.choice((0, 255, 0x80, chance.randrange(256)))
        bad[:4] = data[:4]
        try:
            upload(pieces_of(bytes(bad)))
            taken += 1
        except grpc.RpcError as e:
            refused += 1
            check(e.code() == grpc.StatusCode.FAILED_PRECONDITION and e.details(), str(e))
    print("      %d refused, %d taken" % (refused, taken))
    check(refused > 0, "some were refused")
    alive()
    files, _, _ = add("--force", path)
    check(files[0]["state"] in ("added", "as good"), str(files))
    wait_for(lambda: not open_files() and not children(), "no file and no child is left")


@case
def a_reader_that_is_killed_is_only_a_refusal():
    killed = []
    stop = threading.Event()

    def hunt():
        while not stop.is_set():
            for pid in children():
                try:
                    os.kill(pid, signal.SIGSEGV)
                    killed.append(pid)
                except OSError:
                    pass
            time.sleep(0.001)
    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        files, total, done = add("--force", LARGE)
    finally:
        stop.set()
        hunter.join()
    check(killed, "the reader was found")
    check_equal((files[0]["state"], done.returncode), ("refused", 1), str(files))
    check("the process that read it" in files[0]["text"], files[0]["text"])
    alive()
    files, total, done = add(LARGE)
    check_equal((files[0]["state"], done.returncode), ("added", 0), "and then it is read: %s" % files)


@case
def the_reader_has_no_privilege_and_no_other_file():
    seen = {}
    stop = threading.Event()

    def look():
        while not stop.is_set() and not seen:
            for pid in children():
                try:
                    with open("/proc/%d/limits" % pid) as f:
                        limits = f.read()
                    with open("/proc/%d/status" % pid) as f:
                        status = f.read()
                    fds = sorted(os.listdir("/proc/%d/fd" % pid))
                except OSError:
                    continue
                if re.search(r"Max open files\s+3\s", limits):
                    seen.update(limits=limits, status=status, fds=fds)
            time.sleep(0.001)
    looker = threading.Thread(target=look)
    looker.start()
    add("--force", LARGE)
    stop.set()
    looker.join()
    check(seen, "the reader was seen")
    check_equal(seen["fds"], ["0", "1", "2"], "its files")
    check(re.search(r"NoNewPrivs:\s+1", seen["status"]), "no new privileges")
    check(os.geteuid() != 0 or re.search(r"Uid:\s+65534\s+65534\s+65534", seen["status"]), seen["status"])
    check(re.search(r"CapEff:\s+0+\n", seen["status"]), "no capability")
    check(re.search(r"Max cpu time\s+120\s", seen["limits"]), "a limit of time")


@case
def a_collector_killed_in_the_middle_leaves_nothing():
    path = program()
    gate = threading.Event()

    def slowly():
        data = open(LARGE, "rb").read()
        for no, piece in enumerate(pieces_of(data)):
            yield piece
            if no == 40:
                gate.wait(30)
    caller = threading.Thread(target=lambda: check_raises(lambda: upload(slowly())))
    caller.start()
    wait_for(open_files, "the upload has begun")
    before = set(listed())
    c.kill()
    gate.set()
    caller.join()
    c.start()
    dev.reconnect()
    check_equal(sorted(os.listdir(c.directory)), ["admin", "pki", "store"], "the data directory")
    check_equal(set(listed()), before, "what is known")
    chance = random.Random(5)
    for _ in range(8):
        other = program()
        sender = subprocess.Popen([BIN + "/trawl", "--context", dev.directory, "symbols", "add", "--force", other, LARGE],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, 0.7))  # any moment will do
        c.kill()
        sender.kill()
        sender.wait()
        c.start()
        dev.reconnect()
        for number, file in listed().items():
            check(file.functions and file.size_bytes, "only whole ones: %s" % file)
        check_equal(sorted(os.listdir(c.directory)), ["admin", "pki", "store"], "the data directory")
        files, _, done = add(other)
        check_equal(done.returncode, 0, str(files))
    files, _, done = add(path)
    check_equal(files[0]["state"], "added", str(files))


def check_raises(call):
    try:
        call()
    except grpc.RpcError:
        return
    raise AssertionError("it was answered")


@case
def uploads_wait_for_their_turn_and_hold_little_memory():
    def resident():
        with open("/proc/%d/status" % c.process.pid) as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) >> 10
    before, most = resident(), [0]
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            most[0] = max(most[0], resident())
            time.sleep(0.01)
    watcher = threading.Thread(target=watch)
    watcher.start()
    senders = [threading.Thread(target=add, args=("--force", LARGE)) for _ in range(6)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    stop.set()
    watcher.join()
    print("      6 uploads of %d MiB: %d MiB, before %d MiB" % (os.path.getsize(LARGE) >> 20, most[0], before))
    check(most[0] - before < (400 if "asan" in BIN else 64), "memory of the collector")
    wait_for(lambda: not open_files() and not children(), "no file and no child is left")
    alive()


@case
def an_orderly_stop_in_the_middle_ends():
    sender = subprocess.Popen([BIN + "/trawl", "--context", dev.directory, "symbols", "add", "--force", LARGE],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(open_files, "the upload has begun")
    check_equal(c.stop(), 0, "exit status")
    sender.kill()
    sender.wait()


main()
