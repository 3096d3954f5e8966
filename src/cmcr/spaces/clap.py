"""CLAP: sounds and texts in one space, through transformers; fused and unfused models."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from cmcr.data.audio import read_audio
from cmcr.embeddings import choose_device
from cmcr.errors import ArtefactNotFoundError, FormatError, SampleError, missing_dependency, unknown_name
from cmcr.spaces.clap_sounds import Heard, MelSettings, hear_fused, hear_unfused, mel_settings
from cmcr.spaces.tower import Tower, encode

TEXT_TOKENS = 77  # longest text, its two end marks included: the published code cuts there, in training as in use

_REVISIONS = {
    "laion/clap-htsat-fused": "cca9e288ab447cee67d9ada1f85ddb46500f1401",
    "laion/clap-htsat-unfused": "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
}
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PREPROCESSING = "1"  # raise it when the windows, the spectrograms or the cutting of texts change
# Counters and index tables: transformers fills them in when a file does not hold them.
_DERIVED = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")

_Opened = TypeVar("_Opened")


class ClapSpace:
    """A CLAP model (a `Space` of audio and text).

    Sounds are brought to 48 kHz mono (the mean of the channels). Up to 10 s they are repeated whole and padded with
    silence to 10 s, as the published models expect. Longer ones are heard at fixed places: a fused model gets the whole
    shrunk to 10 s and the middle window of the front, the middle and the back third; any other gets up to six windows
    spread evenly, whose unit embeddings are averaged (`cmcr.spaces.clap_sounds` says why). The length of a sound alone
    decides whether a fused model treats it as longer, never its neighbours in the batch. Silence is a sound like any
    other; a single sample is held for 10 s.

    Texts longer than 77 tokens are cut there, and a warning says how many. The empty text is a text.

    Args:
        model: a name on the Hugging Face hub, or a folder such as `cmcr.spaces.clap_checkpoint.convert` writes.
        revision: commit on the hub; None takes the one that this cmcr was written for, for a model that it knows.
        device: "auto", "cpu", "cuda", ...; None is the CPU.
        dtype: "float32", "float16" or "bfloat16", of the weights; embeddings are always float32.
        local_files_only: never ask the network.

    Attributes:
        name: "clap".
        widths: D by modality (512 in the published models).
        fingerprint: of weights, tokenizer and preprocessing.
        model: as given.
        revision: the commit that was opened, None for a folder.

    Raises:
        ConfigError: an unknown dtype.
        DeviceError: a device that this machine does not have.
        MissingDependencyError: transformers is not installed.
        ArtefactNotFoundError: the model is not on this machine and cannot be fetched.
        FormatError: not a CLAP model, or weights are missing in it.
    """

    def __init__(
        self,
        model: str | Path = "laion/clap-htsat-fused",
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        local_files_only: bool = False,
    ) -> None:
        if dtype not in _DTYPES:
            raise unknown_name("dtype", dtype, _DTYPES)
        chosen = choose_device("cpu" if device is None else device)
        wanted = revision or _REVISIONS.get(str(model))
        self.name = "clap"
        self.model = str(model)
        self._network = _open_model(self.model, wanted, _DTYPES[dtype], local_files_only)
        extractor, self._tokenizer = _open_processor(self.model, wanted, local_files_only)
        config = self._network.config
        self.revision: str | None = getattr(config, "_commit_hash", None)
        self._fused = bool(config.audio_config.enable_fusion)
        self._settings = mel_settings(extractor, fused=self._fused)
        self.widths: Mapping[str, int] = {"audio": int(config.projection_dim), "text": int(config.projection_dim)}
        self.fingerprint = _fingerprint(self._network, self._settings, self._tokenizer)
        self._network.to(chosen)

    def __repr__(self) -> str:
        return f"ClapSpace({self.model!r}: {', '.join(f'{m} {w}' for m, w in self.widths.items())})"

    def encode(
        self,
        inputs: Sequence[Any],
        modality: str,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = True,
    ) -> Any:
        """Embed items of one modality; see `cmcr.spaces.protocol.Space.encode`.

        Sounds are paths or `{"array": samples, "sampling_rate": rate}`.
        """
        if device is not None:
            self._network.to(choose_device(device))
        cut: list[str] = []
        towers = {
            "audio": Tower(self.widths["audio"], self._heard, self._embed_sounds),
            "text": Tower(self.widths["text"], self._tokens, partial(self._embed_texts, cut)),
        }
        embeddings = encode(
            towers,
            self.name,
            inputs,
            modality,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            normalize_embeddings=normalize_embeddings,
        )
        if cut:
            warnings.warn(
                f"{self.name}: {len(cut)} text(s) are longer than {TEXT_TOKENS} tokens; the rest of each was not embedded. "
                f"The first begins with {cut[0][:60]!r}.",
                stacklevel=2,
            )
        return embeddings

    def _heard(self, item: Any) -> Heard:
        samples = read_audio(item, self._settings.sample_rate_hz)
        if len(samples) == 0:
            raise SampleError(f"the sound is too short: nothing is left of it at {self._settings.sample_rate_hz} Hz.")
        hear = hear_fused if self._fused else hear_unfused
        return hear(samples, self._settings)

    def _embed_sounds(self, sounds: list[Heard]) -> Tensor:
        windows = torch.from_numpy(np.concatenate([sound.windows for sound in sounds]))
        longer = torch.tensor([[sound.longer] for sound in sounds for _ in sound.windows])
        # No more windows at a time than there are sounds: batch_size bounds the memory for long sounds as well.
        parts = zip(windows.split(len(sounds)), longer.split(len(sounds)), strict=True)
        rows = torch.cat([self._audio_features(*part) for part in parts])
        of_sound = rows.split([len(sound.windows) for sound in sounds])
        return torch.stack([part.mean(dim=0) for part in of_sound])

    def _audio_features(self, windows: Tensor, longer: Tensor) -> Tensor:
        network = self._network
        features = network.get_audio_features(
            input_features=windows.to(network.device, network.dtype), is_longer=longer.to(network.device)
        )
        return _embeddings_in(features)

    def _tokens(self, item: Any) -> tuple[str, list[int]]:
        if not isinstance(item, str):
            raise SampleError(f"a text must be a string, got {type(item).__name__}.")
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise SampleError(f"the text is not valid unicode ({error.reason}).") from error
        # Neither cut nor padded by the tokenizer: that would change its state under the other decoding threads.
        return item, self._tokenizer(item, verbose=False)["input_ids"]

    def _embed_texts(self, cut: list[str], texts: list[tuple[str, list[int]]]) -> Tensor:
        cut += [text for text, tokens in texts if len(tokens) > TEXT_TOKENS]
        rows = [torch.tensor(_cut(tokens)) for _, tokens in texts]
        padding = int(self._network.config.text_config.pad_token_id)  # positions are counted by it
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        device = self._network.device
        features = self._network.get_text_features(input_ids=tokens.to(device), attention_mask=mask.to(device))
        return _embeddings_in(features)


def _cut(tokens: list[int]) -> list[int]:
    """Keep the first tokens and the end mark."""
    return tokens if len(tokens) <= TEXT_TOKENS else [*tokens[: TEXT_TOKENS - 1], tokens[-1]]


def _embeddings_in(features: Any) -> Tensor:
    """Take the projected rows; transformers 5 returns them in an object, 4 as they are."""
    rows: Tensor = getattr(features, "pooler_output", features)
    return rows.float()


def _open_model(model: str, revision: str | None, dtype: torch.dtype, local_files_only: bool) -> Any:
    """Open a `ClapModel` in evaluation mode, from safetensors only, with every weight in its place."""
    load = _transformers().ClapModel.from_pretrained
    network, report = _opened(
        lambda: load(
            model,
            revision=revision or "main",
            dtype=dtype,
            local_files_only=local_files_only,
            use_safetensors=True,
            output_loading_info=True,
        ),
        model,
        revision,
    )
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(_DERIVED))
    if missing:
        raise FormatError(
            f"{model}: {len(missing)} weights of a CLAP model are missing, the first is {missing[0]!r}; it would be random."
        )
    return network.eval().requires_grad_(False)


def _open_processor(model: str, revision: str | None, local_files_only: bool) -> tuple[Any, Any]:
    """Open the feature extractor, for its numbers, and the tokenizer."""
    transformers = _transformers()
    options = {"revision": revision or "main", "local_files_only": local_files_only}
    extractor, tokenizer = _opened(
        lambda: (
            transformers.ClapFeatureExtractor.from_pretrained(model, **options),
            transformers.AutoTokenizer.from_pretrained(model, **options),
        ),
        model,
        revision,
    )
    if extractor.padding != "repeatpad":
        raise FormatError(f"{model}: expected preprocessing that pads by 'repeatpad', got {extractor.padding!r}.")
    tokenizer("")  # drops whatever cutting and padding the file asks for, before threads share the tokenizer
    return extractor, tokenizer


def _transformers() -> Any:
    """Import transformers when a model is opened, not before: that takes seconds."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise missing_dependency("transformers", extra="encoders", purpose="CLAP") from error


