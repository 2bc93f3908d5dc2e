#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Exceptions on the collector: signatures, exact counts over kill -9, evidence that is ordered by itself, incidents,
wishes, limits. Agents are made of Python with the stock client, so that they can send what no real agent would."""
import hashlib
import os
import random
import subprocess
import threading
import time

import grpc

from trawltest import (TMP, Collector, FakeAgent, Person, case, check, check_equal, main, pb, wait_for)

c = Collector("--evidence-host-hour", "10000", "--evidence-fleet-hour", "10000", "--incidents-hour", "10000",
              "--groups-host-hour", "1000")
admin, sre, developer = c.person("admin"), c.person("sre"), c.person("developer")
MINUTE = 60 * 10**6


def now_us():
    return int(time.time() * 1e6)


def frames_of(names, module="shop", build_id=b"\x01" * 20):
    return [pb.Frame(function="" if isinstance(n, int) else n, offset=n if isinstance(n, int) else 0x1000 + i,
                     module=module, build_id=build_id) for i, n in enumerate(names)]


def crash(names=("parse", "handle", "main"), **more):
    """A SIGSEGV of "shop", with the library's frames in front that a signature must not be made of."""
    at = more.pop("at", None) or now_us()
    build_id = more.pop("build_id", b"\x01" * 20)
    values = dict(id=os.urandom(16), source=pb.CRASH, type="SIGSEGV", message="segfault at 0x10", language="c",
                  template="segfault at <a>", wall_us=at, last_us=at, count=1, process="shop", pid=4711,
                  executable="/usr/bin/shop", build_id=build_id, signal=11, saved=["crash"])
    values.update(more)
    system = [pb.Frame(function="raise", module="libc.so.6", offset=0x3c000, build_id=b"\x09" * 20)]
    return pb.Exception(frames=system + frames_of(names, build_id=build_id), **values)


def trace(**more):
    """A Python traceback in the log of a process that goes on."""
    at = now_us()
    values = dict(id=os.urandom(16), source=pb.LOG_TRACE, type="ValueError", language="python", wall_us=at, last_us=at,
                  message="bad order 17", template="bad order <n>", count=1, process="orders", pid=815,
                  start_ticks=99,
                  frames=[pb.Frame(function="price", file="/srv/app/orders/price.py", line=10)])
    values.update(more)
    return pb.Exception(**values)


class Crashing(FakeAgent):
    """Sends exceptions with numbers as an agent does: keeps them until they are acknowledged, sends them again after a
    connection was lost."""

    def __init__(self, host, **more):
        super().__init__(c, host, **more)
        self.seq = 0
        self.kept = []
        self.wants = []
        self.lock = threading.Lock()

    def tell(self, *exceptions):
        with self.lock:
            for e in exceptions:
                self.seq += 1
                e.seq = self.seq
                self.kept.append(e)
                self.send(exception=e)
        return self

    def again(self):
        """What the collector does not hold yet, from its own word on."""
        with self.lock:
            self.events = max(self.events, self.welcome.last_event)
            for e in self.kept:
                if e.seq > self.welcome.last_event:
                    self.send(exception=e)

    def settled(self):
        wait_for(lambda: self.error or self.events >= self.seq, "all of %s acknowledged" % self.host)
        check(self.error is None, "connection of %s: %s" % (self.host, self.error))
        return self

    def _take(self, m):
        if m.WhichOneof("body") == "wants":
            self.wants.append(m.wants)
        super()._take(m)


def agent(host, **more):
    return Crashing(host, **more).connect()


def groups(selector="", resolved=False):
    return list(developer.many("Groups", pb.GroupsRequest(selector=selector, resolved=resolved), pb.Group))


def group_of(selector, **wanted):
    found = [g for g in groups(selector, resolved=True) if all(getattr(g, k) == v for k, v in wanted.items())]
    check_equal(len(found), 1, "groups of %s %s" % (selector, wanted))
    return found[0]


def parts(group):
    return list(developer.many("ShowGroup", pb.GroupRequest(group=group), pb.GroupPart))


def samples(group):
    return [p.sample for p in parts(group) if p.WhichOneof("body") == "sample"]


def exceptions(**request):
    return list(developer.many("Exceptions", pb.ExceptionsRequest(**request), pb.Exception))


