#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A second core of one process sends only what has changed; it is fetched as a whole file, from this incident or another,
and a base that is gone makes the next core whole. CORE_MIB is the size of the process (64)."""
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading

from trawltest import BIN, TMP, Agent, Collector, case, check, check_equal, main, pb, start, wait_for

VICTIMS = os.environ.get("TRAWL_VICTIMS") or os.path.join(os.path.dirname(BIN), "victims")
MIB = int(os.environ.get("CORE_MIB", "64"))
AGENT_KIB_MAX, WORKER_KIB_MAX = 8192, 32768
c = Collector()
admin, sre, developer = c.person("admin"), c.person("sre"), c.person("developer")
victim = agent = first = second = None


def children(pid):
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in out.split()]


def number(pid, file, pattern):
    try:
        with open("/proc/%d/%s" % (pid, file)) as f:
            return sum(int(n) for n in re.findall(pattern, f.read()))
    except OSError:
        return 0  # gone meanwhile


class Watch(threading.Thread):
    """The most memory that the agent's main process (private) and its workers (resident) have, in KiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.agent = self.worker = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            self.agent = max(self.agent, number(agent.process.pid, "smaps_rollup", r"Private_\w+:\s+(\d+)"))
            for broker in children(agent.process.pid):
                for worker in children(broker):
                    self.worker = max(self.worker, number(worker, "status", r"VmRSS:\s+(\d+)"))


def core(**more):
    """A core by the way that knows bases: at most 250 ms; tried again where the machine was too busy for that."""
    for _ in range(10):
        incident = sre.capture("web-1", process=pb.ProcessSelector(pid=victim.pid), what=["core"], pause_max_us=250000,
                               **more).incident
        t = wait_for(lambda: sre.targets(incident)["web-1"] if sre.targets(incident)["web-1"].state >= pb.DONE else None,
                     "a final state", 90 + MIB / 4)
        if t.state == pb.DONE or "limit" not in t.reason:
            break
    check_equal(t.state, pb.DONE, t.reason)
    return incident, newest(incident)


def watched_core():
    watch = Watch()
    watch.start()
    incident, a = core()
    watch.over.set()
    watch.join()
    print("      agent %d KiB private, worker %d KiB resident at most; paused %.1f ms, expected %.1f"
          % (watch.agent, watch.worker, a.pause_us / 1000, a.expected_us / 1000))
    check(0 < watch.agent < AGENT_KIB_MAX, "the agent's memory")
    check(0 < watch.worker < WORKER_KIB_MAX, "the worker's memory")
    return incident, a


def newest(incident):
    return max((a for a in sre.artifacts(incident) if a.kind == "core"), key=lambda a: a.no)


def fetch(incident, place):
    done = developer.trawl("fetch", incident, "-o", place, "-o", place)
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    folder = os.path.join(place, incident, "web-1")
    return folder, done.stdout


def blocks(path):
    """What is at which address, by page, from the program headers."""
    out = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True).stdout
    found = {}
    with open(path, "rb") as f:
        for offset, address, size in re.findall(r"LOAD +0x(\w+) 0x(\w+) 0x\w+ 0x(\w+)", out):
            offset, address, size = int(offset, 16), int(address, 16), int(size, 16)
            for at in range(0, size, 4096):
                f.seek(offset + at)
                found[address + at] = hashlib.md5(f.read(4096)).digest()
    return found


@case
def a_process_and_an_agent():
    global victim, agent
    program = os.path.join(TMP, "known-victim")
    shutil.copy(os.path.join(VICTIMS, "known"), program)
    out = os.path.join(TMP, "victim.out")
    victim = start([program, str(MIB), "4"], out)
    wait_for(lambda: open(out).read().startswith("ready"), "the victim's memory", 60)
    agent = Agent(c, "web-1")
    agent.wait_online()
    # The broker measures what pauses cost, on a child with memory of its own: that is no worker.
    wait_for(lambda: all(not children(broker) for broker in children(agent.process.pid)), "the costs of pauses")


@case
def the_first_core_is_whole():
    global first
    incident, a = watched_core()
    first = (incident, a)
    check_equal(a.encoding, "zstd")
    check_equal(a.base_no, 0)
    check(a.size_bytes > MIB << 19, "%d bytes" % a.size_bytes)


@case
def the_second_sends_only_what_has_changed():
    global second
    incident, a = watched_core()
    second = (incident, a)
    check_equal((a.encoding, a.base_incident, a.base_no), ("zstd-delta", first[0], first[1].no))
    check(a.size_bytes * 20 < first[1].size_bytes, "%d of %d bytes" % (a.size_bytes, first[1].size_bytes))
    print("      %d bytes after %d" % (a.size_bytes, first[1].size_bytes))


