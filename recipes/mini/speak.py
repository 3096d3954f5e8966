"""Record the spoken digits of the miniature world with espeak-ng, once, into one small Opus file.

Needs the program `espeak-ng` (1.51 or later), and is run by `make mini-voices`; the result is committed, so that nobody else
needs espeak-ng. Each voice is an accent, a variant, a pitch and a speed, drawn from a fixed seed; the digits of all
voices follow each other in one stream, and a JSON file lists where each begins.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 8_000
WORDS = "zero one two three four five six seven eight nine".split()
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
TRAIN_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m8", "f1", "f2", "f4", "Andrea", "adam", "linda")
TEST_VARIANTS = ("m6", "m7", "f3", "f5", "Annie", "belinda")
VOICES = {"train": 56, "test": 24}
HEAD_SAMPLES = 40  # 5 ms of silence kept around each word


def main() -> None:
    """Write `spoken_digits.opus` and `spoken_digits.json` into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("src/cmcr/data"))
    out: Path = parser.parse_args().out
    if shutil.which("espeak-ng") is None:
        sys.exit("espeak-ng is not on the PATH: install it (Debian: apt-get install espeak-ng) and run this again")
    rng = np.random.default_rng(20231)
    pieces: list[NDArray[np.float32]] = []
    voices: list[dict[str, object]] = []
    position = 0
    for split, variants in (("train", TRAIN_VARIANTS), ("test", TEST_VARIANTS)):
        pairs = list(itertools.product(ACCENTS, variants))
        for index in rng.permutation(len(pairs))[: VOICES[split]]:
            accent, variant = pairs[index]
            pitch, speed = int(rng.integers(25, 76)), int(rng.integers(150, 216))
            bounds = []
            for word in WORDS:
                piece = _trimmed(_spoken(word, f"{accent}+{variant}", pitch, speed))
                bounds.append([position, position + len(piece)])
                pieces.append(piece)
                position += len(piece)
            voices.append(
                {"split": split, "voice": f"{accent}+{variant}", "pitch": pitch, "speed": speed, "digits": bounds}
            )
    sound = np.concatenate(pieces)
    soundfile.write(
        out / "spoken_digits.opus", sound, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS", compression_level=0.95
    )
    (out / "spoken_digits.json").write_text(
        json.dumps({"sample_rate_hz": SAMPLE_RATE_HZ, "samples": len(sound), "voices": voices}) + "\n", encoding="utf-8"
    )
    print(
        f"{len(voices)} voices, {len(sound) / SAMPLE_RATE_HZ:.0f} s, {(out / 'spoken_digits.opus').stat().st_size} bytes"
    )


def _spoken(word: str, voice: str, pitch: int, speed: int) -> NDArray[np.float32]:
    """One word as mono float32 at 8 kHz, its loudest sample at 0.8."""
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", word]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    sound, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    sound = soxr.resample(sound, rate, SAMPLE_RATE_HZ)
    return np.asarray(0.8 * sound / np.abs(sound).max(), dtype=np.float32)


def _trimmed(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut the silence at both ends (below 2 % of full scale)."""
    loud = np.flatnonzero(np.abs(sound) > 0.02)
    return sound[max(0, loud[0] - HEAD_SAMPLES) : loud[-1] + HEAD_SAMPLES]


if __name__ == "__main__":
    main()
