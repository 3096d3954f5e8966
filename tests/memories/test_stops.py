"""What stops an extraction besides a kill: a full disk, refused writes, signals, a second writer, an input that is gone."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from crashing import embedded_twice, tree_of
from extractions import SHARD_ITEMS, write_texts

import cmcr
from cmcr.errors import ConfigError, LockedError, ReadError
from cmcr.memories.writer import locked


def arguments(source, folder):
    return ["embed", "mini-clip", "text", str(source), "--out", str(folder), "--shard-items", str(SHARD_ITEMS)]


@pytest.mark.parametrize(
    ("action", "reason", "advice", "step"),
    [
        ("full disk", os.strerror(errno.ENOSPC), "finished shards are safe", 1),
        ("read-only", os.strerror(errno.EACCES), "finished shards are safe", 4),
    ],
    ids=["full disk", "read-only"],
)
def test_writes_that_are_refused_from_any_moment_on(
    crashes, embedding_few, whole_few, tmp_path, action, reason, advice, step
):
    wrong = []
    for moment, label in enumerate(whole_few["moments"], start=1):
        if moment % step or label.startswith(("remove", "end")):
            continue  # in the end nothing is written any more
        failing = {**embedding_few, "moment": moment, "action": action}
        (first, second), tree = crashes.do(tmp_path / f"memory-{moment}", failing, embedding_few)
        said = first["end"].get("message", "")
        if first["code"] != 1 or first["end"]["error"] != "WriteError" or reason not in said or advice not in said:
            wrong.append((moment, label, first["code"], first["end"]))
        if (second["code"], tree) != (0, whole_few["tree"]) or embedded_twice(first, second) > SHARD_ITEMS:
            wrong.append((moment, label, second["end"].get("message"), set(tree) ^ set(whole_few["tree"])))
    assert wrong == []


def test_a_file_that_the_system_really_refuses_to_grow(crashes, embedding_few, whole_few, tmp_path):
    (first, second), tree = crashes.do(tmp_path / "memory", {**embedding_few, "longest_file": 9_000}, embedding_few)
    assert first["end"]["error"] == "WriteError"
    assert f"could not write ({os.strerror(errno.EFBIG)}); finished shards are safe" in first["end"]["message"]
    assert second["code"] == 0
    assert tree == whole_few["tree"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_stopped_by_a_signal_at_many_moments_of_the_command(
    crashes, few_texts, embedding_few, whole_few, tmp_path, name
):
    wrong = []
    for moment in range(3 if name == "SIGINT" else 5, len(whole_few["moments"]), 4):
        folder = tmp_path / f"memory-{moment}"
        command = {"arguments": arguments(few_texts, folder)}
        (first, second), tree = crashes.do(folder, {**command, "moment": moment, "action": name}, command)
        said = f"cmcr: stopped; finished shards are kept in {folder}. Run the same command again to resume.\n"
        if first["code"] != 130 or not first["end"]["message"].endswith(said):
            wrong.append((moment, whole_few["moments"][moment - 1], first["code"], first["end"]["message"]))
        if second["code"] != 0 or tree != whole_few["tree"]:
            wrong.append((moment, second["code"], second["end"]["message"]))
    assert wrong == []


def test_two_writers_at_once(crashes, few_texts, embedding_few, whole_few, tmp_path):
    moment = whole_few["moments"].index("flush .shard-00001.safetensors.part") + 1
    stopped = {**embedding_few, "moment": moment, "action": "stop"}
    command = {"arguments": arguments(few_texts, tmp_path / "memory")}
    (first, second), before = crashes.do(tmp_path / "memory", stopped, command, keep=True)
    assert second["code"] == 1
    assert second["end"]["message"] == (
        f"cmcr: {tmp_path / 'memory'}: another run is writing this memory. Wait until it ends, or choose another folder.\n"
    )
    assert tree_of(tmp_path / "memory") == before
    (first,), tree = crashes.do(tmp_path / "memory", {"continue": first["pid"], "events": first["events"]})
    assert first["code"] == 0
    assert tree == whole_few["tree"]


def test_a_killed_writer_frees_the_lock(crashes, embedding_few, whole_few, tmp_path):
    stopped = {**embedding_few, "moment": 30, "action": "stop"}
    (first,), _ = crashes.do(tmp_path / "memory", stopped, keep=True)
    with pytest.raises(LockedError), locked(tmp_path / "memory"):
        pass
    killed = {"continue": first["pid"], "events": first["events"], "kill": True}
    (first, second), tree = crashes.do(tmp_path / "memory", killed, embedding_few)
    assert (first["killed"], second["code"]) == (True, 0)
    assert tree == whole_few["tree"]


def test_the_program_itself_killed_after_its_first_shard(few_texts, whole_few, tmp_path):
    command = [sys.executable, "-m", "cmcr", *arguments(few_texts, tmp_path / "memory"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            if json.loads(line)["event"] == "shard":
                run.send_signal(signal.SIGKILL)
                break
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout.splitlines()[-1])["event"] == "finished"
    assert sorted(tree_of(tmp_path / "memory")) == sorted(whole_few["tree"])
    assert cmcr.Memory(tmp_path / "memory").shape == (126, 128)


def pictures(folder, count):
    from PIL import Image

    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (16, 16), (number * 20, 90, 30)).save(folder / f"{number:02d}.png")
    return folder


def test_one_file_that_is_gone_when_it_is_read_goes_to_quarantine(tmp_path):
    folder = pictures(tmp_path / "pictures", 5)
    (folder / "02.png").unlink()
    (folder / "02.png").symlink_to("nowhere.png")
    memory = cmcr.embed("mini-clip", "image", folder, tmp_path / "memory")
    assert memory.ids == ["00.png", "01.png", "03.png", "04.png"]
    (lost,) = memory.quarantine()
    assert (lost.id, lost.position, lost.reason) == ("02.png", 2, "02.png: no such picture.")


def test_an_input_that_is_gone_when_a_run_is_gone_on_with_loses_nothing(crashes, whole_few, tmp_path):
    source = write_texts(tmp_path / "texts.txt", 130)
    run = {"input": str(source), "options": {"shard_items": SHARD_ITEMS}}
    moment = whole_few["moments"].index("create .shard-00002.safetensors.part") + 1
    crashes.do(tmp_path / "memory", {**run, "moment": moment}, keep=True)
    before = tree_of(tmp_path / "memory")
    source.rename(tmp_path / "elsewhere.txt")
    with pytest.raises((ConfigError, ReadError), match=r"texts\.txt: no such file or folder"):
        cmcr.embed("mini-clip", "text", source, tmp_path / "memory", shard_items=SHARD_ITEMS)
    assert tree_of(tmp_path / "memory") == before
    (tmp_path / "elsewhere.txt").rename(source)
    (last,), tree = crashes.do(tmp_path / "memory", run)
    assert [event["done"] for event in last["events"] if event["event"] == "started"] == [100]
    assert tree == whole_few["tree"]


def test_copies_made_in_different_places_on_different_days_are_equal(tmp_path, monkeypatch):
    trees = []
    for name, day in (("here", 0.0), ("there", 1e9)):
        monkeypatch.setattr("time.time", lambda day=day: day)
        folder = tmp_path / name
        folder.mkdir()
        source = pictures(folder / "pictures", 4)
        (source / "bad.png").write_bytes(b"not a picture")
        os.utime(source / "00.png", (day, day))
        cmcr.embed("mini-clip", "image", source, folder / "memory", shard_items=2)
        trees.append(tree_of(folder / "memory"))
        for path in (folder / "memory").iterdir():
            assert str(tmp_path).encode() not in path.read_bytes()
    assert trees[0] == trees[1]
