# SPDX-License-Identifier: Apache-2.0
"""Services under load while they are captured over and over: nginx by wrk, redis-server by a pipelining client that checks
every reply. No request may be lost, fail or be answered wrongly; what p99.9 and the longest request become is printed, not
judged. The control is gdb, attached for some seconds: that loses requests, and must be seen to.
LOAD_S (8) is how long each service is captured. BUILD_DIR names the build folder. Ends only what it started, by pid."""
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from victimtest import *  # noqa: E402,F403

LOAD_S = int(os.environ.get("LOAD_S", "8"))
QUIET_S = 3
TIMEOUT_S = 2  # a request not answered by then is lost
GDB_S = 5
DEFAULT = ["triage", "stacks", "logs", "net", "stacks0", "profile"]
MEMORY = ["mini", "core"]
PIPELINE = 16
CONNECTIONS = 4

LUA = r"""
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('JSON {"requests":%d,"lost":%d,"p50":%.2f,"p999":%.2f,"longest":%.2f}\n', summary.requests,
        e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50) / 1000, latency:percentile(99.9) / 1000,
        latency.max / 1000))
end
"""

NGINX = """
daemon off; worker_processes 2; pid %(tmp)s/nginx.pid; error_log %(tmp)s/nginx.log; user root;
events { worker_connections 256; }
http { access_log off; client_body_temp_path %(tmp)s/b; proxy_temp_path %(tmp)s/p; fastcgi_temp_path %(tmp)s/f;
    uwsgi_temp_path %(tmp)s/u; scgi_temp_path %(tmp)s/s; keepalive_requests 100000000;
    server { listen 127.0.0.1:%(port)d; root %(tmp)s/www; } }
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def words(figures):
    return "%(requests)d requests, p50 %(p50).2f, p99.9 %(p999).2f, longest %(longest).2f ms" % figures


def capture_until(done, pids, wanted):
    """Captures one process after the other, one kind after the other; kind -> [taken, refused, last refusal, longest pause]."""
    counts, number = {k: [0, 0, "", 0] for k in wanted}, 0
    while not done():
        kind = wanted[number % len(wanted)]
        answer = take(kind, pids[number // len(wanted) % len(pids)], "--nice")
        if crashed(answer):
            raise RuntimeError("%s: %s" % (kind, crashed(answer)))
        counts[kind][1 if answer["error"] else 0] += 1
        counts[kind][2] = answer["text"] or counts[kind][2]
        counts[kind][3] = max(counts[kind][3], answer["pause_us"])
        number += 1
    return counts


def judge(name, quiet, loaded, counts, pids):
    say("without captures: " + words(quiet))
    say("with captures:    " + words(loaded) + "; p99.9 %+.2f ms" % (loaded["p999"] - quiet["p999"]))
    for kind, (taken, refused, text, pause) in counts.items():
        problem = "" if taken or (kind in ("logs", "net") and "no " in text) else "never taken: " + text
        report("%s: %s: %d taken, %d refused%s, longest pause %.1f ms" %
               (name, kind, taken, refused, " (%s)" % text[:80] if refused else "", pause / 1000), problem)
    problem = "" if loaded["requests"] > 1000 else "too few requests"
    if loaded["lost"] or quiet["lost"]:
        problem = "%d lost or wrong (%d without captures) %s" % (loaded["lost"], quiet["lost"], loaded.get("first", ""))
    report("%s: %d captures lose no request of %d" % (name, sum(c[0] for c in counts.values()), loaded["requests"]), problem)
    held = [free(pid) for pid in pids if free(pid)]
    left = [c for pid in pids for c in lasting_children(pid, pids, 0.3)]
    report("%s: runs on, traced by nobody, without a child more" % name, "; ".join(held) or (repr(left) if left else ""))


def sockets(pid):
    folder = "/proc/%d/fd" % pid
    count = 0
    for fd in os.listdir(folder):
        try:
            count += os.readlink(os.path.join(folder, fd)).startswith("socket:")
        except OSError:
            pass  # closed meanwhile
    return count


def with_gdb(pid):
    subprocess.run(["gdb", "-nx", "-batch", "-p", str(pid), "-ex", "shell sleep %d" % GDB_S], capture_output=True,
                   env=dict(os.environ, DEBUGINFOD_URLS=""))


# ---- nginx ----

def start_nginx():
    os.makedirs(os.path.join(TMP, "www"))
    with open(os.path.join(TMP, "www", "index.html"), "w") as f:
        f.write("x" * 1000)
    port = free_port()
    with open(os.path.join(TMP, "nginx.conf"), "w") as f:
        f.write(NGINX % {"tmp": TMP, "port": port})
    master = start("nginx", "-c", os.path.join(TMP, "nginx.conf"), stderr=subprocess.DEVNULL)
    at_end(lambda: (master.terminate(), master.wait(20)))  # a master that is killed leaves its workers behind
    wait_for(lambda: answers(port) and len(children(master.pid)) == 2, "nginx")
    return port, [c[0] for c in children(master.pid)] + [master.pid]


def wrk(port, seconds):
    script = os.path.join(TMP, "figures.lua")
    with open(script, "w") as f:
        f.write(LUA)
    return subprocess.Popen(["wrk", "-t1", "-c16", "-d%ds" % seconds, "--timeout", "%ds" % TIMEOUT_S, "-s", script,
                             "http://127.0.0.1:%d/" % port], stdout=subprocess.PIPE, text=True)


def figures_of(process):
    for line in process.communicate(timeout=60)[0].splitlines():
        if line.startswith("JSON "):
            return json.loads(line[5:])
    raise RuntimeError("wrk says nothing")


def nginx_loses_nothing():
    if not shutil.which("nginx") or not shutil.which("wrk"):
        raise Skip("needs nginx and wrk (deploy/deps.sh)")
    port, pids = start_nginx()
    quiet = figures_of(wrk(port, QUIET_S))
    for wanted, seconds in ((DEFAULT, LOAD_S), (MEMORY, max(2, LOAD_S // 2))):
        wanted = [k for k in wanted if known(k)]
        if not wanted:
            report("nginx: " + " ".join(MEMORY), "not in this build", skip=True)
            continue
        load = wrk(port, seconds)
        counts = capture_until(lambda: load.poll() is not None, pids, wanted)
        judge("nginx", quiet, figures_of(load), counts, pids)
    if not shutil.which("gdb"):
        raise Skip("the control needs gdb (deploy/deps.sh)")
    load = wrk(port, GDB_S + 3)
    time.sleep(0.5)
    with_gdb(max(pids, key=sockets))
    stopped = figures_of(load)
    say("with gdb for %d s: %s" % (GDB_S, words(stopped)))
    report("control: gdb loses %d requests of nginx" % stopped["lost"], "" if stopped["lost"] else "it does not")


# ---- redis ----

class Client(threading.Thread):
    """Sends PIPELINE commands at once, over CONNECTIONS connections in turn, and checks every byte that comes back."""

    def __init__(self, port):
        super().__init__()
        self.port, self.times, self.lost, self.first, self.done = port, [], 0, "", False
        self.sockets = [None] * CONNECTIONS
        self.number = 0

    def batch(self, which):
        asked, wanted = [], []
        for i in range(PIPELINE // 2):
            self.number += 1
            value = b"%d-" % self.number * (1 + i % 7)
            asked.append(b"SET c%d-%d %s\r\nGET c%d-%d\r\n" % (which, i, value, which, i))
            wanted.append(b"+OK\r\n$%d\r\n%s\r\n" % (len(value), value))
        return b"".join(asked), b"".join(wanted)

    def one(self, which):
        if self.sockets[which] is None:
            self.sockets[which] = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S)
        s = self.sockets[which]
        asked, wanted = self.batch(which)
        began = time.monotonic()
        s.sendall(asked)
        got = b""
        while len(got) < len(wanted):
            piece = s.recv(65536)
            if not piece:
                raise ConnectionError("closed")
            got += piece
        self.times.append(time.monotonic() - began)
        if got != wanted:
            raise ValueError("%r for %r" % (got[:200], wanted[:200]))

    def run(self):
        turn = 0
        while not self.done:
            turn = (turn + 1) % CONNECTIONS
            try:
                self.one(turn)
            except (OSError, ValueError) as e:
                self.lost += PIPELINE
                self.first = self.first or repr(e)
                self.sockets[turn] = None

    def end(self):
        self.done = True
        self.join()
        for s in self.sockets:
            if s:
                s.close()
        self.times.sort()
        at = lambda part: 1000 * self.times[min(len(self.times) - 1, int(len(self.times) * part))]
        return {"requests": len(self.times) * PIPELINE, "lost": self.lost, "first": self.first, "p50": at(0.5), "p999": at(0.999),
                "longest": at(1)}


def client_for(port, seconds):
    client = Client(port)
    client.start()
    until = time.monotonic() + seconds
    return client, lambda: time.monotonic() > until


def redis_loses_nothing():
    if not shutil.which("redis-server"):
        raise Skip("needs redis-server (deploy/deps.sh)")
    port = free_port()
    redis = start("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", TMP, "--appendonly", "no",
                  "--logfile", os.path.join(TMP, "redis.log"))
    wait_for(lambda: answers(port), "redis-server")
    client, _ = client_for(port, 0)
    time.sleep(QUIET_S)
    quiet = client.end()
    for wanted, seconds in ((DEFAULT, LOAD_S), (MEMORY, max(2, LOAD_S // 2))):
        wanted = [k for k in wanted if known(k)]
        if not wanted:
            report("redis: " + " ".join(MEMORY), "not in this build", skip=True)
            continue
        client, done = client_for(port, seconds)
        counts = capture_until(done, [redis.pid], wanted)
        judge("redis", quiet, client.end(), counts, [redis.pid])
    if not shutil.which("gdb"):
        raise Skip("the control needs gdb (deploy/deps.sh)")
    client, _ = client_for(port, 0)
    with_gdb(redis.pid)
    stopped = client.end()
    say("with gdb for %d s: %s" % (GDB_S, words(stopped)))
    report("control: gdb loses %d requests of redis" % stopped["lost"], "" if stopped["lost"] else "it does not")


def a_wrong_reply_would_be_seen():
    """The other control of the client: a server that answers with one byte that is wrong."""
    client = Client(0)
    ours, theirs = socket.socketpair()
    client.sockets = [ours] * CONNECTIONS
    client.number = 100
    _, right = client.batch(0)
    client.number = 100
    theirs.sendall(right[:-3] + b"!\r\n")
    try:
        client.one(0)
        report("control: a wrong reply is seen", "it is not")
    except ValueError:
        report("control: a wrong reply is seen")


def main():
    if not os.path.exists(TAKE):
        report("load", TAKE + " was not built")
        print("0 passed, 1 failed, 0 skipped")
        return 1
    return run([nginx_loses_nothing, redis_loses_nothing, a_wrong_reply_would_be_seen])


sys.exit(main())
