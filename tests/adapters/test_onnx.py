"""ONNX graphs of a connection: onnxruntime gives what torch gives.

An export takes seconds, so one encoder and two projectors stand for all: `benchmarks/parity.py` measures every architecture,
and every export compares itself with torch before it is there.
"""

import json
import logging
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from small_models import items, write_clip

import cmcr
from cmcr.adapters import onnx as exporting
from cmcr.connection.connection import ConnectedSpace
from cmcr.errors import ConfigError, WriteError

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="the extra onnx is not installed"
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "clip"
    write_clip(folder)
    opened = cmcr.space("clip", model=folder, device="cpu")
    tower = opened.parts().model.vision_model.encoder
    tower.layers = tower.layers[:1]
    return opened


@pytest.fixture(scope="module")
def connection(clip):
    """A direct sum through pictures, whose maps are not unit: all that a row can be made of."""
    rng = np.random.default_rng(0)
    left = cmcr.Memories(clip, image=rng.normal(size=(64, 24)), text=rng.normal(size=(64, 24)))
    right = cmcr.Memories("ulip", image=rng.normal(size=(64, 20)), point_cloud=rng.normal(size=(64, 20)))
    made = cmcr.connect(left, right, method="concepts", concepts=6, own_share=0.5, own_width=8)
    # Without the text tower, which costs as much again.
    known = (ConnectedSpace("clip", ("image",), 24), ConnectedSpace("ulip", ("image", "point_cloud"), 20))
    return replace(made, spaces=known)


@pytest.fixture(scope="module")
def folder(connection, tmp_path_factory):
    place = tmp_path_factory.mktemp("written") / "folder"
    connection.export_onnx(place)
    return place


def run(path, **inputs):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)


@pytest.mark.parametrize("count", [1, 5])
def test_an_encoder_gives_the_rows_of_encode(connection, clip, folder, count):
    given = items("image")[:count]
    inputs = {name: values.numpy() for name, values in clip.model_inputs(given, "image").items()}
    embeddings, rows = run(folder / "visual_model.onnx", **inputs)
    assert np.abs(embeddings - clip.encode(given, "image")).max() < 1e-5
    assert np.abs(rows - connection.encode(given, "image", space="clip")).max() < 1e-5


@pytest.mark.parametrize(("name", "space", "width"), [("visual", "clip", 24), ("point_cloud", "ulip", 20)])
@pytest.mark.parametrize("count", [1, 7])
def test_a_projector_alone_gives_the_rows_of_project(connection, folder, name, space, width, count):
    given = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
    (rows,) = run(folder / f"{name}_projection.onnx", input=given)
    assert np.abs(rows - connection.project(given, space)).max() < 1e-5


def test_the_folder_says_what_is_in_it(connection, folder):
    config = json.loads((folder / "clip_config.json").read_text())
    assert config["projection_dim"] == connection.width
    assert config["vision_config"] == {
        "hidden_size": 24, "projection_dim": connection.width, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    assert (
        "| point_cloud | ulip | not here | `point_cloud_projection.onnx` | 20 |" in (folder / "README.md").read_text()
    )
    assert (folder / "preprocessor_config.json").is_file()


def test_the_exporter_keeps_to_itself_what_it_could_not_fold(caplog):
    with exporting._quiet():
        logging.getLogger("onnxscript.optimizer").warning("skipped")
    assert caplog.messages == []


def test_nothing_is_left_where_an_export_fails_or_something_is_there(connection, tmp_path, monkeypatch, folder):
    with pytest.raises(WriteError, match="there already"):
        connection.export_onnx(folder)

    def fail(*_, **__):
        raise RuntimeError("an operator that nobody knows\nand more")

    monkeypatch.setattr(exporting.torch.onnx, "export", fail)
    with pytest.raises(ConfigError, match=r"projector of clip cannot be exported \(an operator"):
        connection.export_onnx(tmp_path / "other")
    assert not list(tmp_path.iterdir())
