"""The miniature world as tasks of MTEB: what MTEB finds for a connection, beside what `cmcr.evaluation` finds.

Prints a line a task, and `--out` writes the table. Nothing is downloaded; sounds and pictures are stored as files, as in the
data sets of MTEB.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
from PIL import Image

import cmcr
from cmcr.adapters.mteb import MtebEncoder, undecoded_sounds
from cmcr.connection.connection import Connection
from cmcr.data.numbers import SEEN_NUMBERS
from cmcr.evaluation.metrics import PerQuery, discounted_gains, hits, positive_ranks
from cmcr.evaluation.miniature import draw_items, mini_prompts, mini_record
from tables import result_table, save

ACCURACY, NDCG = "accuracy", "ndcg_at_10"


@dataclass(frozen=True)
class Case:
    """One task: item i of the corpus is the only answer to query i.

    Attributes:
        name: of the task.
        modalities: of the queries and of the corpus.
        spaces: whose encoders embed them.
        queries: items.
        corpus: as many.
        main_score: NDCG of a retrieval, or ACCURACY of a zero-shot classification.
    """

    name: str
    modalities: tuple[str, str]
    spaces: tuple[str, str]
    queries: Sequence[Any]
    corpus: Sequence[Any]
    main_score: str = NDCG


def cases(limit: int | None = None) -> list[Case]:
    """Draw the tasks: sounds and pictures in both directions, texts of pictures, names of sounds."""
    pairs: Any = mini_record("retrieval/mini-audio-image", limit=limit)
    captions: Any = mini_record("retention/mini-image-text", limit=limit)
    spoken: Any = mini_record("classification/mini-audio", limit=limit)
    names = [wordings[0] for wordings in mini_prompts(spoken.classes)]
    clip, clap = "mini-clip", "mini-clap"
    return [
        Case("MiniA2IRetrieval", ("audio", "image"), (clap, clip), pairs.first, pairs.second),
        Case("MiniI2ARetrieval", ("image", "audio"), (clip, clap), pairs.second, pairs.first),
        Case("MiniI2TRetrieval", ("image", "text"), (clip, clip), captions.first, captions.second),
        Case("MiniAudioZeroShot", ("audio", "text"), (clap, clap), spoken.items, names, ACCURACY),
    ]


def task_of(case: Case, folder: Path) -> Any:
    """Write a case as a data set of MTEB's layout, and make the task that loads it.

    Args:
        case: what to write.
        folder: of all tasks; the data set is a folder in it.
    """
    abstasks = import_module("mteb.abstasks")
    first, second = case.modalities
    retrieval = case.main_score == NDCG
    ids = [f"{position:04d}" for position in range(len(case.queries))]
    if retrieval:
        _write(folder / case.name / "queries", first, case.queries, {"id": ids})
        _write(folder / case.name / "corpus", second, case.corpus, {"id": ids})
        _write(folder / case.name / "qrels", "", [], {"query-id": ids, "corpus-id": ids, "score": [1] * len(ids)})
    else:
        _write(folder / case.name / "default", first, case.queries, {"label": list(range(len(ids)))})
    parts = sorted(path.name for path in (folder / case.name).iterdir() if path.is_dir())
    listed = "".join(
        f"- config_name: {part}\n  data_files: [{{split: test, path: {part}/test.parquet}}]\n" for part in parts
    )
    (folder / case.name / "README.md").write_text(f"---\nconfigs:\n{listed}---\n", encoding="utf-8")

    class Retrieval(abstasks.AbsTaskRetrieval):  # type: ignore[misc, name-defined]  # of a library imported late
        pass

    class ZeroShot(abstasks.AbsTaskZeroShotClassification):  # type: ignore[misc, name-defined]
        input_column_name = first

        def get_candidate_labels(self) -> list[str]:
            return list(case.corpus)

    chosen = Retrieval if retrieval else ZeroShot
    chosen.metadata = import_module("mteb.abstasks.task_metadata").TaskMetadata(
        name=case.name,
        description="The miniature world of cmcr.",
        dataset={"path": str(folder / case.name), "revision": "main"},
        type="Any2AnyRetrieval" if retrieval else "AudioZeroshotClassification",
        category=f"{first[0]}2{second[0]}",
        modalities=[first, second],
        eval_langs=["eng-Latn"],
        main_score=case.main_score,
        **dict.fromkeys(_UNKNOWN),
    )
    return chosen()


def own_score(connection: Connection, case: Case) -> float:
    """Compute a case's main score by `cmcr.evaluation`."""
    rows = [
        connection.encode(items, modality, space=space)
        for items, modality, space in zip((case.queries, case.corpus), case.modalities, case.spaces, strict=True)
    ]
    # In float64 only what is equal is a tie, as for MTEB. In float32 a difference of 1e-6 is one, and across spaces whole
    # cosines of projected rows are no more than 0.02.
    queries, corpus = (each.astype(np.float64) for each in rows)
    ranks = positive_ranks(queries, corpus, PerQuery.one(np.arange(len(case.queries))))
    return float(np.mean(discounted_gains(ranks, 10) if case.main_score == NDCG else hits(ranks, 1)))


