"""Every kind of space with a small random model of the true architecture, and items to embed; seeds decide everything."""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is first imported

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import cmcr
from cmcr.data.images import read_image, to_rgb
from cmcr.spaces.ulip.towers import ImageTower, PointCloudTower, TextTower, TowerShape

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


def reference_demo():
    """Find the pictures, sounds and clouds of the published demonstration, beside the repository."""
    for parent in Path(__file__).resolve().parents:
        if (folder := parent / "shared" / "data" / "reference_demo").is_dir():
            return folder
    pytest.skip("no folder shared/data/reference_demo above the tests: the published demonstration is not here")


# --- CLIP and SigLIP

CLIP_LENGTH, SIGLIP_LENGTH = 24, 16
CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
SENTENCES = [
    "a photo of a cat",
    "two dogs and one train",
    "the sound of rain on a roof",
    "number four hundred and seven",
]
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def write_clip(folder, *, seed=0, vision=None, text=None, width=24):
    """Write a CLIP of two blocks, 32 pixels, patches of 8, and a tokenizer of letters with a few merges."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!'"
    pieces = [*CLIP_SPECIAL, *letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>", "th"]
    merges = [("c", "a"), ("ca", "t</w>"), ("t", "h")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH).save_pretrained(folder)
    text_config = {**TINY, "max_position_embeddings": CLIP_LENGTH, **(text or {})}
    text_config |= {"vocab_size": len(pieces), "bos_token_id": 0, "eos_token_id": 1}
    vision_config = {**TINY, "image_size": 32, "patch_size": 8, **(vision or {})}
    config = CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=width)
    save_model(CLIPModel, config, folder, seed)
    edge = vision_config["image_size"]
    CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}).save_pretrained(
        folder
    )
    return folder


def write_siglip(folder, *, seed=0, patch=8):
    """Write a SigLIP of two blocks, 32 pixels, and a sentencepiece tokenizer trained on a few sentences."""
    import sentencepiece
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus").write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus"), model_prefix=str(folder / "spiece"), vocab_size=32, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1,
    )  # fmt: skip
    SiglipTokenizer(str(folder / "spiece.model"), model_max_length=SIGLIP_LENGTH).save_pretrained(folder)
    text = {**TINY, "vocab_size": 32, "max_position_embeddings": SIGLIP_LENGTH, "projection_size": 32}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    vision = {**TINY, "image_size": 32, "patch_size": patch}
    save_model(SiglipModel, SiglipConfig(text_config=text, vision_config=vision), folder, seed)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_model(model_class, config, folder, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    config.architectures = [model_class.__name__]
    config.save_pretrained(folder)


# --- CLAP

CAPTIONS = [
    "a dog barks in the rain",
    "the whistle of a passing train",
    "water runs and a toilet is flushed",
    "meat sizzles over the fire while people talk",
]


def clap_config(*, fused, seconds):
    """Two stages and two layers; the time axis folded four times, as published."""
    from transformers import ClapConfig

    bands = 64 if seconds == 10 else 16
    audio = {
        "spec_size": 4 * bands,
        "num_mel_bins": bands,
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "depths": [2, 2],
        "num_attention_heads": [2, 4],
        "num_hidden_layers": 2,
        "window_size": 8 if seconds == 10 else 4,
        "enable_fusion": fused,
        "fusion_type": "aff_2d" if fused else None,
    }
    text = {
        "vocab_size": 300,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 130,
        "layer_norm_eps": 1e-5,
    }
    return ClapConfig(audio_config=audio, text_config=text, projection_dim=24)


def random_clap(config, seed=0):
    """A model whose weights are large enough that different items land far apart."""
    from transformers import ClapModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ClapModel(config).eval()
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_mean"):
                tensor.data.normal_(-35.0 if "audio_encoder.batch_norm" in name else 0.0, 0.1)  # dB
            elif name.endswith("running_var"):
                tensor.data.uniform_(0.5, 1.5).mul_(400.0 if "audio_encoder.batch_norm" in name else 1.0)
            elif tensor.is_floating_point() and tensor.ndim > 1:
                gain = 4.0 if "query" in name or "key" in name else 1.5  # attention that chooses, not averages
                table = "embeddings" in name or "bias_table" in name
                tensor.data.normal_(0, 1.0 if table else gain / tensor[0].numel() ** 0.5)
            elif name.endswith("bias"):
                tensor.data.normal_(0, 0.02)
    return model


def clap_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizer

    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = bytes_of, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    parts = json.loads(tokenizer.to_str())["model"]
    return RobertaTokenizer(vocab=parts["vocab"], merges=[tuple(pair) for pair in parts["merges"]])


def clap_extractor(*, fused, seconds):
    from transformers import ClapFeatureExtractor

    return ClapFeatureExtractor(
        feature_size=64 if seconds == 10 else 16,
        frequency_min=50,
        max_length_s=seconds,
        truncation="fusion" if fused else "rand_trunc",
    )


def write_clap(folder, *, fused, seconds=1, config=None):
    """A folder that `ClapSpace` opens; windows of one second keep the tests short."""
    random_clap(config or clap_config(fused=fused, seconds=seconds)).save_pretrained(folder)
    clap_extractor(fused=fused, seconds=seconds).save_pretrained(folder)
    clap_tokenizer().save_pretrained(folder)
    return folder


# --- ULIP

NUM_GROUP, GROUP_SIZE, NUM_POINTS = 12, 6, 40
SMALL = {"num_group": NUM_GROUP, "group_size": GROUP_SIZE, "num_points": NUM_POINTS}
SHAPE = TowerShape(width=64, depth=2, heads=1, hidden=96, embedding=32)
VOCABULARY = 514


def randomised(tower, seed):
    """Random weights that depend on the seed alone, the statistics of normalisation included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in tower.state_dict().items():
            if value.is_floating_point():
                spread = 0.5 + torch.rand(value.shape, generator=generator)
                normal = torch.randn(value.shape, generator=generator) * value[0].numel() ** -0.5
                value.copy_(spread if name.endswith("running_var") else normal)
    return tower.eval()


