# SPDX-License-Identifier: Apache-2.0
"""What captures cost the process that is captured, side by side with the tools that are there: gcore, gdb's backtrace of all
threads, eu-stack. In one run, on one machine, each of them and each of Trawl's kinds on the same victim (tests/victims/beat.c):
memory of 64 MiB, 1 GiB and 4 GiB, 4, 200 and 1,000 threads, and 4 GiB of huge pages.

    cmake --build build/release && BUILD_DIR=build/release /usr/bin/python3 tests/bench/capture/run.py [--quick]

For each: the longest pause that a thread inside sees ("inside": it wakes every 50 us and writes a page), the longest round trip
of a TCP client ("client"), the pause that Trawl itself reports ("said"), wall time, CPU time, resident memory and artifact size:
medians of --runs captures; then the ratios. "nothing" is the same measured while nobody captures: the noise of this machine,
below which no figure means anything. Nothing here passes or fails: ratios are what counts, on a machine that is left alone.
Artifacts are written to --dir and removed at once; 4 GiB need as much room there (a tmpfs counts as memory)."""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "e2e"))
from victimtest import BUILD, KINDS, OPTIONS, TAKE, TMP, Victim, at_end, known, parse_take, start  # noqa: E402

COST = os.path.join(BUILD, "bench", "bench_capture_cost")
ECHO_CLIENT = os.path.join(BUILD, "bench", "bench_capture_echo_client")
SETTLE_S = 0.3  # so long the victim is left alone before each capture
NOTHING_S = 0.5
COLUMNS = ("inside_ms", "client_ms", "said_ms", "wall_ms", "cpu_ms", "rss_mib", "size_mib")
TITLES = ("inside ms", "client ms", "said ms", "wall ms", "cpu ms", "rss MiB", "size MiB")
# Trawl's kind, and the tool that somebody would use instead.
RATIOS = (("core", "gcore"), ("core --live", "gcore"), ("mini", "gcore"), ("stacks", "gdb bt"), ("stacks", "eu-stack"),
          ("stacks0", "eu-stack"))


def arguments():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--runs", type=int, default=5, help="captures of each kind, of which the median is shown (5)")
    words.add_argument("--mib", type=int, nargs="+", default=[64, 1024, 4096], help="sizes of the victim (64 1024 4096)")
    words.add_argument("--threads", type=int, nargs="+", default=[4, 200, 1000], help="its threads (4 200 1000)")
    words.add_argument("--no-huge", action="store_true", help="leave out the largest size with huge pages")
    words.add_argument("--half", action="store_true", help="half of the memory is zeros (default: pseudo-random)")
    words.add_argument("--realtime", action="store_true",
                       help="what measures runs before everything else: only true stops count, on a machine that is not quiet")
    words.add_argument("--quick", action="store_true", help="64 MiB and 256 MiB, 4 and 200 threads, 3 runs, no huge pages")
    words.add_argument("--only", nargs="+", metavar="WHAT", help="only these (names as in the table)")
    words.add_argument("--dir", default=TMP, help="where artifacts are written (a temporary directory)")
    words.add_argument("--json", metavar="FILE", help="write all single figures there, one object a line")
    chosen = words.parse_args()
    if chosen.quick:
        chosen.mib, chosen.threads, chosen.runs, chosen.no_huge = [64, 256], [4, 200], 3, True
    return chosen


class Asked:
    """A program that answers a line with numbers."""

    def __init__(self, *command):
        self.process = start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError("%s did not begin" % command[0])

    def ask(self):
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return [int(w) for w in self.process.stdout.readline().split()]

    def end(self):
        self.process.kill()
        self.process.wait()


def tools(pid, folder):
    """name -> (command, whether its answer is bench_take's)"""
    found = {"nothing": (["sleep", str(NOTHING_S)], False)}
    for kind in KINDS:
        if kind not in ("logs", "net") and known(kind):
            found[kind] = ([TAKE, kind, str(pid), "-o", folder, "--nice"] + OPTIONS.get(kind, []), True)
    if known("core"):
        found["core --live"] = ([TAKE, "core", str(pid), "-o", folder, "--nice", "--live"], True)
    if shutil.which("gcore"):
        found["gcore"] = (["gcore", "-o", os.path.join(folder, "gcore"), str(pid)], False)
    if shutil.which("gdb"):
        found["gdb bt"] = (["gdb", "-nx", "-batch", "-p", str(pid), "-ex", "thread apply all bt"], False)
    if shutil.which("eu-stack"):
        found["eu-stack"] = (["eu-stack", "-p", str(pid)], False)
    return found


