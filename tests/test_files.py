"""Artefact folders: whole or not there, whatever happens."""

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cmcr import files
from cmcr.errors import ArtefactNotFoundError, FormatError, IntegrityError, ReadError, WriteError
from cmcr.files import MANIFEST, read_manifest, write_artefact, write_text_whole

KIND = "test artefact"
MANIFEST_OF = {"format": KIND, "version": 1, "written_by": "cmcr test"}


def write(folder: Path, content: str = "content") -> None:
    write_artefact(folder, MANIFEST_OF, lambda aside: (aside / "data.bin").write_text(content) and None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read_and_nothing_else_is_left(tmp_path):
    write(tmp_path / "deep" / "artefact")
    assert names(tmp_path / "deep") == ["artefact"]
    assert names(tmp_path / "deep" / "artefact") == [MANIFEST, "data.bin"]
    assert read_manifest(tmp_path / "deep" / "artefact", KIND, 1, {"data.bin"})["written_by"] == "cmcr test"


def test_an_older_artefact_is_replaced(tmp_path):
    write(tmp_path / "a", "old")
    write(tmp_path / "a", "new")
    read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})
    assert (tmp_path / "a" / "data.bin").read_text() == "new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("letter", ["x", "é", "音"])
def test_any_name_that_the_system_takes_is_written(tmp_path, letter):
    longest = letter * (255 // len(letter.encode()))
    for content in ("old", "new"):
        write(tmp_path / longest, content)
        write_text_whole(tmp_path / "texts" / longest, content)
        files.write_bytes_whole(tmp_path / "texts" / longest[:-1], content.encode())
    assert (tmp_path / longest / "data.bin").read_text() == "new"
    assert sorted(path.read_text() for path in (tmp_path / "texts").iterdir()) == ["new", "new"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("bug")])
def test_a_failure_leaves_nothing_behind_and_the_older_artefact_alone(tmp_path, failure):
    write(tmp_path / "a", "old")

    def fail(aside: Path) -> None:
        (aside / "data.bin").write_text("half")
        raise failure

    expected = WriteError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as caught:
        write_artefact(tmp_path / "a", MANIFEST_OF, fail)
    if isinstance(failure, OSError):
        assert "No space left on device" in str(caught.value)
        assert caught.value.errno == 28
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "data.bin").read_text() == "old"
    read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})


def test_a_failing_rename_restores_the_older_artefact(tmp_path, monkeypatch):
    write(tmp_path / "a", "old")
    rename = Path.replace

    def failing(self, target):
        if self.name.endswith(".part"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(WriteError, match="Permission denied"):
        write(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "data.bin").read_text() == "old"


def test_if_even_restoring_fails_the_older_artefact_survives_under_a_name_that_is_told(tmp_path, monkeypatch):
    write(tmp_path / "a", "old")
    rename = Path.replace

    def failing(self, target):
        if self.name != "a":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(WriteError, match=r"the older artefact is safe in .*\.old, rename it back"):
            write(tmp_path / "a", "new")
    (survivor,) = tmp_path.iterdir()
    assert (survivor / "data.bin").read_text() == "old"


@pytest.mark.parametrize("after", [1, 2])
def test_ctrl_c_around_the_renames_leaves_one_whole_artefact(tmp_path, monkeypatch, after):
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
    read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})
    assert (tmp_path / "a" / "data.bin").read_text() == {1: "old", 2: "new"}[after]
    write(tmp_path / "a", "newer")


def test_two_writers_at_once_leave_one_whole_artefact(tmp_path):
    write(tmp_path / "a", "0")
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda i: _attempt(tmp_path / "a", str(i)), range(40)))
    assert any(outcomes)
    read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})


def _attempt(folder: Path, content: str) -> bool:
    try:
        write(folder, content)
    except WriteError:  # the other writer was between its two renames: said, not silent
        return False
    return True


def test_what_the_system_refuses_to_read_is_said(tmp_path, monkeypatch):
    write(tmp_path / "a")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "sha256_of", refuse)
    with pytest.raises(ReadError, match=r"could not read \(Permission denied\): '.*data\.bin'"):
        read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})


