"""What lies in the folder of an index, and how it is opened.

INDEX/
  config.json                        the manifest, written last: it names all that follows
  connection-<hash>/                 a copy of the connection
  memories/<space>-<modality>-<hash>/    memories of raw items, embedded here; those that were given stay where they are
  common/<space>-<modality>-<hash>/  their rows in the common block of the connection, as memories
  items-<hash>.sqlite                the item table
  arrays-<hash>.safetensors          which items are live, the order of their ids, hub coordinates
  backends/<name>-<hash>/            what a back-end other than exact search keeps
  .index.lock                        empty; the process that writes holds it

Names change with what they name, so that whoever has opened the index is not disturbed when it is updated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as deserialize

from cmcr._version import __version__
from cmcr.connection import artefact
from cmcr.connection.connection import Connection
from cmcr.errors import ArtefactError, IntegrityError
from cmcr.files import Count, Inside, Sha256, StrictRecord, parsed_manifest, reading, sha256_of, validated
from cmcr.loading import load
from cmcr.memories import verification
from cmcr.memories.layout import Contents
from cmcr.memories.memory import Memory
from cmcr.search.approximate import Card
from cmcr.search.backends import open_backend
from cmcr.search.hubs import draw_references
from cmcr.search.index import Index
from cmcr.search.items import ItemTable
from cmcr.search.map import Map, draw_map
from cmcr.spaces.protocol import Space

FORMAT, VERSION = "cmcr index", 1
LOCK = ".index.lock"
BLOCKS = ("own", "common")


class Rows(StrictRecord):
    """Rows of a corpus, in one memory on disk.

    Attributes:
        path: of the memory: absolute, or relative to the index with `/` where it lies in it.
        shards, rows: how many; those that are appended later are no part of the index until it is updated.
        hash: of those shards, see `rows_hash`.
        input: what it was embedded from, where that was done for this index.
    """

    path: Annotated[str, Field(max_length=4096)]
    shards: Annotated[Count, Field(ge=1)]
    rows: Count
    hash: Sha256
    input: str | None = None


class CorpusRecord(StrictRecord):
    """What is searched together: the items of one modality in one space.

    Attributes:
        space, modality: of its items.
        own, common: its rows in the space itself and in the common block, folder by folder, in the same order.
        live: how many items are.
        hubs: by block, the modalities of queries for which rows have a hub coordinate, in their order.
        hubs_of: hash of what the hub coordinates were computed from.
        backend: by which it is searched.
        cards, folders: by block, what the back-end says of itself and where its files are; none for exact search.
    """

    space: str
    modality: str
    own: tuple[Rows, ...]
    common: tuple[Rows, ...]
    live: Count
    hubs: Mapping[str, tuple[str, ...]]
    hubs_of: str
    backend: str
    cards: Mapping[str, Card]
    folders: Mapping[str, str]

    @model_validator(mode="after")
    def _goes_together(self) -> CorpusRecord:
        if not self.live <= self.rows == sum(part.rows for part in self.common):
            raise ValueError("expected as many rows in the common block as in the own one, and no more live items")
        if not set(self.cards) == set(self.folders) <= set(self.hubs) == set(BLOCKS):
            raise ValueError("expected hubs of both blocks, and a folder for each card")
        return self

    @property
    def rows(self) -> int:
        """How many items."""
        return sum(part.rows for part in self.own)


class Manifest(StrictRecord):
    """What the manifest says.

    Attributes:
        connection, connection_hash: folder of the copy; see `cmcr.memories.projection.connection_hash`.
        encoders: by space, the model and revision to open it with, as far as they are known.
        corpora: in the order of their items' numbers.
        items, arrays: names of files.
        sha256, bytes: of all files that are written for the index alone, by their paths relative to it.
    """

    connection: Inside
    connection_hash: str
    encoders: Mapping[str, Mapping[str, str]]
    corpora: tuple[CorpusRecord, ...]
    items: Inside
    arrays: Inside
    sha256: Mapping[Inside, Sha256]
    bytes: Mapping[Inside, Count]
    written_by: str = f"cmcr {__version__}"

    @model_validator(mode="after")
    def _hashes_what_it_names(self) -> Manifest:
        if set(self.sha256) != set(self.bytes) or not {self.items, self.arrays} <= set(self.bytes):
            raise ValueError("expected hash and size of every file that is named")
        return self

    def spans(self) -> list[range]:
        """Give the numbers of the items of each corpus."""
        ends = np.cumsum([0, *(corpus.rows for corpus in self.corpora)]).tolist()
        return [range(start, stop) for start, stop in pairwise(ends)]


@dataclass(frozen=True, eq=False)
class Corpus:
    """The items of one modality in one space, ready to be searched.

    Attributes:
        space, modality: of its items.
        first: number of its first item in the index; that at position i has number first + i.
        own, common: `(N, D)` rows in the space itself, `(N, K)` in the common block of the connection.
        own_index, common_index: the back-ends, over these rows and their hub coordinates.
        own_hubs, common_hubs: modalities of queries, in the order of the hub coordinates after the columns of a row.
        live: `(N,)` which items are there.
    """

    space: str
    modality: str
    first: int
    own: Memory
    common: Memory
    own_index: Index
    common_index: Index
    own_hubs: tuple[str, ...]
    common_hubs: tuple[str, ...]
    live: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.own)

    @cached_property
    def mean_common(self) -> NDArray[np.float32]:
        """`(K,)`, of some thousand rows in the common block."""
        return draw_references(self.common).mean(axis=0)


@dataclass(frozen=True, eq=False)
class Opened:
    """An index that is open: its manifest, connection with encoders, corpora and item table."""

    folder: Path
    manifest: Manifest
    connection: Connection
    corpora: list[Corpus]
    items: ItemTable

    @cached_property
    def map(self) -> Map:
        """Some items of each corpus in the plane."""
        return draw_map([each.common for each in self.corpora], [each.mean_common for each in self.corpora])


def open_folder(folder: str | Path, *, encoders: Sequence[Space] = ()) -> Opened:
    """Open an index, checked cheaply: manifests, hashes in them, sizes; `cmcr verify` reads every byte.

    Args:
        folder: what `cmcr.index` has written.
        encoders: spaces to attach, see `cmcr.load`.

    Raises:
        ArtefactNotFoundError: there is nothing.
        FormatError: not an index, of another version, or never finished.
        IntegrityError: a file is missing or has changed, or a memory has other rows than those that were indexed.
        ConfigError: encoders that are not those of the connection.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, size in manifest.bytes.items():
        check_file(folder / name, size)
    with reading(folder):
        try:
            arrays = deserialize((folder / manifest.arrays).read_bytes())
        except (SafetensorError, FileNotFoundError) as error:
            raise _changed(folder / manifest.arrays, str(error)) from error
    for number, corpus in enumerate(manifest.corpora):
        own = {name: array for name, array in arrays.items() if name.startswith(f"{number}.")}
        if f"{number}.live" not in own or any(array.shape[:1] != (corpus.rows,) for array in own.values()):
            raise _changed(folder / manifest.arrays, f"not an entry for each item of corpus {number}")
    connection = load(folder / manifest.connection, encoders=encoders)
    spans, numbers = manifest.spans(), range(len(manifest.corpora))
    corpora = [_corpus(folder, manifest.corpora[n], spans[n].start, n, arrays) for n in numbers]
    return Opened(folder, manifest, connection, corpora, ItemTable(folder / manifest.items, spans))


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index; raises as `open_folder`."""
    return validated(Manifest, parsed_manifest(folder, FORMAT, VERSION), folder)


def verify(folder: Path, show_progress_bar: bool | None = False) -> dict[str, int]:
    """Hash every file of an index, its memories and its connection among them.

    Returns:
        what was found whole: how many "rows", in how many "files" of how many "bytes".

    Raises:
        As `open_folder` and `cmcr.memories.verification.verify`.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest.sha256.items():
        check_file(folder / name, manifest.bytes[name])
        with reading(folder / name):
            if sha256_of(folder / name) != expected:
                raise _changed(folder / name, "its bytes have changed")
    artefact.load(folder / manifest.connection)
    found = {"rows": 0, "files": len(manifest.sha256), "bytes": sum(manifest.bytes.values())}
    for corpus in manifest.corpora:
        for parts in (corpus.own, corpus.common):
            open_rows(folder, parts)
            for part in parts:
                whole = verification.verify(folder / part.path, show_progress_bar)
                found = {name: count + whole[name] for name, count in found.items()}
    return {**found, "rows": sum(corpus.rows for corpus in manifest.corpora)}


