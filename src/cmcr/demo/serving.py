"""The miniature world as an index to search, look at and listen to: `cmcr demo --serve`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from cmcr.connection.connect import connect
from cmcr.data.numbers import ALL_NUMBERS, SEEN_NUMBERS, draw_pictures
from cmcr.evaluation.miniature import draw_items
from cmcr.files import MANIFEST, write_text_whole, writing
from cmcr.memories.memories import Memories
from cmcr.progress import Progress
from cmcr.search.building import index
from cmcr.spaces.registry import space

INDEX = "index"
_SPACES = ("mini-clip", "mini-clap", "mini-ulip")  # the first that reads a modality embeds it in the index
_ITEMS, _TABLES = "items", {"image": "pictures", "audio": "sounds", "point_cloud": "clouds", "text": "texts"}
_FOURS = 48  # pictures of four numbers, in which to ask where one is
_BATCH = 500


def build_search(out: Path, progress: Progress, *, numbers: int = 300, seed: int = 0) -> Path:
    """Connect the three miniature spaces in one and index test items of the world, unless that was done before.

    The items are files and tables in `out/items`: a picture, a sound, a point cloud and a text for each of some numbers, in
    handwriting and voices that no training saw, and pictures of four numbers.

    Args:
        out: folder; a build that was stopped is finished.
        progress: called with the stage and the share of it that is finished.
        numbers: how many of the thousand, evenly spaced.
        seed: of the items.

    Returns:
        the folder of the index.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
        WriteError: the folder cannot be written.
        Others as `cmcr.index`.
    """
    folder = out / INDEX
    if (folder / MANIFEST).is_file():
        return folder
    tables = write_items(out / _ITEMS, numbers, seed, partial(progress, "writing items"))
    connection = connect(
        *_memories(seed, partial(progress, "embedding memories")),
        method="cca",
        seed=seed,
        device="cpu",
        show_progress_bar=False,
    )
    index(connection, tables, folder, id_column="id", batch_size=_BATCH, device="cpu", progress=progress)
    return folder


def write_items(folder: Path, numbers: int, seed: int, progress: Callable[[float], None]) -> list[Path]:
    """Write items as files, and a table for each modality with what is known of them: value, parity, seen in training."""
    shown = ALL_NUMBERS[np.arange(numbers) * len(ALL_NUMBERS) // numbers]
    tables = []
    for position, (modality, name) in enumerate(_TABLES.items()):
        rng = np.random.default_rng([seed, position, 2])
        items = draw_items(modality, shown, "test", rng)
        rows = [
            {**_facts(number), **_written(folder / name, f"{number:03d}", modality, item)}
            for number, item in zip(shown.tolist(), items, strict=True)
        ]
        if modality == "image":
            rows += _write_fours(folder / name, rng)
        tables.append(folder / f"{name}.csv")
        _write_table(tables[-1], rows)
        progress((position + 1) / len(_TABLES))
    return tables


def _facts(number: int) -> dict[str, Any]:
    parity, seen = "odd" if number % 2 else "even", "yes" if number in SEEN_NUMBERS else "no"
    return {"id": f"{number:03d}", "value": number, "parity": parity, "seen": seen, "shows": "one number"}


def _written(folder: Path, stem: str, modality: str, item: Any) -> dict[str, str]:
    """Write an item into a file; give its cell of the table."""
    if modality == "text":
        return {"text": item}
    path = folder / (stem + {"image": ".png", "audio": ".wav", "point_cloud": ".npy"}[modality])
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        if modality == "image":
            Image.fromarray(item).save(path)  # every pixel counts: enlarged, they would be read with blur
        elif modality == "audio":
            soundfile.write(path, item["array"], item["sampling_rate"])
        else:
            np.save(path, item)
    return {"path": f"{folder.name}/{path.name}"}


def _write_fours(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Write pictures of four numbers each, two beside two."""
    numbers = rng.choice(ALL_NUMBERS, (_FOURS, 4), replace=False)
    tiles = draw_pictures(numbers.ravel(), "test", rng)
    height, width = tiles.shape[1:]
    pictures: NDArray[np.uint8] = tiles.reshape(_FOURS, 2, 2, height, width).swapaxes(2, 3)
    rows = []
    for four, picture in zip(numbers.tolist(), pictures.reshape(_FOURS, 2 * height, 2 * width), strict=True):
        name = " ".join(f"{number:03d}" for number in four)
        written = _written(folder, name.replace(" ", "-"), "image", picture)
        rows.append({"id": name, "value": "", "parity": "", "seen": "", "shows": "four numbers", **written})
    return rows


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_whole(path, file.getvalue())


def _memories(seed: int, progress: Callable[[float], None]) -> list[Memories]:
    """Embed unpaired items of seen numbers, each modality in an order of its own, in every space that reads them."""
    items = {}
    for position, modality in enumerate(_TABLES):
        rng = np.random.default_rng([seed, position, 3])
        items[modality] = draw_items(modality, rng.permutation(SEEN_NUMBERS), "train", rng)
    memories = []
    for done, name in enumerate(_SPACES, start=1):
        encoder = space(name)
        rows = {m: encoder.encode(items[m], m, batch_size=_BATCH, show_progress_bar=False) for m in encoder.widths}
        memories.append(Memories(encoder, **rows))
        progress(done / len(_SPACES))
    return memories