def status_of(function):
    try:
        function()
    except grpc.RpcError as e:
        return e.code(), e.details()
    return grpc.StatusCode.OK, ""


# ---- one group, and what is in it ----

@case
def a_crash_is_a_group_with_frames_counts_and_its_incident():
    a = agent("one-1", role="one")
    a.tell(crash()).settled()
    g = group_of("one-1")
    check_equal((g.count, g.hosts, g.state, g.type, g.process, g.samples, g.evidence),
                (1, 1, pb.GROUP_NEW, "SIGSEGV", "shop", 1, 1))
    check_equal([f.function for f in g.frames], ["parse", "handle", "main"])
    check_equal([v.count for v in g.versions], [1])
    wait_for(lambda: a.orders, "the order for evidence")
    order = a.orders[0]
    check_equal((list(order.what), len(order.exception)), (["crash"], 16))
    wait_for(lambda: group_of("one-1").incidents, "the incident in the group")
    incident = group_of("one-1").incidents[0]
    check_equal(order.incident, incident)
    parts_of = sre.show(incident)
    record = parts_of[0].incident
    check_equal((record.group, record.cause), (g.id, "exception SIGSEGV in shop on one-1 (%s)" % g.id))
    lines = [p.line for p in parts_of if p.WhichOneof("body") == "line"]
    check(any(g.id in line and "1 on 1 host" in line for line in lines), "\n".join(lines))
    check(any("parse" in line for line in lines), "the sample's frames: " + "\n".join(lines))
    check(any("exception SIGSEGV in shop/4711" in line for line in lines), "the timeline: " + "\n".join(lines))
    for text in (g.id, g.id[2:], g.id.lower()):
        shown = parts(text)
        check_equal(shown[0].group.id, g.id)
        check_equal([p.host.count for p in shown if p.WhichOneof("body") == "host"], [1])
        check(any("parse" in p.line for p in shown if p.WhichOneof("body") == "line"), "lines for people")
    past = exceptions(selector="one-1")
    check_equal([(e.host, e.group, e.count) for e in past], [("one-1", g.id, 1)])
    a.disconnect()


@case
def the_minute_around_is_ordered_when_it_is_over_and_not_before():
    a = agent("around-1")
    a.tell(crash(("late", "main"), at=now_us() - MINUTE + 2 * 10**6)).settled()
    wait_for(lambda: len(a.orders) == 2, "both orders")
    around = a.orders[1]
    check_equal(list(around.what), ["counters", "events"])
    check_equal((around.incident, around.last_us), (a.orders[0].incident, 2 * MINUTE))
    check(around.at_us <= now_us(), "sent before its instant")
    wait_for(lambda: sre.show(around.incident)[0].incident.finished, "both have ended")
    states = [p.target.state for p in sre.show(around.incident) if p.WhichOneof("body") == "target"]
    check_equal(states, [pb.DONE, pb.DONE])
    check_equal(sorted(x.no for x in sre.artifacts(around.incident)), [1, 2])
    a.disconnect()


@case
def what_differs_is_told_apart_and_what_is_the_same_is_one():
    a = agent("same-1")
    a.tell(crash(("sort", "main")), crash(("sort", "sort", "sort", "main")),  # recursion
           crash(("sort", "main"), build_id=b"\x02" * 20), crash(("sort.constprop.0", "main"), pid=4712),
           crash(("other", "main")), crash((0x4000, 0x5000)), crash((0x4000, 0x5000), build_id=b"\x02" * 20),
           crash(("sort", "main"), executable="/usr/bin/till", process="till"),
           trace(), trace(message="bad order 18"),
           trace(frames=[pb.Frame(function="price", file="/opt/v2/orders/price.py", line=12)]),
           trace(frames=[pb.Frame(function="tax", file="/srv/app/orders/price.py", line=12)])).settled()
    check_equal(sorted(g.count for g in groups("same-1")), [1, 1, 1, 1, 1, 3, 4])
    check_equal([len(g.versions) for g in groups("same-1") if g.count == 4], [2])
    a.disconnect()


# ---- exact ----

