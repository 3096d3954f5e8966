"""The runs that one evaluation is made of, and the data of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmcr.connection.connection import Connection
from cmcr.connection.settings import check_seed
from cmcr.errors import ArtefactError, ConfigError, SampleError, unknown_name, words_of
from cmcr.evaluation.baselines import baselines_of
from cmcr.evaluation.datasets import LAYOUTS, read_dataset
from cmcr.evaluation.datasets.pairs import read_pairs
from cmcr.evaluation.datasets.records import ClassificationRecord, Record
from cmcr.evaluation.evaluate import Evaluation, evaluate
from cmcr.evaluation.miniature import MINI_RUNS, mini_prompts, mini_record
from cmcr.evaluation.prompts import prompts_of, read_prompts
from cmcr.evaluation.tasks.embedding import NotConnectedError, spaces_for
from cmcr.memories.memory import Memory

DATASETS: Mapping[str, tuple[str, ...]] = {
    "retrieval": ("ave", "flickr-soundnet", "vgg-ss"),
    "localization": ("vgg-ss", "flickr-soundnet", "music-solo"),
    "counterfactual": ("ex-vgg-ss", "ex-flickrnet"),
    "classification": ("modelnet40", "scanobjectnn", "objaverse-lvis", "esc-50", "imagenet"),
    "retention": ("coco", "flickr30k", "audiocaps", "clotho"),
}
"""The published data sets of every task."""

READERS: Mapping[str, str] = {
    "localization/vgg-ss": "vgg-ss-boxes",
    "localization/flickr-soundnet": "flickr-soundnet-boxes",
}
"""By which layout a data set is read for a run, where that is not its own name."""

RUNS: tuple[str, ...] = (*(f"{task}/{name}" for task, names in DATASETS.items() for name in names), *MINI_RUNS)
"""Everything that can be evaluated, as TASK/DATASET."""


class IncompleteDataError(ArtefactError):
    """Data sets of which something is missing, or cannot be read."""


def runs_for(connection: Connection, data: Path | None = None) -> list[str]:
    """List the runs that a connection has the modalities for.

    Args:
        connection: with its encoders attached.
        data: a folder with one folder for each data set, by its name; None for the miniature world.

    Raises:
        ConfigError: no data, or none that the connection can be measured on.
    """
    found = [run for run in (MINI_RUNS if data is None else _runs_in(data)) if _is_connected(connection, run)]
    if not found:
        raise ConfigError("there is nothing that this connection can be measured on: its modalities fit no run.")
    return found


def evaluate_runs(
    connection: Connection,
    run: str | None = None,
    *,
    data: Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    allow_missing: bool = False,
    pairs: Path | None = None,
    prompts: Path | None = None,
    prompts_key: str | None = None,
    memories: Sequence[Memory] = (),
    seed: int = 0,
    **options: Any,
) -> Iterator[Evaluation]:
    """Make one run, or all that the connection can be measured on.

    Args:
        connection: with its encoders attached.
        run: as TASK/DATASET; None makes all of `runs_for`.
        data: folder of the data set, or of all of them, one folder each by its name; None for the miniature world.
        split: of the data set; None is the one published for testing.
        limit: take so many items only, evenly spaced; None takes all.
        allow_missing: leave out items whose files are missing, and count them.
        pairs: a table of pairs of your own, to be retrieved by each other; `run` and `data` are then left out.
        prompts: file of prompt templates for classification, as ULIP's templates.json; None takes cmcr's own.
        prompts_key: which list of that file; None where it has only one.
        memories: memories of both spaces, to fit the baselines on; empty for no baselines.
        seed: of intervals, chance and miniature data.
        **options: as of `evaluate`.

    Raises:
        ConfigError: an unknown run, no data for it, or nothing that the connection can be measured on.
        IncompleteDataError: of all data sets, some are incomplete; raised after the others were measured.
    """
    seed = check_seed(seed)
    if memories:
        options["baselines"] = baselines_of(connection, memories)
    if pairs is not None:
        if run is not None or data is not None:
            raise ConfigError("pairs are measured by themselves: leave the run and the data set out.")
        yield evaluate(
            connection, "retrieval/pairs", read_pairs(pairs, connection.modalities, limit), seed=seed, **options
        )
        return
    runs = runs_for(connection, data) if run is None else [run]
    incomplete = []
    for name in runs:
        if name in MINI_RUNS:
            unused = {"--data": data, "--split": split, "--prompts": prompts}
            given = [option for option, value in unused.items() if value is not None]
            if given:
                raise ConfigError(f"{name}: is drawn, not read: leave {' and '.join(given)} out.")
        try:
            record, own = record_of(name, data, split=split, limit=limit, allow_missing=allow_missing, seed=seed)
        except (ArtefactError, SampleError) as error:
            if run is not None:
                raise
            incomplete.append(f"\n- {name}: {words_of(error)}")
            continue
        if own is not None:
            options["prompts_name"] = "the miniature world's"
        if isinstance(record, ClassificationRecord) and prompts is not None:
            templates = read_prompts(prompts, prompts_key)
            own = [prompts_of(label, templates) for label in record.classes]
            options["prompts_name"] = " of ".join(filter(None, (prompts_key, prompts.name)))
        yield evaluate(connection, name, record, prompts=own, seed=seed, **options)
    if incomplete:
        raise IncompleteDataError(
            f"{len(incomplete)} of {len(runs)} runs were left out, their data sets are incomplete:{''.join(incomplete)}"
        )


def record_of(
    run: str,
    data: Path | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    allow_missing: bool = False,
    seed: int = 0,
) -> tuple[Record, Sequence[Sequence[str]] | None]:
    """Read the data of one run, or draw it; no item is decoded. Arguments as of `evaluate_runs`.

    Returns:
        The record, and the prompts of its classes where they are not cmcr's own.

    Raises:
        ConfigError: an unknown run, or no folder for it.
        ArtefactError, SampleError: as `read_dataset`.
    """
    if run not in RUNS:
        raise unknown_name("run", run, RUNS)
    if run in MINI_RUNS:
        record = mini_record(run, seed, limit)
        return record, mini_prompts(record.classes) if isinstance(record, ClassificationRecord) else None
    name = run.split("/", 1)[1]
    if data is None:
        raise ConfigError(f"{run}: give the folder of the data set, --data FOLDER; docs/datasets.md shows its layout.")
    folder = data / name if (data / name).is_dir() else data
    layout = READERS.get(run, name)
    return read_dataset(layout, folder, split=split, allow_missing=allow_missing, limit=limit), None


def _runs_in(data: Path) -> list[str]:
    """List the runs on the data sets whose folders are there."""
    found = [f"{task}/{name}" for task, names in DATASETS.items() for name in names if (data / name).is_dir()]
    if not found:
        known = sorted({name for names in DATASETS.values() for name in names})
        raise ConfigError(f"{data}: expected a folder for each data set, called {', '.join(known)}; there is none.")
    return found


def _is_connected(connection: Connection, run: str) -> bool:
    """Check that a connection has the modalities of a run, before its data is read."""
    task, name = run.split("/", 1)
    first, second = MINI_RUNS[run] if run in MINI_RUNS else LAYOUTS[READERS.get(run, name)].modalities
    try:
        spaces_for(connection, first, second, within=task == "retention")
    except NotConnectedError:
        return False
    return True
