"""Reference vectors: what encoders and maps gave when a connection was saved, compared when it is loaded."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import cmcr
from cmcr.artefacts import verify
from cmcr.connection import artefact
from cmcr.connection.references import reference_inputs
from cmcr.errors import IntegrityError
from cmcr.files import write_manifest
from cmcr.spaces.mini.space import MiniSpace


@pytest.fixture(scope="module")
def connection():
    rng = np.random.default_rng(0)
    left = cmcr.Memories(MiniSpace("mini-clip"), text=rng.normal(size=(64, 128)), image=rng.normal(size=(20, 128)))
    right = cmcr.Memories("own", text=rng.normal(size=(64, 8)), audio=rng.normal(size=(20, 8)))
    return cmcr.connect(left, right, method="ridge", device="cpu")


@pytest.fixture
def saved(connection, tmp_path):
    connection.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_fixed_inputs_are_read_by_the_encoders_of_each_modality():
    for name, modalities in [
        ("mini-clip", "image text"),
        ("mini-clap", "audio text"),
        ("mini-ulip", "point_cloud image"),
    ]:
        for modality in modalities.split():
            rows = cmcr.space(name).encode(reference_inputs(modality), modality)
            assert (rows @ rows.T)[np.triu_indices(len(rows), 1)].max() < 0.99, "inputs that embed alike show little"
    assert reference_inputs("smell") == []


def test_what_an_encoder_gave_is_kept_and_compared(connection, saved):
    loaded = cmcr.load(saved)
    for modality in ("image", "text"):
        rows = connection.encoders["mini-clip"].encode(reference_inputs(modality), modality)
        np.testing.assert_array_equal(loaded.references["mini-clip"][modality], rows)
    assert loaded.versions["torch"] == torch.__version__
    assert verify(saved)["encoders_compared"] == ["image of mini-clip", "text of mini-clip"]


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_broken_tower_is_found_although_its_fingerprint_is_right(saved, modality):
    broken = MiniSpace("mini-clip")
    broken._networks[modality].head.weight[:] = broken._networks[modality].head.weight.roll(1, 0)
    with pytest.raises(IntegrityError, match=rf"the {modality} encoder of 'mini-clip'.* Versions: the same"):
        cmcr.load(saved, encoders=[broken])
    with pytest.raises(IntegrityError, match=f"the {modality} encoder"):
        verify(saved, encoders=[broken])


def test_the_versions_that_differ_are_named(saved):
    manifest = json.loads((saved / "config.json").read_text())
    write_manifest(saved, manifest | {"versions": {"torch": "1.9"}})
    broken = MiniSpace("mini-clip")
    broken._networks["text"].head.weight.neg_()
    with pytest.raises(IntegrityError, match=f"torch 1.9, now {torch.__version__}".replace("+", r"\+")):
        cmcr.load(saved, encoders=[broken])


def test_a_map_that_gives_other_rows_is_found(saved, monkeypatch):
    project = cmcr.Connection.project
    monkeypatch.setattr(cmcr.Connection, "project", lambda *given: project(*given).flip(1))
    with pytest.raises(IntegrityError, match="the map of 'mini-clip'"):
        artefact.load(saved)


def test_a_common_block_that_is_slightly_off_is_found(saved, monkeypatch):
    common = cmcr.Connection.common  # a fiftieth of a projected row, in which this would be lost

    def off(*given):
        rows = common(*given)
        return torch.nn.functional.normalize(rows + 0.2 * torch.nn.functional.normalize(rows.flip(1), dim=1), dim=1)

    monkeypatch.setattr(cmcr.Connection, "common", off)
    with pytest.raises(IntegrityError, match="the map of 'mini-clip'"):
        artefact.load(saved)


def test_a_connection_that_is_saved_again_keeps_what_was_first_seen(saved, tmp_path):
    again = dataclasses.replace(cmcr.load(saved), encoders={})
    again.save(tmp_path / "again")
    for modality, rows in cmcr.load(tmp_path / "again").references["mini-clip"].items():
        assert torch.equal(rows, again.references["mini-clip"][modality])


def test_an_encoder_that_cannot_read_the_fixed_inputs_has_no_references(connection, tmp_path):
    space = cmcr.CustomSpace("own", text=lambda texts: texts["no list"], fingerprint="1")
    dataclasses.replace(connection, encoders={"own": space}).save(tmp_path / "saved")
    assert artefact.load(tmp_path / "saved").references == {}


def test_a_connection_of_before_is_read_without_a_check(saved):
    manifest = json.loads((saved / "config.json").read_text())
    del manifest["versions"], manifest["sha256"]["references.safetensors"]
    write_manifest(saved, manifest)
    (saved / "references.safetensors").unlink()
    assert cmcr.load(saved).references == {}
    assert verify(saved)["encoders_compared"] == []


def test_the_references_do_not_change_the_hash_of_the_weights(connection, saved, tmp_path):
    dataclasses.replace(connection, encoders={}).save(tmp_path / "alone")
    hashes = [json.loads((folder / "config.json").read_text())["sha256"] for folder in (saved, tmp_path / "alone")]
    assert hashes[0]["model.safetensors"] == hashes[1]["model.safetensors"]
    assert hashes[0]["references.safetensors"] != hashes[1]["references.safetensors"]
