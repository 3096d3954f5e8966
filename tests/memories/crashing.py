"""A warm process that has opened a space, and whose children embed and die: starting one takes milliseconds, not seconds.

Run as a program it reads jobs, one line of JSON each, and answers each with one line.
"""

import contextlib
import gc
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers import tree_of
from moments import Moments

SHARD_ITEMS = 20
_DIGITS = "zero one two three four five six seven eight nine".split()


class Crashes:
    """The warm process, from outside."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def do(self, folder, *runs, start=None, keep=False):
        """Do runs one after another on one folder, which begins as a copy of `start` and is removed unless it is kept.

        Returns:
            how each run ended, and the tree that they left: hashes by path.
        """
        job = {"folder": str(folder), "runs": runs, "start": str(start) if start else None, "keep": keep}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["runs"], answer["tree"]


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


def _serve():
    """Load what children need once, and do jobs."""
    import torch

    import cmcr
    import cmcr.cli

    torch.set_num_threads(1)
    space = cmcr.space("mini-clip")
    _warm_up(space)
    os.fsync = lambda handle: None  # bytes that are written outlive a killed process without it
    gc.freeze()  # so that children do not copy what they do not change
    for line in sys.stdin:
        job = json.loads(line)
        folder = Path(job["folder"])
        if job["start"]:
            shutil.copytree(job["start"], folder)
        runs = [_done(space, folder, run) for run in job["runs"]]
        answer = {"runs": runs, "tree": tree_of(folder)}
        if not job["keep"]:
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(answer), flush=True)


def _warm_up(space):
    """Embed a little once, so that children import nothing."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "texts.txt").write_text("one\n")
        _extract(space, Path(folder, "memory"), {"input": f"{folder}/texts.txt"}, lambda event, facts: None)


def _done(space, folder, run):
    """Embed here, which is quickest, where nothing happens meanwhile; else in a child."""
    if set(run) - {"input", "options", "retry"}:
        return _forked(space, folder, run)
    events = []
    end, code = _ended(
        lambda: _extract(space, folder, run, lambda event, facts: events.append({"event": event, **facts}))
    )
    return {"killed": False, "code": code, "events": events, "end": end}


def _forked(space, folder, run):
    """Embed in a child."""
    if "continue" in run:
        pid, events = run["continue"], Path(run["events"])
        os.kill(pid, signal.SIGCONT if not run.get("kill") else signal.SIGKILL)
    else:
        events = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.events")
        pid = os.fork()
        if pid == 0:
            os._exit(_child(space, folder, run, events))
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
    import cmcr
    from cmcr.errors import ArtefactNotFoundError, FormatError

    try:
        memory = cmcr.Memory(folder)
    except (FormatError, ArtefactNotFoundError):
        return None
    return hashlib.sha256(memory[:].tobytes() + json.dumps(memory.ids).encode()).hexdigest()


def _ended(work):
    """Report how a piece of work ended: its error, its exit code."""
    from cmcr.errors import CmcrError

    try:
        return {}, work() or 0
    except CmcrError as error:
        return {"error": type(error).__name__, "message": str(error)}, 1


def _child(space, folder, run, events):
    from cmcr.cli import main

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
            return _extract(space, folder, run, on_event)
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            return main(run["arguments"])

    end, code = _ended(work)
    moments.reach("end", False)
    on_event("end", {"message": stderr.getvalue(), **end, "moments": moments.labels})
    return code


def _extract(space, folder, run, on_event):
    """Embed, or retry what is in quarantine."""
    from cmcr.memories.embed import embed

    again = run.get("retry", False)
    embed(space, "text", run["input"], folder, on_event=on_event, retry_quarantined=again, **run.get("options", {}))


if __name__ == "__main__":
    _serve()
