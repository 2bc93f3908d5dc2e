# SPDX-License-Identifier: Apache-2.0
"""Exceptions from logs: real programs that fail into a log file which an agent follows; rotation, garbage, half lines, an agent
that is killed in between, a flood: each trace is told exactly once, and appears in the command line in under 2 s."""
import os
import shutil
import subprocess
import time

from trawltest import TMP, Agent, Collector, Skip, case, check, check_equal, main, wait_for

PYTHON = """
import sys, logging
logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
def total(n): return {}[n]
try: total(int(sys.argv[1]))
except KeyError: logging.exception("cannot total")
"""
NODE = "function total(n) { throw new RangeError('cart ' + n); } total(process.argv[2]);"
GO = 'package main\nimport ("os"; "fmt")\nfunc total(n string) { panic(fmt.Sprint("cart ", n)) }\nfunc main() { total(os.Args[1]) }\n'
JAVA = """class Shop { static int total(String n) { try { return Integer.parseInt("x" + n); }
catch (NumberFormatException e) { throw new IllegalStateException("cart " + n, e); } }
public static void main(String[] a) { total(a[0]); } }"""

TRACE = """2026-11-23 14:00:00 ERROR cannot total
Traceback (most recent call last):
  File "/srv/shop.py", line 4, in total
    return int(text)
%s: cart %d
2026-11-23 14:00:01 INFO next
"""


class Host:
    def __init__(self, name, collector):
        self.directory = os.path.join(TMP, "logs-" + name)
        os.makedirs(self.directory)
        self.log = os.path.join(self.directory, "shop.log")
        self.append("2026-11-23 13:59:59 INFO before\n")
        os.chmod(self.directory, 0o755)
        self.name, self.person = name, collector.person("admin")
        self.agent = Agent(collector, name, "--follow-logs", self.directory + "/*.log")
        self.agent.wait_online(self.person)
        if "unknown command" in self.person.trawl("exceptions").stderr:
            raise Skip("this command line cannot list exceptions")
        self.wait_followed("shop.log")

    def append(self, text, name="shop.log"):
        with open(os.path.join(self.directory, name), "ab") as f:
            f.write(text if isinstance(text, bytes) else text.encode())

    def wait_followed(self, name):
        """Until the agent has it open: what comes from then on is read."""
        path = os.path.realpath(os.path.join(self.directory, name))

        def is_open():
            fds = "/proc/%d/fd" % self.agent.process.pid
            return any(os.path.realpath(os.path.join(fds, fd)) == path for fd in os.listdir(fds))
        wait_for(is_open, name + " is followed")

    def counts(self):
        """type -> how many were told of this host"""
        told = {}
        for e in self.person.trawl_json("exceptions"):
            if e["host"] == self.name:
                told[e["type"]] = told.get(e["type"], 0) + int(e.get("count", 1))
        return told

    def wait_count(self, kind, count, seconds=20):
        wait_for(lambda: self.counts().get(kind, 0) >= count, "%d of %s" % (count, kind), seconds)


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


def programs():
    """name -> (type, command that fails and writes its trace to stderr)"""
    src = os.path.join(TMP, "src")
    os.makedirs(src, exist_ok=True)
    found = {"python": ("KeyError", ["/usr/bin/python3", write(src + "/shop.py", PYTHON)])}
    if shutil.which("node"):
        found["node"] = ("RangeError", ["node", write(src + "/shop.js", NODE)])
    if shutil.which("java"):
        found["java"] = ("java.lang.IllegalStateException", ["java", write(src + "/Shop.java", JAVA)])
    if shutil.which("go"):
        write(src + "/shop.go", GO)
        env = dict(os.environ, GO111MODULE="off", GOCACHE=TMP + "/go", HOME=TMP)
        subprocess.run(["go", "build", "-o", src + "/shop", src + "/shop.go"], env=env, check=True)
        found["go"] = ("panic", [src + "/shop"])
    return found


@case
def real_programs_fail_into_a_followed_log():
    host = Host("real", Collector(name="real"))
    for name, (kind, command) in programs().items():
        for n in range(2):
            with open(host.log, "ab") as log:
                subprocess.run(command + [str(n)], stdout=log, stderr=log)
        ended = time.monotonic()
        host.wait_count(kind, 2)
        check(time.monotonic() - ended < 2 + 1, "%s appears in under 2 s, not %.1f" % (name, time.monotonic() - ended))
    counts = host.counts()
    check_equal(sum(counts.values()), 2 * len(programs()), "nothing else: %s" % counts)


@case
def rotation_garbage_and_a_killed_agent_lose_and_double_nothing():
    host = Host("rotate", Collector(name="rotate"))
    host.append(TRACE % ("BeforeError", 1))
    os.rename(host.log, host.log + ".1")
    host.append(TRACE % ("OldNameError", 2), "shop.log.1")
    host.append(TRACE % ("NewNameError", 3))
    host.wait_followed("shop.log")
    host.wait_count("NewNameError", 1)
    os.truncate(host.log, 0)
    host.append(TRACE % ("EmptiedError", 4))
    host.append(os.urandom(20000) + b"\n")
    host.wait_count("EmptiedError", 1)
    text = TRACE % ("HalfError", 5)
    host.append(text[:len(text) // 2])
    time.sleep(0.5)  # the subject: half a trace is read, and not told
    host.agent.kill()
    host.append(text[len(text) // 2:] + TRACE % ("DeadError", 6))
    host.agent.start()
    host.wait_count("DeadError", 1)
    host.wait_count("HalfError", 1)
    counts = host.counts()
    wanted = {k: 1 for k in ("BeforeError", "OldNameError", "NewNameError", "EmptiedError", "HalfError", "DeadError")}
    check_equal(counts, wanted)


@case
def a_flood_is_counted_exactly():
    host = Host("flood", Collector(name="flood"))
    host.append("".join(TRACE % ("FloodError", n) for n in range(100000)))
    host.wait_count("FloodError", 100000, 60)
    time.sleep(2)  # what is too much would come now
    check_equal(host.counts(), {"FloodError": 100000})


@case
def following_quiet_files_costs_next_to_nothing():
    host = Host("idle", Collector(name="idle"))
    for n in range(19):
        host.append("2026-11-23 13:59:59 INFO before\n", "quiet%d.log" % n)
    for n in range(19):
        host.wait_followed("quiet%d.log" % n)

    other = Agent(host.agent.collector, "idle-none", "--journal=no").wait_online(host.person)

    def cpu_s(agent):
        """Of agent and broker, so far."""
        out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent.process.pid)], capture_output=True, text=True).stdout
        total = 0
        for pid in [agent.process.pid] + [int(word) for word in out.split()]:
            with open("/proc/%d/schedstat" % pid) as f:
                total += int(f.read().split()[0])
        return total / 1e9
    before, began = [cpu_s(host.agent), cpu_s(other)], time.monotonic()
    time.sleep(10)  # the subject: ten quiet seconds
    took = time.monotonic() - began
    with_logs, without = [100 * (cpu_s(a) - b) / took for a, b in zip((host.agent, other), before)]
    print("      agent and broker, %% of a core: %.3f with 20 quiet files, %.3f with none" % (with_logs, without))
    check(with_logs - without < 1, "following quiet files costs %.2f %%" % (with_logs - without))


main()
