#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The fleet brake: trawl freeze reaches every agent, those that are away when they come back, and nothing is captured until
trawl thaw. Real agents; each case has its control: the same capture is done when the fleet is not frozen."""
import os

import grpc

from trawltest import Agent, Collector, FakeAgent, case, check, check_equal, main, pb, wait_for

c = Collector()
admin, sre, developer = c.person("admin"), c.person("sre"), c.person("developer")
one = Agent(c, "one", role="web").wait_online()
two = Agent(c, "two", role="web").wait_online()


def brake():
    return sre.one("ShowBrake", pb.BrakeRequest(), pb.Brake)


def said(agent, text):
    with open(agent.log) as f:
        return text in f.read()


def final(incident, host):
    def ended():
        t = sre.targets(incident)[host]
        return t if t.state >= pb.DONE else None
    return wait_for(ended, "%s of %s has ended" % (host, incident))


def captures(selector="role=web"):
    """The control: while the fleet is not frozen, the same capture is done."""
    reply = sre.capture(selector, what=["events"], last_us=5000000)
    for host in sre.targets(reply.incident):
        check_equal(final(reply.incident, host).state, pb.DONE)


def thaw():
    done = sre.trawl("thaw")
    check_equal(done.returncode, 0, done.stderr)


@case
def freeze_reaches_all_and_refuses_captures():
    captures()
    done = sre.trawl("freeze", "-m", "checkout is being moved")
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    check("frozen since" in done.stdout and "by sre/sre: checkout is being moved" in done.stdout, done.stdout)
    check("2 of 2 hosts online, 2 of them obey" in done.stdout, done.stdout)
    refused = sre.trawl("capture", "-l", "role=web")
    check_equal(refused.returncode, 1)
    check("the fleet is frozen by sre/sre, checkout is being moved: 'trawl thaw' ends it" in refused.stderr, refused.stderr)
    check_equal(sre.trawl("capture", "-l", "role=web", "--dry-run").returncode, 0)
    for agent in (one, two):
        check(said(agent, "the fleet is frozen by sre/sre"), agent.name)
    thaw()
    status = developer.trawl_json("freeze", "--status")[0]
    check_equal((status["frozen"], status["online"], status["obeying"]), (False, 2, 2))
    captures()


@case
def a_developer_sees_it_and_cannot_set_it():
    done = developer.trawl("freeze")
    check(done.returncode != 0 and "role 'developer' may not call" in done.stderr, done.stderr)
    check(not brake().on, "nothing was frozen")
    check_equal(developer.trawl("freeze", "--status").returncode, 0)


@case
def a_capture_that_runs_ends():
    reply = sre.capture("one", what=["events"], last_us=1000000, for_us=120000000)
    wait_for(lambda: sre.targets(reply.incident)["one"].state == pb.RUNNING, "it runs")
    check_equal(sre.trawl("freeze", "-m", "enough").returncode, 0)
    ended = final(reply.incident, "one")
    check_equal((ended.state, ended.reason), (pb.CANCELLED, "the fleet is frozen by sre/sre: enough"))
    thaw()


@case
def an_agent_that_was_away_is_frozen_on_its_return():
    two.kill()
    wait_for(lambda: admin.hosts("*")["two"].state == pb.OFFLINE, "two is offline")
    reply = sre.capture("role=web", what=["events"], last_us=5000000)
    check_equal(final(reply.incident, "one").state, pb.DONE)
    done = sre.trawl("freeze")
    check_equal(done.returncode, 0, done.stderr)
    check("1 of 2 hosts online" in done.stdout, done.stdout)
    check("are told when they come back" in done.stderr, done.stderr)
    two.start()
    two.wait_online()
    wait_for(lambda: brake().obeying == 2, "two obeys")
    check_equal(sre.targets(reply.incident)["two"].state, pb.QUEUED, "what waited still waits")
    thaw()
    check_equal(final(reply.incident, "two").state, pb.DONE)


@case
def it_survives_both_sides():
    check_equal(sre.trawl("freeze", "-m", "night").returncode, 0)
    c.kill()
    one.kill()
    one.start()
    wait_for(lambda: said(one, "the fleet is frozen by sre/sre: nothing is captured"), "it knows without the collector")
    c.start()
    for person in (admin, sre, developer):
        person.reconnect()
    one.wait_online()
    check_equal((brake().on, brake().note), (True, "night"))
    try:
        sre.capture("one")
        check(False, "a capture began on a frozen fleet")
    except grpc.RpcError as e:
        check("the fleet is frozen by sre/sre, night" in e.details(), e.details())
    thaw()
    two.wait_online()
    captures()


@case
def a_host_that_does_not_answer_is_said():
    FakeAgent(c, "deaf", role="deaf").connect()
    done = sre.trawl("freeze")
    check_equal(done.returncode, 3, done.stdout + done.stderr)
    check("1 of the hosts that are online has not said yet that they obey" in done.stderr, done.stderr)
    check_equal(sre.trawl("thaw").returncode, 3)


@case
def a_damaged_file_counts_as_frozen():
    one.kill()
    with open(os.path.join(one.directory, "state", "brake"), "wb") as f:
        f.write(b"\xff\xff\xff")
    one.start()
    wait_for(lambda: said(one, "nothing is captured until the collector says"), "it says so")
    one.wait_online()
    wait_for(lambda: brake().obeying == 2, "the collector's word counts again")
    captures("one")


main()
