"""What stopped work is gone on with: a folder beside the result to come, removed when that is written.

On the disk: `config.json`, the manifest, with the identity of the run and the step of its state; `step-*.safetensors`, the
state; `*-consistent-*.safetensors`, the semantically consistent rows, part by part, each of which says what it is of. Each
file is written under another name, flushed and renamed; the manifest names a state only after it is there; the state before
it is removed last.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from cmcr._version import __version__
from cmcr.arrays import HashedRows, StoredRows
from cmcr.connection.peers import Peers
from cmcr.connection.residence import ROWS_IN_FILES
from cmcr.errors import ArtefactError, FormatError, IntegrityError, ReadError, ResumeError, WriteError
from cmcr.files import (
    MANIFEST,
    artefact_kind,
    locked,
    parsed_manifest,
    read_manifest,
    write_bytes_whole,
    write_manifest,
)

FORMAT = "cmcr checkpoint"
VERSION = 2
LOCK = "lock"
SECONDS_BETWEEN = 60.0
"""At least so long after a state was written the next one is."""

_HASHED_ROWS = 16_384


class Checkpoint:
    """The checkpoint of one piece of work: from `open_checkpoint`. The first process writes, all read.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: Path, peers: Peers) -> None:
        self.folder = folder
        self._peers = peers
        self._identity: dict[str, Any] = {"rows": {}, "training": {}}
        self._state: str | None = None
        self._written = time.monotonic()

    def begin(self, rows: Mapping[str, Any], training: Mapping[str, Any]) -> None:
        """Begin, or go on with, a run.

        Args:
            rows: everything that decides about the rows that are kept, as JSON can hold it.
            training: everything else that decides about the weights. It may change as long as no state was written.

        Raises:
            ResumeError: another run was begun here, of which something is kept; the message says what differs.
            FormatError, IntegrityError: the manifest is damaged, or missing while a state is there.
        """
        self._identity = json.loads(json.dumps({"rows": rows, "training": training}))
        if (self.folder / MANIFEST).is_file():
            with _advised(self.folder, _FROM_ROWS):
                manifest = parsed_manifest(self.folder, FORMAT, VERSION)
                was = manifest["identity"]
                self._state = next(iter(manifest["sha256"]), None)
            if self._state or self._parts():
                _check_same(self.folder, was["rows"], self._identity["rows"], _ANEW)
            if self._state:
                _check_same(
                    self.folder, was["training"], self._identity["training"], f"Run it as it was begun; or {_FROM_ROWS}"
                )
            if was == self._identity:
                return
        else:
            self._check_what_nothing_names()
        if self._peers.rank == 0:
            with _said_on_failure(self.folder):
                write_manifest(self.folder, self._manifest(0, {}))

    def read(self) -> dict[str, Tensor] | None:
        """Read the state; None where none was written yet.

        Raises:
            FormatError, IntegrityError: it is damaged.
            ReadError: the system refuses to read it.
        """
        if self._state is None:
            return None
        with _advised(self.folder, _FROM_ROWS):
            read_manifest(self.folder, FORMAT, VERSION, {self._state})
            return load_file(self.folder / self._state)

    @property
    def due(self) -> bool:
        """Whether it is time for a new state."""
        return self._peers.rank == 0 and time.monotonic() - self._written >= SECONDS_BETWEEN

    def write(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Put the state after so many steps in the place of the one before.

        Raises:
            WriteError: no permission, disk full; the state before is whole.
        """
        if self._peers.rank != 0:
            return
        name, before = f"step-{step:09d}.safetensors", self._state
        content = serialize({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
        with _said_on_failure(self.folder, len(content)):
            digest = write_bytes_whole(self.folder / name, content)
            write_manifest(self.folder, self._manifest(step, {name: digest}))
            if before not in (None, name):
                (self.folder / str(before)).unlink(missing_ok=True)
        self._state = name
        self._written = time.monotonic()

    def drop_training(self) -> None:
        """Drop the state and keep the rows, before the run begins: see `forget_training`."""
        try:
            manifest = parsed_manifest(self.folder, FORMAT, VERSION)
            self._identity, self._state = manifest["identity"], next(iter(manifest["sha256"]), None)
        except (FormatError, IntegrityError, KeyError):  # missing or damaged: the rows say themselves what they are of
            with _said_on_failure(self.folder):
                for path in (self.folder / MANIFEST, *self.folder.glob(_STATES)):
                    path.unlink(missing_ok=True)
            return
        self.forget()

    def forget(self) -> None:
        """Drop the state of a training that has failed, so that another one can begin from the rows that are kept."""
        before, self._state = self._state, None
        if self._peers.rank == 0 and before is not None:
            with _said_on_failure(self.folder):
                write_manifest(self.folder, self._manifest(0, {}))
                (self.folder / before).unlink(missing_ok=True)

    def kept(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """Read rows that were kept under a name: `(n, D)`, in the dtype they had; None where they are not.

        Raises:
            FormatError, IntegrityError: they are damaged.
            ResumeError: they are of another run, or of another shape.
            ReadError: the system refuses to read them.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            return None
        with _advised(path, _THIS_FILE_ALONE), safe_open(path, framework="pt") as file:
            rows: Tensor = file.get_tensor("rows")
            said = file.metadata() or {}
            if digest_of(rows) != said.get("sha256"):
                raise IntegrityError(f"{path}: its bytes have changed since it was written. Restore it from a copy.")
        if said.get("of") != self._rows_of or rows.shape != shape:
            raise ResumeError(
                f"{path}: expected {tuple(shape)} numbers of this run, got {tuple(rows.shape)} of other memories or settings. "
                f"{_THIS_FILE_ALONE[0].upper()}{_THIS_FILE_ALONE[1:]}"
            )
        return rows

    def keep(self, name: str, rows: Tensor) -> None:
        """Keep rows `(n, D)` under a name.

        Raises:
            WriteError: no permission, disk full.
        """
        if self._peers.rank == 0:
            rows = rows.detach().cpu().contiguous()
            content = serialize({"rows": rows}, metadata={"sha256": digest_of(rows), "of": self._rows_of})
            with _said_on_failure(self.folder, len(content)):
                write_bytes_whole(self.folder / f"{name}.safetensors", content)

    @property
    def _rows_of(self) -> str:
        """Hash what the rows that are kept depend on."""
        return hashlib.sha256(json.dumps(self._identity["rows"], sort_keys=True).encode()).hexdigest()

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob(_PARTS))

    def _check_what_nothing_names(self) -> None:
        """Without a manifest: rows say themselves what they are of, a state does not."""
        if any(self.folder.glob(_STATES)):
            raise FormatError(
                f"{self.folder}: {MANIFEST} is missing, so nobody can tell which training the state here is of. Restore it "
                f"from a copy. Or {_FROM_ROWS}"
            )
        for path in self._parts():
            with _advised(path, _THIS_FILE_ALONE), safe_open(path, framework="pt") as file:
                of = (file.metadata() or {}).get("of")
            if of != self._rows_of:
                raise ResumeError(
                    f"{self.folder}: {path.name} is of other memories or settings, and {MANIFEST}, which said of which, is "
                    f"missing. {_ANEW}"
                )

    def _manifest(self, step: int, hashes: Mapping[str, str]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "written_by": f"cmcr {__version__}",
            "identity": self._identity,
            "step": step,
            "sha256": dict(hashes),
        }


