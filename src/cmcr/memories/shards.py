"""One shard of a memory: written so that it is whole or not there, opened by mapping it into memory."""

from __future__ import annotations

import errno
import json
import math
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.errors import ArtefactError, IntegrityError, ReadError
from cmcr.files import flush_folder, write_bytes_whole
from cmcr.memories.layout import (
    DTYPES,
    RUN,
    Quarantined,
    Shard,
    embeddings_file,
    item_lines,
    items_file,
    quarantine_file,
    quarantine_lines,
    receipt_file,
    record,
)

TENSOR = "embeddings"
_NUMPY: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "BF16": np.dtype("<u2"),
}  # numpy has no bfloat16: its bits
_LARGE = 8192  # values
_CODES = {"float16": "F16", "float32": "F32", "bfloat16": "BF16"}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


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

    Args:
        folder: of the memory.
        name: of the shard.
        rows: `(n, D)` in the memory's dtype, on the CPU.
        items: id and source of each row.
        quarantined: its items that have no row.
        run: which of the memory's runs it belongs to.
        first_item: position of its first item in the run.

    Raises:
        OSError: no permission, disk full.
    """
    contents: dict[str, Sequence[bytes | memoryview]] = {
        embeddings_file(name): _serialized(rows.contiguous()),
        items_file(name): [item_lines(items)],
    }
    if quarantined:
        contents[quarantine_file(name)] = [quarantine_lines(quarantined)]
    shard = Shard(
        name=name,
        rows=len(rows),
        width=rows.shape[1],
        run=run,
        first_item=first_item,
        items=len(items) + len(quarantined),
        sha256={file: write_bytes_whole(folder / file, *content) for file, content in contents.items()},
        bytes={file: sum(map(len, content)) for file, content in contents.items()},
    )
    flush_folder(folder)  # before the receipt, which says that they are there
    write_bytes_whole(folder / RUN / receipt_file(name), (json.dumps(asdict(shard)) + "\n").encode())
    flush_folder(folder / RUN)
    return shard


def _serialized(rows: Tensor) -> tuple[bytes, memoryview]:
    """Serialize rows as safetensors does, without copying them: a header, and the memory in which they lie."""
    content = rows.view(torch.uint8).numpy().reshape(-1).data
    entry = {"dtype": _CODES[_NAMES[rows.dtype]], "shape": list(rows.shape), "data_offsets": [0, len(content)]}
    header = json.dumps({TENSOR: entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, content


def finished_shard(folder: Path, name: str) -> Shard | None:
    """Read the receipt of a shard; None where there is none, or where a file that it speaks of is not that long."""
    path = folder / RUN / receipt_file(name)
    if not path.is_file():
        return None
    try:
        shard = record(Shard, json.loads(path.read_bytes()))
        whole = all((folder / file).stat().st_size == size for file, size in shard.bytes.items())
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
        return None
    return shard if whole else None


class MappedRows:
    """The rows of a shard, mapped into memory when they are first asked for: until then no file is held open.

    Args:
        path: of the safetensors file.
        shard: what the manifest says of it.
        dtype: the memory's.

    Attributes:
        offset: where the rows begin in the file, in bytes.
        kind: dtype of the rows; of bfloat16 that of its bits, uint16.

    Raises:
        IntegrityError: missing, cut short, or of another shape or type than the manifest says.
        ReadError: the system refuses to read it.
    """

    def __init__(self, path: Path, shard: Shard, dtype: str) -> None:
        self.path = path
        self.offset = _start_of_rows(path, shard, dtype)
        self.kind: np.dtype[Any] = _NUMPY[_CODES[dtype]]
        self._shape = (shard.rows, shard.width)

    @cached_property
    def rows(self) -> NDArray[Any]:
        """The rows `(n, D)`, float16 or float32; of bfloat16 its bits, as uint16.

        Raises:
            IntegrityError: the file is missing.
            ReadError: the system refuses to read it.
        """
        if not self._shape[0]:
            return np.empty(self._shape, dtype=self.kind)
        with reading(self.path), self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Not numpy's memmap: that class makes every row that is taken out of it several times dearer.
        flat = np.frombuffer(mapped, dtype=self.kind, count=math.prod(self._shape), offset=self.offset)
        return flat.reshape(self._shape)


def read_block(path: Path, offset: int, kind: np.dtype[Any], width: int, start: int, count: int) -> NDArray[Any]:
    """Read consecutive rows of a shard through the file, not through the map, whose pages would count as the process's.

    Raises:
        IntegrityError: missing or cut short since it was opened.
        ReadError: the system refuses to read it.
    """
    with reading(path):
        block = np.fromfile(path, dtype=kind, count=count * width, offset=offset + start * width * kind.itemsize)
    if block.size < count * width:
        raise IntegrityError(f"{path}: cut short while it was read. Restore the memory from a copy.")
    return block.reshape(count, width)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in our words why a file of a memory cannot be read.

    Raises:
        IntegrityError: it is missing.
        ReadError: the system refuses to read it.
    """
    try:
        yield
    except ArtefactError:  # a ReadError is an OSError too: already said
        raise
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing. Restore the memory from a copy.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReadError(error.errno or errno.EIO, f"could not read ({reason})", str(path)) from error


def as_float32(rows: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Turn rows of a memory's dtype, as they are kept, into float32."""
    if rows.size > _LARGE and rows.flags.writeable:
        # torch converts some ten times faster than numpy, but starts later. Into numpy's memory: what torch allocates
        # anew for every block stays with the process.
        converted = np.empty(rows.shape, dtype=np.float32)
        given = torch.from_numpy(rows)
        torch.from_numpy(converted).copy_(given.view(torch.bfloat16) if dtype == "bfloat16" else given)
        return converted
    if dtype == "bfloat16":
        return (rows.astype(np.uint32) << 16).view(np.float32)  # bfloat16 is the upper half of a float32
    return rows.astype(np.float32)


def as_kept(rows: Tensor, dtype: str) -> Tensor:
    """Turn float32 rows into the dtype in which a memory keeps them."""
    return rows.to(DTYPES[dtype])


def kept_tensor(rows: NDArray[Any], dtype: str) -> Tensor:
    """Turn rows as they are kept into a tensor of the memory's dtype, on a copy."""
    tensor = torch.from_numpy(rows.copy())
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _start_of_rows(path: Path, shard: Shard, dtype: str) -> int:
    """Check a shard's file against the manifest, and find where its rows begin."""
    try:
        with reading(path), path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        entry = header[TENSOR]
        found = (entry["dtype"], tuple(entry["shape"]))
        start = 8 + length + int(entry["data_offsets"][0])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise IntegrityError(f"{path}: its header is damaged. Restore the memory from a copy.") from error
    expected = (_CODES[dtype], (shard.rows, shard.width))
    if found != expected or size != shard.bytes[path.name]:
        raise IntegrityError(
            f"{path}: expected {expected[1]} {expected[0]} in {shard.bytes[path.name]} bytes, got {found[1]} {found[0]} in "
            f"{size}. Restore the memory from a copy."
        )
    return start
