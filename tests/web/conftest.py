"""One small index of all modalities for all tests of the server, made from files as a user makes one."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image
from web_client import client_of

import cmcr
from cmcr.data.numbers import SEEN_NUMBERS, draw_pictures, sample_point_clouds, speak_sounds, write_texts
from cmcr.web.served import Served

COUNT = 12


@pytest.fixture(scope="session")
def connection():
    rng, numbers = np.random.default_rng(5), SEEN_NUMBERS[:80]
    pictures, texts = list(draw_pictures(numbers, "train", rng)), write_texts(numbers, rng)
    sounds = [{"array": heard, "sampling_rate": 8000} for heard in speak_sounds(numbers, "train", rng)]
    clouds = list(sample_point_clouds(numbers, "train", rng))
    items = {
        "mini-clip": {"text": texts, "image": pictures},
        "mini-clap": {"text": texts, "audio": sounds},
        "mini-ulip": {"image": pictures, "point_cloud": clouds},
    }
    memories = [
        cmcr.Memories(
            cmcr.space(name), **{modality: cmcr.space(name).encode(given, modality) for modality, given in each.items()}
        )
        for name, each in items.items()
    ]
    return cmcr.connect(*memories, method="procrustes", seed=0)


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A folder of pictures, sounds, clouds and a table of texts."""
    folder, rng = tmp_path_factory.mktemp("media"), np.random.default_rng(6)
    numbers = SEEN_NUMBERS[200 : 200 + COUNT]
    for kind in ("pictures", "sounds", "clouds"):
        (folder / kind).mkdir()
    for number, picture in zip(numbers, draw_pictures(numbers, "train", rng), strict=True):
        Image.fromarray(picture).save(folder / "pictures" / f"{number}.png")
    for number, sound in zip(numbers, speak_sounds(numbers, "train", rng), strict=True):
        soundfile.write(folder / "sounds" / f"{number}.wav", sound, 8000)
    for number, cloud in zip(numbers, sample_point_clouds(numbers, "train", rng), strict=True):
        np.save(folder / "clouds" / f"{number}.npy", cloud)
    rows = [{"text": text, "year": 2000 + at} for at, text in enumerate(write_texts(numbers, rng))]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def index_folder(connection, media, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "index"
    inputs = [media / name for name in ("pictures", "sounds", "clouds", "texts.jsonl")]
    cmcr.index(connection, inputs, folder)
    return folder


@pytest.fixture(scope="session")
def index(index_folder):
    return cmcr.SearchIndex(index_folder)


@pytest.fixture
def served(index):
    return Served(lambda earlier: index)


@pytest.fixture
def client(served):
    with client_of(served) as opened:
        yield opened


@pytest.fixture(scope="session")
def numbers(index):
    """The first item of each modality."""
    return {corpus.modality: corpus.first for corpus in index.opened.corpora}
