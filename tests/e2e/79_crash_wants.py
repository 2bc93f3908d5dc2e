#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A whole core because somebody asked for one (`trawl want G --what core`): the next crash of that group gives it, `trawl
fetch` brings it, and gdb sees the frames that it sees in a conventional core of the same crash. Once: not the crash before
it was asked for, not the one after, not twice while nobody has heard that it was given; not one of another build when a
build is named, nor is the wish used up by that or by a crash at another place."""
import glob
import os
import signal
import subprocess
import time

from exceptiontest import VICTIMS, CorePattern, Handler, Saver, gdb_core, read, write
from framestest import plain
from trawltest import TMP, Agent, Collector, Skip, case, check, check_equal, main, pb, wait_for

NAME = "exc-wanted"
BUILDS = {"a": "a1" * 20, "b": "b2" * 20}
c = Collector("--evidence-host-hour", "200", "--incidents-hour", "200")
sre = c.person("sre")
pattern = saver = handler = agent = None


def program(build):
    return os.path.join(TMP, build, NAME)


def spool(*words):
    return os.path.join(agent.directory, "state/crash", *words)


def crash(build="a", *arguments):
    p = subprocess.Popen([program(build), *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    check_equal(p.wait(60), -signal.SIGSEGV, "it ended by")
    return p.pid


def handlers():
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if read(path).split("\0")[:2] == [handler.program, "crash"]:
                found.append(path)
        except OSError:
            pass
    return found


def settled():
    """All that handlers have to do is done: the whole cores that lie there now."""
    wait_for(lambda: not handlers(), "the handlers have ended")
    return whole()


def whole():
    return glob.glob(spool("*.full.zst"))


def group_of(place):
    found = [g for g in sre.trawl_json("groups", "--last", "1h")
             if g["process"] == NAME and any(f["function"] == place for f in g["frames"])]
    check(len(found) <= 1, "%d groups of %s" % (len(found), place))
    return found[0] if found else None


def counted(place, count):
    return wait_for(lambda: (group_of(place) or {"count": 0})["count"] >= count and group_of(place),
                    "%d crashes in %s are counted" % (count, place), 40)


def want(group, count):
    sre.trawl("want", group, "--what", "core", "-n", str(count))


def wants():
    try:
        with open(spool("wants"), "rb") as f:
            return list(pb.Wants.FromString(f.read()).list)
    except OSError:
        return []


def cores():
    """The whole cores that the collector has: artifacts by the process they are of."""
    out = {}
    for incident in {i for place in ("serve", "settle") for i in (group_of(place) or {"incidents": []})["incidents"]}:
        for a in sre.artifacts(incident):
            if a.kind == "core" and a.sealed:
                out[a.pid] = (incident, a)
    return out


@case
def an_agent_with_a_crash_handler():
    global pattern, saver, handler, agent
    if os.geteuid():
        raise Skip("needs root")
    pattern, saver = CorePattern(), Saver()
    write("/proc/sys/kernel/core_pattern", saver.pattern)
    for build, build_id in BUILDS.items():
        os.mkdir(os.path.join(TMP, build))
        subprocess.run(["gcc", "-O1", "-g", "-Wl,--build-id=0x" + build_id, "-o", program(build), VICTIMS + "/loop.c"], check=True)
    agent = Agent(c, "web-1", role="web")
    agent.wait_online()
    handler = Handler(agent)


@case
def without_a_wish_there_is_no_whole_core():
    """The control."""
    crash()
    g = counted("serve", 1)
    wait_for(lambda: g["incidents"] or group_of("serve")["incidents"], "its incident")
    wait_for(lambda: any(a.kind == "crash" for a in sre.artifacts(group_of("serve")["incidents"][0])), "its evidence", 60)
    check_equal((settled(), cores()), ([], {}), "whole cores on the host, and at the collector")


@case
def the_next_crash_gives_a_core_that_gdb_reads():
    want(group_of("serve")["id"], 1)
    wait_for(wants, "the handler knows of the wish")
    check_equal([(w.process, w.left, list(w.what)) for w in wants()], [(NAME, 1, ["core"])])
    pid = crash()
    incident, artifact = wait_for(lambda: cores().get(pid), "its whole core at the collector", 60)
    check_equal(group_of("serve")["want_left"], 0, "wishes left")
    to = os.path.join(TMP, "fetched")
    sre.trawl("fetch", incident, "-o", to)
    paths = [p for p in glob.glob(to + "/**/*", recursive=True) if os.path.basename(p) == os.path.basename(artifact.file)]
    check(paths, "%s is not among what was fetched" % artifact.file)
    theirs, failed = gdb_core(program("a"), saver.core(pid))
    for path in paths:
        stacks, thread = gdb_core(program("a"), path)
        check_equal(thread, failed, "the thread that failed")
        check_equal([(f["pc"], plain(f["name"])) for f in stacks[thread]], [(f["pc"], plain(f["name"])) for f in theirs[failed]])
        check_equal(stacks[thread][0]["name"], "serve")
    print("      %d frames, %.1f MiB" % (len(theirs[failed]), artifact.size_bytes / (1 << 20)))
    # All of its memory, as the kernel gave it to the handler of before.
    check_equal(os.path.getsize(paths[0]), os.path.getsize(saver.core(pid)), "bytes of the core")


@case
def what_was_fetched_is_not_kept_on_the_host():
    wait_for(lambda: not settled(), "the whole core is gone from the host")


@case
def what_was_given_is_not_given_again():
    wait_for(lambda: not wants(), "the handler knows that the wish is granted")
    pid = crash()
    counted("serve", 3)
    check_equal(settled(), [])
    check(pid not in cores(), "a second core")


@case
def a_wish_is_granted_once_while_nobody_hears_of_it():
    """With the agent dead, nobody can tell the handler that the first crash has given what was wanted."""
    want(group_of("serve")["id"], 2)
    wait_for(lambda: [w.left for w in wants()] == [2], "the handler knows of the wish")
    agent.kill()
    for given in (1, 2, 2, 2):
        crash()
        check_equal(len(settled()), given, "whole cores")
    before = len(cores())
    agent.start()
    agent.wait_online()
    wait_for(lambda: len(cores()) == before + 2, "both at the collector", 60)
    counted("serve", 7)
    check_equal(group_of("serve")["want_left"], 0, "wishes left")
    crash()
    counted("serve", 8)
    check_equal((len(settled()), len(cores())), (0, before + 2), "one more crash: cores here and there")


@case
def a_crash_at_another_place_does_not_use_it_up():
    crash("a", "other")
    counted("settle", 1)
    want(group_of("serve")["id"], 1)
    wait_for(lambda: [w.left for w in wants()] == [1], "the handler knows of the wish")
    agent.kill()
    crash("a", "other")  # of the same program, by the same signal: only the collector knows that it is another group
    settled()
    pid = crash()
    settled()
    agent.start()
    agent.wait_online()
    wait_for(lambda: cores().get(pid), "the core of the group that was meant", 60)
    check_equal(group_of("serve")["want_left"], 0, "wishes left")


@case
def only_the_build_that_is_named_gives_it():
    wait_for(lambda: not wants(), "no wish is left")
    agent.kill()
    for path in whole():
        os.remove(path)
    wish = pb.Want(group="G-BUILD", source=pb.CRASH, type="SIGSEGV", process=NAME, what=["core"], left=1, asked_us=1,
                   build_id=bytes.fromhex(BUILDS["b"]))
    with open(spool("wants"), "wb") as f:
        f.write(pb.Wants(list=[wish]).SerializeToString())
    for build, given in (("a", 0), ("a", 0), ("b", 1), ("b", 1), ("a", 1)):
        crash(build)
        check_equal(len(settled()), given, "whole cores after a crash of build %s" % build)
    wish.build_id, wish.group = b"", "G-ANY"  # the control: without a build, build a gives it as well
    with open(spool("wants"), "wb") as f:
        f.write(pb.Wants(list=[wish]).SerializeToString())
    crash("a")
    check_equal(len(settled()), 2, "whole cores after a wish without a build")
    agent.start()
    agent.wait_online()


@case
def the_core_pattern_is_as_it_was():
    handler.remove()
    check_equal(read("/proc/sys/kernel/core_pattern").strip(), saver.pattern, "core pattern after removal")
    pattern.put_back()


main()
