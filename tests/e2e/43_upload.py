#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An artifact of unknown size comes in many calls of Upload (runs), as a core does: what a reply counts is stored for good,
whatever is cut or killed in between, and the agent keeps nothing else. SIZE_MB=N of the large one (default 100)."""
import hashlib
import os
import random
import re

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
        if size % PIECE:  # a last piece with a wrong hash would delete it: cut the call instead, before it is sealed
            agent.upload_run(order, pieces[:2], number)
        else:
            check_equal(agent.upload_run(order, pieces, number).pieces, 4)
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
    check(grown < 32, "the collector's private memory grew by %d MB" % grown)
    digest = hashlib.sha256()
    request = pb.FetchRequest(incident=order.incident, host="large-1", artifact=1)
    for piece in developer.many("Fetch", request, pb.Piece, seconds=120):
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


@case
def what_is_not_completed_goes_at_start_up_too():
    agent, order = waiting_agent("half-2")
    open_agent, open_order = waiting_agent("half-3")
    for a, o in ((agent, order), (open_agent, open_order)):
        a.upload_run(o, [(no, b"x" * PIECE) for no in range(4)])
    # The order is over, and the collector dies before it has deleted anything: made by ending it while stopped is not
    # possible, so what is written after the end stands for it.
    agent.verdict(order, pb.FAILED, 2, reason="made to fail")
    wait_for(lambda: sre.targets(order.incident)["half-2"].state == pb.FAILED, "failed")
    c.kill()
    c.start()
    for person in (sre, developer, admin):
        person.reconnect()
    open_agent.connect()
    check_equal(open_agent.upload_status(open_order).pieces, 4, "of an order that goes on")
    stats = c.logged("'%s/half-2/1' was never completed: deleted" % order.incident)
    check(stats, "deleted, before or after the start")
    open_agent.verdict(open_order, pb.FAILED, 2, reason="made to fail")
    wait_for(lambda: c.logged("'%s/half-3/1' was never completed: deleted" % open_order.incident), "the deletion")
    agent.channel.close()
    open_agent.disconnect()


if __name__ == "__main__":
    main()
