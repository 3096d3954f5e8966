"""The small spaces, each written and opened once for all tests of this folder; a test that changes one opens its own."""

import shutil

import numpy as np
import pytest
from small_models import ITEMS, KINDS, items, write_items


class Opened(dict):
    """Spaces by kind, each made when it is first asked for; its files are in `root / kind`."""

    def __init__(self, root):
        super().__init__()
        self.root = root

    def __missing__(self, kind):
        if KINDS[kind].write:
            pytest.importorskip("transformers")
            KINDS[kind].write(self.root / kind)
        self[kind] = KINDS[kind].open(self.root / kind)
        return self[kind]


@pytest.fixture(scope="session")
def spaces(tmp_path_factory):
    return Opened(tmp_path_factory.mktemp("spaces"))


@pytest.fixture
def copy_of(spaces, tmp_path):
    """By kind, a copy of its files."""

    def copied(kind):
        assert spaces[kind]  # its files are written
        return shutil.copytree(spaces.root / kind, tmp_path / kind)

    return copied


@pytest.fixture(scope="session")
def alone(spaces):
    """By kind and modality, the rows of the items, embedded one at a time."""
    known = {}

    def rows_of(kind, modality):
        if (kind, modality) not in known:
            rows = [spaces[kind].encode([item], modality) for item in items(modality)]
            known[kind, modality] = np.concatenate(rows)
        return known[kind, modality]

    return rows_of


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return {modality: write_items(modality, tmp_path_factory.mktemp(modality)) for modality in ITEMS}


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of the hub, which is out of reach."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"
