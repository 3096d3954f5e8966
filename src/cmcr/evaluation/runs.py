"""Which runs an evaluation is made of, and the data of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmcr.connection.connection import Connection
from cmcr.connection.stored import spaces_of
from cmcr.embeddings import all_rows
from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import Labelled
from cmcr.evaluation.evaluate import DATASETS, Evaluation, evaluate
from cmcr.evaluation.miniature import MINI_RECORDS
from cmcr.evaluation.prompts import prompts_of, read_prompts
from cmcr.evaluation.reading import record_of
from cmcr.evaluation.tasks.embedding import NotConnectedError, Progress
from cmcr.evaluation.tasks.ways import SpaceRows, Way, baselines
from cmcr.memories.memory import Memory


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
        memories: memories of both spaces, to fit the baselines on; empty for no baselines.
    """

    data: Path | None = None
    prompts: Path | None = None
    prompts_key: str | None = None
    split: str | None = None
    limit: int | None = None
    allow_missing: bool = False
    seed: int = 0
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
        run: as TASK/DATASET; None makes all: on the miniature world, or on all data sets that are in `options.data`.
        options: shared by all runs.
        against: other connections, by name.
        progress: see `cmcr.evaluation.tasks.embedding.Progress`.

    Raises:
        ConfigError: an unknown run, no data for it, or nothing that the connection can do.
    """
    ways = _baselines(connection, options.memories)
    if run is not None:
        yield _run(connection, run, options, ways, against, progress)
        return
    made = 0
    for name in _all_runs(options.data):
        try:
            yield _run(connection, name, options, ways, against, progress)
        except NotConnectedError:
            continue  # a task of other modalities
        made += 1
    if not made:
        raise ConfigError("there is nothing that this connection can be measured on: its modalities fit no run.")


def _all_runs(data: Path | None) -> list[str]:
    if data is None:
        return list(MINI_RECORDS)
    found = [f"{task}/{name}" for task, names in DATASETS.items() for name in names if (data / name).is_dir()]
    if not found:
        known = sorted({name for names in DATASETS.values() for name in names})
        raise ConfigError(f"{data}: expected a folder for each data set, called {', '.join(known)}; there is none.")
    return found


def _run(
    connection: Connection,
    run: str,
    options: Options,
    ways: Sequence[Way],
    against: Mapping[str, Connection],
    progress: Progress,
) -> Evaluation:
    record, prompts = record_of(
        run,
        options.data,
        split=options.split,
        limit=options.limit,
        allow_missing=options.allow_missing,
        seed=options.seed,
    )
    if isinstance(record, Labelled) and options.prompts is not None:
        templates = read_prompts(options.prompts, options.prompts_key)
        prompts = [prompts_of(label, templates) for label in record.classes]
    return evaluate(
        connection,
        run,
        record,
        prompts=prompts,
        ways=ways,
        against=against,
        seed=options.seed,
        progress=progress,
    )


def _baselines(connection: Connection, folders: Sequence[Path]) -> list[Way]:
    """Fit the baselines on memories of both spaces."""
    if not folders:
        return []
    given = {known.space: known for known in spaces_of([Memory(folder) for folder in folders])}
    names = [known.name for known in connection.spaces]
    if sorted(given) != sorted(names):
        raise ConfigError(f"the baselines need memories of {' and '.join(names)}, got {', '.join(given)}.")
    spaces = {name: SpaceRows({m: all_rows(rows) for m, rows in given[name].rows.items()}) for name in names}
    return baselines(names[0], spaces, connection.overlap)
