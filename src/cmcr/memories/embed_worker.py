"""A worker process of an engine: opens space and list once, then embeds the shards that it is told to.

It knows nothing of the engine, and holds no lock: whoever started it does.
"""

from __future__ import annotations

import errno
import itertools
import json
import socket
import traceback
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cmcr import errors
from cmcr.data.items import Entry, ItemList, open_items
from cmcr.errors import CmcrError, ConfigError, ResumeError, WorkerError, WriteError
from cmcr.memories.embed import NewItems, known_ids
from cmcr.memories.embed_failures import FailureLimit
from cmcr.memories.embed_shards import embed_shards
from cmcr.memories.layout import PLAN, RUN, Shard, record
from cmcr.memories.memory import Memory
from cmcr.memories.plan import Plan, versions_here
from cmcr.memories.writer import MemoryWriter
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import space as open_space


@dataclass(frozen=True)
class Task:
    """What a worker needs to know; the paths must be right on its machine.

    Attributes:
        folder: of the memory.
        plan: of the run.
        number_of_run: which of the memory's runs it is.
        space: a space, or the name of one.
        space_options: of a space given by name.
        inputs: an absolute path or pattern, or a list of items.
        modality: of the items.
        column: of a table, which column holds the texts or paths.
        id_column: of a table, which column holds the ids.
        append: whether to leave out what is in the finished memory already.
        batch_size: items per forward pass.
        device: where to compute; None leaves the encoder where it is.
        threads: with which torch computes.
        tries: how many processes may begin the same shard, the others having been lost.
        nonce: what tells these tries from those of an earlier call.
    """

    folder: str
    plan: Plan
    number_of_run: int
    space: str | Space
    space_options: Mapping[str, Any]
    inputs: str | ItemList
    modality: str
    column: str | None
    id_column: str | None
    append: bool
    batch_size: int
    device: str | None
    threads: int
    tries: int
    nonce: str


class Worker:
    """Embeds shards by number.

    Nothing is opened before the first shard, so that what is wrong comes back as a reply too.

    Args:
        task: what it needs to know.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._opened: tuple[Space, _OnePass, MemoryWriter] | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Embed and write the shard `row["item"]`.

        Returns:
            a `reply`, which `shard_of_reply` reads.
        """
        try:
            shard, reason = self._embed(int(row["item"]))
        except CmcrError as error:
            self._opened = None  # its walk stopped somewhere
            return {"reply": json.dumps({"error": _told(error)})}
        except Exception as error:  # what an engine makes of it need not hold the reason any more
            self._opened = None
            return {"reply": json.dumps({"error": _told(_unforeseen(error)), "trace": traceback.format_exc()})}
        return {"reply": json.dumps({"shard": asdict(shard), "reason": reason})}

    def _embed(self, number: int) -> tuple[Shard, str]:
        task = self._task
        if self._opened is None:
            self._opened = _open(task)
        with _one_try(task, number):
            return self._written(number, *self._opened)

    def _written(self, number: int, space: Space, items: _OnePass, writer: MemoryWriter) -> tuple[Shard, str]:
        task = self._task
        items.from_item(writer.items_of(number).start)
        failures = _Uncounted()
        shards = embed_shards(
            space,
            task.modality,
            items,
            writer,
            [number],
            batch_size=task.batch_size,
            device=task.device,
            limit=failures,
            on_items=lambda count: None,
        )
        (shard,) = shards
        return shard, failures.last_reason


def shard_of_reply(reply: str) -> tuple[Shard, str]:
    """Read a worker's reply.

    Returns:
        the shard, and why the last of its items that failed did.

    Raises:
        CmcrError: the one that the worker met, of its class.
    """
    given = json.loads(reply)
    if "error" in given:
        error = getattr(errors, given["error"]["kind"])(*given["error"]["arguments"])
        if "trace" in given:
            error.add_note(given["trace"])
        raise error
    return record(Shard, given["shard"]), given["reason"]


def _told(error: CmcrError) -> dict[str, Any]:
    """Put an error into JSON: as the class of `cmcr.errors` that it is, with the machine where it happened."""
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    where = f"[on {socket.gethostname()}]"
    if isinstance(error, OSError) and error.errno is not None:
        return {"kind": kind, "arguments": [error.errno, f"{error.strerror} {where}", str(error.filename)]}
    return {"kind": kind, "arguments": [f"{error} {where}"]}