@case
def what_is_sent_twice_counts_once_and_the_control_counts_twice():
    a = agent("twice-1")
    first = crash(("twice", "main"))
    a.tell(first).settled()
    a.send(exception=first)          # the same number again
    a.disconnect()
    a.connect()
    a.send(exception=first)          # and after a new connection
    retold = pb.Exception()
    retold.CopyFrom(first)           # the same crash under another number: told by an agent that was killed in between
    a.tell(retold).settled()
    check_equal(group_of("twice-1").count, 1)
    control = pb.Exception()
    control.CopyFrom(first)
    control.id = os.urandom(16)      # neither number nor id: nobody can know that it is the same
    a.tell(control).settled()
    check_equal(group_of("twice-1").count, 2, "positive control")
    a.disconnect()


@case
def counts_are_exact_over_kill_9_of_the_collector():
    agents = [agent("kill-%d" % i, role="kill", on_order=lambda a, o: None) for i in range(3)]
    kinds = [("kill_a", "main"), ("kill_b", "main")]
    sent = {0: 0, 1: 0}
    random.seed(4)
    for round_no in range(6):
        for _ in range(60):
            for a in agents:
                which = random.randrange(2)
                many = random.choice([1, 1, 1, 5])
                a.tell(crash(kinds[which], count=many))
                sent[which] += many
        time.sleep(random.random() * 0.05)  # somewhere in the middle of the commits
        c.kill()
        for a in agents:
            a.reader.join(10)
            a.channel.close()
        c.start()
        for a in agents:
            a.events = 0
            a.connect()
            a.again()
        if round_no % 2:
            for a in agents:
                a.settled()
    for a in agents:
        a.settled()
    for p in (admin, sre, developer):
        p.reconnect()
    found = {g.frames[0].function: g for g in groups("role=kill")}
    check_equal((found["kill_a"].count, found["kill_b"].count), (sent[0], sent[1]))
    for g in found.values():
        hosts = [p.host for p in parts(g.id) if p.WhichOneof("body") == "host"]
        check_equal(sum(h.count for h in hosts), g.count, "of its hosts")
        check_equal(sum(v.count for v in g.versions), g.count, "of its builds")
        check(g.samples <= 3, "%d samples" % g.samples)
    total = sum(e.count for e in exceptions(selector="role=kill"))
    check_equal(total, sent[0] + sent[1], "as told by Exceptions")
    for a in agents:
        a.disconnect()


@case
def a_crash_loop_is_counted_exactly_keeps_few_and_harms_no_other():
    a = agent("loop-1", on_order=lambda a, o: None)
    for i in range(2000):
        a.tell(crash(("loop", "main"), message="segfault at %x" % i))
        if i == 1000:
            a.tell(crash(("bystander", "main"), message="the other one"))
    a.settled()
    found = {g.frames[0].function: g for g in groups("loop-1")}
    check_equal((found["loop"].count, found["loop"].samples <= 3), (2000, True))
    check_equal((found["bystander"].count, found["bystander"].evidence), (1, 1))
    check_equal(found["loop"].evidence, 1, "the same content within the window gathers once")
    check_equal(found["loop"].per_hour, 2000)
    check_equal(len(samples(found["loop"].id)), found["loop"].samples)
    wait_for(lambda: group_of("loop-1", count=1).incidents, "the other one's incident")
    wait_for(lambda: len([o for o in a.orders if "crash" in o.what]) == 2, "one order for each")
    incident = group_of("loop-1", count=1).incidents[0]
    check(incident != group_of("loop-1", count=2000).incidents[0], "incidents of their own")
    a.disconnect()


# ---- states ----

@case
def resolved_comes_back_as_regressed_with_new_evidence():
    a = agent("back-1")
    a.tell(crash(("back", "main"))).settled()
    g = group_of("back-1")
    wait_for(lambda: group_of("back-1").incidents, "its incident")
    done = developer.one("Resolve", pb.GroupRequest(group=g.id), pb.Group)
    check_equal((done.state, done.resolved_by), (pb.GROUP_RESOLVED, "developer/developer"))
    check_equal(groups("back-1"), [], "resolved ones are listed only when asked for")
    a.tell(crash(("back", "main"), at=done.resolved_us - 10**6)).settled()  # it happened before
    check_equal((group_of("back-1").state, group_of("back-1").count), (pb.GROUP_RESOLVED, 2))
    before = len(a.orders)
    a.tell(crash(("back", "main"))).settled()
    again = group_of("back-1")
    check_equal((again.state, again.count, again.id), (pb.GROUP_REGRESSED, 3, g.id))
    check("marked it resolved" in again.note, again.note)
    wait_for(lambda: len([o for o in a.orders[before:] if "crash" in o.what]) == 1, "evidence of the regression")
    developer.one("Resolve", pb.GroupRequest(group=g.id), pb.Group)
    a.tell(crash(("back", "main"), at=now_us() - MINUTE, build_id=b"\x07" * 20)).settled()
    check_equal(group_of("back-1").state, pb.GROUP_REGRESSED, "in a build that was not there before")
    check("build" in group_of("back-1").note, group_of("back-1").note)
    a.disconnect()


