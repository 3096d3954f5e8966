"""Whether a memory on disk is whole: every file against the hash in the manifest, every value finite."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from cmcr.errors import ArtefactError, FormatError, IntegrityError, LockedError, ReadError
from cmcr.files import MANIFEST, parsed_manifest, sha256_of
from cmcr.memories.layout import (
    FORMAT,
    LOCK,
    PLAN,
    RUN,
    VERSION,
    Contents,
    Origin,
    Run,
    Shard,
    contents_of,
    embeddings_file,
    items_file,
    quarantine_file,
    shard_name,
)
from cmcr.memories.plan import read_plan
from cmcr.memories.shards import MappedRows, as_float32, finished_shard, read_block
from cmcr.progress import tracked

_THREADS = min(8, os.cpu_count() or 1)  # hashing and reading free Python's lock
_BLOCK_ROWS = 16_384
_TOLD = 20


@dataclass(frozen=True)
class Verified:
    """What was found whole.

    Attributes:
        rows: how many.
        files: how many were hashed, the manifest among them.
        bytes: in these files.
    """

    rows: int
    files: int
    bytes: int


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written.

    Attributes:
        file: its name.
        rows: which rows of the memory its shard holds.
        what: happened to it.
    """

    file: str
    rows: range
    what: str

    def __str__(self) -> str:
        held = f"rows {self.rows.start}..{self.rows.stop - 1}" if len(self.rows) else "no rows"
        return f"{self.file} ({held}): {self.what}"


@dataclass(frozen=True)
class UnderWay:
    """A run that has begun and not ended: it works, was stopped or was killed.

    Attributes:
        origin: what makes its rows.
        run: its list of items.
        finished: shards that are on disk.
        shards: how many it has.
    """

    origin: Origin
    run: Run
    finished: int
    shards: int


def verify(folder: str | Path, show_progress_bar: bool | None = False) -> Verified:
    """Hash every file of a memory, and look at every value.

    Args:
        folder: of the memory.
        show_progress_bar: see `cmcr.progress.tracked`.

    Raises:
        ArtefactNotFoundError: there is nothing.
        FormatError: not a memory, of another version, or not finished; the message says how far it is.
        LockedError: a run is writing it.
        IntegrityError: names every damaged file (the first 20), and the rows that its shard holds.
        ReadError: the system refuses to read it.
    """
    folder = Path(folder)
    try:
        return _verified(folder, show_progress_bar)
    except ArtefactError:  # some are OSErrors too: already said
        raise
    except OSError as error:
        place, reason = str(error.filename or folder), error.strerror or str(error)
        raise ReadError(error.errno or errno.EIO, f"could not read ({reason})", place) from error


def unfinished(folder: Path) -> bool:
    """Tell a memory whose first run has not ended from everything else: a lock or a run, and no manifest."""
    return folder.is_dir() and not (folder / MANIFEST).exists() and any((folder / n).exists() for n in (RUN, LOCK))


def under_way(folder: Path) -> UnderWay | None:
    """Say how far the run is whose plan lies in the folder; None where there is none, or none that can be read."""
    try:
        plan = read_plan(folder / RUN / PLAN)
        origin, run, first = plan.origin, plan.run, plan.first_shard
        numbers = range(first, first - (-run.items // run.shard_items))
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None
    finished = sum(finished_shard(folder, shard_name(number)) is not None for number in numbers)
    return UnderWay(origin, run, finished, len(numbers))


def being_written(folder: Path) -> bool:
    """Say whether a process holds the lock of a memory."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # whoever may not write there cannot ask
        return False


def how_far(folder: Path) -> str:
    """Say in words how far an unfinished memory is."""
    run = under_way(folder)
    return f"{run.finished} of {run.shards} shards are finished" if run else "no shard is finished"


def _verified(folder: Path, show_progress_bar: bool | None) -> Verified:
    if being_written(folder):
        raise LockedError(
            f"{folder}: a run is writing this memory ({how_far(folder)}). Verify it when the run has ended."
        )
    if unfinished(folder):
        raise FormatError(
            f"{folder}: this memory is not finished: {how_far(folder)}. Run the command that began it again; it goes on "
            "from there."
        )
    contents = contents_of(parsed_manifest(folder, FORMAT, VERSION), str(folder))
    files = list(_files(folder, contents))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="cmcr-verify") as pool:
        checks = [pool.submit(_damage, folder, contents.origin.dtype, *file) for file in files]
        found = [check.result() for check in tracked(checks, "verifying", show_progress_bar)]
    damages = [damage for damage in found if damage is not None]
    if damages:
        told = "".join(f"\n  {damage}" for damage in damages[:_TOLD])
        more = f"\n  and {len(damages) - _TOLD} more" if len(damages) > _TOLD else ""
        raise IntegrityError(
            f"{folder}: {len(damages)} of {len(files)} files are damaged. Restore them from a copy:{told}{more}"
        )
    size = sum(sum(shard.bytes.values()) for shard in contents.shards) + (folder / MANIFEST).stat().st_size
    return Verified(contents.rows, len(files) + 1, size)


def _files(folder: Path, contents: Contents) -> Iterator[tuple[Shard, range, str]]:
    """Give every file with its shard, and the rows which that holds."""
    start = 0
    for shard in contents.shards:
        expected = {embeddings_file(shard.name), items_file(shard.name)}
        if shard.quarantined:
            expected.add(quarantine_file(shard.name))
        if set(shard.bytes) != expected or set(shard.sha256) != expected:
            raise FormatError(
                f"{folder / MANIFEST}: {shard.name}: expected the files {', '.join(sorted(expected))}, got "
                f"{', '.join(sorted({*shard.bytes, *shard.sha256}))}."
            )
        rows = range(start, start + shard.rows)
        yield from ((shard, rows, file) for file in sorted(expected))
        start = rows.stop


def _damage(folder: Path, dtype: str, shard: Shard, rows: range, file: str) -> Damage | None:
    path = folder / file
    try:
        size = path.stat().st_size
        if size != shard.bytes[file]:
            return Damage(file, rows, f"{size} bytes, expected {shard.bytes[file]}")
        if (found := sha256_of(path)) != shard.sha256[file]:
            return Damage(
                file, rows, f"sha256 is {found[:12]}…, expected {shard.sha256[file][:12]}…: its bytes have changed"
            )
        if file == embeddings_file(shard.name):
            return _unusable(path, dtype, shard, rows)
    except FileNotFoundError:
        return Damage(file, rows, "missing")
    except IntegrityError as error:  # the hash is right, and yet it is not what the manifest says
        return Damage(file, rows, str(error).removeprefix(f"{path}: "))
    return None


def _unusable(path: Path, dtype: str, shard: Shard, rows: range) -> Damage | None:
    """Find the first row with a value that is not finite."""
    mapped = MappedRows(path, shard, dtype)
    for start in range(0, shard.rows, _BLOCK_ROWS):
        count = min(_BLOCK_ROWS, shard.rows - start)
        block = read_block(path, mapped.offset, mapped.kind, shard.width, start, count)
        finite = np.isfinite(as_float32(block, dtype) if dtype == "bfloat16" else block).all(axis=1)
        if not finite.all():
            return Damage(path.name, rows, f"row {rows.start + start + int(finite.argmin())} is NaN or infinite")
    return None