_UNKNOWN = (
    "reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect", "sample_creation",
    "bibtex_citation",
)  # fmt: skip


def _write(folder: Path, modality: str, items: Sequence[Any], columns: dict[str, list[Any]]) -> None:
    """Write one part of a data set: sounds and pictures as files in a column of their kind."""
    datasets = import_module("datasets")
    kind = {"audio": datasets.Audio, "image": datasets.Image}.get(modality)
    stored = [{"bytes": _FILE[modality](item), "path": None} for item in items] if kind else list(items)
    written = datasets.Dataset.from_dict({modality: stored, **columns} if modality else columns)
    if kind:
        written = written.cast_column(modality, kind())
    folder.mkdir(parents=True)
    written.to_parquet(folder / "test.parquet")


def _wav(sound: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound["array"], sound["sampling_rate"], format="WAV", subtype="FLOAT")
    return file.getvalue()


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, "PNG")
    return file.getvalue()


_FILE: dict[str, Callable[[Any], bytes]] = {"audio": _wav, "image": _png}


def _connected(method: str) -> Connection:
    """Connect mini-clip and mini-clap through texts, on training handwriting and voices."""
    rng = np.random.default_rng(0)
    numbers = {modality: rng.permutation(SEEN_NUMBERS) for modality in ("text", "image", "audio")}
    items = {modality: draw_items(modality, drawn, "train", rng) for modality, drawn in numbers.items()}
    memories = []
    for space, outer in ((cmcr.space("mini-clip"), "image"), (cmcr.space("mini-clap"), "audio")):
        memories.append(cmcr.Memories(space, **{m: space.encode(items[m], m) for m in ("text", outer)}))
    return cmcr.connect(*memories, method=method, seed=0)


def main() -> None:
    """Run MTEB and print its main scores beside ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--method", default="c-mcr")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    arguments = parser.parse_args()
    mteb, connection = import_module("mteb"), _connected(arguments.method)
    model = MtebEncoder(connection, "cmcr/mini-clip-mini-clap")
    rows = []
    with TemporaryDirectory() as folder, undecoded_sounds():
        import_module("datasets").config.HF_DATASETS_CACHE = f"{folder}/cache"
        for case in cases(arguments.limit):
            found = mteb.evaluate(model, task_of(case, Path(folder)), cache=None, show_progress_bar=False)
            score = found.task_results[0].scores["test"][0]["main_score"]
            rows.append([case.name, len(case.queries), case.main_score, score, own_score(connection, case)])
            print(*rows[-1], flush=True)
    columns = {
        "task": "{}",
        "items": "{}",
        "main score": "`{}`",
        "MTEB": "{:.5f}",
        "cmcr": "{:.5f}",
    }
    if arguments.out:
        save(arguments.out, arguments, {"main_scores": result_table(columns, rows)}, mteb=version("mteb"))


if __name__ == "__main__":
    main()
