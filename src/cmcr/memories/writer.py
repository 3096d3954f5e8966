"""Write a memory shard by shard, so that a run killed at any moment can be resumed.

The order on disk: the run's plan; for each shard its files, then its receipt; the manifest last; then the folder of the
run is removed. Every file is written under another name, flushed, and renamed. What has no receipt is written again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from cmcr import files
from cmcr._version import versions_here
from cmcr.arrays import check_count
from cmcr.data.items import as_id
from cmcr.errors import ConfigError, DimensionError, FormatError, ResumeError, differences
from cmcr.files import MANIFEST, flush, sha256_of, signed, write_bytes_whole, write_manifest, writing
from cmcr.memories.layout import (
    DTYPES,
    LOCK,
    MOST_SHARDS,
    PLAN,
    RUN,
    Contents,
    Origin,
    Plan,
    Quarantined,
    Run,
    Shard,
    contents_in,
    manifest_of,
    quarantine_in,
    read_plan,
    shard_name,
)
from cmcr.memories.shards import finished_shard, write_shard
from cmcr.memories.survey import Survey

_OWN_FILES = re.compile(r"shard-\d{5,}(\.\d+)?\.(safetensors|items\.jsonl|quarantine\.jsonl)")
_SAFE = "finished shards are safe: run it again once that is fixed"
"""Ends the message of a write that was refused."""


class MemoryWriter:
    """The only writer of a memory, from `open_writer`; or one of its worker processes, which hold no lock.

    Attributes:
        folder: of the memory.
        plan: of this run.
        before: contents of the finished memory that this run appends to, None for a new one.
        root: the folder that ids which are paths begin from; known to the manifest alone, not to the plan.
        shards: what is finished of this run, by the shard's number within it.
        references: rows of a few fixed inputs, for the manifest of a new memory.
    """

    references: tuple[tuple[float, ...], ...] = ()

    def __init__(self, folder: Path, plan: Plan, before: Contents | None = None, root: Path | None = None) -> None:
        self.folder = folder
        self.plan = plan
        self.before = before
        self.root = root
        found = {number: finished_shard(folder, self._name(number)) for number in range(self.count)}
        self.shards: dict[int, Shard] = {number: shard for number, shard in found.items() if shard is not None}

    @property
    def count(self) -> int:
        """How many shards the run has."""
        return -(-self.plan.run.items // self.plan.run.shard_items)

    @property
    def missing(self) -> list[int]:
        """Numbers of the run's shards that are not finished."""
        return [number for number in range(self.count) if number not in self.shards]

    def items_of(self, number: int) -> range:
        """Positions, in the run's list, of the items of a shard."""
        size = self.plan.run.shard_items
        return range(number * size, min((number + 1) * size, self.plan.run.items))

    def write(
        self, number: int, rows: Tensor, items: Sequence[tuple[str, str]], quarantined: Sequence[Quarantined] = ()
    ) -> Shard:
        """Write one shard: rows `(n, D)`, finite, on the CPU, the id and source of each, and the items that have no row.

        Raises:
            ConfigError: rows and items of other numbers than the shard has.
            DimensionError: rows of another width than those of the other shards.
            WriteError: no permission, disk full; finished shards are safe.
        """
        span = self.items_of(number)
        if len(rows) != len(items) or len(items) + len(quarantined) != len(span):
            raise ConfigError(
                f"shard {number}: expected {len(span)} items, got {len(rows)} rows, {len(items)} items and "
                f"{len(quarantined)} in quarantine."
            )
        others = (*(self.before.shards if self.before else ()), *self.shards.values())
        width = next((shard.width for shard in others if shard.rows), 0)
        if len(rows) and width not in (0, rows.shape[1]):
            raise DimensionError(f"shard {number}: its rows are {rows.shape[1]} wide, those before {width}.")
        kept, run, first = rows.to(DTYPES[self.plan.origin.dtype]), self.plan.number, span.start
        with writing(self.folder, _SAFE):
            shard = write_shard(self.folder, self._name(number), kept, items, quarantined, run=run, first_item=first)
        self.shards[number] = shard
        return shard

    def drop_changed(self) -> None:
        """Forget finished shards whose files are not what was written: they are written again."""
        for number, shard in list(self.shards.items()):
            if any(sha256_of(self.folder / file) != hashed for file, hashed in shard.sha256.items()):
                del self.shards[number]

    def finish(self) -> Contents:
        """Write the manifest, once all shards are there: from now on the memory is whole.

        Raises:
            ConfigError: shards are missing, or none has a row.
            WriteError: no permission, disk full; finished shards are safe.
        """
        if self.missing:
            raise ConfigError(f"{self.folder}: {len(self.missing)} of {self.count} shards are missing.")
        old = self.before or Contents(origin=self.plan.origin)
        shards = (*old.shards, *(self.shards[number] for number in range(self.count)))
        run = self.plan.run.model_copy(update={"root": None if self.root is None else self._relative(self.root)})
        references = old.references if self.before else self.references
        contents = Contents(origin=self.plan.origin, runs=(*old.runs, run), shards=shards, references=references)
        if not contents.rows:
            reason = quarantine_in(self.folder, shards[-1])[-1].reason.rstrip(".")
            shutil.rmtree(self.folder / RUN)  # there is nothing to resume
            raise ConfigError(
                f"{self.folder}: none of the {self.plan.run.items} items has a usable row; the last one: {reason}. See "
                f"{self.folder}/*.quarantine.jsonl, and run it again when that is fixed."
            )
        with writing(self.folder, _SAFE):
            write_manifest(self.folder, manifest_of(contents))
        tidy(self.folder, contents)
        return contents

    def _relative(self, root: Path) -> str | None:
        """Name a folder as seen from the memory, so that both may move together; None where it has no such name."""
        with contextlib.suppress(ValueError):  # another drive
            return as_id(Path(os.path.relpath(root, self.folder)).as_posix())
        return None

    def _name(self, number: int) -> str:
        return shard_name(self.plan.first_shard + number)


