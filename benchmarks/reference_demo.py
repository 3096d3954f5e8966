"""The published demonstration: three items as picture, sound, point cloud and text, through the published projectors.

Embeds the items with CLIP, CLAP and ULIP, carries them through the published projector files and prints
``softmax(10 cos)`` between the modalities, row by row, beside the published diagonals. What the published demonstration
draws at random (windows of sounds, the first point of a cloud) is fixed here, so expect its tables nearly, not exactly.

    python benchmarks/reference_demo.py --data DEMO --clap-clip clap_clip.pt --ulip-clip ulip_clip.pt --ulip ulip2.pt
    python benchmarks/reference_demo.py --data DEMO --random      # random weights of the true size

DEMO holds toilet, BBQ and train as .jpeg, .wav and .xyz.npy (plain arrays, not the published pickles). The texts
are these three names.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from cmcr.connection.connect import connect
from cmcr.connection.connection import Connection
from cmcr.memories.memories import Memories
from cmcr.published import import_published
from cmcr.spaces.dual_encoders import DualEncoderSpace
from cmcr.spaces.ulip.space import UlipSpace
from cmcr.spaces.ulip.towers import POINT_BERT, PointCloudTower

ITEMS = ("toilet", "BBQ", "train")
PUBLISHED_DIAGONALS = {
    ("clap-clip", "audio", "image"): (0.9712, 0.8966, 0.9616),
    ("clap-clip", "audio", "text"): (0.9937, 0.9434, 0.8934),
    ("clap-clip", "image", "text"): (0.9681, 0.9398, 0.9910),
    ("ulip-clip", "point_cloud", "text"): (0.7448, 0.5625, 0.5346),
    ("ulip-clip", "point_cloud", "image"): (0.6783, 0.7866, 0.6512),
    ("ulip-clip", "image", "text"): (0.7340, 0.5995, 0.6542),
}

Rows = NDArray[np.float32]


def tables(name: str, connection: Connection, rows: dict[str, tuple[str, Rows]]) -> None:
    """Print the softmax tables of one connection.

    Args:
        name: "clap-clip" or "ulip-clip".
        connection: the published one.
        rows: by modality, the space that embedded it and its `(3, 512)` rows.
    """
    projected = {modality: connection.project(own, space) for modality, (space, own) in rows.items()}
    for (which, queries, corpus), diagonal in PUBLISHED_DIAGONALS.items():
        if which != name:
            continue
        logits = 10 * torch.from_numpy(connection.similarity(projected[queries], projected[corpus]))
        table = torch.softmax(logits, dim=1)
        print(f"\n{name}: {queries} x {corpus}, softmax(10 cos)          published diagonal")
        for item, row, published in zip(ITEMS, table.tolist(), diagonal, strict=True):
            print(f"  {item:<8}" + "  ".join(f"{value:.4f}" for value in row) + f"          {published:.4f}")


def random_clip(folder: Path) -> Path:
    """Write a CLIP ViT-B/32 of the true size with random weights and a tokenizer of letters."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    config = CLIPConfig(text_config={"bos_token_id": 0, "eos_token_id": 1}, projection_dim=512)
    CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def random_clap(folder: Path) -> Path:
    """Write a fused CLAP of the true size with random weights and a tokenizer of bytes."""
    from tokenizers import pre_tokenizers
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = ClapModel(ClapConfig(audio_config={"enable_fusion": True, "fusion_type": "aff_2d"}))
    for weights in model.text_model.parameters():
        if weights.ndim > 1:  # as it is initialised all texts have one embedding, which is refused
            torch.nn.init.normal_(weights, std=2 * weights.shape[1] ** -0.5)
    model.save_pretrained(folder)
    ClapFeatureExtractor(truncation="fusion", frequency_min=50).save_pretrained(folder)
    RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder


