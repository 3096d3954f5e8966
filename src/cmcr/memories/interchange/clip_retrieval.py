"""The folders that clip-retrieval's inference writes: numbered arrays, and a table of metadata for each.

FOLDER/
  img_emb/img_emb_0.npy             (n, D) float16; text_emb/text_emb_0.npy for texts
  metadata/metadata_0.parquet       image_path, caption, ...: a row for each row of the array
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np

from cmcr.errors import ArtefactNotFoundError, ConfigError, DimensionError, FormatError
from cmcr.memories.interchange.exported import Exported, ExportedBlock
from cmcr.memories.interchange.npy import array_file, mapped_array, write_header
from cmcr.memories.interchange.pyarrow_tables import opened, pyarrow, strings, written_strings
from cmcr.memories.listed_items import ListedItems
from cmcr.memories.row_source import Block, RowSource, survey_rows

PARTS = {"image": "img_emb", "text": "text_emb"}
_PATH, _SOURCE = "image_path", "source"
_PARTITION_ROWS = 2**20


class ClipRetrievalRows(RowSource):
    """The rows of the pictures, or of the texts, in a folder of clip-retrieval, by the numbers of its partitions.

    Ids are the paths in the column `image_path` if all rows have one of their own, else partition and row: `0:17`.

    Args:
        folder: that holds `img_emb` or `text_emb`, and `metadata`.
        modality: "image" or "text".

    Raises:
        ConfigError: another modality.
        ArtefactNotFoundError, ReadError, FormatError: files that are not there or not what they should be.
        DimensionError: partitions of other widths, or whose metadata has another number of rows.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, folder: Path, modality: str) -> None:
        self.description = str(folder)
        part = part_of(modality)
        self._partitions = [(name, path, _metadata(folder, name)) for name, path in _numbered(folder / part, part)]
        self._counts = [_checked_rows(path, table) for _, path, table in self._partitions]
        self.width = mapped_array(self._partitions[0][1]).shape[1]
        self._check_widths()
        self._named = self._has_paths()

    def ids(self) -> Iterator[Sequence[str]]:
        """Give the ids, some at a time."""
        for (name, _, path), count in zip(self._partitions, self._counts, strict=True):
            if not self._named:
                yield [f"{name}:{row}" for row in range(count)]
                continue
            with opened(path) as table:
                yield from strings(path, table, _PATH)

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Give all rows from `start` on, `size` at a time within a partition."""
        position = 0
        for (name, path, table), count in zip(self._partitions, self._counts, strict=True):
            if position + count > start:
                items = self._items(name, table, count)
                yield from array_file(path, items).blocks(max(start - position, 0), size)
            position += count

    def _items(self, name: str, path: Path, count: int) -> ListedItems:
        columns: dict[str, list[str]] = {}
        with opened(path) as table:
            ours = table.schema_arrow.names == [_PATH, _SOURCE]  # elsewhere a column of that name may be anything
            for column in [_PATH, *([_SOURCE] if ours else [])] if self._named else []:
                columns[column] = [one for some in strings(path, table, column) for one in some]
        return ListedItems(count, columns.get(_PATH), columns.get(_SOURCE), prefix=f"{name}:", description=str(path))

    def _has_paths(self) -> bool:
        for _, _, path in self._partitions:
            with opened(path) as table:
                if _PATH not in table.schema_arrow.names:
                    return False
        self._named = True
        try:
            survey_rows(self)
        except (ConfigError, FormatError):  # one occurs twice, or is missing
            return False
        return True

    def _check_widths(self) -> None:
        for _, path, _ in self._partitions:
            if (width := mapped_array(path).shape[1]) != self.width:
                raise DimensionError(f"{path}: {width} wide, {self._partitions[0][1].name} is {self.width} wide.")


def part_of(modality: str) -> str:
    """Name the folder of a modality's arrays.

    Raises:
        ConfigError: clip-retrieval knows no such modality.
    """
    if modality not in PARTS:
        raise ConfigError(f"clip-retrieval keeps image and text, got {modality!r}. Use npy or parquet.")
    return PARTS[modality]


def _numbered(folder: Path, part: str) -> list[tuple[str, Path]]:
    """Find the partitions, sorted by their numbers, however many zeros stand before those."""
    found = [(match[1], path) for path in folder.glob("*.npy") if (match := re.fullmatch(rf"{part}_(\d+)", path.stem))]
    if not found:
        raise ArtefactNotFoundError(2, f"there are no {part}_0.npy, {part}_1.npy, ... here", str(folder))
    found.sort(key=lambda one: int(one[0]))
    for (first, _), (second, path) in pairwise(found):
        if int(first) == int(second):
            raise FormatError(f"{path}: there is another partition {int(first)} beside it.")
    return found


def _metadata(folder: Path, number: str) -> Path:
    path = folder / "metadata" / f"metadata_{number}.parquet"
    if not path.is_file():
        raise ArtefactNotFoundError(
            2, "the metadata of a partition is missing; for arrays without any use npy", str(path)
        )
    return path


def _checked_rows(array: Path, metadata: Path) -> int:
    rows = mapped_array(array).shape[0]
    with opened(metadata) as table:
        if table.metadata.num_rows != rows:
            raise DimensionError(f"{metadata}: {table.metadata.num_rows} rows, {array.name} has {rows}.")
    return int(rows)


def write_clip_retrieval(exported: Exported, folder: Path) -> None:
    """Write numbered arrays, and metadata with the columns `image_path` (the id) and `source`."""
    arrow, part = pyarrow(), part_of(exported.modality)
    count = -(-exported.count // _PARTITION_ROWS)
    digits = len(str(count))
    (folder / part).mkdir()
    (folder / "metadata").mkdir()
    schema = arrow.schema([(_PATH, arrow.string()), (_SOURCE, arrow.string())])
    blocks = _within_partitions(exported)
    for number in range(count):
        name = str(number).zfill(digits)
        size = min(_PARTITION_ROWS, exported.count - number * _PARTITION_ROWS)
        with ExitStack() as files:
            array = files.enter_context((folder / part / f"{part}_{name}.npy").open("wb"))
            path = folder / "metadata" / f"metadata_{name}.parquet"
            table = files.enter_context(arrow.parquet.ParquetWriter(path, schema))
            write_header(array, exported.dtype, (size, exported.width))
            while size:
                block = next(blocks)
                array.write(np.ascontiguousarray(block.rows).data)
                columns = [written_strings(block.ids), written_strings(block.sources)]
                table.write_batch(arrow.record_batch(columns, schema=schema))
                size -= len(block.rows)


def _within_partitions(exported: Exported) -> Iterator[ExportedBlock]:
    """Cut blocks where a partition ends."""
    position = 0
    for block in exported.blocks():
        start = 0
        while start < len(block.rows):
            stop = min(len(block.rows), start + _PARTITION_ROWS - position % _PARTITION_ROWS)
            yield ExportedBlock(block.rows[start:stop], block.ids[start:stop], block.sources[start:stop])
            position += stop - start
            start = stop
