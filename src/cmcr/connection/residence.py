"""Where rows live while they are trained on: on the device, in RAM, or in files that the system maps into memory."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from cmcr.engine.device import available_ram_bytes
from cmcr.errors import WriteError

Empty = Callable[[int, int], Tensor]
"""Makes an uninitialised float32 tensor of so many rows and of that width."""

ROWS_IN_FILES = "rows-"
"""How names of folders begin in which rows live for a while."""

SHARE_OF_DEVICE = 0.7
"""Of a GPU's free memory, what rows may take; the rest is for activations and the loss."""

SHARE_OF_RAM = 0.8
"""Of the RAM that is available, what rows may take."""

_ZEROS_AT_ONCE = 2**20


@contextmanager
def room_for(size: int, device: torch.device, *, processes: int = 1, folder: Path | None = None) -> Iterator[Empty]:
    """Find room for rows: on the device if they fit, else in RAM, else in files, removed when the block is left.

    Args:
        size: bytes in all.
        device: that computes.
        processes: that need as much RAM each.
        folder: in which to make the files; None takes the system's folder for temporary files.

    Yields:
        what makes tensors there.

    Raises:
        WriteError: neither memory nor disk has room, or no folder for the files can be made.
    """
    if fits_on(device, size) and (device.type != "cpu" or fits_in_ram(size * processes)):
        yield lambda rows, width: torch.empty(rows, width, dtype=torch.float32, device=device)
        return
    if device.type != "cpu" and fits_in_ram(size * processes):
        yield lambda rows, width: torch.empty(rows, width, dtype=torch.float32)
        return
    with _home(folder, size) as home:
        numbers = iter(range(sys.maxsize))
        yield lambda rows, width: _in_file(Path(home) / str(next(numbers)), rows, width)


def fits_on(device: torch.device, size: int) -> bool:
    """Tell whether so many bytes fit into a GPU beside what training needs; on a CPU they are where they are."""
    if device.type == "cuda":
        # What torch holds and has no use for now is taken for the system, and free for us.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return size <= SHARE_OF_DEVICE * (torch.cuda.mem_get_info(device)[0] + held)
    if device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        return size <= SHARE_OF_DEVICE * free
    return True


def fits_in_ram(size: int) -> bool:
    """Tell whether so many bytes fit into RAM."""
    return size <= SHARE_OF_RAM * available_ram_bytes()


def _home(folder: Path | None, size: int) -> tempfile.TemporaryDirectory[str]:
    """Make the folder of the files."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=ROWS_IN_FILES, dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(size, error, folder or Path(os.environ.get("TMPDIR", os.curdir))) from error


def _in_file(path: Path, rows: int, width: int) -> Tensor:
    """Make a tensor whose memory is a file; the whole file is taken from the disk now, not when it is written to."""
    size = 4 * rows * width
    try:
        with path.open("xb") as file:
            _take_from_disk(file, size)
    except OSError as error:
        raise _no_room(size, error, path.parent) from error
    tensor = torch.from_file(str(path), shared=True, size=rows * width, dtype=torch.float32).view(rows, width)
    if os.name != "nt":  # which removes no file that is mapped
        path.unlink()  # so that a kill leaves nothing: the file lives as long as it is mapped
    return tensor


def _no_room(size: int, error: OSError, folder: Path) -> WriteError:
    return WriteError(
        error.errno or errno.EIO,
        f"could not make room for {size / 1e9:.1f} GB of embeddings, which RAM does not hold ({error.strerror or error}). "
        "Free space, or let TMPDIR name a larger disk",
        str(folder),
    )


def _take_from_disk(file: BinaryIO, size: int) -> None:
    """Make a file of so many bytes that the disk really has: written to by mapping, a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = memoryview(bytes(min(size, _ZEROS_AT_ONCE)))
    for start in range(0, size, _ZEROS_AT_ONCE):
        file.write(zeros[: size - start])
