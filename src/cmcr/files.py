"""Folders that are whole or not there: written aside, flushed to the disk, renamed into place; hashed and checked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from cmcr.errors import (
    ArtefactError,
    ArtefactNotFoundError,
    CmcrError,
    FormatError,
    IntegrityError,
    LockedError,
    ReadError,
    WriteError,
    validation_problems,
)

MANIFEST = "config.json"
JSON_BYTES = 4 * 2**20
"""The longest JSON file of cmcr's that is read."""
MEMORY_BYTES = 64 * 2**20
"""The longest manifest of a memory, which names every shard."""

_OWN_HASH = "sha256_of_this_file"
_HEAD = ("format", "version", _OWN_HASH)
_SHOWN = 40  # characters of a name, at most 160 bytes: with what is added the systems' limit of 255 is far


Count = Annotated[int, Field(ge=0, lt=2**53)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _stays_inside(path: str) -> str:
    parts = PureWindowsPath(path)  # which knows both separators
    if parts.anchor or ".." in parts.parts or not parts.parts:
        raise ValueError("expected a path within the folder")
    return path


Inside = Annotated[str, AfterValidator(_stays_inside), Field(max_length=4096)]
"""A path that does not lead out of its folder."""


class StrictRecord(BaseModel):
    """Something that is kept as JSON: nothing is converted, nothing unknown is passed over, every number is finite."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


RecordT = TypeVar("RecordT", bound=StrictRecord)


def write_artefact(
    folder: Path, manifest: dict[str, Any], write_files: Callable[[Path], None], *, replace: bool = False
) -> None:
    """Write an artefact, see `written_aside`: its files by `write_files`, then the manifest, which names its "format".

    The manifest gets the hashes of the files.
    """
    with written_aside(folder, manifest["format"], replace=replace) as aside:
        write_files(aside)
        hashes = {path.name: sha256_of(path) for path in sorted(aside.iterdir()) if path.suffix != ".md"}
        (aside / MANIFEST).write_bytes(signed({**manifest, "sha256": hashes}))


@contextmanager
def written_aside(folder: Path, kind: str, *, replace: bool = False) -> Iterator[Path]:
    """Give a hidden folder beside the target to write into; at the end it is flushed and renamed into place.

    It is removed if anything fails, Ctrl-C included.

    Args:
        folder: the target; its parent is made if need be.
        kind: what is written, such as "cmcr connection".
        replace: take the place of an older artefact of the same kind; anything else at the target is refused.

    Raises:
        WriteError: no permission, disk full, or something in the way at the target.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - must not follow a link at the target, as resolve() does
    aside = _hidden(folder, "part")
    check_target(folder, kind, replace=replace)
    try:
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside.mkdir()
            yield aside
            for path in [*aside.rglob("*"), aside]:
                flush(path)
            _move_into_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_target(folder: Path, kind: str, *, replace: bool = False) -> None:
    """Find out, before hours of work, that `written_aside` would refuse because something is in the way: a `WriteError`."""
    try:
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return
        same = artefact_kind(folder) == kind
    except (ArtefactNotFoundError, FileNotFoundError):  # another writer renames it just now
        return
    except ArtefactError:
        same = False
    if not same:
        raise WriteError(
            errno.EEXIST, f"something that is not a {kind} is there already; choose another path", str(folder)
        )
    if not replace:
        said = f"a {kind} is there already; choose another path, or replace it (--replace, in Python replace=True)"
        raise WriteError(errno.EEXIST, said, str(folder))


def read_manifest(
    folder: Path, expected_format: str, version: int, files: Collection[str], optional: Collection[str] = ()
) -> dict[str, Any]:
    """Read and check the manifest of an artefact, and that every file that it must or may have has the bytes it had.

    Raises:
        ArtefactNotFoundError: there is no such folder.
        FormatError: no manifest (half-written), not JSON, another kind of artefact, or another version.
        IntegrityError: a file is missing or its bytes have changed.
        ReadError: the system refuses to read it.
    """
    manifest = parsed_manifest(folder, expected_format, version)
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or not set(files) <= set(hashes) <= {*files, *optional}:
        raise FormatError(
            f"{folder / MANIFEST}: expected the hashes of {', '.join(sorted(files))}, got {hashes!r:.80}."
        )
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{folder}: {name} is missing. Restore the folder from a copy.")
        with reading(path):
            found = sha256_of(path)
        if found != expected:
            raise IntegrityError(
                f"{path}: sha256 is {found[:12]}…, expected {expected!s:.12}…: its bytes have changed since it was written. "
                "Restore it from a copy."
            )
    return manifest


def parsed_manifest(folder: Path, expected_format: str, version: int, most: int = JSON_BYTES) -> dict[str, Any]:
    """Read the manifest of an artefact, and check it alone, not the files that it speaks of; `most` bounds its bytes.

    Raises:
        ArtefactNotFoundError, FormatError, IntegrityError, ReadError: as `read_manifest`.
    """
    manifest = _parsed(folder, expected_format, most)
    if manifest.get("format") != expected_format:
        got = manifest.get("format", f"folder whose {MANIFEST} names no format")
        raise FormatError(f"{folder}: expected a {expected_format}, got a {got!s:.80}.")
    if manifest.get("version") != version:
        raise FormatError(
            f"{folder}: written in version {manifest.get('version')!r:.80} of the {expected_format} format; this cmcr reads "
            f"version {version}. Install the cmcr that wrote it ({manifest.get('written_by')!s:.80})."
        )
    _check_own_hash(folder / MANIFEST, manifest)
    return manifest


def validated(kind: type[RecordT], found: Mapping[str, Any], where: Path) -> RecordT:
    """Make a record of what was read from a file, every field checked but format, version and the file's own hash.

    Raises:
        FormatError: a field that is missing, unknown, of another type or out of range.
    """
    try:
        return kind.model_validate_json(json.dumps({key: found[key] for key in found if key not in _HEAD}))
    except ValidationError as error:
        name = found.get("format", kind.__name__.strip("_").lower())
        raise FormatError(f"{where}: not a usable {name} ({validation_problems(error):.1000}).") from error


def read_json(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object that cmcr has written; a file of more than `most` bytes is not read.

    Raises:
        FormatError: longer, not JSON, nested deeper than 200 levels, with NaN or endless numbers, or not an object.
        ReadError: the system refuses to read it.
    """
    with reading(path), path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FormatError(f"{path}: longer than the {most} bytes that such a file has at most. Restore it from a copy.")
    try:
        found = from_json(content, allow_inf_nan=False)
        json.dumps(found, allow_nan=False)  # 1e999 is infinite too
    except ValueError as error:
        raise FormatError(f"{path}: not valid JSON ({error}). Restore it from a copy.") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(found).__name__}.")
    return found


def read_signed(path: Path, kind: type[RecordT], most: int = JSON_BYTES) -> RecordT:
    """Read a record that was written as `signed` gives it.

    Raises:
        FormatError, ReadError: as `read_json` and `validated`.
        IntegrityError: its content is not what was written.
    """
    found = read_json(path, most)
    _check_own_hash(path, found)
    return validated(kind, found, path)


def signed(content: Mapping[str, Any]) -> bytes:
    """Write JSON with a hash of all else in it, so that a changed byte of the file itself shows."""
    return (json.dumps({**content, _OWN_HASH: _own_hash(content)}, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def artefact_kind(folder: Path) -> str:
    """Return what a folder's manifest calls it, such as "cmcr memory".

    Raises:
        ArtefactNotFoundError: there is nothing.
        FormatError: no manifest, or one that cannot be parsed.
        ReadError: the system refuses to read it.
    """
    return str(_parsed(folder, "cmcr artefact", MEMORY_BYTES).get("format", f"folder whose {MANIFEST} names no format"))


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says when it refuses to read a file into a `ReadError`."""
    try:
        yield
    except ArtefactError:  # some are OSErrors too: reported already
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReadError(error.errno or errno.EIO, f"could not read ({reason})", error.filename or str(path)) from error


@contextmanager
def writing(path: Path, left: str = "nothing half-written was left") -> Iterator[None]:
    """Turn what the system says when it refuses to write into a `WriteError`, which ends with what is left on the disk."""
    try:
        yield
    except CmcrError:  # some are OSErrors too: reported already
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(error.errno or errno.EIO, f"could not write ({reason}); {left}", str(path)) from error


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file, whose folder is made if need be, so that it is either whole or as it was before.

    Raises:
        WriteError: no permission, disk full.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_whole(path, text.encode("utf-8"))


def write_signed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as `signed` gives it; raises as `write_text_whole`."""
    write_text_whole(path, signed(content).decode())


def write_bytes_whole(path: Path, *parts: bytes | memoryview) -> str:
    """Write a file under another name, flush it, rename it into place.

    The folder is not flushed: several files are written before one `flush`. The other name, which a killed run may
    leave behind, ends with `.part` and is never the same: a process that was taken for lost may still be writing the file.

    Returns:
        the sha256 of the content, which is all parts, one after another.

    Raises:
        OSError: no permission, disk full; what was written of the file is removed.
    """
    aside, hashed = _hidden(path, "part"), hashlib.sha256()
    try:
        with aside.open("xb") as file:
            for part in parts:
                file.write(part)
                hashed.update(part)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    return hashed.hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Put a manifest, with a hash of its own, into a folder whose other files are flushed; it is whole or as it was."""
    write_bytes_whole(folder / MANIFEST, signed(manifest))
    flush(folder)


@contextmanager
def locked(file: Path, message: str) -> Iterator[None]:
    """Hold a lock, whose file is made if need be. The system frees it when the process ends.

    Raises:
        LockedError: another process holds it; with the message.
        OSError: no permission.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedError(message) from error
    try:
        yield
    finally:
        lock.release()


def _parsed(folder: Path, expected_format: str, most: int) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.exists():
        raise ArtefactNotFoundError(
            errno.ENOENT, f"there is no {expected_format} here (expected a folder with {MANIFEST})", str(folder)
        )
    if folder.is_file():
        raise FormatError(f"{folder}: expected the folder of a {expected_format}, got a file.")
    if not path.is_file():
        raise FormatError(
            f"{folder}: has no {MANIFEST}, so it is not a {expected_format} or was never finished. Write it again."
        )
    return read_json(path, most)


def _check_own_hash(path: Path, found: Mapping[str, Any]) -> None:
    if _own_hash(found) != found.get(_OWN_HASH):
        raise IntegrityError(f"{path}: its content is not what was written. Restore it from a copy.")


def _own_hash(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != _OWN_HASH}
    canonical = json.dumps(rest, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _move_into_place(aside: Path, folder: Path) -> None:
    """Rename the finished folder to its name; an older artefact is moved away first and deleted last."""
    old = _hidden(folder, "old")
    try:
        if folder.exists():
            folder.replace(old)
        aside.replace(folder)
    except BaseException:
        # Whatever came between the two renames, Ctrl-C included: the name must not stay empty.
        if old.exists() and not folder.exists():
            try:
                old.replace(folder)
            except OSError as error:
                said = f"{error.strerror}; the older artefact is safe in {old}, rename it back"
                raise OSError(error.errno, said) from error
        raise
    shutil.rmtree(old, ignore_errors=True)
    flush(folder)
    flush(folder.parent)


def _hidden(path: Path, ending: str) -> Path:
    """Name something beside a path as nobody else does: hidden, and short enough for any system."""
    return path.parent / f".{path.name[:_SHOWN]}.{uuid.uuid4().hex}.{ending}"


def flush(path: Path) -> None:
    """Ask the system to put a file or folder on the disk; folders cannot be opened for that on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows flushes only what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
