"""Make an index, or bring it up to date: `cmcr.index`, and `cmcr index` on the command line."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as serialize

from cmcr.connection.connection import Connection
from cmcr.data.items import ItemList
from cmcr.engine.device import choose_device
from cmcr.errors import ArtefactError, ConfigError, FormatError, IntegrityError, ResumeError, unknown_name
from cmcr.files import check_target, locked, sha256_of, write_bytes_whole, write_manifest, writing
from cmcr.loading import load
from cmcr.memories.memory import Memory
from cmcr.memories.projection import connection_hash, write_projected
from cmcr.progress import Progress
from cmcr.search.approximate import Card, content_hash
from cmcr.search.backends import KINDS, build_backend, check_installed, choose_backend
from cmcr.search.engine import SearchIndex
from cmcr.search.exact import ExactIndex
from cmcr.search.items import writing_items
from cmcr.search.layout import (
    BLOCKS,
    FORMAT,
    LOCK,
    VERSION,
    CorpusRecord,
    Manifest,
    Rows,
    backend_place,
    check_file,
    read_manifest,
    rows_hash,
)
from cmcr.search.listing import rows_of_items
from cmcr.search.references import References, hubs_of
from cmcr.search.sources import Run, Source, check_belongs, folders_of, listed, lists_of, sources_of
from cmcr.spaces.protocol import Space

_LEFT = "an older index there is as it was; run it again once that is fixed"
_KEPT = ("connection-*", "memories/*", "common/*", "backends/*", "items-*", "arrays-*", ".*.part")

Listed = tuple[str, Mapping[str, ItemList]]
"""What was given to find items in, and the lists in it by modality."""


def index(
    connection: str | Path | Connection,
    inputs: Sequence[str | Path | Memory],
    out: str | Path,
    *,
    items: Sequence[str | Path] = (),
    via: str | None = None,
    modality: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
    references: Sequence[str | Path | Memory] = (),
    backend: str | None = None,
    encoders: Sequence[Space] = (),
    batch_size: int = 32,
    retry_quarantined: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> SearchIndex:
    """Make an index of memories and raw items that a connection can compare, or bring it up to date.

    Called again with the same arguments it adds what is new and marks what is gone; nothing is embedded or projected twice.
    Inputs that are left out leave the index. Stopped or killed at any moment it resumes, and until it has finished an older
    index in the folder stays as it was. See docs/search.md.

    Args:
        connection: or the folder of one.
        inputs: memories of its spaces, which stay where they are; and raw items, as `cmcr.embed` takes them, which are
            embedded into the folder of the index.
        out: folder of the index.
        items: the lists from which the memories were embedded, to find files, texts and columns of their items by id.
        via: the space that embeds raw items of a modality that several have; None takes the first of the connection.
        modality: what raw items are; None takes every modality of which there are some.
        column: of tables, which column holds the texts or paths.
        id_column: of tables, which column holds the ids.
        references: memories from which reference queries for hub correction are drawn; None draws them from those of the
            index. Never those by which it is evaluated.
        backend: "exact", "faiss" or "lancedb"; None chooses by the number of rows. "lancedb:s3://bucket/folder" keeps its
            tables in an object store (also `gs://`, `az://`), where they are written anew whenever rows change.
        encoders: spaces that embed raw items, as of `cmcr.load`.
        batch_size: items per forward pass.
        retry_quarantined: also embed raw items again that could not be read.
        device: where to embed and to project.
        progress: called with a stage of the work and the share of it that is done.

    Returns:
        the index, open.

    Raises:
        ConfigError: inputs that are no items of the connection, lists that have no item of a memory, a missing encoder.
        MissingDependencyError: the library of the back-end is not installed.
        LockedError: another run is working there.
        WriteError: something else is in the folder, no permission, disk full; an older index stays usable.
        ResumeError: raw items that were begun to be embedded, and have changed since.
        CmcrError: others, as `cmcr.load`, `cmcr.Memory` and `cmcr.embed`.
    """
    kind, _, store = (backend or "").partition(":")
    if backend is not None and (kind not in KINDS or (store and kind != "lancedb")):
        raise unknown_name("back-end", backend, KINDS)
    check_installed(kind)  # before anything is written, as the device
    choose_device(device)
    if not isinstance(connection, Connection):
        connection = load(connection, encoders=encoders)
    folder = Path(out)
    with _held(folder):
        run = Run(
            connection=connection,
            hash=connection_hash(connection),
            folder=folder,
            before=_manifest_there(folder),
            via=via,
            modality=modality,
            columns={"column": column, "id_column": id_column},
            batch_size=batch_size,
            device=device,
            retry_quarantined=retry_quarantined,
            report=progress or (lambda stage, share: None),
        )
        lists = [(str(each), lists_of(run, each)) for each in listed(items)]
        drawn_from = [Memory(path) for path in folders_of(references)]
        for memory in drawn_from:
            check_belongs(connection, memory)
        sources = sources_of(run, inputs)
        with writing(folder, _LEFT):
            manifest = _written(run, sources, lists, drawn_from, backend)
            write_manifest(folder, {"format": FORMAT, "version": VERSION, **manifest.model_dump(mode="json")})
            _tidy(folder, manifest, run.before)
    return SearchIndex(folder, encoders=[each for each in connection.encoders.values() if isinstance(each, Space)])


@dataclass(frozen=True)
class _Corpus:
    """The memories of one modality in one space, and by folder their rows in the common block."""

    sources: list[Source]
    projected: list[Memory]

    @cached_property
    def own(self) -> Memory:
        memories = [source.memory for source in self.sources]  # with no shard more, should another run append to one
        folders, shards = [m.folders[0] for m in memories], [len(m.contents[0].shards) for m in memories]
        return Memory(*folders, shards=shards)

    @cached_property
    def common(self) -> Memory:
        return Memory(*(memory.folders[0] for memory in self.projected))


def _written(
    run: Run, sources: Sequence[Source], lists: Sequence[Listed], drawn_from: Sequence[Memory], backend: str | None
) -> Manifest:
    """Write everything that the manifest names."""
    copy = _connection_copy(run)
    kinds: dict[tuple[str, str], list[Source]] = {}
    for source in sources:
        kinds.setdefault((source.memory.space, source.memory.modality), []).append(source)
    corpora = [_Corpus(alike, [_projected(run, each.memory) for each in alike]) for alike in kinds.values()]
    items, live = _item_table(run, corpora, lists)
    references = References(run, drawn_from or [corpus.own for corpus in corpora])
    arrays, records = dict[str, NDArray[Any]](), []
    for number, corpus in enumerate(corpora):
        hubs = hubs_of(run, corpus.own, corpus.common, references)
        order = _order_of(corpus.own.ids)
        found = {"live": live[number], "order": order} | {f"{block}_hubs": columns for block, columns in hubs.items()}
        arrays |= {f"{number}.{name}": array for name, array in found.items() if array is not None}
        records.append(_record(run, corpus, live[number], references, hubs, order, backend))
    content = serialize({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    kept = f"arrays-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    write_bytes_whole(run.folder / kept, content)
    files = [items, kept, *_files_in(run.folder, records)]
    own = [corpus.own for corpus in corpora]
    return Manifest(
        connection=copy,
        connection_hash=run.hash,
        encoders={name: _model_of(run.connection, name, own) for name in run.connection.projectors},
        corpora=tuple(records),
        items=items,
        arrays=kept,
        sha256={name: sha256_of(run.folder / name) for name in files},
        bytes={name: (run.folder / name).stat().st_size for name in files},
    )


def _record(
    run: Run,
    corpus: _Corpus,
    live: NDArray[np.bool_],
    references: References,
    hubs: Mapping[str, NDArray[np.float32]],
    order: NDArray[np.int64] | None,
    backend: str | None,
) -> CorpusRecord:
    """Build the back-ends of a corpus, and say what it is made of."""
    folders, cards = dict[str, str](), dict[str, Card]()
    kind, _, store = (backend or choose_backend(len(corpus.own))).partition(":")
    for block, rows in zip(BLOCKS, (corpus.own, corpus.common), strict=True):
        if kind != "exact":
            exact = ExactIndex(rows, hubs.get(block), order, live)
            folders[block], cards[block] = _backend(run, kind, store, block, exact)
    return CorpusRecord(
        space=corpus.own.space,
        modality=corpus.own.modality,
        own=tuple(_rows(run.folder, each.memory, each.input) for each in corpus.sources),
        common=tuple(_rows(run.folder, memory) for memory in corpus.projected),
        live=int(live.sum()),
        hubs={block: references.modalities(block, corpus.own.space) for block in BLOCKS},
        hubs_of=references.hash_with(corpus.own, len(corpus.own)),
        backend=kind,
        cards=cards,
        folders=folders,
    )


def _connection_copy(run: Run) -> str:
    """Keep a copy of the connection: the name of its folder."""
    name = f"connection-{run.hash[:12]}"
    try:
        load(run.folder / name)
    except ArtefactError:  # not there yet, or damaged
        shutil.rmtree(run.folder / name, ignore_errors=True)
        run.connection.save(run.folder / name)
    return name


def _projected(run: Run, memory: Memory) -> Memory:
    """Carry a memory into the common block; what was appended to it is added to what is there."""
    (contents,) = memory.contents
    whole = rows_hash(contents)
    for identity in (rows_hash(contents, 1), whole):  # the first shard stays when more is appended
        hashed = hashlib.sha256(f"{run.hash} {identity}".encode()).hexdigest()[:12]
        folder = run.folder / "common" / f"{memory.space}-{memory.modality}-{hashed}"
        report = partial(run.report, f"projecting {memory.modality} of {memory.space}")
        try:
            return write_projected(run.connection, memory, folder, device=run.device, on_progress=report)
        except ResumeError:
            if identity == whole:
                raise
    raise AssertionError


def _rows(folder: Path, memory: Memory, given: str | None = None) -> Rows:
    """Record which rows of a memory are indexed."""
    (contents,) = memory.contents
    path = Path(os.path.abspath(memory.folders[0]))  # noqa: PTH100 - keeps links
    inside = Path(os.path.abspath(folder))  # noqa: PTH100
    where = path.relative_to(inside).as_posix() if path.is_relative_to(inside) else str(path)
    return Rows(path=where, shards=len(contents.shards), rows=len(memory), hash=rows_hash(contents), input=given)


def _order_of(ids: Sequence[str]) -> NDArray[np.int64] | None:
    """Rank ids, for ties; None where they are in order already."""
    by_id = sorted(range(len(ids)), key=ids.__getitem__)
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[by_id] = np.arange(len(ids))
    return None if (ranks == np.arange(len(ids))).all() else ranks


def _item_table(run: Run, corpora: Sequence[_Corpus], lists: Sequence[Listed]) -> tuple[str, list[NDArray[np.bool_]]]:
    """Write the item table: its name, and which items of each corpus are live."""
    aside = run.folder / f".items.{os.getpid()}.part"
    aside.unlink(missing_ok=True)
    first, live, used = 0, list[NDArray[np.bool_]](), set[int]()
    with writing_items(aside) as table:
        for number, corpus in enumerate(corpora):
            run.report("writing the item table", number / len(corpora))
            modality = corpus.own.modality
            opened = {place: each[modality] for place, (_, each) in enumerate(lists) if modality in each}
            live.append(np.zeros(len(corpus.own), dtype=bool))
            table.write(rows_of_items(corpus.sources, opened, first, live[-1], used))
            first += len(live[-1])
    for place, (given, _) in enumerate(lists):
        if place not in used:
            aside.unlink()
            raise ConfigError(
                f"{given}: none of its items is in a memory that was given, by id. Name the folder, pattern or table as it was "
                "given to cmcr embed, with the same id column."
            )
    name = f"items-{sha256_of(aside)[:12]}.sqlite"
    aside.replace(run.folder / name)
    return name, live


def _backend(run: Run, kind: str, store: str, block: str, rows: ExactIndex) -> tuple[str, Card]:
    """Build a back-end, or add what is new to that of the older index: its folder, or its URI in a store, and its card."""
    content = hashlib.sha256(content_hash(rows).encode() + rows.live.tobytes()).hexdigest()[:12]
    begins, older = f"{store or 'backends'}/{kind}-{rows.memory.space}-{rows.memory.modality}-{block}-", None
    name = begins + content
    for record in run.before.corpora if run.before else ():
        known = record.folders.get(block, "")
        if run.before and known.startswith(begins):
            with suppress(IntegrityError):  # damaged: built anew
                for file, size in run.before.bytes.items():
                    if file.startswith(f"{known}/"):
                        check_file(run.folder / file, size)
                if known == name:
                    return name, record.cards[block]
                older = None if store else (run.folder / known, record.cards[block])
    run.report(f"{kind}, {rows.memory.modality} of {rows.memory.space}", 0.0)
    if not store:
        shutil.rmtree(run.folder / name, ignore_errors=True)  # of a run that was killed
    return name, build_backend(kind, backend_place(run.folder, name), rows, older)


def _files_in(folder: Path, records: Sequence[CorpusRecord]) -> Iterator[str]:
    """Name the files of back-ends."""
    for name in (name for record in records for name in record.folders.values() if "://" not in name):
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix()


def _model_of(connection: Connection, name: str, memories: Sequence[Memory]) -> dict[str, str]:
    """Find out which model a space is opened with: its encoder says it, else a memory."""
    encoder = connection.encoders.get(name)
    model, revision = getattr(encoder, "source", None), getattr(encoder, "revision", None)
    if model is None and (of := next((memory for memory in memories if memory.space == name), None)):
        model, revision = of.model, of.revision
    elif model is not None and Path(model).exists():
        model = os.path.abspath(model)  # noqa: PTH100 - keeps links
    return {key: str(value) for key, value in (("model", model), ("revision", revision)) if value is not None}


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder of an index, which is made if need be."""
    if not (folder / LOCK).exists():  # where it is, an index was begun
        check_target(folder, FORMAT, replace=True)
    made = not folder.exists()
    with ExitStack() as held:
        with writing(folder, _LEFT):
            folder.mkdir(parents=True, exist_ok=True)
            taken = f"{folder}: another run is working on this index. Wait until it ends, or choose another folder."
            held.enter_context(locked(folder / LOCK, taken))
        try:
            yield
        finally:
            with suppress(OSError):
                if made and [path.name for path in folder.iterdir()] == [LOCK]:  # a wrong call leaves nothing
                    (folder / LOCK).unlink()
                    folder.rmdir()


def _manifest_there(folder: Path) -> Manifest | None:
    """Read the manifest of an older index; None where there is none, or one that cannot be used: all can be made again."""
    try:
        return read_manifest(folder)
    except (FormatError, IntegrityError):
        return None


def _tidy(folder: Path, manifest: Manifest, before: Manifest | None) -> None:
    """Remove what neither this index nor the one before it names: that one may be open until it is updated again."""
    named: set[str] = set()
    for each in (manifest, *([before] if before else ())):
        named |= {each.connection, each.items, each.arrays}
        for record in each.corpora:
            named |= {part.path for part in (*record.own, *record.common)} | set(record.folders.values())
    for path in (path for pattern in _KEPT for path in folder.glob(pattern)):
        if path.relative_to(folder).as_posix() not in named:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
