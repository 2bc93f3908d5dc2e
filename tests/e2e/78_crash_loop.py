#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A program that crashes over and over: one group, the exact count, a few samples, and the evidence of another program's
crash in the middle is whole; what agent and collector cost meanwhile. Then crashes while agent, collector and handlers are
killed: each is counted once, the handler that was there before got every core, the core pattern is as it was; then handlers
that are killed from their first instant on, where the kernel's line is all that may be left of a crash. COUNT and RATE (a
minute) say how many crashes the loop has, CRASHES how many there are among the kills, EARLY among the early ones, SEED which
kills."""
import glob
import os
import random
import shutil
import signal
import subprocess
import threading
import time

from exceptiontest import VICTIMS, CorePattern, Handler, Saver, own_copy, read, write
from trawltest import BIN, TMP, Agent, Collector, Skip, case, check, check_equal, main, pb, wait_for

COUNT = int(os.environ.get("COUNT", "200"))
RATE = int(os.environ.get("RATE", "1000"))
CRASHES = int(os.environ.get("CRASHES", "40"))
EARLY = int(os.environ.get("EARLY", "24"))
SEED = int(os.environ.get("SEED", str(os.getpid())))
SAMPLES = 3
MIB = 1 << 20
SANITIZED = "asan" in os.environ.get("BUILD_DIR", "")
TICKS = os.sysconf("SC_CLK_TCK")
c = Collector()
sre = c.person("sre")
pattern = saver = handler = agent = None


def private_bytes(pid):
    text = read("/proc/%d/smaps_rollup" % pid)
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Private_"))


def cpu_seconds(pid):
    fields = read("/proc/%d/stat" % pid).rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Watched:
    """What a process cost between two moments, and how large it was at most."""

    def __init__(self, name, pid):
        self.name, self.pid, self.most = name, pid, 0
        self.begin, self.cpu = time.monotonic(), cpu_seconds(pid)

    def look(self):
        self.most = max(self.most, private_bytes(self.pid))

    def say(self):
        self.look()
        seconds = time.monotonic() - self.begin
        print("      %s: %.2f s of CPU in %.1f s (%.1f %% of a core), at most %.2f MiB private" %
              (self.name, cpu_seconds(self.pid) - self.cpu, seconds,
               100 * (cpu_seconds(self.pid) - self.cpu) / seconds, self.most / MIB))


def group_of(process):
    """The groups of one program, as `trawl groups` tells."""
    return [g for g in sre.trawl_json("groups", "--last", "1h") if g["process"] == process]


def counted(process):
    return sum(g["count"] for g in group_of(process))


def run_victim(path, *arguments):
    return subprocess.run([path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@case
def an_agent_with_a_crash_handler():
    global pattern, saver, handler, agent
    if os.geteuid():
        raise Skip("needs root")
    pattern, saver = CorePattern(), Saver(keep=False)
    write("/proc/sys/kernel/core_pattern", saver.pattern)
    subprocess.run(["gcc", "-O1", "-g", "-o", os.path.join(TMP, "exc-loop"), VICTIMS + "/loop.c"], check=True)
    for name in ("exc-other", "exc-killed", "exc-lost", "exc-early"):
        own_copy(name, os.path.join(TMP, "exc-loop"))
    agent = Agent(c, "web-1", role="web")
    agent.wait_online()
    handler = Handler(agent)


@case
def a_crash_loop_is_one_group_with_an_exact_count():
    path = os.path.join(TMP, "exc-loop")
    watched = [Watched("agent", agent.process.pid), Watched("collector", c.process.pid)]
    begin = time.monotonic()
    other = None
    for i in range(COUNT):
        check_equal(run_victim(path).returncode, -signal.SIGSEGV, "it ended by")
        if i == COUNT // 2:
            other = subprocess.Popen([os.path.join(TMP, "exc-other"), "other"], stderr=subprocess.DEVNULL)
            other.wait()
        if i % 10 == 0:
            for w in watched:
                w.look()
        ahead = begin + i * 60 / RATE - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)  # the rate is part of what is measured
    print("      %d crashes in %.1f s" % (COUNT, time.monotonic() - begin))
    wait_for(lambda: counted("exc-loop") >= COUNT, "%d crashes are counted" % COUNT, 60)
    for w in watched:
        w.say()
    check(SANITIZED or watched[0].most < 4 * MIB, "the agent had %.2f MiB" % (watched[0].most / MIB))
    groups = group_of("exc-loop")
    check_equal([g["count"] for g in groups], [COUNT], "counts of the groups of the loop")
    check(1 <= groups[0]["samples"] <= SAMPLES, "%d samples" % groups[0]["samples"])
    check(1 <= groups[0]["evidence"] <= SAMPLES, "%d with evidence" % groups[0]["evidence"])


@case
def the_crash_in_the_middle_keeps_its_evidence():
    group = wait_for(lambda: group_of("exc-other"), "a group of the other program")
    check_equal([g["count"] for g in group], [1], "counts")
    incident = wait_for(lambda: group_of("exc-other")[0]["incidents"], "its incident")[0]

    def crash():
        return [a for a in sre.artifacts(incident) if a.kind == "crash" and a.process == "exc-other" and a.sealed]
    files = wait_for(lambda: len(crash()) >= 4 and crash(), "the files of its crash", 60)
    endings = {a.file.rsplit(".", 1)[-1] for a in files}
    check({"txt", "json", "core"} <= endings, "files: %s" % sorted(endings))


@case
def the_host_keeps_a_few_files_of_the_loop():
    names = os.listdir(agent.directory + "/state/crash")
    bytes_ = sum(os.path.getsize(os.path.join(agent.directory, "state/crash", n)) for n in names)
    print("      %d files, %.1f MiB are left in the agent's folder of crashes" % (len(names), bytes_ / MIB))
    check(bytes_ < 64 * MIB, "%d bytes" % bytes_)


# ---- killed at random ----

def handlers():
    """Handlers of this test that the kernel has started and that still run."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = read(path).split("\0")
            if handler and len(words) > 1 and words[0] == handler.program and words[1] == "crash":
                found.append(int(path.split("/")[2]))
        except OSError:
            pass
    return found