@contextmanager
def open_checkpoint(folder: Path, peers: Peers) -> Iterator[Checkpoint]:
    """Hold the folder of a checkpoint, which is made if need be.

    Raises:
        LockedError: another run holds it.
        FormatError: something else is there.
        WriteError: it cannot be made or written to.
    """
    with _said_on_failure(folder):
        refuse_strangers(folder)
    if peers.rank != 0:
        yield Checkpoint(folder, peers)
        return
    with contextlib.ExitStack() as held:
        with _said_on_failure(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / LOCK, _HELD.format(folder=folder)))
            _remove_what_a_kill_left(folder)
        yield Checkpoint(folder, peers)


def _remove_what_a_kill_left(folder: Path) -> None:
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)
    for path in folder.glob(f"{ROWS_IN_FILES}*"):
        if path.is_dir():  # kept rows may be called so too
            shutil.rmtree(path, ignore_errors=True)


_ANOTHER = "choose another --out (in Python another checkpoint)."
_HELD = f"{{folder}}: another run is at work there. Wait until it ends, or {_ANOTHER}"


def unfinished(connection: Path) -> Path:
    """Name the folder in which the work for a connection that will be saved at a path is kept."""
    whole = Path(os.path.abspath(connection))  # noqa: PTH100 - "." and ".." have no name; resolve() would follow links
    return whole.with_name(f"{whole.name}.unfinished")


def remove_checkpoint(folder: str | Path) -> None:
    """Remove a checkpoint after what it led to was written; one that another run holds, and anything else, stays."""
    folder = Path(folder)
    if not _is_checkpoint(folder):
        return
    with contextlib.suppress(ArtefactError, OSError):
        with locked(folder / LOCK, _HELD.format(folder=folder)):
            # The manifest last: without it, what a kill leaves behind would be a stranger's folder.
            for path in folder.iterdir():
                if path.name not in (LOCK, MANIFEST):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            (folder / MANIFEST).unlink(missing_ok=True)
            if os.name != "nt":  # there it goes when it is released
                (folder / LOCK).unlink()
        folder.rmdir()  # never with what is in it: another run may have begun there


