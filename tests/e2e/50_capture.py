#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The main job with real programs: agents, collector, command line, and a redis-server that is captured while a client
uses it. Then the same with agents and collector killed in the middle."""
import csv
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time

from trawltest import TMP, Agent, Collector, Skip, case, check, check_equal, free_ports, main, pb, start, wait_for

KILLS = int(os.environ.get("KILLS", "10"))
c = Collector()
admin, sre, developer = c.person("admin"), c.person("sre"), c.person("developer")
PORTS = dict(zip(("web-1", "web-2"), free_ports(2)))
redis = {}
for host, port in PORTS.items():
    # Two agents on one machine see each other's processes, so each host's redis has a name of its own.
    program = os.path.join(TMP, "redis-" + host)
    shutil.copy(os.path.realpath(shutil.which("redis-server")), program)
    redis[host] = start([program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", TMP, "--loglevel", "verbose"],
                        "%s/redis-%s.out" % (TMP, host))
agents = {}


class Client(threading.Thread):
    """Asks redis over one connection, without pause; counts what went wrong."""

    def __init__(self):
        super().__init__(daemon=True)
        self.requests = self.errors = 0
        self.slowest = 0.0
        self.stopping = False

    def run(self):
        s = socket.create_connection(("127.0.0.1", PORTS["web-1"]), timeout=5)
        while not self.stopping:
            begin = time.monotonic()
            try:
                s.sendall(b"INCR n\r\n")
                if not s.recv(64).startswith(b":"):
                    self.errors += 1
            except OSError:
                self.errors += 1
            self.requests += 1
            self.slowest = max(self.slowest, time.monotonic() - begin)


def status_of(process):
    with open("/proc/%d/status" % process.pid) as f:
        text = f.read()
    return re.search(r"State:\s+(\w)", text).group(1), int(re.search(r"TracerPid:\s+(\d+)", text).group(1))


def redis_is_unharmed():
    for host, process in redis.items():
        state, _ = wait_for(lambda: status_of(process) if status_of(process)[1] == 0 else None, "redis is not traced")
        check(state in "SR", "redis is in state " + state)
        with socket.create_connection(("127.0.0.1", PORTS[host]), timeout=5) as s:
            s.sendall(b"PING\r\n")
            check_equal(s.recv(16), b"+PONG\r\n")


def finished(incident):
    targets = sre.targets(incident)
    return targets if all(t.state >= pb.DONE for t in targets.values()) else None


@case
def agents_join_by_token_and_are_online():
    for name in ("web-1", "web-2"):
        agents[name] = Agent(c, name, "--follow", "redis-" + name, role="web")
    for agent in agents.values():
        agent.wait_online()
    rows = {h["name"]: h for h in sre.trawl_json("hosts", "-l", "role=web")}
    check_equal(set(rows), {"web-1", "web-2"})
    check_equal({h["state"] for h in rows.values()}, {"online"})


def captured_pids(*selector):
    done = sre.trawl("capture", "web-1", "--what", "triage", *selector)
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    incident = re.search(r"INC-\d{6}-\w{5}", done.stdout).group(0)
    return {a.pid for a in sre.artifacts(incident) if a.kind == "triage"}


@case
def processes_are_found_by_command_line_and_container():
    pid = redis["web-2"].pid
    check_equal(captured_pids("--command", "%s/redis-web-2 127.0.0.1:*" % TMP), {pid})
    top = "/sys/fs/cgroup" if os.path.exists("/sys/fs/cgroup/cgroup.procs") else "/sys/fs/cgroup/pids"
    group = "%s/lxc.payload.trawl-%d" % (top, os.getpid())
    try:
        os.mkdir(group)
    except OSError as e:
        raise Skip("no control group can be made here: %s" % e)
    try:
        with open(group + "/cgroup.procs", "w") as f:
            f.write(str(pid))
        check_equal(captured_pids("--container", "trawl-%d" % os.getpid()), {pid})
        none = sre.trawl("capture", "web-1", "--what", "triage", "--container", "trawl-0")
        check("no process matches container 'trawl-0'" in none.stdout + none.stderr, none.stdout + none.stderr)
    finally:
        with open(top + "/cgroup.procs", "w") as f:
            f.write(str(pid))
        os.rmdir(group)
    two = sre.trawl("capture", "web-1", "--port", "1", "--container", "abcd")
    check("more than one of" in two.stderr, two.stderr)


@case
def a_capture_from_the_command_line():
    client = Client()
    client.start()
    wait_for(lambda: client.requests > 100, "requests flow")
    time.sleep(2)  # so that the window holds a few samples
    done = sre.trawl("capture", "-l", "role=web", "--what",
                     "triage,stacks,counters,events,logs", "--last", "60s", "-m", "test", "--pause-max", "250ms")
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    incident = re.search(r"INC-\d{6}-\w{5}", done.stdout).group(0)
    client.stopping = True
    client.join(10)
    check_equal(client.errors, 0, "errors seen by the client of redis in %d requests" % client.requests)
    redis_is_unharmed()
    artifacts = sre.artifacts(incident)
    kinds = {(a.host, a.kind) for a in artifacts}
    for host in agents:
        for kind in ("triage", "stacks", "counters", "events", "logs"):
            check((host, kind) in kinds, "%s of %s is missing: %s" % (kind, host, sorted(kinds)))
    for a in artifacts:
        check_equal(a.paused, a.kind == "stacks", a.kind)
        check(not a.paused or 0 < a.pause_us < 250000, "pause of %d us" % a.pause_us)
    c.incident = incident


@case
def a_developer_fetches_it_verified():
    out = os.path.join(TMP, "fetched")
    done = developer.trawl("fetch", c.incident, "-o", out)
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    place = os.path.join(out, c.incident)
    with open(place + "/manifest.json") as f:
        manifest = json.load(f)
    files = 0
    for a in developer.artifacts(c.incident):
        with open(os.path.join(place, a.host, a.file), "rb") as f:
            data = f.read()
        check_equal(hashlib.sha256(data).digest(), a.sha256, a.file)
        check_equal(len(data), a.size_bytes)
        files += 1
    check(files >= 10, "%d files" % files)
    check_equal(len(manifest["artifacts"]), files)
    with open(place + "/report.txt") as f:
        report = f.read()
    for wanted in (c.incident, "web-1", "web-2", "Commonest stacks", "capture by sre/sre"):
        check(wanted in report, wanted)


def content(kind):
    a = next(a for a in sre.artifacts(c.incident)
             if a.kind == kind and a.host == "web-1" and a.file.endswith((".txt", ".csv", ".jsonl")))
    return a, sre.fetch(c.incident, a.host, a.no).decode()


@case
def the_stacks_name_the_functions_of_redis():
    a, text = content("stacks")
    check("aeMain" in text and "__libc_start_main" in text, text[:2000])
    check(a.threads >= 4, "threads: %d" % a.threads)
    check(re.search(r"\+0x[0-9a-f]+", text), "module and offset are kept")


@case
def the_counters_are_a_table_with_times():
    _, text = content("counters")
    rows = list(csv.reader(text.splitlines()))
    check(len(rows) > 2, "rows")
    check(any("cpu" in name for name in rows[0]), str(rows[0][:5]))
    check(any("redis-web-1" in name for name in rows[0]), "counters of the process")
    check_equal({len(r) for r in rows}, {len(rows[0])})


@case
def the_logs_are_those_of_redis():
    _, text = content("logs")
    check("Ready to accept connections" in text or "Accepted" in text, text[:500])


@case
def the_triage_says_what_redis_does():
    _, text = content("triage")
    for wanted in ("redis-web-1", "futex", "listening", str(PORTS["web-1"])):
        check(wanted in text, wanted)


@case
def counters_and_top_answer():
    rows = sre.trawl_json("counters", "cpu.busy", "-l", "role=web", "--last", "1m")
    check_equal({r["host"] for r in rows}, {"web-1", "web-2"})
    top = wait_for(lambda: sre.trawl_json("top", "-n", "1"), "rows of top")
    check(any(r["process"] == "redis-web-1" for r in top), str(top)[:500])


@case
def what_a_developer_may_not_do_is_said():
    done = developer.trawl("capture", "-l", "role=web")
    check(done.returncode not in (0, 3), "a developer captured")
    check("developer" in done.stderr and "may not" in done.stderr, done.stderr)


@case
def no_process_matches():
    done = sre.trawl("capture", "-l", "web-1", "--process", "no-such-program", "--what", "stacks")
    check(done.returncode in (1, 3), done.stdout)
    check("no process matches" in done.stdout + done.stderr, done.stdout + done.stderr)


@case
def an_offline_host_makes_the_result_partial():
    agents["web-2"].stop()
    wait_for(lambda: admin.hosts("web-2")["web-2"].state == pb.OFFLINE, "offline")
    done = sre.trawl("capture", "-l", "role=web", "--what", "stacks", "--expire", "1h", "--pause-max", "250ms")
    check_equal(done.returncode, 3, done.stdout + done.stderr)
    check("queued" in done.stdout and "offline" in done.stdout, done.stdout)
    incident = re.search(r"INC-\d{6}-\w{5}", done.stdout).group(0)
    agents["web-2"].start()
    targets = wait_for(lambda: finished(incident), "the order is carried out on return", 30)
    check_equal({t.state for t in targets.values()}, {pb.DONE})


@case
def an_order_waits_for_its_instant():
    reply = sre.capture("role=web", in_us=1500000, pause_max_us=250000)
    targets = wait_for(lambda: finished(reply.incident), "ended")
    for t in targets.values():
        check_equal(t.state, pb.DONE, t.reason)
        check(abs(t.at_error_us) < 500000, "instant missed by %d us" % t.at_error_us)


@case
def an_agent_killed_in_the_middle_never_harms_and_never_runs_twice():
    agent, random_source = agents["web-1"], random.Random(5)
    ends = {}
    for _ in range(KILLS):
        agent.wait_online()
        reply = sre.capture("web-1", process=pb.ProcessSelector(port=PORTS["web-1"]),
                            what=["triage", "stacks", "logs", "counters"], pause_max_us=250000)
        time.sleep(random_source.uniform(0, 0.6))
        agent.kill()
        redis_is_unharmed()
        agent.start()
        target = wait_for(lambda: finished(reply.incident), "a final state after the kill", 40)["web-1"]
        check(target.state in (pb.DONE, pb.PARTIAL, pb.FAILED), pb.State.Name(target.state) + " " + target.reason)
        check(target.state != pb.FAILED or "restarted" in target.reason, target.reason)
        names = [a.file for a in sre.artifacts(reply.incident)]
        check_equal(len(names), len(set(names)), "evidence twice")
        ends[pb.State.Name(target.state)] = ends.get(pb.State.Name(target.state), 0) + 1
    redis_is_unharmed()
    print("      %d kills of the agent, ends: %s" % (KILLS, ends))


def children(pid):
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(p) for p in out.stdout.split()]


@case
def nothing_of_a_killed_agent_stays_behind():
    agent = agents["web-1"]
    agent.wait_online()
    left = children(agent.process.pid)
    agent.kill()
    wait_for(lambda: not any(os.path.exists("/proc/%d" % p) for p in left), "the broker ends with its agent")
    agent.start()
    agent.wait_online()


@case
def a_collector_killed_in_the_middle_ends_the_capture_right():
    random_source = random.Random(7)
    for _ in range(KILLS):
        for agent in agents.values():
            agent.wait_online()
        sre.reconnect()
        reply = sre.capture("role=web", what=["triage", "stacks"], pause_max_us=250000)
        time.sleep(random_source.uniform(0, 0.15))
        c.kill()
        c.start()
        for person in (admin, sre, developer):
            person.reconnect()
        targets = wait_for(lambda: finished(reply.incident), "a final state after the kill", 60)
        check_equal({t.state for t in targets.values()}, {pb.DONE}, str(targets))
        artifacts = sre.artifacts(reply.incident)
        check_equal(len({(a.host, a.kind) for a in artifacts}), 4, str(artifacts))
        check_equal(len({(a.host, a.file) for a in artifacts}), len(artifacts), "evidence twice")
    redis_is_unharmed()


@case
def an_orderly_stop_of_an_agent():
    check_equal(agents["web-2"].stop(), 0)


main()
