"""Artefact folders: whole or not there, whatever happens."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cmcr import files
from cmcr.errors import ArtefactNotFoundError, FormatError, IntegrityError, LockedError, ReadError, WriteError
from cmcr.files import MANIFEST, artefact_kind, check_target, locked, read_manifest, write_artefact, write_text_whole

KIND = "test artefact"
MANIFEST_OF = {"format": KIND, "version": 1, "written_by": "cmcr test"}


def write(folder: Path, content: str = "content", replace: bool = True) -> None:
    write_artefact(
        folder, MANIFEST_OF, lambda aside: (aside / "data.bin").write_text(content) and None, replace=replace
    )


def read(folder: Path, kind: str = KIND, version: int = 1) -> dict:
    return read_manifest(folder, kind, version, {"data.bin"})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------------------- writing


def test_what_was_written_is_read_and_nothing_else_is_left(tmp_path):
    write(tmp_path / "deep" / "artefact")
    assert names(tmp_path / "deep") == ["artefact"]
    assert names(tmp_path / "deep" / "artefact") == [MANIFEST, "data.bin"]
    manifest = read(tmp_path / "deep" / "artefact")
    assert manifest["written_by"] == "cmcr test"
    assert manifest["sha256"] == {"data.bin": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"}
    assert artefact_kind(tmp_path / "deep" / "artefact") == KIND


def test_only_an_artefact_of_the_same_kind_is_replaced_and_only_on_request(tmp_path):
    write(tmp_path / "a", "old", replace=False)
    with pytest.raises(WriteError, match="a test artefact is there already"):
        write(tmp_path / "a", "new", replace=False)
    write(tmp_path / "a", "new")
    assert (tmp_path / "a" / "data.bin").read_text() == "new"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for taken in ("thesis", "file"):
        with pytest.raises(WriteError, match="something that is not a test artefact"):
            write(tmp_path / taken)
        with pytest.raises(WriteError, match="something that is not a test artefact"):
            check_target(tmp_path / taken, KIND, replace=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    for write_below in (write, lambda path: write_text_whole(path, "text")):
        with pytest.raises(WriteError, match="could not write"):
            write_below(tmp_path / "file" / "below")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", replace=False)
    assert names(tmp_path) == ["a", "empty", "file", "thesis"]


@pytest.mark.parametrize("letter", ["x", "é", "音"])
def test_any_name_that_the_system_takes_is_written(tmp_path, letter):
    longest = letter * (255 // len(letter.encode()))
    for content in ("old", "new"):
        write(tmp_path / longest, content)
        write_text_whole(tmp_path / "texts" / longest, content)
    assert (tmp_path / longest / "data.bin").read_text() == "new"
    assert [path.read_text() for path in (tmp_path / "texts").iterdir()] == ["new"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("bug")])
def test_a_failure_leaves_nothing_behind_and_the_older_artefact_alone(tmp_path, failure):
    write(tmp_path / "a", "old")

    def fail(aside: Path) -> None:
        (aside / "data.bin").write_text("half")
        raise failure

    with pytest.raises(WriteError if isinstance(failure, OSError) else type(failure)) as caught:
        write_artefact(tmp_path / "a", MANIFEST_OF, fail, replace=True)
    if isinstance(failure, OSError):
        assert (caught.value.errno, "No space left" in str(caught.value)) == (28, True)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "data.bin").read_text() == "old"
    read(tmp_path / "a")


@pytest.mark.parametrize("restored", [True, False])
def test_a_failing_rename_restores_the_older_artefact_or_names_where_it_is(tmp_path, monkeypatch, restored):
    write(tmp_path / "a", "old")
    rename = Path.replace

    def failing(self, target):
        if self.name.endswith(".part") or (self.name.endswith(".old") and not restored):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(WriteError, match="Permission denied" if restored else "the older artefact is safe in"):
            write(tmp_path / "a", "new")
    (survivor,) = tmp_path.iterdir()
    assert (survivor.name == "a") == restored
    assert (survivor / "data.bin").read_text() == "old"


@pytest.mark.parametrize(("after", "content"), [(1, "old"), (2, "new")])
def test_ctrl_c_around_the_renames_leaves_one_whole_artefact(tmp_path, monkeypatch, after, content):
    write(tmp_path / "a", "old")
    rename, calls = Path.replace, []

    def interrupting(self, target):
        done = rename(self, target)
        calls.append(self)
        if len(calls) == after:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupting)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "a", "new")
    read(tmp_path / "a")
    assert (tmp_path / "a" / "data.bin").read_text() == content
    write(tmp_path / "a", "newer")


def test_two_writers_at_once_leave_one_whole_artefact(tmp_path):
    def attempt(content: str) -> bool:
        try:
            write(tmp_path / "a", content)
        except WriteError:  # the other writer was between its two renames: said, not silent
            return False
        return True

    write(tmp_path / "a", "0")
    with ThreadPoolExecutor(4) as pool:
        assert any(list(pool.map(attempt, map(str, range(40)))))
    read(tmp_path / "a")


def test_a_file_is_whole_or_as_it_was_also_with_two_writers(tmp_path, monkeypatch):
    write_text_whole(tmp_path / "new" / "a.txt", "first")
    rename = Path.replace

    def other_writer_first(self, target):
        """A worker that was taken for lost may still write what another one writes again."""
        monkeypatch.setattr(Path, "replace", rename)
        files.write_bytes_whole(target, b"the ", b"same")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", other_writer_first)
    hashed = files.write_bytes_whole(tmp_path / "new" / "a.txt", b"the same")
    assert hashed == files.sha256_of(tmp_path / "new" / "a.txt")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(WriteError, match="No space left"):
        write_text_whole(tmp_path / "new" / "a.txt", "second")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"the same"
    assert names(tmp_path / "new") == ["a.txt"]


def test_a_lock_is_held_once_and_freed(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock", "taken"):
            other = locked(tmp_path / "lock", "taken")
            with pytest.raises(LockedError, match="taken"):
                other.__enter__()


# ------------------------------------------------------------------------------------------------------------- reading


def test_every_single_changed_byte_of_data_and_manifest_is_noticed(tmp_path):
    write(tmp_path / "a")
    for name in ("data.bin", MANIFEST):
        path = tmp_path / "a" / name
        whole = path.read_bytes()
        for position in range(len(whole)):
            changed = bytearray(whole)
            changed[position] ^= 0x20 if chr(whole[position]).isspace() else 0x01
            path.write_bytes(bytes(changed))
            with pytest.raises((IntegrityError, FormatError)):
                read(tmp_path / "a")
        path.write_bytes(whole)
    read(tmp_path / "a")


def test_what_is_no_whole_artefact_is_refused_by_what_is_wrong(tmp_path):
    for missing in (ArtefactNotFoundError, FileNotFoundError):
        with pytest.raises(missing, match="there is no test artefact here"):
            read(tmp_path / "a")
    write(tmp_path / "a")
    with pytest.raises(FormatError, match="expected a connection, got a test artefact"):
        read(tmp_path / "a", kind="connection")
    with pytest.raises(FormatError, match="written in version 1"):
        read(tmp_path / "a", version=2)
    for hashes in (None, [], {}, {"data.bin": "0", "more.bin": "0"}):
        files.write_manifest(tmp_path / "a", MANIFEST_OF | {"sha256": hashes})
        with pytest.raises(FormatError, match=r"expected the hashes of data\.bin"):
            read(tmp_path / "a")
    write(tmp_path / "a")
    for spoil, error, message in (
        (lambda: (tmp_path / "a" / "data.bin").write_text("Content"), IntegrityError, r"data\.bin: sha256 is"),
        (lambda: (tmp_path / "a" / "data.bin").unlink(), IntegrityError, r"data\.bin is missing"),
        (lambda: (tmp_path / "a" / MANIFEST).write_text("[1]"), FormatError, "expected a JSON object, got list"),
        (lambda: (tmp_path / "a" / MANIFEST).unlink(), FormatError, r"has no config\.json"),
        (lambda: (tmp_path / "a").rmdir() or (tmp_path / "a").write_text("a file"), FormatError, "got a file"),
    ):
        spoil()
        with pytest.raises(error, match=message):
            read(tmp_path / "a")


def test_what_the_system_refuses_to_read_is_reported(tmp_path, monkeypatch):
    write(tmp_path / "a")
    monkeypatch.setattr(
        files, "sha256_of", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(path)))
    )
    with pytest.raises(ReadError, match=r"could not read \(Permission denied\): '.*data\.bin'"):
        read(tmp_path / "a")