@case
def it_is_fetched_as_a_whole_file():
    place = os.path.join(TMP, "fetched")
    folder, _ = fetch(second[0], place)
    path = os.path.join(folder, second[1].file)
    check_equal(sorted(n for n in os.listdir(folder) if "base" in n or n.endswith(".part")), [], "left over")
    whole, _ = fetch(first[0], place)
    old, new = blocks(os.path.join(whole, first[1].file)), blocks(path)
    check(len(new) > MIB * 256, "%d pages" % len(new))
    check_equal(os.path.getsize(path), second[1].plain_bytes)
    same = sum(new[a] == old.get(a) for a in new)
    check(same > len(new) * 0.95 and same < len(new) + 1, "%d of %d pages" % (same, len(new)))
    if shutil.which("gdb"):
        done = subprocess.run(["gdb", "-batch", "-nx", "-ex", "info threads", "-ex", "p (char*)changed_data",
                               os.path.join(TMP, "known-victim"), path], capture_output=True, text=True, timeout=60)
        check("changed data" in done.stdout, done.stdout[-2000:] + done.stderr[-500:])
        check_equal(len(re.findall(r"^[* ] +\d+ ", done.stdout, re.M)), 5, done.stdout[-2000:])
    again, said = fetch(second[0], place)
    check("were there" in said, said)
    check_equal(sorted(n for n in os.listdir(again) if "base" in n), [], "fetched again")


@case
def a_fetch_that_was_broken_off_goes_on():
    place = os.path.join(TMP, "broken")
    folder = os.path.join(place, second[0], "web-1")
    os.makedirs(folder)
    base = ".base-%s-%u" % (first[0], first[1].no)
    data = sre.fetch(first[0], "web-1", first[1].no)
    with open(os.path.join(folder, base + ".part"), "wb") as f:
        f.write(data[:len(data) // 2])
    fetch(second[0], place)
    check(os.path.getsize(os.path.join(folder, second[1].file)) > MIB << 20, "its size")


@case
def both_in_one_incident():
    incident, a = core(into=first[0])
    check_equal((a.encoding, a.base_incident), ("zstd-delta", first[0]))
    place = os.path.join(TMP, "both")
    folder, _ = fetch(incident, place)
    with open(os.path.join(place, incident, "manifest.json")) as f:
        manifest = json.load(f)
    for entry in manifest["artifacts"]:
        check(os.path.getsize(os.path.join(place, incident, entry["path"])) > MIB << 20, entry)
    check_equal(sorted(n for n in os.listdir(folder) if "base" in n), [])


@case
def a_base_of_another_process_is_not_taken():
    global victim
    victim.kill()
    victim.wait()
    out = os.path.join(TMP, "victim2.out")
    victim = start([os.path.join(TMP, "known-victim"), "16", "2"], out)
    wait_for(lambda: open(out).read().startswith("ready"), "the victim's memory", 60)
    incident, a = core()
    check_equal((a.encoding, a.base_no), ("zstd", 0))


@case
def a_damaged_list_makes_the_next_core_whole():
    folder = os.path.join(agent.directory, "state", "pages")
    lists = [n for n in os.listdir(folder) if n.startswith("%d." % victim.pid)]
    check_equal(len(lists), 1, str(os.listdir(folder)))
    with open(os.path.join(folder, lists[0]), "r+b") as f:
        f.truncate(os.path.getsize(f.name) - 1)
    incident, a = core()
    check_equal((a.encoding, a.base_no), ("zstd", 0))
    incident, a = core()
    check_equal(a.encoding, "zstd-delta")


@case
def a_core_that_is_gone_at_the_collector_is_no_base():
    folder = os.path.join(agent.directory, "state", "pages")
    name = next(n for n in os.listdir(folder) if n.startswith("%d." % victim.pid))
    parts = name.split(".")
    parts[2] = "999"
    os.rename(os.path.join(folder, name), os.path.join(folder, ".".join(parts)))
    incident = sre.capture("web-1", process=pb.ProcessSelector(pid=victim.pid), what=["core"], pause_max_us=250000).incident
    t = wait_for(lambda: sre.targets(incident)["web-1"] if sre.targets(incident)["web-1"].state >= pb.DONE else None,
                 "a final state", 90)
    if "limit" not in t.reason:
        check_equal(t.state, pb.FAILED, t.reason)
        check("is not here" in t.reason, t.reason)
        incident, a = core()
        check_equal((a.encoding, a.base_no), ("zstd", 0))


main()