@contextmanager
def open_writer(
    folder: str | Path,
    origin: Origin,
    survey: Survey,
    *,
    shard_items: int,
    width: int = 0,
    append: bool = False,
    seen: Contents | None = None,
    settings: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> Iterator[MemoryWriter | None]:
    """Begin a memory, resume one that was stopped, or append to one that is whole.

    Args:
        folder: of the memory; made if need be.
        origin: what makes the rows.
        survey: of the list of items.
        shard_items: items a shard, at least 1, for which the list was surveyed.
        width: width D, to check the free disk; 0 where it is not known yet.
        append: add to a finished memory; otherwise one of the same plan is left as it is.
        seen: contents of that memory from which the caller has found out what is new; None if it has not looked.
        settings: of what makes the rows; a run is resumed only under the same.
        root: the folder that ids which are paths begin from, None where there is none.

    Yields:
        the writer; None where the memory is whole already and nothing is to be done.

    Raises:
        ConfigError: settings out of range, or nothing to append to.
        LockedError: another run is writing there.
        ResumeError: begun with another model, input or setting; the message names what differs. Or not as `seen`.
        FormatError: something else is in the folder.
        WriteError: no permission, disk full or too small.
    """
    folder = Path(folder)
    check_count("shard_items", shard_items)
    facts: dict[str, Any] = {"versions": versions_here(), "settings": settings or {}}
    run = Run(items=survey.count, digest=survey.digest, shard_items=shard_items, **facts)
    with locked(folder):
        before = clean(folder)
        if append and before is None:
            raise ConfigError(f"{folder}: there is no finished memory to append to. Leave --append out.")
        if before is not None and not append:
            if before.origin != origin or run not in [each.model_copy(update={"root": None}) for each in before.runs]:
                differing = differences(_facts(before.origin, before.runs[0]), _facts(origin, run))
                raise ResumeError(
                    f"{folder}: made with something else: {differing}. Run it as it was made, choose another folder, or add "
                    "what is new with --append."
                )
            yield None
            return
        if before is not None:
            if differing := differences(before.origin.model_dump(), origin.model_dump()):
                raise ResumeError(f"{folder}: the memory is of another kind: {differing}. Choose another folder.")
            if seen not in (None, before):
                raise ResumeError(f"{folder}: another run has changed the memory meanwhile. Run it again.")
        number, first_shard = (len(before.runs), len(before.shards)) if before else (0, 0)
        if first_shard + len(survey.digests) > MOST_SHARDS:
            raise ConfigError(
                f"shard_items: {shard_items} make more than {MOST_SHARDS} shards. Choose a larger number."
            )
        plan = Plan(origin=origin, run=run, number=number, first_shard=first_shard, digests=survey.digests)
        with writing(folder, _SAFE):
            earlier = read_plan(folder)
            if earlier not in (None, plan):
                assert earlier is not None
                differing = differences(_facts(earlier.origin, earlier.run), _facts(origin, run))
                raise ResumeError(
                    f"{folder}: begun with something else: {differing}. Run it as it was begun, choose another folder, or "
                    f"remove {folder / RUN}, which gives up what this run has finished."
                )
            writer = MemoryWriter(folder, plan, before, root)
            writer.drop_changed()
            left = sum(len(writer.items_of(number)) for number in writer.missing)
            _check_free_disk(folder, left * width * DTYPES[origin.dtype].itemsize)
            if earlier is None:
                _write_plan(folder, plan)
        yield writer


def worker_writer(folder: Path, plan: Plan) -> MemoryWriter:
    """Open the writer of a worker process: the process that started it holds the lock, and writes the manifest.

    Raises:
        ConfigError: the folder is not shared with this machine.
        ResumeError: other versions of libraries are installed here than where the run began.
    """
    if read_plan(folder) != plan:
        raise ConfigError(
            f"{folder}: the plan of this run is not there. The folder of the memory must be on a file system that all machines "
            "share, at the same path."
        )
    if (here := versions_here()) != plan.run.versions:
        found = differences(plan.run.versions, here)
        raise ResumeError(
            f"versions differ where the run began and on this machine: {found}. Install the same on both."
        )
    return MemoryWriter(folder, plan)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a memory's folder, which is made if need be. The system frees it when the process ends.

    Raises:
        LockedError: another process holds it.
        FormatError: a file, or a folder of other things, is there.
        WriteError: the folder cannot be made or written to.
    """
    with contextlib.ExitStack() as held:
        with writing(folder, _SAFE):
            if os.path.lexists(folder):
                _refuse_strangers(folder)
            folder.mkdir(parents=True, exist_ok=True)
            message = f"{folder}: another run is writing this memory. Wait until it ends, or choose another folder."
            held.enter_context(files.locked(folder / LOCK, message))
        yield


def tidy(folder: Path, contents: Contents) -> None:
    """Remove what the manifest does not name: the folder of the run, and shards that are no part of it."""
    known = {file for shard in contents.shards for file in shard.bytes}
    for path in folder.glob("shard-*"):
        if path.name not in known and _OWN_FILES.fullmatch(path.name):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder / RUN, ignore_errors=True)


def clean(folder: Path) -> Contents | None:
    """Remove what a killed run left half-written, and the run's folder if its manifest is written. The caller holds the lock.

    Returns:
        what the manifest holds; None where there is none yet.

    Raises:
        FormatError, IntegrityError: there is a manifest of something else, or a damaged one.
        ReadError, WriteError: the system refuses to read it, or to remove something.
    """
    with writing(folder, _SAFE):
        for pattern in (".shard-*.part", f".{MANIFEST}.*.part", f"{RUN}/.*.part"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        if not (folder / MANIFEST).is_file():
            return None
        contents = contents_in(folder)
        plan = read_plan(folder)
        if plan is None or plan.number < len(contents.runs):
            tidy(folder, contents)
        return contents


def _facts(origin: Origin, run: Run) -> dict[str, Any]:
    """List, by the words of a message, what a run must not differ in from the one that it resumes."""
    return {
        **origin.model_dump(),
        "number of items": run.items,
        "list of items (their ids, texts and sizes)": run.digest,
        "shard_items": run.shard_items,
        "versions": run.versions,
        **run.settings,
    }


def _write_plan(folder: Path, plan: Plan) -> None:
    path = folder / RUN / PLAN
    path.parent.mkdir(exist_ok=True)
    write_bytes_whole(path, signed(plan.model_dump(mode="json")))
    flush(path.parent)
    flush(folder)
    with contextlib.suppress(PermissionError):  # a folder that may be written to, but not be listed
        flush(folder.absolute().parent)  # else loss of power takes the whole folder


def _check_free_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"the rows need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def _refuse_strangers(folder: Path) -> None:
    if not folder.is_dir():
        raise FormatError(f"{folder}: expected a folder for a memory, there is a file. Choose another path.")
    names = {path.name for path in folder.iterdir()}
    if names and not names & {MANIFEST, RUN, LOCK}:
        raise FormatError(f"{folder}: holds other things ({sorted(names)[0]}, ...). Choose an empty or new folder.")
