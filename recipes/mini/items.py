"""Write folders of raw items of the miniature world, which `runs/mini.sh` embeds and connects.

    python recipes/mini/items.py --out mini-data

writes OUT/captions.txt, OUT/pictures/*.png, OUT/sounds/*.wav and OUT/clouds/*.npy: training handwriting and voices, seen
numbers only, each modality in an order of its own, so that nothing is paired.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from cmcr.data.numbers import (
    SAMPLE_RATE_HZ,
    SEEN_NUMBERS,
    draw_pictures,
    sample_point_clouds,
    speak_sounds,
    write_texts,
)


def write_items(out: Path, per_number: int, seed: int, most: int | None = None) -> None:
    """Draw and write all items.

    Args:
        out: folder.
        per_number: items for each of the 800 seen numbers, of every modality.
        seed: of all draws.
        most: items of a modality at most.
    """
    rng = np.random.default_rng([seed, per_number])
    texts, pictures, sounds, clouds = (rng.permutation(np.repeat(SEEN_NUMBERS, per_number))[:most] for _ in range(4))
    for name in ("pictures", "sounds", "clouds"):
        (out / name).mkdir(parents=True, exist_ok=True)
    (out / "captions.txt").write_text("\n".join(write_texts(texts, rng)) + "\n", encoding="utf-8")
    for number, picture in enumerate(draw_pictures(pictures, "train", rng)):
        Image.fromarray(picture).save(out / "pictures" / f"{number:05d}.png")
    for number, sound in enumerate(speak_sounds(sounds, "train", rng)):
        soundfile.write(out / "sounds" / f"{number:05d}.wav", sound, SAMPLE_RATE_HZ)
    for number, cloud in enumerate(sample_point_clouds(clouds, "train", rng)):
        np.save(out / "clouds" / f"{number:05d}.npy", cloud)


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("mini-data"))
    parser.add_argument("--per-number", type=int, default=6)
    parser.add_argument("--most", type=int, help="items of a modality at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_items(arguments.out, arguments.per_number, arguments.seed, arguments.most)


if __name__ == "__main__":
    main()
