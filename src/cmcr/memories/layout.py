"""What lies in the folder of a memory: the names of its files, and the records in them.

MEMORY/
  config.json                        the manifest, written last: a folder without one is not finished
  shard-00000.safetensors            one tensor "embeddings" (rows, D)
  shard-00000.items.jsonl            one line a row: its item's id, and its source if that is another
  shard-00000.quarantine.jsonl       only where items of the shard have no row: id, source, position, reason
  .lock                              empty; the process that writes holds it
  .run/                              only while a run is unfinished: its plan, and a receipt for every finished shard
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError

from cmcr import files
from cmcr._version import __version__
from cmcr.errors import FormatError, IntegrityError, validation_problems
from cmcr.files import MEMORY_BYTES, Count, Sha256, StrictRecord, parsed_manifest, read_signed, validated

FORMAT, VERSION = "cmcr memory", 1
RUN, LOCK, PLAN = ".run", ".lock", "plan.json"
EMBEDDINGS, ITEMS, QUARANTINE, RECEIPT = ".safetensors", ".items.jsonl", ".quarantine.jsonl", ".json"
"""What the names of a shard's files end with; the receipt lies in the folder of the run."""

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SHARD_ITEMS = 16_384
"""Items a shard by default: at most these are embedded again after a crash."""

MOST_SHARDS = 65_536
"""So many are named by a manifest that is read."""

_SUMS = ("width", "rows", "quarantined")  # of the shards, which the manifest states too


class Origin(StrictRecord):
    """What made the rows; the same for all rows of a memory.

    Attributes:
        space: its name.
        modality: what was embedded.
        fingerprint: of weights and preprocessing, None where rows came from elsewhere and it is not known.
        model: name of a repository or folder, None where the space has only one.
        revision: commit of the model, None where there is none.
        dtype: in which rows are kept.
    """

    space: str
    modality: str
    fingerprint: str | None
    model: str | None
    revision: str | None
    dtype: Literal["float16", "bfloat16", "float32"]


class Run(StrictRecord):
    """One list of items, and how its rows were made. A memory that was appended to has several.

    Attributes:
        items: how many, those in quarantine included.
        digest: hash of their ids and contents, see `cmcr.memories.survey`.
        shard_items: items a shard.
        versions: of the libraries that decide about the numbers.
        settings: of what made the rows, where it has any.
        root: the folder that ids which are paths begin from, relative to that of the memory and with `/`; None where it is not
            known. It decides about nothing: a run is resumed wherever its input lies now.
    """

    items: Count
    digest: Sha256
    shard_items: Count
    versions: Mapping[str, str]
    settings: Mapping[str, Any] = {}
    root: str | None = None


class Shard(StrictRecord):
    """A part of a memory.

    Attributes:
        name: what its files begin with.
        rows: how many.
        width: width D, 0 where there are no rows.
        run: which of the memory's runs it belongs to, from 0.
        first_item: position of its first item in the run.
        items: how many, those in quarantine included.
        sha256: by file name.
        bytes: by file name.
    """

    name: Annotated[str, Field(pattern=r"^shard-\d{5,20}$")]
    rows: Count
    width: Count
    run: Count
    first_item: Count
    items: Count
    sha256: Mapping[str, Sha256]
    bytes: Mapping[str, Count]

    @model_validator(mode="after")
    def _has_its_files(self) -> Shard:
        expected = {self.name + ending for ending in (EMBEDDINGS, ITEMS, *([QUARANTINE] if self.quarantined else []))}
        if set(self.bytes) != expected or set(self.sha256) != expected:
            found = ", ".join(sorted({*self.bytes, *self.sha256}))
            raise ValueError(f"{self.name}: expected the files {', '.join(sorted(expected))}, got {found:.200}")
        if self.rows > self.items:
            raise ValueError(f"{self.name}: expected at most {self.items} rows, one an item, got {self.rows}")
        return self

    @property
    def quarantined(self) -> int:
        """How many items of the shard have no row."""
        return self.items - self.rows


class Quarantined(StrictRecord):
    """An item that has no row: its position in the list of its run, from 0, and the reason."""

    id: str
    source: str
    position: Count
    reason: str


class Plan(StrictRecord):
    """What an unfinished run writes; it is resumed only under the same plan.

    Attributes:
        origin: what makes the rows.
        run: the list of items.
        number: which of the memory's runs it is, from 0.
        first_shard: number of the run's first shard.
        digests: hash of each shard's items.
    """

    origin: Origin
    run: Run
    number: Count
    first_shard: Count
    digests: tuple[Sha256, ...]


