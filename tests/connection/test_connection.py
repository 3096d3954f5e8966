"""A connection: what it projects, compares and encodes, and that it is the same after saving and loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cmcr
import reference.connection as twin
import reference.projectors as projector_twin
from cmcr.connection import artefact
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import Settings
from cmcr.errors import (
    ArtefactNotFoundError,
    ConfigError,
    DeviceError,
    DimensionError,
    FormatError,
    IntegrityError,
    NonFiniteError,
    WriteError,
    ZeroRowError,
)
from cmcr.files import MANIFEST, sha256_of, write_manifest
from connection.trained import layers_of

WIDTHS = {"clip": 4, "clip.b": 5}


def both(config):
    return {name: {**config, "width_in": width} for name, width in WIDTHS.items()}


class Encoder:
    """A space whose embedding of the number n is ones, plus one on the axis n."""

    def __init__(self, width):
        self.width, self.calls = width, []

    def encode(self, inputs, modality, *, batch_size, show_progress_bar):
        self.calls.append((inputs, modality, batch_size, show_progress_bar))
        rows = np.float32([[1.0 + (column == item) for column in range(self.width)] for item in np.atleast_1d(inputs)])
        return rows if isinstance(inputs, list) else rows[0]


def made(encoders=None):
    """A connection none of whose numbers is at its usual start."""
    settings, generator = Settings(width=3, hidden=(6,)), torch.Generator().manual_seed(0)
    projectors = {name: Projector(width, settings.projector_shape(4, 5)).eval() for name, width in WIDTHS.items()}
    for projector in projectors.values():
        for name, value in projector.state_dict().items():
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return Connection(
        spaces=(ConnectedSpace("clip", ("text", "image"), 4), ConnectedSpace("clip.b", ("text", "audio"), 5, "abc", 9)),
        projectors=projectors,
        overlap="text",
        method="c-mcr",
        settings=settings,
        seed=3,
        overlap_rows=10,
        history={"total": [2.5, 1.0]},
        encoders=encoders or {},
    )


# ------------------------------------------------------------------------------------------------------------- project


@pytest.mark.parametrize("space", WIDTHS)
@pytest.mark.parametrize("rows", [1, 7, 16_385])  # the last in two parts
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_project_equals_its_twin(rng, space, rows, dtype):
    connection = made()
    x = (5 * rng.normal(size=(rows, WIDTHS[space]))).astype(dtype)  # not unit rows: they are scaled first
    expected = projector_twin.project(x, layers_of(connection.projectors[space]))
    double = dtype is np.float64
    for embeddings in (x, torch.from_numpy(x)):
        result = connection.project(embeddings, space)
        assert type(result) is type(embeddings)
        assert np.asarray(result).dtype == (np.float64 if double else np.float32)
        np.testing.assert_allclose(np.asarray(result), expected, atol=1e-12 if double else 1e-5)


def test_projecting_leaves_the_connection_alone(rng):
    connection = made()
    before = {name: value.clone() for name, value in connection.projectors["clip"].state_dict().items()}
    result = connection.project(torch.from_numpy(rng.normal(size=(6, 4))).requires_grad_(), "clip")
    assert not result.requires_grad
    assert not connection.projectors["clip"].training
    for name, value in connection.projectors["clip"].state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("embeddings", "how", "error", "message"),
    [
        (np.ones((1, 4)), {"space": "clipp"}, ConfigError, "Did you mean 'clip'"),
        (np.ones((1, 5)), {}, DimensionError, r"do they belong to the other space"),
        (np.ones((1, 4)), {"device": "gpu"}, DeviceError, "unknown device 'gpu'"),
        (np.array([[1.0] * 4, [0.0] * 4]), {}, ZeroRowError, "the first is row 1"),
    ],
)
def test_embeddings_that_cannot_be_projected_are_refused(embeddings, how, error, message):
    with pytest.raises(error, match=message):
        made().project(embeddings, **{"space": "clip"} | how)


# ---------------------------------------------------------------------------------------------------------- similarity


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("queries", "corpus", "width"), [(1, 1, 1), (1, 5, 3), (4, 3, 8)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_similarity_equals_its_twin(rng, queries, corpus, width, scale, dtype):
    q, c = ((scale * rng.normal(size=(rows, width))).astype(dtype) for rows in (queries, corpus))
    expected = twin.similarity(q, c)
    for left, right in ((q, c), (torch.from_numpy(q), c), (q, torch.from_numpy(c))):
        result = made().similarity(left, right)
        assert type(result) is type(left)
        assert np.asarray(result).dtype == (np.float64 if dtype is np.float64 else np.float32)
        np.testing.assert_allclose(np.asarray(result), expected, atol=1e-14 if dtype is np.float64 else 1e-6)


def test_cosines_stay_between_minus_one_and_one_and_are_zero_for_rows_of_zeros(rng):
    rows = rng.normal(size=(500, 3)).astype(np.float32)
    result = made().similarity(rows, np.concatenate([rows, -rows, np.zeros((1, 3), np.float32)]))
    assert (result.max(), result.min()) == (1.0, -1.0)
    assert not result[:, -1].any()  # a final ReLU can leave such rows
    assert np.isfinite(made().similarity(1e30 * rows, 1e-30 * rows)).all()


def test_rows_that_cannot_be_compared_are_refused():
    good = np.ones((1, 3))
    for bad, error in (
        (np.full((1, 3), np.nan), NonFiniteError),
        (np.ones(3), DimensionError),
        (np.ones((1, 4)), DimensionError),
    ):
        for arrays, name in (((bad, good), "queries"), ((good, bad), "corpus")):
            with pytest.raises(error, match=name):
                made().similarity(*arrays)


# -------------------------------------------------------------------------------------------------------------- encode


@pytest.mark.parametrize(
    ("modality", "named"), [("image", None), ("text", "clip"), ("text", "clip.b"), ("audio", None)]
)
def test_encode_is_the_encoder_and_then_the_projector(modality, named):
    encoders = {name: Encoder(width) for name, width in WIDTHS.items()}
    connection = made(encoders)
    chosen = named or ("clip" if modality == "image" else "clip.b")
    result = connection.encode([2, 0], modality, space=named, batch_size=7, show_progress_bar=False)
    assert {name: encoder.calls for name, encoder in encoders.items() if encoder.calls} == {
        chosen: [([2, 0], modality, 7, False)]
    }
    embedded = np.float32([[1 + (column == item) for column in range(WIDTHS[chosen])] for item in (2, 0)])
    expected = projector_twin.project(embedded, layers_of(connection.projectors[chosen]))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(connection.encode(2, modality, space=named), expected[0], atol=1e-5)
    assert encoders[chosen].calls[-1] == (2, modality, 32, None)  # the defaults


@pytest.mark.parametrize(
    ("modality", "space", "message"),
    [
        ("imagee", None, "Did you mean 'image'"),
        ("text", None, r"space='clip' or space='clip\.b'"),
        ("text", "clop", "Did you mean 'clip'"),
        ("audio", "clip", r"does not embed audio; 'clip\.b' does"),
        ("audio", None, "needs the encoders with fingerprint abc"),
    ],
)
def test_what_cannot_be_encoded_is_refused(modality, space, message):
    encoder = Encoder(4)
    with pytest.raises(ConfigError, match=message):
        made({"clip": encoder}).encode([1], modality, space=space)
    assert encoder.calls == []


# -------------------------------------------------------------------------------------------------------- save and load


@pytest.fixture
def folder(tmp_path):
    made().save(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_loaded_connection_equals_the_saved_one_bit_for_bit(folder, rng, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a pickle was opened"))
    saved, before = made(), torch.get_rng_state()
    loaded = cmcr.load(folder)
    assert torch.equal(torch.get_rng_state(), before)
    for space, width in WIDTHS.items():
        rows = rng.normal(size=(9, width)).astype(np.float32)
        np.testing.assert_array_equal(loaded.project(rows, space), saved.project(rows, space))
    for name in ("spaces", "settings", "history", "method", "seed", "overlap", "overlap_rows", "width", "encoders"):
        assert getattr(loaded, name) == getattr(saved, name), name
    assert (loaded.width, loaded.modalities) == (3, ("text", "image", "audio"))


def test_the_folder_holds_a_manifest_weights_history_and_a_model_card(folder, tmp_path):
    files = {"README.md", MANIFEST, "history.json", "model.safetensors", "references.safetensors"}
    assert {path.name for path in folder.iterdir()} == files
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["format"] == "cmcr connection"
    outer = {"name": "clip.b", "modalities": ["text", "audio"], "width": 5, "fingerprint": "abc", "outer_rows": 9}
    assert manifest["spaces"][1] == outer
    assert "clip + clip.b, connected through text" in (folder / "README.md").read_text()
    made().save(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_connection_is_replaced_only_on_request_and_other_things_never(folder, tmp_path):
    with pytest.raises(WriteError, match="a cmcr connection is there already"):
        made().save(folder)
    made().save(folder, replace=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("keep me")
    with pytest.raises(WriteError, match="not a cmcr connection"):
        made().save(tmp_path / "notes", replace=True)
    assert (tmp_path / "notes" / "todo.txt").read_text() == "keep me"


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(WriteError, match="No space left"):
        made().save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [MANIFEST, "model.safetensors", "history.json"])
def test_a_damaged_or_missing_file_is_found(folder, name):
    whole = (folder / name).read_bytes()
    for position in np.linspace(1, len(whole) - 3, 25).astype(int):
        changed = bytearray(whole)
        changed[position] ^= 1
        (folder / name).write_bytes(bytes(changed))
        with pytest.raises((IntegrityError, FormatError)):
            cmcr.load(folder)
    (folder / name).unlink()
    with pytest.raises(FormatError if name == MANIFEST else IntegrityError, match=name):
        cmcr.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projectors": both({"kind": "projector", "shape": {"width": 7, "hidden": [6]}})}, "size mismatch"),
        ({"projectors": both({"kind": "projector", "shape": {"width": 0, "hidden": [6]}})}, "width"),
        ({"projectors": both({"kind": "os.system", "shape": {}})}, "os.system"),
        ({"projectors": {}}, "clip"),
        ({"settings": {"epochs": -1}}, "epochs"),
        ({"settings": {"epoch": 1}}, "epoch"),
        ({"spaces": []}, "spaces"),
        ({"seed": "three"}, "seed"),
    ],
)
def test_a_manifest_of_impossible_content_is_refused_though_its_hash_is_right(folder, change, message):
    manifest = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, manifest | change)
    with pytest.raises(FormatError, match=rf"not a usable cmcr connection[\s\S]*{message}"):
        cmcr.load(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_weights_of_another_precision_or_none_are_refused(folder, dtype):
    path = folder / artefact.WEIGHTS
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)
    manifest = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, manifest | {"sha256": manifest["sha256"] | {artefact.WEIGHTS: sha256_of(path)}})
    with pytest.raises(FormatError, match="not float32"):
        cmcr.load(folder)
    with pytest.raises(ArtefactNotFoundError, match="no cmcr connection here"):
        cmcr.load(folder / "nothing")


def test_weights_that_are_not_finite_are_refused(folder):
    path = folder / artefact.WEIGHTS
    tensors = load_file(path)
    next(value for value in tensors.values() if value.is_floating_point()).view(-1)[0] = torch.nan
    save_file(tensors, path)
    manifest = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, manifest | {"sha256": manifest["sha256"] | {artefact.WEIGHTS: sha256_of(path)}})
    with pytest.raises(FormatError, match="NaN or infinity"):
        cmcr.load(folder)