@case
def a_group_that_spreads_is_said_to_and_joins_its_incident():
    agents = [agent("spread-%d" % i, role="spread") for i in range(4)]
    agents[0].tell(crash(("spread", "main"))).settled()
    wait_for(lambda: group_of("role=spread").incidents, "its incident")
    incident = group_of("role=spread").incidents[0]
    check(not group_of("role=spread").spreading, "one host does not spread")
    for a in agents[1:]:
        a.tell(crash(("spread", "main"))).settled()
    g = group_of("role=spread")
    check_equal((g.spreading, g.hosts, g.count), (True, 4, 4))
    wait_for(lambda: len({t.host for t in (p.target for p in sre.show(incident) if p.WhichOneof("body") == "target")})
             >= 3, "their targets in the same incident")
    check_equal(group_of("role=spread").incidents, [incident])
    for a in agents:
        a.disconnect()


@case
def a_living_process_gives_triage_stacks_and_logs():
    a = agent("alive-1")
    a.tell(trace(frames=[pb.Frame(function="alive", file="x.py")])).settled()
    wait_for(lambda: a.orders, "the order")
    order = a.orders[0]
    check_equal(list(order.what), ["triage", "stacks", "logs"])
    check_equal((order.process.pid, order.process.start_ticks, len(order.exception)), (815, 99, 16))
    a.disconnect()


@case
def many_at_once_and_those_that_nobody_looked_at_never_gather():
    a = agent("many-1")
    a.tell(crash(("many", "main"), count=7), crash(("many", "main"), by_site=True)).settled()
    g = group_of("many-1")
    check_equal((g.count, g.evidence, g.samples, list(g.incidents)), (8, 0, 1, []))
    a.tell(crash(("many", "main"))).settled()
    check_equal(group_of("many-1").evidence, 1, "the first one by itself")
    a.disconnect()


# ---- wants ----

@case
def a_wish_is_told_to_agents_and_met_once():
    a = agent("want-1")
    a.tell(crash(("want", "main"))).settled()
    g = group_of("want-1")
    for what, count, wanted in ([["stakcs"], 1, "unknown kind 'stakcs'"], [[], 1, "nothing is asked for"],
                                [["core"], 101, "at most 100"]):
        code, text = status_of(lambda: sre.one("Want", pb.WantRequest(group=g.id, what=what, count=count), pb.Group))
        check(wanted in text, "%s: %s" % (wanted, text))
    told = sre.one("Want", pb.WantRequest(group=g.id, what=["core"], count=1), pb.Group)
    check_equal((list(told.want), told.want_left, told.want_by), (["core"], 1, "sre/sre"))
    wait_for(lambda: a.wants and a.wants[-1].list, "the agent hears of it")
    check_equal([(w.group, w.type, w.process, list(w.what)) for w in a.wants[-1].list],
                [(g.id, "SIGSEGV", "shop", ["core"])])
    late = agent("want-2")
    wait_for(lambda: late.wants and late.wants[-1].list, "and one that connects later")
    before = len(a.orders)
    a.tell(crash(("want", "main"))).settled()  # its host saved no core: the wish stays
    check_equal(group_of("want-1").want_left, 1)

    def give(agent_, order):
        number = order.first_artifact or 1
        agent_.verdict(order, pb.RUNNING, 1)
        for i, kind in enumerate(k for k in order.what if k in ("crash", "core")):
            agent_.upload(order, b"core", number + i, kind=kind)
        agent_.verdict(order, pb.DONE, 2, artifacts=1)
    a.on_order = give
    a.tell(crash(("want", "main"), saved=["crash", "core"])).settled()
    wait_for(lambda: any("core" in o.what for o in a.orders[before:]), "the order for the core")
    check_equal(group_of("want-1").want_left, 0)
    wait_for(lambda: not a.wants[-1].list and not late.wants[-1].list, "nothing is wanted any more")
    a.tell(crash(("want", "main"), saved=["crash", "core"])).settled()
    check_equal(len([o for o in a.orders if "core" in o.what]), 1, "orders for a core")
    a.disconnect()
    late.disconnect()


