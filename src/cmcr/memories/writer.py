"""Write a memory shard by shard, so that a run killed at any moment can be gone on with.

The order on disk: the run's plan; for each shard its files, then its receipt; the manifest last; then the folder of the
run is removed. Every file is written under another name, flushed, and renamed. What has no receipt is written again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from cmcr._version import __version__
from cmcr.arrays import check_count
from cmcr.errors import CmcrError, ConfigError, DimensionError, FormatError, LockedError, ResumeError, WriteError
from cmcr.files import MANIFEST, flush_folder, write_bytes_whole, write_manifest
from cmcr.memories.layout import (
    DTYPES,
    LOCK,
    PLAN,
    RUN,
    Contents,
    Origin,
    Quarantined,
    Run,
    Shard,
    manifest_of,
    shard_name,
)
from cmcr.memories.memory import contents_in
from cmcr.memories.plan import Plan, check_same_origin, check_same_plan, read_plan, versions_here
from cmcr.memories.shards import as_kept, finished_shard, write_shard

Replacement = tuple[str, Tensor, Sequence[tuple[str, str]], Sequence[Quarantined]]
"""Of a shard that takes another one's place: its name, rows `(n, D)` as they are kept, items and quarantine."""

_OWN_FILES = re.compile(r"shard-\d{5,}(\.\d+)?\.(safetensors|items\.jsonl|quarantine\.jsonl)")


