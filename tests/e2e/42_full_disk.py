#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The collector's disk fills up: agents are told to come back, people are still served, nothing acknowledged is lost, and
when there is room again everything goes on by itself."""
import os
import subprocess
import time

import grpc

from trawltest import TMP, Collector, FakeAgent, Skip, case, check, check_equal, main, pb, wait_for

PLACE = os.path.join(TMP, "small")
state = {}


def stored(collector, name, begin):
    request = pb.EventsRequest(selector=name, from_us=begin - 10**7, to_us=begin + 10**9)
    return [e.text.split()[0] for e in collector.person("developer").many("Events", request, pb.Event, seconds=30)]


def send(agent, first, count, begin):
    for seq in range(first, first + count):
        agent.event("e%d %s" % (seq, "x" * 400), seq, begin + seq)


@case
def a_full_disk_ends_the_intake_with_a_reason():
    os.makedirs(PLACE)
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "none", PLACE]).returncode:
        raise Skip("needs root to mount a small tmpfs")
    c = Collector(name="small/data")
    begin = int(time.time() * 1e6)
    agent = FakeAgent(c, "full-1").connect()
    send(agent, 1, 100, begin)
    wait_for(lambda: agent.events == 100, "events are acknowledged while there is room")
    with open(PLACE + "/filler", "wb") as filler:
        try:
            while True:
                filler.write(b"\0" * 65536)
                filler.flush()
        except OSError:
            pass
    sent = 100
    for _ in range(40):  # free pages of the file and its ballast take some
        if agent.error:
            break
        send(agent, sent + 1, 500, begin)
        sent += 500
        time.sleep(0.2)
    wait_for(lambda: agent.error, "the connection ends")
    check_equal(agent.error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, agent.error.details())
    check_equal(c.process.poll(), None, "the collector runs on")
    state.update(c=c, agent=agent, begin=begin, sent=sent, acknowledged=agent.events)


@case
def people_are_still_served():
    if not state:
        raise Skip("no small tmpfs")
    check("full-1" in state["c"].person("admin").hosts("*"), "hosts")
    check_equal(len(stored(state["c"], "full-1", state["begin"])) >= state["acknowledged"], True)


@case
def with_room_again_everything_goes_on():
    if not state:
        raise Skip("no small tmpfs")
    c, agent, begin = state["c"], state["agent"], state["begin"]
    os.unlink(PLACE + "/filler")

    def resend():
        try:
            agent.connect()
        except AssertionError:
            return False
        check(agent.welcome.last_event >= state["acknowledged"], "the collector forgot what it acknowledged")
        send(agent, agent.welcome.last_event + 1, state["sent"] - agent.welcome.last_event, begin)
        try:
            wait_for(lambda: agent.events == state["sent"] or agent.error, "acknowledged", 10)
        except AssertionError:
            return False
        return agent.events == state["sent"]
    wait_for(resend, "all is taken in", 40)
    texts = stored(c, "full-1", begin)
    check_equal(len(texts), len(set(texts)), "stored twice")
    check_equal(set(texts), {"e%d" % n for n in range(1, state["sent"] + 1)})
    check_equal(c.stop(), 0)


try:
    main()
finally:
    for collector in Collector.all:
        if collector.process.poll() is None:
            collector.kill()
    if os.path.ismount(PLACE):
        subprocess.run(["umount", PLACE], check=True)
