"""What a user with strict types writes: `make check` holds the public names to it, nothing runs it."""

from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray

import cmcr
from cmcr.connection.diagnosis import Finding
from cmcr.search.query import Ranking
from cmcr.spaces.protocol import Space

Rows = NDArray[np.floating]


def from_arrays(texts: NDArray[np.float32], pictures: torch.Tensor, sounds: NDArray[np.float64]) -> cmcr.Connection:
    clip = cmcr.Memories("clip", text=texts, image=pictures)
    clap = cmcr.Memories("clap", text=texts, audio=sounds)
    print(cmcr.compare(clip, clap))
    connection = cmcr.connect(clip, clap, seed=0, method="c-mcr", epochs=10)
    assert_type(connection, cmcr.Connection)
    assert_type(connection.project(sounds, space="clap"), Rows)
    assert_type(connection.common(pictures, space="clip"), torch.Tensor)
    assert_type(connection.similarity(pictures, sounds), torch.Tensor)
    assert_type(connection.diagnose(), tuple[Finding, ...])
    assert_type(cmcr.semantic_completion(pictures, noise_variance=0.004), torch.Tensor)
    assert_type(cmcr.semantic_consistency(texts, memory=sounds, temperature=0.01), Rows)
    connection.save("my-connection", replace=True)
    return cmcr.load("my-connection")


def from_files() -> list[Ranking]:
    clip = cmcr.space("clip", model="openai/clip-vit-base-patch32")
    assert_type(clip, Space)
    texts = cmcr.embed(clip, "text", "captions.txt", "captions-in-clip")
    pictures = cmcr.embed("clip", "image", "pictures", "pictures-in-clip", batch_size=8)
    sounds = cmcr.write_memory(
        "sounds", np.ones((3, 512), np.float32), ids=["a", "b", "c"], space="clap", modality="audio"
    )
    assert_type(sounds, cmcr.Memory)
    assert_type(sounds[1:], NDArray[np.float32])
    connection = cmcr.connect_on_disk(texts, pictures, cmcr.Memory("captions-in-clap"), sounds, out="my-connection")
    assert_type(connection, cmcr.Connection)
    assert_type(connection.encode(["dog.jpg"], modality="image"), NDArray[np.float32])
    assert_type(connection.project(sounds, space="clap"), Rows)
    index = cmcr.index(connection, "pictures", out="my-index")
    assert_type(index, cmcr.SearchIndex)
    return index.search(text="at night", limit=5)


def own_encoder(model: torch.nn.Module) -> None:
    def embed_texts(texts: list[str]) -> torch.Tensor:
        return model(texts)

    mine = cmcr.CustomSpace("mine", text=embed_texts, fingerprint="1")
    cmcr.register_space("mine", lambda: mine)
    try:
        mine.encode("a dog", "text")
    except cmcr.CmcrError as error:
        assert_type(error, cmcr.CmcrError)
