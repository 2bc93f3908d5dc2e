#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rules end to end: a file is kept by the collector or refused as a whole, each agent is told those that mean it, evaluates
them by itself, and what fires becomes an incident with the evidence that the rule names. Each case has its control."""
import datetime
import os
import signal
import time

import grpc

from trawltest import TMP, Agent, Collector, FakeAgent, case, check, check_equal, main, pb, start, wait_for

c = Collector()
admin, sre, developer = c.person("admin"), c.person("sre"), c.person("developer")
fake = FakeAgent(c, "fake", on_order=lambda agent, order: agent.verdict(order, pb.DONE, 2), role="cache").connect()
other = FakeAgent(c, "other", role="web").connect()

CACHE = """# look before the kernel does
rule redis-memory
    on role=cache
    when process.rss of redis-server > 2G until < 1.5G
    for 30s
    then capture triage,stacks
    limit 2/h
"""
ALL = """rule busy on * when cpu.busy > 90% for 1m then capture counters limit 1/h
"""


def write(text, name="file.rules"):
    path = os.path.join(TMP, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def set_rules(text, *more):
    done = sre.trawl("rules", "set", write(text), "--any-counter", *more)
    check_equal(done.returncode, 0, done.stderr)
    return get().version


def get():
    return developer.one("RulesGet", pb.RuleNames(), pb.RuleFile)


def told(agent, version):
    """The text of the rules that the agent was sent with this version."""
    def whole():
        pieces = [p for p in agent.rules if p.version == version]
        last = [i for i, p in enumerate(pieces) if p.last]
        return pieces[:last[0] + 1] if last else None
    pieces = wait_for(whole, "%s is told version %d" % (agent.host, version))
    check_equal([p.no for p in pieces], list(range(len(pieces))))
    return b"".join(p.text for p in pieces).decode()


@case
def each_agent_is_told_the_rules_that_mean_it():
    version = set_rules(CACHE + ALL)
    check_equal(get().text.decode(), CACHE + ALL)
    check_equal((get().count, get().by), (2, "sre/sre"))
    check("redis-memory" in told(fake, version) and "busy" in told(fake, version), told(fake, version))
    check("redis-memory" not in told(other, version) and "busy" in told(other, version), told(other, version))


@case
def a_label_brings_its_rules_and_takes_them():
    version = get().version
    for change, is_meant in (("role=cache", True), ("role=web", False)):
        other.rules.clear()
        check_equal(sre.trawl("label", "other", change).returncode, 0)
        check_equal("redis-memory" in told(other, version), is_meant)


@case
def a_bad_file_is_refused_with_its_line_and_the_old_one_stays():
    before = get()
    fake.rules.clear()
    for text, sentence in ((CACHE + "rule x on * when cpu.busy > then capture stacks limit 1/h\n", "line 8"),
                           (CACHE.replace("role=cache", "=cache"), "line"),
                           (CACHE.replace("limit 2/h", "limit 200/h"), "line 7"),
                           ("\n\nrule x on * when log /var/log/x has \"y\" then capture stacks limit 1/h", "line 3"),
                           (CACHE + "# " + "x" * 61440, "60 KiB")):
        done = sre.trawl("rules", "set", write(text), "--any-counter")
        check(done.returncode != 0 and sentence in done.stderr, done.stderr)
        check_equal(get(), before)
    check_equal(fake.rules, [])
    denied = developer.trawl("rules", "set", write(CACHE))
    check(denied.returncode != 0 and "role 'developer' may not call" in denied.stderr, denied.stderr)


@case
def rules_are_listed_given_back_and_removed():
    rows = developer.trawl_json("rules", "list")
    check_equal([(r["rule"], r["on"], r["limit"]) for r in rows], [("redis-memory", "role=cache", "2/h"), ("busy", "*", "1/h")])
    table = developer.trawl("rules", "list").stdout
    check("process.rss of redis-server > 2G until < 1.5G" in table, table)
    check_equal(developer.trawl("rules", "get").stdout, CACHE + ALL)
    wrong = sre.trawl("rules", "rm", "busy", "redis-memori")
    check(wrong.returncode != 0 and "did you mean 'redis-memory'" in wrong.stderr, wrong.stderr)
    check_equal(get().count, 2)
    done = sre.trawl("rules", "rm", "busy")
    check_equal(done.returncode, 0, done.stderr)
    check_equal(get().text.decode(), CACHE)
    check_equal(told(other, get().version), "")
    check("redis-memory" in told(fake, get().version), "stays")


@case
def a_long_file_comes_in_pieces_and_survives_the_collector():
    text = "".join("rule r%d on * when cpu.busy > %d%% for 1m then capture counters limit 1/h\n" % (i, i % 90 + 1) * 1
                   for i in range(250)) + "# " + "x" * 20000 + "\n"
    version = set_rules(text)
    check_equal(len(told(fake, version).split()), len(text.split()) - 2)
    check(len([p for p in fake.rules if p.version == version]) > 1, "in pieces")
    c.kill()
    c.start()
    for person in (admin, sre, developer):
        person.reconnect()
    check_equal((get().text.decode(), get().version), (text, version))
    fake.rules.clear()
    fake.connect()
    check_equal(len(told(fake, version).split()), len(text.split()) - 2)
    check_equal(sre.trawl("rules", "set", write(""), "--any-counter").returncode, 0)
    check_equal(told(fake, version + 1), "")


def fire(agent, rule, seq, firing):
    agent.send(event=pb.Event(seq=seq, type=pb.RULE_FIRED, wall_us=int(time.time() * 1e6), text="rule %s: said so" % rule,
                              rule=rule, firing=firing))


def rule_incidents():
    rows = developer.many("Incidents", pb.IncidentsRequest(from_us=0, to_us=1 << 60), pb.Incident)
    return [i for i in rows if i.rule]


def rule_targets(host):
    return [p.target for i in rule_incidents() for p in developer.show(i.id)
            if p.WhichOneof("body") == "target" and p.target.host == host]


def restart():
    c.kill()
    c.start()
    for person in (admin, sre, developer):
        person.reconnect()


@case
def each_firing_is_captured_once_over_kills_of_the_collector():
    set_rules(CACHE)
    fake.events = 0
    for seq in range(1, 9):
        firing = os.urandom(16)
        fire(fake, "redis-memory", seq, firing)
        if seq % 2:  # from the moment when it has taken nothing in to that when all is done
            time.sleep(0.002 * seq)
        else:
            wait_for(lambda: fake.events >= seq or len(rule_targets("fake")) >= seq, "it is known")
        restart()
        fake.channel.close()
        fake.reader.join(10)
        fake.last_order = 0  # an order whose end was not told is done again
        fake.connect()
        while fake.welcome.last_event < seq and fake.events < seq:
            fire(fake, "redis-memory", seq, firing)
            wait_for(lambda: fake.events >= seq, "firing %d is acknowledged" % seq)
        wait_for(lambda: len(rule_targets("fake")) >= seq, "firing %d is ordered" % seq)
    wait_for(lambda: all(t.state == pb.DONE for t in rule_targets("fake")), "all is done")
    check_equal((len(rule_targets("fake")), len(rule_incidents()), len(set(o.order for o in fake.orders))), (8, 1, 8))
    check_equal({tuple(o.what) for o in fake.orders}, {("triage", "stacks")})


@case
def an_agent_has_nothing_captured_that_no_rule_of_its_host_says():
    other.connect()
    before = len(rule_targets("other"))
    for seq, rule in ((1, "redis-memory"), (2, "nobody-wrote-this")):
        fire(other, rule, seq, os.urandom(16))
    other.event("behind them", 3)
    wait_for(lambda: other.events >= 3, "all is stored")
    wait_for(lambda: c.logged("rule 'nobody-wrote-this' fired on 'other', and nothing is captured"), "it is said")
    check_equal((len(rule_targets("other")), other.orders), (before, []))


@case
def a_host_is_captured_by_rules_so_often_in_an_hour_at_most():
    before = len(rule_targets("fake"))
    for seq in range(100, 180):
        fire(fake, "redis-memory", seq, os.urandom(16))
    wait_for(lambda: fake.events >= 179, "all is stored")
    wait_for(lambda: c.logged("rules had it captured 64 times in this hour already"), "it is said")
    wait_for(lambda: len(rule_targets("fake")) > before + 60, "those before are ordered")
    check(len(rule_targets("fake")) - before <= 64, "no more than that")


# ---- real agents ----

SWELL = """
import mmap, signal, sys, time
held = []
def grow(*_):
    held.append(mmap.mmap(-1, 120 << 20))
    for at in range(0, 120 << 20, 4096):
        held[0][at] = 1
