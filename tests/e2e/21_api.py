#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The example of docs/api.md does what it says, as it stands there."""
import os
import re
import subprocess

from trawltest import SOURCE, TMP, Collector, FakeAgent, case, check, check_equal, main

c = Collector()


@case
def the_python_example_of_the_documentation_works():
    with open(SOURCE + "/docs/api.md") as f:
        example = re.search(r"```python\n(.*?)```", f.read(), re.S).group(1)
    agents = [FakeAgent(c, "api-%d" % i, role="api").connect() for i in range(2)]
    program = os.path.join(TMP, "example.py")
    with open(program, "w") as f:
        f.write(example)
    done = subprocess.run(["/usr/bin/python3", program, c.context("sre"), "127.0.0.1:%d" % c.port, "role=api"],
                          capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, PYTHONPATH=TMP + "/py"))
    check_equal(done.returncode, 0, done.stderr)
    for wanted in ["host api-0 ONLINE", "host api-1 ONLINE", "target api-1 DONE", "fetched api-0 stacks-fake-1.txt"]:
        check(wanted in done.stdout, "%r in %s" % (wanted, done.stdout))
    for agent in agents:
        agent.disconnect()


main()
