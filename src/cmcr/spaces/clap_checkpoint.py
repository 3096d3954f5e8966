"""The published CLAP checkpoints (`630k-fusion-best.pt` and its kin) as a folder that `ClapSpace` opens."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcr.errors import ArtefactNotFoundError, FormatError, WriteError
from cmcr.spaces.clap import TOKENIZER_FILES, TOKENIZERS
from cmcr.spaces.hub import TOKENIZER_ALONE, find_snapshot, import_library, open_processor, require_files

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

# Beside tensors, published files hold the training's bookkeeping, some of it numpy numbers. Both names of numpy's
# constructor of a number are in use: files of today and files written before numpy 2.
_ALLOWED: list[Any] = [
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
]

_AUDIO = "audio_model.audio_encoder."
_TEXT = "text_model."
_COUNTERS = (_TEXT + "embeddings.position_ids", _TEXT + "embeddings.token_type_ids")
_NOT_OURS = "not a published CLAP checkpoint with HTS-AT and RoBERTa"
_MEL_BANDS = 64
_HEAD_WIDTH = 64  # of RoBERTa's attention, in every size of it; the one number that no weight shows


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
    _refuse_to_replace(out)
    published = read_checkpoint(path)
    transformers = import_library("transformers")
    model = _model_of(published, transformers)
    words = _tokenizer(tokenizer, local_files_only)
    _check_vocabulary(words, model)
    with _written_aside(out) as folder:
        model.save_pretrained(folder)
        _extractor(transformers, fused=model.config.audio_config.enable_fusion).save_pretrained(folder)
        words.save_pretrained(folder)
    return out


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a published file, running no code of it.

    Args:
        path: the `.pt` file: the weights, or a mapping that holds them as "state_dict".

    Returns:
        Tensors by published key, without the prefix `module.`.

    Raises:
        ArtefactNotFoundError: no such file.
        FormatError: damaged, or it holds anything but tensors and numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtefactNotFoundError(errno.ENOENT, "there is no CLAP checkpoint here", str(path))
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as a checkpoint of tensors and numbers alone ({error}).") from error
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise FormatError(f"{path}: expected tensors by name, or a 'state_dict' of them.")
    return {str(key).removeprefix("module."): value for key, value in weights.items()}


def clap_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights to those of transformers' `ClapModel`.

    The joint `qkv` of the audio tower becomes three equal parts; keys in `IGNORED` are left out; floating point becomes
    float32. Keys are not yet checked: that needs the model.

    Args:
        published: tensors by published key, without `module.`.

    Returns:
        Tensors by the keys of `ClapModel.state_dict()`; the text tower's two counters are not among them.

    Raises:
        FormatError: a `qkv` that is not three equal parts.
    """
    state: dict[str, Tensor] = {}
    for key, value in published.items():
        if any(re.fullmatch(pattern, key) for pattern in IGNORED):
            continue
        tensor = value.float() if value.is_floating_point() else value
        name = _renamed(key)
        if ".attention.self.qkv." in name:
            state |= _split(name, key, tensor)
        else:
            state[name] = tensor.contiguous()
    return state


