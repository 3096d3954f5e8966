"""Killed at any moment and run again, a folder is that of a run that nobody stopped; and what else stops a run.

Kills are placed at every call that changes the disk, and at random points in time; loss of power after every flush. Hidden
files are compared too. How many points were tried is printed with `pytest -s`.
"""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from crashing import SHARD_ITEMS, embedded_twice, write_numbers, written
from helpers import tree_of

RANDOM_KILLS = 10


class Case:
    """Runs on copies of a folder `start`, and what one that nobody stopped makes of it."""

    def __init__(self, crashes, folder, run, start=None, before=None):
        self.run, self.start, self.before = run, start, before
        (done,), self.tree = crashes(folder, {**run, "watched": True}, start=start, keep=True)
        assert done["code"] == 0
        self.folder, self.state, self.moments = folder, done["state"], done["end"]["moments"]

    def at(self, label):
        """Find the first moment with a label, from 1."""
        return self.moments.index(label) + 1

    def moments_of(self, action):
        """List the moments; without power those after a flush, since until the next one the disk keeps the same.

        What begins from a finished memory writes shards by the same calls as what begins from nothing: every third moment.
        """
        every = range(1, len(self.moments) + 1)
        if action == "kill":
            return list(every[:: 1 if self.start is None else 3])
        return [m for m in every if m == every[-1] or self.moments[m - 2].startswith("flush")]


@pytest.fixture(scope="module")
def cases(crashes, tmp_path_factory):
    """Three shards from nothing, two appended to them, and those of items that were fixed."""
    folder = tmp_path_factory.mktemp("cases")
    options = {"shard_items": SHARD_ITEMS}
    texts = [write_numbers(folder / "texts.txt", 50), write_numbers(folder / "fixed" / "texts.txt", 50, fixed=True)]
    more = write_numbers(folder / "more" / "texts.txt", 90)
    run = Case(crashes, folder / "run", {"input": str(texts[0]), "options": options})
    append = {"input": str(more), "options": {**options, "append": True}}
    retry = {"input": str(texts[1]), "options": {**options, "retry_quarantined": True}}
    return {
        "run": run,
        "append": Case(crashes, folder / "append", append, run.folder, run.state),
        "retry": Case(crashes, folder / "retry", retry, run.folder, run.state),
    }


def test_the_order_on_disk(cases):
    assert len(cases["run"].moments) > 70
    shard = [f"{what} .shard-00002.safetensors.part" for what in ("create", "write", "half of", "flush")]
    shard += [f"rename to shard-00002.{ending}" for ending in ("safetensors", "items.jsonl", "json")]
    manifest = ["create .config.json.part", "flush .config.json.part", "rename to config.json"]
    order = ["rename to plan.json", *shard, *manifest, "remove plan.json", "remove .run", "end"]
    moments = [cases["run"].at(label) for label in order]
    assert moments == sorted(moments)
    assert "shard-00003.safetensors" in cases["append"].tree
    assert "shard-00003.safetensors" in cases["retry"].tree


@pytest.mark.parametrize("action", ["kill", "power loss"])
@pytest.mark.parametrize("name", ["run", "append", "retry"])
def test_stopped_at_every_moment(crashes, cases, tmp_path, name, action):
    case, wrong = cases[name], []
    for moment in case.moments_of(action):
        dying = {**case.run, "moment": moment, "action": action}
        (first, second), tree = crashes(tmp_path / f"memory-{moment}", dying, case.run, start=case.start)
        whole = moment > case.at("rename to config.json")
        state = case.state if whole else case.before  # an unfinished memory never passes for a finished one
        held = {
            "killed": first["killed"],
            "completed": second["code"] == 0,
            "the same files": tree == case.tree,
            "its state": first["state"] in ([state] if action == "kill" else [case.before, case.state]),
            "a shard embedded twice at most": embedded_twice(first, second) <= SHARD_ITEMS,
            "finished shards kept": not set(written(first)) & set(written(second)),
        }
        wrong += [(moment, case.moments[moment - 1], what, second["end"]) for what, true in held.items() if not true]
    print(f"\n{name}, {action}: {len(case.moments_of(action))} moments")
    assert wrong == []


