#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Artifacts that are stored packed (cores): `trawl fetch` makes sparse files of them, says in the manifest what is what, and
an interrupted fetch or unpacking goes on. The options of captures travel from the command line to the order."""
import hashlib
import json
import os
import random
import struct
import time

from trawltest import BIN, PIECE, TMP, Collector, FakeAgent, case, check, check_equal, main, pb, start, wait_for

c = Collector()
sre = c.person("sre")
developer = c.person("developer")
BLOCK = 128 << 10


def frame(data):
    """A zstd frame (RFC 8878) of raw and run-length blocks; good enough for whoever reads zstd."""
    out = [b"\x28\xb5\x2f\xfd\x00\x38"]
    blocks = [data[i:i + BLOCK] for i in range(0, len(data), BLOCK)] or [b""]
    for i, block in enumerate(blocks):
        same = len(block) > 1 and block == block[:1] * len(block)
        head = (i == len(blocks) - 1) | (2 if same else 0) | len(block) << 3
        out += [struct.pack("<I", head)[:3], block[:1] if same else block]
    return b"".join(out)


def core_like(seed, dense, zeros):
    noise = random.Random(seed)
    return b"".join(noise.randbytes(dense) + bytes(zeros) for _ in range(4)) + b"the end" + bytes(BLOCK)


def captured(name, plain, size=None, **more):
    """An incident with a packed core of this host and a text that is not packed."""
    half = len(plain) // 2
    stored = frame(plain[:half]) + frame(plain[half:])

    def give(agent, order):
        agent.verdict(order, pb.RUNNING, 1)
        first = order.first_artifact or 1
        meta = pb.Artifact(kind="core", process="fake", pid=42, file="core-fake-42.core", pause_us=9000, expected_us=11000,
                           paused=True, threads=4, size_bytes=len(stored), sha256=hashlib.sha256(stored).digest(),
                           encoding="zstd", plain_bytes=len(plain) if size is None else size, missing="heap: nothing")
        pieces = [(no, stored[no * PIECE:(no + 1) * PIECE]) for no in range((len(stored) + PIECE - 1) // PIECE)]
        check(agent.upload_run(order, pieces, first, last=meta).sealed, "sealed")
        agent.upload(order, b"text", first + 1)
        agent.verdict(order, pb.DONE, 2, processes=1, artifacts=2, longest_pause_us=9000)
    agent = FakeAgent(c, name, on_order=give).connect()
    reply = sre.capture(name, what=["core", "stacks"], **more)
    wait_for(lambda: sre.targets(reply.incident)[name].state == pb.DONE, "done", 60)
    agent.disconnect()
    return reply.incident, stored


def fetch(incident, name, *more):
    out = os.path.join(TMP, name)
    done = developer.trawl("fetch", incident, "-o", out, *more)
    return done, os.path.join(out, incident)


@case
def a_packed_core_becomes_a_sparse_file():
    plain = core_like(1, 300000, 20 << 20)
    incident, stored = captured("sparse-1", plain)
    done, out = fetch(incident, "sparse")
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    path = out + "/sparse-1/core-fake-42.core"
    with open(path, "rb") as f:
        check(f.read() == plain, "the core's bytes")
    check(os.stat(path).st_blocks * 512 < len(plain) // 8, "%d blocks of %d bytes" % (os.stat(path).st_blocks, len(plain)))
    check_equal(sorted(os.listdir(out + "/sparse-1")), ["core-fake-42.core", "core-fake-42.core.unpacked", "stacks-fake-2.txt"])
    with open(out + "/manifest.json") as f:
        core = [a for a in json.load(f)["artifacts"] if a["kind"] == "core"][0]
    check_equal((core["encoding"], core["size_bytes"], core["sha256"]),
                ("zstd", len(stored), hashlib.sha256(stored).hexdigest()), "of the stored bytes")
    check_equal(core["file_bytes"], len(plain), "of the file")
    check_equal((core["pause_us"], core["expected_pause_us"], core["missing"]), (9000, 11000, "heap: nothing"))
    before = os.stat(path)
    done, _ = fetch(incident, "sparse")
    check("2 were there" in done.stdout, done.stdout)
    check_equal(os.stat(path).st_mtime_ns, before.st_mtime_ns, "it is not made again")
    with open(path, "r+b") as f:
        f.write(b"changed")
    fetch(incident, "sparse")
    with open(path, "rb") as f:
        check(f.read() == plain, "made again when it was changed")


@case
def an_interrupted_fetch_goes_on():
    plain = core_like(2, 10 << 20, 1 << 20)
    incident, _ = captured("torn-1", plain)
    out = os.path.join(TMP, "torn")
    path = out + "/" + incident + "/torn-1/core-fake-42.core"
    kills = 0
    for delay in (0.0, 0.02, 0.04, 0.08, 0.12, 0.2):  # wherever each of them meets it
        p = start([BIN + "/trawl", "--context", developer.directory, "fetch", incident, "-o", out], c.log + ".fetch")
        wait_for(lambda: p.poll() is not None or os.path.exists(path + ".part"), "the first bytes")
        time.sleep(delay)
        kills += p.poll() is None
        p.kill()
        p.wait()
        check(not os.path.exists(path) or open(path, "rb").read() == plain, "half a file under its name")
    check(kills > 0, "no fetch was interrupted")
    done, _ = fetch(incident, "torn")
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    check(open(path, "rb").read() == plain, "the core's bytes")
    check_equal([n for n in os.listdir(os.path.dirname(path)) if n.endswith(".part")], [])


@case
def a_bomb_is_refused():
    plain = bytes(300 << 20)
    incident, stored = captured("bomb-1", plain, size=0)
    check(len(stored) < 20000, "%d bytes" % len(stored))
    done, out = fetch(incident, "bomb", "--max-size", "64M")
    check_equal(done.returncode, 3, done.stdout + done.stderr)
    check("allow it with --max-size" in done.stdout, done.stdout)
    check(not os.path.exists(out + "/bomb-1/core-fake-42.core"), "no file")
    done, out = fetch(incident, "bomb")
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    check_equal(os.stat(out + "/bomb-1/core-fake-42.core").st_size, len(plain))
    check_equal(os.stat(out + "/bomb-1/core-fake-42.core").st_blocks, 0, "all of it is a hole")


@case
def a_core_of_another_size_than_was_said_is_no_file():
    plain = core_like(3, 1000, 1000)
    incident, _ = captured("lie-1", plain, size=len(plain) + 1)
    done, out = fetch(incident, "lie")
    check_equal(done.returncode, 3, done.stdout + done.stderr)
    check(not os.path.exists(out + "/lie-1/core-fake-42.core"), "no file")


@case
def options_reach_the_order_and_the_incident():
    agent = FakeAgent(c, "options-1").connect()
    done = sre.trawl("capture", "options-1", "--what", "core,stacks", "--pause-max", "2s", "--allow-pause", "--fallback", "-o",
                     "json")
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    order = agent.orders[-1]
    check_equal((list(order.what), order.pause_max_us, order.allow_pause, order.fallback, order.live),
                (["core", "stacks"], 2000000, True, True, False))
    incident = json.loads(done.stdout.splitlines()[-1])["incident"]
    shown = [p for p in sre.trawl_json("show", incident) if p["type"] == "incident"][0]
    check_equal((shown["pause_max_us"], shown["allow_pause"], shown["fallback"], shown["live"]), (2000000, True, True, False))
    # A second capture into the incident has its own options.
    done = sre.trawl("capture", "options-1", "--what", "core", "--live", "--into", incident)
    check_equal(done.returncode, 0, done.stdout + done.stderr)
    order = agent.orders[-1]
    check_equal((list(order.what), order.pause_max_us, order.allow_pause, order.fallback, order.live),
                (["core"], 50000, False, False, True))
    # And they survive the collector, like the order.
    agent.on_order = lambda a, o: None
    reply = sre.capture("options-1", what=["core"], fallback=True, into="")
    agent.disconnect()
    later = sre.capture("options-1", what=["profile"], into="")
    c.kill()
    c.start()
    for person in (sre, developer):
        person.reconnect()
    agent.connect()
    wait_for(lambda: any(o.incident == later.incident for o in agent.orders), "the order")
    order = [o for o in agent.orders if o.incident == later.incident][0]
    check_equal((list(order.what), order.for_us), (["profile"], 10000000))
    order = [o for o in agent.orders if o.incident == reply.incident][0]
    check_equal((list(order.what), order.fallback), (["core"], True))
    agent.channel.close()


if __name__ == "__main__":
    main()
