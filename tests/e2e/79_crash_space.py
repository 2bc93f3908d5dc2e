#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Crashes while the agent's state lies on a disk that is full: each is counted once, the process is gone as soon as ever, no
half file is taken for evidence, the kernel's log says why there is none, and what is wanted is not used up. With room again
the next crash has all of its evidence. The disk is a small tmpfs; it is full of bytes, then of files."""
import atexit
import glob
import os
import resource
import signal
import statistics
import subprocess
import time

from exceptiontest import VICTIMS, CorePattern, Handler, read, write
from trawltest import TMP, Agent, Collector, Skip, case, check, check_equal, main, pb, wait_for

SIZE, INODES = 192 << 20, 2000
TIMES = 5
STATE = os.path.join(TMP, "real-web-1/state")
SPOOL = STATE + "/crash"
EVIDENCE = (".txt", ".json", ".folded", ".log", ".core.zst", ".full.zst", ".tmp")
c = Collector("--evidence-host-hour", "200", "--incidents-hour", "200")
sre = c.person("sre")
pattern = handler = agent = None
normal_s, crashed = 0, {}


def crash(name):
    """One crash, and how long it took from its start to its being gone."""
    begin = time.monotonic()
    p = subprocess.Popen([os.path.join(TMP, name)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
    check_equal(p.wait(60), -signal.SIGSEGV, "it ended by")
    crashed.setdefault(name, []).append(p.pid)
    return time.monotonic() - begin


def group_of(name):
    """Where it was is not known of those that came at a time without room: they are groups of their own."""
    return [g for g in sre.trawl_json("groups", "--last", "1h") if g["process"] == name]


def counted(name):
    return sum(g["count"] for g in group_of(name))


def told(name):
    return [e for e in sre.trawl_json("exceptions", "--last", "1h") if e["process"] == name]


def handlers():
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if read(path).split("\0")[:2] == [handler.program, "crash"]:
                found.append(path)
        except OSError:
            pass
    return found


def evidence():
    """Files that are evidence, or were to be."""
    wait_for(lambda: not handlers(), "the handlers have ended", 60)
    return {n for n in os.listdir(SPOOL) if n.endswith(EVIDENCE)}


def exactly(name, count):
    """All are counted, and none twice."""
    wait_for(lambda: counted(name) >= count, "%d crashes of %s are counted" % (count, name), 60)
    wait_for(lambda: not glob.glob(SPOOL + "/*.begun") and not glob.glob(SPOOL + "/*.pb"), "all of the spool to be told", 60)
    until = time.monotonic() + 2.5  # by then the kernel's own line on it would be told, too
    while counted(name) == count and time.monotonic() < until:
        time.sleep(0.2)
    check_equal(counted(name), count, "crashes of %s that are counted: %s" %
                (name, [(g["source"], g["count"], [f["function"] for f in g["frames"]]) for g in group_of(name)]))


def fill():
    path = STATE + "/filler"
    with open(path, "wb", buffering=0) as f:
        for size in (1 << 20, 4096):
            try:
                while True:
                    f.write(b"x" * size)
            except OSError:
                pass
    free = os.statvfs(STATE)
    check(free.f_bavail * free.f_frsize < 4096, "the disk is not full")


def empty():
    for path in glob.glob(STATE + "/filler*"):
        os.remove(path)


def kernel_said(pid):
    lines = subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace").stdout.splitlines()
    return [line for line in lines if "trawl-agent: crash of pid %d:" % pid in line]


@case
def an_agent_whose_state_lies_on_a_small_disk():
    global pattern, handler, agent
    if os.geteuid():
        raise Skip("needs root")
    pattern = CorePattern()
    os.makedirs(STATE)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d,nr_inodes=%d,mode=755" % (SIZE, INODES), "trawl-test", STATE], check=True)
    atexit.register(lambda: subprocess.run(["umount", "-l", STATE]))
    write("/proc/sys/kernel/core_pattern", "core")
    for name in ("exc-room", "exc-full", "exc-files"):
        subprocess.run(["gcc", "-O1", "-g", "-o", os.path.join(TMP, name), VICTIMS + "/loop.c"], check=True)
    agent = Agent(c, "web-1", role="web")
    agent.wait_online()
    handler = Handler(agent)
    free = os.statvfs(STATE)
    print("      %d MiB free" % (free.f_bavail * free.f_frsize >> 20))


@case
def with_room_there_is_evidence():
    """The control."""
    global normal_s
    normal_s = statistics.median(crash("exc-room") for _ in range(TIMES))
    exactly("exc-room", TIMES)
    endings = {n.split(".", 1)[1] for n in evidence()}
    check({"txt", "json"} <= endings, "files: %s" % sorted(endings))
    check_equal(len(group_of("exc-room")), 1, "groups: %s" % [(g["count"], g["frames"], g["note"]) for g in group_of("exc-room")])
    check(all("disk" not in e["missing"] for e in told("exc-room")), "something is missing")


@case
def on_a_full_disk_each_crash_is_counted_once():
    there = evidence()
    fill()
    slow_s = statistics.median(crash("exc-full") for _ in range(TIMES))
    exactly("exc-full", TIMES)
    print("      gone after %.1f ms with room, %.1f ms without" % (normal_s * 1000, slow_s * 1000))
    check(slow_s < 2 * normal_s + 0.05, "%.1f ms without room, %.1f ms with" % (slow_s * 1000, normal_s * 1000))
    check_equal(evidence() - there, set(), "evidence, or half of it")
    words = ("space", "disk is full", "only counted", "nothing is known of this site")
    check(all(any(w in e["missing"] for w in words) for e in told("exc-full")),
          "what is said to be missing: %s" % [e["missing"] for e in told("exc-full")])
    # The kernel takes a few such lines in some seconds, so not of each.
    lines = [line for pid in crashed["exc-full"] for line in kernel_said(pid)]
    check(lines, "the kernel's log does not say it")
    print("      " + lines[0])
    check_equal([e["saved"] for e in told("exc-full") if e.get("saved")], [], "saved")


@case
def nor_is_a_wish_used_up():
    group = group_of("exc-room")[0]["id"]
    sre.trawl("want", group, "--what", "core", "-n", "1")
    # What the handler is to know cannot be written now; it is, with room.
    empty()
    agent.kill()
    agent.start()
    agent.wait_online()
    wait_for(lambda: os.path.exists(SPOOL + "/wants") and os.path.getsize(SPOOL + "/wants"), "the handler knows of the wish")
    fill()
    crash("exc-room")
    exactly("exc-room", TIMES + 1)
    check_equal([n for n in evidence() if ".full" in n], [], "a whole core without room")
    check_equal(sum(g["want_left"] for g in group_of("exc-room")), 1, "wishes left")
    empty()
    crash("exc-room")
    exactly("exc-room", TIMES + 2)
    wait_for(lambda: sum(g["want_left"] for g in group_of("exc-room")) == 0, "it is granted", 60)


@case
def without_room_for_a_file_each_crash_is_counted_once():
    fill()
    made = 0
    try:
        while True:
            os.close(os.open(STATE + "/filler%d" % made, os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError:
        pass
    check_equal(os.statvfs(STATE).f_favail, 0, "files that may still be made")
    for _ in range(TIMES):
        crash("exc-files")
    exactly("exc-files", TIMES)


@case
def with_room_again_the_next_crash_has_its_evidence():
    empty()
    before = evidence()
    # What had no room is tried again after some seconds only; what comes before is counted.
    wait_for(lambda: crash("exc-files") and evidence() - before, "evidence", 40)
    exactly("exc-files", len(crashed["exc-files"]))
    new = evidence() - before
    endings = {n.split(".", 1)[1] for n in new}
    check({"txt", "json", "folded"} <= endings and not any(n.endswith(".tmp") for n in new), "files: %s" % sorted(new))
    named = [g for g in group_of("exc-files") if any(f["function"] == "serve" for f in g["frames"])]
    check(len(named) == 1, "groups with a place: %d" % len(named))
    incident = wait_for(lambda: [g["incidents"] for g in group_of("exc-files") if g["incidents"]], "its incident")[-1][0]
    wait_for(lambda: {"txt", "json", "core"} <= {a.file.rsplit(".", 1)[-1] for i in
             {i for g in group_of("exc-files") for i in g["incidents"]} for a in sre.artifacts(i)
             if a.kind == "crash" and a.process == "exc-files" and a.sealed}, "its evidence in %s" % incident, 60)


@case
def the_core_pattern_is_as_it_was():
    handler.remove()
    check_equal(read("/proc/sys/kernel/core_pattern").strip(), "core", "core pattern after removal")
    pattern.put_back()


main()
