# SPDX-License-Identifier: Apache-2.0
"""What the Python scenarios share: a collector in a temporary directory, people with certificates, stock gRPC channels,
agents made of Python for what a real agent would not do, real agents and CLI calls. Everything that was started is ended,
by pid, when the process ends. Waits are for conditions, with a deadline."""
import atexit
import hashlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import grpc

SOURCE = os.environ.get("TRAWL_SOURCE") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("TRAWL_BIN") or os.path.join(SOURCE, "build/release/bin")
TMP = tempfile.mkdtemp(prefix="trawl-e2e-")
os.chmod(TMP, 0o755)
PIECE = 32760
_processes = []


def _clean_up():
    for p in _processes:
        if p.poll() is None:
            p.kill()
            p.wait()
    if os.environ.get("TRAWL_KEEP"):
        print("kept:", TMP)
    else:
        shutil.rmtree(TMP, ignore_errors=True)


atexit.register(_clean_up)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def _messages():
    out = os.path.join(TMP, "py")
    os.makedirs(out, exist_ok=True)
    subprocess.check_call(["protoc", "-I", os.path.join(SOURCE, "proto"), "--python_out=" + out, "trawl.proto"])
    sys.path.insert(0, out)
    import trawl_pb2
    return trawl_pb2


pb = _messages()

# ---- counting ----

_cases = []
_failures = 0
_skips = 0


class Skip(Exception):
    pass


def case(function):
    """Registers a function as a test; they run in the order in which they stand."""
    _cases.append(function)
    return function


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def check_equal(got, wanted, text=""):
    if got != wanted:
        raise AssertionError("%s: got %r, wanted %r" % (text, got, wanted))


def sanitizer_report():
    """What a sanitized program said in its log, with what follows; empty when nothing."""
    for folder, _, names in os.walk(TMP):
        for name in names:
            if name.endswith(".log"):
                with open(os.path.join(folder, name), errors="replace") as f:
                    text = f.read()
                for sign in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:"):
                    if sign in text:
                        return text[text.index(sign):][:4000]
    return ""


def main():
    global _failures, _skips
    passed = 0
    wanted = sys.argv[1:]
    for function in _cases:
        if wanted and function.__name__ not in wanted:
            continue
        begin = time.monotonic()
        try:
            function()
            passed += 1
            print("ok    %s (%.1f s)" % (function.__name__, time.monotonic() - begin), flush=True)
        except Skip as why:
            _skips += 1
            print("skip  %s: %s" % (function.__name__, why), flush=True)
        except BaseException:  # a failing case must not hide the ones after it
            _failures += 1
            print("FAIL  %s" % function.__name__, flush=True)
            traceback.print_exc(file=sys.stdout)
            for collector in Collector.all:
                collector.show_log()
    report = sanitizer_report()
    if report:
        _failures += 1
        print("FAIL  a sanitizer complained\n" + report, flush=True)
    print("%d passed, %d failed, %d skipped" % (passed, _failures, _skips), flush=True)
    sys.exit(1 if _failures else 0)


def wait_for(condition, text, seconds=20):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited %d s in vain: %s" % (seconds, text))
        time.sleep(0.02)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start(arguments, log, **more):
    p = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=open(log, "ab"), stderr=subprocess.STDOUT, **more)
    _processes.append(p)
    return p


# ---- the collector and people ----

