"""The writer: plans, receipts, resuming, appending, and what it leaves alone."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import stored
import torch
from stored import ORIGIN, bad_item, origin, store, surveyed, twin_ids, twin_rows, unit

from cmcr.errors import (
    ConfigError,
    DimensionError,
    FormatError,
    IntegrityError,
    LockedError,
    ResumeError,
    WriteError,
)
from cmcr.memories import writer as writer_module
from cmcr.memories.memory import Memory
from cmcr.memories.writer import locked, open_writer, replace_shards, worker_writer

unflushed = stored.unflushed

ROWS = unit(10)
IDS = [f"i{n}" for n in range(10)]


def opened(folder, rows=ROWS, *, shard_items=4, made=ORIGIN, ids=None, **options):
    names = ids or [f"i{n}" for n in range(len(rows))]
    return open_writer(folder, made, surveyed(names, shard_items), shard_items=shard_items, **options)


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
    return writer.write(number, torch.from_numpy(rows[span.start : span.stop]), [(f"i{n}", f"s:{n}") for n in span], ())


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


def test_memory_from_nothing(tmp_path):
    folder = tmp_path / "deep" / "memory"
    assert begin(folder) == [0, 1, 2]
    np.testing.assert_array_equal(twin_rows(folder), ROWS)
    assert twin_ids(folder) == IDS
    assert set(files_of(folder)) == {
        ".lock", "config.json", *(f"shard-0000{n}.{e}" for n in range(3) for e in ("items.jsonl", "safetensors")),
    }  # fmt: skip


@pytest.mark.parametrize("stopped_after", [[], [0], [2, 0], [1], [0, 1, 2]])
def test_resumed_run_is_byte_for_byte_the_same(tmp_path, stopped_after):
    begin(tmp_path / "whole")
    begin(tmp_path / "stopped", numbers=stopped_after, finish=False)
    with pytest.raises(FormatError, match="was never finished"):
        Memory(tmp_path / "stopped")
    assert begin(tmp_path / "stopped") == [n for n in range(3) if n not in stopped_after]
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


def test_worker_writer_needs_the_plan_and_the_versions_of_the_run(tmp_path, monkeypatch):
    with opened(tmp_path / "shared") as writer:
        write(worker_writer(tmp_path / "shared", writer.plan), 1)
        with opened(tmp_path / "elsewhere", shard_items=5), pytest.raises(ConfigError, match="all machines share"):
            worker_writer(tmp_path / "elsewhere", writer.plan)
        monkeypatch.setattr(writer_module, "versions_here", lambda: {**writer.plan.run.versions, "torch": "9"})
        with pytest.raises(ResumeError, match=r"torch was .*, now 9"):
            worker_writer(tmp_path / "shared", writer.plan)
    monkeypatch.undo()
    assert begin(tmp_path / "shared") == [0, 2]


def test_finishing_too_early_is_refused(tmp_path):
    with opened(tmp_path) as writer:
        write(writer, 1)
        with pytest.raises(ConfigError, match="2 of 3 shards are missing"):
            writer.finish()


def test_finished_memory_of_the_same_plan_stays_as_it_is(tmp_path):
    begin(tmp_path)
    before = files_of(tmp_path)
    assert begin(tmp_path) is None
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"made": origin(fingerprint="f2")}, "fingerprint was 0123456789ab…, now f2"),
        ({"made": origin(space="other", model=None)}, "space was mine, now other; model was a/model, now none"),
        ({"made": origin(dtype="float16")}, "dtype was float32, now float16"),
        ({"shard_items": 5}, "shard_items was 4, now 5"),
        ({"rows": ROWS[:9]}, "number of items was 10, now 9"),
        ({"settings": {"temperature": 0.1}}, "temperature was none, now 0.1"),
    ],
)
def test_another_plan_is_refused_with_what_differs(tmp_path, change, said):
    begin(tmp_path / "begun", numbers=[0], finish=False)
    begin(tmp_path / "done")
    with pytest.raises(ResumeError, match=rf"begun: begun with something else: .*{said}.* Run it as it was begun"):
        begin(tmp_path / "begun", **change)
    with pytest.raises(ResumeError, match=rf"done: made with something else: .*{said}.* with --append"):
        begin(tmp_path / "done", **change)


def test_another_version_of_a_library_is_named(tmp_path, monkeypatch):
    begin(tmp_path, numbers=[0], finish=False)
    here = writer_module.versions_here()
    assert {"cmcr", "torch", "numpy"} <= set(here)
    monkeypatch.setattr(writer_module, "versions_here", lambda: {**here, "torch": "9"})
    with pytest.raises(ResumeError, match=r"versions: torch was .*, now 9"):
        begin(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"origin": 1, "run": 2, "first_shard": 0}'])
def test_damaged_plan(tmp_path, content):
    begin(tmp_path, numbers=[0], finish=False)
    (tmp_path / ".run" / "plan.json").write_text(content)
    with pytest.raises(FormatError, match=r"plan\.json: damaged .* Remove \S+\.run "):
        begin(tmp_path)


def test_wrong_numbers_of_rows(tmp_path):
    with opened(tmp_path) as writer:
        items, bad = [("a", "s")] * 4, bad_item("b", 0)
        for rows, given, quarantined in ((3, items, ()), (4, items, (bad,)), (4, items[:3], (bad,)), (0, [], ())):
            with pytest.raises(ConfigError, match="shard 0: expected 4 items"):
                writer.write(0, torch.zeros(rows, 5), given, quarantined)
        assert writer.missing == [0, 1, 2]


def test_rows_of_another_width_are_refused_before_they_spoil_the_memory(tmp_path):
    with opened(tmp_path) as writer:
        write(writer, 0)
        with pytest.raises(DimensionError, match="shard 1: its rows are 6 wide, those before 5"):
            write(writer, 1, unit(10, width=6))
    begin(tmp_path)
    with pytest.raises(DimensionError, match="shard 0: its rows are 6 wide, those before 5"):
        begin(tmp_path, unit(3, width=6), append=True)
    assert Memory(tmp_path).shape == (10, 5)


def test_settings_out_of_range(tmp_path):
    for shard_items in (0, 2.5, True):
        with pytest.raises(ConfigError, match="shard_items"), open_writer(
            tmp_path / "memory", ORIGIN, surveyed(IDS), shard_items=shard_items
        ):  # fmt: skip
            pass
    with pytest.raises(ConfigError, match="no finished memory to append to"):
        begin(tmp_path / "memory", append=True)


def test_too_small_a_disk_is_refused_before_the_work(tmp_path, monkeypatch):
    begin(tmp_path, numbers=[1], finish=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 119, 119))
    with pytest.raises(WriteError, match="are free"):
        begin(tmp_path, width=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 120, 120))
    assert begin(tmp_path, width=5) == [0, 2]  # six rows of five float32


def test_other_things_are_left_alone(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    (folder / "shard-00000.tar").write_bytes(b"b")
    with pytest.raises(FormatError, match=r"photos: holds other things \(a\.png"):
        begin(folder)
    assert set(files_of(folder)) == {"a.png", "shard-00000.tar"}
    (tmp_path / "link").symlink_to("nowhere")
    for path in (folder / "a.png", tmp_path / "link"):
        with pytest.raises(FormatError, match="expected a folder for a memory"):
            begin(path)


def test_artefact_of_another_kind_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "shard-00000.safetensors").write_bytes(b"weights")
    with pytest.raises(FormatError, match="expected a cmcr memory"):
        begin(tmp_path)
    assert (tmp_path / "shard-00000.safetensors").read_bytes() == b"weights"


def test_leftovers_go_and_the_files_of_others_stay(tmp_path):
    begin(tmp_path)
    strangers = ["shard-00000.safetensors.bak", "shard-1.txt", "shard-00000.tar", "readme.md", ".notes.part"]
    own = ["shard-00001.1.safetensors", "shard-00009.items.jsonl", "shard-00009.quarantine.jsonl",
           ".shard-00009.safetensors.0f.part", ".config.json.0f.part"]  # fmt: skip
    for name in strangers + own:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "shard-00000.json").write_bytes(b"{}")
    before = set(files_of(tmp_path)) - set(own) - {".run/shard-00000.json"}
    assert begin(tmp_path) is None
    assert set(files_of(tmp_path)) == before
    assert not (tmp_path / ".run").exists()


def test_folder_of_the_run_goes_if_the_manifest_came_after_it(tmp_path):
    begin(tmp_path / "m", finish=False)
    shutil.copytree(tmp_path / "m" / ".run", tmp_path / "kept")
    begin(tmp_path / "m")
    shutil.copytree(tmp_path / "kept", tmp_path / "m" / ".run")
    assert begin(tmp_path / "m") is None
    assert not (tmp_path / "m" / ".run").exists()


def test_appended_shards_continue_the_numbers(tmp_path):
    begin(tmp_path)
    more = unit(5, seed=9)
    contents = store(tmp_path, more, append=True, ids=[f"new{n}" for n in range(5)])
    assert [shard.name for shard in contents.shards] == [f"shard-0000{n}" for n in range(5)]
    assert [(s.run, s.first_item, s.items) for s in contents.shards] == [
        (0, 0, 4), (0, 4, 4), (0, 8, 2), (1, 0, 4), (1, 4, 1),
    ]  # fmt: skip
    np.testing.assert_array_equal(Memory(tmp_path)[:], np.concatenate([ROWS, more]))
    assert [run.items for run in contents.runs] == [10, 5]
    assert begin(tmp_path) is None  # the first run is done


def test_stopped_append_leaves_the_memory_whole_and_is_resumed(tmp_path):
    begin(tmp_path)
    more = unit(6, seed=3)
    assert begin(tmp_path, more, append=True, numbers=[1], finish=False) == [0, 1]
    assert Memory(tmp_path).shape == (10, 5)
    assert begin(tmp_path) is None
    with pytest.raises(ResumeError, match=r"number of items was 6, now 3.* or remove \S+\.run, which gives up"):
        begin(tmp_path, unit(3), append=True)
    assert begin(tmp_path, more, append=True) == [0]
    np.testing.assert_array_equal(Memory(tmp_path)[:], np.concatenate([ROWS, more]))


def test_rows_of_another_kind_are_not_appended(tmp_path):
    begin(tmp_path)
    with pytest.raises(ResumeError, match=r"of another kind: fingerprint was 0123456789ab…, now none"):
        begin(tmp_path, append=True, made=origin(fingerprint=None))


def test_one_writer_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(LockedError, match="another run is writing this memory"):
        begin(tmp_path)
    assert begin(tmp_path) == [0, 1, 2]


def test_damaged_manifest_is_not_written_over(tmp_path):
    begin(tmp_path)
    manifest = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**manifest, "rows": 9}))
    for append in (False, True):
        with pytest.raises(IntegrityError, match="its content is not what was written"):
            begin(tmp_path, append=append)


@pytest.mark.parametrize("code", [28, 5])
def test_disk_that_refuses(tmp_path, monkeypatch, code):
    begin(tmp_path, numbers=[0], finish=False)

    def refuse(handle):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(WriteError, match=rf"could not write \({os.strerror(code)}\); finished shards are safe"):
            begin(tmp_path)
    assert begin(tmp_path) == [1, 2]


def test_folder_that_cannot_be_listed_or_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="could not write"):
        begin(tmp_path / "file" / "memory")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(WriteError, match=r"could not write .Permission denied."):
        begin(tmp_path)


def test_replaced_shards(tmp_path):
    contents = store(tmp_path, ROWS[1:], bad=(0,))
    items = [(f"item-{n}", f"list:{n}") for n in range(4)]
    with locked(tmp_path):
        rows = torch.from_numpy(ROWS[:4].copy())
        (shard,) = replace_shards(tmp_path, contents, [(0, ("shard-00000.1", rows, items, []))])
    assert (shard.name, shard.rows, shard.first_item, shard.run) == ("shard-00000.1", 4, 0, 0)
    np.testing.assert_array_equal(Memory(tmp_path)[:], ROWS)
    assert sorted(path.name for path in tmp_path.glob("shard-00000*")) == [
        "shard-00000.1.items.jsonl", "shard-00000.1.safetensors",
    ]  # fmt: skip
    assert not (tmp_path / ".run").exists()
