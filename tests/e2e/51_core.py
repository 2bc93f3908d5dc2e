#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Cores with real programs: taken from a process of known memory, sent while they are taken, over a slow link, with the
agent and the collector killed and the capture cancelled in the middle; what is taken instead; one at a time. Whatever
happens, the process goes on, untraced, without a child."""
import hashlib
import os
import re
import shutil
import socket
import subprocess
import time

from trawltest import BIN, TMP, Agent, Collector, case, check, check_equal, free_ports, main, pb, start, wait_for

VICTIM = os.environ.get("TRAWL_VICTIMS") or os.path.join(os.path.dirname(BIN), "victims")
MIB = int(os.environ.get("CORE_MIB", "64"))
c = Collector()
admin, sre = c.person("admin"), c.person("sre")
victim = agent = None


def children(pid):
    out = subprocess.run(["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True)
    return out.stdout.split()


def status_of(pid):
    with open("/proc/%d/status" % pid) as f:
        text = f.read()
    return re.search(r"State:\s+(\w)", text).group(1), int(re.search(r"TracerPid:\s+(\d+)", text).group(1))


def victim_is_unharmed(seconds=8):
    check(victim.poll() is None, "the victim ended")
    wait_for(lambda: status_of(victim.pid)[1] == 0 and not children(victim.pid),
             "untraced and without a child: %s %s" % (status_of(victim.pid), children(victim.pid)), seconds)
    check(status_of(victim.pid)[0] in "SR", status_of(victim.pid)[0])


def core(**more):
    more.setdefault("what", ["core"])
    # So that a busy machine does not refuse what is not about the pause.
    more.setdefault("pause_max_us", 1000000 if "core" in more["what"] else 250000)
    more.setdefault("allow_pause", more["pause_max_us"] > 250000)
    return sre.capture("web-1", process=pb.ProcessSelector(pid=victim.pid), **more).incident


def is_free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def target(incident):
    return sre.targets(incident)["web-1"]


def ended(incident, seconds=60):
    return wait_for(lambda: target(incident) if target(incident).state >= pb.DONE else None, "a final state", seconds)


def under_way(incident):
    """The worker streams: its twin is there."""
    return wait_for(lambda: children(victim.pid), "a twin of the victim: " + target(incident).reason)


def private_kib(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(n) for n in re.findall(r"Private_\w+:\s+(\d+)", f.read()))


@case
def an_agent_with_a_slow_link():
    global victim, agent
    program = os.path.join(TMP, "memory-victim")
    shutil.copy(os.path.join(VICTIM, "known"), program)
    out = os.path.join(TMP, "victim.out")
    victim = start([program, str(MIB), "8"], out)
    wait_for(lambda: open(out).read().startswith("ready"), "the victim's memory", 60)
    agent = Agent(c, "web-1", "--upload-rate", "6M")
    agent.wait_online()


@case
def a_core_arrives_and_opens():
    began = time.monotonic()
    incident = core()
    most = 0
    while target(incident).state < pb.DONE:
        most = max(most, private_kib(agent.process.pid))
        time.sleep(0.01)
    took = time.monotonic() - began
    t = target(incident)
    check_equal(t.state, pb.DONE, t.reason)
    a = next(a for a in sre.artifacts(incident) if a.kind == "core")
    check_equal(a.encoding, "zstd")
    check(a.sealed and a.paused and 0 < a.pause_us < 1000000, str(a))
    check(a.size_bytes > MIB << 19, "%d bytes" % a.size_bytes)
    victim_is_unharmed()
    data = sre.fetch(incident, "web-1", a.no)
    check_equal(hashlib.sha256(data).digest(), a.sha256)
    packed, plain = os.path.join(TMP, "packed"), os.path.join(TMP, "plain.core")
    with open(packed, "wb") as f:
        f.write(data)
    subprocess.run(["zstd", "-q", "-d", "-f", packed, "-o", plain], check=True)
    check(os.path.getsize(plain) > MIB << 20, "size of the core")
    if shutil.which("gdb"):
        done = subprocess.run(["gdb", "-batch", "-nx", "-ex", "info threads", "-ex", "p (char*)changed_data",
                               os.path.join(TMP, "memory-victim"), plain], capture_output=True, text=True, timeout=60)
        check("changed data" in done.stdout, done.stdout[-2000:] + done.stderr[-500:])
        check(len(re.findall(r"^[* ] +\d+ ", done.stdout, re.M)) == 9, done.stdout[-2000:])
    check(most < 8192, "private memory of the agent: %d KiB" % most)
    print("      %d MiB, %d MiB packed, in %.1f s; paused %.1f ms, expected %.1f; private memory of the agent %d KiB at most"
          % (MIB, a.size_bytes >> 20, took, a.pause_us / 1000, a.expected_us / 1000, most))


@case
def no_disk_of_the_host_is_used():
    incident = core()
    under_way(incident)
    captures = os.path.join(agent.directory, "state", "captures")
    largest = 0
    while target(incident).state < pb.DONE:
        for folder, _, names in os.walk(captures):
            for name in names:
                try:
                    largest = max(largest, os.path.getsize(os.path.join(folder, name)))
                except OSError:
                    pass  # gone meanwhile
        time.sleep(0.05)
    check_equal(target(incident).state, pb.DONE, target(incident).reason)
    check(0 < largest < 65536, "a file of %d bytes on the host" % largest)


@case
def one_at_a_time_and_a_queue_with_an_end():
    agent.stop()
    agent.arguments[1] = "1M"  # so that the first lasts
    agent.start()
    agent.wait_online()
    first = core()
    under_way(first)
    waiting = [core(what=["triage"]) for _ in range(9)]
    wait_for(lambda: "another capture runs" in target(waiting[0]).reason, "queued")
    check(target(waiting[0]).state < pb.RUNNING, "it runs")
    check_equal(ended(waiting[-1], 5).state, pb.REFUSED)
    check("too many captures wait" in target(waiting[-1]).reason, target(waiting[-1]).reason)
    check_equal(len(children(victim.pid)) // 2, 1, "twins at once")
    check_equal(target(first).state, pb.RUNNING, target(first).reason)
    sre.one("Cancel", pb.IncidentRequest(incident=first), pb.Incident)
    for incident in waiting[:-1]:
        check_equal(ended(incident).state, pb.DONE, target(incident).reason)
    victim_is_unharmed()
    agent.stop()
    agent.arguments[1] = "6M"
    agent.start()
    agent.wait_online()


@case
def cancelled_in_the_middle():
    incident = core()
    under_way(incident)
    time.sleep(0.5)
    sre.one("Cancel", pb.IncidentRequest(incident=incident), pb.Incident)
    check_equal(ended(incident, 10).state, pb.CANCELLED)
    victim_is_unharmed()
    again = core(what=["triage"])
    check_equal(ended(again).state, pb.DONE, target(again).reason)


@case
def the_agent_killed_in_the_middle():
    for wait_s in (0, 0.3, 1):
        incident = core()
        under_way(incident)
        time.sleep(wait_s)
        agent.kill()
        victim_is_unharmed()
        agent.start()
        agent.wait_online()
        t = ended(incident)
        check_equal(t.state, pb.FAILED, t.reason)
        check("restarted" in t.reason, t.reason)
    incident = core()
    check_equal(ended(incident).state, pb.DONE, target(incident).reason)
    victim_is_unharmed()


@case
def the_worker_killed_in_the_middle():
    for wait_s in (0, 0.3, 1):
        incident = core()
        under_way(incident)
        time.sleep(wait_s)
        broker = [int(p) for p in children(agent.process.pid)[::2]]
        workers = [int(p) for b in broker for p in children(b)[::2]]
        check_equal(len(workers), 1, str(workers))
        os.kill(workers[0], 9)
        t = ended(incident)
        check_equal(t.state, pb.FAILED, t.reason)
        check("worker died: signal 9" in t.reason, t.reason)
        victim_is_unharmed(2)


@case
def the_collector_killed_in_the_middle():
    incident = core()
    under_way(incident)
    time.sleep(0.5)
    c.kill()
    time.sleep(0.5)
    c.start()
    for person in (admin, sre):
        person.reconnect()
    t = ended(incident)
    check_equal(t.state, pb.DONE, t.reason)
    a = next(a for a in sre.artifacts(incident) if a.kind == "core")
    check_equal(hashlib.sha256(sre.fetch(incident, "web-1", a.no)).digest(), a.sha256)
    victim_is_unharmed()


@case
def a_service_that_is_restarted_meanwhile_finds_its_port_free():
    port = free_ports(1)[0]
    service = start(["/usr/bin/python3", "-c", """