class Collector:
    all = []

    def __init__(self, *arguments, name="collector"):
        self.directory = os.path.join(TMP, name)
        self.log = self.directory + ".log"
        self.port, self.join_port = free_ports(2)
        self.arguments = list(arguments)
        self.process = None
        self.contexts = {}
        self.run("init", self.directory, "--fleet", os.path.basename(name), "--address", "127.0.0.1", "--port", str(self.port))
        Collector.all.append(self)
        self.start()

    def run(self, *arguments):
        return subprocess.run([BIN + "/trawl-collector"] + list(arguments), check=True, capture_output=True, text=True)

    def start(self):
        self.process = start([BIN + "/trawl-collector", "run", "--data", self.directory, "--listen", "127.0.0.1",
                              "--port", str(self.port), "--join-port", str(self.join_port)] + self.arguments, self.log)
        self.wait_up()

    def wait_up(self):
        def up():
            check(self.process.poll() is None, "the collector ended with %r" % self.process.returncode)
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0
        wait_for(up, "the collector serves")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(20)

    def show_log(self):
        if os.path.exists(self.log):
            with open(self.log) as f:
                print("---- %s\n%s" % (self.log, "".join(f.readlines()[-40:])))

    def logged(self, text):
        with open(self.log) as f:
            return text in f.read()

    def context(self, role):
        """The directory with the credentials of a person with this role."""
        if role == "admin":
            return os.path.join(self.directory, "admin")
        if role not in self.contexts:
            out = os.path.join(TMP, "%s-%s" % (os.path.basename(self.directory), role))
            self.run("issue", "--data", self.directory, "--role", role, role, "--out", out)
            self.contexts[role] = out
        return self.contexts[role]

    def person(self, role):
        return Person(self, self.context(role))

    def channel(self, directory):
        def read(name):
            with open(os.path.join(directory, name), "rb") as f:
                return f.read()
        credentials = grpc.ssl_channel_credentials(read("ca.crt"), read("key.pem"), read("cert.crt"))
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200),
                   ("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel("127.0.0.1:%d" % self.port, credentials, options)

    def token(self, **labels):
        request = pb.EnrollRequest(labels=[pb.Label(key=k, value=v) for k, v in labels.items()])
        return self.person("admin").one("Enroll", request, pb.EnrollReply).token


class Person:
    """Calls of Operations with the certificate in a context directory, by the stock client."""

    def __init__(self, collector, directory):
        self.collector, self.directory = collector, directory
        self.channel = collector.channel(directory)

    def reconnect(self):
        """After the collector was killed: a call on the old connection could still meet its end."""
        self.channel.close()
        self.channel = self.collector.channel(self.directory)

    def one(self, method, request, reply, seconds=20):
        call = self.channel.unary_unary("/trawl.v1.Operations/" + method,
                                        request_serializer=type(request).SerializeToString,
                                        response_deserializer=reply.FromString)
        return call(request, timeout=seconds, wait_for_ready=True)

    def many(self, method, request, reply, seconds=20):
        call = self.channel.unary_stream("/trawl.v1.Operations/" + method,
                                         request_serializer=type(request).SerializeToString,
                                         response_deserializer=reply.FromString)
        return call(request, timeout=seconds, wait_for_ready=True)

    def hosts(self, selector=""):
        return {h.name: h for h in self.many("Hosts", pb.HostsRequest(selector=selector), pb.Host)}

    def capture(self, selector, **more):
        more.setdefault("what", ["stacks"])
        return self.one("Capture", pb.CaptureRequest(selector=selector, request_id=os.urandom(16), **more),
                        pb.CaptureReply)

    def show(self, incident):
        return list(self.many("Show", pb.IncidentRequest(incident=incident), pb.IncidentPart))

    def targets(self, incident):
        return {p.target.host: p.target for p in self.show(incident) if p.WhichOneof("body") == "target"}

    def artifacts(self, incident):
        return [p.artifact for p in self.show(incident) if p.WhichOneof("body") == "artifact"]

    def fetch(self, incident, host, number, from_piece=0):
        request = pb.FetchRequest(incident=incident, host=host, artifact=number, from_piece=from_piece)
        return b"".join(p.data for p in self.many("Fetch", request, pb.Piece))

    def trawl(self, *arguments, **more):
        """The real CLI with this person's context."""
        return subprocess.run([BIN + "/trawl", "--context", self.directory] + list(arguments), capture_output=True,
                              text=True, timeout=120, **more)

    def trawl_json(self, *arguments):
        done = self.trawl(*arguments, "-o", "json")
        check_equal(done.returncode, 0, "trawl %s: %s" % (" ".join(arguments), done.stderr))
        return [json.loads(line) for line in done.stdout.splitlines()]


# ---- agents ----

def join_by_hand(collector, host, **labels):
    """Joins as an agent would, with openssl and a stock client; returns a directory like a context."""
    directory = os.path.join(TMP, "agent-" + host)
    os.makedirs(directory, exist_ok=True)
    subprocess.check_call(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                           "-nodes", "-keyout", directory + "/key.pem", "-outform", "DER", "-out",
                           directory + "/request.der", "-subj", "/CN=" + host], stderr=subprocess.DEVNULL)
    with open(collector.directory + "/pki/ca.crt", "rb") as f:
        channel = grpc.secure_channel("127.0.0.1:%d" % collector.join_port, grpc.ssl_channel_credentials(f.read()))
    call = channel.unary_unary("/trawl.v1.Join/Join", request_serializer=pb.JoinRequest.SerializeToString,
                               response_deserializer=pb.Certificate.FromString)
    with open(directory + "/request.der", "rb") as f:
        request = pb.JoinRequest(secret=collector.token(**labels).split(".")[2], host=host, request_der=f.read())
    reply = call(request, timeout=10)
    with open(directory + "/cert.crt", "w") as f:
        f.write(reply.certificate_pem)
    with open(directory + "/ca.crt", "w") as f:
        f.write(reply.ca_pem)
    channel.close()
    return directory