class MemoryWriter:
    """The only writer of a memory: from `open_writer`.

    Attributes:
        folder: of the memory.
        plan: of this run.
        before: contents of the finished memory that this run appends to, None for a new one.
        shards: what is finished of this run, by the shard's number within it.
    """

    def __init__(self, folder: Path, plan: Plan, before: Contents | None, number_of_run: int) -> None:
        self.folder = folder
        self.plan = plan
        self.before = before
        self._run = number_of_run
        self.shards: dict[int, Shard] = {}
        for number in range(self.count):
            if (shard := finished_shard(folder, self._name(number))) is not None:
                self.shards[number] = shard

    @property
    def count(self) -> int:
        """How many shards the run has."""
        return -(-self.plan.run.items // self.plan.run.shard_items)

    @property
    def missing(self) -> list[int]:
        """Numbers of the run's shards that are not finished."""
        return [number for number in range(self.count) if number not in self.shards]

    @property
    def quarantined(self) -> int:
        """How many items of the finished shards have no row."""
        return sum(shard.quarantined for shard in self.shards.values())

    def items_of(self, number: int) -> range:
        """Positions, in the run's list, of the items of a shard."""
        size = self.plan.run.shard_items
        return range(number * size, min((number + 1) * size, self.plan.run.items))

    def write(
        self, number: int, rows: Tensor, items: Sequence[tuple[str, str]], quarantined: Sequence[Quarantined] = ()
    ) -> Shard:
        """Write one shard.

        Args:
            number: of the shard within the run.
            rows: `(n, D)` floating point, on the CPU; finite.
            items: id and source of each row.
            quarantined: the shard's items that have no row.

        Raises:
            ConfigError: rows and items of other numbers than the shard has.
            DimensionError: rows of another width than those of the other shards.
            WriteError: no permission, disk full; finished shards are safe.
        """
        if len(rows) != len(items) or len(items) + len(quarantined) != len(self.items_of(number)):
            raise ConfigError(
                f"shard {number}: expected {len(self.items_of(number))} items, got {len(rows)} rows, {len(items)} items "
                f"and {len(quarantined)} in quarantine."
            )
        width = self._width
        if len(rows) and width not in (0, rows.shape[1]):
            raise DimensionError(f"shard {number}: its rows are {rows.shape[1]} wide, those before {width}.")
        with _said_on_failure(self.folder):
            self.shards[number] = write_shard(
                self.folder,
                self._name(number),
                as_kept(rows, self.plan.origin.dtype),
                items,
                quarantined,
                run=self._run,
                first_item=self.items_of(number).start,
            )
        return self.shards[number]

    def reload(self) -> None:
        """Look for shards that other processes have written under this writer's lock."""
        for number in self.missing:
            if (shard := finished_shard(self.folder, self._name(number))) is not None:
                self.shards[number] = shard

    def finish(self) -> Contents:
        """Write the manifest, once all shards are there: from now on the memory is whole.

        Raises:
            ConfigError: shards are missing.
            WriteError: no permission, disk full; finished shards are safe.
        """
        if self.missing:
            raise ConfigError(f"{self.folder}: {len(self.missing)} of {self.count} shards are missing.")
        old = self.before or Contents(self.plan.origin)
        contents = Contents(
            self.plan.origin,
            (*old.runs, self.plan.run),
            (*old.shards, *(self.shards[number] for number in range(self.count))),
            f"cmcr {__version__}",
        )
        with _said_on_failure(self.folder):
            write_manifest(self.folder, manifest_of(contents))
        tidy(self.folder, contents)
        return contents

    @property
    def _width(self) -> int:
        """Width of the rows that are there, 0 where there are none."""
        there = (*(self.before.shards if self.before else ()), *self.shards.values())
        return next((shard.width for shard in there if shard.rows), 0)

    def _name(self, number: int) -> str:
        return shard_name(self.plan.first_shard + number)


@contextmanager
def open_writer(
    folder: str | Path,
    origin: Origin,
    items: int,
    digest: str,
    *,
    shard_items: int,
    append: bool = False,
    seen: Contents | None = None,
) -> Iterator[MemoryWriter | None]:
    """Begin a memory, go on with one that was stopped, or append to one that is whole.

    Args:
        folder: of the memory; made if need be.
        origin: what makes the rows.
        items: how many items there are, at least 1.
        digest: what identifies the list of items.
        shard_items: items a shard, at least 1.
        append: add to a finished memory; otherwise one of the same plan is left as it is.
        seen: contents of that memory from which the caller has found out what is new; None if it has not looked.

    Yields:
        the writer; None where the memory is whole already and nothing is to be done.

    Raises:
        ConfigError: settings out of range, or nothing to append to.
        LockedError: another run is writing there.
        ResumeError: begun with another model, input or setting; the message says what differs. Or not as `seen`.
        FormatError: something else is in the folder.
        WriteError: no permission, disk full.
    """
    folder = Path(folder)
    _check_settings(origin, items, shard_items)
    run = Run(items, digest, shard_items, versions_here())
    with locked(folder):
        with _said_on_failure(folder):
            before = finished_contents(folder)
            clean(folder)
        if append and before is None:
            raise ConfigError(f"{folder}: there is no finished memory to append to. Leave --append out.")
        if before is not None and not append:
            if before.origin != origin or run not in before.runs:
                check_same_plan(folder, Plan(before.origin, before.runs[0], 0), Plan(origin, run, 0), finished=True)
            yield None
            return
        if before is not None:
            check_same_origin(folder, before.origin, origin)
            if seen not in (None, before):
                raise ResumeError(f"{folder}: another run has changed the memory meanwhile. Run it again.")
        plan = Plan(origin, run, len(before.shards) if before else 0)
        _begin(folder, plan)
        yield MemoryWriter(folder, plan, before, len(before.runs) if before else 0)


def finished_contents(folder: Path) -> Contents | None:
    """Read the manifest of a memory; None where there is none yet.

    Raises:
        FormatError, IntegrityError: there is a manifest of something else, or a damaged one.
        ReadError: the system refuses to read it.
    """
    return contents_in(folder) if (folder / MANIFEST).is_file() else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a memory's folder, which is made if need be. The system frees it when the process ends.

    Raises:
        LockedError: somebody else holds it.
        FormatError: a file, or a folder of other things, is there.
        WriteError: the folder cannot be made or written to.
    """
    _refuse_strangers(folder)
    lock = FileLock(folder / LOCK, blocking=False)
    with _said_on_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise LockedError(
                f"{folder}: another run is writing this memory. Wait until it ends, or choose another folder."
            ) from error
    try:
        yield
    finally:
        lock.release()


def replace_shards(folder: Path, contents: Contents, replacements: Iterable[tuple[int, Replacement]]) -> list[Shard]:
    """Write shards anew under other names, and a manifest that speaks of them; the caller holds the lock.

    Args:
        folder: of the memory.
        contents: what its manifest says.
        replacements: the places of shards, and what takes them; drawn one after another, so that one is in RAM at a time.

    Returns:
        the new shards.

    Raises:
        WriteError: no permission, disk full; the memory is as it was.
    """
    new: dict[int, Shard] = {}
    with _said_on_failure(folder):
        (folder / RUN).mkdir(exist_ok=True)
        for place, (name, rows, items, quarantined) in replacements:
            old = contents.shards[place]
            new[place] = write_shard(folder, name, rows, items, quarantined, run=old.run, first_item=old.first_item)
        changed = replace(contents, shards=tuple(new.get(place, old) for place, old in enumerate(contents.shards)))
        write_manifest(folder, manifest_of(changed))
    tidy(folder, changed)
    return list(new.values())


def tidy(folder: Path, contents: Contents) -> None:
    """Remove what the manifest does not speak of: the folder of the run, and shards that were written anew since."""
    known = {file for shard in contents.shards for file in shard.bytes}
    for path in folder.glob("shard-*"):
        if path.name not in known and _OWN_FILES.fullmatch(path.name):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder / RUN, ignore_errors=True)


def _begin(folder: Path, plan: Plan) -> None:
    """Write the plan, or make sure that the one that is there is the same."""
    path = folder / RUN / PLAN
    if path.is_file():
        try:
            earlier = read_plan(path)
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path}: damaged ({error}). Remove {folder} and run it again.") from error
        check_same_plan(folder, earlier, plan, finished=False)
        return
    with _said_on_failure(folder):
        path.parent.mkdir(exist_ok=True)
        write_bytes_whole(path, (json.dumps(asdict(plan)) + "\n").encode())
        flush_folder(path.parent)
        flush_folder(folder)
        with contextlib.suppress(PermissionError):  # a folder that may be written to, but not be listed
            flush_folder(folder.absolute().parent)  # else loss of power takes the whole folder


def clean(folder: Path) -> None:
    """Remove what a killed run left half-written, and the run's folder if the manifest came after it was done.

    The caller holds the lock.

    Raises:
        FormatError, IntegrityError: there is a manifest of something else, or a damaged one.
        WriteError: the system refuses to remove something.
    """
    with _said_on_failure(folder):
        _clean(folder)


def _clean(folder: Path) -> None:
    for path in (*folder.glob(".shard-*.part"), *folder.glob(f".{MANIFEST}.*.part"), *(folder / RUN).glob(".*.part")):
        path.unlink(missing_ok=True)
    contents = finished_contents(folder)
    if contents is None:
        return
    try:
        done = read_plan(folder / RUN / PLAN).first_shard < len(contents.shards)
    except FileNotFoundError:
        done = True
    except (ValueError, KeyError, TypeError):
        done = False  # `_begin` says so
    if done:
        tidy(folder, contents)


def _refuse_strangers(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FormatError(f"{folder}: expected a folder for a memory, there is a file. Choose another path.")
    with _said_on_failure(folder):
        names = {path.name for path in folder.iterdir()}
    if names and not names & {MANIFEST, RUN, LOCK}:
        raise FormatError(f"{folder}: holds other things ({sorted(names)[0]}, ...). Choose an empty or new folder.")


def _check_settings(origin: Origin, items: int, shard_items: int) -> None:
    if origin.dtype not in DTYPES:
        raise ConfigError(f"dtype: expected {', '.join(DTYPES)}, got {origin.dtype!r}.")
    check_count("shard_items", shard_items)
    if items < 1:
        raise ConfigError("there are no items to embed.")


@contextmanager
def _said_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except CmcrError:  # some are OSErrors too: already said
        raise
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> WriteError:
    reason = error.strerror or str(error)
    advice = "free space and run it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run it again"
    return WriteError(
        error.errno or errno.EIO, f"could not write ({reason}); finished shards are safe: {advice}", str(folder)
    )
