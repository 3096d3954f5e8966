"""Lists of items to embed, walked and never held in memory: files, rows of tables and members of tar files.

`open_items` opens an input as one of three lists: `FileItems` (each file is an item), `TableItems` (each line of a text or row
of a CSV, JSONL or Parquet file) or `TarItems` (each member of tar files). Each can be walked any number of times.
"""

from __future__ import annotations

import difflib
import os
from contextlib import closing
from pathlib import Path

from cmcr.data.items.files import (
    ENDINGS_OF,
    TABLE_ENDINGS,
    TAR_ENDINGS,
    Entry,
    FileItems,
    ItemList,
    Selection,
    as_id,
    ending_of,
    selection_of_pattern,
)
from cmcr.data.items.tables import TableItems
from cmcr.data.items.tar_files import TarItems
from cmcr.errors import ConfigError, unknown_name
from cmcr.files import reading

__all__ = [
    "Entry",
    "FileItems",
    "ItemList",
    "Selection",
    "TableItems",
    "TarItems",
    "as_id",
    "open_items",
    "selection_of_pattern",
]

_LIST_ENDINGS = (".txt", *TABLE_ENDINGS)


def open_items(
    given: str | Path,
    modality: str,
    *,
    column: str | None = None,
    id_column: str | None = None,
    whole_rows: bool = False,
) -> ItemList:
    """Open a list of items to embed.

    What can be given:

    - a folder: the files in it and below with an ending of the modality;
    - a list: `.txt` with an item a line, `.csv`, `.tsv`, `.jsonl` or `.parquet` with an item a row. Texts stand in the list
      itself; other modalities are paths from the folder of the list (in Parquet also bytes);
    - a tar file: the members with an ending of the modality;
    - one file of the modality;
    - a pattern with `*`, `?`, `[` or `**`: lists or tar files where it ends like one, such as `shards/*.tar`, else the files
      with an ending of the modality. `*.txt` of point clouds are clouds, not lists.

    Args:
        given: a path or a pattern.
        modality: `image`, `text`, `audio` or `point_cloud`.
        column: of a table: which column holds the texts or paths; by default "text" or "caption" for texts, else "path" or the
            name of the modality.
        id_column: of a table: which column holds the ids; by default the rows are numbered.
        whole_rows: of a table: read all columns, for `Entry.cells`.

    Returns:
        A list that can be walked any number of times. Its first entry has been read, so that wrong calls fail here.

    Raises:
        ConfigError: nothing there, nothing that fits, another kind of file, or a column that does not exist.
        ReadError: the system refuses to read it, or it is damaged.
        MissingDependencyError: a Parquet file without the extra `parquet`.
    """
    if modality not in ENDINGS_OF:
        raise unknown_name("modality", modality, ENDINGS_OF)
    if not isinstance(given, str | os.PathLike) or not str(given):
        raise ConfigError(
            f"inputs: expected a path or a pattern, got {given!r:.40}. Items in RAM are embedded by a space's encode; their "
            "rows are kept by cmcr.write_memory."
        )
    items = _opened(Path(given), modality, column, id_column)
    if isinstance(items, TableItems):
        items.whole_rows = whole_rows
    with closing(items.walk()) as walk:
        next(walk)
    return items


def _opened(path: Path, modality: str, column: str | None, id_column: str | None) -> ItemList:
    with reading(path):  # a name that is too long, or a folder above it that may not be searched
        is_folder, is_file, exists = path.is_dir(), path.is_file(), path.exists()
    if is_folder:
        selection, what = Selection(path), "folder"
    elif is_file:
        selection, what = Selection(path, ()), "file"
    elif exists:
        raise ConfigError(f"{path}: neither a file nor a folder. Write what it gives to a file first.")
    elif pattern := selection_of_pattern(path):
        selection, what = pattern, "pattern"
        if not selection.root.is_dir():
            raise _missing(selection.root)
    else:
        raise _missing(path)

    name, ending = path.name or str(path), ending_of(path.name)
    are_clouds = modality == "point_cloud" and what == "pattern" and ending == ".txt"
    if not is_folder and ending in _LIST_ENDINGS and not are_clouds:
        return TableItems(selection, modality, f"{what} {name} ({modality} items)", column, id_column)
    if (column, id_column) != (None, None):
        raise ConfigError(f"{path}: a column was given, but only tables ({', '.join(TABLE_ENDINGS)}) have columns.")
    if not is_folder and name.lower().endswith(TAR_ENDINGS):
        return TarItems(selection, modality, f"{what} {name} ({modality} files in tar files)")
    return FileItems(selection, modality, f"{what} {name} ({modality} files)")


def _missing(path: Path) -> ConfigError:
    """Build the error for a path that does not exist: the last folder on it that does, and a similar name there."""
    there = next(parent for parent in path.parents if parent.is_dir())
    wanted = path.relative_to(there).parts[0]
    with reading(there):
        near = difflib.get_close_matches(wanted, [entry.name for entry in there.iterdir()], n=1)
    hint = f"Did you mean {there / near[0]}?" if near else "Check the path."
    return ConfigError(f"{path}: no such file or folder; {there.resolve()} holds no {wanted!r}. {hint}")
