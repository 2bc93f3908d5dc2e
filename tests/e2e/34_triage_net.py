# SPDX-License-Identifier: Apache-2.0
"""Triage and net of real services: redis-server and nginx under connections, sockets compared with those of ss, locks and
pipes between processes, a thousand threads with ten thousand files, a network namespace. No process is stopped or traced
meanwhile. BUILD_DIR names the build folder. Ends only what it started, by pid."""
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from victimtest import TAKE, TMP, Skip, Victim, end, run, say, start, wait_for


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def tracers(pid):
    found = set()
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, tid)) as file:
            text = file.read()
        found.add((re.search(r"TracerPid:\t(\d+)", text).group(1), re.search(r"State:\t(\S)", text).group(1) in "tT"))
    return found


def take(kind, pid):
    """(text, parsed JSON, what it cost)"""
    folder = tempfile.mkdtemp(dir=TMP)
    seen, done = set(), threading.Event()

    def watch():
        while not done.is_set():
            try:
                seen.update(tracers(pid))
            except OSError:
                pass
            time.sleep(0.001)
    watcher = threading.Thread(target=watch)
    watcher.start()
    run = subprocess.run([TAKE, kind, str(pid), "-o", folder], capture_output=True, text=True, timeout=120)
    done.set()
    watcher.join()
    check(run.returncode == 0, run.stdout + run.stderr)
    check(seen <= {("0", False)}, "traced or stopped meanwhile: %s" % seen)
    cost = json.loads(run.stdout)
    check(not cost["paused"] and cost["pause_us"] == 0, run.stdout)
    with open(os.path.join(folder, kind + ".txt")) as file:
        text = file.read()
    with open(os.path.join(folder, kind + ".json")) as file:
        return text, json.load(file), cost


