"""Folders that are whole or not there: written aside, flushed to the disk, renamed into place; hashed and checked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmcr.errors import (
    ArtefactError,
    ArtefactNotFoundError,
    CmcrError,
    FormatError,
    IntegrityError,
    LockedError,
    ReadError,
    WriteError,
)

MANIFEST = "config.json"
_OWN_HASH = "sha256_of_this_file"
_SHOWN = 40  # characters of a name, at most 160 bytes: with what is added the systems' limit of 255 is far


def write_artefact(
    folder: Path, manifest: dict[str, Any], write_files: Callable[[Path], None], *, replace: bool = False
) -> None:
    """Write an artefact: its files, then the manifest with their hashes, then one rename into place.

    Args:
        folder: where; its parent is made if need be.
        manifest: what the manifest says; must hold "format".
        write_files: writes all other files into the folder it is given.
        replace: take the place of an older artefact of the same kind; anything else at the target is refused.

    Raises:
        WriteError: no permission, disk full, or something in the way at the target.
    """
    with written_aside(folder, manifest["format"], replace=replace) as aside:
        write_files(aside)
        hashes = {path.name: sha256_of(path) for path in sorted(aside.iterdir()) if path.suffix != ".md"}
        (aside / MANIFEST).write_bytes(_manifest_bytes({**manifest, "sha256": hashes}))


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
    """Find out, before hours of work, that an artefact could not be written because something is in the way.

    Args:
        folder: where it will be.
        kind: its format, such as "cmcr connection".
        replace: whether it may take the place of an older one.

    Raises:
        WriteError: something is there that must not be replaced.
    """
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


def read_manifest(folder: Path, expected_format: str, version: int, files: Collection[str]) -> dict[str, Any]:
    """Read and check the manifest of an artefact, and that every file is there with the bytes it had.

    Args:
        folder: the artefact.
        expected_format: what its manifest must call it.
        version: of the format.
        files: names of all hashed files that it must have.

    Raises:
        ArtefactNotFoundError: there is no such folder.
        FormatError: no manifest (half-written), not JSON, another kind of artefact, or another version.
        IntegrityError: a file is missing or its bytes have changed.
        ReadError: the system refuses to read it.
    """
    manifest = parsed_manifest(folder, expected_format, version)
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or set(hashes) != set(files):
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
                f"{path}: sha256 is {found[:12]}…, expected {expected[:12]}…: its bytes have changed since it was written. "
                "Restore it from a copy."
            )
    return manifest


def parsed_manifest(folder: Path, expected_format: str, version: int) -> dict[str, Any]:
    """Read the manifest of an artefact, and check it alone, not the files that it speaks of.

    Raises:
        ArtefactNotFoundError, FormatError, IntegrityError, ReadError: as `read_manifest`.
    """
    manifest = _parsed(folder, expected_format)
    if manifest.get("format") != expected_format:
        raise FormatError(f"{folder}: expected a {expected_format}, got {manifest.get('format')!r}.")
    if manifest.get("version") != version:
        raise FormatError(
            f"{folder}: written in version {manifest.get('version')!r} of the {expected_format} format; this cmcr reads "
            f"version {version}. Install the cmcr that wrote it ({manifest.get('written_by')})."
        )
    if _own_hash(manifest) != manifest.get(_OWN_HASH):
        raise IntegrityError(f"{folder / MANIFEST}: its content is not what was written. Restore it from a copy.")
    return manifest


def artefact_kind(folder: Path) -> str:
    """Return what a folder's manifest calls it, such as "cmcr memory".

    Raises:
        ArtefactNotFoundError: there is nothing.
        FormatError: no manifest, or one that cannot be parsed.
        ReadError: the system refuses to read it.
    """
    return str(_parsed(folder, "cmcr artefact").get("format", f"folder whose {MANIFEST} names no format"))


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
    """Turn what the system says when it refuses to write into a `WriteError`.

    Args:
        path: what is written.
        left: what the refusal leaves on disk and what to do, to end the message with.
    """
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


def write_bytes_whole(path: Path, *parts: bytes | memoryview) -> str:
    """Write a file under another name, flush it, rename it into place.

    The folder is not flushed: several files are written before one `flush`. The other name, which a killed run may
    leave behind, ends with `.part` and is never the same: a process that was taken for lost may still be writing the file.

    Args:
        path: of the file.
        *parts: its content, one after another.

    Returns:
        the sha256 of the content.

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
    """Put a manifest, with a hash of its own, into a folder whose other files are there and flushed; it is whole or as it was.

    Raises:
        OSError: no permission, disk full.
    """
    write_bytes_whole(folder / MANIFEST, _manifest_bytes(manifest))
    flush(folder)


@contextmanager
def locked(file: Path, message: str) -> Iterator[None]:
    """Hold a lock, whose file is made if need be. The system frees it when the process ends.

    Args:
        file: of the lock, in a folder that is there.
        message: of the error if another process holds it.

    Raises:
        LockedError: another process holds it.
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


def _parsed(folder: Path, expected_format: str) -> dict[str, Any]:
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
    try:
        with reading(path):
            manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: not valid JSON ({error}). Restore it from a copy.") from error
    if not isinstance(manifest, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(manifest).__name__}.")
    return manifest


def _own_hash(manifest: dict[str, Any]) -> str:
    """Hash all else in the manifest, so that a changed byte in the manifest itself shows."""
    rest = {key: value for key, value in manifest.items() if key != _OWN_HASH}
    canonical = json.dumps(rest, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _manifest_bytes(manifest: dict[str, Any]) -> bytes:
    return (json.dumps({**manifest, _OWN_HASH: _own_hash(manifest)}, indent=2, ensure_ascii=False) + "\n").encode(
        "utf-8"
    )


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
