"""Whether damage of any kind is found, and told with its file and its rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from stored import bad_item, origin, surveyed

import cmcr
from cmcr import artefacts
from cmcr.errors import ArtefactNotFoundError, FormatError, IntegrityError, LockedError, ReadError
from cmcr.files import parsed_manifest, write_manifest
from cmcr.memories.verification import Verified, being_written, under_way, unfinished, verify
from cmcr.memories.writer import locked, open_writer


def write(folder, shards=(0, 1, 2), dtype="float16", bad_row=None, stop=False):
    """Write shards of 4 items; the second item of shard 1 is in quarantine."""
    rows = torch.from_numpy(np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32))
    if bad_row is not None:
        rows[bad_row, 2] = float("nan")
    with open_writer(folder, origin(dtype=dtype), surveyed([f"i{n}" for n in range(12)]), shard_items=4) as writer:
        for number in shards:
            positions = [p for p in writer.items_of(number) if p != 5]
            lost = [bad_item("i5", 5)] if number == 1 else []
            writer.write(number, rows[positions], [(f"i{p}", f"s:{p}") for p in positions], lost)
        if not stop:
            writer.finish()
    return folder


@pytest.fixture
def memory(tmp_path):
    return write(tmp_path / "memory")


def test_a_whole_memory(memory):
    files = [path for path in memory.iterdir() if path.name != ".lock"]
    assert verify(memory) == Verified(11, 8, sum(path.stat().st_size for path in files))
    assert len(files) == 8


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_dtypes(tmp_path, dtype):
    assert verify(write(tmp_path / "memory", dtype=dtype)).rows == 11


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("shard-00000.safetensors", "rows 0..3"),
        ("shard-00001.safetensors", "rows 4..6"),
        ("shard-00001.items.jsonl", "rows 4..6"),
        ("shard-00001.quarantine.jsonl", "rows 4..6"),
        ("shard-00002.items.jsonl", "rows 7..10"),
    ],
)
def test_a_flipped_bit_in_any_file_is_found_at_any_place(memory, file, rows):
    path = memory / file
    whole = path.read_bytes()
    for place in {0, 9, len(whole) // 2, len(whole) - 1}:
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError) as caught:
            verify(memory)
        assert f"{memory}: 1 of 7 files are damaged. Restore them from a copy:\n  {file} ({rows}): sha256 is " in str(
            caught.value
        )
        assert str(caught.value).endswith("its bytes have changed")
    path.write_bytes(whole)
    verify(memory)


def test_a_flipped_bit_in_the_manifest(memory):
    path = memory / "config.json"
    path.write_text(path.read_text().replace('"space": "mine"', '"space": "clap"'))
    with pytest.raises(IntegrityError, match=r"config\.json: its content is not what was written"):
        verify(memory)
    with pytest.raises(IntegrityError):
        cmcr.Memory(memory)


def test_every_damage_is_told(memory):
    (memory / "shard-00000.items.jsonl").unlink()
    (memory / "shard-00001.safetensors").write_bytes(b"short")
    with pytest.raises(IntegrityError) as caught:
        verify(memory)
    assert str(caught.value).splitlines()[1:] == [
        "  shard-00000.items.jsonl (rows 0..3): missing",
        "  shard-00001.safetensors (rows 4..6): 5 bytes, expected 116",
    ]
    with pytest.raises(IntegrityError, match="missing"):
        cmcr.Memory(memory)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_value_that_is_not_finite(tmp_path, dtype):
    with pytest.raises(IntegrityError, match=r"shard-00002\.safetensors \(rows 7\.\.10\): row 8 is NaN or infinite"):
        verify(write(tmp_path / "memory", dtype=dtype, bad_row=9))  # item 5 has no row


def test_an_unfinished_memory(tmp_path):
    folder = write(tmp_path / "memory", shards=(0, 2), stop=True)
    said = "this memory is not finished: 2 of 3 shards are finished. Run the command that began it again"
    with pytest.raises(FormatError, match=said):
        verify(folder)
    run = under_way(folder)
    assert (run.plan.origin, run.plan.run.items, len(run.shards), run.count) == (origin(dtype="float16"), 12, 2, 3)
    assert (unfinished(folder), being_written(folder)) == (True, False)


def test_a_memory_that_is_being_written(memory, tmp_path):
    with locked(memory), pytest.raises(LockedError, match="a run is writing this memory"):
        verify(memory)
    begun = write(tmp_path / "begun", shards=(1,), stop=True)
    with locked(begun), pytest.raises(LockedError, match="1 of 3 shards are finished"):
        verify(begun)
    assert verify(memory).rows == 11


def test_a_manifest_that_names_other_files(memory):
    manifest = parsed_manifest(memory, "cmcr memory", 1)
    manifest["shards"][0]["bytes"] = {"../elsewhere": 1}
    write_manifest(memory, manifest)
    with pytest.raises(
        FormatError, match=r"shard-00000: expected the files shard-00000\.items\.jsonl, shard-00000\.saf"
    ):
        verify(memory)


def test_nothing_and_other_things(tmp_path):
    with pytest.raises(ArtefactNotFoundError):
        verify(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(FormatError, match=r"has no config\.json"):
        verify(tmp_path / "other")


def test_description_of_a_memory(memory):
    facts = artefacts.describe(memory)
    assert facts.pop("written_by").startswith("cmcr ")
    assert facts == {
        "kind": "memory", "finished": True, "space": "mine", "modality": "text", "model": "a/model", "revision": "c0ffee",
        "fingerprint": "0123456789abcdef", "width": 6, "dtype": "float16", "rows": 11, "shards": 3, "runs": 1,
        "quarantined": 1, "quarantined_because": {"bad N": 1},
    }  # fmt: skip
    (memory / "config.json").unlink()
    assert artefacts.describe(memory)["finished"] is False
    with pytest.raises(FormatError, match="not finished"):
        artefacts.verify(memory)


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_the_snippet_of_the_documents_reads_all_rows(tmp_path, monkeypatch, dtype):
    folder = write(tmp_path / "captions-in-clip", dtype=dtype)
    page = (Path(__file__).parents[2] / "docs" / "file-formats.md").read_text(encoding="utf-8")
    snippet = page.split("with numpy alone:")[1].split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(snippet, found)
    rows = found["rows"]
    rows = (rows.astype("<u4") << 16).view("<f4") if dtype == "bfloat16" else rows.astype(np.float32)
    np.testing.assert_array_equal(rows, cmcr.Memory(folder)[:])


def test_a_failing_disk_is_told(memory, monkeypatch):
    def failing(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("cmcr.memories.verification.sha256_of", failing)
    with pytest.raises(ReadError, match=r"could not read \(Input/output error\).*shard-00000"):
        verify(memory)
