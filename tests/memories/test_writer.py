"""The writer: plans, receipts, resuming, appending, and what it leaves alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ORIGIN, bad_item, origin, rows_on_disk, surveyed, tree_of, unit

from cmcr.errors import (
    ConfigError,
    DimensionError,
    FormatError,
    IntegrityError,
    ResumeError,
    WriteError,
)
from cmcr.memories import writer as writer_module
from cmcr.memories.memory import Memory
from cmcr.memories.writer import open_writer, worker_writer

ROWS = unit(10)


def opened(folder, rows=ROWS, *, shard_items=4, made=ORIGIN, **options):
    found = surveyed([f"i{n}" for n in range(len(rows))], shard_items)
    return open_writer(folder, made, found, shard_items=shard_items, **options)


def begin(folder, rows=ROWS, *, numbers=None, finish=True, **options):
    """Write the shards that are missing, or those given; return the numbers that were missing."""
    with opened(folder, rows, **options) as writer:
        if writer is None:
            return None
        missing = writer.missing
        for number in missing if numbers is None else numbers:
            write(writer, number, rows)
        if finish and not writer.missing:
            writer.finish()
        return missing


def write(writer, number, rows=ROWS):
    span = writer.items_of(number)
    return writer.write(number, torch.from_numpy(rows[span.start : span.stop]), [(f"i{n}", f"s:{n}") for n in span])


def test_a_new_memory_and_none_of_its_kind_after_it(tmp_path):
    folder = tmp_path / "deep" / "memory"
    assert begin(folder) == [0, 1, 2]
    np.testing.assert_array_equal(rows_on_disk(folder), ROWS)
    before = tree_of(folder)
    assert set(before) == {
        ".lock", "config.json", *(f"shard-0000{n}.{e}" for n in range(3) for e in ("items.jsonl", "safetensors")),
    }  # fmt: skip
    assert begin(folder) is None
    assert tree_of(folder) == before


def test_a_worker_needs_the_plan_and_the_versions_of_the_run(tmp_path, monkeypatch):
    with opened(tmp_path / "shared") as writer:
        write(worker_writer(tmp_path / "shared", writer.plan), 1)
        with opened(tmp_path / "elsewhere", shard_items=5), pytest.raises(ConfigError, match="machines share"):
            worker_writer(tmp_path / "elsewhere", writer.plan)
        here = writer_module.versions_here()
        assert {"cmcr", "torch", "numpy"} <= set(here)
        monkeypatch.setattr(writer_module, "versions_here", lambda: {**here, "torch": "9"})
        with pytest.raises(ResumeError, match=r"torch was .*, now 9"):
            worker_writer(tmp_path / "shared", writer.plan)
    with pytest.raises(ResumeError, match=r"torch was .*, now 9"):
        begin(tmp_path / "shared")
    monkeypatch.undo()
    with pytest.raises(FormatError, match="never finished"):
        Memory(tmp_path / "shared")
    assert begin(tmp_path / "shared") == [0, 2]
    begin(tmp_path / "whole")
    assert tree_of(tmp_path / "shared") == tree_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"made": origin(fingerprint="f2")}, "fingerprint was 0123456789ab…, now f2"),
        ({"made": origin(space="other", model=None)}, "space was mine, now other; model was a/model, now none"),
        ({"made": origin(dtype="float16")}, "dtype was float32, now float16"),
        ({"shard_items": 5}, "shard_items was 4, now 5"),
        ({"rows": ROWS[:9]}, "number of items was 10, now 9"),
        ({"settings": {"temperature": 0.1}}, "temperature was none, now 0.1"),
    ],
)
def test_another_plan_is_refused_with_what_differs(tmp_path, change, differs):
    begin(tmp_path / "begun", numbers=[0], finish=False)
    begin(tmp_path / "done")
    for folder in ("begun", "done"):
        with pytest.raises(ResumeError, match=f"{folder}: .*{differs}"):
            begin(tmp_path / folder, **change)


@pytest.mark.parametrize("name", ["shard-00001.safetensors", "shard-00001.items.jsonl", ".run/shard-00001.json"])
def test_a_finished_shard_that_has_changed_is_written_again(tmp_path, name):
    begin(tmp_path / "whole")
    begin(tmp_path / "m", numbers=[0, 1], finish=False)
    content = bytearray((tmp_path / "m" / name).read_bytes())
    content[-9] ^= 1
    (tmp_path / "m" / name).write_bytes(content)
    begin(tmp_path / "m")
    assert tree_of(tmp_path / "m") == tree_of(tmp_path / "whole")


@pytest.mark.parametrize("content", ["{", '{"origin": 1, "run": 2, "first_shard": 0}'])
def test_damaged_plan(tmp_path, content):
    begin(tmp_path, numbers=[0], finish=False)
    (tmp_path / ".run" / "plan.json").write_text(content)
    with pytest.raises(FormatError, match=r"plan\.json: damaged"):
        begin(tmp_path)


def test_a_shard_holds_all_its_items_and_a_memory_all_its_shards(tmp_path):
    with opened(tmp_path) as writer:
        items, bad = [("a", "s")] * 4, bad_item("b", 0)
        for rows, given, quarantined in ((3, items, ()), (4, items, (bad,)), (4, items[:3], (bad,)), (0, [], ())):
            with pytest.raises(ConfigError, match="shard 0: expected 4 items"):
                writer.write(0, torch.zeros(rows, 5), given, quarantined)
        write(writer, 1)
        with pytest.raises(ConfigError, match="2 of 3 shards"):
            writer.finish()


def test_rows_of_another_width_are_refused_before_they_spoil_the_memory(tmp_path):
    with opened(tmp_path) as writer:
        write(writer, 0)
        with pytest.raises(DimensionError, match=r"shard 1: .*6 wide"):
            write(writer, 1, unit(10, width=6))
    begin(tmp_path)
    with pytest.raises(DimensionError, match=r"shard 0: .*6 wide"):
        begin(tmp_path, unit(3, width=6), append=True)
    assert Memory(tmp_path).shape == (10, 5)


def test_too_small_a_disk_is_refused_before_the_work(tmp_path, monkeypatch):
    begin(tmp_path, numbers=[1], finish=False)
    for free, missing in ((119, None), (120, [0, 2])):  # six rows of five float32
        usage = shutil._ntuple_diskusage(10**6, 10**6 - free, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        if missing is None:
            with pytest.raises(WriteError, match="are free"):
                begin(tmp_path, width=5)
        else:
            assert begin(tmp_path, width=5) == missing


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": "a", "shard-00000.tar": "b"}, r"holds other things \(a\.png"),
        ({"config.json": '{"model_type": "clip"}', "shard-00000.safetensors": "weights"}, "got a folder whose"),
    ],
)
def test_other_things_are_left_alone(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(FormatError, match=message):
        begin(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != ".lock"} == files
    (tmp_path / "link").symlink_to("nowhere")
    for path in (tmp_path / next(iter(files)), tmp_path / "link"):
        with pytest.raises(FormatError, match="expected a folder"):
            begin(path)


def test_leftovers_go_and_the_files_of_others_stay(tmp_path):
    folder = tmp_path / "m"
    begin(folder, finish=False)
    shutil.copytree(folder / ".run", tmp_path / "kept")
    begin(folder)
    strangers = ["shard-00000.safetensors.bak", "shard-1.txt", "shard-00000.tar", "readme.md", ".notes.part"]
    for name in strangers:
        (folder / name).write_bytes(b"x")
    before = tree_of(folder)
    for name in ("shard-00001.1.safetensors", "shard-00009.items.jsonl", "shard-00009.quarantine.jsonl",
                 ".shard-00009.safetensors.0f.part", ".config.json.0f.part"):  # fmt: skip
        (folder / name).write_bytes(b"x")
    shutil.copytree(tmp_path / "kept", folder / ".run")  # as if killed right after the manifest
    assert begin(folder) is None
    assert tree_of(folder) == before


def test_a_stopped_append_leaves_the_memory_whole_and_is_resumed(tmp_path):
    begin(tmp_path)
    with pytest.raises(ResumeError, match="now none"):
        begin(tmp_path, append=True, made=origin(fingerprint=None))
    more = unit(6, seed=3)
    assert begin(tmp_path, more, append=True, numbers=[1], finish=False) == [0, 1]
    assert Memory(tmp_path).shape == (10, 5)
    assert begin(tmp_path) is None
    with pytest.raises(ResumeError, match=r"was 6, now 3.* remove \S+\.run"):
        begin(tmp_path, unit(3), append=True)
    assert begin(tmp_path, more, append=True) == [0]
    memory = Memory(tmp_path)
    np.testing.assert_array_equal(memory[:], np.concatenate([ROWS, more]))
    assert [(shard.name, shard.run, shard.first_item, shard.items) for shard in memory.contents[0].shards] == [
        ("shard-00000", 0, 0, 4), ("shard-00001", 0, 4, 4), ("shard-00002", 0, 8, 2),
        ("shard-00003", 1, 0, 4), ("shard-00004", 1, 4, 2),
    ]  # fmt: skip


def test_a_damaged_manifest_is_not_written_over(tmp_path):
    begin(tmp_path)
    manifest = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**manifest, "rows": 9}))
    for append in (False, True):
        with pytest.raises(IntegrityError, match="not what was written"):
            begin(tmp_path, append=append)


def test_folders_that_cannot_be_made_or_listed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        begin(tmp_path / "file" / "memory")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(WriteError, match="Permission denied"):
        begin(tmp_path)