def point_tower():
    return randomised(PointCloudTower(SHAPE, group_width=24), 0)


def text_tower(vocabulary=VOCABULARY):
    return randomised(TextTower(SHAPE, vocabulary=vocabulary, context=16), 2)


def ulip_state(text=None):
    """A file's tensors, by published name."""
    towers = [point_tower(), randomised(ImageTower(SHAPE, size=32, patch=8), 1), text or text_tower()]
    return {k: v for tower in towers for k, v in tower.state_dict().items()} | {"logit_scale": torch.tensor(4.6)}


def coloured_state():
    """The tensors of a file of one tower of one block, for coloured points."""
    tower = randomised(PointCloudTower(replace(SHAPE, depth=1), channels=6, group_width=24), 0)
    return tower.state_dict() | {"logit_scale": torch.tensor(4.6)}


def save_ulip(path, state):
    """A file as published: a prefix on every key, settings and numpy's numbers beside the tensors."""
    torch.save(
        {
            "epoch": "last",
            "state_dict": {f"module.{name}": value for name, value in state.items()},
            "optimizer": {"state": {0: {"step": 1, "moments": np.ones(3)}}},
            "best_acc1": np.float64(74.8),
            "args": argparse.Namespace(model="ULIP_PointBERT", npoints=8192),
        },
        path,
    )
    return path


def write_ulip_tokenizer(folder):
    """CLIP's files with no merges: a token a letter."""
    folder.mkdir()
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    words = [*letters, *(letter + "</w>" for letter in letters), *CLIP_SPECIAL]
    assert len(words) == VOCABULARY
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


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


@dataclass(frozen=True)
class Kind:
    """How one kind of space is made.

    Attributes:
        name: what the space calls itself.
        widths: width by modality.
        open: folder -> space.
        write: writes what `open` reads; None where there are no files.
        custom: whether it is made of the user's own model, which cmcr cannot fingerprint or move.
        decodes: whether cmcr decodes its items, not a function of the user's.
    """

    name: str
    widths: dict[str, int]
    open: Callable[[Path], Any]
    write: Callable[[Path], Any] | None = None
    custom: bool = False
    decodes: bool = True


def by_name(name):
    return lambda folder: cmcr.space(name, model=folder, device="cpu")


def mini_kind(name, **widths):
    return Kind(name, widths, lambda _: cmcr.space(name))


def write_ulip(state, folder):
    folder.mkdir()
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors")
    write_ulip_tokenizer(folder / "tokenizer")


def open_ulip(folder):
    return cmcr.space("ulip", model=folder / "model.safetensors", tokenizer=folder / "tokenizer", device="cpu", **SMALL)


MARK = "of the user"
KINDS = {
    "mini-clip": mini_kind("mini-clip", image=128, text=128),
    "mini-clap": mini_kind("mini-clap", audio=96, text=96),
    "mini-ulip": mini_kind("mini-ulip", point_cloud=64, image=64),
    "clip": Kind("clip", {"image": 24, "text": 24}, by_name("clip"), write_clip),
    "siglip": Kind("siglip", {"image": 32, "text": 32}, by_name("siglip"), write_siglip),
    "clap-fused": Kind("clap", {"audio": 24, "text": 24}, by_name("clap"), lambda f: write_clap(f, fused=True)),
    "clap-unfused": Kind("clap", {"audio": 24, "text": 24}, by_name("clap"), lambda f: write_clap(f, fused=False)),
    "ulip-xyz": Kind(
        "ulip", {"point_cloud": 32, "image": 32, "text": 32}, open_ulip, lambda f: write_ulip(ulip_state(), f)
    ),
    "ulip-xyzrgb": Kind(
        "ulip", {"point_cloud": 32}, open_ulip, lambda f: write_ulip(coloured_state(), f)
    ),
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
