"""What lies in the folder of a memory: the names of its files, and the records in its manifest.

MEMORY/
  config.json                        the manifest, written last: a folder without one is not finished
  shard-00000.safetensors            one tensor "embeddings" (rows, D)
  shard-00000.items.jsonl            one line a row: its item's id, and its source if that is another
  shard-00000.quarantine.jsonl       only where items of the shard have no row: id, source, position, reason
  .lock                              empty; whoever writes holds it
  .run/                              only while a run is under way: its plan, and a receipt for every finished shard
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import torch

from cmcr.errors import FormatError
from cmcr.memories.item_pairs import ItemPairs
from cmcr.memories.numbered_ids import NumberedIds

FORMAT = "cmcr memory"
VERSION = 1
RUN = ".run"
LOCK = ".lock"
PLAN = "plan.json"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SHARD_ITEMS = 16_384
"""Items a shard by default: at most these are embedded again after a crash."""

_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
"""What JSON strings escape, and what is no valid text."""

Record = TypeVar("Record", bound="Origin | Run | Shard | Quarantined")


@dataclass(frozen=True)
class Origin:
    """What made the rows; the same for all rows of a memory.

    Attributes:
        space: its name.
        modality: what was embedded.
        fingerprint: of weights and preprocessing, None where rows came from elsewhere and nobody said.
        model: a repository's or a folder's name, None where the space has only one.
        revision: commit of the model, None where there is none.
        dtype: "float16", "bfloat16" or "float32", in which rows are kept.
    """

    space: str
    modality: str
    fingerprint: str | None
    model: str | None
    revision: str | None
    dtype: str


@dataclass(frozen=True)
class Run:
    """One list of items, and how it was embedded. A memory that was appended to has several.

    Attributes:
        items: how many, those in quarantine included.
        digest: of their ids and contents, see `cmcr.data.items`.
        shard_items: items a shard.
        versions: of what decides about numbers, by library.
    """

    items: int
    digest: str
    shard_items: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Shard:
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

    name: str
    rows: int
    width: int
    run: int
    first_item: int
    items: int
    sha256: Mapping[str, str]
    bytes: Mapping[str, int]

    @property
    def quarantined(self) -> int:
        """How many items of the shard have no row."""
        return self.items - self.rows


@dataclass(frozen=True)
class Quarantined:
    """An item that has no row.

    Attributes:
        id: of the item.
        source: where it came from.
        position: in the list of items of its run, from 0.
        reason: why.
    """

    id: str
    source: str
    position: int
    reason: str


@dataclass(frozen=True)
class Contents:
    """What the manifest says.

    Attributes:
        origin: what made the rows.
        runs: in the order in which they were appended.
        shards: in the order of the rows.
        written_by: version of cmcr.
    """

    origin: Origin
    runs: tuple[Run, ...] = ()
    shards: tuple[Shard, ...] = field(default=())
    written_by: str = ""

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


def shard_name(number: int, generation: int = 0) -> str:
    """Name a shard; one that was written anew, to complete it, has a generation above 0."""
    return f"shard-{number:05d}" + (f".{generation}" if generation else "")


def next_generation(name: str) -> str:
    """Name the shard that takes another one's place."""
    number, _, generation = name.removeprefix("shard-").partition(".")
    return shard_name(int(number), int(generation or 0) + 1)


def embeddings_file(shard: str) -> str:
    """Name the file of a shard's rows."""
    return f"{shard}.safetensors"


def items_file(shard: str) -> str:
    """Name the file of a shard's ids and sources."""
    return f"{shard}.items.jsonl"


def quarantine_file(shard: str) -> str:
    """Name the file of the items of a shard that have no row."""
    return f"{shard}.quarantine.jsonl"


def receipt_file(shard: str) -> str:
    """Name the file, in the folder of the run, that says that a shard is finished."""
    return f"{shard}.json"


def item_lines(items: Iterable[tuple[str, str]]) -> bytes:
    """Write ids and sources, one JSON object a line; a source that is the id is left out."""
    pairs = items if isinstance(items, Sequence) else list(items)
    if isinstance(pairs, ItemPairs) and pairs.same:
        ids: Sequence[str] | None = pairs.ids
    else:
        ids = None if [id_ for id_, source in pairs if id_ != source] else [id_ for id_, _ in pairs]
    if isinstance(ids, NumberedIds) and not _ESCAPED.search(ids.prefix):
        return ids.joined(b'{"id": "', b'"}\n')
    if ids and not _ESCAPED.search("".join(ids)):
        return ('{"id": "' + '"}\n{"id": "'.join(ids) + '"}\n').encode()  # a million at once in a tenth of the time
    try:
        return _lines_of(pairs, json.encoder.encode_basestring).encode()
    except UnicodeEncodeError:  # a file name that is no valid text
        return _lines_of(pairs, json.encoder.encode_basestring_ascii).encode()


def _lines_of(pairs: Iterable[tuple[str, str]], text: Callable[[str], str]) -> str:
    """Write pairs with one of the encoders, in C, that json.dumps calls for a string."""
    return "".join(
        [
            f'{{"id": {text(id_)}, "source": {text(source)}}}\n' if id_ != source else f'{{"id": {text(id_)}}}\n'
            for id_, source in pairs
        ]
    )


def items_of_lines(content: bytes) -> list[tuple[str, str]]:
    """Read what `item_lines` has written.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged.
    """
    return [(line["id"], line.get("source", line["id"])) for line in parsed_lines(content)]


def quarantine_lines(quarantined: Iterable[Quarantined]) -> bytes:
    """Write items without a row, one JSON object a line."""
    return "".join(json.dumps(asdict(item)) + "\n" for item in quarantined).encode()


def parsed_lines(content: bytes) -> list[dict[str, Any]]:
    """Read what `item_lines` or `quarantine_lines` has written.

    Raises:
        ValueError: a line is no text or no JSON.
    """
    return [json.loads(line) for line in content.split(b"\n") if line]


def manifest_of(contents: Contents) -> dict[str, Any]:
    """Put contents into the manifest's JSON."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "written_by": contents.written_by,
        **asdict(contents.origin),
        "width": contents.width,
        "rows": contents.rows,
        "quarantined": contents.quarantined,
        "runs": [asdict(run) for run in contents.runs],
        "shards": [asdict(shard) for shard in contents.shards],
    }


def contents_of(manifest: Mapping[str, Any], where: str) -> Contents:
    """Read contents out of the manifest's JSON.

    Raises:
        FormatError: keys that are missing or of another kind.
    """
    try:
        contents = Contents(
            record(Origin, manifest),
            tuple(record(Run, run) for run in manifest["runs"]),
            tuple(record(Shard, shard) for shard in manifest["shards"]),
            str(manifest["written_by"]),
        )
        widths = {shard.width for shard in contents.shards if shard.rows}
        if contents.rows != manifest["rows"] or widths != {manifest["width"]}:
            raise ValueError("its shards do not add up to its rows")
        if contents.origin.dtype not in DTYPES:
            raise ValueError(f"dtype {contents.origin.dtype!r}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FormatError(f"{where}: not a usable {FORMAT} ({error}).") from error
    return contents


def record(kind: type[Record], given: Mapping[str, Any]) -> Record:
    """Build a record from JSON.

    Raises:
        KeyError: one of its keys is missing.
    """
    return kind(**{f.name: given[f.name] for f in fields(kind)})