@case
def a_wish_that_the_host_could_not_meet_comes_back_a_few_times():
    def refuse(agent_, order):
        agent_.verdict(order, pb.FAILED, 1, reason="the core was too large")
    a = agent("unmet-1", on_order=refuse)
    a.tell(crash(("unmet", "main"))).settled()
    g = group_of("unmet-1")
    sre.one("Want", pb.WantRequest(group=g.id, what=["core"], count=1), pb.Group)
    for tries in range(4):
        wait_for(lambda: group_of("unmet-1").want_left == 1, "the wish is back, try %d" % tries)
        a.tell(crash(("unmet", "main"), saved=["crash", "core"])).settled()
        check_equal(group_of("unmet-1").want_left in (0, 1), True)
    wait_for(lambda: "ask again" in group_of("unmet-1").note, "it is given up")
    check_equal(group_of("unmet-1").want_left, 0)
    a.disconnect()


@case
def an_exception_cannot_be_named_from_outside():
    code, text = status_of(lambda: sre.one("Capture", pb.CaptureRequest(selector="*", exception=b"x" * 16),
                                           pb.CaptureReply))
    check_equal(code, grpc.StatusCode.INVALID_ARGUMENT)
    check("trawl want" in text, text)


# ---- people look on ----

@case
def following_shows_each_as_it_comes():
    a = agent("follow-1", role="follow")
    other = agent("follow-2")
    channel = developer.many("Exceptions", pb.ExceptionsRequest(selector="role=follow", follow=True), pb.Exception)
    seen = []

    def read():
        try:
            for e in channel:
                seen.append(e)
        except grpc.RpcError:
            pass
    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def reaches():
        a.tell(crash(("ping", "main")))
        other.tell(crash(("ping", "main")))
        time.sleep(0.05)
        return seen
    wait_for(reaches, "the stream is open")
    a.settled()
    a.tell(crash(("seen", "main"), count=5)).settled()
    wait_for(lambda: seen[-1].count == 5, "the last one")
    check_equal({e.host for e in seen}, {"follow-1"})
    check(seen[-1].group.startswith("G-"), "its group")
    channel.cancel()
    reader.join(10)
    a.disconnect()
    other.disconnect()


@case
def unknown_ids_and_wrong_requests_say_what_would_be_right():
    for method, request, reply, wanted in [
            ("ShowGroup", pb.GroupRequest(group="G-ZZZZZ"), pb.GroupPart, "no group"),
            ("ShowGroup", pb.GroupRequest(group=""), pb.GroupPart, "no group"),
            ("ShowGroup", pb.GroupRequest(group="G-"), pb.GroupPart, "could be"),
            ("Exceptions", pb.ExceptionsRequest(selector="nobody"), pb.Exception, "no host"),
            ("Exceptions", pb.ExceptionsRequest(from_us=2, to_us=1), pb.Exception, "ends before it begins"),
            ("Groups", pb.GroupsRequest(selector="=x"), pb.Group, "lacks a key")]:
        code, text = status_of(lambda: list(developer.many(method, request, reply)))
        check(code != grpc.StatusCode.OK and wanted in text, "%s %r: %s %s" % (method, wanted, code, text))


@case
def an_exception_that_breaks_the_rules_ends_the_connection_and_counts_nothing():
    a = agent("rules-1")
    a.tell(crash(at=-5))
    wait_for(lambda: a.error, "the connection ends")
    check("impossible time" in a.error.details(), a.error.details())
    check_equal(groups("rules-1"), [])


# ---- names that come later ----

