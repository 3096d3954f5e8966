"""From the name of a run to its data: the miniature world's, or a published data set on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cmcr.errors import ConfigError, unknown_name
from cmcr.evaluation.datasets import read_dataset
from cmcr.evaluation.datasets.records import ClassificationRecord, Record
from cmcr.evaluation.evaluate import READERS, RUNS
from cmcr.evaluation.miniature import MINI_RUNS, mini_prompts, mini_record


def record_of(
    run: str,
    data: Path | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    allow_missing: bool = False,
    seed: int = 0,
) -> tuple[Record, Sequence[Sequence[str]] | None]:
    """Read the data of a run; no item is decoded.

    Args:
        run: as TASK/DATASET.
        data: folder of the data set, or of several, one folder each by its name; not needed for the miniature world.
        split: of the data set; None for the one that is published for testing.
        limit: take so many items only, evenly spaced.
        allow_missing: leave out items whose files are not there.
        seed: of miniature data.

    Returns:
        The record, and the prompts of its classes where they are not cmcr's own.

    Raises:
        ConfigError: an unknown run, or no folder for it.
        ArtefactNotFoundError: files that are missing, the first of them named.
    """
    if run not in RUNS:
        raise unknown_name("run", run, RUNS)
    if run in MINI_RUNS:
        record = mini_record(run, seed, limit)
        return record, mini_prompts(record.classes) if isinstance(record, ClassificationRecord) else None
    name = run.split("/", 1)[1]
    if data is None:
        raise ConfigError(f"{run}: say where the data set is, --data FOLDER; docs/datasets.md shows its layout.")
    folder = data / name if (data / name).is_dir() else data
    reader = READERS.get(run, name)
    return read_dataset(reader, folder, split=split, allow_missing=allow_missing, limit=limit), None