class Contents(StrictRecord):
    """What the manifest holds: runs as they were appended, shards in the order of the rows.

    `references` are rows of a few inputs made by code, by the encoder of the first run; empty where there was none.
    """

    origin: Origin
    runs: tuple[Run, ...] = ()
    shards: tuple[Shard, ...] = ()
    references: tuple[tuple[float, ...], ...] = ()
    written_by: str = f"cmcr {__version__}"

    @model_validator(mode="after")
    def _fits_together(self) -> Contents:
        row = self.width * DTYPES[self.origin.dtype].itemsize
        for shard in self.shards:
            if shard.rows and (shard.width != self.width or shard.bytes[shard.name + EMBEDDINGS] < shard.rows * row):
                raise ValueError(f"{shard.name}: its rows are not {self.width} wide, or its file is too short for them")
            if shard.run >= len(self.runs):
                raise ValueError(f"{shard.name}: expected one of {len(self.runs)} runs, got run {shard.run}")
        return self

    @property
    def rows(self) -> int:
        """How many, in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def quarantined(self) -> int:
        """How many items have no row."""
        return sum(shard.quarantined for shard in self.shards)

    @property
    def width(self) -> int:
        """Width D; 0 where no shard has a row."""
        return next((shard.width for shard in self.shards if shard.rows), 0)


def shard_name(number: int) -> str:
    """Name a shard by its number in the memory."""
    return f"shard-{number:05d}"


def item_lines(items: Iterable[tuple[str, str]]) -> bytes:
    """Write ids and sources, one JSON object a line; a source that is the id is left out."""
    return _lines({"id": id_, "source": source} if id_ != source else {"id": id_} for id_, source in items)


def quarantine_lines(quarantined: Iterable[Quarantined]) -> bytes:
    """Write items without a row, one JSON object a line."""
    return _lines(item.model_dump() for item in quarantined)


def _lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return lines.encode(errors="backslashreplace")  # a file name that is not valid text: JSON has the same escapes


def parsed_lines(content: bytes) -> list[dict[str, Any]]:
    """Read what `item_lines` or `quarantine_lines` has written; raises ValueError where a line is not JSON."""
    return [json.loads(line) for line in content.split(b"\n") if line]  # not pydantic's, which refuses half characters


def items_in(folder: Path, shard: Shard) -> list[tuple[str, str]]:
    """Read the id and the source of each row of a shard.

    Raises:
        IntegrityError: there are not as many as rows, or they are damaged.
        ReadError: the system refuses to read them.
    """
    path = folder / (shard.name + ITEMS)
    with reading(path):
        items = [(line["id"], line.get("source", line["id"])) for line in parsed_lines(path.read_bytes())]
        if not all(isinstance(part, str) for item in items for part in item):
            raise TypeError("an id or a source is not a text")
    if len(items) != shard.rows:
        raise IntegrityError(f"{path}: expected {shard.rows} lines, got {len(items)}. Restore it from a copy.")
    return items


def quarantine_in(folder: Path, shard: Shard) -> list[Quarantined]:
    """Read which items of a shard have no row, and why; raises as `items_in`."""
    if not shard.quarantined:
        return []
    path = folder / (shard.name + QUARANTINE)
    with reading(path):
        return [Quarantined(**line) for line in parsed_lines(path.read_bytes())]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file of a memory is read into an error of cmcr.

    Raises:
        IntegrityError: the file is missing or damaged.
        ReadError: the system refuses to read it.
    """
    with files.reading(path):
        try:
            yield
        except FileNotFoundError as error:
            raise IntegrityError(f"{path} is missing. Restore the memory from a copy.") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            fault = validation_problems(error) if isinstance(error, ValidationError) else error
            said = f"damaged or cut short ({fault}). Restore the memory from a copy."
            raise IntegrityError(f"{path}: {said}") from error


def manifest_of(contents: Contents) -> dict[str, Any]:
    """Put contents into the manifest's JSON."""
    return {
        **{"format": FORMAT, "version": VERSION, "written_by": contents.written_by},
        **contents.origin.model_dump(),
        **{name: getattr(contents, name) for name in _SUMS},
        "runs": [run.model_dump(exclude_defaults=True) for run in contents.runs],
        "shards": [shard.model_dump() for shard in contents.shards],
        **({"references": contents.references} if contents.references else {}),
    }


def contents_in(folder: Path) -> Contents:
    """Read the manifest of a memory.

    Raises:
        As `cmcr.files.parsed_manifest` and `cmcr.files.validated`.
    """
    found = parsed_manifest(folder, FORMAT, VERSION, MEMORY_BYTES)
    origin = {name: found.pop(name) for name in Origin.model_fields if name in found}
    sums = [found.pop(name, None) for name in _SUMS]
    contents = validated(Contents, {**found, "origin": origin}, folder)
    if not contents.rows or sums != [getattr(contents, name) for name in _SUMS]:
        raise FormatError(f"{folder}: not a usable {FORMAT} (its shards do not add up to its {', '.join(_SUMS)}).")
    return contents


def read_plan(folder: Path) -> Plan | None:
    """Read the plan of the unfinished run in the folder of a memory; None where there is none.

    Raises:
        FormatError: it is damaged.
        OSError: the system refuses to read it.
    """
    path = folder / RUN / PLAN
    if not path.is_file():
        return None
    try:
        return read_signed(path, Plan, MEMORY_BYTES)
    except (FormatError, IntegrityError) as error:
        raise FormatError(f"{path}: damaged. Remove {path.parent} and run it again ({error}).") from error
