"""Whether a memory on disk is whole: every file against the hash in the manifest, every value finite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from cmcr.errors import FormatError, IntegrityError, LockedError
from cmcr.files import MANIFEST, locked, reading, sha256_of
from cmcr.memories.layout import EMBEDDINGS, LOCK, RUN, Contents, Shard, contents_in, read_plan
from cmcr.memories.shards import mapped_rows
from cmcr.memories.writer import MemoryWriter
from cmcr.progress import tracked

_THREADS = min(8, os.cpu_count() or 1)  # hashing and reading free Python's lock
_SHOWN = 20


def verify(folder: str | Path, show_progress_bar: bool | None = False) -> dict[str, int]:
    """Hash every file of a memory, and look at every value.

    Returns:
        what was found whole: how many "rows", in how many "files" (the manifest among them) of how many "bytes".

    Raises:
        ArtefactNotFoundError: there is nothing.
        FormatError: not a memory, of another version, or not finished; the message says how far it is.
        LockedError: a run is writing it.
        IntegrityError: names every damaged file (the first 20), and the rows that its shard holds.
        ReadError: the system refuses to read it.
    """
    folder = Path(folder)
    run = under_way(folder)
    far = f"{len(run.shards)} of {run.count} shards are finished" if run else "no shard is finished"
    if being_written(folder):
        raise LockedError(f"{folder}: a run is writing this memory ({far}). Verify it when the run has ended.")
    if unfinished(folder):
        raise FormatError(
            f"{folder}: this memory is not finished: {far}. Run the command that began it again; it resumes there."
        )
    contents = contents_in(folder)
    files = check_files(folder, contents, show_progress_bar)
    size = sum(sum(shard.bytes.values()) for shard in contents.shards) + (folder / MANIFEST).stat().st_size
    return {"rows": contents.rows, "files": files + 1, "bytes": size}


def check_files(folder: Path, contents: Contents, show_progress_bar: bool | None = False) -> int:
    """Hash the files of some shards of a memory, and look at every value: how many files; errors as of `verify`."""
    files = list(_files(folder, contents))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="cmcr-verify") as pool, reading(folder):
        checks = [pool.submit(_damage, folder, contents.origin.dtype, *file) for file in files]
        found = [check.result() for check in tracked(checks, "verifying", show_progress_bar)]
    damages = [damage for damage in found if damage]
    if damages:
        listed = "".join(f"\n  {damage}" for damage in damages[:_SHOWN])
        more = f"\n  and {len(damages) - _SHOWN} more" if len(damages) > _SHOWN else ""
        raise IntegrityError(
            f"{folder}: {len(damages)} of {len(files)} files are damaged. Restore them from a copy:{listed}{more}"
        )
    return len(files)


def unfinished(folder: Path) -> bool:
    """Tell a memory whose first run has not finished from everything else: a lock or a run, and no manifest."""
    return folder.is_dir() and not (folder / MANIFEST).exists() and any((folder / n).exists() for n in (RUN, LOCK))


def under_way(folder: Path) -> MemoryWriter | None:
    """Find the unfinished run in a folder, with its finished shards; None where there is none, or none that can be read."""
    try:
        plan = read_plan(folder)
    except (OSError, FormatError):
        return None
    return None if plan is None else MemoryWriter(folder, plan)


def being_written(folder: Path, lock: str = LOCK) -> bool:
    """Find out whether a process holds the lock of a folder."""
    if not (folder / lock).is_file():
        return False
    try:
        with locked(folder / lock, ""):
            return False
    except LockedError:
        return True
    except OSError:  # without permission to write there nobody can ask
        return False


def _files(folder: Path, contents: Contents) -> Iterator[tuple[Shard, range, str]]:
    """Give every file with its shard, and the rows which that holds."""
    start = 0
    for shard in contents.shards:
        rows = range(start, start + shard.rows)
        yield from ((shard, rows, file) for file in sorted(shard.bytes))
        start = rows.stop


def _damage(folder: Path, dtype: str, shard: Shard, rows: range, file: str) -> str:
    """Describe what has happened to a file; empty where it is as it was written."""
    held = f"rows {rows.start}..{rows.stop - 1}" if len(rows) else "no rows"
    found = ""
    try:
        size, sha256 = (folder / file).stat().st_size, sha256_of(folder / file)
        if size != shard.bytes[file]:
            found = f"{size} bytes, expected {shard.bytes[file]}"
        elif sha256 != shard.sha256[file]:
            found = f"sha256 is {sha256[:12]}…, expected {shard.sha256[file][:12]}…: its bytes have changed"
        elif file.endswith(EMBEDDINGS):
            wrong = ~torch.isfinite(mapped_rows(folder, shard, dtype)).all(dim=1)
            found = f"row {rows.start + int(wrong.nonzero()[0])} is NaN or infinite" if wrong.any() else ""
    except FileNotFoundError:
        found = "missing"
    except IntegrityError as error:  # the hash is right, and yet it is not what the manifest says
        found = str(error).removeprefix(f"{folder / file}: ")
    return f"{file} ({held}): {found}" if found else ""
