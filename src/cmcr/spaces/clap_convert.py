"""The published CLAP checkpoints (`630k-fusion-best.pt` and its kin) as a folder that `ClapSpace` opens."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmcr.errors import FormatError, WriteError
from cmcr.files import writing
from cmcr.spaces.hub import (
    BPE_FILES,
    TOKENIZER_ALONE,
    find_snapshot,
    import_library,
    open_processor,
    read_published_tensors,
    require_files,
)

IGNORED = (
    r"audio_branch\.(spectrogram_extractor|logmel_extractor)\..+",  # the extractor makes the spectrograms
    r"audio_branch\.(tscam_conv|head)\..+",  # the classifier of the audio tower's own training
    r"audio_branch\.layers\.\d+\.blocks\.\d+\.attn_mask",  # follows from the window size
    r"(audio|text)_transform\..+",  # heads that only the training used
    r"text_branch\.embeddings\.(position_ids|token_type_ids)",  # counters
)
"""Keys of a published file, as regular expressions, that a `ClapModel` has no use for. Any other unknown key is refused."""

_RENAMED = (
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"^(text|audio)_projection\.0\.", r"\1_projection.linear1."),
    (r"^(text|audio)_projection\.2\.", r"\1_projection.linear2."),
    (r"\.audio_encoder\.bn0\.", ".audio_encoder.batch_norm."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"(\.blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(\.blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
)

_AUDIO = "audio_model.audio_encoder."
_TEXT = "text_model."
_MEL_BANDS = 64
_HEAD_WIDTH = 64  # of RoBERTa's attention, in every size of it; the one number that no weight shows
_FETCH = "Fetch a CLAP checkpoint of LAION with HTS-AT and RoBERTa, such as 630k-fusion-best.pt of lukewys/laion_clap."


def convert(
    path: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path = "FacebookAI/roberta-base",
    local_files_only: bool = False,
) -> Path:
    """Turn a published CLAP checkpoint into a folder for `ClapSpace(out)`.

    The sizes, and whether the model is fused, are read from the weights: HTS-AT of any depth and width for sounds,
    RoBERTa for texts, as in all files published by LAION. The text tower's layer norms get RoBERTa's epsilon of 1e-5, as
    in the code that trained it; the same model on the hub says 1e-12.

    Args:
        path: the `.pt` file.
        out: the folder to write; must not exist, or be empty.
        tokenizer: RoBERTa's: a name on the hub or a folder (a folder of a CLAP model has it too).
        local_files_only: never fetch anything.

    Returns:
        `out`.

    Raises:
        ArtefactNotFoundError: no such file, or the tokenizer is neither here nor within reach; the message says what to
            fetch.
        FormatError: not such a checkpoint (keys that are unknown or missing are named), or not its tokenizer.
        WriteError: the folder is taken or cannot be written.
        MissingDependencyError: transformers is not installed.
    """
    out = Path(out)
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise WriteError(errno.EEXIST, "something is there already; choose another folder", str(out))
    published = read_published_tensors(Path(path), _FETCH)
    transformers = import_library("transformers")
    model = _model_of(published, transformers)
    words = _tokenizer(tokenizer, local_files_only, model.config.text_config.vocab_size)
    # The numbers of the published training: 64 bands between 50 and 14 000 Hz.
    extractor = transformers.ClapFeatureExtractor(
        feature_size=_MEL_BANDS,
        frequency_min=50,
        frequency_max=14_000,
        truncation="fusion" if model.config.audio_config.enable_fusion else "rand_trunc",
        padding="repeatpad",
    )
    with writing(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Beside the target and renamed at the end, so that a half-written folder never has its name.
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as aside:
            for part in (model, extractor, words):
                part.save_pretrained(Path(aside, "whole"))
            Path(aside, "whole").replace(out)
    return out


def clap_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights to those of transformers' `ClapModel`, without the text tower's two counters.

    The joint `qkv` of the audio tower becomes three equal parts; keys in `IGNORED` are left out; floating point becomes
    float32. Whether keys and shapes are those of the model is not checked.
    """
    state: dict[str, Tensor] = {}
    for key, value in published.items():
        if any(re.fullmatch(pattern, key) for pattern in IGNORED):
            continue
        tensor = value.float() if value.is_floating_point() else value
        name = key
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if ".attention.self.qkv." not in name:
            state[name] = tensor.contiguous()
            continue
        for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            # Clones, for parts of one tensor share its memory, which safetensors refuses to write.
            state[name.replace(".qkv.", f".{part}.")] = rows.clone()
    return state


def _model_of(published: Mapping[str, Tensor], transformers: Any) -> Any:
    """Build the model that these weights belong to, and load them strictly."""
    try:
        state = clap_state(published)
        config = _config_of(state, transformers)
        with torch.device("meta"):  # no random weights, which would move the caller's random state
            model = transformers.ClapModel(config)
        positions = config.text_config.max_position_embeddings
        state[_TEXT + "embeddings.position_ids"] = torch.arange(positions)[None]
        state[_TEXT + "embeddings.token_type_ids"] = torch.zeros(1, positions, dtype=torch.long)
        model.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else f"its weights do not fit together: {error}"
        raise FormatError(f"not a published CLAP checkpoint (names as in transformers): {reason}. {_FETCH}") from error
    return model.eval()


def _config_of(state: Mapping[str, Tensor], transformers: Any) -> Any:
    """Read what differs between the published files; the rest is transformers' default."""

    def count(pattern: str) -> int:  # layers of a kind, by their numbers in the keys
        return len({match[1] for key in state if (match := re.match(pattern, key))})

    stages = range(count(rf"{_AUDIO}layers\.(\d+)\."))
    bias = "blocks.0.attention.self.relative_position_bias_table"
    fused = any(".fusion_model." in key for key in state)
    audio = {
        "patch_embeds_hidden_size": len(state[_AUDIO + "patch_embed.proj.weight"]),
        "depths": [count(rf"{_AUDIO}layers\.{stage}\.blocks\.(\d+)\.") for stage in stages],
        "num_attention_heads": [state[f"{_AUDIO}layers.{stage}.{bias}"].shape[1] for stage in stages],
        "num_hidden_layers": len(stages),
        "hidden_size": len(state[_AUDIO + "norm.weight"]),
        "enable_fusion": fused,
        "fusion_type": "aff_2d" if fused else None,
    }
    vocabulary, width = state[_TEXT + "embeddings.word_embeddings.weight"].shape
    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": count(_TEXT + r"encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "intermediate_size": len(state[_TEXT + "encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(state[_TEXT + "embeddings.position_embeddings.weight"]),
        "layer_norm_eps": 1e-5,
    }
    joint = len(state["audio_projection.linear1.weight"])
    return transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=joint)


def _tokenizer(name: str | Path, local_files_only: bool, vocabulary: int) -> Any:
    snapshot = find_snapshot(name, local_files_only=local_files_only, files=TOKENIZER_ALONE)
    require_files(snapshot, BPE_FILES)
    tokenizer = open_processor(snapshot, "RobertaTokenizer")
    if len(tokenizer) != vocabulary:
        raise FormatError(
            f"{snapshot}: the tokenizer knows {len(tokenizer)} tokens, the checkpoint {vocabulary}: it is another one's."
        )
    return tokenizer
