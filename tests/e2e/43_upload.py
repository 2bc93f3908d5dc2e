#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An artifact of unknown size comes in many calls of Upload (runs), as a core does: what a reply counts is stored for good,
whatever is cut or killed in between, and the agent keeps nothing else. SIZE_MB=N of the large one (default 100)."""
import hashlib
import os
import random
import re
import subprocess

import grpc

from trawltest import BIN, PIECE, Collector, FakeAgent, case, check, check_equal, main, pb, wait_for

SIZE = int(os.environ.get("SIZE_MB", "100")) << 20
RUN_PIECES = 32  # 1 MiB

c = Collector()
sre = c.person("sre")
developer = c.person("developer")
admin = c.person("admin")


def status_of(call):
    try:
        call()
        return grpc.StatusCode.OK, ""
    except grpc.RpcError as e:
        return e.code(), e.details()


def resident_mb():
    with open("/proc/%d/status" % c.process.pid) as f:
        return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) >> 10


def waiting_agent(name, **more):
    """An agent with an order under way, that has sent nothing yet."""
    agent = FakeAgent(c, name, on_order=lambda a, o: a.verdict(o, pb.RUNNING, 1)).connect()
    reply = sre.capture(name, what=["core"], **more)
    wait_for(lambda: agent.orders and sre.targets(reply.incident)[name].state == pb.RUNNING, "running")
    return agent, agent.orders[-1]


class Stream:
    """Bytes that can be made only going forward; keeps what was not acknowledged, as an agent does."""

    def __init__(self, size, seed=1):
        self.random = random.Random(seed)
        self.left = size
        self.size = size
        self.hash = hashlib.sha256()
        self.kept = {}  # piece number -> bytes
        self.made = 0
        self.most_kept = 0

    def make(self):
        data = self.random.randbytes(min(PIECE, self.left))
        self.left -= len(data)
        self.hash.update(data)
        self.kept[self.made] = data
        self.made += 1
        self.most_kept = max(self.most_kept, len(self.kept))

    def run(self, begin, count):
        while self.left and self.made < begin + count:
            self.make()
        return [(no, self.kept[no]) for no in range(begin, min(begin + count, self.made))]

    def acknowledged(self, pieces):
        for no in [n for n in self.kept if n < pieces]:
            del self.kept[no]

    def meta(self):
        return pb.Artifact(kind="core", process="fake", pid=42, file="core-fake-42.core", size_bytes=self.size,
                           sha256=self.hash.digest())


def send_all(agent, order, stream, disturb=lambda n: None, number=1):
    state = agent.upload_status(order, number)
    n = 0
    while not state.sealed:
        pieces = stream.run(state.pieces, RUN_PIECES + n % 2)
        last = stream.meta() if not stream.left and (not pieces or pieces[-1][0] == stream.made - 1) else None
        if last and not pieces:
            pieces = [(state.pieces, b"")]
        disturb(n)
        n += 1
        try:
            before, state = state, agent.upload_run(order, pieces, number, last)
            check(state.sealed or state.pieces >= before.pieces, "the number of pieces never falls: %s" % state)
            check(state.sealed or state.size_bytes == state.pieces * PIECE, str(state))
        except grpc.RpcError:
            again = wait_for(lambda: known_status(agent, order, number), "the status after a cut", 30)
            check(again.pieces >= before.pieces, "%d pieces were acknowledged, %d are there" % (before.pieces, again.pieces))
            state = again
        stream.acknowledged(state.pieces)
    return n


def known_status(agent, order, number):
    try:
        return agent.upload_status(order, number)
    except grpc.RpcError:
        return None


def finish(agent, order, artifacts=1):
    agent.verdict(order, pb.DONE, 2, artifacts=artifacts)
    wait_for(lambda: sre.targets(order.incident)[agent.host].state == pb.DONE, "done")
    agent.disconnect()


@case
def a_run_ends_without_a_last_piece():
    agent, order = waiting_agent("run-1")
    state = agent.upload_run(order, [(0, b"a" * PIECE), (1, b"b" * PIECE), (2, b"c" * PIECE)])
    check_equal((state.pieces, state.size_bytes, state.sealed), (2, 2 * PIECE, False), "an odd piece is not stored")
    check_equal(agent.upload_status(order), state)
    code, text = status_of(lambda: agent.upload_run(order, [(3, b"d" * PIECE)]))
    check(code == grpc.StatusCode.ABORTED and "piece 2 was expected" in text, "%s %s" % (code, text))
    code, text = status_of(lambda: agent.upload_run(order, [(2, b"short")]))
    check("not 32760" in text, text)
    code, text = status_of(lambda: agent.upload_run(order, []))
    check(code != grpc.StatusCode.OK and "before its first piece" in text, text)
    whole = b"a" * PIECE + b"b" * PIECE + b"c" * PIECE + b"end"
    meta = pb.Artifact(kind="core", process="fake", pid=42, size_bytes=len(whole), sha256=hashlib.sha256(whole).digest())
    state = agent.upload_run(order, [(2, b"c" * PIECE), (3, b"end")], last=meta)
    check_equal((state.size_bytes, state.sealed), (len(whole), True))
    check(developer.fetch(order.incident, "run-1", 1) == whole, "fetched bytes")
    finish(agent, order)


@case
def an_empty_last_piece_ends_what_is_all_stored():
    agent, order = waiting_agent("empty-1")
    for number, size in enumerate((4 * PIECE, 2 * PIECE + 100), 1):
        data = random.Random(number).randbytes(size)
        meta = pb.Artifact(kind="core", process="fake", size_bytes=size, sha256=hashlib.sha256(data).digest())
        pieces = [(no, data[no * PIECE:(no + 1) * PIECE]) for no in range((size + PIECE - 1) // PIECE)]
        whole = [p for p in pieces if len(p[1]) == PIECE]  # a short one comes with `last` only
        check_equal(agent.upload_run(order, whole, number).pieces, len(whole))
        at = agent.upload_status(order, number).pieces
        rest = [p for p in pieces if p[0] >= at] or [(at, b"")]
        check(agent.upload_run(order, rest, number, last=meta).sealed, "sealed")
        check(developer.fetch(order.incident, "empty-1", number) == data, "fetched bytes")
    finish(agent, order, 2)


@case
def one_hundred_megabytes_in_runs():
    agent, order = waiting_agent("large-1")
    stream = Stream(SIZE)
    before = resident_mb()
    runs = send_all(agent, order, stream)
    check(runs >= SIZE >> 20, "%d runs" % runs)
    check(stream.most_kept <= RUN_PIECES + 2, "the agent kept %d pieces" % stream.most_kept)
    grown = resident_mb() - before
    print("      %d runs, the collector's private memory grew by %d MB" % (runs, grown), flush=True)
    with open(BIN + "/trawl-collector", "rb") as f:
        if b"__asan_init" not in f.read():  # its quarantine keeps what was freed
            check(grown < 32, "the collector's private memory grew by %d MB" % grown)
    digest = hashlib.sha256()
    request = pb.FetchRequest(incident=order.incident, host="large-1", artifact=1)
    for piece in developer.many("Fetch", request, pb.Piece, seconds=120 + (SIZE >> 20)):
        digest.update(piece.data)
    check_equal(digest.hexdigest(), stream.hash.hexdigest())
    finish(agent, order)


@case
def connections_are_cut_between_and_within_runs():
    agent, order = waiting_agent("cuts-1")
    stream = Stream(12 << 20, seed=2)

    def disturb(n):
        if n % 3 == 2:  # pieces are on their way when the connection goes
            state = agent.upload_status(order)
            pieces = stream.run(state.pieces, 20)
            call = agent.channel.stream_unary("/trawl.v1.Fleet/Upload", request_serializer=pb.Piece.SerializeToString)
            messages = [pb.Piece(incident=order.incident, artifact=1, no=no, data=data) for no, data in pieces]
            future = call.future(iter(messages), timeout=10)
            agent.channel.close()
            future.cancel()
            agent.reader.join(10)
            agent.connect()
    send_all(agent, order, stream, disturb)
    check(hashlib.sha256(developer.fetch(order.incident, "cuts-1", 1)).digest() == stream.hash.digest(), "fetched bytes")
    finish(agent, order)


@case
def nothing_acknowledged_is_lost_when_the_collector_is_killed():
    agent, order = waiting_agent("killed-1")
    stream = Stream(10 << 20, seed=3)

    def disturb(n):
        if n % 3 == 2:
            c.kill()
            agent.reader.join(10)
            c.start()
            agent.connect()
            for person in (sre, developer, admin):
                person.reconnect()
    send_all(agent, order, stream, disturb)
    check(hashlib.sha256(developer.fetch(order.incident, "killed-1", 1)).digest() == stream.hash.digest(), "fetched bytes")
    finish(agent, order)


@case
def what_is_not_completed_goes_with_its_order():
    agent, order = waiting_agent("half-1")
    agent.upload_run(order, [(no, b"x" * PIECE) for no in range(8)], 1)
    agent.upload(order, b"whole", 2)
    check_equal(agent.upload_status(order, 1).pieces, 8)
    agent.verdict(order, pb.PARTIAL, 2, artifacts=1, reason="core: the process ended")
    wait_for(lambda: sre.targets(order.incident)["half-1"].state == pb.PARTIAL, "partial")
    wait_for(lambda: c.logged("'%s/half-1/1' was never completed: deleted" % order.incident), "the deletion")
    check(not c.logged("'%s/half-1/2' was never" % order.incident), "what is complete stays")
    check(developer.fetch(order.incident, "half-1", 2) == b"whole", "fetched bytes")
    code, text = status_of(lambda: agent.upload_run(order, [(8, b"x" * PIECE)], 1))
    check(code == grpc.StatusCode.PERMISSION_DENIED and "not ended" in text, "%s %s" % (code, text))
    agent.disconnect()


def put_while_down(*artifacts):
    """The collector dies, having stored these (order, host, number, bytes, "sealed" or "open") and recorded none of them."""
    c.kill()
    tool = os.path.join(os.path.dirname(BIN), "bench/bench_store_put")
    for order, host, number, data, how in artifacts:
        subprocess.run([tool, c.directory + "/store", "collector", "%s/%s/%d" % (order.incident, host, number), how],
                       input=data, check=True)
    c.start()
    for person in (sre, developer, admin):
        person.reconnect()


def reconnect(agent):
    agent.channel.close()
    agent.reader.join(10)
    agent.connect()


@case
def what_died_between_sealing_and_recording_is_recorded():
    agent, order = waiting_agent("sealed-1")
    data = [random.Random(n).randbytes(size) for n, size in enumerate((200000, 65520, 10))]
    put_while_down(*[(order, "sealed-1", n, d, "sealed") for n, d in enumerate(data, 1)])
    reconnect(agent)
    check_equal(sre.artifacts(order.incident), [], "nothing is recorded")
    for number, d in enumerate(data, 1):
        state = agent.upload_status(order, number)
        check_equal((state.size_bytes, state.sealed), (len(d), False), "sealed is what can be found again")
        meta = pb.Artifact(kind="core", process="fake", size_bytes=len(d), sha256=hashlib.sha256(d).digest())
        check(agent.upload_run(order, [(state.pieces, b"")], number, last=meta).sealed, "sealed")
        check(developer.fetch(order.incident, "sealed-1", number) == d, "fetched bytes")
        check(agent.upload_status(order, number).sealed, "sealed for good")
    # One that was sealed and is not what the agent has: nothing of it is kept, and it comes anew.
    put_while_down((order, "sealed-1", 4, b"other bytes", "sealed"))
    reconnect(agent)
    state = agent.upload_status(order, 4)
    meta = pb.Artifact(kind="core", size_bytes=5, sha256=hashlib.sha256(b"right").digest())
    code, text = status_of(lambda: agent.upload_run(order, [(state.pieces, b"")], 4, last=meta))
    check_equal(code, grpc.StatusCode.DATA_LOSS, text)
    check(agent.upload_run(order, [(0, b"right")], 4, last=meta).sealed, "sent anew")
    finish(agent, order, 4)


@case
def what_died_between_the_last_piece_and_sealing_is_sealed():
    agent, order = waiting_agent("open-1")
    data = [random.Random(n).randbytes(size) for n, size in enumerate((70000, 2 * PIECE, 100000, 1))]
    put_while_down(*[(order, "open-1", n, d, "open") for n, d in enumerate(data, 1)])
    reconnect(agent)
    for number, d in enumerate(data, 1):
        state = agent.upload_status(order, number)
        check_equal((state.size_bytes, state.sealed), (len(d), False))
        meta = pb.Artifact(kind="core", process="fake", size_bytes=len(d), sha256=hashlib.sha256(d).digest())
        check(agent.upload_run(order, [(state.pieces, b"")], number, last=meta).sealed, "sealed")
        check(developer.fetch(order.incident, "open-1", number) == d, "fetched bytes")
    # More after a short piece cannot be.
    put_while_down((order, "open-1", 5, b"x" * 70000, "open"))
    reconnect(agent)
    code, text = status_of(lambda: agent.upload_run(order, [(4, b"y" * PIECE), (5, b"y" * PIECE)], 5))
    check(code == grpc.StatusCode.ABORTED, "%s %s" % (code, text))
    finish(agent, order, 4)


@case
def what_is_not_completed_goes_at_start_up_too():
    agent, order = waiting_agent("half-2")
    open_agent, open_order = waiting_agent("half-3")
    agent.upload(order, b"recorded", 1)
    agent.verdict(order, pb.PARTIAL, 2, artifacts=1, reason="made to fail")
    wait_for(lambda: sre.targets(order.incident)["half-2"].state == pb.PARTIAL, "partial")
    put_while_down((order, "half-2", 2, b"x" * 100000, "open"), (order, "half-2", 3, b"x" * 100000, "sealed"),
                   (open_order, "half-3", 1, b"x" * 4 * PIECE, "open"), (open_order, "half-3", 2, b"y", "sealed"))
    for number in (2, 3):
        wait_for(lambda: c.logged("'%s/half-2/%d' was never completed: deleted" % (order.incident, number)), "the deletion")
    check(not c.logged("'%s/half-2/1' was never" % order.incident), "what is recorded is not deleted")
    check(developer.fetch(order.incident, "half-2", 1) == b"recorded", "what is recorded stays")
    reconnect(open_agent)
    check_equal([open_agent.upload_status(open_order, n).pieces for n in (1, 2)], [4, 2], "of an order that goes on")
    open_agent.verdict(open_order, pb.FAILED, 2, reason="made to fail")
    wait_for(lambda: all(c.logged("'%s/half-3/%d' was never completed: deleted" % (open_order.incident, n)) for n in (1, 2)),
             "the deletion")
    c.kill()  # what was deleted is not found at the next start
    c.start()
    with open(c.log) as f:
        check_equal(f.read().count("/half-3/1' was never completed"), 1)
    agent.channel.close()
    open_agent.channel.close()


@case
def an_order_that_ends_takes_a_call_with_it():
    """The last piece has come and what a dead collector had stored is being hashed: the order ends meanwhile."""
    agent, order = waiting_agent("ends-1")
    data = bytes(40 << 20)
    put_while_down((order, "ends-1", 1, data, "open"))
    reconnect(agent)
    meta = pb.Artifact(kind="core", process="fake", size_bytes=len(data), sha256=hashlib.sha256(data).digest())
    at = agent.upload_status(order).pieces
    call = agent.channel.stream_unary("/trawl.v1.Fleet/Upload", request_serializer=pb.Piece.SerializeToString)
    future = call.future(iter([pb.Piece(incident=order.incident, artifact=1, no=at, last=True, meta=meta)]), timeout=20)
    agent.verdict(order, pb.FAILED, 2, reason="made to fail")
    code, text = status_of(future.result)
    wait_for(lambda: sre.targets(order.incident)["ends-1"].state == pb.FAILED, "failed")
    if code == grpc.StatusCode.OK:  # it was sealed before the verdict came: then it stays
        check_equal(developer.fetch(order.incident, "ends-1", 1), data)
    else:
        wait_for(lambda: c.logged("'%s/ends-1/1' was never completed: deleted" % order.incident), "the deletion")
    check(c.process.poll() is None, "the collector runs on")
    agent.disconnect()


@case
def a_full_store_says_so_and_keeps_what_it_acknowledged():
    small = Collector("--artifacts-max", "64M", name="small")
    agent = FakeAgent(small, "full-1", on_order=lambda a, o: a.verdict(o, pb.RUNNING, 1)).connect()
    person = small.person("sre")
    person.capture("full-1", what=["core"])
    wait_for(lambda: agent.orders, "order")
    order = agent.orders[0]
    stored, block = 0, os.urandom(PIECE)
    code = grpc.StatusCode.OK
    while code == grpc.StatusCode.OK and stored < 70 << 20:
        state = agent.upload_status(order)
        stored = state.size_bytes
        code, text = status_of(lambda: agent.upload_run(order, [(state.pieces + n, block) for n in range(RUN_PIECES)]))
    check_equal(code, grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    check("no space left" in text and "64" in text, text)
    check(stored > 40 << 20, "%d bytes fitted" % stored)
    check(agent.upload_status(order).size_bytes >= stored, "what was acknowledged stays")
    agent.verdict(order, pb.FAILED, 2, reason=text[:200])
    wait_for(lambda: person.targets(order.incident)["full-1"].state == pb.FAILED, "failed")
    # Its room is free again for the next one, when the deletion is through.
    person.capture("full-1", what=["core"])
    wait_for(lambda: len(agent.orders) == 2, "the second order")
    wait_for(lambda: status_of(lambda: agent.upload(agent.orders[1], b"z" * (20 << 20)))[0] == grpc.StatusCode.OK, "room", 30)
    agent.channel.close()
    small.stop()


if __name__ == "__main__":
    main()