def test_killed_at_random_several_times_in_a_row(crashes, cases, tmp_path):
    case, chance = cases["run"], random.Random(20230523)
    began = time.monotonic()
    crashes(tmp_path / "timed", case.run)
    longest = time.monotonic() - began
    kills = folders = 0
    while kills < RANDOM_KILLS:
        folders += 1
        dying = [{**case.run, "delay": chance.uniform(0, longest)} for _ in range(chance.randint(2, 6))]
        runs, tree = crashes(tmp_path / f"memory-{folders}", *dying, case.run)
        kills += sum(run["killed"] for run in runs)
        assert tree == case.tree
        for earlier, later in pairwise(runs):
            assert embedded_twice(earlier, later) <= SHARD_ITEMS
        names = [name for run in runs for name in written(run)]
        assert len(names) == len(set(names))
    print(f"\n{kills} kills at random in {folders} folders")


@pytest.mark.parametrize(
    ("action", "code", "step"),
    [("full disk", errno.ENOSPC, 3), ("read-only", errno.EACCES, 8)],
    ids=["full", "read-only"],
)
def test_writes_that_are_refused_from_any_moment_on(crashes, cases, tmp_path, action, code, step):
    case, wrong = cases["run"], []
    for moment, label in enumerate(case.moments, start=1):
        if moment % step or label.startswith(("remove", "end")):
            continue  # in the end nothing is written any more
        failing = {**case.run, "moment": moment, "action": action}
        (first, second), tree = crashes(tmp_path / f"memory-{moment}", failing, case.run)
        error, message = first["end"].get("error"), first["end"].get("message", "")
        if error != "WriteError" or os.strerror(code) not in message or "finished shards are safe" not in message:
            wrong.append((moment, label, first["code"], first["end"]))
        if (second["code"], tree) != (0, case.tree) or embedded_twice(first, second) > SHARD_ITEMS:
            wrong.append((moment, label, second["end"]))
    assert wrong == []


def test_a_file_that_the_system_refuses_to_grow(crashes, cases, tmp_path):
    case = cases["run"]
    (first, second), tree = crashes(tmp_path / "memory", {**case.run, "longest_file": 4_000}, case.run)
    assert first["end"]["error"] == "WriteError"
    assert os.strerror(errno.EFBIG) in first["end"]["message"]
    assert (second["code"], tree) == (0, case.tree)


def command(case, folder):
    return ["embed", "mini-clip", "text", case.run["input"], "--out", str(folder), "--shard-items", str(SHARD_ITEMS)]


def test_the_command_stopped_by_a_signal_at_many_moments(crashes, cases, tmp_path):
    case = cases["run"]
    for moment in range(3, len(case.moments), 8):
        folder = tmp_path / f"memory-{moment}"
        call = {"arguments": command(case, folder)}
        stopped = {**call, "moment": moment, "action": ("SIGINT", "SIGTERM")[moment // 8 % 2]}
        (first, second), tree = crashes(folder, stopped, call)
        assert first["code"] == 130, (moment, first["end"])
        assert f"finished shards are kept in {folder}" in first["end"]["message"]
        assert (second["code"], tree) == (0, case.tree)


def test_the_program_itself_stopped_by_a_signal(crashes, cases, tmp_path):
    case, folder = cases["run"], tmp_path / "memory"
    call = [sys.executable, "-m", "cmcr", *command(case, folder), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        for line in run.stdout:
            if json.loads(line)["event"] == "shard":
                run.send_signal(signal.SIGTERM)
                run.communicate()
                break
    assert run.returncode == 130
    (done,), tree = crashes(folder, case.run)
    assert (done["code"], tree) == (0, case.tree)


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_writer_is_refused_while_the_first_lives(crashes, cases, tmp_path, killed):
    case, folder = cases["run"], tmp_path / "memory"
    paused = {**case.run, "moment": case.at("flush .shard-00001.safetensors.part"), "action": "stop"}
    (first, second), before = crashes(folder, paused, case.run, keep=True)
    assert (second["code"], second["end"]["error"]) == (1, "LockedError")
    assert tree_of(folder) == before
    going_on = {"continue": first["pid"], "events": first["events"], "kill": killed}
    (first, again), tree = crashes(folder, going_on, case.run)
    assert (first["killed"], again["code"], tree) == (killed, 0, case.tree)