class FakeAgent:
    """An agent of Python. `on_order(agent, order)` runs in the reader's thread; default: upload one artifact, done."""

    def __init__(self, collector, host, on_order=None, state_id=None, **labels):
        self.collector, self.host = collector, host
        self.directory = join_by_hand(collector, host, **labels)
        self.state_id = state_id or os.urandom(16)
        self.on_order = on_order or FakeAgent.succeed
        self.last_order = 0
        self.orders, self.cancels, self.acks, self.rules = [], [], [], []
        self.welcome = None
        self.error = None
        self.blocks = self.events = 0

    def connect(self):
        self.welcome = self.error = None
        outbox = queue.Queue()  # announced before an earlier connection's reader can answer a probe with it
        outbox.put(pb.AgentMessage(announce=pb.Announce(version="0.1.0", state_id=self.state_id, epoch=1,
                                                        last_order=self.last_order)))
        self.outbox = outbox
        self.channel = self.collector.channel(self.directory)
        call = self.channel.stream_stream("/trawl.v1.Fleet/Connect",
                                          request_serializer=pb.AgentMessage.SerializeToString,
                                          response_deserializer=pb.CollectorMessage.FromString)
        self.stream = call(iter(outbox.get, None), wait_for_ready=True)
        self.reader = threading.Thread(target=self._read, args=(self.stream,), daemon=True)
        self.reader.start()
        wait_for(lambda: self.welcome or self.error, "welcome of " + self.host)
        check(self.error is None, "connect of %s: %s" % (self.host, self.error))
        return self

    def send(self, **body):
        self.outbox.put(pb.AgentMessage(**body))

    def disconnect(self):
        self.outbox.put(None)
        self.channel.close()
        self.reader.join(10)
        name = self.host
        wait_for(lambda: self.collector.person("admin").hosts("*")[name].state == pb.OFFLINE, name + " is offline")

    def verdict(self, order, state, no=1, **more):
        self.send(verdict=pb.Verdict(order=order.order, incident=order.incident, no=no, state=state, **more))

    def event(self, text, seq, at=None):
        self.send(event=pb.Event(seq=seq, type=pb.PROCESS_STARTED, wall_us=at or int(time.time() * 1e6), text=text))

    def upload(self, order, data, number=1, kind="stacks", from_piece=0, sha256=None, until=None, seconds=20):
        meta = pb.Artifact(kind=kind, process="fake", pid=42, file="%s-fake-%d.txt" % (kind, number), pause_us=300,
                           paused=True, size_bytes=len(data), sha256=sha256 or hashlib.sha256(data).digest())

        def pieces():
            count = max(1, (len(data) + PIECE - 1) // PIECE)
            for no in range(from_piece, min(count, until or count)):
                last = no == count - 1
                piece = pb.Piece(incident=order.incident, artifact=number, no=no, last=last,
                                 data=data[no * PIECE:(no + 1) * PIECE])
                if last or no == from_piece:
                    piece.meta.CopyFrom(meta)
                yield piece
        call = self.channel.stream_unary("/trawl.v1.Fleet/Upload", request_serializer=pb.Piece.SerializeToString,
                                         response_deserializer=pb.UploadState.FromString)
        return call(pieces(), timeout=seconds)

    def upload_run(self, order, pieces, number=1, last=None, seconds=20):
        """One call of Upload with these (number, bytes); `last` is the description that ends the artifact."""
        def messages():
            for i, (no, data) in enumerate(pieces):
                piece = pb.Piece(incident=order.incident, artifact=number, no=no, data=data)
                if i == 0:
                    piece.meta.CopyFrom(pb.Artifact(kind="core", process="fake", pid=42, file="core-fake-42.core"))
                if last and i == len(pieces) - 1:
                    piece.last = True
                    piece.meta.CopyFrom(last)
                yield piece
        call = self.channel.stream_unary("/trawl.v1.Fleet/Upload", request_serializer=pb.Piece.SerializeToString,
                                         response_deserializer=pb.UploadState.FromString)
        return call(messages(), timeout=seconds)

    def upload_status(self, order, number=1):
        call = self.channel.unary_unary("/trawl.v1.Fleet/UploadStatus",
                                        request_serializer=pb.UploadQuery.SerializeToString,
                                        response_deserializer=pb.UploadState.FromString)
        return call(pb.UploadQuery(incident=order.incident, artifact=number), timeout=10)

    def succeed(self, order):
        self.verdict(order, pb.RUNNING, 1)
        self.upload(order, b"evidence of " + self.host.encode(), order.first_artifact or 1)
        self.verdict(order, pb.DONE, 2, processes=1, artifacts=1, longest_pause_us=300)

    def _read(self, stream):
        try:
            for m in stream:
                self._take(m)
        except grpc.RpcError as e:
            if stream is self.stream:
                self.error = e

    def _take(self, m):
        body = m.WhichOneof("body")
        if body == "welcome":
            self.welcome = m.welcome
        elif body == "probe":
            now = int(time.time() * 1e6)
            self.send(probe_reply=pb.ProbeReply(id=m.probe.id, collector_us=m.probe.collector_us, received_us=now,
                                                sent_us=now))
        elif body == "order":
            self.orders.append(m.order)
            if m.order.order > self.last_order:
                self.last_order = m.order.order
                self.on_order(self, m.order)
        elif body == "cancel":
            self.cancels.append(m.cancel)
        elif body == "rules":
            self.rules.append(m.rules)
        elif body == "ack":
            self.acks.append(m.ack)
            self.blocks = max(self.blocks, m.ack.block)
            self.events = max(self.events, m.ack.event)


class Agent:
    """A real trawl-agent with its own state directory."""

    def __init__(self, collector, name, *arguments, **labels):
        self.collector, self.name = collector, name
        self.directory = os.path.join(TMP, "real-" + name)
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o755)
        self.log = self.directory + ".log"
        self.arguments = list(arguments)
        self.start("--join", collector.token(**labels))

    def start(self, *more):
        self.process = start([BIN + "/trawl-agent", "run", "--collector", "127.0.0.1:%d" % self.collector.port,
                              "--name", self.name, "--state-dir", self.directory + "/state"] + self.arguments +
                             list(more), self.log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(20)

    def wait_online(self, person=None):
        person = person or self.collector.person("admin")

        def online():
            check(self.process.poll() is None, "agent ended: " + open(self.log).read()[-2000:])
            host = person.hosts("*").get(self.name) if self.name in person.hosts("") else None
            return host and host.state == pb.ONLINE
        wait_for(online, self.name + " online")
        return self
