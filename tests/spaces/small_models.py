"""Every kind of space with a small random model of the true architecture, and items to embed; seeds decide everything."""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is first imported

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_dual_encoders import DUAL_ENCODERS
from small_parts import CLAP_PIECES, CLIP_LENGTH, CLIP_PIECES, TINY, clip_tokenizer, randomised, save_parts

import cmcr
from cmcr.data.images import read_image, to_rgb
from cmcr.spaces.mini.space import MiniSpace
from cmcr.spaces.points.towers import TowerShape
from cmcr.spaces.ulip.towers import ImageTower, PointCloudTower, TextTower
from cmcr.spaces.uni3d import Uni3dTower

# --- items


def sound(seconds, seed, rate=48_000):
    """Two gliding tones in changing noise, so that no window is like another."""
    rng = np.random.default_rng(seed)
    time = np.arange(max(1, round(seconds * rate))) / rate
    low, high, speed = rng.uniform([100, 1000, 0.2], [900, 9000, 3.0])
    tones = np.sin(2 * np.pi * (low + 40 * time) * time) + np.sin(2 * np.pi * high * time) * np.sin(speed * time)
    noise = rng.normal(size=time.size) * (0.02 + 0.3 * np.abs(np.sin(2 * speed * time + seed)))
    return {"array": (0.2 * tones + 0.2 * noise).astype(np.float32), "sampling_rate": rate}


def cloud(seed, count=50, columns=3):
    """Coordinates in steps of 1/256, so that moving them by whole numbers or doubling them is exact."""
    rng = np.random.default_rng(seed)
    xyz = rng.integers(-256, 257, size=(count, 3)) / 256
    return np.concatenate([xyz, rng.random((count, columns - 3))], axis=1).astype(np.float32)


def pictures(count=6):
    """Coarse noise of many shapes and modes, from 20 to 90 pixels."""
    drawn = []
    for seed, mode in zip(range(count), ["RGB", "L", "RGBA", "LA", "P", "CMYK"] * count, strict=False):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(20, 90, 2)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8))
        noise = coarse.resize((int(width), int(height)), Image.Resampling.NEAREST)
        drawn.append(noise if mode == "RGBA" else noise.convert("RGB").convert(mode))
    return drawn


TEXTS = ["407", "four seven", "nine", "a cat 12", "it is eight", "oh one"]
CLOUDS = [(50, 6), (40, 3), (30, 6), (90, 6), (16, 3), (50, 6)]
ITEMS: dict[str, Callable[[], list[Any]]] = {
    "text": lambda: list(TEXTS),
    "image": pictures,
    "audio": lambda: [sound(seconds, seed) for seed, seconds in enumerate([0.3, 1.0, 1.005, 2.5, 0.7, 3.2])],
    "point_cloud": lambda: [cloud(seed, *shape) for seed, shape in enumerate(CLOUDS)],
}


def items(modality):
    """Six items of many lengths, sizes and modes, as objects in memory."""
    return ITEMS[modality]()


def write_items(modality, folder):
    """Write `items(modality)` losslessly; return what to embed instead of them. A text is its own file."""
    import soundfile

    given = items(modality)
    if modality == "text":
        return given
    ending = {"image": "tiff", "audio": "wav", "point_cloud": "npy"}[modality]
    paths = [folder / f"{number}.{ending}" for number in range(len(given))]
    for path, item in zip(paths, given, strict=True):
        if modality == "image":
            item.save(path)
        elif modality == "audio":
            soundfile.write(path, item["array"], item["sampling_rate"], subtype="FLOAT")
        else:
            np.save(path, item)
    return paths


# --- networks and tokenizers

SIGLIP_LENGTH = 16


def write_clip(folder):
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    count = len(CLIP_PIECES)
    text = TINY | {"max_position_embeddings": CLIP_LENGTH, "vocab_size": count}
    text |= {"bos_token_id": count - 2, "eos_token_id": count - 1}
    vision = TINY | {"image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save_parts(folder, randomised(model), processor, clip_tokenizer())


def write_siglip(folder, *, patch=8):
    """Its sentencepiece tokenizer is trained on a few sentences."""
    import sentencepiece
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    sentences = [
        "a photo of a cat",
        "two dogs and one train",
        "the sound of rain on a roof",
        "number four hundred seven",
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 4), model_prefix=str(folder / "spiece"), vocab_size=32, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1,
    )  # fmt: skip
    text = TINY | {"vocab_size": 32, "max_position_embeddings": SIGLIP_LENGTH, "projection_size": 32}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    config = SiglipConfig(text_config=text, vision_config=TINY | {"image_size": 32, "patch_size": patch})
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=SIGLIP_LENGTH)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return save_parts(folder, randomised(SiglipModel(config)), processor, tokenizer)


