"""Spaces by name: cmcr's own, registered, installed."""

import sys

import numpy as np
import pytest

import cmcr
from cmcr.errors import ConfigError
from cmcr.spaces import registry


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def make(scale: float = 1.0):
    return cmcr.CustomSpace("mine", text=lambda items: scale * np.ones((len(items), 2)), fingerprint=f"v{scale}")


def test_a_registered_function_takes_options():
    cmcr.register_space("mine", make)
    assert "mine" in registry.space_names()
    assert cmcr.space("mine", scale=3.0).fingerprint == "v3.0"
    with pytest.raises(ConfigError, match=r"unknown option of space 'mine' 'scal'\. Did you mean 'scale'\?"):
        cmcr.space("mine", scal=3.0)


def test_a_registered_space_is_itself():
    space = make()
    cmcr.register_space("mine", space)
    assert cmcr.space("mine") is space


def test_names_of_cmcr_cannot_be_taken_and_only_spaces_registered():
    for name in ("mini-clip", "clip", "ulip"):
        with pytest.raises(ConfigError, match=f"'{name}' is taken"):
            cmcr.register_space(name, make)
    with pytest.raises(ConfigError, match="got int"):
        cmcr.register_space("mine", 3)


def test_unknown_spaces_and_missing_options_are_named():
    with pytest.raises(ConfigError, match=r"'mini-clp'\. Did you mean 'mini-cl[ai]p'"):
        cmcr.space("mini-clp")
    with pytest.raises(ConfigError, match=r"'ulip' needs model="):
        cmcr.space("ulip")


def test_mini_spaces_take_no_options():
    with pytest.raises(ConfigError, match="unknown option of space 'mini-clip' 'model'"):
        cmcr.space("mini-clip", model="large")


def test_an_installed_package_offers_a_space(tmp_path, monkeypatch):
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cmcr.spaces]\ntheirs = their_module:open_space\n")
    (tmp_path / "their_module.py").write_text(
        "import cmcr, numpy\n"
        "def open_space():\n"
        "    return cmcr.CustomSpace('theirs', fingerprint='1', text=lambda t: numpy.ones((len(t), 2)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "theirs" in registry.space_names()
    assert cmcr.space("theirs").encode(["a"], "text").shape == (1, 2)
    sys.modules.pop("their_module")


def test_a_saved_connection_finds_a_registered_space_by_its_fingerprint(tmp_path):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(500, 4))
    space = cmcr.CustomSpace(
        "mine",
        text=lambda items: table[[len(item) for item in items]],
        image=lambda items: table[: len(items)],
        fingerprint="v1",
    )
    texts = ["x" * n for n in range(64)]
    left = cmcr.Memories(space, text=space.encode(texts, "text"), image=rng.normal(size=(20, 4)))
    right = cmcr.Memories("clap", text=rng.normal(size=(64, 3)), audio=rng.normal(size=(20, 3)))
    connection = cmcr.connect(left, right, epochs=1, device="cpu")
    connection.save(tmp_path / "a")
    assert cmcr.load(tmp_path / "a").encoders == {}
    cmcr.register_space("mine", space)
    loaded = cmcr.load(tmp_path / "a")
    np.testing.assert_allclose(
        loaded.encode(texts[:3], "text", space="mine"), connection.project(space.encode(texts[:3], "text"), "mine")
    )


def test_encoders_are_attached_by_hand_if_they_are_the_right_ones(tmp_path):
    rng = np.random.default_rng(0)

    def mine(fingerprint="v1", width=4, name="mine"):
        return cmcr.CustomSpace(name, text=lambda items: np.ones((len(items), width)), fingerprint=fingerprint)

    left = cmcr.Memories("mine", text=rng.normal(size=(64, 4)), image=rng.normal(size=(20, 4)))
    right = cmcr.Memories("clap", text=rng.normal(size=(64, 3)), audio=rng.normal(size=(20, 3)))
    left.fingerprint = "v1"
    cmcr.connect(left, right, epochs=1, device="cpu").save(tmp_path / "a")
    assert cmcr.load(tmp_path / "a", encoders=[mine()]).encode(["x"], "text", space="mine").shape == (1, 4)
    with pytest.raises(ConfigError, match="trained with the encoders v1, these are v2"):
        cmcr.load(tmp_path / "a", encoders=[mine("v2")])
    with pytest.raises(ConfigError, match=r"unknown space 'mina'\. Did you mean 'mine'\?"):
        cmcr.load(tmp_path / "a", encoders=[mine(name="mina")])
    wide = mine(width=5)
    wide.encode(["x"], "text")
    with pytest.raises(ConfigError, match=r"takes rows 4 wide, these encoders make \[5\]"):
        cmcr.load(tmp_path / "a", encoders=[wide])
    with pytest.raises(ConfigError, match="no encoder of space 'clap' is attached"):
        cmcr.load(tmp_path / "a").encode(["x"], "text", space="clap")
