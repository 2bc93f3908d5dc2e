# SPDX-License-Identifier: Apache-2.0
"""What the scenarios of stacks share besides victimtest: looking at a program with gdb and by a capture, and comparing the
two frame by frame."""
import json
import os
import re
import shutil
import subprocess
import tempfile

from victimtest import TAKE, TMP, report

# Runs inside gdb: one line a frame. Frames that gdb guesses from call sites of tail calls are not on the stack, and are left
# out. "start": how far the place is behind the symbol that gdb finds for it.
IN_GDB = r"""
import gdb, re
gdb.execute("set backtrace past-main on")
gdb.execute("set backtrace limit 300")
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame, exact = gdb.newest_frame(), True
    try:
        while frame:
            if frame.type() != gdb.TAILCALL_FRAME:
                pc = frame.pc() - (0 if exact else 1)
                text = gdb.execute("info symbol %d" % pc, to_string=True)
                found = re.match(r".* \+ (\d+) in section", text)
                offset = int(found.group(1)) if found else (0 if " in section" in text else -1)
                if offset >= 0 and not exact:
                    offset += 1
                print("FRAME", thread.ptid[1], frame.pc(), offset, int(frame.type() == gdb.INLINE_FRAME), frame.name())
            if frame.type() == gdb.NORMAL_FRAME:
                exact = False
            elif frame.type() == gdb.SIGTRAMP_FRAME:
                exact = True
            frame = frame.older()
    except gdb.error as e:
        print("STOP", thread.ptid[1], e)
"""


def by_gdb(*target):
    """Of a process (by_gdb(pid)) or of a core (by_gdb(program, core))."""
    what = ["-p", str(target[0])] if len(target) == 1 else [str(t) for t in target]
    script = os.path.join(TMP, "frames.py")
    with open(script, "w") as f:
        f.write(IN_GDB)
    out = subprocess.run(["gdb", "-nx", "-batch", "-ex", "set auto-load off", *what, "-x", script],
                         capture_output=True, text=True, errors="replace", env=dict(os.environ, DEBUGINFOD_URLS="")).stdout
    stacks = {}
    for line in out.splitlines():
        if line.startswith("FRAME "):
            _, tid, pc, offset, inlined, name = line.split(" ", 5)
            if int(pc) == 0 and int(tid) in stacks:
                continue  # what it believes to be behind the outermost frame
            stacks.setdefault(int(tid), []).append(
                {"pc": int(pc), "offset": int(offset), "inlined": inlined == "1", "name": name})
    return stacks


def take(kind, pid, *options):
    """Captures; returns the verdict, and the object of the json file (None when there is none)."""
    folder = tempfile.mkdtemp(dir=TMP)
    run = subprocess.run([TAKE, kind, str(pid), "-o", folder, *options], capture_output=True, text=True)
    path = os.path.join(folder, kind + ".json")
    if not run.stdout:
        raise RuntimeError("%s: exit %d: %s" % (kind, run.returncode, run.stderr.strip()[-500:]))
    evidence = None
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            evidence = json.load(f)
        for ending in ("txt", "folded"):
            with open(os.path.join(folder, kind + "." + ending), encoding="utf-8") as f:
                evidence[ending] = f.read()
    return json.loads(run.stdout), evidence


def threads_of(evidence):
    """tid -> its native frames; and tid -> its group."""
    frames, groups = {}, {}
    for group in evidence["groups"]:
        native = [f for f in group["frames"] if f["kind"] != "python"]
        for thread in group["threads"]:
            frames[thread["tid"]], groups[thread["tid"]] = native, group
    return frames, groups


def plain(name):
    """One function has many names: __GI___libc_read, __libc_read, read."""
    return re.sub(r"^(_*GI_+|_+)*(libc_|IO_new_|IO_)?", "", re.sub(r"@.*", "", name or ""))


def demangle(names):
    if not names or not shutil.which("c++filt"):
        return {}
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True).stdout
    return dict(zip(names, out.splitlines()))


def bare(name):
    """Without arguments and template parameters: gdb leaves them out or writes them another way."""
    depth, kept = 0, ""
    for c in re.sub(r"::h[0-9a-f]{16}$", "", (name or "").replace("(anonymous namespace)", "")):
        depth += c in "<{["
        if depth == 0 and c == "(":
            break
        if depth == 0:
            kept += c
        depth -= c in ">}]"
    return re.sub(r"(::)+$", "", kept.strip()).split(" ")[-1].split("::")[-1]


def same(ours, theirs, clean):
    if int(ours["address"], 16) != theirs["pc"]:
        return False
    name = ours["function"]
    if theirs["name"] == "None" or name is None:
        return name is None or not ours["inlined"]
    if plain(name) == plain(theirs["name"]) or bare(clean.get(name, name)) == bare(theirs["name"]):
        return True
    # The same distance from the beginning of a function: it is another of its names.
    return not ours["inlined"] and ours["function_offset"] == theirs["offset"]


def first_difference(ours, theirs):
    """The number of the first frame that is not the same, or None."""
    clean = demangle(sorted({f["function"] for f in ours if f["function"]}))
    for number, (a, b) in enumerate(zip(ours, theirs)):
        if not same(a, b, clean):
            return number
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def is_guess(frame):
    return frame["kind"] == "jit" or frame.get("by_frame_pointer", False)


def explained(ours, theirs, number, group, missing):
    """Whether the artifact itself says why frame `number` is not gdb's: it, or one nearer to the thread, was found without
    unwind information and is marked so; or there is none because of a reason that is given both there and in `missing`."""
    if number > 0 and any(is_guess(f) for f in ours[:number + 1]):
        return "by frame pointer"
    why = group["why_no_more"]
    if number == len(ours) and why and why in missing:
        return why
    return ""


def show(frames):
    return [f.get("function") or f.get("name") or f.get("address") for f in frames]


def difference(evidence, theirs, may_explain):
    ours, groups = threads_of(evidence)
    explanations = set()
    if sorted(ours) != sorted(theirs):
        return "threads %s here, %s in gdb" % (sorted(ours), sorted(theirs)), explanations
    for tid in sorted(ours):
        number = first_difference(ours[tid], theirs[tid])
        if number is None:
            continue
        why = explained(ours[tid], theirs[tid], number, groups[tid], evidence["missing"]) if may_explain else ""
        if not why:
            return "thread %d, frame %d: %s here, %s in gdb" % (tid, number, show(ours[tid]), show(theirs[tid])), explanations
        explanations.add(why)
    return "", explanations


def compare(name, pid, kinds=("stacks", "stacks0"), may_explain=False):
    """An idle process wakes now and then, so it may take more than one look until both saw it asleep. Returns the evidence
    of the last kind."""
    evidence = None
    for kind in kinds:
        problem = "no look"
        for _ in range(10):
            verdict, evidence = take(kind, pid)
            if evidence is None:
                problem = verdict["text"]
                continue
            problem, explanations = difference(evidence, by_gdb(pid), may_explain)
            if not problem:
                break
        frames = sum(len(f) for f in threads_of(evidence)[0].values()) if evidence else 0
        words = " (but: %s)" % ", ".join(sorted(explanations)) if not problem and explanations else ""
        report("%s, %s: %d threads, %d frames as in gdb%s" %
               (name, kind, verdict["threads"], frames, words), problem[:1500])
    return evidence