def empty(folder, but=()):
    """Removes what a tool wrote; says how many bytes it takes on the disk."""
    total = 0
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        total += 0 if name in but else os.stat(path).st_blocks * 512
        os.unlink(path)
    return total


def text_of(folder, name):
    with open(os.path.join(folder, name), errors="replace") as f:
        return f.read()


def measure(victim, client, command, is_ours, folder):
    """One capture; its figures, or what it said when it could not."""
    time.sleep(SETTLE_S)
    victim.ask()
    client.ask()
    with open(os.path.join(folder, "stdout"), "w") as out, open(os.path.join(folder, "stderr"), "w") as errors:
        subprocess.run([COST, os.path.join(folder, "cost")] + command, stdout=out, stderr=errors, check=True,
                       env=dict(os.environ, DEBUGINFOD_URLS=""))
    time.sleep(0.02)  # the beat and the round trip that met its end
    inside, client_us = int(victim.ask().split()[0]), client.ask()[0]
    wall, cpu, rss, code = map(int, text_of(folder, "cost").split())
    answer = parse_take(text_of(folder, "stdout"), text_of(folder, "stderr"), code) if is_ours else {"error": "", "text": ""}
    size = empty(folder, ("cost", "stdout", "stderr") if is_ours else ("cost",))
    if answer["error"]:
        return answer["text"]
    if code:
        return "exit code %d" % code
    return {"inside_ms": inside / 1000, "client_ms": client_us / 1000, "said_ms": answer["pause_us"] / 1000 if is_ours else None,
            "wall_ms": wall / 1000, "cpu_ms": cpu / 1000, "rss_mib": rss / 1024, "size_mib": size / (1 << 20)}


def middle(runs):
    return {c: statistics.median(r[c] for r in runs) if runs[0][c] is not None else None for c in COLUMNS}


def show(name, figures, count):
    cells = "".join("%11s" % ("" if figures[c] is None else "%.2f" % figures[c]) for c in COLUMNS)
    print("  %-12s%s%s" % (name, cells, "" if count is None else "   (%d of the runs)" % count), flush=True)


def ratios(table):
    for ours, theirs in RATIOS:
        if ours in table and theirs in table:
            a, b = table[ours], table[theirs]
            print("  %-12s: %-10s pause 1 : %-8.1f client 1 : %-8.1f wall 1 : %-8.1f cpu 1 : %-8.1f rss 1 : %-8.1f size 1 : %.1f"
                  % ((ours, theirs) + tuple(b[c] / max(a[c], 0.001) for c in COLUMNS if c != "said_ms")))


def one_victim(chosen, mib, threads, huge, log):
    options = ["--mib", str(mib), "--threads", str(threads)] + (["--huge"] if huge else []) + (["--half"] if chosen.half else [])
    if chosen.realtime:
        options.append("--realtime")
    victim = Victim("beat", *options)
    client = Asked(*(["chrt", "-f", "1"] if chosen.realtime else []), ECHO_CLIENT, victim.ready[0])
    folder = os.path.join(chosen.dir, "trawl-bench-%d" % os.getpid())
    os.makedirs(folder, exist_ok=True)
    at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    print("\n%d MiB%s, %d threads%s" % (mib, " of huge pages" if huge else "", threads, " " * 6) +
          "\n  %-12s%s" % ("", "".join("%11s" % t for t in TITLES)))
    table = {}
    for name, (command, is_ours) in tools(victim.pid, folder).items():
        if chosen.only and name not in chosen.only and name != "nothing":
            continue
        results = [measure(victim, client, command, is_ours, folder) for _ in range(chosen.runs)]
        good = [r for r in results if isinstance(r, dict)]
        for r in good:
            if log:
                log.write(json.dumps(dict(r, what=name, mib=mib, threads=threads, huge=huge)) + "\n")
        if good:
            table[name] = middle(good)
            show(name, table[name], None if len(good) == len(results) else len(good))
        else:
            print("  %-12s  %s" % (name, results[0]), flush=True)
    ratios(table)
    client.end()
    victim.end()


def main():
    chosen = arguments()
    with open("/proc/loadavg") as f:
        load = f.read().split()[0]
    print("%d processors, load %s, Linux %s, medians of %d" % (os.cpu_count(), load, os.uname().release, chosen.runs))
    if float(load) > 0.5 and not chosen.realtime:
        print("this machine is not quiet: look at 'nothing' first, or use --realtime")
    log = open(chosen.json, "w") if chosen.json else None
    for mib in chosen.mib:
        for threads in chosen.threads:
            one_victim(chosen, mib, threads, False, log)
    if not chosen.no_huge:
        one_victim(chosen, max(chosen.mib), min(chosen.threads), True, log)
    if log:
        log.close()


main()
