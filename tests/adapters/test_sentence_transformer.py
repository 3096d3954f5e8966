"""The folder that plain sentence-transformers opens: its vectors equal the connection's, and the rest is refused."""

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import items, write_clap, write_clip

import cmcr
from cmcr.adapters.model_card import plain_names
from cmcr.adapters.sentence_transformer import modules_of
from cmcr.connection.connection import ConnectedSpace
from cmcr.connection.maps import Blocks, Chain, Mixture, Shift
from cmcr.errors import ConfigError, WriteError

pytestmark = pytest.mark.skipif(
    find_spec("sentence_transformers") is None, reason="the extra sentence-transformers is missing"
)

METHODS = {
    "cca": {},
    "ridge": {},
    "procrustes": {},
    "c-mcr": {"epochs": 2},
    "c-mcr-published": {"epochs": 2, "width": 20, "hidden": (12, 14), "final_relu": True},
    "c-mcr-residual": {"epochs": 2},
    "posterior": {"items": 20, "width": 12},
}


@pytest.fixture(scope="module")
def spaces(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_clip(root / "clip")
    halve(root / "clip")
    for fused in (False, True):
        write_clap(root / f"clap-{fused}", fused=fused)
    names = ("clip", "clap-False", "clap-True")
    return [cmcr.space(name.split("-")[0], model=root / name, device="cpu") for name in names]


def halve(folder):
    """Store a model in half precision, as many are published; a space computes with it in float32."""
    weights = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))


def connect(clip, clap, method="cca", own_share=0.0, **settings):
    """Connect two spaces by rows around means that lie apart, as those of modalities do."""
    rng = np.random.default_rng(0)

    def rows(lean):
        return rng.normal(size=(64, 24)) + lean * np.eye(24)[lean]

    left = cmcr.Memories(clip, text=rows(1), image=rows(2))
    right = cmcr.Memories(clap, text=rows(3), audio=rows(4))
    return cmcr.connect(left, right, method=method, own_share=own_share, **settings)


@pytest.fixture(scope="module")
def written(spaces, tmp_path_factory):
    """A connection, and what sentence-transformers opens of it."""
    clip, clap, _ = spaces
    connection = connect(clip, clap, "c-mcr", epochs=2)
    folder = tmp_path_factory.mktemp("written") / "folder"
    connection.to_sentence_transformer(folder)
    return connection, folder, opened(folder)


def opened(folder):
    from sentence_transformers import SentenceTransformer  # seconds, which only the process that runs this file pays

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("modality", "space"), [("text", "clip"), ("image", "clip"), ("text", "clap"), ("audio", "clap")]
)
def test_its_vectors_equal_those_of_encode(written, modality, space, batch_size):
    connection, _, model = written
    ours = short(items(modality))
    theirs = [{"audio": sound} for sound in ours] if modality == "audio" else ours
    task = None if (modality, space) == ("text", "clip") else space
    rows = model.encode(theirs, task=task, batch_size=batch_size)
    assert np.abs(rows - connection.encode(ours, modality, space=space)).max() < 1e-5
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def short(given):
    """Sounds within the window of one second; all of the rest."""
    return [item for item in given if not isinstance(item, dict) or len(item["array"]) <= item["sampling_rate"]]


def test_its_folder_holds_their_modules_alone_and_each_encoder_once(written):
    _, folder, model = written
    config = json.loads((folder / "router_config.json").read_text())
    assert all(kind.startswith("sentence_transformers.") for kind in config["types"].values())
    assert sum(kind.endswith("Transformer") for kind in config["types"].values()) == 2
    assert not list(folder.rglob("*.py")) + list(folder.rglob("*.bin"))
    assert json.loads((folder / "config_sentence_transformers.json").read_text())["requirements"]
    assert model.max_seq_length == 77


def test_a_model_of_several_modalities_becomes_a_space_of_them(written):
    connection, _, model = written
    modalities = {"text": "clip", "image": "clip", "audio": "clap"}
    space = cmcr.from_sentence_transformers(
        model, "both", fingerprint="mine", modality=tuple(modalities), sample_rate_hz=48_000
    )
    for modality, owner in modalities.items():
        ours = short(items(modality))
        expected = connection.encode(ours, modality, space=owner)
        np.testing.assert_allclose(space.encode(ours, modality), expected, atol=1e-5)


def test_spaces_whose_names_make_one_folder_get_two_routes():
    assert plain_names(["siglip.2", "siglip_2", "a-b"], r"[^\w-]") == {
        "siglip.2": "siglip_2",
        "siglip_2": "siglip_2_",
        "a-b": "a-b",
    }


