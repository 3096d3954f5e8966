"""Small CLAP models of the true classes with random weights, and a tokenizer made on the spot: nothing is fetched."""

import json

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

CAPTIONS = [
    "a dog barks in the rain",
    "the whistle of a passing train",
    "water runs and a toilet is flushed",
    "meat sizzles over the fire while people talk",
]
VOCABULARY = 300


def small_config(*, fused, seconds):
    """Two stages and two layers; the time axis folded four times, as published."""
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
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 130,
        "layer_norm_eps": 1e-5,
    }
    return ClapConfig(audio_config=audio, text_config=text, projection_dim=24)


def random_model(config, seed=0):
    """A model whose weights are large enough that different items land far apart."""
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


def small_tokenizer():
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = bytes_of, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    parts = json.loads(tokenizer.to_str())["model"]
    return RobertaTokenizer(vocab=parts["vocab"], merges=[tuple(pair) for pair in parts["merges"]])


def extractor(*, fused, seconds):
    return ClapFeatureExtractor(
        feature_size=64 if seconds == 10 else 16,
        frequency_min=50,
        max_length_s=seconds,
        truncation="fusion" if fused else "rand_trunc",
    )


def write_model(folder, *, fused, seconds=1, config=None):
    """A folder that `ClapSpace` opens; windows of one second keep the tests short."""
    model = random_model(config or small_config(fused=fused, seconds=seconds))
    model.save_pretrained(folder)
    extractor(fused=fused, seconds=seconds).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def sound(seconds, seed, rate=48_000):
    """Two gliding tones in changing noise, so that no window is like another."""
    rng = np.random.default_rng(seed)
    time = np.arange(max(1, round(seconds * rate))) / rate
    low, high, speed = rng.uniform([100, 1000, 0.2], [900, 9000, 3.0])
    tones = np.sin(2 * np.pi * (low + 40 * time) * time) + np.sin(2 * np.pi * high * time) * np.sin(speed * time)
    noise = rng.normal(size=time.size) * (0.02 + 0.3 * np.abs(np.sin(2 * speed * time + seed)))
    return {"array": (0.2 * tones + 0.2 * noise).astype(np.float32), "sampling_rate": rate}
