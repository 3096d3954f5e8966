"""The rows of a shard are written as safetensors writes them, without a copy of them."""

import hashlib

import pytest
import torch
from safetensors.torch import save

from cmcr.files import write_bytes_whole
from cmcr.memories.shards import _serialized


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 7), (1000, 33)])
def test_bytes_are_those_of_safetensors(dtype, shape):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert b"".join(_serialized(rows)) == save({"embeddings": rows})


@pytest.mark.parametrize("size", [0, 10, 3 * 2**20])
def test_files_are_hashed_whether_beside_the_writing_or_after_it(tmp_path, size):
    parts = [b"head", memoryview(bytes(range(256)) * (size // 256))]
    content = b"".join(parts)
    assert write_bytes_whole(tmp_path / "file", *parts) == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_bytes_whole(tmp_path / "file", bytes(2 * 2**20))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