def build_program(name, lines):
    """A program with these functions; its path, its build-id, and where each function stands."""
    path = os.path.join(TMP, name)
    with open(path + ".c", "w") as f:
        f.write(lines)
    subprocess.check_call(["gcc", "-g", "-O0", "-Wl,--build-id=sha1", "-o", path, path + ".c"])
    notes = subprocess.check_output(["readelf", "-n", path], text=True)
    build_id = bytes.fromhex(notes.split("Build ID:")[1].split()[0])
    symbols = subprocess.check_output(["nm", path], text=True)
    places = {line.split()[2]: int(line.split()[0], 16) for line in symbols.splitlines() if len(line.split()) == 3}
    return path, build_id, places


def add_symbols(path):
    def pieces():
        with open(path, "rb") as f:
            data = f.read()
        for at in range(0, len(data), 32760):
            piece = pb.SymbolPiece(name=os.path.basename(path), data=data[at:at + 32760])
            piece.last = at + 32760 >= len(data)
            if at == 0:
                piece.size_bytes = len(data)
            yield piece
    call = developer.channel.stream_unary("/trawl.v1.Operations/SymbolsAdd",
                                          request_serializer=pb.SymbolPiece.SerializeToString,
                                          response_deserializer=pb.SymbolFile.FromString)
    reply = call(pieces(), timeout=30)
    check(reply.kept, reply.text)


def unnamed(program, names, **more):
    """A crash of the program with nothing but offsets."""
    _, build_id, places = program
    e = crash((), build_id=build_id, process="till", executable="/usr/bin/till", **more)
    del e.frames[:]
    for name in names:
        e.frames.append(pb.Frame(module="till", build_id=build_id, offset=places[name] + 5))
    return e


@case
def groups_of_two_builds_become_one_when_symbols_come():
    text = "int pad%d(void) { return 1; }\nint price(void) { return 2; }\nint main(void) { return price(); }\n"
    one = build_program("till-1", text % 1)
    two = build_program("till-2", "int more(void) { return 3; }\n" + text % 2)
    a, b = agent("names-1", role="names"), agent("names-2", role="names")
    a.tell(unnamed(one, ["price", "main"]), unnamed(one, ["price", "main"], count=4)).settled()
    b.tell(unnamed(two, ["price", "main"], count=2), unnamed(two, ["price", "main"])).settled()
    a.tell(unnamed(two, ["price", "main"])).settled()
    before = {g.count: g for g in groups("role=names")}
    check_equal(sorted(before), [4, 5], "two builds are two groups")
    add_symbols(one[0])
    add_symbols(two[0])
    wait_for(lambda: len(groups("role=names")) == 1, "one group")
    g = group_of("role=names", merged_into="")
    check_equal((g.id, g.count, g.hosts), (before[5].id, 9, 2))
    check_equal([f.function for f in g.frames], ["price", "main"])
    check_equal(sorted(v.count for v in g.versions), [4, 5])
    shown = parts(before[4].id)
    check_equal(shown[0].group.id, g.id, "the old ID leads to it")
    check_equal(sorted(p.host.count for p in shown if p.WhichOneof("body") == "host"), [3, 6])
    check_equal(sum(e.count for e in exceptions(selector="role=names")), 9)
    a.tell(unnamed(two, ["price", "main"])).settled()
    check_equal(group_of("role=names", merged_into="").count, 10)
    check_equal(group_of("role=names", id=before[4].id).merged_into, g.id)
    a.disconnect()
    b.disconnect()


@case
def a_group_that_names_tell_apart_is_split_and_later_ones_go_right():
    names = ["g_log_it", "f1", "f2", "f3", "f4", "left", "right", "main"]
    text = "".join("int %s(void) { return %d; }\n" % (n, i) for i, n in enumerate(names))
    program = build_program("till-3", text)
    common = ["g_log_it", "f1", "f2", "f3", "f4"]
    a = agent("split-1")
    a.tell(unnamed(program, common + ["left"]), unnamed(program, common + ["right"])).settled()
    old = group_of("split-1")
    check_equal(old.count, 2)
    add_symbols(program[0])
    wait_for(lambda: group_of("split-1", id=old.id).frames[0].function == "f1", "the group has its names")
    a.tell(unnamed(program, common + ["right"]), unnamed(program, common + ["left"])).settled()
    found = {g.id: g for g in groups("split-1")}
    check_equal(len(found), 2)
    check_equal(found[old.id].count, 3, "what was counted stays, and what is like its first one comes to it")
    new = found[[i for i in found if i != old.id][0]]
    check_equal((new.count, new.split_from, new.frames[4].function), (1, old.id, "right"))
    a.disconnect()