def open_rows(folder: Path, parts: Sequence[Rows]) -> Memory:
    """Open rows of a corpus as one memory; raises IntegrityError if they are not as they were indexed."""
    paths = [folder / part.path for part in parts]
    try:
        memory = Memory(*paths, shards=[part.shards for part in parts])
    except ArtefactError as error:
        raise _changed(paths[0], str(error)) from error
    for path, part, contents in zip(paths, parts, memory.contents, strict=True):
        if rows_hash(contents) != part.hash:
            raise _changed(path, "its rows are not those that were indexed")
    return memory


def rows_hash(contents: Contents, shards: int | None = None) -> str:
    """Hash which rows of which items the first shards of a memory hold, all if None, and in which order."""
    hashes = (f"{name} {shard.sha256[name]}" for shard in contents.shards[:shards] for name in sorted(shard.sha256))
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def backend_place(folder: Path, name: str) -> Path | str:
    """Find the files of a back-end: a folder of the index, or the URI of an object store."""
    return name if "://" in name else folder / name


def check_file(path: Path, size: int) -> None:
    """Make sure that a file is there, as long as it was written; raises IntegrityError."""
    with reading(path):
        found = path.stat().st_size if path.is_file() else None
    if found != size:
        raise _changed(path, "missing" if found is None else f"{found} bytes, expected {size}")


def _corpus(folder: Path, record: CorpusRecord, first: int, number: int, arrays: Mapping[str, Any]) -> Corpus:
    own, common = open_rows(folder, record.own), open_rows(folder, record.common)
    order, live = arrays.get(f"{number}.order"), arrays[f"{number}.live"]
    own_index, common_index = (
        open_backend(
            record.cards.get(block),
            backend_place(folder, record.folders.get(block, ".")),
            rows,
            arrays.get(f"{number}.{block}_hubs"),
            order,
            live,
        )
        for block, rows in zip(BLOCKS, (own, common), strict=True)
    )
    return Corpus(
        space=record.space,
        modality=record.modality,
        first=first,
        own=own,
        common=common,
        own_index=own_index,
        common_index=common_index,
        own_hubs=record.hubs["own"],
        common_hubs=record.hubs["common"],
        live=live,
    )


def _changed(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(f"{path}: not as it was indexed ({reason}). Run cmcr index again.")