def _renamed(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


def _split(name: str, key: str, tensor: Tensor) -> dict[str, Tensor]:
    if tensor.ndim == 0 or len(tensor) % 3:
        raise FormatError(f"{key}: expected three equal parts, got shape {tuple(tensor.shape)}.")
    # Clones, for parts of one tensor share its memory, which safetensors refuses to write.
    parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
    return {name.replace(".qkv.", f".{part}."): rows.clone() for part, rows in parts}


def _model_of(published: Mapping[str, Tensor], transformers: Any) -> Any:
    """Build the model that these weights belong to, and put them in."""
    state = clap_state(published)
    try:
        model = _empty_model(state, transformers)
        _check_keys(state, model, {_renamed(key): key for key in published})
        positions = model.config.text_config.max_position_embeddings
        counters = (torch.arange(positions)[None], torch.zeros(1, positions, dtype=torch.long))
        model.load_state_dict(state | dict(zip(_COUNTERS, counters, strict=True)), assign=True)
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise FormatError(f"the checkpoint's weights do not fit together: {error}") from error
    return model.eval()


def _empty_model(state: Mapping[str, Tensor], transformers: Any) -> Any:
    config = transformers.ClapConfig(
        text_config=_text_config(state),
        audio_config=_audio_config(state),
        projection_dim=_shape(state, "audio_projection.linear1.weight")[0],
    )
    with torch.device("meta"):  # no random weights, which would move the caller's random state
        return transformers.ClapModel(config)


def _check_keys(state: Mapping[str, Tensor], model: Any, published: Mapping[str, str]) -> None:
    expected = set(model.state_dict()) - set(_COUNTERS)
    unknown = sorted(published.get(key, key) for key in set(state) - expected)
    missing = sorted(expected - set(state))
    problems = [f"unknown: {', '.join(unknown)}"] * bool(unknown) + [
        f"missing (by the names of transformers): {', '.join(missing)}"
    ] * bool(missing)
    if problems:
        raise FormatError(f"{_NOT_OURS}; {'; '.join(problems)}.")


def _audio_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width, _, *patch = _shape(state, _AUDIO + "patch_embed.proj.weight")
    first = _AUDIO + "layers.0.blocks.0."
    table_rows, _ = _shape(state, first + "attention.self.relative_position_bias_table")
    depths = _depths(state)
    heads = [
        _shape(state, f"{_AUDIO}layers.{stage}.blocks.0.attention.self.relative_position_bias_table")[1]
        for stage in range(len(depths))
    ]
    if _shape(state, _AUDIO + "batch_norm.weight") != (_MEL_BANDS,):
        raise FormatError(f"expected an audio tower of {_MEL_BANDS} mel bands.")
    return {
        "patch_embeds_hidden_size": width,
        "patch_size": patch,
        "patch_stride": patch,  # patches do not overlap in any published file
        "depths": depths,
        "num_attention_heads": heads,
        "num_hidden_layers": len(depths),
        "hidden_size": _shape(state, _AUDIO + "norm.weight")[0],
        "window_size": (int(table_rows**0.5) + 1) // 2,  # the table has (2 window - 1)^2 rows
        "mlp_ratio": _shape(state, first + "intermediate.dense.weight")[0] / width,
        **_fusion_config(state, width),
    }


def _fusion_config(state: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    between = state.get(_AUDIO + "patch_embed.fusion_model.local_att.0.weight")
    if between is None:
        return {"enable_fusion": False}
    return {"enable_fusion": True, "fusion_type": "aff_2d", "aff_block_r": width // len(between)}


def _text_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    vocabulary, width = _shape(state, _TEXT + "embeddings.word_embeddings.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _count(state, _TEXT + r"encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "intermediate_size": _shape(state, _TEXT + "encoder.layer.0.intermediate.dense.weight")[0],
        "max_position_embeddings": _shape(state, _TEXT + "embeddings.position_embeddings.weight")[0],
        "type_vocab_size": _shape(state, _TEXT + "embeddings.token_type_embeddings.weight")[0],
        "layer_norm_eps": 1e-5,
    }


def _depths(state: Mapping[str, Tensor]) -> list[int]:
    stages = _count(state, re.escape(_AUDIO) + r"layers\.(\d+)\.")
    return [_count(state, re.escape(_AUDIO) + rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)]


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Count the layers of a kind by the largest index in their keys."""
    indices = [int(match[1]) for key in state if (match := re.match(pattern, key))]
    return max(indices, default=-1) + 1


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    if key not in state:
        raise FormatError(f"{_NOT_OURS}; missing (by the names of transformers): {key}.")
    return tuple(state[key].shape)


def _extractor(transformers: Any, *, fused: bool) -> Any:
    """Build the extractor with the numbers of the published training: 64 bands between 50 and 14 000 Hz."""
    return transformers.ClapFeatureExtractor(
        feature_size=_MEL_BANDS,
        frequency_min=50,
        frequency_max=14_000,
        truncation="fusion" if fused else "rand_trunc",
        padding="repeatpad",
    )


def _tokenizer(name: str | Path, local_files_only: bool) -> Any:
    snapshot = find_snapshot(name, local_files_only=local_files_only, files=TOKENIZER_ALONE)
    require_files(snapshot, TOKENIZER_FILES)
    return open_processor(snapshot, *TOKENIZERS)


def _check_vocabulary(tokenizer: Any, model: Any) -> None:
    rows = model.config.text_config.vocab_size
    if len(tokenizer) != rows:
        raise FormatError(f"the tokenizer knows {len(tokenizer)} tokens, the checkpoint {rows}: it is another one's.")


def _refuse_to_replace(out: Path) -> None:
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise WriteError(errno.EEXIST, "something is there already; choose another folder", str(out))


@contextlib.contextmanager
def _written_aside(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside the target, renamed into place when all is written, removed if anything fails."""
    aside = out.absolute().parent / f".{out.name}.{uuid.uuid4().hex}.part"
    try:
        aside.mkdir(parents=True)
        yield aside
        aside.replace(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            error.errno or errno.EIO, f"could not write ({reason}); nothing half-written was left", str(out)
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
