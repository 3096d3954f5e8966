"""From which cosine are two items near-duplicates? Copies of items beside different items, in the miniature spaces.

    python benchmarks/duplicates.py --out benchmarks/results/duplicates.json    # the table in docs/search.md, half a minute

Different items are 500 test items of different numbers, and the same numbers by another hand or voice. For each way of copying
it gives the 1 %, 50 % and 99 % quantiles of the cosine of an item and its copy, and the share at the threshold or above.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

import cmcr
from cmcr.data.numbers import ALL_NUMBERS, SAMPLE_RATE_HZ
from cmcr.evaluation.miniature import draw_items
from cmcr.search.engine import NEAR_DUPLICATE
from tables import as_markdown, result_table, save

NUMBERS = ALL_NUMBERS[::2]
WORDS = {"image": "picture", "audio": "sound", "point_cloud": "point cloud"}
SPACES = {"image": "mini-clip", "audio": "mini-clap", "point_cloud": "mini-ulip"}


def copies(modality: str, items: list[Any], rng: np.random.Generator) -> Iterator[tuple[str, list[Any]]]:
    """Give (how, copies) of items."""
    if modality == "image":
        yield "its copy as JPEG, quality 75", [_jpeg(each, 75) for each in items]
        yield "its copy as JPEG, quality 40", [_jpeg(each, 40) for each in items]
        yield "paler", [np.clip(0.8 * each + 20, 0, 255).astype(np.uint8) for each in items]
        yield (
            "four times as large",
            [np.asarray(Image.fromarray(e).resize((4 * e.shape[1], 4 * e.shape[0]))) for e in items],
        )
    elif modality == "audio":
        sounds = [each["array"] for each in items]
        yield "half as loud", [_sound(each / 2) for each in sounds]
        yield (
            "with noise at -30 dB",
            [_sound(e + _noise(e.shape, rng) * 10**-1.5 * np.sqrt(np.mean(e**2))) for e in sounds],
        )
        yield "as Ogg Vorbis", [_ogg(each) for each in sounds]
    else:
        yield "with noise of 1 % of its radius", [each + 0.01 * _noise(each.shape, rng) for each in items]
        yield "3/4 of its points", [each[rng.permutation(len(each))[: 3 * len(each) // 4]] for each in items]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON of the table")
    settings = parser.parse_args()
    rows = [row for modality, name in SPACES.items() for row in measured(modality, name)]
    columns = {"cosine of an item and": "{}", **dict.fromkeys(("1 %", "50 %", "99 %"), "{:.3f}")}
    table = result_table({**columns, f"{NEAR_DUPLICATE:g} or more": "{:.0f} %"}, rows)
    print(as_markdown(table))
    if settings.out:
        save(settings.out, settings, {"duplicates": table})


def measured(modality: str, name: str) -> Iterator[list[str | float]]:
    """Give the rows of the table for a modality."""
    rng, space, word = np.random.default_rng(0), cmcr.space(name), WORDS[modality]
    items = draw_items(modality, NUMBERS, "test", rng)
    rows = space.encode(items, modality, batch_size=250, show_progress_bar=False)
    others = rows @ rows.T
    np.fill_diagonal(others, -1)
    yield _row(f"{word}: the nearest of another number", others.max(axis=1))
    same = [("the same number by another hand or voice", draw_items(modality, NUMBERS, "test", rng))]
    for how, copied in [*same, *copies(modality, items, rng)]:
        found = space.encode(copied, modality, batch_size=250, show_progress_bar=False)
        yield _row(f"{word}: {how}", (rows * found).sum(axis=1))


def _row(what: str, cosines: NDArray[np.floating]) -> list[str | float]:
    return [what, *np.quantile(cosines, (0.01, 0.5, 0.99)).tolist(), 100 * float((cosines >= NEAR_DUPLICATE).mean())]


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def _jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _sound(samples: NDArray[np.float32]) -> dict[str, Any]:
    return {"array": samples, "sampling_rate": SAMPLE_RATE_HZ}


def _ogg(samples: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="OGG")
    return file.getvalue()


if __name__ == "__main__":
    main()