def test_a_manifest_that_does_not_hash_every_file_is_refused(tmp_path):
    for hashes in (None, [], {}, {"data.bin": "0", "more.bin": "0"}):
        write(tmp_path / "a")
        path = tmp_path / "a" / MANIFEST
        path.write_text(json.dumps(files._sealed({**json.loads(path.read_text()), "sha256": hashes})))
        with pytest.raises(FormatError, match=r"expected the hashes of data\.bin"):
            read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})


def test_other_things_at_the_target_are_never_deleted(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(WriteError, match="something that is not a test artefact is there already"):
        write(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("a file")
    with pytest.raises(WriteError, match="is there already"):
        write(tmp_path / "file")
    with pytest.raises(WriteError, match="could not write"):
        write(tmp_path / "file" / "below")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert names(tmp_path) == ["empty", "file", "thesis"]


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise on Windows")
def test_no_permission_is_said_and_leaves_nothing(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from cmcr.errors import WriteError
        from cmcr.files import write_artefact, write_text_whole
        if os.geteuid() == 0:
            os.seteuid(65534)  # the superuser may write anywhere, so become nobody
        target = Path(sys.argv[1])
        for write in (
            lambda: write_artefact(target / "a", {"format": "x"}, lambda aside: None),
            lambda: write_text_whole(target / "b.txt", "text"),
        ):
            try:
                write()
            except WriteError as error:
                print(error)
        """
    )
    for folder in [locked, *locked.parents][:4]:
        folder.chmod(folder.stat().st_mode | 0o055)  # pytest's folders are closed to others
    done = subprocess.run([sys.executable, "-c", script, str(locked)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.count("could not write (Permission denied); nothing half-written was left") == 2
    assert names(locked) == []


def test_a_missing_folder(tmp_path):
    with pytest.raises(ArtefactNotFoundError, match=r"there is no test artefact here"):
        read_manifest(tmp_path / "nothing", KIND, 1, {"data.bin"})
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "nothing", KIND, 1, {"data.bin"})


def test_a_half_written_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data.bin").write_text("content")
    with pytest.raises(FormatError, match=r"has no config\.json, so it is not a test artefact or was never finished"):
        read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})


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
                read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})
        path.write_bytes(whole)
    read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})


def test_messages_name_the_file_and_what_to_do(tmp_path):
    write(tmp_path / "a")
    (tmp_path / "a" / "data.bin").write_text("Content")
    with pytest.raises(IntegrityError, match=r"data\.bin: sha256 is \w+…, expected \w+….*Restore it from a copy"):
        read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})
    (tmp_path / "a" / "data.bin").unlink()
    with pytest.raises(IntegrityError, match=r"data\.bin is missing"):
        read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})
    with pytest.raises(FormatError, match="expected a connection, got 'test artefact'"):
        read_manifest(tmp_path / "a", "connection", 1, {"data.bin"})
    with pytest.raises(
        FormatError, match=r"written in version 1 of the test artefact format; this cmcr reads version 2"
    ):
        read_manifest(tmp_path / "a", KIND, 2, {"data.bin"})
    (tmp_path / "a" / MANIFEST).write_text("[1]")
    with pytest.raises(FormatError, match="expected a JSON object, got list"):
        read_manifest(tmp_path / "a", KIND, 1, {"data.bin"})


def test_the_manifest_lists_the_hash_of_every_file(tmp_path):
    write(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_text())
    assert manifest["sha256"] == {"data.bin": files.sha256_of(tmp_path / "a" / "data.bin")}
    assert manifest["sha256"]["data.bin"] == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_a_text_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    write_text_whole(tmp_path / "new" / "a.txt", "first")
    assert (tmp_path / "new" / "a.txt").read_text() == "first"
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(WriteError, match="No space left"):
        write_text_whole(tmp_path / "new" / "a.txt", "second")
    assert (tmp_path / "new" / "a.txt").read_text() == "first"
    assert names(tmp_path / "new") == ["a.txt"]


def test_two_writers_of_one_file_leave_it_whole(tmp_path, monkeypatch):
    """A worker that was taken for lost may still write what another one writes again."""
    rename = Path.replace

    def other_writer_first(self, target):
        monkeypatch.setattr(Path, "replace", rename)
        files.write_bytes_whole(target, b"the same")
        assert target.read_bytes() == b"the same"
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", other_writer_first)
    files.write_bytes_whole(tmp_path / "shard", b"the same")
    assert names(tmp_path) == ["shard"]
    assert (tmp_path / "shard").read_bytes() == b"the same"