def clap_tokenizer():
    from transformers import RobertaTokenizer

    return RobertaTokenizer(vocab={piece: number for number, piece in enumerate(CLAP_PIECES)}, merges=[])


def clap_model(*, fused, bands=16, seed=0, **audio):
    """Two stages and two layers; the time axis folded four times, as published."""
    from transformers import ClapConfig, ClapModel

    audio = {
        "spec_size": 4 * bands, "num_mel_bins": bands, "window_size": bands // 8, "patch_embeds_hidden_size": 16,
        "hidden_size": 32, "depths": [2, 2], "num_attention_heads": [2, 4], "num_hidden_layers": 2,
        "enable_fusion": fused, "fusion_type": "aff_2d" if fused else None,
    } | audio  # fmt: skip
    text = {
        "vocab_size": len(CLAP_PIECES), "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 130, "layer_norm_eps": 1e-5,
    }  # fmt: skip
    return randomised(ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=24)), seed)


def clap_extractor(*, fused, seconds):
    from transformers import ClapFeatureExtractor

    bands, truncation = 64 if seconds == 10 else 16, "fusion" if fused else "rand_trunc"
    return ClapFeatureExtractor(feature_size=bands, frequency_min=50, max_length_s=seconds, truncation=truncation)


def write_clap(folder, *, fused):
    """Windows of one second keep the tests short."""
    parts = (clap_model(fused=fused), clap_extractor(fused=fused, seconds=1), clap_tokenizer())
    return save_parts(folder, *parts)


NUM_GROUP, GROUP_SIZE, NUM_POINTS = 12, 6, 40
SMALL = {"num_group": NUM_GROUP, "group_size": GROUP_SIZE, "num_points": NUM_POINTS}
VOCABULARY = len(CLIP_PIECES)
SHAPE = TowerShape(width=64, depth=2, heads=1, hidden=96, embedding=32)


def point_tower(channels=3, depth=2):
    return randomised(PointCloudTower(replace(SHAPE, depth=depth), channels=channels, group_width=24))


def text_tower(vocabulary=VOCABULARY):
    return randomised(TextTower(SHAPE, vocabulary=vocabulary, context=16), 2)


def ulip_state(*towers):
    """The tensors of a file by published name; of all three towers where none are given."""
    towers = towers or (point_tower(), randomised(ImageTower(SHAPE, size=32, patch=8), 1), text_tower())
    return {k: v for tower in towers for k, v in tower.state_dict().items()} | {"logit_scale": torch.tensor(4.6)}


def save_published(path, state):
    """A file as the authors of CLAP and ULIP published: a prefix on every key, settings and numpy's numbers beside."""
    torch.save(
        {
            "epoch": "last",
            "state_dict": {f"module.{name}": value for name, value in state.items()},
            "optimizer": {"state": {0: {"step": np.int64(1), "moments": np.ones(3)}}},
            "best_acc1": np.float64(74.8),
            "args": argparse.Namespace(model="ULIP_PointBERT", npoints=8192),
        },
        path,
    )
    return path


def write_ulip(folder, *towers):
    (folder / "tokenizer").mkdir(parents=True)
    save_file({name: tensor.clone() for name, tensor in ulip_state(*towers).items()}, folder / "model.safetensors")
    clip_tokenizer().backend_tokenizer.model.save(str(folder / "tokenizer"))  # vocab.json and merges.txt


def uni3d_state(depth=2):
    """The tensors of a published file of Uni3D: of the encoder, and those of EVA-02 that no cloud passes through."""
    network = randomised(Uni3dTower(replace(SHAPE, depth=depth), group_width=24))
    apart = {"cls_token": (1, 1, 64), "pos_embed": (1, 5, 64), "patch_embed.proj.weight": (64, 3, 14, 14)}
    apart |= {"patch_embed.proj.bias": (64,), "head.weight": (10, 64), "head.bias": (10,)}
    unused = {f"point_encoder.visual.{name}": torch.ones(shape) for name, shape in apart.items()}
    return network.state_dict() | unused | {"logit_scale": torch.tensor(4.6)}


def write_uni3d(folder):
    folder.mkdir(parents=True)
    save_file(uni3d_state(), folder / "model.safetensors")


# --- spaces of the user


def embed_texts(texts):
    return np.array([[len(text), *np.bincount([ord(c) % 7 for c in text], minlength=7)] for text in texts], np.float64)


def embed_pictures(given):
    small = [to_rgb(read_image(item)).resize((2, 3), Image.Resampling.BILINEAR) for item in given]
    return torch.from_numpy(np.stack([np.asarray(picture, dtype=np.float32).ravel() for picture in small]))