def _open(task: Task) -> tuple[Space, _OnePass, MemoryWriter]:
    """Open what a worker works with, and make sure that it is what the run began with."""
    torch.set_num_threads(task.threads)
    _check_folder(task)
    _check_versions(task)
    space = open_space(task.space, **task.space_options) if isinstance(task.space, str) else task.space
    if space.fingerprint != task.plan.origin.fingerprint:
        raise ResumeError(
            f"space {space.name}: its fingerprint is {space.fingerprint}, that of the run {task.plan.origin.fingerprint}. "
            "The weights must be the same on all machines."
        )
    items = (
        task.inputs
        if isinstance(task.inputs, ItemList)
        else open_items(task.inputs, task.modality, column=task.column, id_column=task.id_column)
    )
    if task.append:
        items = NewItems(items, known_ids(Memory(task.folder)))
    if items.survey().digest != task.plan.run.digest:
        raise ResumeError(
            f"{items.description}: the list of items is another one than that which the run began with. The input must be "
            "on a file system that all machines share, at the same path, and stay as it is."
        )
    return space, _OnePass(items), MemoryWriter(Path(task.folder), task.plan, None, task.number_of_run)


def _unforeseen(error: Exception) -> WorkerError:
    return WorkerError(
        f"a worker failed: {type(error).__name__}: {str(error).rstrip('.')}. Finished shards are safe: run it again once that "
        "is mended; without --engine it runs in one process, where it is easier to look into."
    )


@contextmanager
def _one_try(task: Task, number: int) -> Iterator[None]:
    """Leave a mark on the disk while a shard is being embedded, by which the loss of its worker can be seen.

    Raises:
        WorkerError: too many were lost with this shard.
        WriteError: no permission, disk full.
    """
    # With the ending of half-written files, so that the next run removes it.
    mark = Path(task.folder) / RUN / f".{number}.{task.nonce}.part"
    try:
        with mark.open("ab") as file:
            file.write(b".")
            file.flush()
            tries = file.tell()
    except OSError as error:
        raise WriteError(error.errno or errno.EIO, f"could not write ({error.strerror})", task.folder) from error
    if tries > task.tries:
        first = number * task.plan.run.shard_items
        raise WorkerError(
            f"{tries - 1} workers were lost (killed, out of memory?) while they embedded the items from {first} on. Finished "
            "shards are safe: look for what kills them, or take smaller batches; then run it again."
        )
    yield
    mark.unlink(missing_ok=True)


def _check_folder(task: Task) -> None:
    path = Path(task.folder) / RUN / PLAN
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    if found != json.loads(json.dumps(asdict(task.plan))):
        raise ConfigError(
            f"{task.folder}: the plan of this run is not there ({path}). The folder of the memory must be on a file system "
            "that all machines share, at the same path."
        )


def _check_versions(task: Task) -> None:
    was, now = task.plan.run.versions, versions_here()
    if was != now:
        said = ", ".join(
            f"{name} {was.get(name)} where the run began, {now.get(name)} here"
            for name in sorted({*was, *now})
            if was.get(name) != now.get(name)
        )
        raise ResumeError(f"versions differ: {said}. Install the same on all machines.")


class _Uncounted(FailureLimit):
    """Allows every failure: whoever started the worker counts, over all workers. Remembers the last reason."""

    def __init__(self) -> None:
        super().__init__(0)
        self.last_reason = ""

    def count(self, tried: int, failed: int, last_reason: str = "") -> None:
        self.last_reason = last_reason if failed else self.last_reason


class _OnePass(ItemList):
    """A list whose walk goes on where the last one stopped, so that ascending shards cost one pass together.

    What was passed already comes as empty entries, which must not be read; a walk that stopped elsewhere than at the end of
    a shard must not be gone on with.
    """

    def __init__(self, items: ItemList) -> None:
        self._items = items
        self.description = items.description
        self._walk: Generator[Entry, None, None] | None = None
        self._passed = 0

    def from_item(self, first: int) -> None:
        """Begin again where the walk is beyond an item already: a shard may be given back by another worker."""
        if self._walk is None or first < self._passed:
            self._walk, self._passed = self._items.walk(), 0

    def _entries(self) -> Iterator[Entry]:
        return itertools.chain(itertools.repeat(_PASSED, self._passed), self._further())

    def _further(self) -> Iterator[Entry]:
        assert self._walk is not None
        for entry in self._walk:
            self._passed += 1
            yield entry

    def _nothing(self) -> ConfigError:
        return ConfigError(f"{self.description}: there are no items.")


_PASSED = Entry("", "", b"", lambda: None)
