"""Small models of the true architectures with random weights, in the folder layout of published ones."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is first imported

CLIP_LENGTH, SIGLIP_LENGTH = 24, 16
CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
SENTENCES = [
    "a photo of a cat",
    "two dogs and one train",
    "the sound of rain on a roof",
    "number four hundred and seven",
]
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def write_clip(
    folder: Path, *, seed: int = 0, vision: dict | None = None, text: dict | None = None, width: int = 24
) -> Path:
    """Write a CLIP of two blocks, 32 pixels, patches of 8, and a tokenizer of letters with a few merges."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    text_config = {**TINY, "max_position_embeddings": CLIP_LENGTH, **(text or {})}
    text_config |= {"vocab_size": write_clip_tokenizer(folder), "bos_token_id": 0, "eos_token_id": 1}
    vision_config = {**TINY, "image_size": 32, "patch_size": 8, **(vision or {})}
    config = CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=width)
    save(CLIPModel, config, folder, seed)
    edge = vision_config["image_size"]
    CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}).save_pretrained(
        folder
    )
    return folder


def write_clip_tokenizer(folder: Path) -> int:
    """Write letters, their word-final forms and three merges; return the size of the vocabulary."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!'"
    pieces = [*CLIP_SPECIAL, *letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>", "th"]
    merges = [("c", "a"), ("ca", "t</w>"), ("t", "h")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH).save_pretrained(folder)
    return len(pieces)


def write_siglip(folder: Path, *, seed: int = 0, patch: int = 8) -> Path:
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
    save(SiglipModel, SiglipConfig(text_config=text, vision_config=vision), folder, seed)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save(model_class, config, folder: Path, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    config.architectures = [model_class.__name__]
    config.save_pretrained(folder)


def pictures(count: int = 5) -> list[Image.Image]:
    """Draw noise of many shapes and modes, from 20 to 90 pixels."""
    rng = np.random.default_rng(0)
    modes = ["RGB", "L", "RGBA", "P", "LA", "CMYK"]
    drawn = []
    for i in range(count):
        height, width = rng.integers(20, 90, 2)
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
        drawn.append(noise if modes[i % 6] == "RGBA" else noise.convert("RGB").convert(modes[i % 6]))
    return drawn


def reference_demo() -> Path:
    """Find the pictures, sounds and clouds of the published demonstration, beside the repository."""
    for parent in Path(__file__).resolve().parents:
        if (folder := parent / "shared" / "data" / "reference_demo").is_dir():
            return folder
    pytest.skip("no folder shared/data/reference_demo above the tests: the published demonstration is not here")