def restart_agent():
    agent.start()
    agent.wait_online()


class Killer(threading.Thread):
    """Kills what runs of Trawl, at random, until it is told to end; what was killed runs again afterwards."""

    def __init__(self, random_numbers):
        super().__init__(daemon=True)
        self.random, self.over = random_numbers, threading.Event()
        self.killed = {"agent": 0, "collector": 0, "handler": 0}

    def run(self):
        while not self.over.wait(self.random.uniform(0.02, 0.2)):
            what = self.random.choice(["agent", "collector", "handler", "handler"])
            if what == "agent" and agent.process.poll() is None:
                agent.kill()
                agent.start()
            elif what == "collector":
                c.kill()
                c.start()
                sre.reconnect()
            else:
                for pid in handlers():
                    try:
                        os.kill(pid, signal.SIGKILL)
                        self.killed["handler"] += 1
                    except ProcessLookupError:
                        pass
                continue
            self.killed[what] += 1


@case
def each_crash_among_kills_is_counted_once():
    print("      SEED=%d" % SEED)
    numbers = random.Random(SEED)
    path = os.path.join(TMP, "exc-killed")
    before = len(saver.pids())
    killer = Killer(numbers)
    killer.start()
    pids = []
    for _ in range(CRASHES):
        victim = subprocess.Popen([path], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pids.append(victim.pid)
        check_equal(victim.wait(60), -signal.SIGSEGV, "it ended by")
        time.sleep(numbers.uniform(0, 0.1))
    killer.over.set()
    killer.join()
    agent.wait_online()
    print("      %d crashes, killed: %s" % (CRASHES, killer.killed))
    c.pids = pids
    wait_for(lambda: counted("exc-killed") + len(gaps()) >= CRASHES, "%d crashes are counted or listed as gaps" % CRASHES, 60)
    time.sleep(3)  # what would be counted twice comes by then
    print("      %d counted, %d listed as gaps" % (counted("exc-killed"), len(gaps())))
    check_equal(counted("exc-killed") + len(gaps()), CRASHES, "counted, or listed as gaps")
    # A handler that was killed could not hand its core on; all others did, each once.
    least = CRASHES - killer.killed["handler"]
    wait_for(lambda: len(saver.pids()) - before >= least, "the handler of before got the cores")
    got = saver.pids()[before:]
    print("      the handler of before got %d of %d cores" % (len(got), CRASHES))
    check_equal(len(set(got)), len(got), "cores that it got twice")
    check(set(got) <= set(pids), "it got cores of others: %s" % sorted(set(got) - set(pids)))


def gaps():
    return [e for e in sre.trawl_json("events", "--last", "10m") if e["event"] == "data_gap" and "crash" in e["text"]]


# ---- killed from the first instant on ----

# Becomes the handler, and is killed after so many microseconds as the file beside it says: from before its first instruction.
BRIEF = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    long us = 0;
    FILE *f = fopen(DELAY, "r");
    if (!f || fscanf(f, "%ld", &us) != 1 || argc < 2)
        return 1;
    fclose(f);
    pid_t self = getpid();
    if (fork() == 0) {
        close(0); /* the crashed process must not wait for us */
        struct timespec t = {us / 1000000, us % 1000000 * 1000};
        nanosleep(&t, NULL);
        if (getppid() == self)
            kill(self, SIGKILL);
        _exit(0);
    }
    argv[0] = PROGRAM;
    execv(PROGRAM, argv);
    return 1;
}
"""


def brief_handler():
    path, delay = os.path.join(handler.directory, "b"), os.path.join(TMP, "delay")
    subprocess.run(["gcc", "-x", "c", "-O1", "-o", path, "-", '-DDELAY="%s"' % delay, '-DPROGRAM="%s"' % handler.program],
                   input=BRIEF, text=True, check=True)
    return path, delay


def lines_of_the_kernel(pids):
    text = subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace").stdout
    return {pid for pid in pids if "exc-early[%d]: segfault" % pid in text}


@case
def a_handler_that_is_killed_from_its_start_on_leaves_one_word_or_none():
    """Before its marker is there only the kernel's line tells of a crash; it limits how many it writes."""
    numbers = random.Random(SEED)
    path, delay = brief_handler()
    ours = read("/proc/sys/kernel/core_pattern").strip()
    write("/proc/sys/kernel/core_pattern", ours.replace(handler.program, path) + "\n")
    pids = []
    try:
        for _ in range(EARLY):
            write(delay, "%d" % int(10 ** numbers.uniform(1, 4.7)))  # 10 us to 50 ms
            victim = subprocess.Popen([os.path.join(TMP, "exc-early")], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            pids.append(victim.pid)
            check_equal(victim.wait(60), -signal.SIGSEGV, "it ended by")
            time.sleep(0.6)  # the kernel writes ten such lines in five seconds
    finally:
        write("/proc/sys/kernel/core_pattern", ours + "\n")
    wait_for(lambda: not handlers(), "the handlers have ended")
    spool = agent.directory + "/state/crash"
    wait_for(lambda: not glob.glob(spool + "/*.begun") and not glob.glob(spool + "/*.pb"), "all of the spool to be told", 60)
    lines = lines_of_the_kernel(pids)
    wait_for(lambda: counted("exc-early") >= len(lines), "each of which the kernel has a line is counted", 60)
    until = time.monotonic() + 4  # what would be counted twice comes by then
    while time.monotonic() < until:
        time.sleep(0.2)
    by = {g["source"]: sum(h["count"] for h in group_of("exc-early") if h["source"] == g["source"]) for g in group_of("exc-early")}
    print("      %d crashes: counted by %s; the kernel has %d lines" % (EARLY, by, len(lines)))
    check(len(lines) <= counted("exc-early") <= EARLY, "%d of %d are counted, %d have a line" % (counted("exc-early"), EARLY, len(lines)))
    check(len(lines) < EARLY or counted("exc-early") == EARLY, "each has a line, %d of %d are counted" % (counted("exc-early"), EARLY))
    # Without both a handler that was killed early and one that was not, nothing was tested.
    check(by.get("fault_line", 0) > 0 and by.get("crash", 0) > 0, "by whom they are counted: %s" % by)


@case
def a_spool_that_is_thrown_away_is_found_short():
    """The control of the case above: counting would notice what is lost."""
    agent.kill()
    path = os.path.join(TMP, "exc-lost")
    for _ in range(5):
        check_equal(run_victim(path).returncode, -signal.SIGSEGV, "it ended by")
    wait_for(lambda: not handlers(), "the handlers have ended")
    spool = agent.directory + "/state/crash"
    names = os.listdir(spool)
    check(names, "the spool is empty")
    for name in names:
        os.remove(os.path.join(spool, name))
    restart_agent()
    run_victim(path)
    wait_for(lambda: counted("exc-lost") > 0, "the last crash is counted")
    check(counted("exc-lost") < 6, "%d of 6 crashes were counted although the spool was thrown away" % counted("exc-lost"))


@case
def the_core_pattern_is_as_it_was():
    check(read("/proc/sys/kernel/core_pattern").strip() != saver.pattern, "our handler was lost on the way")
    handler.remove()
    check_equal(read("/proc/sys/kernel/core_pattern").strip(), saver.pattern, "core pattern after removal")
    pattern.put_back()


main()