def take_until(kind, pid, wanted, seconds=20):
    found = {}

    def look():
        found["all"] = take(kind, pid)
        return wanted in found["all"][0]
    try:
        wait_for(look, wanted, seconds)
    except TimeoutError as error:
        raise AssertionError("%s in:\n%s" % (error, found["all"][0]))
    return found["all"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def start_redis():
    if not shutil.which("redis-server"):
        raise Skip("no redis-server")
    port = free_port()
    process = start("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", TMP,
                    stdout=subprocess.DEVNULL)
    wait_for(lambda: connects(port), "redis-server")
    return process, port


def first_lines(text):
    return text.split("\n\n")[0]


# ---- what ss says of the same sockets ----

def ss(pid):
    """Of each TCP socket of the process, by its addresses: what ss says of it."""
    run = subprocess.run(["ss", "-tanmopeiOH"], capture_output=True, text=True)
    check(run.returncode == 0, run.stderr)
    found = {}
    for line in run.stdout.splitlines():
        if "pid=%d," % pid not in line:
            continue
        fields = line.split()
        values = {"receive": int(fields[1]), "send": int(fields[2]), "state": fields[0]}
        for key, pattern in (("cwnd", r" cwnd:(\d+)"), ("rtt", r" rtt:([\d.]+)/"), ("rto", r" rto:(\d+)"),
                             ("minrtt", r" minrtt:([\d.]+)"), ("mss", r" mss:(\d+)"),
                             ("bytes_received", r" bytes_received:(\d+)"), ("bytes_sent", r" bytes_sent:(\d+)"),
                             ("ino", r" ino:(\d+)"), ("receive_limit", r"skmem:\(r\d+,rb(\d+)"),
                             ("drops", r"skmem:\(.*?,d(\d+)\)")):
            hit = re.search(pattern, line)
            values[key] = float(hit.group(1)) if hit else None
        values["congestion"] = [w for w in ("cubic", "bbr", "reno") if " %s " % w in line]
        found[(fields[3], fields[4])] = values
    return found


def compare_socket(name, mine, theirs):
    listening = mine["state"] == "listening"
    check(mine["inode"] == theirs["ino"], "%s: inode" % name)
    check(listening == (theirs["state"] == "LISTEN"), "%s: state" % name)
    if listening:
        check((mine["backlog"], mine["backlog_max"]) == (theirs["receive"], theirs["send"]), "%s: backlog" % name)
        return
    check((mine["receive_queue_bytes"], mine["send_queue_bytes"]) == (theirs["receive"], theirs["send"]),
          "%s: queues %s %s" % (name, mine, theirs))
    tcp = mine["tcp"]
    check(tcp["cwnd"] == theirs["cwnd"], "%s: cwnd" % name)
    check(tcp["rto_us"] // 1000 == theirs["rto"], "%s: rto" % name)
    check(abs(tcp["rtt_us"] / 1000 - (theirs["rtt"] or 0)) < 0.002, "%s: rtt %s %s" % (name, tcp["rtt_us"], theirs))
    check(abs(tcp["min_rtt_us"] / 1000 - (theirs["minrtt"] or 0)) < 0.002, "%s: least rtt" % name)
    check(tcp["send_mss"] == theirs["mss"], "%s: mss" % name)
    check(tcp["bytes_received"] == (theirs["bytes_received"] or 0), "%s: bytes received" % name)
    check(tcp["bytes_sent"] == (theirs["bytes_sent"] or 0), "%s: bytes sent" % name)
    check(mine["memory"]["receive_limit_bytes"] == theirs["receive_limit"], "%s: receive limit" % name)
    check(mine["memory"]["drops"] == theirs["drops"], "%s: drops" % name)
    check(not theirs["congestion"] or tcp["congestion_control"] in theirs["congestion"], "%s: congestion" % name)


def mine_as_ss(sockets):
    return {(s["local"], s["remote"] or "0.0.0.0:*"): s for s in sockets if s["kind"] == "tcp"}


# ---- the cases ----

def net_says_what_ss_says():
    if not shutil.which("ss"):
        raise Skip("no ss")
    process, port = start_redis()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    for i, client in enumerate(clients):
        client.sendall(b"PING\r\n" * (i + 1))
    for i, client in enumerate(clients):
        got = b""
        while len(got) < 7 * (i + 1):
            got += client.recv(1000)
    time.sleep(0.3)  # the last acknowledgements
    problem = None
    for _ in range(5):  # a keepalive or a late acknowledgement may come between the two looks
        theirs = ss(process.pid)
        _, parsed, _ = take("net", process.pid)
        mine = mine_as_ss(parsed["sockets"])
        try:
            check(set(mine) == set(theirs), "%s is not %s" % (sorted(mine), sorted(theirs)))
            check(len(mine) == 9, "%d sockets" % len(mine))
            for name, one in mine.items():
                compare_socket(" to ".join(name), one, theirs[name])
            problem = None
            break
        except AssertionError as error:
            problem = error
    if problem:
        raise problem
    # Who is at the other end: this program.
    peers = {s["peer"][0]["pid"] for s in parsed["sockets"] if s.get("peer")}
    check(peers == {os.getpid()}, "peers are %s" % peers)


def a_redis_that_is_not_read_from_is_said_first():
    process, port = start_redis()
    slow = socket.create_connection(("127.0.0.1", port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$500000\r\n" + b"x" * 500000 + b"\r\n")
    slow.recv(100)
    slow.sendall(b"GET big\r\n" * 40)  # answers that nobody reads
    text, _, _ = take_until("net", process.pid, "\n! fd ")
    check(re.search(r"! fd \d+ tcp: (the peer takes no more|retransmitting|\d+ B not yet taken)", text), text[:1500])
    text, _, _ = take("triage", process.pid)
    check("tcp 127.0.0.1:%d: " % port in first_lines(text), first_lines(text))


def a_triage_of_redis():
    process, port = start_redis()
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"PING\r\n")
    client.recv(100)
    text, parsed, _ = take("triage", process.pid)
    check("waits for events (watches" in first_lines(text), first_lines(text))
    check("other end: '" in text and "(pid %d, fd %d)" % (os.getpid(), client.fileno()) in text, text)
    check(parsed["process"]["pid"] == process.pid and parsed["process"]["command"].startswith("redis-server"), parsed)
    check(parsed["missing"] is None, parsed["missing"])
    check(any(f.get("details", "").startswith("watches") for f in parsed["files"]), parsed["files"])
    check("futex" in text and "kernel: futex" in text, text)


def nginx_shares_its_socket():
    if not shutil.which("nginx") and not os.path.exists("/usr/sbin/nginx"):
        raise Skip("no nginx")
    port, folder = free_port(), os.path.join(TMP, "nginx")
    os.mkdir(folder)
    os.chmod(TMP, 0o755)
    conf = os.path.join(folder, "nginx.conf")
    with open(conf, "w") as file:
        file.write("pid %s/pid; error_log %s/error.log; worker_processes 2; daemon off;\n"
                   "events { worker_connections 64; }\n"
                   "http { access_log off; client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s;\n"
                   "uwsgi_temp_path %s; scgi_temp_path %s; server { listen 127.0.0.1:%d; } }\n"
                   % ((folder,) * 7 + (port,)))
    master = start(shutil.which("nginx") or "/usr/sbin/nginx", "-c", conf, "-p", folder, stderr=subprocess.DEVNULL,
                   start_new_session=True)
    wait_for(lambda: connects(port), "nginx")

    def started():  # the port is open before the workers are there
        with open("/proc/%d/task/%d/children" % (master.pid, master.pid)) as file:
            found = [int(w) for w in file.read().split()]
        return found if len(found) == 2 else None

    workers = wait_for(started, "two workers of nginx")
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    connections = 0
    for worker in workers:
        text, parsed, _ = take("net", worker)
        listening = [s for s in parsed["sockets"] if s["state"] == "listening"]
        check(len(listening) == 1 and listening[0]["backlog_max"] == 511, listening)
        held_by = {h["pid"] for h in listening[0]["held_by"]}
        check(held_by == {master.pid, *workers}, "%s hold it" % held_by)
        check("shared with 'nginx' (pid " in text, text)
        connections += sum(s["kind"] == "tcp" and s["state"] == "established" for s in parsed["sockets"])
    check(connections == 20, "%d connections" % connections)
    for client in clients:
        client.close()


def a_deadlock_is_said_first():
    victim = Victim("waits", "deadlock")
    text, parsed, _ = take_until("triage", victim.pid, "DEADLOCK")
    check(text.splitlines()[1].startswith("  * DEADLOCK: thread "), text)
    check(parsed["summary"][0].startswith("DEADLOCK: thread "), parsed["summary"])
    check(len(parsed["locks"]) == 2 and all(lock["waiters"] == 1 for lock in parsed["locks"]), parsed["locks"])


def one_mutex_whose_holder_waits_for_another_process():
    # A copy of sleep, so that it has a name that nobody else has.
    backup = os.path.join(TMP, "backup")
    shutil.copy("/bin/sleep", backup)
    read_end, write_end = os.pipe()
    other = start(backup, "300", stdout=write_end)
    victim = Victim("waits", "mutex", "38", str(read_end), pass_fds=[read_end])
    os.close(write_end)
    os.close(read_end)
    text, _, _ = take_until("triage", victim.pid, "38 of 40 threads wait for one lock")
    check(re.search(r"38 of 40 threads wait for one lock held by thread \d+ 'holder' \(if this is a pthread mutex\), "
                    r"which reads from a pipe whose other end is held by 'backup' \(pid %d, fd 1\)" % other.pid,
                    first_lines(text)), first_lines(text))
    end(other)


def a_lock_of_a_file_between_two_processes():
    path = os.path.join(TMP, "lock")
    with open(path, "w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)  # POSIX locks: waited for by fcntl
        waiter = start(sys.executable, "-c", "import fcntl; fcntl.lockf(open(%r, 'w'), fcntl.LOCK_EX)" % path)
        text, parsed, _ = take_until("triage", waiter.pid, "it waits for a lock on '%s'" % path)
        check("(pid %d)" % os.getpid() in first_lines(text), first_lines(text))
        check(parsed["file_locks"][0]["held_by"] == os.getpid() and parsed["file_locks"][0]["waiter"] == waiter.pid,
              parsed["file_locks"])
        check(parsed["file_locks"][0]["class"] == "POSIX", parsed["file_locks"])


def a_backlog_that_overflows():
    server = start(sys.executable, "-c", "import socket, time\ns = socket.socket(); s.bind(('127.0.0.1', 0))\n"
                   "s.listen(2); print(s.getsockname()[1], flush=True); time.sleep(300)", stdout=subprocess.PIPE,
                   text=True)
    port = int(server.stdout.readline())
    _, before, _ = take("net", server.pid)
    check(before["sockets"][0].get("trouble") is None, before)
    clients = []
    for _ in range(8):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        clients.append(client)
    text, parsed, _ = take_until("net", server.pid, "dropped until now")
    one = parsed["sockets"][0]
    check((one["backlog"], one["backlog_max"]) == (3, 2) and one["memory"]["drops"] > 0, one)
    check(parsed["namespace"]["ListenOverflows"] > before["namespace"]["ListenOverflows"], parsed["namespace"])
    check(text.splitlines()[1].startswith("! fd 3 tcp: backlog full: 3 of 2"), text)
    text, _, _ = take("triage", server.pid)
    check("backlog full: 3 of 2" in first_lines(text), first_lines(text))
    for client in clients:
        client.close()


def a_network_namespace():
    command = "ip link set lo up && exec %s -c \"import socket, time; s = socket.create_server(('127.0.0.1', 80)); " \
              "c = socket.create_connection(('127.0.0.1', 80)); c.send(b'inside'); a, _ = s.accept(); " \
              "print('ready', flush=True); time.sleep(300)\"" % sys.executable
    inside = start("unshare", "-n", "sh", "-c", command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if inside.stdout.readline() != "ready\n":
        raise Skip("no network namespace can be made here")
    text, parsed, _ = take("net", inside.pid)
    check(parsed["namespace"]["own"] and "its own network namespace" in text, text)
    check("6 B not yet read by this process" in text, text)
    check(sum("tcp" in s for s in parsed["sockets"]) == 2, parsed)
    check(parsed["missing"] is None, parsed["missing"])
    text, _, _ = take("triage", inside.pid)
    check(re.search(r"namespaces +its own: net", text), text)


def without_privilege_what_is_missing_is_said():
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        raise Skip("needs root and setpriv")
    folder = os.path.join(TMP, "nobody")
    os.mkdir(folder)
    os.chmod(TMP, 0o755)
    os.chmod(folder, 0o777)
    own = os.path.join(folder, "take")
    shutil.copy(TAKE, own)
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    inside = start("unshare", "-n", *drop, "/usr/bin/python3", "-c",
                   "import socket, time; s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(3)\n"
                   "print('ready', flush=True); time.sleep(300)",
                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if inside.stdout.readline() != "ready\n":
        raise Skip("no network namespace can be made here")

    def taken(kind, pid):
        run = subprocess.run([*drop, own, kind, str(pid), "-o", folder], capture_output=True, text=True, timeout=60)
        check(run.returncode == 0, run.stdout + run.stderr)
        with open(os.path.join(folder, kind + ".json")) as file:
            return json.load(file), json.loads(run.stdout)["missing"]
    # The namespace may not be entered: the tables of /proc are read instead.
    parsed, missing = taken("net", inside.pid)
    check("cannot enter the network namespace" in missing and missing == parsed["missing"], missing)
    check(parsed["sockets"][0]["state"] == "listening" and "backlog_max" not in parsed["sockets"][0], parsed)
    # Another user's process: what may be seen is given, the rest is said.
    other = start("sleep", "300")
    parsed, missing = taken("triage", other.pid)
    check("open files: permission denied" in missing and "system calls: permission denied" in missing, missing)
    check("open_files" not in parsed and parsed["process"]["command"] == "sleep 300", parsed)
    check("in what could be seen" in parsed["summary"][0], parsed["summary"])


def a_thousand_threads_and_ten_thousand_files():
    victim = Victim("waits", "files", "10000", "1000")
    costs = []
    for _ in range(3):
        text, parsed, cost = take("triage", victim.pid)
        costs.append(cost)
    check(cost["threads"] == 1001 and parsed["open_files"] >= 10003, cost)
    check("only counted" in parsed["missing"], parsed["missing"])
    check(len(text) < 200000, len(text))
    best = min(costs, key=lambda c: c["cpu_us"])
    check(best["cpu_us"] < 3000000 and best["rss_kib"] < 32768, best)
    say("triage of 1,001 threads and %d files: %.0f ms of CPU, %.0f ms, %d KiB resident"
        % (parsed["open_files"], best["cpu_us"] / 1000, best["wall_us"] / 1000, best["rss_kib"]))


def blocking_calls_see_no_interruption():
    victim = Victim("syscalls", stderr=subprocess.DEVNULL)
    victim.ask()
    for _ in range(10):
        take("triage", victim.pid)
        take("net", victim.pid)
    answer = victim.ask().split()
    check(int(answer[0]) >= 30 and answer[1] == "0", answer)


sys.exit(run([net_says_what_ss_says, a_redis_that_is_not_read_from_is_said_first, a_triage_of_redis, nginx_shares_its_socket,
              a_deadlock_is_said_first, one_mutex_whose_holder_waits_for_another_process,
              a_lock_of_a_file_between_two_processes, a_backlog_that_overflows, a_network_namespace,
              without_privilege_what_is_missing_is_said, a_thousand_threads_and_ten_thousand_files,
              blocking_calls_see_no_interruption], checks=True))