# ---- limits over restarts ----

class Another:
    """A collector with other settings, for a while."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments

    def __enter__(self):
        global admin, sre, developer, c
        self.before = c, admin, sre, developer
        c = Collector(*self.arguments, name=self.name)
        admin, sre, developer = c.person("admin"), c.person("sre"), c.person("developer")
        return c

    def __exit__(self, *_):
        global admin, sre, developer, c
        c.stop()
        c, admin, sre, developer = self.before


def restart(*agents):
    c.kill()
    for a in agents:
        a.reader.join(10)
    c.start()
    for p in (admin, sre, developer):
        p.reconnect()
    for a in agents:
        a.connect()


@case
def limits_hold_over_a_restart_and_are_said():
    with Another("limited", "--evidence-host-hour", "2", "--groups-host-hour", "4", "--incidents-hour", "3"):
        a = agent("limit-1")
        a.tell(crash(("l1", "main")), crash(("l2", "main")), crash(("l3", "main"))).settled()
        check_equal(sorted(g.evidence for g in groups()), [0, 1, 1])
        noted = [g for g in groups() if not g.evidence][0]
        check("evidence-host-hour" in noted.note, noted.note)
        restart(a)
        a.tell(crash(("l4", "main")), *[crash(("m%d" % i, "main")) for i in range(6)]).settled()
        check_equal(sum(g.evidence for g in groups()), 2, "evidence after the restart")
        various = group_of("limit-1", type="various")
        check_equal(various.count, 6)
        check("groups-host-hour" in various.note, various.note)
        other = agent("limit-2")
        other.tell(crash(("n1", "main")), crash(("n2", "main"))).settled()
        check_equal(sum(g.evidence for g in groups("limit-2")), 1, "the fleet's limit of incidents")
        a.disconnect()
        other.disconnect()


@case
def what_is_important_opens_an_incident_whatever_was_gathered():
    with Another("important", "--evidence", "0", "--important-units", "pay*.service", "--important-units", "till"):
        usual, labelled = agent("usual-1"), agent("labelled-1", important="yes")
        usual.tell(crash(("i1", "main"))).settled()
        check_equal((group_of("usual-1").evidence, list(group_of("usual-1").incidents)), (0, []))
        usual.tell(crash(("i2", "main"), unit="payment.service"), crash(("i3", "main"), process="till")).settled()
        labelled.tell(crash(("i4", "main"))).settled()
        check_equal(sum(g.evidence for g in groups()), 3)
        wait_for(lambda: sum(len(g.incidents) for g in groups()) == 3, "their incidents")
        usual.disconnect()
        labelled.disconnect()


@case
def a_full_store_refuses_and_what_is_sent_again_counts_once():
    with Another("full", "--records-max", "64M", "--groups-host-hour", "100000", "--evidence", "0") as full:
        a = agent("full-1")
        for i in range(16000):  # each a group of its own, until there is no room
            a.tell(crash(("full_%d" % i,) + tuple("filler_%d_%s" % (i, "x" * 90) for _ in range(20))))
            if a.error:
                break
        wait_for(lambda: a.error or a.events >= a.seq, "the connection ends, or all is taken", 60)
        check(a.error is not None, "the store was to become full before all were taken")
        check("store" in a.error.details(), a.error.details())
        counted = sum(g.count for g in groups())
        check(a.events <= counted < a.seq, "acknowledged %d, counted %d, sent %d" % (a.events, counted, a.seq))
        full.arguments[1] = "1G"
        a.channel.close()
        full.kill()
        a.reader.join(10)
        full.start()
        for p in (admin, sre, developer):
            p.reconnect()
        check_equal(sum(g.count for g in groups()), counted, "after the restart")
        a.connect()
        a.again()
        wait_for(lambda: a.error or a.events >= a.seq, "all taken", 60)
        a.settled()
        check_equal(sum(g.count for g in groups()), a.seq)
        a.disconnect()


main()