class OpenClipLike(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.seen = torch.nn.Parameter(torch.randn(3 * 8 * 8, 12, generator=generator))
        self.read = torch.nn.Parameter(torch.randn(16, 12, generator=generator))

    def encode_image(self, pixels):
        return pixels.flatten(1) @ self.seen

    def encode_text(self, tokens):
        return self.read[tokens].mean(dim=1)


def small_pixels(picture):
    return torch.from_numpy(np.array(picture.resize((8, 8)), np.float32)).permute(2, 0, 1) / 255


def tokens_of(texts):
    return torch.tensor([[len(text) % 16, *(ord(c) % 16 for c in f"{text:11}")] for text in texts])


# --- all of them


class Kind(NamedTuple):
    """How one kind of space is made."""

    name: str  # what the space calls itself
    widths: dict[str, int]
    open: Callable[[Path], Any]
    write: Callable[[Path], Any] | None = None  # writes what `open` reads
    custom: bool = False  # made of the user's own model, which cmcr cannot fingerprint or move
    decodes: bool = True  # cmcr decodes its items, not a function of the user's


def by_name(name):
    return lambda folder: cmcr.space(name, model=folder, device="cpu")


def open_folder(folder):
    return cmcr.space(str(folder), device="cpu")


def open_mini(folder):
    return MiniSpace(folder.name)  # the registry would give the one that is open


def open_ulip(folder):
    return cmcr.space("ulip", model=folder / "model.safetensors", tokenizer=folder / "tokenizer", device="cpu", **SMALL)


def open_uni3d(folder):
    return cmcr.space("uni3d", model=folder / "model.safetensors", device="cpu", **SMALL)


MARK = "of the user"
KINDS = {
    "mini-clip": Kind("mini-clip", {"image": 128, "text": 128}, open_mini),
    "mini-clap": Kind("mini-clap", {"audio": 96, "text": 96}, open_mini),
    "mini-ulip": Kind("mini-ulip", {"point_cloud": 64, "image": 64}, open_mini),
    "clip": Kind("clip", {"image": 24, "text": 24}, by_name("clip"), write_clip),
    "siglip": Kind("siglip", {"image": 32, "text": 32}, by_name("siglip"), write_siglip),
    "clap-fused": Kind("clap", {"audio": 24, "text": 24}, by_name("clap"), partial(write_clap, fused=True)),
    "clap-unfused": Kind("clap", {"audio": 24, "text": 24}, by_name("clap"), partial(write_clap, fused=False)),
    **{
        kind: Kind(kind, {"image": width, "text": width}, open_folder, write)
        for kind, (write, width) in DUAL_ENCODERS.items()
    },
    "ulip-xyz": Kind("ulip", {"point_cloud": 32, "image": 32, "text": 32}, open_ulip, write_ulip),
    "ulip-xyzrgb": Kind("ulip", {"point_cloud": 32}, open_ulip, lambda folder: write_ulip(folder, point_tower(6, 1))),
    "uni3d": Kind("uni3d", {"point_cloud": 32}, open_uni3d, write_uni3d),
    "custom": Kind(
        "custom", {"text": 8, "image": 18},
        lambda _: cmcr.CustomSpace("custom", text=embed_texts, image=embed_pictures, fingerprint=MARK),
        custom=True, decodes=False,
    ),
    "open-clip": Kind(
        "open-clip", {"image": 12, "text": 12},
        lambda _: cmcr.from_open_clip(
            OpenClipLike(), "open-clip", preprocess=small_pixels, tokenizer=tokens_of, fingerprint=MARK
        ),
        custom=True,
    ),
    "precomputed": Kind(
        "precomputed", {"text": 5},
        lambda _: cmcr.PrecomputedSpace(
            "precomputed", text=(TEXTS, np.random.default_rng(0).normal(size=(6, 5))), fingerprint=MARK
        ),
        custom=True,
    ),
}  # fmt: skip
CASES = [(kind, modality) for kind, made in KINDS.items() for modality in made.widths]
UNREADABLE = {"text": 7, "image": "nowhere.png", "audio": "nowhere.wav", "point_cloud": "nowhere.npy"}


def change_a_weight(folder):
    """Move one number of the model in a folder by a thousandth."""
    state = load_file(folder / "model.safetensors")
    tensor = state[next(name for name in sorted(state) if state[name].is_floating_point() and state[name].ndim > 1)]
    tensor.view(-1)[0] += 1e-3
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def found_backwards(root, files):
    """What a process with other threads and another random state finds in the same files, by kind and modality."""
    torch.set_num_threads(2)
    torch.manual_seed(99)
    found = {}
    for kind, made in KINDS.items():
        space = made.open(root / kind)
        for modality in made.widths:
            rows = space.encode(files[modality][::-1], modality, batch_size=4)[::-1]
            found[kind, modality] = space.fingerprint, rows
    return found
