"""Which runs an evaluation is made of, and the data of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmcr.arrays import all_rows
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.stored import StoredSpace, overlap_rows, spaces_of
from cmcr.errors import ArtefactError, ConfigError, SampleError, words_of
from cmcr.evaluation.datasets import LAYOUTS
from cmcr.evaluation.datasets.records import ClassificationRecord
from cmcr.evaluation.evaluate import DATASETS, READERS, Evaluation, evaluate, evaluate_miniature
from cmcr.evaluation.miniature import MINI_RECORDS, Record
from cmcr.evaluation.prompts import prompts_of, read_prompts
from cmcr.evaluation.reading import record_of
from cmcr.evaluation.tasks.embedding import NotConnectedError, Progress, crossing_spaces, shared_space
from cmcr.evaluation.tasks.proposals import Proposals
from cmcr.evaluation.tasks.ways import SpaceRows, Way, baselines
from cmcr.memories.memory import Memory


class IncompleteDataError(ArtefactError):
    """Data sets that are there and of which something is missing, or cannot be read."""


@dataclass(frozen=True)
class Options:
    """What the runs of one evaluation share.

    Attributes:
        data: folder of the data set, or of all of them, one folder each by its name.
        prompts: file of prompt templates for classification, as ULIP's templates.json; None takes cmcr's own.
        prompts_key: which list of that file; None where it has only one.
        split: of the data set; None is the one published for testing.
        limit: take so many items only; None takes all.
        allow_missing: leave out items whose files are not there.
        seed: of intervals, chance and miniature data.
        proposals: for localization, boxes to choose from; None takes a grid.
        map_rule: for localization, how a map is cut: "value" or "share".
        memories: memories of both spaces, to fit the baselines on; empty for no baselines.
    """

    data: Path | None = None
    prompts: Path | None = None
    prompts_key: str | None = None
    split: str | None = None
    limit: int | None = None
    allow_missing: bool = False
    seed: int = 0
    proposals: Proposals | None = None
    map_rule: str = "value"
    memories: Sequence[Path] = ()


def runs_of(
    connection: Connection,
    run: str | None,
    options: Options,
    against: Mapping[str, Connection],
    progress: Progress,
) -> Iterator[Evaluation]:
    """Make one run, or all that the connection can do.

    Args:
        connection: with its encoders attached.
        run: as TASK/DATASET; None makes all: on the miniature world, or on all data sets that are in `options.data`. Data of
            a task of other modalities are not looked at.
        options: shared by all runs.
        against: other connections, by name.
        progress: see `cmcr.evaluation.tasks.embedding.Progress`.

    Raises:
        ConfigError: an unknown run, no data for it, or nothing that the connection can do.
        IncompleteDataError: some of all data sets are incomplete; raised after the others were measured.
    """
    runs = _Runs(connection, options, _baselines(connection, options.memories), against, progress)
    if run is not None:
        yield runs.one(run)
    else:
        yield from runs.all_miniature() if options.data is None else runs.all_in(options.data)


@dataclass(frozen=True)
class _Runs:
    """Runs of one connection with the same options."""

    connection: Connection
    options: Options
    ways: Sequence[Way]
    against: Mapping[str, Connection]
    progress: Progress

    def one(self, run: str) -> Evaluation:
        return self._miniature(run) if run in MINI_RECORDS else self._measured(run, *self._read(run))

    def all_miniature(self) -> Iterator[Evaluation]:
        made = 0
        for run in MINI_RECORDS:
            try:
                yield self._miniature(run)
            except NotConnectedError:
                continue  # a task of other modalities
            made += 1
        _check_any(made)

    def all_in(self, data: Path) -> Iterator[Evaluation]:
        runs = [run for run in _runs_in(data) if _is_connected(self.connection, run)]
        _check_any(len(runs))
        incomplete = []
        for run in runs:
            try:
                record, prompts = self._read(run)
            except (ArtefactError, SampleError) as error:
                incomplete.append(f"\n- {run}: {words_of(error)}")
                continue
            yield self._measured(run, record, prompts)
        if incomplete:
            raise IncompleteDataError(
                f"{len(incomplete)} of {len(runs)} runs were not made, for their data sets are incomplete:{''.join(incomplete)}"
            )

    def _read(self, run: str) -> tuple[Record, Sequence[Sequence[str]] | None]:
        options = self.options
        return record_of(
            run,
            options.data,
            split=options.split,
            limit=options.limit,
            allow_missing=options.allow_missing,
            seed=options.seed,
        )

    def _measured(self, run: str, record: Record, prompts: Sequence[Sequence[str]] | None) -> Evaluation:
        options = self.options
        if isinstance(record, ClassificationRecord) and options.prompts is not None:
            templates = read_prompts(options.prompts, options.prompts_key)
            prompts = [prompts_of(label, templates) for label in record.classes]
        return evaluate(
            self.connection,
            run,
            record,
            prompts=prompts,
            ways=self.ways,
            against=self.against,
            proposals=options.proposals,
            map_rule=options.map_rule,
            seed=options.seed,
            progress=self.progress,
        )

    def _miniature(self, run: str) -> Evaluation:
        options = self.options
        chosen = {"data": options.data, "split": options.split, "prompts": options.prompts}
        unused = [f"--{name}" for name, value in chosen.items() if value is not None]
        if unused:
            raise ConfigError(f"{run}: is drawn, not read: leave {' and '.join(unused)} out.")
        most = MINI_RECORDS[run][1]
        items = None if options.limit is None else min(options.limit, most)
        return evaluate_miniature(
            self.connection,
            run,
            seed=options.seed,
            items=items,
            ways=self.ways,
            against=self.against,
            proposals=options.proposals,
            map_rule=options.map_rule,
            progress=self.progress,
        )


def _runs_in(data: Path) -> list[str]:
    """List the runs on the data sets whose folders are there."""
    found = [f"{task}/{name}" for task, names in DATASETS.items() for name in names if (data / name).is_dir()]
    if not found:
        known = sorted({name for names in DATASETS.values() for name in names})
        raise ConfigError(f"{data}: expected a folder for each data set, called {', '.join(known)}; there is none.")
    return found


def _is_connected(connection: Connection, run: str) -> bool:
    """Tell whether a connection has the modalities of a run on a published data set, before that is read."""
    task, name = run.split("/", 1)
    find: Callable[[Connection, str, str], Any] = shared_space if task == "retention" else crossing_spaces
    try:
        find(connection, *LAYOUTS[READERS.get(run, name)].modalities)
    except NotConnectedError:
        return False
    return True


def _check_any(runs: int) -> None:
    if not runs:
        raise ConfigError("there is nothing that this connection can be measured on: its modalities fit no run.")


def _baselines(connection: Connection, folders: Sequence[Path]) -> list[Way]:
    """Fit the baselines on memories of both spaces, their overlap matched by the ids of its items."""
    if not folders:
        return []
    kinds: dict[tuple[str, str], list[Path]] = {}
    for folder in folders:
        memory = Memory(folder)
        kinds.setdefault((memory.space, memory.modality), []).append(folder)
    given = {known.space: known for known in spaces_of([Memory(*alike) for alike in kinds.values()])}
    left, right = (known.name for known in connection.spaces)
    if sorted(given) != sorted((left, right)):
        raise ConfigError(f"the baselines need memories of {left} and {right}, got {', '.join(given)}.")
    for known in connection.spaces:
        _check_memories(known, given[known.name], connection.overlap)
    rows = {name: {m: all_rows(stored) for m, stored in given[name].rows.items()} for name in (left, right)}
    shared = connection.overlap
    rows[left][shared], rows[right][shared] = overlap_rows(
        given[left].rows[shared], given[right].rows[shared], (left, right)
    )
    return baselines(left, {name: SpaceRows(of_space) for name, of_space in rows.items()}, shared)


def _check_memories(known: ConnectedSpace, given: StoredSpace, overlap: str) -> None:
    """Make sure that the baselines see what the connection saw."""
    if overlap not in given.rows:
        raise ConfigError(
            f"the baselines need a memory of {overlap} in {known.name}; given are {', '.join(given.rows)}."
        )
    if None not in (known.fingerprint, given.fingerprint) and known.fingerprint != given.fingerprint:
        raise ConfigError(
            f"the baselines need memories of the connection's own encoders: those of {known.name} are of "
            f"{given.fingerprint}, the connection was trained with {known.fingerprint}."
        )
