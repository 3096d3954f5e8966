"""A saved connection: the same after loading, refused when it is not whole."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cmcr
from cmcr.connection import artefact
from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, IntegrityError, WriteError
from cmcr.files import MANIFEST


def random_rows(rows, width, seed):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


@pytest.fixture(scope="module")
def connection():
    left = cmcr.Memories("clip", text=random_rows(64, 6, 0), image=random_rows(20, 6, 1))
    right = cmcr.Memories("clap", text=random_rows(64, 4, 2), audio=random_rows(30, 4, 3))
    return cmcr.connect(left, right, epochs=2, seed=3, device="cpu", hidden=(5,), final_relu=True)


@pytest.fixture
def folder(connection, tmp_path):
    connection.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_loaded_connection_equals_the_saved_one_bit_for_bit(connection, folder):
    loaded = cmcr.load(folder)
    for space, width in (("clip", 6), ("clap", 4)):
        rows = random_rows(9, width, 7)
        np.testing.assert_array_equal(loaded.project(rows, space), connection.project(rows, space))
    assert loaded.spaces == connection.spaces
    assert loaded.settings == connection.settings
    assert loaded.history == connection.history
    assert (loaded.method, loaded.seed, loaded.overlap, loaded.overlap_rows, loaded.width) == (
        "c-mcr",
        3,
        "text",
        64,
        6,
    )


def test_the_folder_holds_a_manifest_weights_history_and_a_model_card(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", MANIFEST, "history.json", "model.safetensors"]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["format"] == "cmcr connection"
    assert manifest["spaces"][0] == {
        "name": "clip",
        "modalities": ["text", "image"],
        "width": 6,
        "fingerprint": None,
        "outer_rows": 20,
    }
    card = (folder / "README.md").read_text()
    assert "clip + clap, connected through text" in card
    assert 'cmcr.load("path/to/this/folder")' in card


def test_files_are_readable_by_whoever_may_read_new_files(folder):
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {
        oct((folder / MANIFEST).stat().st_mode & 0o777)
    }


def test_saving_twice_gives_the_same_bytes(connection, folder, tmp_path):
    connection.save(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_missing_folder_names_what_was_expected(tmp_path):
    with pytest.raises(ArtefactNotFoundError, match="there is no cmcr connection here"):
        cmcr.load(tmp_path / "nothing")


@pytest.mark.parametrize("name", [MANIFEST, "model.safetensors", "history.json"])
def test_a_missing_file_is_half_written_or_damaged(folder, name):
    (folder / name).unlink()
    with pytest.raises(FormatError if name == MANIFEST else IntegrityError, match=name):
        cmcr.load(folder)


@pytest.mark.parametrize("name", [MANIFEST, "model.safetensors", "history.json"])
def test_a_changed_byte_is_found(folder, name):
    whole = (folder / name).read_bytes()
    for position in np.linspace(1, len(whole) - 3, 25).astype(int):
        changed = bytearray(whole)
        changed[position] ^= 1
        (folder / name).write_bytes(bytes(changed))
        with pytest.raises((IntegrityError, FormatError)):
            cmcr.load(folder)


def test_a_forged_manifest_with_a_right_hash_is_still_checked_against_the_weights(connection, tmp_path, monkeypatch):
    real = artefact._manifest
    monkeypatch.setattr(
        artefact, "_manifest", lambda c: {**real(c), "projector": {"width": 7, "hidden": [5], "final_relu": True}}
    )
    connection.save(tmp_path / "forged")
    with pytest.raises(FormatError, match="not a usable cmcr connection"):
        cmcr.load(tmp_path / "forged")


def test_no_permission_or_something_else_in_the_way(connection, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("keep me")
    with pytest.raises(WriteError, match="something that is not a cmcr connection is there already"):
        connection.save(tmp_path / "notes")
    assert (tmp_path / "notes" / "todo.txt").read_text() == "keep me"


def test_a_space_of_another_fingerprint_gets_no_encoder(connection, tmp_path):
    left = cmcr.Memories("mini-clip", text=random_rows(64, 6, 0), image=random_rows(20, 6, 1))
    right = cmcr.Memories("clap", text=random_rows(64, 4, 2), audio=random_rows(30, 4, 3))
    made_from_arrays = cmcr.connect(left, right, epochs=1, device="cpu")
    made_from_arrays.save(tmp_path / "a")
    assert cmcr.load(tmp_path / "a").encoders == {}


def test_names_with_dots_are_kept_apart(tmp_path):
    left = cmcr.Memories("clip", text=random_rows(64, 6, 0), image=random_rows(20, 6, 1))
    right = cmcr.Memories("clip.b", text=random_rows(64, 6, 2), audio=random_rows(30, 6, 3))
    connection = cmcr.connect(left, right, epochs=1, device="cpu")
    connection.save(tmp_path / "a")
    rows = random_rows(3, 6, 4)
    for space in ("clip", "clip.b"):
        np.testing.assert_array_equal(cmcr.load(tmp_path / "a").project(rows, space), connection.project(rows, space))


def test_a_full_disk_is_said_and_leaves_nothing(connection, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="No space left on device"):
        connection.save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_precision_are_refused(connection, tmp_path, monkeypatch):
    real = artefact.serialize
    monkeypatch.setattr(artefact, "serialize", lambda tensors: real({k: v.double() for k, v in tensors.items()}))
    connection.save(tmp_path / "a")
    with pytest.raises(FormatError, match="not float32"):
        cmcr.load(tmp_path / "a")


def test_loading_and_opening_a_space_leave_the_random_state_alone(folder):
    from cmcr.spaces.mini.space import MiniSpace

    before = torch.get_rng_state()
    cmcr.load(folder)
    MiniSpace("mini-clip")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_path_that_is_none():
    with pytest.raises(ConfigError, match="expected the path of a folder, got NoneType"):
        cmcr.load(None)


def test_loading_never_unpickles(folder, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("torch.load was called"))
    cmcr.load(folder)