import os, socket, time
block = os.urandom(48 << 20)
s = socket.create_server(("127.0.0.1", %d))
s.accept()""" % port], os.path.join(TMP, "service.out"))
    wait_for(lambda: not is_free(port), "the service")
    incident = sre.capture("web-1", process=pb.ProcessSelector(pid=service.pid), what=["core"], pause_max_us=1000000,
                           allow_pause=True).incident
    wait_for(lambda: children(service.pid), "a twin of the service: " + target(incident).reason)
    service.kill()
    service.wait()
    wait_for(lambda: is_free(port), "the port", 2)
    t = ended(incident)
    check("process ended while its core was read" in t.reason, t.reason)


@case
def the_next_lesser_kind_when_it_is_allowed():
    incident = core(pause_max_us=1)
    t = ended(incident)
    check_equal(t.state, pb.REFUSED, t.reason)
    check("limit" in t.reason and "--pause-max" in t.reason, t.reason)
    incident = core(pause_max_us=1, fallback=True)
    t = ended(incident)
    check_equal(t.state, pb.PARTIAL, t.reason)
    artifacts = sre.artifacts(incident)
    check({a.kind for a in artifacts} <= {"stacks0", "triage"} and artifacts, str(artifacts))
    for a in artifacts:
        check(a.missing.startswith("instead of core: "), a.missing)
        check(not a.paused, a.kind)
    victim_is_unharmed()


@case
def the_owner_has_the_last_word():
    agent.stop()
    policy = os.path.join(TMP, "policy.conf")
    with open(policy, "w") as f:
        f.write("kinds = triage, mini\nallow-pause = no\n")
    os.chmod(policy, 0o644)
    agent.arguments += ["--policy", policy]
    agent.start()
    agent.wait_online()
    incident = core(pause_max_us=250000)
    t = ended(incident)
    check_equal(t.state, pb.REFUSED, t.reason)
    check("policy does not allow kind 'core'" in t.reason, t.reason)
    incident = core(what=["mini"], allow_pause=True)
    t = ended(incident)
    check_equal(t.state, pb.REFUSED, t.reason)
    check("--allow-pause" in t.reason, t.reason)
    incident = core(what=["mini"], pause_max_us=250000)
    check_equal(ended(incident).state, pb.DONE, target(incident).reason)
    check_equal([a.encoding for a in sre.artifacts(incident)], ["zstd"])
    victim_is_unharmed()


main()
