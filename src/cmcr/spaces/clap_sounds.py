"""What CLAP hears of a sound: log-mel spectrograms of windows at fixed places. Nothing here is random.

The published extractor takes its windows of a long sound at random places, and marks a random sound of a batch of short
ones as longer, so the same file gets another embedding with every call. Here both depend on the sound alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

MOST_WINDOWS = 6  # of the unfused encoder: a minute is heard whole, of anything longer six windows spread over it
_FLOOR = 1e-10  # power of silence, -100 dB: the smallest that the published extractor knows
_FRAMES_AT_ONCE = 2048  # 50 MB of working memory, however long the sound


@dataclass(frozen=True)
class MelSettings:
    """How spectrograms are made.

    Attributes:
        filters: `(bins, M)` weights of the M mel bands over the frequency bins, float64.
        sample_rate_hz: of the samples.
        frame_samples: length of a frame.
        hop_samples: from the start of a frame to the next.
        clip_samples: length of the window that the encoder takes in (10 s in the published models).
    """

    filters: NDArray[np.float64]
    sample_rate_hz: int
    frame_samples: int
    hop_samples: int
    clip_samples: int

    @property
    def clip_frames(self) -> int:
        """Frames T of a window; one more than the hops, for frames are centred on their place."""
        return self.clip_samples // self.hop_samples + 1


@dataclass(frozen=True)
class Heard:
    """One sound as the encoder takes it in.

    Attributes:
        windows: `(W, C, T, M)` float32 in dB; fused: one window of four channels; unfused: up to `MOST_WINDOWS` of one.
        longer: whether the fused encoder shall look at the channels 1 to 3 as well.
    """

    windows: NDArray[np.float32]
    longer: bool


def mel_settings(extractor: Any, *, fused: bool) -> MelSettings:
    """Read the settings from a `ClapFeatureExtractor`.

    Args:
        extractor: of transformers; only its numbers are used.
        fused: the fused models were trained on HTK filters, the others on Slaney's.
    """
    return MelSettings(
        filters=np.asarray(extractor.mel_filters if fused else extractor.mel_filters_slaney, dtype=np.float64),
        sample_rate_hz=int(extractor.sampling_rate),
        frame_samples=int(extractor.fft_window_size),
        hop_samples=int(extractor.hop_length),
        clip_samples=int(extractor.nb_max_samples),
    )


def hear_fused(samples: NDArray[np.float32], settings: MelSettings) -> Heard:
    """Prepare a sound for a fused encoder.

    Up to the length of a window: the sound, repeated whole as often as it fits and then silence (the published
    `repeatpad`). Longer: four channels, as in the published fusion (Wu et al. 2023, section 2.3): the spectrogram of the
    whole shrunk to one window, and one window each out of the front, the middle and the back third. The published code
    draws each of the three at random within its third; we take the middle of the third, the mean of that draw.

    Args:
        samples: `(n,)` at the rate of the settings, n at least 1.
        settings: of the encoder.

    Returns:
        One window of four channels.
    """
    mel = log_mel(repeat_padded(samples, settings.clip_samples), settings)
    if len(mel) <= settings.clip_frames:
        return Heard(np.broadcast_to(mel, (1, 4, *mel.shape)), longer=False)
    thirds = [mel[start : start + settings.clip_frames] for start in _fusion_starts(len(mel), settings.clip_frames)]
    return Heard(np.stack([_shrunk(mel, settings.clip_frames), *thirds])[None], longer=True)


def hear_unfused(samples: NDArray[np.float32], settings: MelSettings) -> Heard:
    """Prepare a sound for an encoder without fusion.

    Up to the length of a window: padded as in `hear_fused`. Longer: the fewest windows that cover it, at most
    `MOST_WINDOWS`, spread evenly from its start to its end; their embeddings are averaged. The encoder was trained on one
    window at a random place: the mean over even places is the mean of that draw, where one window would miss the rest.

    Args:
        samples: `(n,)` at the rate of the settings, n at least 1.
        settings: of the encoder.

    Returns:
        One to `MOST_WINDOWS` windows of one channel.
    """
    padded = repeat_padded(samples, settings.clip_samples)
    count = min(-(-len(padded) // settings.clip_samples), MOST_WINDOWS)
    starts = np.linspace(0, len(padded) - settings.clip_samples, count).round().astype(int)
    mels = [log_mel(padded[start : start + settings.clip_samples], settings) for start in starts]
    return Heard(np.stack(mels)[:, None], longer=False)


def repeat_padded(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Repeat a short sound whole as often as it fits in `length`, then add silence; leave a longer one as it is."""
    if len(samples) >= length:
        return samples
    repeated = np.tile(samples, length // len(samples))
    return np.pad(repeated, (0, length - len(repeated)))


def log_mel(samples: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Compute the log-mel spectrogram as `ClapFeatureExtractor` does (reflected edges, periodic Hann window, power, dB).

    Args:
        samples: `(n,)`, longer than half a frame.
        settings: of the encoder.

    Returns:
        `(T, M)` float32 in dB, at least -100.
    """
    padded = np.pad(samples, settings.frame_samples // 2, mode="reflect")
    frames = sliding_window_view(padded, settings.frame_samples)[:: settings.hop_samples]
    hann = np.hanning(settings.frame_samples + 1)[:-1]
    parts = []
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        spectrum = np.fft.rfft(frames[start : start + _FRAMES_AT_ONCE] * hann)
        # Rounded to single precision before the power is taken, as the published extractor does.
        power = np.abs(spectrum.astype(np.complex64), dtype=np.float64) ** 2
        decibels = 10 * np.log10(np.maximum(power @ settings.filters, _FLOOR))
        parts.append(decibels.astype(np.float32))
    return np.concatenate(parts)


def _fusion_starts(frames: int, clip_frames: int) -> list[int]:
    """Return the middle of each third of the possible starts; a third without any (a sound barely longer) takes 0."""
    thirds = np.array_split(np.arange(frames - clip_frames + 1), 3)
    return [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]


def _shrunk(mel: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """Shrink a spectrogram `(T, M)` in time, as the published extractor does."""
    whole = torch.from_numpy(mel)[None, None]
    size = (frames, mel.shape[1])
    return torch.nn.functional.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
