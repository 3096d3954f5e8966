"""From what the user gave to a list of items."""

from __future__ import annotations

import difflib
import itertools
import os
from contextlib import closing
from pathlib import Path

from cmcr.data.items.endings import ENDINGS_OF, LINES, SINGLE, TABLE, TABLE_ENDINGS, TAR, fits, kind_of
from cmcr.data.items.file_items import FileItems
from cmcr.data.items.item import ItemList
from cmcr.data.items.listed import ListedItems
from cmcr.data.items.reading import reading
from cmcr.data.items.selection import Selection, everything_below, selection_of_pattern
from cmcr.data.items.shards import ShardItems
from cmcr.errors import CmcrError, ConfigError, unknown_name

_NAMES_COMPARED = 10_000


def open_items(
    given: str | Path, modality: str, *, column: str | None = None, id_column: str | None = None
) -> ItemList:
    """Open a list of items to embed.

    What can be given:

    - a folder: the files in it and below with an ending of the modality; or, where tar files are all it holds, those;
    - a pattern with `*`, `?`, `[` or `**`: the files that match, whatever their ending; or, where all of them are tar files,
      or all are lists (below), what they hold. `.txt` files of point clouds are clouds, not lists;
    - a list: `.txt` with an item a line, `.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet` with an item a row. Texts stand in
      the list itself; other modalities are paths from the folder of the list (in Parquet also bytes);
    - a tar file: the members with an ending of the modality;
    - one file of the modality.

    Args:
        given: a path or a pattern.
        modality: `image`, `text`, `audio` or `point_cloud`.
        column: of a table: which column holds the texts or paths; by default "text" for texts, else "path" or the name of
            the modality.
        id_column: of a table: which column holds the ids; by default the rows are numbered.

    Returns:
        A list that can be walked any number of times. Its first entry was looked at, so that wrong calls fail here.

    Raises:
        ConfigError: nothing there, nothing that fits, another kind of file, or a column that does not exist.
        ReadError: the system refuses to read it, or it is damaged.
        MissingDependencyError: a Parquet file without the extra `parquet`.
    """
    if modality not in ENDINGS_OF:
        raise unknown_name("modality", modality, ENDINGS_OF)
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(
            f"inputs: expected a path or a pattern, got {type(given).__name__}. What lies in RAM is embedded by a space's "
            "encode, and kept by cmcr.write_memory."
        )
    if not os.fspath(given):
        raise ConfigError("the input is an empty path. Give a folder, a pattern, a list, a tar file or a single file.")
    items = _opened(Path(given), modality, column, id_column)
    with closing(items.walk()) as walk:
        next(walk)
    items.ignored = {}
    return items


def _opened(path: Path, modality: str, column: str | None, id_column: str | None) -> ItemList:
    with reading(path):
        try:
            is_folder, is_file, exists = path.is_dir(), path.is_file(), path.exists()
        except PermissionError:  # of a folder above it
            raise
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not a path ({error}).") from error
    pattern = None if exists else selection_of_pattern(path)
    name = path.name or str(path)
    if is_folder:
        tar_only = _holds_tar_files_only(path)
        selection, what = everything_below(path), "folder"
        kind = TAR if tar_only else SINGLE
    elif pattern is not None:
        selection, what = pattern, "pattern"
        kind = _kind_of_all(pattern, path, modality)
    elif is_file:
        selection, what = Selection(path, None), "file"
        kind = _kind_of_file(path, modality)
    elif exists:
        raise ConfigError(f"{path}: neither a file nor a folder. Write what it gives to a file first.")
    else:
        raise _missing(path)
    if kind in (LINES, TABLE):
        return ListedItems(selection, modality, f"{what} {name} ({modality} items)", column, id_column)
    if column is not None or id_column is not None:
        option = "column" if column is not None else "id_column"
        raise ConfigError(f"{path}: {option} was given, but only tables ({', '.join(TABLE_ENDINGS)}) have columns.")
    if kind == TAR:
        return ShardItems(selection, modality, f"{what} {name} ({modality} files in tar files)")
    return FileItems(selection, modality, f"{what} {name} ({modality} files)", whatever_ending=what == "pattern")


def _holds_tar_files_only(folder: Path) -> bool:
    with reading(folder), os.scandir(folder) as entries:
        seen = (entry for entry in entries if not entry.name.startswith("."))
        first = next(seen, None)
        if first is None:
            return False
        return all(kind_of(entry.name) == TAR and entry.is_file() for entry in itertools.chain([first], seen))


def _kind_of_file(path: Path, modality: str) -> str:
    kind = kind_of(path.name)
    if kind == SINGLE and not fits(path.name, modality):
        raise ConfigError(
            f"{path}: expected a list ({', '.join(('.txt', *TABLE_ENDINGS))}), a tar file, or {modality} files "
            f"({', '.join(ENDINGS_OF[modality])}), got {path.suffix or 'no ending'}."
        )
    return kind


def _kind_of_all(selection: Selection, pattern: Path, modality: str) -> str:
    """What the files of a pattern are, all together; walked, not kept: there may be millions."""
    if not selection.root.is_dir():
        raise _missing(selection.root)
    kinds = {kind_of(relative) for relative, _ in selection}
    if not kinds:
        raise ConfigError(
            f"{pattern}: the pattern matches no files in {_named(selection.root)}. Capitals count; '**' goes into folders, as "
            f"in '{selection.root.name or '.'}/**/*.jpg'."
        )
    if kinds == {TAR}:
        return TAR
    listed = kinds <= ({TABLE} if modality == "point_cloud" else {TABLE, LINES})
    return TABLE if listed else SINGLE


def _missing(path: Path) -> CmcrError:
    """Say how far the path leads, and which name there is like the one that is not."""
    there = next((parent for parent in path.parents if parent.is_dir()), Path())
    try:
        wanted = path.relative_to(there).parts[0]
        with os.scandir(there) as entries:
            names = [entry.name for entry in itertools.islice(entries, _NAMES_COMPARED)]
    except (OSError, ValueError, IndexError):
        return ConfigError(f"{path}: no such file or folder.")
    near = difflib.get_close_matches(wanted, sorted(names), n=1, cutoff=0.6)
    hint = f" Did you mean {there / near[0]}?" if near else " Check the path."
    return ConfigError(f"{path}: no such file or folder; {_named(there)} holds no {wanted!r}.{hint}")


def _named(folder: Path) -> str:
    return "this folder" if folder == Path() else str(folder)
