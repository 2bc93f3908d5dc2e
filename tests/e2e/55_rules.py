#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rules end to end: a file is kept by the collector or refused as a whole, each agent is told those that mean it, evaluates
them by itself, and what fires becomes an incident with the evidence that the rule names. Each case has its control."""
import os
import time

import grpc

from trawltest import TMP, Agent, Collector, FakeAgent, case, check, check_equal, main, pb, wait_for

c = Collector()
admin, sre, developer = c.person("admin"), c.person("sre"), c.person("developer")
fake = FakeAgent(c, "fake", role="cache").connect()
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
                           (CACHE * 300, "60 KiB")):
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


main()