def forget_training(folder: str | Path) -> None:
    """Drop the state of a training that was stopped, so that another one begins from the rows that are kept.

    Args:
        folder: of the checkpoint; nothing happens where there is none, or no state in it. A damaged manifest is dropped too.

    Raises:
        LockedError: another run holds it.
        FormatError: something else is there.
        ReadError, WriteError: it cannot be read or written to.
    """
    folder = Path(folder)
    with _said_on_failure(folder):
        if not folder.exists():
            return
    with open_checkpoint(folder, Peers()) as kept:
        kept.drop_training()


def digest_of(rows: Tensor | StoredRows) -> str:
    """Hash the values of rows `(n, D)`, their type and their shape; rows on disk that have a digest are not read for it."""
    if isinstance(rows, HashedRows):
        return rows.digest()
    dtype = rows.dtype if isinstance(rows, Tensor) else torch.float32
    hashed = hashlib.sha256(f"{tuple(rows.shape)} {dtype}".encode())
    blocks = rows.split(_HASHED_ROWS) if isinstance(rows, Tensor) else map(torch.from_numpy, rows.blocks(_HASHED_ROWS))
    for block in blocks:
        values: Any = block.detach().cpu().contiguous().view(torch.uint8).numpy()
        hashed.update(values)
    return hashed.hexdigest()


def _is_checkpoint(folder: Path) -> bool:
    try:
        return artefact_kind(folder) == FORMAT
    except (ArtefactError, OSError):  # not begun, or damaged; on Windows the lock is there only while it is held
        return (folder / LOCK).is_file()


def _check_same(folder: Path, was: Mapping[str, Any], now: Mapping[str, Any], advice: str) -> None:
    differing = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    if differing:
        said = "; ".join(f"{key} was {_short(was.get(key))}, now {_short(now.get(key))}" for key in differing)
        raise ResumeError(f"{folder}: something else was begun here: {said}. {advice}")


_STATES = "step-*.safetensors"
_PARTS = "*-consistent-*.safetensors"
_ANEW = f"Run it as it was begun, remove this folder to begin anew, or {_ANOTHER}"
_FROM_ROWS = (
    "train anew from the rows that are kept: `cmcr connect --anew`, in Python cmcr.forget_training with this folder."
)
_THIS_FILE_ALONE = "remove this file alone, and its rows are computed again."


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text  # of a hash, enough to tell it from another


def refuse_strangers(folder: Path) -> None:
    """Refuse a folder that holds something other than a checkpoint, with a `FormatError`."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FormatError(f"{folder}: expected a folder for a checkpoint, there is a file. {_AWAY}")
    names = {path.name for path in folder.iterdir()}
    known = {MANIFEST, LOCK} | {path.name for path in (*folder.glob(_STATES), *folder.glob(_PARTS))}
    if names and not names & known:
        raise FormatError(f"{folder}: expected a checkpoint, got other things ({min(names)}, ...). {_AWAY}")
    kind = FORMAT
    if MANIFEST in names:
        with contextlib.suppress(FormatError):  # damaged: said by whoever reads it
            kind = artefact_kind(folder)
    if kind != FORMAT:
        raise FormatError(f"{folder}: expected a {FORMAT}, got a {kind}. {_AWAY}")


_AWAY = f"Move it away, or {_ANOTHER}"


@contextmanager
def _advised(path: Path, advice: str) -> Iterator[None]:
    """Say of something damaged what can be done without a copy of it."""
    try:
        yield
    except (FormatError, IntegrityError) as error:
        raise type(error)(f"{error} Or {advice}") from error
    except (SafetensorError, KeyError) as error:
        raise FormatError(f"{path}: damaged ({error}). Restore it from a copy. Or {advice}") from error
    except ArtefactError:
        raise
    except OSError as error:
        raise ReadError(error.errno or errno.EIO, f"could not read ({error.strerror or error})", str(path)) from error


@contextmanager
def _said_on_failure(folder: Path, size: int = 0) -> Iterator[None]:
    """Say what cannot be written there, and how many bytes it would have been."""
    try:
        yield
    except ArtefactError:  # some are OSErrors too: already said
        raise
    except OSError as error:
        said = f"could not write ({error.strerror or error}); what was there before is whole"
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            said += f". Make room for {size or _MANIFEST_BYTES:,} bytes there, and the same command goes on"
        elif error.errno == errno.ENAMETOOLONG:
            said += ". Choose a shorter --out"
        raise WriteError(error.errno or errno.EIO, said, str(folder)) from error


_MANIFEST_BYTES = 10_000  # about
