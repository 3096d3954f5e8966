"""A warm process that has opened a space, and whose children embed and die: starting one takes milliseconds, not seconds."""

import contextlib
import gc
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path

import torch
from helpers import tree_of
from moments import Moments

import cmcr
from cmcr.cli import main
from cmcr.errors import ArtefactNotFoundError, CmcrError, FormatError
from cmcr.memories.embed import embed

SHARD_ITEMS = 20
_DIGITS = "zero one two three four five six seven eight nine".split()


def write_numbers(path, count, *, fixed=False):
    """Write a list of numbers as words; every 37th cannot be embedded unless it is fixed."""
    lines = [" ".join(_DIGITS[int(digit)] for digit in f"{number:03d}") for number in range(count)]
    bad = chr(0) * (not fixed)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{bad * (number % 37 == 5)}{line}\n" for number, line in enumerate(lines)))
    return path


def embedded_twice(first, second):
    """Count the items that two runs in a row both embedded."""
    embedded = sum(event["count"] for event in first["events"] if event["event"] == "items")
    before = next((event["done"] for event in first["events"] if event["event"] == "started"), 0)
    started = next((event for event in second["events"] if event["event"] == "started"), None)
    return max(0, before + embedded - started["done"]) if started else 0


def written(run):
    """Name the shards that a run reported as written."""
    return [event["shard"] for event in run["events"] if event["event"] == "shard"]


def warm_up():
    """Open a space and embed a little, by function and by verb, so that children import nothing."""
    global _space
    torch.set_num_threads(1)
    _space = cmcr.space("mini-clip")
    with tempfile.TemporaryDirectory() as folder:
        texts = write_numbers(Path(folder, "texts.txt"), 1)
        _embed(Path(folder, "memory"), {"input": texts}, lambda event, facts: None)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            assert main(["embed", "mini-clip", "text", str(texts), "--out", str(Path(folder, "other"))]) == 0
    os.fsync = lambda handle: None  # bytes that are written outlive a killed process without it
    gc.freeze()  # so that children do not copy what they do not change


def run_all(folder, *runs, start=None, keep=False):
    """Do runs one after another on one folder, which begins as a copy of `start` and is removed unless it is kept.

    Returns:
        how each run ended, and the tree that they left: hashes by path.
    """
    if start:
        shutil.copytree(start, folder)
    ends, tree = [_run(folder, run) for run in runs], tree_of(folder)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return ends, tree


def _run(folder, run):
    """Embed here, which is quickest, where nothing happens meanwhile; else in a child."""
    if set(run) - {"input", "options"}:
        return _forked(folder, run)
    events = []
    end, code = _ended(lambda: _embed(folder, run, lambda event, facts: events.append({"event": event, **facts})))
    return {"killed": False, "code": code, "events": events, "end": end}


def _forked(folder, run):
    """Embed in a child."""
    if "continue" in run:
        pid, events = run["continue"], Path(run["events"])
        os.kill(pid, signal.SIGCONT if not run.get("kill") else signal.SIGKILL)
    else:
        events = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.events")
        pid = os.fork()
        if pid == 0:
            code = 70  # of an error that nobody foresaw
            try:
                code = _child(folder, run, events)
            finally:
                os._exit(code)
    if run.get("delay") is not None:
        _kill_after(pid, run["delay"])
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return {"pid": pid, "events": str(events)}
    lines = events.read_text().splitlines() if events.exists() else []
    events.unlink(missing_ok=True)
    seen = [json.loads(line) for line in lines if line.endswith("}")]
    end = next((event for event in seen if event["event"] == "end"), {})
    return {
        "killed": os.WIFSIGNALED(status),
        "code": os.waitstatus_to_exitcode(status),
        "events": seen,
        "end": end,
        "state": _state_of(folder),
    }


def _kill_after(pid, delay):
    """Kill a child, unless it ends before."""
    due = time.monotonic() + delay
    while time.monotonic() < due:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(min(0.002, max(0.0, due - time.monotonic())))
    os.kill(pid, signal.SIGKILL)


def _state_of(folder):
    """Hash the rows and ids of a memory; None where it cannot be opened."""
    try:
        memory = cmcr.Memory(folder)
    except (FormatError, ArtefactNotFoundError):
        return None
    return hashlib.sha256(memory[:].tobytes() + json.dumps(memory.ids).encode()).hexdigest()


def _ended(work):
    """Report how a piece of work ended: its error, its exit code."""
    try:
        return {}, work() or 0
    except CmcrError as error:
        return {"error": type(error).__name__, "message": str(error)}, 1


def _child(folder, run, events):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "longest_file" in run:
        resource.setrlimit(resource.RLIMIT_FSIZE, (run["longest_file"],) * 2)
    handle = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_event(event, facts):
        os.write(handle, (json.dumps({"event": event, **facts}) + "\n").encode())

    moments = Moments(folder, run.get("moment"), run.get("action", "kill"))
    moments.install()
    stderr = io.StringIO()

    def work():
        if "arguments" not in run:
            return _embed(folder, run, on_event)
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            return main(run["arguments"])

    end, code = _ended(work)
    moments.reach("end", False)
    on_event("end", {"message": stderr.getvalue(), **end, "moments": moments.labels})
    return code


def _embed(folder, run, on_event):
    embed(_space, "text", run["input"], folder, on_event=on_event, **run.get("options", {}))