def shrink(*_):
    held.pop().close()
signal.signal(signal.SIGUSR1, grow)
signal.signal(signal.SIGUSR2, shrink)
while True:
    time.sleep(0.1)
"""
RULE = """rule %s
    on role=grow
    when process.rss of swell > 100M until < 90M
    for 3s
    then capture triage,stacks0,counters,events of swell
    limit %s
"""
grower = stander = victim = None


def swell():
    """A process of this name, which grows and shrinks on a signal."""
    name = os.path.join(TMP, "swell")
    os.symlink(os.path.realpath("/usr/bin/python3"), name)
    return start([name, write(SWELL, "swell.py")], os.path.join(TMP, "swell.log"))


def agents():
    """Two hosts alike; what the rule is about is on both, and grows on one of them only in the eyes of its rule."""
    global grower, stander, victim
    if not grower:
        victim = swell()
        grower = Agent(c, "grower", "--follow", "swell", role="grow", rack="r1").wait_online()
        stander = Agent(c, "stander", "--follow", "swell", role="stand", rack="r1").wait_online()
    return grower


def said(agent, text):
    with open(agent.log) as f:
        return f.read().count(text)


def give(text):
    """The rules are set, and the agent has them."""
    agents()
    version = set_rules(text)
    wait_for(lambda: said(grower, "for this host, version %d" % version), "the agent has version %d" % version)


def events(kind, rule=None, host="grower"):
    request = pb.EventsRequest(selector=host, from_us=0, to_us=1 << 60)
    return [e for e in developer.many("Events", request, pb.Event) if e.type == kind and (not rule or e.rule == rule)]


def incidents(rule):
    rows = developer.many("Incidents", pb.IncidentsRequest(from_us=0, to_us=1 << 60), pb.Incident)
    return [i for i in rows if i.rule == rule]


def fires(rule, count, kind=pb.RULE_FIRED):
    """The process grows, until this is the rule's count-th event of this kind; then it shrinks until the rule is over."""
    over = len(events(pb.RULE_QUIET, rule))
    os.kill(victim.pid, signal.SIGUSR1)
    wait_for(lambda: len(events(kind, rule)) == count, "%s: %d of %s" % (rule, count, pb.EventType.Name(kind)), 40)
    os.kill(victim.pid, signal.SIGUSR2)
    wait_for(lambda: len(events(pb.RULE_QUIET, rule)) == over + 1, rule + " is over", 40)


