"""One shard of a memory: written so that it is whole or not there, read by mapping it into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from cmcr.errors import FormatError, IntegrityError
from cmcr.files import flush, read_signed, signed, write_bytes_whole
from cmcr.memories.layout import (
    DTYPES,
    EMBEDDINGS,
    ITEMS,
    QUARANTINE,
    RECEIPT,
    RUN,
    Quarantined,
    Shard,
    item_lines,
    quarantine_lines,
    reading,
)

TENSOR = "embeddings"


def write_shard(
    folder: Path,
    name: str,
    rows: Tensor,
    items: Sequence[tuple[str, str]],
    quarantined: Sequence[Quarantined],
    *,
    run: int,
    first_item: int,
) -> Shard:
    """Write the files of a shard, then its receipt; until the receipt is there the shard does not count.

    Arguments are as of `MemoryWriter.write`, with the rows in the memory's dtype, and of `Shard`; raises OSError.
    """
    contents = {name + EMBEDDINGS: save({TENSOR: rows.contiguous()}), name + ITEMS: item_lines(items)}
    if quarantined:
        contents[name + QUARANTINE] = quarantine_lines(quarantined)
    shard = Shard(
        name=name,
        rows=len(rows),
        width=rows.shape[1],
        run=run,
        first_item=first_item,
        items=len(items) + len(quarantined),
        sha256={file: write_bytes_whole(folder / file, content) for file, content in contents.items()},
        bytes={file: len(content) for file, content in contents.items()},
    )
    flush(folder)  # before the receipt, which tells that they are there
    write_bytes_whole(folder / RUN / (name + RECEIPT), signed(shard.model_dump(mode="json")))
    flush(folder / RUN)
    return shard


def finished_shard(folder: Path, name: str) -> Shard | None:
    """Read the receipt of a shard; None where there is none, or where a file that it names is not that long."""
    path = folder / RUN / (name + RECEIPT)
    if not path.is_file():
        return None
    try:
        shard = read_signed(path, Shard)
        whole = all((folder / file).stat().st_size == size for file, size in shard.bytes.items())
    except (FormatError, IntegrityError, FileNotFoundError):
        return None
    return shard if whole and shard.name == name else None


def mapped_rows(folder: Path, shard: Shard, dtype: str) -> Tensor:
    """Map the rows of a shard into memory: `(n, D)` in the memory's dtype, read as they are used. No file stays open.

    Raises:
        IntegrityError: missing, cut short, or of another shape or type than the manifest says.
        ReadError: the system refuses to read it.
    """
    path = folder / (shard.name + EMBEDDINGS)
    with reading(path), safe_open(path, framework="pt") as file:
        rows: Tensor = file.get_tensor(TENSOR)
    expected = (DTYPES[dtype], (shard.rows, shard.width))
    if (rows.dtype, tuple(rows.shape)) != expected:
        raise IntegrityError(
            f"{path}: expected {expected[1]} {expected[0]}, got {tuple(rows.shape)} {rows.dtype}. Restore the memory from a "
            "copy."
        )
    return rows


def as_float32(rows: Tensor) -> NDArray[np.float32]:
    """Copy rows of any dtype into a float32 array of its own."""
    array = np.empty(rows.shape, dtype=np.float32)  # blocks that torch allocates stay with the process
    torch.from_numpy(array).copy_(rows)
    return array
