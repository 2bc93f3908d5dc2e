#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The collector alone: authority, the state machine of captures, storage, with stock clients and agents of Python."""
import re
import subprocess
import time

import grpc

from trawltest import (BIN, SOURCE, Collector, FakeAgent, Person, case, check, check_equal, main, pb, wait_for)

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
def requests_that_are_wrong_say_what_would_be_right():
    for request, wanted in [
            (pb.CaptureRequest(selector="", what=["stacks"]), "no hosts selected"),
            (pb.CaptureRequest(selector="role=nobody"), "no host matches 'role=nobody'"),
            (pb.CaptureRequest(selector="=x"), "lacks a key"),
            (pb.CaptureRequest(selector="*", what=["stakcs"]), "unknown kind 'stakcs'"),
            (pb.CaptureRequest(selector="*", pause_max_us=300000), "250 ms"),
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
    code, _ = status_of(lambda: agent.upload(order, data, until=5))
    check(code != grpc.StatusCode.OK, "a cut upload is no success")
    state = wait_for(lambda: agent.upload_status(order).pieces and agent.upload_status(order), "stored pieces")
    check(0 < state.pieces < 6 and state.pieces % 2 == 0 and not state.sealed, str(state))
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
