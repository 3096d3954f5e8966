"""CLAP: sounds and texts in one space, through transformers; fused and unfused models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcr.data.audio import read_audio
from cmcr.data.texts import read_text
from cmcr.engine.device import choose_device
from cmcr.errors import FormatError
from cmcr.spaces.clap_sounds import Heard, hear_fused, hear_unfused, mel_settings
from cmcr.spaces.cut_texts import CutTexts
from cmcr.spaces.hub import (
    IMAGE_PROCESSOR,
    WEIGHTS,
    find_snapshot,
    fingerprint,
    open_model,
    open_processor,
    require_files,
    require_model_type,
)
from cmcr.spaces.tower import Tower, TowerSpace

TEXT_TOKENS = 77  # longest text, its two end marks included: the published code cuts there, in training as in use
TOKENIZERS = ("RobertaTokenizerFast", "RobertaTokenizer")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json+merges.txt")

_PINS = {
    "laion/clap-htsat-fused": "cca9e288ab447cee67d9ada1f85ddb46500f1401",
    "laion/clap-htsat-unfused": "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
}
_EXTRACTOR = IMAGE_PROCESSOR  # files of the same names
_RULES = "1"  # raise it when the windows, the spectrograms or the cutting of texts change
_EXTRACTOR_SETTINGS = "sampling_rate fft_window_size hop_length nb_max_samples feature_size".split()
_PROBES = ("A dog barks, 1999!", "naïve café — 東京", "  two   spaces ", "it's")


class ClapSpace(TowerSpace):
    """A CLAP model (a `Space` of audio and text).

    Sounds are brought to 48 kHz mono (the mean of the channels). Up to 10 s they are repeated whole and padded with
    silence to 10 s, as the published models expect. Longer ones are heard at fixed places: a fused model gets the whole
    shrunk to 10 s and the middle window of the front, the middle and the back third; any other gets up to six windows
    spread evenly, whose unit embeddings are averaged (`cmcr.spaces.clap_sounds` says why). The length of a sound alone
    decides whether a fused model treats it as longer, never its neighbours in the batch. Silence is a sound like any
    other; a single sample is held for 10 s.

    Texts must hold something besides white space (the rule of `cmcr.data.texts.read_text`). Those longer than 77 tokens
    are cut there, and a warning says how many.

    Args:
        model: a folder, such as `cmcr.spaces.clap_checkpoint.convert` writes, or the name of a repository on the hub.
        revision: commit, tag or branch; None is a pinned commit for LAION's two models, else the main branch.
        device: where to compute: "auto", "cpu", "cuda", ...; None, as "auto", takes a GPU if there is one.
        dtype: "float32", "float16" or "bfloat16", of the weights; embeddings are float32 in any case.
        local_files_only: never fetch anything.

    Attributes:
        name: "clap".
        widths: D by modality (512 in the published models).
        fingerprint: changes whenever the weights or the preprocessing do, tokenizer included.
        source: the model that was asked for.
        revision: its commit, None for a folder that is no snapshot of the hub's cache.

    Raises:
        ArtefactNotFoundError: the files are neither here nor within reach; the message says what to fetch.
        FormatError: a model of another kind, or files that are missing or damaged.
        ConfigError: an unknown revision or dtype.
        DeviceError: a device that this machine does not have.
        MissingDependencyError: a library of the extra `encoders` is not installed.
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
        where = choose_device(device or "auto")
        if revision is None and not Path(model).is_dir():
            revision = _PINS.get(str(model))
        snapshot = find_snapshot(model, revision, local_files_only=local_files_only)
        require_model_type(snapshot, "clap", type(self).__name__)
        require_files(snapshot, WEIGHTS, _EXTRACTOR, TOKENIZER_FILES)
        extractor = open_processor(snapshot, "ClapFeatureExtractor")
        if extractor.padding != "repeatpad":
            raise FormatError(
                f"{snapshot}: expected preprocessing that pads by 'repeatpad', got {extractor.padding!r}."
            )
        self._tokenizer = open_processor(snapshot, *TOKENIZERS)
        self._tokenizer("")  # drops whatever cutting and padding the file asks for, before threads share the tokenizer
        self._network = open_model(snapshot, "ClapModel", dtype)
        config = self._network.config
        self._fused = bool(config.audio_config.enable_fusion)
        self._settings = mel_settings(extractor, fused=self._fused)
        self.name = "clap"
        self.source, self.revision = snapshot.source, snapshot.revision
        self.widths = {"audio": int(config.projection_dim), "text": int(config.projection_dim)}
        self.fingerprint = fingerprint(self._network.state_dict(), self._preprocessing(extractor))
        self._network.to(where)

    def __repr__(self) -> str:
        at = f" at {self.revision[:12]}" if self.revision else ""
        return f"{type(self).__name__}({self.source!r}{at}: audio {self.widths['audio']}, text {self.widths['text']})"

    def _place(self, device: torch.device) -> None:
        self._network.to(device)

    @contextmanager
    def _opened_towers(self) -> Iterator[Mapping[str, Tower]]:
        cut = CutTexts(self.name, TEXT_TOKENS)
        yield {
            "audio": Tower(self.widths["audio"], self._heard, self._embed_sounds),
            "text": Tower(self.widths["text"], self._tokens, partial(self._embed_texts, cut)),
        }
        cut.say()

    def _heard(self, item: Any) -> Heard:
        # The whole of it, however few windows are used: a fused encoder hears the whole shrunk, the places of the windows
        # follow from the length after resampling, and a part resampled alone differs at its edges. Where the rate is right
        # already, an mp3 that is sought in still gives other bits, and damage between the windows would not be noticed.
        samples = read_audio(item, self._settings.sample_rate_hz)
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
        text = read_text(item)
        # Neither cut nor padded by the tokenizer: that would change its state under the other decoding threads.
        return text, self._tokenizer(text, verbose=False)["input_ids"]

    def _embed_texts(self, cut: CutTexts, texts: list[tuple[str, list[int]]]) -> Tensor:
        for text, row in texts:
            if len(row) > TEXT_TOKENS:
                cut.add(text)
        rows = [torch.tensor(_cut(tokens)) for _, tokens in texts]
        padding = int(self._network.config.text_config.pad_token_id)  # positions are counted by it
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        device = self._network.device
        features = self._network.get_text_features(input_ids=tokens.to(device), attention_mask=mask.to(device))
        return _embeddings_in(features)

    def _preprocessing(self, extractor: Any) -> dict[str, Any]:
        """Describe what decides which numbers an item becomes, the same for every version of transformers."""
        return {
            "rules": _RULES,
            "family": self.name,
            "audio": {
                **{name: int(getattr(extractor, name)) for name in _EXTRACTOR_SETTINGS},
                "frequencies": [float(extractor.frequency_min), float(extractor.frequency_max)],
                "fused": self._fused,  # it decides the scale of the mel filters too
            },
            "vocabulary": sorted(self._tokenizer.get_vocab().items()),
            "probes": [self._tokens(probe)[1] for probe in _PROBES],  # for its merges and normalisation
            "length": TEXT_TOKENS,
        }


def _cut(tokens: list[int]) -> list[int]:
    """Keep the first tokens and the end mark."""
    return tokens if len(tokens) <= TEXT_TOKENS else [*tokens[: TEXT_TOKENS - 1], tokens[-1]]


def _embeddings_in(features: Any) -> Tensor:
    """Take the projected rows; transformers 5 returns them in an object, 4 as they are."""
    rows: Tensor = getattr(features, "pooler_output", features)
    return rows.float()
