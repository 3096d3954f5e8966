"""One shard on disk: its files, its receipt, its rows."""

import hashlib
import json

import numpy as np
import pytest
import torch
from stored import unit

from cmcr.errors import IntegrityError
from cmcr.memories.layout import Quarantined
from cmcr.memories.shards import MappedRows, as_float32, as_kept, finished_shard, kept_tensor, write_shard

KINDS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
AWKWARD = torch.tensor([[0.1, -1 / 3, 1e-8, 6e-5, 1.0, -0.0, 0.99999, 2**-24]])


def written(folder, rows, quarantined=()):
    (folder / ".run").mkdir(exist_ok=True)
    items = [(f"i{n}", f"s:{n}") for n in range(len(rows))]
    return write_shard(folder, "shard-00002", rows, items, quarantined, run=1, first_item=8)


@pytest.mark.parametrize("dtype", KINDS)
def test_rounding_is_that_of_torch(tmp_path, dtype):
    rows = torch.cat([AWKWARD, torch.from_numpy(unit(40, width=8))])
    kept = as_kept(rows, dtype)
    assert torch.equal(kept, rows.to(KINDS[dtype]))
    shard = written(tmp_path, kept)
    mapped = MappedRows(tmp_path / "shard-00002.safetensors", shard, dtype)
    np.testing.assert_array_equal(as_float32(mapped.rows, dtype), rows.to(KINDS[dtype]).float().numpy())
    assert torch.equal(kept_tensor(mapped.rows, dtype), kept)
    assert kept_tensor(mapped.rows, dtype).dtype == KINDS[dtype]


def test_the_receipt_says_what_is_there(tmp_path):
    bad = Quarantined("x", "s:3", 11, "torn")
    shard = written(tmp_path, torch.ones(3, 2), [bad])
    assert (shard.rows, shard.width, shard.run, shard.first_item, shard.items, shard.quarantined) == (3, 2, 1, 8, 4, 1)
    names = {"shard-00002.safetensors", "shard-00002.items.jsonl", "shard-00002.quarantine.jsonl"}
    assert set(shard.sha256) == set(shard.bytes) == names == {path.name for path in tmp_path.glob("shard*")}
    for name in names:
        content = (tmp_path / name).read_bytes()
        assert shard.sha256[name] == hashlib.sha256(content).hexdigest()
        assert shard.bytes[name] == len(content)
    assert finished_shard(tmp_path, "shard-00002") == shard
    assert json.loads((tmp_path / "shard-00002.quarantine.jsonl").read_text()) == bad.__dict__
    assert not list(tmp_path.rglob("*.part"))


def test_without_failures_there_is_no_table_of_them(tmp_path):
    written(tmp_path, torch.ones(1, 2))
    assert not (tmp_path / "shard-00002.quarantine.jsonl").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / ".run/shard-00002.json").unlink(),
        lambda folder: (folder / ".run/shard-00002.json").write_text("{"),
        lambda folder: (folder / ".run/shard-00002.json").write_text("[]"),
        lambda folder: (folder / ".run/shard-00002.json").write_text("{}"),
        lambda folder: (folder / "shard-00002.safetensors").unlink(),
        lambda folder: (folder / "shard-00002.items.jsonl").write_bytes(b""),
    ],
)
def test_without_a_receipt_and_whole_files_a_shard_does_not_count(tmp_path, damage):
    written(tmp_path, torch.ones(3, 2))
    damage(tmp_path)
    assert finished_shard(tmp_path, "shard-00002") is None


def test_a_shard_without_rows(tmp_path):
    shard = written(tmp_path, torch.empty(0, 0), [Quarantined("x", "s", 0, "torn")])
    mapped = MappedRows(tmp_path / "shard-00002.safetensors", shard, "float32")
    assert mapped.rows.shape == (0, 0)
    assert as_float32(mapped.rows, "float32").dtype == np.float32


def test_a_file_of_another_type_is_refused(tmp_path):
    shard = written(tmp_path, torch.ones(3, 2))
    with pytest.raises(IntegrityError, match=r"expected \(3, 2\) F16 in \d+ bytes, got \(3, 2\) F32"):
        MappedRows(tmp_path / "shard-00002.safetensors", shard, "float16")


def test_rows_that_are_no_whole_tensor_are_written_whole(tmp_path):
    rows = torch.arange(12.0).reshape(3, 4).T
    shard = written(tmp_path, rows)
    np.testing.assert_array_equal(MappedRows(tmp_path / "shard-00002.safetensors", shard, "float32").rows, rows.numpy())