def _opened(load: Callable[[], _Opened], model: str, revision: str | None) -> _Opened:
    """Open something of a model, turning what the library raises into one clear message."""
    local = Path(model).is_dir()
    if not local and (Path(model).is_absolute() or model.startswith(".")):
        raise ArtefactNotFoundError(errno.ENOENT, "there is no folder of a CLAP model here", model)
    try:
        return load()
    except OSError as error:
        if local:
            raise FormatError(
                f"{model}: not a complete CLAP model (expected config.json, model.safetensors, preprocessor_config.json and "
                f"the tokenizer's files): {error}"
            ) from error
        at = f" --revision {revision}" if revision else ""
        raise ArtefactNotFoundError(
            errno.ENOENT,
            f"this CLAP model is not on this machine and could not be fetched ({_first_line(error)}). Where there is a "
            f"network, run: hf download {model}{at} --local-dir clap. Then open it with ClapSpace('clap')",
            model,
        ) from error
    except (ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise FormatError(f"{model}: cannot be opened as a CLAP model ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fingerprint(network: Any, settings: MelSettings, tokenizer: Any) -> str:
    """Hash the weights, what spectrograms are made with, the vocabulary, and the version of the rules in this file."""
    digest = hashlib.sha256(_PREPROCESSING.encode())
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    numbers = [settings.sample_rate_hz, settings.frame_samples, settings.hop_samples, settings.clip_samples]
    digest.update(json.dumps(numbers).encode() + settings.filters.tobytes())
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()[:16]