def test_its_card_says_what_it_cannot_promise(written):
    card = (written[1] / "README.md").read_text()
    for fact in ("random position", 'task="clap"', "Point clouds", "transparen"):
        assert fact in card


def test_a_fused_model_embeds_short_sounds_alike_whatever_the_batch(spaces, tmp_path):
    clip, _, fused = spaces
    connection = connect(clip, fused)
    connection.to_sentence_transformer(tmp_path / "folder")
    model = opened(tmp_path / "folder")
    sounds = short(items("audio"))
    for size in (1, 3):
        rows = model.encode([{"audio": sound} for sound in sounds], batch_size=size)
        assert np.abs(rows - connection.encode(sounds, "audio")).max() < 1e-5


@pytest.mark.filterwarnings("ignore:Implicit dimension")
@pytest.mark.parametrize("method", METHODS)
def test_the_modules_of_a_map_equal_it(spaces, method):
    connection = connect(*spaces[:2], method, **METHODS[method])
    rows = torch.nn.functional.normalize(torch.randn(50, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    for name in ("clip", "clap"):
        assert_equal(connection, connection.projectors[name], rows, connection.project(rows, name))


def test_the_modules_of_a_shift_equal_it(spaces):
    found = Shift(24)
    found.mean.copy_(torch.linspace(-1, 1, 24))
    found.scale.fill_(0.3)
    rows = torch.nn.functional.normalize(torch.randn(50, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    assert_equal(connect(*spaces[:2]), Chain([found]), rows, found(rows))


def assert_equal(connection, found, rows, expected):
    features = {"sentence_embedding": rows}
    with torch.no_grad():
        for module in modules_of(found, connection):
            features = module(features)
    assert (features["sentence_embedding"] - expected).abs().max() < 1e-5


def test_a_direct_sum_goes_by_its_common_block(spaces, tmp_path):
    connection = connect(*spaces[:2], own_share=0.98)
    with pytest.raises(ConfigError, match="common=True"):
        connection.to_sentence_transformer(tmp_path / "folder")
    assert not list(tmp_path.iterdir())
    connection.to_sentence_transformer(tmp_path / "folder", common=True)
    model = opened(tmp_path / "folder")
    texts = items("text")
    expected = connection.common(connection.encoders["clip"].encode(texts, "text"), "clip")
    assert np.abs(model.encode(texts) - expected).max() < 1e-5


def test_a_map_that_their_modules_cannot_express_names_a_method_that_works(spaces, tmp_path):
    connection = connect(*spaces[:2], method="concepts", concepts=4)
    with pytest.raises(ConfigError, match="Connect with cca"):
        connection.to_sentence_transformer(tmp_path / "folder")
    with pytest.raises(ConfigError, match="Connect with cca"):
        modules_of(Mixture([Shift(24), Shift(24)], [0.5, 0.5]), connection)


def test_of_several_spaces_only_those_with_a_base_can_be_written(spaces):
    connection = connect(*spaces[:2])
    three = replace(connection, spaces=(*connection.spaces, ConnectedSpace("ulip", ("image", "point_cloud"), 24)))
    with pytest.raises(ConfigError, match="base="):
        modules_of(Blocks([Shift(24), Shift(24)], [0, 24], 72), three)


def test_encoders_that_are_not_there_or_not_of_transformers_are_refused(spaces, tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(40, 24)) for _ in range(4)]
    left, right = cmcr.Memories("clip", text=rows[0], image=rows[1]), cmcr.Memories("clap", text=rows[2], audio=rows[3])
    with pytest.raises(ConfigError, match="encoders="):
        cmcr.connect(left, right, method="cca", own_share=0.0).to_sentence_transformer(tmp_path / "folder")
    custom = cmcr.CustomSpace("clip", text=lambda texts: np.ones((len(texts), 24)), fingerprint="f")
    connection = replace(connect(*spaces[:2]), encoders={"clip": custom, "clap": custom})
    with pytest.raises(ConfigError, match="none of transformers"):
        connection.to_sentence_transformer(tmp_path / "folder")


def test_nothing_is_written_where_the_vectors_would_differ_or_something_is_there(spaces, tmp_path, monkeypatch):
    clip, clap, _ = spaces
    connection = connect(clip, clap)
    monkeypatch.setattr(clip, "encode", lambda items, modality: np.eye(24, dtype=np.float32)[: len(items)])
    with pytest.raises(ConfigError, match="otherwise than cmcr"):
        connection.to_sentence_transformer(tmp_path / "other")
    assert not list(tmp_path.iterdir())
    (tmp_path / "taken").write_text("")
    with pytest.raises(WriteError, match="there already"):
        connection.to_sentence_transformer(tmp_path / "taken")
