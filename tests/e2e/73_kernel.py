# SPDX-License-Identifier: Apache-2.0
"""Exceptions that the kernel's log, watched processes and probes tell, from the real thing to a stock gRPC client of
Operations.Exceptions: an OOM kill in a memory cgroup, a fault without a handler, a restart by a supervisor that is a shell
loop, redis and node that stop answering while idle ones next to them are left alone, and what watching costs. Ends only what
it started, by pid."""
import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import time

from trawltest import TMP, Agent, Collector, Skip, case, check, check_equal, free_ports, main, pb, wait_for

VICTIM = os.path.join(os.environ.get("BUILD_DIR", "build/dev"), "victims", "watched")
worlds = itertools.count()
CORE_LOCK = "/run/lock/trawl-core-pattern.lock"


@contextlib.contextmanager
def running(*arguments, **more):
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **more)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def world(*arguments):
    if os.geteuid() != 0:
        raise Skip("needs root")
    number = next(worlds)
    collector = Collector(name="kernel%d" % number)
    try:
        person = collector.person("sre")
        agent = Agent(collector, "kernel-host%d" % number, *arguments)
        try:
            agent.wait_online()
            yield collector, person, agent
        finally:
            agent.stop()
    finally:
        collector.kill()


def exceptions(person):
    return list(person.many("Exceptions", pb.ExceptionsRequest(), pb.Exception))


def wait_exception(person, fits, text, seconds=20):
    found = []

    def look():
        found[:] = [e for e in exceptions(person) if fits(e)]
        return bool(found)
    wait_for(look, text, seconds)
    return found[0]


def tags(e):
    return {t.key: t.value for t in e.tags}


@case
def oom_kill_in_a_cgroup():
    """who, how much, which cgroup, who asked, what the limit was; seen in under 2 s"""
    top = "/sys/fs/cgroup/memory"
    if not os.path.exists(top + "/memory.limit_in_bytes"):
        raise Skip("no memory cgroup of version 1 here")
    group = top + "/trawl-test-%d" % os.getpid()
    os.mkdir(group)
    try:
        with open(group + "/memory.limit_in_bytes", "w") as file:
            file.write("20M")
        with world() as (_, person, _agent):
            eater = subprocess.Popen(["/bin/sh", "-c", 'echo $$ > %s/cgroup.procs; exec /usr/bin/python3 -c "x = bytearray(200 << 20)"'
                                      % group], stderr=subprocess.DEVNULL)
            eater.wait(30)
            died = time.time()
            e = wait_exception(person, lambda e: e.type == "oom-kill" and e.pid == eater.pid, "no exception of the OOM kill")
            seen = time.time() - died
            check_equal(eater.returncode, -signal.SIGKILL)
            check_equal(e.source, pb.OOM_KILL)
            check(e.process.startswith("python3"), e.process)
            check_equal(tags(e)["cgroup"], group[len(top):])
            check_equal(tags(e)["limit"], "20480 kB")
            check("anon-rss" in tags(e)["memory"], tags(e))
            check(seen < 2, "seen only after %.1f s" % seen)
            print("     OOM kill seen after %.2f s" % seen)
    finally:
        os.rmdir(group)


