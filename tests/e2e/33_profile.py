# SPDX-License-Identifier: Apache-2.0
"""Profiles opened by others' tools and compared with them: go's pprof, perf, an XML parser; code that is loaded while the
profile runs; what a process that is profiled notices; what an ordinary user may see. BUILD_DIR names the build folder.
Ends only what it started, by pid."""
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

from victimtest import TAKE, TMP, Victim, end, finish, possible, report, run, say, start, start_ready, victim_path, wait_for

ROUNDS = 5

PROGRAM = r"""
#include <cstdint>
#include <vector>
static volatile uint64_t sink;
namespace app {
template <typename T> __attribute__((noinline)) void burn(T units) {
    for (T i = 0; i < units * 1000; i++) sink = sink * 6364136223846793005u + 1;
}
struct Engine {
    __attribute__((noinline)) void spin(int n) { step(n); sink++; }
    inline __attribute__((always_inline)) void step(int n) { burn<long>(n); sink++; }
};
}
int main() { app::Engine e; for (;;) e.spin(10); }
"""

PLUGIN = r"""
#include <stdint.h>
static volatile uint64_t sink;
void plugin_burn(int units) { for (int64_t i = 0; i < units * 1000L; i++) sink = sink * 6364136223846793005u + 1; }
"""

# Loads the plugin when told to, burns in it for ever.
HOST = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <sys/prctl.h>
int main(int argc, char **argv) {
    char line[8];
    prctl(1, 9);
    puts("ready"); fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;
    void *plugin = dlopen(argv[1], RTLD_NOW);
    void (*burn)(int) = plugin ? (void (*)(int))dlsym(plugin, "plugin_burn") : 0;
    if (!burn) return 2;
    for (;;) burn(10);
}
"""


# The least of a document that the script of a flame graph asks for: clicks on a frame, searches, goes back.
DOCUMENT = r"""
const text = require('fs').readFileSync(process.argv[2], 'utf8');
const script = text.match(/<!\[CDATA\[([\s\S]*)\]\]>/)[1], named = {};
function Element(attributes) {
    this.attributes = attributes || {}; this.style = {}; this.heard = {};
    this.classList = {remove() {}, toggle() {}};
}
Element.prototype = {
    getAttribute(k) { return this.attributes[k]; }, setAttribute(k, v) { this.attributes[k] = v; },
    addEventListener(e, f) { this.heard[e] = f; }, querySelector(q) { return this[q]; }};
for (const id of ['reset', 'search', 'found', 'details', 'frames']) named[id] = new Element();
const row = /<g><title>([^<]*)<\/title><rect x="([\d.]+)" y="(\d+)" width="([\d.]+)" height="\d+" fill="([^"]+)"\/>/g;
named.frames.children = [...text.matchAll(row)].map(m => {
    const g = new Element();
    g.title = {textContent: m[1]}; g.text = new Element();
    g.rect = new Element({x: m[2], y: m[3], width: m[4], fill: m[5]});
    return g;
});
global.document = {getElementById: id => named[id]};
global.window = {prompt: () => 'hot_first'};
eval(script);
const all = named.frames.children, first = all.find(g => g.title.textContent.startsWith('hot_first ('));
const before = first.rect.attributes.width;
first.rect.heard.click();
const zoomed = first.rect.attributes.width, hidden = all.filter(g => g.style.display === 'none').length;
named.search.heard.click();
const found = named.found.textContent;
named.search.heard.click();
named.reset.heard.click();
console.log(JSON.stringify({before, zoomed, hidden, found, after: first.rect.attributes.width,
                            left: all.filter(g => g.style.display === 'none').length}));
