"""Connect memories on disk in a run that can be stopped: `cmcr.connect_on_disk`, and `cmcr connect`.

Work is kept in the folder OUT.unfinished until the connection is written:

    .lock                   held by whoever works here
    choice/                 what method="auto" chose: config.json, and what it is of
    left-consistent/        the semantically consistent rows of the first space, a memory; right-consistent/ of the second
    training/               the state of the training: config.json (what it is of) and step-000000123.safetensors

Called again with the same arguments it resumes, on one machine to the same weights bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from cmcr._version import __version__
from cmcr.connection.artefact import FORMAT as CONNECTION
from cmcr.connection.connect import connect, look_over
from cmcr.connection.connection import Connection
from cmcr.connection.links import Link, Overlap, check_whole, links_of
from cmcr.connection.methods import settings_of
from cmcr.connection.methods.auto import AutoSettings, candidate_of, choose
from cmcr.connection.methods.fitting import Run
from cmcr.connection.settings import Settings, check_seed
from cmcr.engine.device import choose_device
from cmcr.engine.precision import fast_float32, guarded_torch_state
from cmcr.engine.train_state import TrainState
from cmcr.errors import (
    ConfigError,
    FormatError,
    IntegrityError,
    PoorInputWarning,
    ResumeError,
    TrainingError,
    differences,
)
from cmcr.files import (
    MANIFEST,
    Inside,
    Sha256,
    StrictRecord,
    check_target,
    locked,
    parsed_manifest,
    read_manifest,
    validated,
    write_bytes_whole,
    write_manifest,
    writing,
)
from cmcr.interruption import held_back
from cmcr.memories.consistency import write_consistent
from cmcr.memories.memories import Memories, Stored, by_space
from cmcr.memories.memory import Memory
from cmcr.progress import Progress

FORMAT = "cmcr training"
CHOICE = "cmcr choice"
VERSION = 1
WORK = ".unfinished"
"""Ends the name of the folder of the work for a connection."""

SECONDS_BETWEEN = 60.0
"""Between two states of the training; Ctrl-C and SIGTERM write one at once."""

_LOCK = ".lock"
_REMOVED = ".removed"
_LEFT = "what was finished is safe: free space and run it again"


class Kept(StrictRecord):
    """What is kept of a choice, or of a training."""

    identity: dict[str, Any]
    choice: Mapping[str, Any] = Field(default_factory=dict)
    sha256: Mapping[Inside, Sha256] = Field(default_factory=dict)


def connect_on_disk(
    *memories: Memory,
    out: str | Path,
    overlap: Overlap = None,
    method: str = "auto",
    seed: int = 0,
    device: str = "auto",
    engine: str = "here",
    workers: int = 2,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
    restart: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Connection:
    """Connect spaces from their memories on disk, resume where a run was stopped, and save the connection.

    Rows that RAM does not hold stay on disk; work is kept in `OUT.unfinished` until the connection is written: what `auto`
    chose, consistent rows and the state of C-MCR's training. All other methods, and more than two spaces, are fitted at once
    and begin anew when they were stopped.

    Args:
        *memories: four `cmcr.Memory`, in any order: of either space the shared modality and one more; or those of more spaces.
        out: folder of the connection.
        overlap: see `cmcr.connect`.
        method: see `cmcr.connect`.
        seed: see `cmcr.connect`.
        device: `"auto"` takes a GPU if there is one.
        engine: where semantic consistency is computed: `"here"`, or by several processes on `"ray"` (see
            docs/memories.md).
        workers: processes on Ray.
        cpus_per_worker: cores for each.
        gpus_per_worker: for each; a fraction shares one.
        restart: drop the state of a training that was stopped; what was chosen, and semantically consistent rows, only where
            they are of other memories or settings.
        replace: take the place of a connection that is at `out` already.
        progress: called with (stage, share done).
        **settings: changes to the method's settings.

    Returns:
        The connection, saved.

    Raises:
        WriteError: a connection, or something else, is at `out` already; no permission, disk full. What is finished is
            kept.
        LockedError: another run works on it.
        ResumeError: it was begun with other memories, settings, seed, device or versions; the message says what differs.
        ConfigError, DimensionError, NonFiniteError, TooFewRowsError, TrainingError: as `cmcr.connect`.
        FormatError, IntegrityError: what was kept is damaged.
    """
    chosen = settings_of(method, **settings)
    seed = check_seed(seed)
    where = choose_device(device)
    spaces = by_space(memories, overlap)
    links = links_of(spaces, overlap)
    target = Path(os.path.abspath(out))  # noqa: PTH100 - saving to "." replaces the folder that this process is in
    check_target(target, CONNECTION, replace=replace)
    plain: dict[str, Any] = {"method": method, "seed": seed, "device": device, "progress": progress, **settings}
    if len(spaces) > 2 or not isinstance(chosen, Settings | AutoSettings):
        connection = connect(*spaces, overlap=overlap, **plain)
        connection.save(target, replace=replace)
        return connection
    shared = links[0].overlap
    mapped: dict[str, Any] = {"device": str(where)}
    if engine != "here":  # workers may have devices that are not here
        mapped = {"device": device, "engine": engine, "workers": workers}
        mapped |= {"cpus_per_worker": cpus_per_worker, "gpus_per_worker": gpus_per_worker}
    with work_folder(target) as work, warnings.catch_warnings():
        check_whole(spaces, progress or (lambda stage, share: None))
        look_over(links, seed)  # choosing and semantic consistency, which come before `connect`, may take hours
        warnings.simplefilter("ignore", PoorInputWarning)  # which would say it again
        if isinstance(chosen, AutoSettings):
            plain["choice"] = _choice(links[0], chosen, Run(seed, where, progress), work, restart)
            chosen = candidate_of(plain["choice"], chosen).settings
        if not isinstance(chosen, Settings):  # nothing that is worth keeping half-way
            connection = connect(*spaces, overlap=shared, **plain)
        else:
            consistent = _consistent_memories(spaces, shared, chosen, mapped, work, restart, progress)
            identity = {"method": method, **_identity(spaces, shared, chosen, consistent, seed, where)}
            training = KeptTraining(work / "training", identity)
            if restart:
                training.drop()
            given = {"overlap": shared, "consistent": consistent, **plain}
            connection = _trained(training, partial(connect, *spaces, **given))
        connection.save(target, replace=replace)
    remove_work(target)
    return connection


def _choice(link: Link, settings: AutoSettings, run: Run, work: Path, restart: bool) -> dict[str, Any]:
    """Choose a method, or read what was chosen."""
    shared, identity = link.overlap, {"rows": settings.rows, **_circumstances(run.seed, run.device)}
    for name, space in (("left", link.left), ("right", link.right)):
        assert isinstance(space, Memories)
        for part, modality in (("overlap", shared), ("outer", _outer_of(space, shared))):
            identity[f"{part} ({name})"] = _stored(space, modality).digest()
    folder = work / "choice"
    if (folder / MANIFEST).is_file():
        try:
            kept = validated(Kept, parsed_manifest(folder, CHOICE, VERSION), folder)
            if not (differing := differences(kept.identity, identity)):
                candidate_of(kept.choice, settings)
                return {**kept.choice}
            if not restart:
                raise ResumeError(
                    f"{folder}: a choice for something else was made here: {differing}. Run it as it was begun, choose anew "
                    "(--restart, in Python restart=True), or choose another path."
                )
        except (FormatError, IntegrityError, LookupError, StopIteration):
            pass  # a minute's work
    with guarded_torch_state(run.device), fast_float32():  # as connect does
        found = choose(*link.parents, settings, run)
    with writing(folder, _LEFT):
        folder.mkdir(exist_ok=True)
        write_manifest(folder, {"format": CHOICE, "version": VERSION, "identity": identity, "choice": found})
    return found


def _trained(training: KeptTraining, connect: Callable[..., Connection]) -> Connection:
    """Connect with a training that resumes from the state that was kept, and keeps its own."""
    with held_back() as stop_asked:

        def keep(state: TrainState) -> None:
            if stop_asked or time.monotonic() - training.written >= SECONDS_BETWEEN:
                training.write(state)
            if stop_asked:
                raise KeyboardInterrupt

        try:
            return connect(resume_from=training.read(), after_step=keep)
        except TrainingError:
            training.drop()
            raise


def unfinished(connection: Path) -> Path:
    """Name the folder in which the work for a connection that will be saved at a path is kept."""
    return connection.with_name(f"{connection.name}{WORK}")


@contextmanager
def work_folder(connection: Path) -> Iterator[Path]:
    """Hold the folder of the work for a connection; it is made if need be.

    Raises:
        LockedError: another run holds it.
        FormatError: something else is there.
        WriteError: it cannot be made or written to.
    """
    folder = unfinished(connection)
    with contextlib.ExitStack() as held:
        with writing(folder, _LEFT):
            if folder.exists() and not (folder / _LOCK).is_file() and any(folder.iterdir()):
                raise FormatError(f"{folder}: holds other things. Move it away, or choose another path.")
            folder.mkdir(parents=True, exist_ok=True)
            taken = f"{folder}: another run is working there. Wait until it ends, or choose another path."
            held.enter_context(locked(folder / _LOCK, taken))
        yield folder


def remove_work(connection: Path) -> None:
    """Remove the folder of the work after the connection was written."""
    folder = unfinished(connection)
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir(), reverse=True):  # what a kill has left of an earlier removal first
            if path.name != _LOCK:  # last: without it, what a kill leaves behind would be a stranger's folder
                # Renamed first: a half-removed memory would stand in the way of the next run.
                gone = path if path.suffix == _REMOVED else path.rename(path.with_name(path.name + _REMOVED))
                shutil.rmtree(gone, ignore_errors=True)
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()  # never with what is in it: another run may have begun there


def _consistent_memories(
    spaces: Sequence[Memories],
    shared: str,
    settings: Settings,
    mapped: Mapping[str, Any],
    work: Path,
    restart: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """Compute the semantically consistent rows of both spaces, or resume; where they are off, the overlap stands in."""
    consistent: dict[str, Any] = {}
    for number, space in enumerate(spaces):
        overlap, outer = _stored(space, shared), _stored(space, _outer_of(space, shared))
        if not settings.semantic_consistency:
            consistent[space.space] = overlap
            continue

        def report(done: float, number: int = number) -> None:
            if progress is not None:
                progress("semantic consistency", (number + done) / 2)

        folder = work / f"{('left', 'right')[number]}-consistent"
        write = partial(
            write_consistent,
            overlap,
            outer,
            folder,
            temperature=settings.consistency_temperature,
            normalize=settings.normalize_consistency,
            precision=settings.precision,
            on_progress=report,
            **mapped,
        )
        try:
            consistent[space.space] = write()
        except ResumeError as error:
            if not restart:
                raise ResumeError(f"{error} To drop these rows: --restart, in Python restart=True.") from error
            shutil.rmtree(folder)
            consistent[space.space] = write()
    return consistent


def _outer_of(memories: Memories, overlap: str) -> str:
    """Find the one modality of a space besides the overlap."""
    others = [modality for modality in memories.rows if modality != overlap]
    if len(others) != 1:
        raise ConfigError(
            f"space {memories.space!r}: expected exactly one modality besides the overlap {overlap!r}, got "
            f"{', '.join(others) or 'none'}. Pass the overlap and the modality to be connected."
        )
    return others[0]


def _stored(space: Memories, modality: str) -> Stored:
    rows = space.rows[modality]
    assert isinstance(rows, Stored), "by_space groups memories on disk"
    return rows


def _identity(
    spaces: Sequence[Memories],
    shared: str,
    settings: Settings,
    consistent: Mapping[str, Any],
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Everything that decides about the weights, as JSON can hold it."""
    names = ("left", "right")
    rows = {
        f"{modality} ({name})": _stored(space, modality).digest()
        for name, space in zip(names, spaces, strict=True)
        for modality in (shared, _outer_of(space, shared))
    }
    rows |= {f"consistent rows ({name})": consistent[s.space].digest() for name, s in zip(names, spaces, strict=True)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    return {**plain, **rows, **_circumstances(seed, device)}


def _circumstances(seed: int, device: torch.device) -> dict[str, Any]:
    versions = {"version of cmcr": __version__, "version of torch": torch.__version__}
    return {**versions, "seed": seed, "device": device.type}


class KeptTraining:
    """The state of a training on disk: a manifest that says what it is of, and the tensors after a step.

    Args:
        folder: where it is kept; made at the first `write`.
        identity: everything that decides about the weights, as JSON can hold it.

    Attributes:
        written: when a state was written last, by `time.monotonic`.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        self._identity = dict(identity)
        self.written = time.monotonic()

    def read(self) -> dict[str, Tensor] | None:
        """Read the state; None where none was written yet.

        Raises:
            ResumeError: it is of another training; the message says what differs.
            FormatError, IntegrityError, ReadError: it is damaged, or the system refuses to read it.
        """
        if not (self._folder / MANIFEST).is_file():
            return None
        try:
            kept = validated(Kept, parsed_manifest(self._folder, FORMAT, VERSION), self._folder)
            name = next(iter(kept.sha256), "")
            read_manifest(self._folder, FORMAT, VERSION, {name})
        except (FormatError, IntegrityError) as error:
            raise type(error)(f"{error} Or train again from the start: --restart, in Python restart=True.") from error
        if differing := differences(kept.identity, self._identity):
            raise ResumeError(
                f"{self._folder}: a training with something else was stopped here: {differing}. Run it as it was begun, drop "
                "its state (--restart, in Python restart=True), or choose another path."
            )
        return deserialize((self._folder / name).read_bytes())

    def write(self, state: TrainState) -> None:
        """Write the state in the place of the one before.

        Raises:
            TrainingError: the loss is no longer finite.
            WriteError: no permission, disk full; the state before is whole.
        """
        state.check_loss()
        name = f"step-{state.step:09d}.safetensors"
        content = serialize({key: value.detach().cpu().contiguous() for key, value in state.tensors().items()})
        with writing(self._folder, _LEFT):
            self._folder.mkdir(exist_ok=True)
            hashed = write_bytes_whole(self._folder / name, content)
            write_manifest(
                self._folder,
                {"format": FORMAT, "version": VERSION, "identity": self._identity, "sha256": {name: hashed}},
            )
            for path in self._folder.iterdir():
                if path.name not in (name, MANIFEST):
                    path.unlink()
        self.written = time.monotonic()

    def drop(self) -> None:
        """Remove the state."""
        with writing(self._folder, _LEFT):
            (self._folder / MANIFEST).unlink(missing_ok=True)  # first: the rest may be left by a kill
            shutil.rmtree(self._folder, ignore_errors=True)
