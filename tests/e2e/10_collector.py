#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The collector alone: authority, the state machine of captures, storage, with stock clients and agents of Python."""
import queue
import re
import subprocess
import time

import grpc

from trawltest import (BIN, SOURCE, Agent, Collector, FakeAgent, Person, case, check, check_equal, main, pb, wait_for)

c = Collector()
admin, sre, developer = c.person("admin"), c.person("sre"), c.person("developer")


def status_of(function):
    try:
        function()
    except grpc.RpcError as e:
        return e.code(), e.details()
    return grpc.StatusCode.OK, ""


def methods():
    """methods.def as the test reads it: path, streaming, roles."""
    with open(SOURCE + "/proto/methods.def") as f:
        return re.findall(r'METHOD\(\w+,\s*"([^"]+)",\s*\w+,\s*\w+,\s*(\w+),\s*([A-Z|]+)\)', f.read())


@case
def every_role_may_call_exactly_its_methods():
    agent = FakeAgent(c, "matrix-1")
    channels = {"A": c.channel(agent.directory), "S": sre.channel, "D": developer.channel, "X": admin.channel}
    rows = methods()
    check(len(rows) > 20, "methods.def was not read")
    for path, streaming, allowed in rows:
        for role, channel in channels.items():
            call = channel.stream_stream(path)
            code, text = status_of(lambda: list(call(iter([b"\xff\xff"]), timeout=5)))
            denied = code == grpc.StatusCode.PERMISSION_DENIED
            check_equal(denied, role not in allowed.split("|"), "%s by %s: %s %s" % (path, role, code, text))


@case
def unknown_methods_are_unimplemented():
    code, text = status_of(lambda: admin.channel.unary_unary("/trawl.v1.Operations/Dance")(b"", timeout=5))
    check_equal(code, grpc.StatusCode.UNIMPLEMENTED, text)


@case
def a_capture_gathers_from_every_host():
    agents = [FakeAgent(c, "all-%d" % i, role="all").connect() for i in range(3)]
    reply = sre.capture("role=all")
    check_equal((reply.hosts, reply.online), (3, 3))
    states = [p for p in sre.many("Watch", pb.IncidentRequest(incident=reply.incident), pb.IncidentPart)]
    check(states[-1].end, "watch ends")
    targets = sre.targets(reply.incident)
    check_equal({t.state for t in targets.values()}, {pb.DONE})
    for a in developer.artifacts(reply.incident):
        check_equal(developer.fetch(reply.incident, a.host, a.no), b"evidence of " + a.host.encode())
    for a in agents:
        a.disconnect()


