"""Rows on disk that are computed from the first to the last, over hours, by runs that may be stopped at any moment."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from cmcr.errors import FormatError, IntegrityError, LockedError, ResumeError, WriteError
from cmcr.files import flush_folder, write_text_whole

_ROWS, _STATE, _LOCK = "rows.bin", "state.json", "lock"
_FORMAT = "cmcr rows under way"


class ResumableRows:
    """A folder with rows that are under way: the rows, and how many of them are finished.

    The state is written after the rows it speaks of are on the disk, so that what it calls finished is.

    Args:
        folder: made if need be. One that holds rows under way is gone on with.
        shape: `(n, D)` of all rows.
        dtype: float32 or float64.
        made_from: what the rows depend on; only a run that says the same goes on with them.

    Attributes:
        rows: `(n, D)` on the CPU, backed by the file: what is written here is on its way to the disk.
        done: how many rows, from the first on, are finished.

    Raises:
        LockedError: another run is at it.
        ResumeError: begun from something else.
        FormatError: the folder holds something else, or the state cannot be read.
        IntegrityError: rows are not those that were written.
        WriteError: no permission, disk full.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], dtype: torch.dtype, made_from: dict[str, Any]) -> None:
        self.folder = folder
        self._made_from = made_from
        self._parts: list[tuple[int, str]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / _LOCK)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise LockedError(f"{folder}: another run is computing these rows. Wait for it, or stop it.") from None
        except OSError as error:
            raise self._cannot_write(error) from error
        try:
            self._open(shape, dtype)
        except BaseException:
            self._lock.release()
            raise

    @property
    def done(self) -> int:
        """Finished rows."""
        return sum(count for count, _ in self._parts)

    def finish(self, upto: int) -> None:
        """Put the rows from the last finished one up to this one on the disk, and call them finished."""
        part = self._mapped[self.done : upto]
        try:
            self._mapped.flush()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._parts.append((upto - self.done, _sha256(part)))
        state = {"format": _FORMAT, "made_from": self._made_from, "parts": self._parts}
        write_text_whole(self.folder / _STATE, json.dumps(state))
        flush_folder(self.folder)

    def go_back_to(self, done: int) -> None:
        """Take rows from this one on for unfinished: another process has not come as far."""
        while self.done > done:
            self._parts.pop()

    def release(self) -> None:
        """Let another run go on."""
        self._lock.release()

    def remove(self) -> None:
        """Delete the folder: the rows are somewhere else now. A system that does not let go of mapped files keeps it."""
        self._lock.release()
        del self.rows, self._mapped
        shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        kind = np.dtype({torch.float32: "<f4", torch.float64: "<f8"}[dtype])
        path = self.folder / _ROWS
        state = self.folder / _STATE
        size = shape[0] * shape[1] * kind.itemsize
        if state.exists():
            self._parts = self._read_state(state)
            if not path.is_file() or path.stat().st_size != size:
                raise IntegrityError(
                    f"{path}: is missing or not as long as it was. Remove {self.folder} to begin anew."
                )
        elif any(
            found.name not in (_ROWS, _LOCK) and not found.name.endswith(".part") for found in self.folder.iterdir()
        ):
            raise FormatError(f"{self.folder}: holds something else. Choose another folder for what is under way.")
        else:
            self._reserve(path, size)
        self._mapped = np.memmap(path, dtype=kind, mode="r+", shape=shape)
        self._check_parts()
        self.rows: Tensor = torch.from_numpy(self._mapped)

    def _reserve(self, path: Path, size: int) -> None:
        """Make sure of the disk before hours of work: a mapped file that outgrows it would end the process."""
        try:
            free = shutil.disk_usage(self.folder).free + (path.stat().st_size if path.exists() else 0)
            if free < size:
                raise OSError(errno.ENOSPC, f"the rows take {size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free")
            with path.open("wb") as file:
                zeros = bytes(2**20)
                for start in range(0, size, len(zeros)):
                    file.write(zeros[: size - start])
        except OSError as error:
            raise self._cannot_write(error) from error

    def _read_state(self, path: Path) -> list[tuple[int, str]]:
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            made_from, parts = state["made_from"], [(int(count), str(digest)) for count, digest in state["parts"]]
            if state["format"] != _FORMAT:
                raise ValueError(state["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path}: cannot be read ({error!r}). Remove {self.folder} to begin anew.") from error
        differ = [name for name in {**made_from, **self._made_from} if made_from.get(name) != self._made_from.get(name)]
        if differ:
            was = ", ".join(f"{name} was {made_from.get(name)!r}, is {self._made_from.get(name)!r}" for name in differ)
            raise ResumeError(
                f"{self.folder}: was begun from something else ({was}). Remove it to begin anew, or choose another folder."
            )
        return parts

    def _check_parts(self) -> None:
        start = 0
        for count, digest in self._parts:
            if _sha256(self._mapped[start : start + count]) != digest:
                raise IntegrityError(
                    f"{self.folder / _ROWS}: rows {start}..{start + count - 1} are not those that were written. Remove "
                    f"{self.folder} to begin anew."
                )
            start += count

    def _cannot_write(self, error: OSError) -> WriteError:
        return WriteError(error.errno or errno.EIO, f"could not write ({error.strerror or error})", str(self.folder))


def _sha256(rows: NDArray[Any]) -> str:
    return hashlib.sha256(rows.view(np.uint8).data).hexdigest()
