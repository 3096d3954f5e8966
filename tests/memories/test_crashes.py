"""The guarantee of extraction: killed at any moment and run again, the folder is that of a run that nobody stopped.

Kills are placed at every call that changes the disk, and at random points in time; loss of power after every flush. Hidden
files are compared too. How many points were tried is printed with `pytest -s`.
"""

import random
import time

import pytest
from crashing import embedded_twice, written
from extractions import SHARD_ITEMS, write_texts

RANDOM_KILLS = 110


def problems(first, second, tree, expected):
    """Say what is wrong after a run that died and one that completed its work."""
    found = []
    if not first["killed"]:
        found.append("was not killed")
    if second["code"] != 0:
        found.append(f"could not be gone on with: {second['end']}")
    if tree != expected:
        found.append(f"another tree: {sorted(set(tree.items()) ^ set(expected.items()))}")
    if (twice := embedded_twice(first, second)) > SHARD_ITEMS:
        found.append(f"{twice} items were embedded twice")
    if again := set(written(first)) & set(written(second)):
        found.append(f"finished shards were written again: {again}")
    return found


def moments_of(whole, action):
    """Give the moments, from 1; without power only those after a flush: until the next one the disk keeps the same."""
    labels = whole["moments"]
    if action == "kill":
        return list(range(1, len(labels) + 1))
    return [moment for moment in range(2, len(labels) + 1) if labels[moment - 2].startswith("flush")] + [len(labels)]


def sweep(crashes, folder, run, whole, start=None, action="kill"):
    """Let every moment of a run be the one, and complete the run each time."""
    wrong, moments = [], moments_of(whole, action)
    for moment in moments:
        dying = {**run, "moment": moment, "action": action}
        (first, second), tree = crashes.do(folder / f"memory-{moment}", dying, run, start=start)
        label = whole["moments"][moment - 1]
        wrong += [(moment, label, problem) for problem in problems(first, second, tree, whole["tree"])]
        yield moment, first
    print(f"\n{action}: {len(moments)} moments")
    assert wrong == []


def test_killed_at_every_moment_of_a_run(crashes, embedding, whole, tmp_path):
    assert len(whole["moments"]) > 120
    for moment, first in sweep(crashes, tmp_path, embedding, whole):
        finished = moment > whole["moments"].index("rename to config.json") + 1
        assert first["state"] == (whole["state"] if finished else None)  # it is never mistaken for a finished one


def test_the_moments_are_those_that_the_order_on_disk_speaks_of(whole):
    def at(label):
        return whole["moments"].index(label)

    shard = [at(f"{what} .shard-00004.safetensors.part") for what in ("create", "write", "half of", "flush")]
    shard += [at("rename to shard-00004.safetensors"), at("rename to shard-00004.items.jsonl")]
    order = [at("rename to plan.json"), *shard, at("create .shard-00004.json.part"), at("rename to shard-00004.json")]
    order += [at("create .config.json.part"), at("flush .config.json.part"), at("rename to config.json")]
    order += [at("remove plan.json"), at("remove .run"), at("end")]
    assert order == sorted(order)


def test_without_power_at_every_moment_of_a_run(crashes, embedding_few, whole_few, tmp_path):
    for _ in sweep(crashes, tmp_path, embedding_few, whole_few, action="power loss"):
        pass


def test_killed_at_random_several_times_in_a_row(crashes, embedding, whole, tmp_path):
    seed = random.Random(20230523)
    began = time.monotonic()
    crashes.do(tmp_path / "timed", embedding)
    longest = time.monotonic() - began
    kills, folders = 0, 0
    while kills < RANDOM_KILLS:
        folders += 1
        delays = [seed.uniform(0, longest) for _ in range(seed.randint(2, 6))]
        dying = [{**embedding, "delay": delay} for delay in delays]
        runs, tree = crashes.do(tmp_path / f"memory-{folders}", *dying, embedding)
        kills += sum(run["killed"] for run in runs)
        assert tree == whole["tree"]
        for number, run in enumerate(runs[:-1]):
            assert embedded_twice(run, runs[number + 1]) <= SHARD_ITEMS
        names = [name for run in runs for name in written(run)]
        assert len(names) == len(set(names))
    print(f"\n{kills} kills at random in {folders} folders")


@pytest.fixture(scope="module")
def grown(crashes, few_texts, embedding_few, tmp_path_factory):
    """A finished memory; what appends to it: the tree of an append that nobody stopped."""
    folder = tmp_path_factory.mktemp("grown")
    (made,), _ = crashes.do(folder / "old", {**embedding_few, "watched": True}, keep=True)
    source = folder / "texts.txt"
    write_texts(source, 230)
    run = {"input": str(source), "options": {"shard_items": SHARD_ITEMS, "append": True}}
    (done,), tree = crashes.do(folder / "memory", {**run, "watched": True}, start=folder / "old")
    assert (made["code"], done["code"], len(tree) > 12) == (0, 0, True)
    whole = {"tree": tree, "state": done["state"], "moments": done["end"]["moments"]}
    return folder / "old", made["state"], run, whole


def test_killed_at_every_moment_of_an_append(crashes, grown, tmp_path):
    old, before, run, whole = grown
    for moment, first in sweep(crashes, tmp_path, run, whole, start=old):
        finished = moment > whole["moments"].index("rename to config.json") + 1
        assert first["state"] == (whole["state"] if finished else before)


def test_without_power_at_every_moment_of_an_append(crashes, grown, tmp_path):
    old, before, run, whole = grown
    for _, first in sweep(crashes, tmp_path, run, whole, start=old, action="power loss"):
        assert first["state"] in (before, whole["state"])


@pytest.fixture(scope="module")
def mended(crashes, embedding_few, tmp_path_factory):
    """A finished memory, and what completes it with the items in quarantine, mended since."""
    folder = tmp_path_factory.mktemp("mended")
    (made,), _ = crashes.do(folder / "old", {**embedding_few, "watched": True}, keep=True)
    source = write_texts(folder / "texts.txt", 130, mended=True)
    run = {"input": str(source), "retry": True}
    (done,), tree = crashes.do(folder / "memory", {**run, "watched": True}, start=folder / "old")
    assert (made["code"], done["code"], "shard-00000.1.safetensors" in tree) == (0, 0, True)
    whole = {"tree": tree, "state": done["state"], "moments": done["end"]["moments"]}
    return folder / "old", made["state"], run, whole


@pytest.mark.parametrize("action", ["kill", "power loss"])
def test_stopped_at_every_moment_of_a_retry(crashes, mended, tmp_path, action):
    old, before, run, whole = mended
    wrong, moments = [], moments_of(whole, action)
    for moment in moments:
        dying = {**run, "moment": moment, "action": action}
        (first, second), tree = crashes.do(tmp_path / f"memory-{moment}", dying, run, start=old)
        finished = moment > whole["moments"].index("rename to config.json") + 1
        assert first["state"] in (
            [whole["state"] if finished else before] if action == "kill" else [before, whole["state"]]
        )
        if (first["killed"], second["code"], tree) != (True, 0, whole["tree"]):
            wrong.append((moment, second["end"].get("message"), set(tree) ^ set(whole["tree"])))
    print(f"\n{action}: {len(moments)} moments")
    assert wrong == []