@case
def a_sample_is_spread_over_a_label():
    for i in range(4):
        FakeAgent(c, "sample-%d" % i, pool="sample", rack="ab"[i // 3])
    reply = sre.capture("pool=sample", sample=2, spread="rack", dry_run=True)
    zones = {lb.value for name in reply.names for lb in admin.hosts(name)[name].labels if lb.key == "rack"}
    check_equal((reply.hosts, zones), (2, {"a", "b"}))
    again = sre.capture("pool=sample", sample=2, spread="rack")
    check_equal(set(sre.targets(again.incident)), set(reply.names), "the dry run told the truth")
    check_equal(sre.capture("pool=sample", sample=9, dry_run=True).hosts, 4)


@case
def requests_that_are_wrong_say_what_would_be_right():
    for request, wanted in [
            (pb.CaptureRequest(selector="", what=["stacks"]), "no hosts selected"),
            (pb.CaptureRequest(selector="role=nobody"), "no host matches 'role=nobody'"),
            (pb.CaptureRequest(selector="=x"), "lacks a key"),
            (pb.CaptureRequest(selector="*", what=["stakcs"]), "unknown kind 'stakcs'"),
            (pb.CaptureRequest(selector="*", pause_max_us=300000), "250 ms"),
            (pb.CaptureRequest(selector="*", spread="zone"), "--sample N"),
            (pb.CaptureRequest(selector="*", into="INC-000000-XXXXX"), "no incident"),
            (pb.CaptureRequest(selector="*", process=pb.ProcessSelector(pid=1, port=2)), "give one of")]:
        code, text = status_of(lambda: sre.one("Capture", request, pb.CaptureReply))
        check(code != grpc.StatusCode.OK and wanted in text, "%r: %s %s" % (wanted, code, text))


@case
def a_repeated_request_gives_the_same_incident():
    agent = FakeAgent(c, "same-1").connect()
    request = pb.CaptureRequest(selector="same-1", what=["stacks"], request_id=b"r" * 16)
    first = sre.one("Capture", request, pb.CaptureReply)
    second = sre.one("Capture", request, pb.CaptureReply)
    check_equal(second.incident, first.incident)
    wait_for(lambda: sre.targets(first.incident)["same-1"].state == pb.DONE, "done")
    check_equal(len(agent.orders), 1)
    agent.disconnect()


@case
def an_offline_host_gets_its_order_when_it_returns():
    agent = FakeAgent(c, "late-1")
    reply = sre.capture("late-1")
    check_equal((reply.hosts, reply.online), (1, 0))
    check_equal(sre.targets(reply.incident)["late-1"].state, pb.QUEUED)
    agent.connect()
    wait_for(lambda: sre.targets(reply.incident)["late-1"].state == pb.DONE, "done after the return")
    agent.disconnect()


@case
def an_offline_host_that_stays_away_expires():
    FakeAgent(c, "never-1")
    reply = sre.capture("never-1", expire_us=1200000)
    wait_for(lambda: sre.targets(reply.incident)["never-1"].state == pb.EXPIRED, "expired")
    target = sre.targets(reply.incident)["never-1"]
    check("offline until the order expired" in target.reason, target.reason)


@case
def an_order_survives_the_collector_and_runs_once():
    agent = FakeAgent(c, "once-1", on_order=lambda a, o: a.verdict(o, pb.RUNNING, 1)).connect()
    reply = sre.capture("once-1")
    wait_for(lambda: sre.targets(reply.incident)["once-1"].state == pb.RUNNING, "running")
    c.kill()
    agent.reader.join(10)
    c.start()
    sre.reconnect()
    check_equal(sre.targets(reply.incident)["once-1"].state, pb.RUNNING)
    agent.connect()
    order = agent.orders[0]
    agent.upload(order, b"x" * 100000)
    agent.verdict(order, pb.DONE, 2, artifacts=1, processes=1)
    wait_for(lambda: sre.targets(reply.incident)["once-1"].state == pb.DONE, "done")
    check_equal(len(agent.orders), 1, "orders sent")
    agent.disconnect()


@case
def an_order_that_was_not_accepted_is_sent_again_under_its_number():
    agent = FakeAgent(c, "again-1", on_order=lambda a, o: None).connect()
    reply = sre.capture("again-1")
    wait_for(lambda: agent.orders, "the order")
    agent.disconnect()
    agent.last_order = 0  # it crashed before it could write the order down
    agent.on_order = FakeAgent.succeed
    agent.connect()
    wait_for(lambda: sre.targets(reply.incident)["again-1"].state == pb.DONE, "done")
    check_equal([o.order for o in agent.orders], [agent.orders[0].order] * 2)
    agent.disconnect()


@case
def a_lost_state_directory_fails_what_was_sent():
    agent = FakeAgent(c, "lost-1", on_order=lambda a, o: a.verdict(o, pb.RUNNING, 1)).connect()
    reply = sre.capture("lost-1")
    wait_for(lambda: sre.targets(reply.incident)["lost-1"].state == pb.RUNNING, "running")
    agent.disconnect()
    agent.state_id, agent.last_order = b"n" * 16, 0
    agent.connect()
    wait_for(lambda: sre.targets(reply.incident)["lost-1"].state == pb.FAILED, "failed")
    check("state directory was lost" in sre.targets(reply.incident)["lost-1"].reason, "reason")
    check_equal(len(agent.orders), 1)
    agent.disconnect()


@case
def a_cancel_reaches_the_agent_and_what_waits():
    def obey(a, o):
        a.verdict(o, pb.RUNNING, 1)
    agent = FakeAgent(c, "stop-1", on_order=obey, role="stop").connect()
    FakeAgent(c, "stop-2", role="stop")
    reply = sre.capture("role=stop")
    wait_for(lambda: sre.targets(reply.incident)["stop-1"].state == pb.RUNNING, "running")
    sre.one("Cancel", pb.IncidentRequest(incident=reply.incident), pb.Incident)
    wait_for(lambda: agent.cancels, "the cancel")
    agent.verdict(agent.orders[0], pb.CANCELLED, 2, reason=agent.cancels[0].reason)
    wait_for(lambda: {t.state for t in sre.targets(reply.incident).values()} == {pb.CANCELLED}, "cancelled")
    code, text = status_of(lambda: sre.one("Cancel", pb.IncidentRequest(incident=reply.incident), pb.Incident))
    check("ended already" in text, text)
    agent.disconnect()


@case
def a_bad_canary_stops_the_rest():
    def fail(a, o):
        a.verdict(o, pb.FAILED, 1, reason="it went wrong")
    agents = [FakeAgent(c, "can-%d" % i, on_order=fail, role="can").connect() for i in range(3)]
    reply = sre.capture("role=can", canary=1)
    wait_for(lambda: all(t.state in (pb.FAILED, pb.CANCELLED) for t in sre.targets(reply.incident).values()), "ended")
    check_equal(sorted(t.state for t in sre.targets(reply.incident).values()), [pb.FAILED, pb.CANCELLED, pb.CANCELLED])
    check_equal(sum(len(a.orders) for a in agents), 1, "orders sent")
    for a in agents:
        a.disconnect()


@case
def no_more_run_at_once_than_allowed():
    running, most = [], []

    def slow(a, o):
        a.verdict(o, pb.RUNNING, 1)
        running.append(a.host)
        most.append(len(running))
    agents = [FakeAgent(c, "par-%d" % i, on_order=slow, role="par").connect() for i in range(5)]
    reply = sre.capture("role=par", max_parallel=2)
    for _ in agents:
        wait_for(lambda: running, "one runs")
        time.sleep(0.05)
        name = running.pop(0)
        agent = next(a for a in agents if a.host == name)
        agent.verdict(agent.orders[0], pb.DONE, 2)
    wait_for(lambda: {t.state for t in sre.targets(reply.incident).values()} == {pb.DONE}, "all done")
    check(max(most) <= 2, "at once: %d" % max(most))
    for a in agents:
        a.disconnect()


@case
def a_second_capture_into_an_incident_goes_on_with_its_numbers():
    agent = FakeAgent(c, "into-1").connect()
    first = sre.capture("into-1")
    wait_for(lambda: sre.targets(first.incident)["into-1"].state == pb.DONE, "done")
    second = sre.capture("into-1", into=first.incident)
    check_equal(second.incident, first.incident)
    wait_for(lambda: len(sre.artifacts(first.incident)) == 2 and
             sre.targets(first.incident)["into-1"].state == pb.DONE, "both artifacts")
    check_equal([a.no for a in sre.artifacts(first.incident)], [1, 2])
    agent.disconnect()


@case
def an_upload_goes_on_where_it_was_cut():
    data = bytes(range(256)) * 2000

    def half(a, o):
        a.verdict(o, pb.RUNNING, 1)
    agent = FakeAgent(c, "cut-1", on_order=half).connect()
    reply = sre.capture("cut-1")
    wait_for(lambda: agent.orders, "order")
    order = agent.orders[0]
    # Half a stored piece is not stored: the reply counts four of five, and that is what the status says.
    state = agent.upload(order, data, until=5)
    check_equal((state.pieces, state.size_bytes, state.sealed), (4, 4 * 32760, False))
    check_equal(agent.upload_status(order), state)
    agent.upload(order, data, from_piece=state.pieces)
    check(agent.upload_status(order).sealed, "sealed")
    agent.verdict(order, pb.DONE, 2, artifacts=1)
    wait_for(lambda: sre.targets(reply.incident)["cut-1"].state == pb.DONE, "done")
    check(developer.fetch(reply.incident, "cut-1", 1) == data, "fetched bytes")
    check(developer.fetch(reply.incident, "cut-1", 1, from_piece=7) == data[7 * 32760:], "resumed fetch")
    agent.disconnect()


@case
def a_wrong_hash_is_refused_and_nothing_of_it_is_kept():
    agent = FakeAgent(c, "bad-1", on_order=lambda a, o: None).connect()
    reply = sre.capture("bad-1")
    wait_for(lambda: agent.orders, "order")
    code, text = status_of(lambda: agent.upload(agent.orders[0], b"y" * 70000, sha256=b"0" * 32))
    check_equal(code, grpc.StatusCode.DATA_LOSS, text)
    check_equal(agent.upload_status(agent.orders[0]).pieces, 0)
    code, _ = status_of(lambda: developer.fetch(reply.incident, "bad-1", 1))
    check_equal(code, grpc.StatusCode.NOT_FOUND)
    agent.verdict(agent.orders[0], pb.FAILED, 1)
    agent.disconnect()


@case
def nobody_adds_artifacts_to_another_hosts_incident():
    one = FakeAgent(c, "own-1", on_order=lambda a, o: None).connect()
    other = FakeAgent(c, "own-2").connect()
    sre.capture("own-1")
    wait_for(lambda: one.orders, "order")
    code, text = status_of(lambda: other.upload(one.orders[0], b"forged"))
    check_equal(code, grpc.StatusCode.PERMISSION_DENIED, text)
    one.verdict(one.orders[0], pb.FAILED, 1)
    one.disconnect()
    other.disconnect()


@case
def what_is_sent_twice_is_stored_once():
    agent = FakeAgent(c, "twice-1").connect()
    begin = int(time.time() * 1e6)
    for _ in range(2):
        for seq in range(1, 21):
            agent.event("event %d" % seq, seq, begin + seq)
    wait_for(lambda: agent.events == 20, "all acknowledged")
    agent.disconnect()
    agent.connect()
    check_equal(agent.welcome.last_event, 20)
    for seq in range(15, 21):
        agent.event("event %d" % seq, seq, begin + seq)
    agent.disconnect()
    request = pb.EventsRequest(selector="twice-1", from_us=begin - 10**6, to_us=begin + 10**7)
    texts = [e.text for e in developer.many("Events", request, pb.Event)]
    check_equal(texts, ["event %d" % s for s in range(1, 21)])


@case
def labels_are_changed_and_checked():
    FakeAgent(c, "label-1", role="web")
    host = sre.one("Label", pb.LabelRequest(host="label-1", set=[pb.Label(key="zone", value="a")], remove=["role"]),
                   pb.Host)
    check_equal({(lb.key, lb.value) for lb in host.labels}, {("zone", "a")})
    code, text = status_of(lambda: sre.one(
        "Label", pb.LabelRequest(host="label-1", set=[pb.Label(key="a b", value="c")]), pb.Host))
    check("is not a key=value" in text, text)
    check_equal(list(sre.hosts("zone=a")), ["label-1"])


@case
def a_revoked_host_is_out_at_once_and_its_name_is_free():
    agent = FakeAgent(c, "out-1").connect()
    admin.one("Revoke", pb.RevokeRequest(host="out-1"), pb.Host)
    wait_for(lambda: agent.error, "the connection ends")
    channel = c.channel(agent.directory)
    code, _ = status_of(lambda: list(channel.stream_stream("/trawl.v1.Fleet/Connect")(iter([b""]), timeout=3)))
    check_equal(code, grpc.StatusCode.UNAVAILABLE)
    wait_for(lambda: c.logged("revoked"), "the reason in the log")
    FakeAgent(c, "out-1").connect().disconnect()


@case
def a_second_connection_of_a_host_replaces_the_first():
    agent = FakeAgent(c, "dup-1").connect()
    first = agent.stream
    agent.connect()
    wait_for(lambda: first.code() is not None if not first.is_active() else None, "the first ends")
    check_equal(admin.hosts("dup-1")["dup-1"].state, pb.ONLINE)
    agent.disconnect()


@case
def a_piece_after_the_last_is_refused():
    agent = FakeAgent(c, "after-1", on_order=lambda a, o: None).connect()
    sre.capture("after-1")
    wait_for(lambda: agent.orders, "order")
    order = agent.orders[0]
    meta = pb.Artifact(kind="stacks", size_bytes=1, sha256=b"0" * 32)
    pieces = [pb.Piece(incident=order.incident, artifact=1, no=n, last=True, meta=meta, data=b"x" * n) for n in range(3)]
    call = agent.channel.stream_unary("/trawl.v1.Fleet/Upload", request_serializer=pb.Piece.SerializeToString)
    code, text = status_of(lambda: call(iter(pieces), timeout=10))
    check(code in (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT), text)
    for number in (0, 1001):
        code, text = status_of(lambda n=number: agent.upload(order, b"x", n))
        check("is not 1 to 1000" in text, text)
    agent.upload(order, b"fine", 1)
    agent.verdict(order, pb.DONE, 1, artifacts=1)
    agent.disconnect()


@case
def windows_without_end_are_answered():
    agent = FakeAgent(c, "wide-1").connect()
    agent.event("the only one", 1)
    wait_for(lambda: agent.events == 1, "acknowledged")
    for begin, end in [(-2**63, 2**63 - 1), (0, 2**63 - 1), (-2**63, int(time.time() * 1e6) + 10**7)]:
        request = pb.EventsRequest(selector="wide-1", from_us=begin, to_us=end)
        check_equal([e.text for e in developer.many("Events", request, pb.Event, 5)], ["the only one"])
        request = pb.CountersRequest(selector="wide-1", names=["*"], from_us=begin, to_us=end)
        code, text = status_of(lambda: list(developer.many("Counters", request, pb.Samples, 5)))
        check_equal(code, grpc.StatusCode.NOT_FOUND, text)
    agent.disconnect()


@case
def what_no_clock_shows_is_refused_or_ignored():
    agent = FakeAgent(c, "clock-1").connect()
    for value in (-2**63, 2**63 - 1):
        agent.send(probe_reply=pb.ProbeReply(id=1, collector_us=value, received_us=-value - 1, sent_us=value))
    agent.event("fine", 1)
    wait_for(lambda: agent.events == 1, "the session goes on")
    check(abs(admin.hosts("clock-1")["clock-1"].skew_us) < 10**6, "skew")
    for body in [dict(event=pb.Event(seq=2, wall_us=-2**63)), dict(event=pb.Event(seq=2, wall_us=2**63 - 1)),
                 dict(gap=pb.Gap(first_seq=1, last_seq=2, from_us=-1))]:
        agent.send(**body)
        wait_for(lambda: agent.error, "the session ends")
        check("impossible time" in agent.error.details(), agent.error.details())
        agent.connect()
    agent.disconnect()
    code, text = status_of(lambda: sre.one("Capture", pb.CaptureRequest(selector="clock-1", in_us=2**63 - 1),
                                           pb.CaptureReply))
    check("after the expiry" in text, text)


@case
def text_that_is_not_utf8_does_not_reach_other_clients():
    agent = FakeAgent(c, "utf-1")

    def raw(**body):
        return pb.AgentMessage(**body).SerializeToString().replace(b"@@", b"\xff\xc3")
    messages = queue.Queue()
    messages.put(raw(announce=pb.Announce(version="@@", state_id=b"u" * 16, epoch=1,
                                          facts=[pb.Fact(key="os", value="x@@")])))
    begin = int(time.time() * 1e6)
    messages.put(raw(event=pb.Event(seq=1, wall_us=begin, text="a@@b", process="@@")))
    stream = c.channel(agent.directory).stream_stream("/trawl.v1.Fleet/Connect")(iter(messages.get, None))
    next(stream)
    check_equal(admin.hosts("utf-1")["utf-1"].version, "??")
    request = pb.EventsRequest(selector="utf-1", from_us=begin - 10**7, to_us=begin + 10**7)
    wait_for(lambda: [e.text for e in developer.many("Events", request, pb.Event)] == ["a??b"], "the event")
    messages.put(None)
    stream.cancel()


@case
def a_call_without_its_request_ends():
    for path in ("/trawl.v1.Operations/Cancel", "/trawl.v1.Operations/Top"):
        code, text = status_of(lambda: list(admin.channel.stream_stream(path)(iter([]), timeout=5)))
        check("without its request" in text, "%s: %s %s" % (path, code, text))


@case
def a_verdict_counts_for_the_capture_it_names():
    def first_of_two(a, o):
        if a.host == "two-1":
            a.succeed(o)
    agents = [FakeAgent(c, "two-%d" % i, on_order=first_of_two, role="two").connect() for i in (1, 2)]
    reply = sre.capture("role=two")
    wait_for(lambda: sre.targets(reply.incident)["two-1"].state == pb.DONE, "the first host")
    request = pb.CaptureRequest(selector="two-1", what=["stacks"], into=reply.incident, request_id=b"2" * 16)
    sre.one("Capture", request, pb.CaptureReply)
    wait_for(lambda: len(sre.artifacts(reply.incident)) == 2, "the second artifact of the first host")
    wait_for(lambda: sre.targets(reply.incident)["two-1"].state == pb.DONE and
             sre.targets(reply.incident)["two-1"].capture == 2, "its second order")
    agents[1].verdict(agents[1].orders[0], pb.DONE, 1)
    wait_for(lambda: sre.targets(reply.incident)["two-2"].state == pb.DONE, "the second host")
    for a in agents:
        a.disconnect()


@case
def a_repeated_request_into_an_incident_runs_once():
    agent = FakeAgent(c, "rep-1").connect()
    first = sre.capture("rep-1")
    wait_for(lambda: sre.targets(first.incident)["rep-1"].state == pb.DONE, "done")
    agent.on_order = lambda a, o: None
    request = pb.CaptureRequest(selector="rep-1", what=["stacks"], into=first.incident, request_id=b"3" * 16)
    for _ in range(2):
        check_equal(sre.one("Capture", request, pb.CaptureReply).incident, first.incident)
    wait_for(lambda: len(agent.orders) == 2, "the second order")
    agent.verdict(agent.orders[1], pb.DONE, 1)
    agent.disconnect()


@case
def a_cancel_that_was_lost_is_sent_again():
    agent = FakeAgent(c, "recan-1", on_order=lambda a, o: a.verdict(o, pb.RUNNING, 1)).connect()
    reply = sre.capture("recan-1")
    wait_for(lambda: sre.targets(reply.incident)["recan-1"].state == pb.RUNNING, "running")
    sre.one("Cancel", pb.IncidentRequest(incident=reply.incident), pb.Incident)
    wait_for(lambda: agent.cancels, "the cancel")
    agent.disconnect()
    agent.connect()
    wait_for(lambda: len(agent.cancels) == 2, "the cancel again")
    check_equal(len(agent.orders), 1, "orders sent")
    agent.verdict(agent.orders[0], pb.CANCELLED, 2, reason=agent.cancels[1].reason)
    wait_for(lambda: sre.targets(reply.incident)["recan-1"].state == pb.CANCELLED, "cancelled")
    agent.disconnect()


@case
def top_sends_the_greatest_of_what_is_asked():
    agent = Agent(c, "top-1").wait_online()

    def rows(**more):
        found = list(developer.many("Top", pb.TopRequest(selector="top-1", **more), pb.TopRow))
        return [r for r in found if r.pid], [r for r in found if not r.pid]
    wait_for(lambda: len(rows()[0]) > 3, "processes are sampled")
    for by, of in (("rss", lambda r: r.memory_bytes), ("threads", lambda r: r.threads), ("", lambda r: r.cpu_permille)):
        processes, hosts = rows(by=by, limit=3)
        check_equal((len(processes), len(hosts)), (3, 1), by)
        check_equal([of(r) for r in processes], sorted((of(r) for r in processes), reverse=True), by)
    everything = sorted((r.memory_bytes for r in rows()[0]), reverse=True)
    check(rows(by="rss", limit=1)[0][0].memory_bytes > everything[0] // 2, "the greatest is among them")
    check_equal(len(rows(by="rss", limit=10000)[0]) > 3, True)
    code, text = status_of(lambda: rows(by="size"))
    check(code == grpc.StatusCode.INVALID_ARGUMENT and "cpu, rss, read, write and threads exist" in text, text)
    shown = developer.trawl_json("top", "top-1", "--by", "rss", "--limit", "2")
    check_equal(len([r for r in shown if r.get("pid")]), 2, str(shown)[:300])
    check("... and more processes" in developer.trawl("top", "top-1", "-n", "1", "--limit", "2").stdout, "said")
    agent.stop()


@case
def an_agent_that_comes_while_somebody_looks_is_told():
    class Watched(FakeAgent):
        watching = None

        def _take(self, m):
            if m.WhichOneof("body") == "watching":
                self.watching = m.watching.on
            FakeAgent._take(self, m)
    agent = Watched(c, "look-1")
    call = developer.many("Top", pb.TopRequest(selector="look-1", follow=True), pb.TopRow)
    wait_for(lambda: call.is_active(), "top runs")
    developer.hosts("look-1")  # on the same connection: Top came before
    agent.connect()
    wait_for(lambda: agent.watching, "watching")
    call.cancel()
    wait_for(lambda: agent.watching is False, "not watching any more")
    agent.disconnect()


@case
def a_certificate_renewed_before_the_revocation_stays_out():
    agent = FakeAgent(c, "renew-1")
    channel = c.channel(agent.directory)
    call = channel.unary_unary("/trawl.v1.Fleet/Renew", request_serializer=pb.RenewRequest.SerializeToString,
                               response_deserializer=pb.Certificate.FromString)
    with open(agent.directory + "/request.der", "rb") as f:
        renewed = call(pb.RenewRequest(request_der=f.read()), timeout=10).certificate_pem
    with open(agent.directory + "/key.pem") as f:
        key = f.read()
    admin.one("Revoke", pb.RevokeRequest(host="renew-1"), pb.Host)
    second = int(time.time())
    wait_for(lambda: int(time.time()) > second, "another second")
    again = FakeAgent(c, "renew-1")
    again.connect().disconnect()
    for name, text in (("cert.crt", renewed), ("key.pem", key)):
        with open(agent.directory + "/" + name, "w") as f:
            f.write(text)
    code, text = status_of(lambda: list(c.channel(agent.directory).stream_stream("/trawl.v1.Fleet/Connect")(
        iter([pb.AgentMessage(announce=pb.Announce(state_id=b"r" * 16)).SerializeToString()]), timeout=5)))
    check_equal(code, grpc.StatusCode.UNAUTHENTICATED, text)
    check("certificate is older" in text, text)


@case
def health_and_reflection_answer_generic_tools():
    health = admin.channel.unary_unary("/grpc.health.v1.Health/Check")
    check_equal(health(b"", timeout=5), b"\x08\x01")
    reflect = admin.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    reply = next(reflect(iter([b"\x3a\x01\x2a"]), timeout=5))
    check(b"trawl.v1.Operations" in reply, "services listed")


@case
def a_second_collector_on_the_same_directory_is_refused():
    done = subprocess.run([BIN + "/trawl-collector", "run", "--data", c.directory, "--port", "1"],
                          capture_output=True, text=True)
    check_equal(done.returncode, 15, done.stderr)
    check("another collector" in done.stderr, done.stderr)


@case
def a_port_in_use_is_said():
    other = c.directory + "-port"
    c.run("init", other)
    done = subprocess.run([BIN + "/trawl-collector", "run", "--data", other, "--listen", "127.0.0.1", "--port",
                           str(c.port)], capture_output=True, text=True, timeout=20)
    check_equal(done.returncode, 26, done.stderr)
    check("in use" in done.stderr and "--port" in done.stderr, done.stderr)


@case
def an_orderly_stop_ends_with_code_0():
    agent = FakeAgent(c, "bye-1").connect()
    check_equal(c.stop(), 0)
    agent.reader.join(10)
    c.start()
    agent.connect().disconnect()


main()
