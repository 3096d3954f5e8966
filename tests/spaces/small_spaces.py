"""Every kind of space with a small random model, and items for them, in memory and as files; seeds decide everything."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is first imported

import numpy as np
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_ulip import COLOURED, SMALL, cloud, state_of, write_tokenizer

import cmcr
from cmcr.data.images import read_image, to_rgb

TEXTS = ["407", "four seven", "nine", "a cat 12", "it is eight", "oh one"]


@dataclass(frozen=True)
class Kind:
    """How one kind of space is made.

    Attributes:
        name: what the space calls itself.
        widths: width by modality.
        open: folder -> space.
        write: writes what `open` reads; None where there are no files.
        libraries: what has to be installed, by modality.
        device: whether `encode` can move it.
        decodes: whether cmcr decodes its items, not a function of the user's.
    """

    name: str
    widths: dict[str, int]
    open: Callable[[Path], Any]
    write: Callable[[Path], Any] | None = None
    libraries: tuple[str, ...] = ()
    device: bool = True
    decodes: bool = True


def items(modality: str) -> list[Any]:
    """Six items of many lengths, sizes and modes, as objects in memory."""
    return {"text": lambda: list(TEXTS), "image": _pictures, "audio": _sounds, "point_cloud": _clouds}[modality]()


def write_items(modality: str, folder: Path) -> list[Any]:
    """Write `items(modality)` losslessly; return what to embed instead of them. A text is its own file."""
    given = items(modality)
    endings = {"image": "png", "audio": "wav", "point_cloud": "npy"}
    if modality == "text":
        return given
    paths = [folder / f"{number}.{endings[modality]}" for number in range(len(given))]
    for path, item in zip(paths, given, strict=True):
        if modality == "image":
            item.save(path)
        elif modality == "audio":
            soundfile.write(path, item["array"], item["sampling_rate"], subtype="FLOAT")
        else:
            np.save(path, item)
    return paths


def _pictures() -> list[Image.Image]:
    drawn = []
    for seed, mode in enumerate(["RGB", "L", "RGBA", "LA", "P", "RGB"]):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(20, 90, 2)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8))
        noise = coarse.resize((int(width), int(height)), Image.Resampling.NEAREST)
        drawn.append(noise if mode == "RGBA" else noise.convert("RGB").convert(mode))
    return drawn


def _sounds() -> list[dict[str, Any]]:
    made = []
    for seed, seconds in enumerate([0.3, 1.0, 1.005, 2.5, 0.7, 3.2]):
        rng = np.random.default_rng(seed)
        time = np.arange(round(seconds * 48_000)) / 48_000
        low, high, speed = rng.uniform([100, 1000, 0.2], [900, 9000, 3.0])
        tones = np.sin(2 * np.pi * (low + 40 * time) * time) + np.sin(2 * np.pi * high * time) * np.sin(speed * time)
        noise = rng.normal(size=time.size) * (0.02 + 0.3 * np.abs(np.sin(2 * speed * time + seed)))
        made.append({"array": (0.2 * tones + 0.2 * noise).astype(np.float32), "sampling_rate": 48_000})
    return made


def _clouds() -> list[np.ndarray]:
    counts, columns = [50, 40, 30, 90, 16, 50], [6, 3, 6, 6, 3, 6]
    return [cloud(seed, count, width) for seed, (count, width) in enumerate(zip(counts, columns, strict=True))]


def _published(name: str, folder: Path) -> None:
    from published import write_clip, write_siglip

    {"clip": write_clip, "siglip": write_siglip}[name](folder)


def _clap(fused: bool, folder: Path) -> None:
    from small_clap import write_model

    write_model(folder, fused=fused)


def _ulip(state: dict[str, torch.Tensor], folder: Path) -> None:
    folder.mkdir()
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer")


def _open_ulip(folder: Path) -> Any:
    return cmcr.space("ulip", model=folder / "model.safetensors", tokenizer=folder / "tokenizer", device="cpu", **SMALL)


def _embed_texts(texts: list[str]) -> np.ndarray:
    return np.array([[len(text), *np.bincount([ord(c) % 7 for c in text], minlength=7)] for text in texts], np.float64)


def _embed_pictures(pictures: list[Any]) -> torch.Tensor:
    small = [to_rgb(read_image(item)).resize((2, 3), Image.Resampling.BILINEAR) for item in pictures]
    return torch.from_numpy(np.stack([np.asarray(picture, dtype=np.float32).ravel() for picture in small]))


class _OpenClipLike(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.seen = torch.nn.Parameter(torch.randn(3 * 8 * 8, 12, generator=generator))
        self.read = torch.nn.Parameter(torch.randn(16, 12, generator=generator))

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1) @ self.seen

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.read[tokens].mean(dim=1)


def _open_clip(_: Path) -> Any:
    return cmcr.from_open_clip(
        _OpenClipLike(),
        "open-clip",
        preprocess=lambda picture: (
            torch.from_numpy(np.array(picture.resize((8, 8)), np.float32)).permute(2, 0, 1) / 255
        ),
        tokenizer=lambda texts: torch.tensor(
            [[len(text) % 16, *(ord(c) % 16 for c in f"{text:11}")] for text in texts]
        ),
        fingerprint="of the user",
    )


def _precomputed(_: Path) -> Any:
    rows = np.random.default_rng(0).normal(size=(6, 5))
    return cmcr.PrecomputedSpace("precomputed", text=(TEXTS, rows), fingerprint="of the user")


def _mini(name: str) -> Callable[[Path], Any]:
    return lambda _: cmcr.space(name)


def _open(name: str) -> Callable[[Path], Any]:
    return lambda folder: cmcr.space(name, model=folder, device="cpu")


_TRANSFORMERS = ("transformers", "tokenizers")
KINDS = {
    "mini-clip": Kind("mini-clip", {"image": 128, "text": 128}, _mini("mini-clip")),
    "mini-clap": Kind("mini-clap", {"audio": 96, "text": 96}, _mini("mini-clap")),
    "mini-ulip": Kind("mini-ulip", {"point_cloud": 64, "image": 64}, _mini("mini-ulip")),
    "clip": Kind("clip", {"image": 24, "text": 24}, _open("clip"), lambda f: _published("clip", f), _TRANSFORMERS),
    "siglip": Kind(
        "siglip", {"image": 32, "text": 32}, _open("siglip"), lambda f: _published("siglip", f),
        (*_TRANSFORMERS, "sentencepiece", "google.protobuf"),
    ),
    "clap-fused": Kind("clap", {"audio": 24, "text": 24}, _open("clap"), lambda f: _clap(True, f), _TRANSFORMERS),
    "clap-unfused": Kind("clap", {"audio": 24, "text": 24}, _open("clap"), lambda f: _clap(False, f), _TRANSFORMERS),
    "ulip-xyz": Kind(
        "ulip", {"point_cloud": 32, "image": 32, "text": 32}, _open_ulip, lambda f: _ulip(state_of(), f), _TRANSFORMERS
    ),
    "ulip-xyzrgb": Kind("ulip", {"point_cloud": 32}, _open_ulip, lambda f: _ulip(state_of(COLOURED, None, None), f)),
    "brought": Kind(
        "brought", {"text": 8, "image": 18},
        lambda _: cmcr.BroughtSpace("brought", text=_embed_texts, image=_embed_pictures, fingerprint="of the user"),
        device=False, decodes=False,
    ),
    "open-clip": Kind("open-clip", {"image": 12, "text": 12}, _open_clip, device=False),
    "precomputed": Kind("precomputed", {"text": 5}, _precomputed, device=False),
}  # fmt: skip


def change_a_weight(folder: Path) -> None:
    """Move one number of the model in a folder by a thousandth."""
    state = load_file(folder / "model.safetensors")
    tensor = state[next(name for name in sorted(state) if state[name].is_floating_point() and state[name].ndim > 1)]
    tensor.view(-1)[0] += 1e-3
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
