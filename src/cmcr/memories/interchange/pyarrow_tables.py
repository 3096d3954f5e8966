"""pyarrow, imported where it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, ReadError, missing_dependency


def pyarrow() -> Any:
    """Import pyarrow with its Parquet reader.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_dependency("pyarrow", extra="parquet", purpose="Parquet files") from error
    return pyarrow


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a Parquet file.

    Raises:
        ArtefactNotFoundError, ReadError: it is not there, or the system refuses.
        FormatError: it is no whole Parquet file.
    """
    arrow = pyarrow()
    try:
        with path.open("rb") as file, arrow.parquet.ParquetFile(file) as table:
            yield table
    except FileNotFoundError as error:
        raise ArtefactNotFoundError(error.errno, "there is no such file", str(path)) from error
    except arrow.ArrowException as error:
        raise FormatError(f"{path}: not a whole Parquet file ({error}).") from error
    except OSError as error:
        raise ReadError(error.errno or 5, f"could not read ({error.strerror or error})", str(path)) from error


def strings(path: Path, table: Any, column: str, size: int = 65_536) -> Iterator[list[str]]:
    """Read a column of strings or whole numbers as strings, some rows at a time.

    Raises:
        FormatError: a row without a value, or a column of another kind.
    """
    types = pyarrow().types
    kind = table.schema_arrow.field(column).type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
        raise FormatError(f"{path}: expected strings or whole numbers in the column {column!r}, got {kind}.")
    row = 0
    for batch in table.iter_batches(batch_size=size, columns=[column]):
        values = batch.column(0).to_pylist()
        if None in values:
            raise FormatError(f"{path}: the column {column!r} has no value in row {row + values.index(None)}.")
        row += len(values)
        yield values if not types.is_integer(kind) else list(map(str, values))


def written_strings(values: Any) -> Any:
    """Make a column of strings.

    Raises:
        ConfigError: a string that is not valid Unicode.
    """
    try:
        return pyarrow().array(values, pyarrow().string())
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{error.object!r} is not valid Unicode, which Parquet asks for. Export as npy instead."
        ) from error
