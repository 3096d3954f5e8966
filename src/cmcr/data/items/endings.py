"""Endings of files: which fit a modality, which are lists, which are tar files."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cmcr.data.meshes import MESH_SUFFIXES
from cmcr.data.point_files import POINT_SUFFIXES

LINES, TABLE, TAR, SINGLE = "lines", "table", "tar", "single"

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")

ENDINGS_OF = {
    "image": tuple(
        ".jpg .jpeg .jpe .jfif .png .apng .gif .webp .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .tga .jp2 .avif".split()
    ),
    "text": (".txt",),
    "audio": tuple(
        ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .au .caf .m4a .mp4 .mov .webm .mkv .mka .aac .wma .avi".split()
    ),
    "point_cloud": (*(ending for ending in POINT_SUFFIXES if ending not in TABLE_ENDINGS), *MESH_SUFFIXES),
}
"""The endings that are taken from folders and tar files, in small letters."""


def ending_of(name: str) -> str:
    """The ending of a name, in small letters with its dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of millions of names costs a minute


def fits(name: str, modality: str) -> bool:
    """Whether a file of this name is taken for the modality."""
    return ending_of(name) in ENDINGS_OF[modality]


def kind_of(name: str) -> str:
    """Say what a file is by its name: `TAR`, `TABLE`, `LINES` or `SINGLE`."""
    if name.lower().endswith(_TAR_ENDINGS):
        return TAR
    ending = ending_of(name)
    return TABLE if ending in TABLE_ENDINGS else LINES if ending == ".txt" else SINGLE


def counted(endings: Mapping[str, int]) -> str:
    """Say how many files of which endings there are: ".json (12), .md (1)"."""
    return ", ".join(
        f"{ending} ({count})" for ending, count in sorted(endings.items(), key=lambda pair: (-pair[1], pair))
    )