def random_ulip(folder: Path) -> Path:
    """Write a PointBERT of the published size with random weights."""
    path = folder / "ulip.safetensors"
    weights = PointCloudTower(POINT_BERT).state_dict()
    for name in ("point_encoder.cls_token", "point_encoder.cls_pos"):  # the only ones that start out empty
        weights[name] = 0.02 * torch.randn(weights[name].shape)
    save_file(weights, path)
    return path


def random_connection(left: str, right: str, overlap: str, outer: tuple[str, str], method: str) -> Connection:
    """Make a connection of the published shape from random rows."""
    rng = np.random.default_rng(0)

    def rows() -> NDArray[np.float64]:
        return rng.normal(size=(64, 512))

    return connect(
        Memories(left, **{overlap: rows(), outer[0]: rows()}),
        Memories(right, **{overlap: rows(), outer[1]: rows()}),
        method=method,
        epochs=1,
        device="cpu",
    )


def timed(space: Any, inputs: list[str], modality: str) -> Rows:
    """Embed and print one JSON line with the time it took."""
    start = time.perf_counter()
    rows: Rows = space.encode(inputs, modality)
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "benchmark": "reference_demo",
                "space": space.name,
                "modality": modality,
                "items": len(inputs),
                "width": rows.shape[1],
                "seconds": round(seconds, 3),
                "unit_rows": bool(np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)),
            }
        ),
        flush=True,
    )
    return rows


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clip", default="openai/clip-vit-base-patch32", help="repository or folder")
    parser.add_argument("--clap", default="laion/clap-htsat-fused", help="repository or folder")
    parser.add_argument("--ulip", help="the ULIP-2 PointBERT file")
    parser.add_argument("--clap-clip", type=Path, help="published projector file")
    parser.add_argument("--ulip-clip", type=Path, help="published projector file")
    parser.add_argument("--random", action="store_true", help="random weights of the true size instead")
    arguments = parser.parse_args()
    if not arguments.random and not (arguments.ulip and arguments.clap_clip and arguments.ulip_clip):
        parser.error("give --ulip, --clap-clip and --ulip-clip, or --random")
    with tempfile.TemporaryDirectory() as scratch:
        run(arguments, Path(scratch))


def run(arguments: argparse.Namespace, scratch: Path) -> None:
    """Embed everything and print both sets of tables."""
    torch.manual_seed(0)

    def pick(given: str, make: Callable[[Path], Path], name: str) -> str:
        if not arguments.random:
            return given
        (scratch / name).mkdir()
        return str(make(scratch / name))

    clip = DualEncoderSpace("clip", model=pick(arguments.clip, random_clip, "clip"))
    clap = DualEncoderSpace("clap", model=pick(arguments.clap, random_clap, "clap"))
    ulip = UlipSpace(pick(arguments.ulip, random_ulip, "ulip"), num_points=10_000)
    files = {
        suffix: [str(arguments.data / f"{item}{suffix}") for item in ITEMS] for suffix in (".jpeg", ".wav", ".xyz.npy")
    }
    shared = {
        "image": ("clip", timed(clip, files[".jpeg"], "image")),
        "text": ("clip", timed(clip, list(ITEMS), "text")),
    }
    sounds = timed(clap, files[".wav"], "audio")
    clouds = timed(ulip, files[".xyz.npy"], "point_cloud")
    if arguments.random:
        with_clap = random_connection("clip", "clap", "text", ("image", "audio"), "c-mcr-published")
        with_ulip = random_connection("clip", "ulip", "image", ("text", "point_cloud"), "c-mcr-published-ulip")
        print("\nRandom weights: the tables only show that the path works.")
    else:
        with_clap, with_ulip = import_published(arguments.clap_clip), import_published(arguments.ulip_clip)
    tables("clap-clip", with_clap, {**shared, "audio": ("clap", sounds)})
    tables("ulip-clip", with_ulip, {**shared, "point_cloud": ("ulip", clouds)})


if __name__ == "__main__":
    main()
