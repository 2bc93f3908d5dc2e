#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The agent from the first start on: joining and what can be wrong with it, what it says as root and as an ordinary user,
counters that wait while the collector is away, renewal of its certificate."""
import os
import pwd
import re
import shutil
import subprocess
import time

import grpc

from trawltest import BIN, TMP, Agent, Collector, Skip, case, check, check_equal, main, pb, start, wait_for

c = Collector("--certificate-lifetime", "30d")
admin, sre = c.person("admin"), c.person("sre")


def agent(state, *arguments, **more):
    return subprocess.run([BIN + "/trawl-agent"] + list(arguments) + ["--state-dir", os.path.join(TMP, state)],
                          capture_output=True, text=True, timeout=60, **more)


def join(state, name, token, collector=None):
    return agent(state, "join", "--collector", collector or "127.0.0.1:%d" % c.port, "--join", token, "--name", name)


def refused(done, code, *words):
    check_equal(done.returncode, code, done.stdout + done.stderr)
    for word in words:
        check(word in done.stderr, "%r in %r" % (word, done.stderr))


def nothing_of(state):
    left = os.listdir(os.path.join(TMP, state)) if os.path.isdir(os.path.join(TMP, state)) else []
    check(not [n for n in left if n.endswith(".pem")], "half-made state: %s" % left)


@case
def a_token_joins_one_host():
    token = c.token(role="web")
    check_equal(join("j1", "join-1", token).returncode, 0)
    check_equal({lb.value for lb in admin.hosts("join-1")["join-1"].labels}, {"web"})
    refused(join("j2", "join-2", token), 25, "used")
    nothing_of("j2")


@case
def a_name_that_is_taken():
    refused(join("j3", "join-1", c.token()), 12, "join-1", "trawl revoke", "--name")
    nothing_of("j3")


@case
def tokens_that_cannot_be_right():
    refused(join("j4", "join-4", "hello"), 2, "token")
    nothing_of("j4")
    port, fingerprint, secret = c.token().split(".")
    refused(join("j4", "join-4", ".".join((port, "0" * 64, secret))), 23, "fingerprint")
    nothing_of("j4")
    refused(join("j4", "join-4", ".".join((port, fingerprint, "Z" * 26))), 1, "not known")
    nothing_of("j4")
    check("Z" * 26 not in open(c.log).read(), "a secret is in the log")


@case
def a_token_that_expired():
    library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
    if not os.path.exists(library):
        raise Skip("needs libfaketime (package faketime)")
    if os.path.basename(os.path.dirname(BIN)) == "asan":
        raise Skip("a sanitized program does not take LD_PRELOAD")
    token = c.token()
    c.stop()
    os.environ.update(LD_PRELOAD=library, FAKETIME="+11m", FAKETIME_DONT_FAKE_MONOTONIC="1")
    try:
        c.start()
    finally:
        for name in ("LD_PRELOAD", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC"):
            del os.environ[name]
    refused(join("j5", "join-5", token), 24, "expired", "trawl enroll")
    c.stop()
    c.start()
    for person in (admin, sre):
        person.reconnect()


@case
def a_collector_that_is_not_there():
    token = c.token()
    refused(join("j6", "join-6", "1" + token[token.index("."):], "127.0.0.1:1"), 21, "127.0.0.1:1")
    nothing_of("j6")


@case
def names_are_resolved_by_the_static_programs():
    done = sre.trawl("hosts", "--collector", "localhost:%d" % c.port)
    check("cannot resolve" not in done.stderr and "unknown" not in done.stderr.lower(), done.stderr)
    check("localhost" in done.stderr or done.returncode == 0, done.stderr)
    done = sre.trawl("hosts", "--collector", "no-such-host.invalid")
    check_equal(done.returncode, 21, done.stderr)
    check("no-such-host.invalid" in done.stderr, done.stderr)


@case
def unknown_flags_and_commands_name_what_exists():
    refused(agent("x", "run", "--colector", "h"), 2, "--colector", "--collector")
    refused(agent("x", "rum"), 2, "rum", "run")


@case
def a_second_agent_on_the_same_state_is_refused():
    first = Agent(c, "busy-1").wait_online()
    done = agent("real-busy-1/state", "run", "--collector", "127.0.0.1:%d" % c.port)
    check(done.returncode not in (0, 1), done.stderr)
    check("another agent" in done.stderr or "runs" in done.stderr, done.stderr)
    check_equal(first.stop(), 0)


def counter_times(host, since):
    request = pb.CountersRequest(names=["cpu.busy"], selector=host, from_us=since, to_us=int(time.time() * 1e6))
    times = []
    try:
        for s in sre.many("Counters", request, pb.Samples):
            times += [s.from_us + i * s.step_us for i, v in enumerate(s.values) if v != -2**63]
    except grpc.RpcError as e:
        check_equal(e.code(), grpc.StatusCode.NOT_FOUND, e.details())  # nothing has arrived yet
    return times


@case
def what_was_sampled_while_the_collector_was_away_arrives_once():
    a = Agent(c, "away-1").wait_online()
    since = int(time.time() * 1e6)
    time.sleep(1.5)
    c.kill()
    time.sleep(4)
    c.start()
    for person in (admin, sre):
        person.reconnect()
    a.wait_online()

    def seconds():
        rounded = [round((t - since) / 1e6) for t in counter_times("away-1", since)]
        return rounded if rounded and max(rounded) >= 6 else None
    got = wait_for(seconds, "counters up to after the pause", 40)
    check_equal(len(got), len(set(got)), "seconds twice: %s" % got)
    missing = set(range(2, 6)) - set(got)
    check(not missing, "seconds missing: %s of %s" % (sorted(missing), got))
    events = [e.text for e in sre.many("Events", pb.EventsRequest(selector="away-1", from_us=since - 10**7,
                                                                  to_us=int(time.time() * 1e6)), pb.Event)]
    check(any("collector" in e for e in events), "the loss of the collector is an event: %s" % events)
    a.stop()


@case
def a_certificate_is_renewed_by_itself():
    short = Collector("--certificate-lifetime", "1m", name="short")
    a = Agent(short, "renew-1").wait_online()
    before = short.person("admin").hosts("*")["renew-1"].certificate_not_after_s
    wait_for(lambda: short.logged("renewed its certificate"), "renewal", 70)
    wait_for(lambda: short.person("admin").hosts("*")["renew-1"].certificate_not_after_s > before, "the new one is used")
    a.stop()
    short.stop()


@case
def an_ordinary_user_gets_what_it_may_see():
    if os.getuid():
        raise Skip("needs root to become somebody else")
    if shutil.which("setpriv") is None:
        raise Skip("needs setpriv")
    place = os.path.join(TMP, "ordinary")
    os.makedirs(place)
    nobody = pwd.getpwnam("nobody")
    os.chown(place, nobody.pw_uid, nobody.pw_gid)
    program = os.path.join(place, "trawl-agent")  # copied by hand, as on a server
    shutil.copy(BIN + "/trawl-agent", program)
    p = start(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", program, "run", "--collector",
               "127.0.0.1:%d" % c.port, "--join", c.token(), "--name", "plain-1", "--state-dir", place + "/state"],
              place + "/log", cwd="/")
    wait_for(lambda: "plain-1" in admin.hosts("") and admin.hosts("plain-1")["plain-1"].state == pb.ONLINE, "online")
    caps = {x.name: x for x in sre.many("Caps", pb.HostsRequest(selector="plain-1"), pb.Capability)}
    lacking = [x for x in caps.values() if not x.available]
    check(lacking, "an ordinary user lacks nothing?")
    for cap in lacking:
        check(cap.reason, "no reason for %s" % cap.name)
    p.terminate()
    check_equal(p.wait(20), 0)


@case
def the_self_test_says_what_it_costs_and_what_is_there():
    done = agent("selftest", "self-test")
    check_equal(done.returncode, 0, done.stderr)
    for wanted in ("CPU", "MiB", "stacks"):
        check(re.search(wanted, done.stdout, re.I), "%r in %s" % (wanted, done.stdout))


main()
