"""Sounds for CLAP, through transformers; fused and unfused models. Nothing here is random.

The published extractor takes its windows of a long sound at random positions, and marks a random sound of a batch of
short ones as longer, so the same file gets another embedding with every call. Here both depend on the sound alone.
Shapes: `n` samples, `W` windows, `C` channels, `T` frames, `M` mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.data.audio import read_audio
from cmcr.errors import FormatError
from cmcr.spaces.hub import Snapshot, import_library, open_processor

MOST_WINDOWS = 6  # of the unfused encoder: a minute is read whole, of anything longer six windows spread over it

_FRAMES = 6000  # of a spectrogram, computed together: all of half an hour would take 2 GB
_EXTRACTOR_SETTINGS = "sampling_rate fft_window_size hop_length nb_max_samples feature_size".split()


class Sounds:
    """What prepares and embeds the sounds of one CLAP model.

    Sounds are resampled to 48 kHz mono (the mean of the channels). Up to 10 s they are repeated whole and padded with
    silence to 10 s, as the published models expect. Of longer ones, windows at fixed positions are read: a fused model
    gets the whole shrunk to 10 s and the middle window of the front, the middle and the back third; any other gets up to
    six windows spread evenly, whose unit embeddings are averaged (see `fused_windows` and `unfused_windows`). The length
    of a sound alone decides whether a fused model treats it as longer, never its neighbours in the batch. Silence is a
    sound like any other; a single sample is repeated for 10 s.

    Attributes:
        settings: those of the extractor that decide which numbers a sound becomes.
        processor: the extractor; only its numbers are used.
        patch_size: None, as for any model without patches in the joint space.
        probe: a sound that any model can embed.
    """

    probe: ClassVar = {"array": np.zeros(1, dtype=np.float32), "sampling_rate": 48_000}
    patch_size: int | None = None

    def __init__(self, snapshot: Snapshot, model: Any) -> None:
        self._model = model
        self.processor = extractor = open_processor(snapshot, "ClapFeatureExtractor")
        if extractor.padding != "repeatpad":
            raise FormatError(
                f"{snapshot}: expected preprocessing that pads by 'repeatpad', got {extractor.padding!r}."
            )
        self._fused = bool(model.config.audio_config.enable_fusion)
        self.settings = {
            **{name: int(getattr(extractor, name)) for name in _EXTRACTOR_SETTINGS},
            "frequencies": [float(extractor.frequency_min), float(extractor.frequency_max)],
            "fused": self._fused,  # it decides the scale of the mel filters too
        }

    def prepare(self, item: Any) -> SoundWindows:
        """Read and prepare one sound."""
        # The whole sound, however few windows are used: a fused encoder reads all of it shrunk, the positions of windows
        # follow from the length after resampling, and a part resampled alone differs at its edges. Even where the rate is
        # right, seeking in an mp3 gives other bits, and damage between the windows would not be noticed.
        samples = read_audio(item, self.processor.sampling_rate)
        return (fused_windows if self._fused else unfused_windows)(samples, self.processor)

    def embed(self, sounds: list[SoundWindows]) -> Tensor:
        """Embed prepared sounds: `(B, D)`, the mean of the unit embeddings of each one's windows."""
        # No more windows at a time than there are sounds: batch_size bounds the memory for long sounds as well.
        parts = zip(*(values.split(len(sounds)) for values in self.batch(sounds).values()), strict=True)
        rows = torch.cat([self._embed_windows(*part) for part in parts])
        of_sound = rows.split([len(sound.windows) for sound in sounds])
        return torch.stack([part.mean(dim=0) for part in of_sound])

    def batch(self, sounds: list[SoundWindows]) -> dict[str, Tensor]:
        """Put all windows of sounds together: `(W, C, T, M)`, and of each whether it is of a longer sound, `(W, 1)`."""
        longer = torch.tensor([[sound.longer] for sound in sounds for _ in sound.windows])
        windows = torch.from_numpy(np.concatenate([sound.windows for sound in sounds]))
        return {"input_features": windows, "is_longer": longer}

    def _embed_windows(self, windows: Tensor, longer: Tensor) -> Tensor:
        model = self._model
        inputs = windows.to(model.device, model.dtype)
        output = model.get_audio_features(input_features=inputs, is_longer=longer.to(model.device))
        rows: Tensor = output.pooler_output.float()
        return rows