def ended(rule, count):
    """The rule's incident, once this many captures of it have ended on the host."""
    def all_ended():
        found = incidents(rule)
        if len(found) != 1 or not found[0].finished:
            return None
        targets = [p.target for p in developer.show(found[0].id) if p.WhichOneof("body") == "target"]
        return found[0] if len([t for t in targets if t.host == "grower"]) == count else None
    return wait_for(all_ended, "%d captures of %s have ended" % (count, rule), 60)


@case
def nothing_fires_while_the_condition_is_not_met():
    give(RULE % ("swell", "2/h"))
    request = pb.CountersRequest(names=["process.rss"], selector="grower", instance="swell", from_us=0, to_us=1 << 60)

    def long_enough():
        try:
            return sum(len(s.values) for s in developer.many("Counters", request, pb.Samples)) >= 10
        except grpc.RpcError as e:
            check_equal(e.code(), grpc.StatusCode.NOT_FOUND)
            return False
    wait_for(long_enough, "10 samples of it", 40)
    check_equal((events(pb.RULE_FIRED), incidents("swell")), ([], []))


@case
def a_rule_fires_and_its_evidence_is_gathered():
    agents()
    fires("swell", 1)
    incident = ended("swell", 1)
    check_equal(incident.cause, "rule swell fired on grower")
    kinds = sorted({a.kind for a in developer.artifacts(incident.id) if a.sealed and a.host == "grower"})
    check_equal(kinds, ["counters", "events", "stacks0", "triage"],
                str([(t.host, t.reason) for t in developer.targets(incident.id).values()]))
    check_equal({a.process for a in developer.artifacts(incident.id) if a.kind == "stacks0"}, {"swell"})
    event = events(pb.RULE_FIRED, "swell")[0]
    check("swell process.rss" in event.text and "> 100 MiB" in event.text, event.text)
    check(abs(event.wall_us - incident.created_us) < 5000000, "at once")
    check_equal(events(pb.RULE_FIRED, host="stander"), [])


