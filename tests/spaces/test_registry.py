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


def test_a_registered_function_takes_options_and_a_space_is_itself():
    cmcr.register_space("mine", make)
    assert "mine" in registry.space_names()
    assert cmcr.space("mine", scale=3.0).fingerprint == "v3.0"
    with pytest.raises(ConfigError, match=r"Did you mean 'scale'\?"):
        cmcr.space("mine", scal=3.0)
    space = make()
    cmcr.register_space("mine", space)
    assert cmcr.space("mine") is space


def test_names_of_cmcr_cannot_be_taken_and_only_spaces_registered():
    for name in ("mini-clip", "clip"):
        with pytest.raises(ConfigError, match=f"'{name}' is taken"):
            cmcr.register_space(name, make)
    with pytest.raises(ConfigError, match="got int"):
        cmcr.register_space("mine", 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mini-clp", {}, "Did you mean 'mini-cl[ai]p'"),
        ("ulip", {}, "'ulip' needs model="),
        ("mini-clip", {"model": "large"}, "unknown option of space 'mini-clip' 'model'"),
    ],
)
def test_unknown_spaces_and_options_and_missing_ones_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        cmcr.space(name, **options)


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


@pytest.fixture
def saved(tmp_path):
    """A connection of the space of `make` and another."""
    rng = np.random.default_rng(0)
    left = cmcr.Memories("mine", text=rng.normal(size=(64, 2)), image=rng.normal(size=(20, 2)))
    right = cmcr.Memories("clap", text=rng.normal(size=(64, 3)), audio=rng.normal(size=(20, 3)))
    left.fingerprint = make().fingerprint
    cmcr.connect(left, right, method="c-mcr", epochs=1, device="cpu").save(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_connection_finds_a_registered_space_by_its_fingerprint(saved):
    assert cmcr.load(saved).encoders == {}
    cmcr.register_space("mine", make())
    connection = cmcr.load(saved)
    found = connection.encode(["x"], "text", space="mine")
    np.testing.assert_allclose(found, connection.project(make().encode(["x"], "text"), "mine"))


def test_encoders_are_attached_by_hand_if_they_are_the_right_ones(saved):
    def mine(name="mine", fingerprint="v1.0", width=2):
        return cmcr.CustomSpace(name, text=lambda items: np.ones((len(items), width)), fingerprint=fingerprint)

    assert cmcr.load(saved, encoders=[mine()]).encode(["x"], "text", space="mine").shape == (1, 3 + 2 + 3)
    wide = mine(width=5)
    wide.encode(["x"], "text")  # its width is known from then on
    for wrong, message in [
        (mine(fingerprint="v2"), "these are v2"),
        (mine("mina"), r"Did you mean 'mine'\?"),
        (wide, r"takes rows 2 wide, these encoders make \[5\]"),
    ]:
        with pytest.raises(ConfigError, match=message):
            cmcr.load(saved, encoders=[wrong])
    with pytest.raises(ConfigError, match="no encoder of space 'clap' is attached"):
        cmcr.load(saved).encode(["x"], "text", space="clap")
