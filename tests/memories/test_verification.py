"""Whether damage of any kind is found, and reported with its file and its rows."""

from pathlib import Path

import numpy as np
import pytest
from helpers import origin, rows_on_disk, store, unit

import cmcr
from cmcr import artefacts
from cmcr.errors import ArtefactNotFoundError, FormatError, IntegrityError, LockedError, ReadError
from cmcr.files import parsed_manifest, write_manifest
from cmcr.memories.verification import being_written, under_way, unfinished, verify
from cmcr.memories.writer import locked

ROWS = unit(11, width=6)


def write(folder, rows=ROWS, **options):
    """Write three shards of 4 items; the second item of shard 1 is in quarantine."""
    store(folder, rows, bad=(5,), **{"dtype": "float16", **options})
    return folder


@pytest.fixture
def memory(tmp_path):
    return write(tmp_path / "memory")


def test_a_whole_memory(memory):
    files = [path for path in memory.iterdir() if path.name != ".lock"]
    assert len(files) == 8
    assert verify(memory) == {"rows": 11, "files": 8, "bytes": sum(path.stat().st_size for path in files)}


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
        assert "1 of 7 files" in str(caught.value)
        assert f"{file} ({rows}): sha256" in str(caught.value)
    path.write_bytes(whole)
    verify(memory)


def test_a_flipped_bit_in_the_manifest(memory):
    path = memory / "config.json"
    path.write_text(path.read_text().replace('"space": "mine"', '"space": "clap"'))
    for use in (verify, cmcr.Memory):
        with pytest.raises(IntegrityError, match=r"config\.json"):
            use(memory)


def test_all_damage_is_listed(memory):
    (memory / "shard-00000.items.jsonl").unlink()
    (memory / "shard-00001.safetensors").write_bytes(b"short")
    with pytest.raises(IntegrityError) as caught:
        verify(memory)
    assert str(caught.value).splitlines()[1:] == [
        "  shard-00000.items.jsonl (rows 0..3): missing",
        "  shard-00001.safetensors (rows 4..6): 5 bytes, expected 116",
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_value_that_is_not_finite(tmp_path, dtype):
    rows = ROWS.copy()
    rows[8, 2] = np.nan
    with pytest.raises(IntegrityError, match=r"\(rows 7\.\.10\): row 8 is NaN or infinite"):
        verify(write(tmp_path / "memory", rows, dtype=dtype))


def test_a_memory_that_is_unfinished_or_being_written(memory, tmp_path):
    begun = write(tmp_path / "begun", numbers=(0, 2))
    with pytest.raises(FormatError, match="2 of 3 shards"):
        verify(begun)
    run = under_way(begun)
    assert (run.plan.origin, run.plan.run.items, len(run.shards), run.count) == (origin(dtype="float16"), 12, 2, 3)
    assert (unfinished(begun), being_written(begun)) == (True, False)
    for folder in (begun, memory):
        with locked(folder), pytest.raises(LockedError, match="a run is writing"):
            verify(folder)
    assert verify(memory)["rows"] == 11


def test_what_is_not_a_memory(memory, tmp_path):
    manifest = parsed_manifest(memory, "cmcr memory", 1)
    manifest["shards"][0]["bytes"] = {"../elsewhere": 1}
    write_manifest(memory, manifest)
    with pytest.raises(FormatError, match=r"shard-00000: expected the files shard-00000\.items\.jsonl"):
        verify(memory)
    with pytest.raises(ArtefactNotFoundError):
        verify(tmp_path / "nothing")
    with pytest.raises(FormatError, match=r"config\.json"):
        verify(tmp_path)


def test_a_disk_that_fails(memory, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("cmcr.memories.verification.sha256_of", fail)
    with pytest.raises(ReadError, match=r"Input/output error.*shard-00000"):
        verify(memory)


def test_the_description_of_a_memory(memory):
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
    np.testing.assert_array_equal(rows, rows_on_disk(folder))
