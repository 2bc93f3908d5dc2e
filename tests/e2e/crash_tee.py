# SPDX-License-Identifier: Apache-2.0
"""A crash handler of the scenario 71_crash_frames: keeps the kernel's core whole as DIR/core-PID, and gives its beginning to
bench_crash, which takes what it needs while the kernel still waits for us. `crash_tee.py BENCH_CRASH DIR SPECIFIER...`."""
import os
import subprocess
import sys

bench, folder, pid = sys.argv[1], sys.argv[2], sys.argv[3]
handler = subprocess.Popen([bench, folder, *sys.argv[3:]], stdin=subprocess.PIPE, close_fds=True)
wants = True
with open("%s/core-%s" % (folder, pid), "wb") as core:
    while True:
        piece = os.read(0, 65536)
        if not piece:
            break
        core.write(piece)
        try:
            if wants:
                handler.stdin.write(piece)
                handler.stdin.flush()
        except OSError:  # it has let go
            wants = False
try:
    handler.stdin.close()
except OSError:
    pass
code = handler.wait()
with open("%s/over-%s.part" % (folder, pid), "w") as over:
    over.write("%d\n" % code)
os.rename("%s/over-%s.part" % (folder, pid), "%s/over-%s" % (folder, pid))
