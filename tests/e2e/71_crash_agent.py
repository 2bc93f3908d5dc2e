#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An agent with the setting crash-handler: puts the handler there, tells of a crash, leaves the handler in place when it is
killed, takes it over, and puts the core pattern back when it stops in order."""
import atexit
import fcntl
import glob
import os
import shutil
import subprocess

import trawltest
from trawltest import Agent, Collector, case, check, check_equal, main, wait_for

if os.geteuid() != 0:
    print("skip all: only root can change the core pattern\n0 passed, 0 failed, 1 skipped")
    raise SystemExit(0)
lock = open("/run/lock/trawl-core-pattern.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
PATTERN = "/proc/sys/kernel/core_pattern"
before = open(PATTERN).read()
ROOT = "/var/lib/trawl-e2e-%d" % os.getpid()  # only root can write there, unlike /tmp
os.mkdir(ROOT, 0o755)
for name in glob.glob(trawltest.BIN + "/trawl*"):
    shutil.copy2(name, ROOT)
trawltest.BIN = ROOT


def pattern():
    return open(PATTERN).read()


@atexit.register
def put_back():
    with open(PATTERN, "w") as f:
        f.write(before)
    shutil.rmtree(ROOT, ignore_errors=True)


@case
def the_setting_puts_it_there_and_takes_it_out():
    agent = Agent(Collector(), "web-1", "--crash-handler", "--crash-file", ROOT + "/handler")
    spool = agent.directory + "/state/crash"
    wait_for(lambda: os.path.exists(spool + "/table"), "the spool")
    wait_for(lambda: "trawl-agent crash" in pattern(), "the handler in the core pattern")
    subprocess.run(["python3", "-c", "import os; os.abort()"])
    wait_for(lambda: glob.glob(spool + "/*.told"), "the crash to be told", 20)
    agent.kill()
    check("trawl-agent crash" in pattern(), "it stays when the agent is killed")
    subprocess.run(["python3", "-c", "import os; os.kill(os.getpid(), 11)"])
    wait_for(lambda: glob.glob(spool + "/*.pb"), "a record without an agent", 20)
    agent.start()
    wait_for(lambda: len(glob.glob(spool + "/*.told")) == 2, "that one to be told, too", 20)
    agent.stop()
    wait_for(lambda: pattern() == before, "the pattern of before")


main()