@dataclass(frozen=True)
class SoundWindows:
    """One sound as the encoder takes it in.

    Attributes:
        windows: `(W, C, T, M)` float32 in dB; fused: one window of four channels; unfused: up to `MOST_WINDOWS` of one.
        longer: whether the fused encoder must use the channels 1 to 3 as well.
    """

    windows: NDArray[np.float32]
    longer: bool


def fused_windows(samples: NDArray[np.float32], extractor: Any) -> SoundWindows:
    """Prepare a sound for a fused encoder.

    Up to the length of a window: the sound, repeated whole as often as it fits and then silence (the published
    `repeatpad`). Longer: four channels, as in the published fusion (Wu et al. 2023, section 2.3): the spectrogram of the
    whole shrunk to one window, and one window each out of the front, the middle and the back third. The published code
    draws each of the three at random within its third; we take the middle of the third, the mean of that draw.

    Args:
        samples: `(n,)` at the rate of the extractor, n at least 1.
        extractor: `ClapFeatureExtractor` of transformers; only its numbers are used.

    Returns:
        One window of four channels.
    """
    frames = extractor.nb_max_samples // extractor.hop_length + 1  # one more than the hops: frames are centred
    padded = repeat_padded(samples, extractor.nb_max_samples)
    mel = log_mel(padded, extractor, extractor.mel_filters)  # trained on HTK filters, the unfused models on Slaney's
    if len(mel) <= frames:
        return SoundWindows(np.broadcast_to(mel, (1, 4, *mel.shape)), longer=False)
    # The middle of each third of the possible starts; a third without any (a sound barely longer) takes 0.
    thirds = np.array_split(np.arange(len(mel) - frames + 1), 3)
    starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
    shrunk = torch.nn.functional.interpolate(
        torch.from_numpy(mel)[None, None], size=(frames, mel.shape[1]), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    return SoundWindows(np.stack([shrunk, *(mel[start : start + frames] for start in starts)])[None], longer=True)


def unfused_windows(samples: NDArray[np.float32], extractor: Any) -> SoundWindows:
    """Prepare a sound for an encoder without fusion; arguments as for `fused_windows`.

    Up to the length of a window: padded as in `fused_windows`. Longer: the fewest windows that cover it, at most
    `MOST_WINDOWS`, spread evenly from its start to its end; their embeddings are averaged. The encoder was trained on one
    window at a random position: the mean over even positions is the mean of that draw, where one window would miss the rest.

    Returns:
        One to `MOST_WINDOWS` windows of one channel.
    """
    length = extractor.nb_max_samples
    padded = repeat_padded(samples, length)
    count = min(-(-len(padded) // length), MOST_WINDOWS)
    starts = np.linspace(0, len(padded) - length, count).round().astype(int)
    mels = [log_mel(padded[start : start + length], extractor, extractor.mel_filters_slaney) for start in starts]
    return SoundWindows(np.stack(mels)[:, None], longer=False)


def repeat_padded(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Repeat a short sound whole as often as it fits in `length`, then add silence; leave a longer one as it is."""
    if len(samples) >= length:
        return samples
    repeated = np.tile(samples, length // len(samples))
    return np.pad(repeated, (0, length - len(repeated)))


def log_mel(samples: NDArray[np.float32], extractor: Any, filters: NDArray[np.float64]) -> NDArray[np.float32]:
    """Compute the log-mel spectrogram as `ClapFeatureExtractor` does.

    Args:
        samples: `(n,)`, longer than half a frame.
        extractor: of transformers.
        filters: `(bins, M)` weights of the mel bands over the frequency bins.

    Returns:
        `(T, M)` float32 in dB, at least -100.
    """
    audio = import_library("transformers.audio_utils")
    length, hop = extractor.fft_window_size, extractor.hop_length
    centred = np.pad(samples, length // 2, mode="reflect")
    bands = [
        audio.spectrogram(
            centred[start * hop : (start + _FRAMES - 1) * hop + length],
            audio.window_function(length, "hann"),
            frame_length=length,
            hop_length=hop,
            center=False,
            power=2.0,
            mel_filters=filters,
            log_mel="dB",
        )
        for start in range(0, len(samples) // hop + 1, _FRAMES)
    ]
    # Rows in order in memory: torch rounds otherwise for a transposed array, and so for a sound alone or in a batch.
    return np.ascontiguousarray(np.concatenate(bands, axis=1).T)
