#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Data directories and settings that are wrong: each a sentence with the remedy and its own exit code, nothing half-made
left behind, nothing that was stored lost, nothing wrong served."""
import os
import shutil
import subprocess

import grpc

from trawltest import BIN, TMP, Collector, FakeAgent, Skip, case, check, check_equal, main, pb, wait_for

c = Collector()
agent = FakeAgent(c, "data-1").connect()
reply = c.person("sre").capture("data-1")
wait_for(lambda: c.person("sre").targets(reply.incident)["data-1"].state == pb.DONE, "a capture to keep")
check_equal(c.stop(), 0)


def copy(name):
    out = os.path.join(TMP, name)
    shutil.copytree(c.directory, out)
    return out


def run(directory, *more):
    return subprocess.run([BIN + "/trawl-collector", "run", "--data", directory, "--listen", "127.0.0.1", "--port", "1"] +
                          list(more), capture_output=True, text=True, timeout=30)


def refused(done, code, *words):
    check_equal(done.returncode, code, done.stderr)
    last = done.stderr.strip().splitlines()[-1]
    for word in words:
        check(word in last, "%r in %r" % (word, last))


@case
def no_data_directory():
    refused(run(os.path.join(TMP, "nowhere")), 1, "trawl-collector init")


@case
def an_init_that_would_overwrite():
    before = sorted(os.listdir(c.directory))
    done = subprocess.run([BIN + "/trawl-collector", "init", c.directory], capture_output=True, text=True)
    refused(done, 12, "nothing was changed")
    check_equal(sorted(os.listdir(c.directory)), before)


@case
def a_directory_of_a_newer_version():
    directory = copy("newer")
    path = directory + "/store/trawl-store"
    with open(path) as f:
        text = f.read()
    check("1" in text, text)
    with open(path, "w") as f:
        f.write(text.replace("1", "999", 1))
    refused(run(directory), 19, "version")


@case
def a_store_of_another_fleet():
    directory = copy("mixed")
    other = os.path.join(TMP, "other")
    c.run("init", other, "--fleet", "other")
    shutil.rmtree(directory + "/store")
    shutil.copytree(other + "/store", directory + "/store")
    refused(run(directory), 27, "fleet")


@case
def a_database_that_was_cut_off():
    directory = copy("cut")
    path = directory + "/store/records/data.mdb"
    os.truncate(path, os.path.getsize(path) // 2)
    refused(run(directory), 16, "data.mdb")


@case
def a_database_full_of_zeros():
    directory = copy("zero")
    path = directory + "/store/records/data.mdb"
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        f.write(b"\0" * size)
    refused(run(directory), 16, "data.mdb")


@case
def the_undamaged_copy_still_serves_everything():
    """Positive control of the cases above: the same copy without damage."""
    kept = Collector.__new__(Collector)
    kept.__dict__.update(c.__dict__)
    kept.directory, kept.log, kept.contexts = copy("kept"), os.path.join(TMP, "kept.log"), {}
    kept.start()
    sre = kept.person("sre")
    check_equal(sre.targets(reply.incident)["data-1"].state, pb.DONE)
    check_equal(sre.fetch(reply.incident, "data-1", 1), b"evidence of data-1")
    check_equal(kept.stop(), 0)


@case
def flipped_bytes_are_never_served_as_evidence():
    directory = copy("flip")
    path = directory + "/store/pieces/data.mdb"
    with open(path, "rb") as f:
        data = f.read()
    at = data.find(b"evidence of data-1")
    check(at > 0, "the artifact's bytes are in the file")
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(b"X")
    flipped = Collector.__new__(Collector)
    flipped.__dict__.update(c.__dict__)
    flipped.directory, flipped.log, flipped.contexts = directory, os.path.join(TMP, "flip.log"), {}
    flipped.start()
    try:
        flipped.person("sre").fetch(reply.incident, "data-1", 1)
        check(False, "damaged evidence was served")
    except grpc.RpcError as e:
        check_equal(e.code(), grpc.StatusCode.DATA_LOSS, e.details())
    check_equal(flipped.stop(), 0)


@case
def a_full_disk_at_init_leaves_nothing_behind():
    place = os.path.join(TMP, "small")
    os.makedirs(place)
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place]).returncode:
        raise Skip("needs root to mount a small tmpfs")
    try:
        done = subprocess.run([BIN + "/trawl-collector", "init", place + "/data"], capture_output=True, text=True)
        refused(done, 20, "space")
        check_equal(os.listdir(place), [])
    finally:
        subprocess.run(["umount", place], check=True)


@case
def settings_that_do_not_exist():
    directory = copy("settings")
    with open(directory + "/collector.conf", "w") as f:
        f.write("# fine\nport = 7443\ngroup-tiem = 5ms\n")
    refused(run(directory), 2, "group-tiem", "collector.conf:3", "group-time")
    refused(run(directory, "--prot", "7"), 2, "--prot", "--port")
    refused(run(directory, "--port", "70000"), 2, "70000")
    refused(run(directory, "--group-time", "5"), 2, "5")


main()