"""


def take(pid, seconds=2.0, nice=False, during=None):
    """The result, and the folder with the files."""
    folder = tempfile.mkdtemp(dir=TMP)
    command = [TAKE, "profile", str(pid), "-o", folder, "--for", "%dms" % (1000 * seconds)] + ["--nice"] * nice
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        if during:
            during()
        return json.loads(run.communicate()[0]), folder


def read(folder, ending, binary=False):
    try:
        with open(os.path.join(folder, "profile." + ending), "rb" if binary else "r") as f:
            return f.read()
    except FileNotFoundError:
        return b"" if binary else ""


def folded(folder, ending="folded"):
    """[(names, weight)], outermost first."""
    lines = [line.rsplit(" ", 1) for line in read(folder, ending).splitlines()]
    return [(names.split(";"), int(weight)) for names, weight in lines]


def share(stacks, wanted):
    total = sum(weight for _, weight in stacks)
    return sum(weight for names, weight in stacks if wanted in names) / max(1, total)


def spread(samples, sides=1):
    """Four standard deviations of a share of 0.7, in percent points."""
    return 400 * (sides * 0.21 / max(1, samples)) ** 0.5


def take_enough(pid):
    """For longer and longer, until there are samples enough: others use the processors too."""
    for seconds in 3, 6, 12:
        _, folder = take(pid, seconds)
        samples = sum(weight for _, weight in folded(folder))
        if samples >= 150:
            break
    return folder, samples


def pprof(folder, *more):
    """Function -> (flat percent, cumulated percent)."""
    run = subprocess.run(["go", "tool", "pprof", "-top", *more, os.path.join(folder, "profile.pb.gz")], capture_output=True,
                         text=True, env=dict(os.environ, PPROF_TMPDIR=TMP, HOME=TMP))
    found = {}
    for line in run.stdout.splitlines():
        row = re.match(r"\s*\S+\s+([\d.]+)%\s+[\d.]+%\s+\S+\s+([\d.]+)%\s+(.*)$", line)
        if row:
            found[re.sub(r" \(inline\)$", "", row.group(3))] = (float(row.group(1)), float(row.group(2)))
    return found, run.stdout + run.stderr


def opens_in_pprof():
    process = Victim("busy", "ratio", "70")
    folder, samples = take_enough(process.pid)
    process.end()
    stacks = folded(folder)
    reacts(folder)
    if not shutil.which("go"):
        report("go's pprof opens it", "needs golang-go", skip=True)
        return
    top, text = pprof(folder)
    first, second = (top.get(name, (0, 0))[1] for name in ("hot_first", "hot_second"))  # with interrupts in them
    problem = ""
    if abs(first - 70) > 3 + spread(samples) or abs(second - 30) > 3 + spread(samples):
        problem = "hot_first %s, hot_second %s, not 70 and 30: %s" % (first, second, text)
    elif abs(first / 100 - share(stacks, "hot_first")) > 0.01:
        problem = "%s %%, but %.3f in folded" % (first, share(stacks, "hot_first"))
    report("go's pprof opens it: hot_first %.1f %%, hot_second %.1f %% of %d samples" % (first, second, samples), problem)
    lines, _ = pprof(folder, "-lines")
    report("it shows source lines", "" if any("busy.c:" in name for name in lines) else str(lines))
    asleep = Victim("busy", "waits", "10")
    _, folder = take(asleep.pid)
    asleep.end()
    top, text = pprof(folder, "-sample_index=off")
    report("it shows waits", "" if top.get("cold_poll", (0, 0))[1] > 50 else text)


def agrees_with_perf():
    name = "perf record --call-graph dwarf finds the same functions"
    if not shutil.which("perf"):
        report(name, "needs linux-perf", skip=True)
        return
    process = Victim("busy", "ratio", "70")
    data = os.path.join(TMP, "perf.data")
    perf = start("perf", "record", "-q", "-e", "cpu-clock", "-F", "99", "--call-graph", "dwarf", "-o", data, "-p",
                 str(process.pid), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder, samples = take_enough(process.pid)
    perf.send_signal(signal.SIGINT)
    perf.wait()
    process.end()
    out = subprocess.run(["perf", "report", "-i", data, "--no-children", "-g", "none", "-F", "overhead,sym", "--stdio"],
                         capture_output=True, text=True).stdout
    theirs = {m.group(2): float(m.group(1)) for m in re.finditer(r"([\d.]+)%\s+\[.\] (\S+)", out)}
    # What interrupts take is named apart by perf, and stands in the function here: the two of them are compared.
    stacks, names = folded(folder), ("hot_first", "hot_second")
    here, there = [share(stacks, n) for n in names], [theirs.get(n, 0) for n in names]
    ours, others = (100 * pair[0] / max(1e-9, sum(pair)) for pair in (here, there))
    problem = "" if there[0] > there[1] > 0 and abs(ours - others) <= 3 + spread(samples, 2) else "%s %s" % (theirs, here)
    report("%s: %.1f %% there, %.1f %% here" % (name, others, ours), problem)


def compiled(name, compiler, text, *more):
    source = os.path.join(TMP, name + (".cc" if compiler == "g++" else ".c"))
    program = os.path.join(TMP, name)
    with open(source, "w") as f:
        f.write(text)
    subprocess.run([compiler, "-O2", "-g", "-o", program, source, *more], check=True)
    return program


def shows_cpp():
    if not shutil.which("g++") or not shutil.which("go"):
        report("C++ names and inlined functions", "needs g++ and golang-go", skip=True)
        return
    process = start(compiled("engine", "g++", PROGRAM))
    time.sleep(0.2)
    _, folder = take(process.pid)
    end(process)
    found = {}
    for names, weight in folded(folder):
        key = ";".join(n for n in names if n.startswith(("main", "_ZN3app")))
        found[key] = found.get(key, 0) + weight
    best = max(found, key=found.get) if found else ""
    wanted = "main;_ZN3app6Engine4spinEi;_ZN3app6Engine4stepEi;_ZN3app4burnIlEEvT_"
    report("C++: inlined functions have frames", "" if best == wanted else str(found))
    top, text = pprof(folder)
    names = " ".join(top)
    report("C++: pprof shows names as they were written", "" if "app::burn" in names and "app::Engine" in names else text)


def follows_late_code():
    if not shutil.which("cc"):
        report("code that is loaded meanwhile has names", "needs cc", skip=True)
        return
    plugin = compiled("plugin.so", "cc", PLUGIN, "-shared", "-fPIC")
    process = start_ready(compiled("host", "cc", HOST, "-ldl"), plugin)

    def load():
        time.sleep(0.7)
        process.stdin.write("?\n")
        process.stdin.flush()

    result, folder = take(process.pid, 3, during=load)
    end(process)
    got = share(folded(folder), "plugin_burn")
    report("code that is loaded meanwhile has names: %.0f %%" % (100 * got), "" if got > 0.6 else read(folder, "folded"))


def draws():
    process = Victim("threads", "20", "1")
    _, folder = take(process.pid)
    process.end()
    for ending in "svg", "off.svg":
        text = read(folder, ending, binary=True)
        try:
            root = xml.etree.ElementTree.fromstring(text)
            frames = len(root.findall(".//{http://www.w3.org/2000/svg}rect"))
            outside = re.findall(rb"(?:href|src|url)\s*[=(]", text)
            problem = "" if frames > 5 and not outside else "%d frames, %s" % (frames, outside)
        except xml.etree.ElementTree.ParseError as e:
            problem = str(e)
        report(ending + " is XML without references", problem)


def reacts(folder):
    if not shutil.which("node"):
        report("the flame graph can be zoomed and searched", "needs node", skip=True)
        return
    program = os.path.join(TMP, "document.js")
    with open(program, "w") as f:
        f.write(DOCUMENT)
    run = subprocess.run(["node", program, os.path.join(folder, "profile.svg")], capture_output=True, text=True)
    got = json.loads(run.stdout) if run.stdout else {}
    wide = 100 * float(got.get("before", 0)) / 1180
    good = (got and got["zoomed"] == 1180 and got["hidden"] > 0 and float(got["after"]) == float(got["before"])
            and got["left"] == 0 and abs(float(re.search(r"([\d.]+)%", got["found"]).group(1)) - wide) < 1)
    report("the flame graph can be zoomed and searched", "" if good else run.stdout + run.stderr)


def gdb_looks(pid):
    subprocess.run(["gdb", "-nx", "-batch", "-p", str(pid), "-ex", "thread apply all bt"], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, env=dict(os.environ, DEBUGINFOD_URLS=""))


def stops_nothing():
    """The longest gap of a thread that always runs, in each of some rounds; the least of them, for others use the processors."""
    process = Victim("threads", "8", "1")
    gaps = {"quiet": [], "profile": [], "gdb": []}
    for _ in range(ROUNDS):
        for what in gaps:
            process.ask()
            if what == "quiet":
                time.sleep(1)
            elif what == "profile":
                take(process.pid, 1, nice=True)
            elif shutil.which("gdb"):
                gdb_looks(process.pid)
            gaps[what].append(int(process.ask()))
    process.end()
    say("longest gaps, us: " + "; ".join("%s %s" % (what, sorted(all_)) for what, all_ in gaps.items()))
    limit = 3 * min(gaps["quiet"]) + 10000
    least = min(gaps["profile"])
    report("a profile stops nothing: gap of %.1f ms, limit %.1f ms" % (least / 1000, limit / 1000),
           "" if least <= limit else "longer")
    if shutil.which("gdb"):
        report("and a stop would be noticed: gdb's %.1f ms" % (min(gaps["gdb"]) / 1000),
               "" if min(gaps["gdb"]) > limit else "not over %.1f ms" % (limit / 1000))


def redis_requests(path):
    out = subprocess.run(["redis-cli", "-s", path, "info", "stats"], capture_output=True, text=True).stdout
    return int(re.search(r"total_commands_processed:(\d+)", out).group(1))


def cpu_seconds(pid):
    with open("/proc/%d/schedstat" % pid) as f:
        return int(f.read().split()[0]) / 1e9


def costs_redis_little():
    if not shutil.which("redis-server") or not shutil.which("redis-benchmark"):
        report("redis-server under load", "needs redis", skip=True)
        return
    path = os.path.join(TMP, "redis.sock")
    redis = start("redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", TMP, "--appendonly", "no",
                  stdout=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(path), "redis-server")
    load = start("redis-benchmark", "-s", path, "-t", "get", "-n", "100000000", "-c", "20", "-q", stdout=subprocess.DEVNULL,
                 stderr=subprocess.PIPE)
    rates, costs, worker = {"without": [], "with": []}, {"without": [], "with": []}, []
    for _ in range(ROUNDS):
        for what, all_ in rates.items():
            before, began, spent = redis_requests(path), time.monotonic(), cpu_seconds(redis.pid)
            if what == "with":
                result, folder = take(redis.pid, 2, nice=True)
                worker.append(result["cpu_us"] / result["wall_us"])
            else:
                time.sleep(2)
            spent, requests = cpu_seconds(redis.pid) - spent, redis_requests(path) - before
            all_.append(requests / (time.monotonic() - began))
            costs[what].append(1e6 * spent / max(1, requests))
    running = load.poll() is None
    mine = {what: statistics.median(all_) for what, all_ in costs.items()}
    end(load)
    tracer = re.search(r"TracerPid:\s+(\d+)", open("/proc/%d/status" % redis.pid).read()).group(1)
    end(redis)
    medians = {what: statistics.median(all_) for what, all_ in rates.items()}
    say("requests/s, median of %d: %.0f without, %.0f with (%.1f %%); worker %.1f %% of a processor, %d KiB"
        % (ROUNDS, medians["without"], medians["with"], 100 * medians["with"] / medians["without"],
           100 * statistics.median(worker), result["rss_kib"]))
    say("redis-server's own CPU time a request: %.2f us without, %.2f us with (%+.1f %%)"
        % (mine["without"], mine["with"], 100 * (mine["with"] / mine["without"] - 1)))
    top = max(folded(folder), key=lambda stack: stack[1])[0] if folded(folder) else []
    report("redis-server under load loses no client, and its stacks begin in main",
           "" if running and tracer == "0" and "main" in top else "%s %s %s" % (running, tracer, top))


def ordinary_user():
    """Own processes without the kernel's part; nobody else's at all."""
    setpriv = shutil.which("setpriv")
    if not setpriv:
        report("an ordinary user", "needs setpriv", skip=True)
        return
    as_nobody = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    os.chmod(TMP, 0o755)
    copy = shutil.copy(TAKE, os.path.join(TMP, "take"))
    busy = shutil.copy(victim_path("busy"), os.path.join(TMP, "busy"))
    own = start_ready(*as_nobody, busy, "ratio", "70")
    others = Victim("busy", "waits", "10")
    answers = []
    for pid in own.pid, others.pid:
        run = subprocess.run(as_nobody + [copy, "profile", str(pid), "--for", "1s"], capture_output=True, text=True)
        answers.append(json.loads(run.stdout))
    end(own)
    others.end()
    missing = answers[0]["missing"]
    report("an ordinary user sees its own process, without the kernel or from outside",
           "" if not answers[0]["error"] and ("CAP_PERFMON" in missing or may_see_kernel()) else str(answers[0]))
    report("an ordinary user is denied another's process", "" if answers[1]["error"] == "ERR_DENIED" else str(answers[1]))


def may_see_kernel():
    with open("/proc/sys/kernel/perf_event_paranoid") as f:
        return int(f.read()) < 2


def can_profile():
    process = Victim("busy", "ratio", "50")
    result, _ = take(process.pid, 0.3)
    process.end()
    if "perf events" in result["missing"] or result["error"]:
        report("profile", "perf events: " + result["missing"] + result["text"], skip=True)
        return False
    return True


sys.exit(run([opens_in_pprof, agrees_with_perf, shows_cpp, follows_late_code, draws, stops_nothing, costs_redis_little,
              ordinary_user]) if possible("profile", TAKE) and can_profile() else finish())