@case
def fault_without_a_handler():
    """the kernel's own line: process, signal, module and offset"""
    with open(CORE_LOCK, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open("/proc/sys/kernel/core_pattern") as file:
            if file.read().startswith("|"):
                raise Skip("a crash handler is installed here")
        with world() as (_, person, _agent):
            victim = subprocess.Popen(["/usr/bin/python3", "-c", "import ctypes, resource\n"
                                       "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nctypes.string_at(16)"])
            victim.wait(30)
            died = time.time()
            check_equal(victim.returncode, -signal.SIGSEGV)
            e = wait_exception(person, lambda e: e.pid == victim.pid, "no exception of the fault")
            seen = time.time() - died
            check_equal(e.source, pb.FAULT_LINE)
            check_equal(e.type, "SIGSEGV")
            check_equal(e.fault_address, 16)
            check(len(e.frames) == 1 and e.frames[0].module and e.frames[0].offset, "no frame: %s" % e)
            print("     fault line seen after %.2f s (it waits 1.5 s for a better source)" % seen)


@case
def supervisor_restart():
    """a shell loop starts redis again: bad end with status, old pid to new pid, back on its port"""
    if not shutil.which("redis-server"):
        raise Skip("no redis-server here")
    port, = free_ports(1)
    loop = "while :; do redis-server --port %d --save '' --dir %s; sleep 0.5; done" % (port, TMP)
    with running("/bin/sh", "-c", loop):
        redis = wait_pid(port)
        with world("--follow", "redis-server") as (_, person, agent):
            time.sleep(6)  # until its ports are known
            os.kill(redis, signal.SIGKILL)
            died = time.time()
            e = wait_exception(person, lambda e: e.pid == redis, "no exception of the end")
            seen = time.time() - died
            check_equal((e.source, e.type, e.signal), (pb.PROCESS_EXIT, "killed by SIGKILL", 9))
            check("redis-server" in e.process and e.start_ticks > 0, str(e))
            check(e.executable.endswith(("redis-server", "redis-check-rdb")), e.executable)
            new = wait_pid(port)
            check(new != redis, "it did not come back")
            print("     end seen after %.2f s" % seen)


def wait_pid(port):
    """The process that listens on the port."""
    found = []

    def look():
        out = subprocess.run(["ss", "-Hltnp", "sport = :%d" % port], capture_output=True, text=True).stdout
        found[:] = [int(p.split(",")[0]) for p in out.split("pid=")[1:]]
        return bool(found)
    wait_for(look, "nobody listens on port %d" % port)
    return found[0]


@case
def probes_of_redis_and_node():
    """redis in DEBUG SLEEP and node in an endless loop are told once, with their process; idle ones never"""
    for program in ("redis-server", "redis-cli", "node"):
        if not shutil.which(program):
            raise Skip("no %s here" % program)
    sick, fine, web, idle = free_ports(4)
    script = ("const h=require('http');h.createServer((q,r)=>{r.end('x');if(q.url=='/stop')setTimeout(()=>{for(;;);},50)})"
              ".listen(%d,'127.0.0.1')")
    # Those that are well get all the time that a busy machine needs.
    probes = ",".join(probe + " every=500ms timeout=" + timeout for probe, timeout in (
        ("tcp:127.0.0.1:%d" % sick, "1s"), ("tcp:127.0.0.1:%d" % fine, "30s"),
        ("http://127.0.0.1:%d/" % web, "1s"), ("http://127.0.0.1:%d/" % idle, "30s")))
    with running("redis-server", "--port", str(sick), "--save", "", "--dir", TMP, "--enable-debug-command", "yes"), \
            running("redis-server", "--port", str(fine), "--save", "", "--dir", TMP), \
            running("node", "-e", script % web), running("node", "-e", script % idle):
        pids = {port: wait_pid(port) for port in (sick, fine, web, idle)}
        with world("--probe", probes, "--follow", "node,redis-server") as (_, person, agent):
            time.sleep(3)
            check_equal([e for e in exceptions(person) if e.source == pb.HANG], [])
            with running("redis-cli", "-p", str(sick), "DEBUG", "SLEEP", "12"), \
                    running("/usr/bin/python3", "-c", "import urllib.request as u;u.urlopen('http://127.0.0.1:%d/stop')" % web):
                asleep = time.time()
                e = wait_exception(person, lambda e: e.pid == pids[sick] and e.source == pb.HANG, "redis's sleep was not seen")
                print("     redis: told after %.2f s: %s" % (time.time() - asleep, e.message))
                check(e.type == "tcp no-answer" and e.start_ticks > 0, str(e))
                e = wait_exception(person, lambda e: e.pid == pids[web] and e.type == "http no-answer", "node's loop was not seen")
                print("     node: %s" % e.message)
                e = wait_exception(person, lambda e: e.pid == pids[web] and e.type == "event-loop",
                                   "node's event loop was not seen to stop", 120)
                print("     node: %s" % e.message)
            hangs = [(e.pid, e.type) for e in exceptions(person) if e.source == pb.HANG]
            check_equal(len(hangs), len(set(hangs)), "told twice: %s" % hangs)
            check(not {pids[fine], pids[idle]} & {pid for pid, _ in hangs}, "an idle one was told: %s" % hangs)


@case
def node_that_reads_a_pipe_by_itself():
    """its event loop sleeps in a synchronous read: told with the system call; an idle node is not"""
    if not shutil.which("node"):
        raise Skip("no node here")
    fifo = os.path.join(TMP, "pipe-of-node")
    os.mkfifo(fifo)
    script = "setTimeout(()=>require('fs').readFileSync('%s'),4000);setInterval(()=>{},1000)" % fifo
    with running("node", "-e", script) as sick, running("node", "-e", "setInterval(()=>{},1000)") as idle, \
            world("--follow", "node") as (_, person, _agent):
        writer = []
        try:
            wait_for(lambda: writer.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)) or True
                     if waits_in_open(sick.pid) else False, "node does not open the pipe")
            e = wait_exception(person, lambda e: e.pid == sick.pid and e.type == "event-loop", "the read was not seen", 30)
            print("     node: %s" % e.message)
            check("read()" in e.message, e.message)
        finally:
            for fd in writer:
                os.close(fd)
        check(not [e for e in exceptions(person) if e.pid == idle.pid], "the idle one was told")


def waits_in_open(pid):
    with open("/proc/%d/syscall" % pid) as file:
        return file.read().split()[0] in ("257", "2")  # openat, open


def cpu_us(pid):
    with open("/proc/%d/schedstat" % pid) as file:
        return int(file.read().split()[0]) / 1000


@case
def what_watching_costs():
    """eight followed and probed processes, against an agent without"""
    ports = free_ports(8)
    seconds = 20
    shell = "".join("%s listen %d serve & " % (VICTIM, port) for port in ports) + "wait"
    with running("/bin/sh", "-c", shell):
        for port in ports:
            wait_pid(port)
        cost = {}
        for what, arguments in (("plain", []), ("followed", ["--follow", "watched"]),
                                ("probed", ["--probe", ",".join("tcp:127.0.0.1:%d" % p for p in ports)])):
            with world("--busiest", "0", *arguments) as (_, _person, agent):
                time.sleep(8)  # what is done once
                begin = cpu_us(agent.process.pid)
                time.sleep(seconds)
                cost[what] = (cpu_us(agent.process.pid) - begin) / seconds / 1e4
        print("     of a core: agent %.3f %%; with 8 followed processes %.3f %%; with 8 probes %.3f %%"
              % (cost["plain"], cost["followed"], cost["probed"]))
        check(cost["probed"] - cost["plain"] < 0.2, str(cost))


if __name__ == "__main__":
    main()
