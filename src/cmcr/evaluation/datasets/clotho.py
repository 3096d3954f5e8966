"""Clotho: sounds of 15 to 30 seconds with five captions each (Drossos et al., ICASSP 2020)."""

from __future__ import annotations

from pathlib import Path

from cmcr.evaluation.datasets.annotations import csv_rows
from cmcr.evaluation.datasets.captioned import CAPTIONS, Captioned, captioned_pairs, if_there
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import RetrievalRecord

LAYOUT = Layout(
    name="clotho",
    modalities=("audio", "text"),
    source="Drossos et al., Clotho: An Audio Captioning Dataset, ICASSP 2020 (on Zenodo; version 2.1)",
    tree=(
        "    clotho_captions_<split>.csv    file_name, caption_1, ..., caption_5\n"
        "    <split>/<file_name>    or clotho_audio_<split>/, clotho_audio_<split>/<split>/"
    ),
    splits=("evaluation", "validation", "development"),
)

_COLUMNS = ("file_name", *(f"caption_{number}" for number in range(1, CAPTIONS + 1)))


def read_clotho(folder: Path, request: Request) -> RetrievalRecord:
    """Pair each sound with its five captions; `evaluation` is the set of published figures. Columns as published."""
    split = LAYOUT.split(request)
    path = LAYOUT.find(folder, f"clotho_captions_{split}.csv")
    archive = f"clotho_audio_{split}"
    sounds = LAYOUT.find(folder, f"{archive}/{split}", archive, split)
    items = []
    for row in csv_rows(path, _COLUMNS):
        name = row["file_name"]
        captions = [row[column] for column in _COLUMNS[1:]]
        items.append(Captioned(name, if_there(sounds / name), f"{sounds.name}/{name}", captions))
    return captioned_pairs(LAYOUT, folder, request, split, "audio", items)