def fired(path):
    rows = developer.trawl_json("rules", "test", path, "--last", "10m")
    return sorted((r["host"], datetime.datetime.fromisoformat(r["time"].replace("Z", "+00:00")).timestamp())
                  for r in rows if r["verdict"] == "fires")


@case
def test_tells_the_same_instants():
    agents()
    fires("swell", 2)
    happened = sorted(e.wall_us / 1e6 for e in events(pb.RULE_FIRED, "swell"))
    path = write(RULE % ("swell", "2/h"))
    wait_for(lambda: len(fired(path)) >= 2, "what was sampled is stored", 40)
    replayed = fired(path)
    check_equal([host for host, _ in replayed], ["grower"] * 2)
    for (_, at), real in zip(replayed, happened):
        check(abs(at - real) < 0.5, "%.3f in the replay, %.3f in truth" % (at, real))
    done = developer.trawl("rules", "test", path, "--last", "10m", "-l", "rack=r1")
    check_equal(done.returncode, 0, done.stderr)
    check("would have fired 2 times, on 1 of 2 hosts" in done.stderr, done.stderr)
    check_equal(fired(write((RULE % ("swell", "2/h")).replace("100M", "900M").replace("90M", "800M"))), [])


@case
def the_limit_holds_over_the_death_of_agent_and_collector():
    agents()
    ended("swell", 2)
    grower.kill()
    c.kill()
    c.start()
    for person in (admin, sre, developer):
        person.reconnect()
    grower.start()
    grower.wait_online()
    fires("swell", 1, pb.RULE_SUPPRESSED)
    check_equal(len(events(pb.RULE_FIRED, "swell")), 2)
    check_equal(len([t for t in developer.show(incidents("swell")[0].id) if t.WhichOneof("body") == "target"]), 2)


@case
def what_fires_while_the_collector_is_away_is_told_later():
    give(RULE % ("away", "2/h"))
    c.kill()
    os.kill(victim.pid, signal.SIGUSR1)
    wait_for(lambda: said(grower, "rule away: "), "it fires by itself", 40)
    grower.kill()  # and what it knows of it is in the ring
    os.kill(victim.pid, signal.SIGUSR2)
    c.start()
    for person in (admin, sre, developer):
        person.reconnect()
    grower.start()
    incident = ended("away", 1)
    check_equal(len(events(pb.RULE_FIRED, "away")), 1)
    check(incident.from_us < events(pb.RULE_FIRED, "away")[0].wall_us, "the incident's window has the moment in it")


@case
def peers_give_what_they_saw():
    agents()
    stander.wait_online()
    give((RULE % ("together", "2/h")) + "    peers rack\n")
    fires("together", 1)
    incident = ended("together", 1)
    targets = {p.target.host: p.target.state for p in developer.show(incident.id) if p.WhichOneof("body") == "target"}
    check_equal(sorted(targets), ["grower", "stander"])
    kinds = {a.kind for a in developer.artifacts(incident.id) if a.sealed and a.host == "stander"}
    check({"counters", "events"} <= kinds, kinds)


main()
