#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The collector is killed with SIGKILL again and again while agents send events as fast as they are acknowledged. What was
acknowledged must be there, once. ROUNDS=N kills (default 50)."""
import os
import random
import threading
import time

import grpc

from trawltest import Collector, FakeAgent, case, check, check_equal, main, pb, wait_for

ROUNDS = int(os.environ.get("ROUNDS", "50"))
AGENTS = 4
WINDOW = 200  # unacknowledged at most

c = Collector("--group-time", "5ms")
begin = int(time.time() * 1e6)


class Sender(FakeAgent):
    """Resends what is not acknowledged after each reconnection, as an agent does."""

    def __init__(self, name):
        super().__init__(c, name)
        self.stopping = False
        self.highest = 0  # acknowledged, over all connections
        self.made = 0
        self.forgotten = None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stopping:
            try:
                self.connect()
                self.pump()
            except (AssertionError, grpc.RpcError, ValueError) as e:
                if os.environ.get("VERBOSE"):
                    print(self.host, repr(e)[:300], flush=True)
                time.sleep(0.02)
            finally:
                self.highest = max(self.highest, self.events)
                self.channel.close()

    def pump(self):
        next_seq = self.welcome.last_event + 1
        if self.welcome.last_event < self.highest:
            self.forgotten = "it has %d, it acknowledged %d" % (self.welcome.last_event, self.highest)
            self.stopping = True
        while not self.stopping and self.error is None:
            if next_seq > self.events + WINDOW:
                time.sleep(0.001)
                continue
            self.event("e%d" % next_seq, next_seq, begin + next_seq)
            self.made = max(self.made, next_seq)
            next_seq += 1


def stored(name):
    request = pb.EventsRequest(selector=name, from_us=begin - 10**7, to_us=begin + 10**9)
    return [e.text for e in c.person("developer").many("Events", request, pb.Event, seconds=60)]


@case
def nothing_acknowledged_is_lost_or_doubled():
    senders = [Sender("kill-%d" % i) for i in range(AGENTS)]
    for s in senders:
        s.thread.start()
    wait_for(lambda: all(s.events > 0 for s in senders), "the first acknowledgements")
    kills = 0
    for _ in range(ROUNDS):
        before = sum(max(s.highest, s.events) for s in senders)
        time.sleep(random.uniform(0.01, 0.15))
        c.kill()
        kills += 1
        c.start()
        wait_for(lambda: sum(max(s.highest, s.events) for s in senders) > before or any(s.forgotten for s in senders),
                 "progress after the kill")
        for s in senders:
            check(s.forgotten is None, "the collector forgot events of %s: %s" % (s.host, s.forgotten))
    for s in senders:
        s.stopping = True
    for s in senders:
        s.thread.join(20)
    check_equal(kills, ROUNDS)
    total = 0
    for s in senders:
        texts = stored(s.host)
        acknowledged = max(s.highest, s.events)
        total += acknowledged
        check_equal(len(texts), len(set(texts)), "%s: stored twice" % s.host)
        missing = {"e%d" % n for n in range(1, acknowledged + 1)} - set(texts)
        check(not missing, "%s: acknowledged but lost: %s" % (s.host, sorted(missing)[:5]))
        check(set(texts) <= {"e%d" % n for n in range(1, s.made + 1)}, "%s: never sent" % s.host)
    print("      %d kills, %d events acknowledged by %d agents" % (kills, total, AGENTS))


@case
def a_forged_acknowledgement_is_caught():
    """Positive control: the same comparison finds an event that the collector never stored."""
    agent = FakeAgent(c, "control-1").connect()
    agent.event("e1", 1, begin + 1)
    wait_for(lambda: agent.events == 1, "acknowledged")
    agent.disconnect()
    missing = {"e1", "e2"} - set(stored("control-1"))
    check_equal(missing, {"e2"})


main()
