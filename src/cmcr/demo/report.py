"""The report: one self-contained page in which a person can look and listen."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from cmcr.connection.connection import Connection
from cmcr.data.numbers import SEEN_NUMBERS, UNSEEN_NUMBERS
from cmcr.demo.measure import ORACLE, PAPER, WITHOUT_CENTRING
from cmcr.demo.plots import data_uri, gap_pictures, loss_picture, png
from cmcr.demo.world import MODALITIES, EmbeddedCase, World
from cmcr.errors import missing_dependency
from cmcr.evaluation.datasets.records import LocalizationRecord
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.evaluation.tasks.heatmaps import draw_heatmap
from cmcr.evaluation.tasks.localization import Answer

if TYPE_CHECKING:
    from jinja2 import Template

LABELS = {
    "centred procrustes": "centred Procrustes",
    "cca": "centred canonical correlations (cca)",
    "posterior": "posterior over the overlap",
    "c-mcr": "C-MCR, the paper",
    "c-mcr-published": "C-MCR, published recipe",
    "c-mcr-published-ulip": "C-MCR, published recipe, projectors of ULIP-CLIP",
    "c-mcr-residual": "C-MCR that starts at cca",
    "paired_oracle": "paired oracle: C-MCR that starts at cca, with true pairs",
}
WIDE_GAP_LABELS = {**LABELS, WITHOUT_CENTRING: "C-MCR, the paper, rows as they come", PAPER: "C-MCR, rows centred"}
PAPER_FIGURES = {
    "mean/R@1": "R@1, mean of both directions",
    "point_cloud/top-1": "top-1",
    "image/top-1": "top-1",
    "audio/top-1": "top-1",
    "proposals/cIoU@0.5": "cIoU@0.5, best box",
    "dense/cIoU@0.5": "cIoU@0.5, map of patches",
    "silence/AP": "AP, sound or silence?",
    "other_sound/AP": "AP, its sound or another?",
    "present/AP": "AP, is it in the picture?",
}
"""What the report shows of the paper's tasks, and what it calls it."""


def label(method: str, case: Mapping[str, Any]) -> str:
    """Put a method into words, and what it chose in a case: `"auto"` -> "auto: cca"."""
    chosen = case["choice"]["chosen"] if method == "auto" else None
    return f"{method}: {chosen}" if chosen else LABELS.get(method, method)


def task_words(task: str) -> str:
    """Put a task into words: `"audio_to_image"` -> "sound → picture"."""
    return " → ".join(MODALITIES[modality] for modality in task.split("_to_"))


def render_report(
    results: dict[str, Any],
    world: World,
    cases: list[EmbeddedCase],
    trained: list[dict[str, Connection]],
    located: list[tuple[LocalizationRecord, Answer]],
    seed: int,
) -> str:
    """Fill the page.

    Args:
        results: what `results.json` will hold.
        world: the items, to show some of them.
        cases: the embeddings of each case.
        trained: of each case the connections by name, that of the method and others.
        located: what was asked and answered in localization, to draw.
        seed: chooses the queries that are shown: of a task three seen numbers, an unseen one, and one that fails.

    Returns:
        HTML without any reference to the outside.

    Raises:
        MissingDependencyError: Jinja or matplotlib is not installed.
    """
    page = page_template()
    connected = [(data, each[results["method"]]) for data, each in zip(cases, trained, strict=True)]
    losses = {
        data.case.name: [
            loss_picture(label(method, results["connections"][data.case.name]), data.case, connection.history)
            for method, connection in each.items()
            if connection.history and method != ORACLE
        ]
        for data, each in zip(cases, trained, strict=True)
    }
    rng = np.random.default_rng([seed, 7])
    queries = np.concatenate([rng.choice(SEEN_NUMBERS, 3, replace=False), rng.choice(UNSEEN_NUMBERS, 1)])
    return page.render(
        results=results,
        label=label,
        wide_gap_labels=WIDE_GAP_LABELS,
        words=MODALITIES,
        task_words=task_words,
        paper_figures=PAPER_FIGURES,
        heatmaps=[
            (_shown("audio", record.sounds[answer.item]), png(draw_heatmap(record, answer)))
            for record, answer in located
        ],
        examples={
            data.case.name: [
                {
                    "task": f"{asked.modality}_to_{answered.modality}",
                    "rows": _examples(queries, asked, answered, connection, world, rng),
                }
                for asked, answered in (data.outer[::-1], data.outer)
            ]
            for data, connection in connected
        },
        gaps={data.case.name: gap_pictures(data, connection) for data, connection in connected},
        losses=losses,
        settings=json.dumps(results["settings"], indent=2),
    )


def page_template() -> Template:
    """Read the page's template.

    Raises:
        MissingDependencyError: Jinja is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise missing_dependency("jinja2", extra="demo", purpose="the page of the report") from error
    source = (resources.files("cmcr.demo") / "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)


def _examples(
    queries: NDArray[np.int64],
    asked: Embedded,
    answered: Embedded,
    connection: Connection,
    world: World,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Show the nearest answers to queries, and to one more, drawn from those whose right answer is not among them."""
    rows = [connection.common(items.rows, items.space) for items in (asked, answered)]
    scores = connection.similarity(*rows)
    places = (scores > scores.diagonal()[:, None]).sum(axis=1)  # item i is number i
    shown = 3 if answered.modality == "audio" else 4
    failed = rng.permutation(np.flatnonzero(places >= shown))[:1]
    return [
        {
            "number": number,
            "unseen": number in UNSEEN_NUMBERS,
            "fails": number in failed,
            "place": int(places[number]) + 1,
            "query": _item(asked.modality, number, world),
            "answers": [
                {"number": found, "score": scores[number, found], "item": _item(answered.modality, found, world)}
                for found in np.argsort(-scores[number], kind="stable")[:shown].tolist()
            ],
        }
        for number in [*queries.tolist(), *failed.tolist()]
    ]


def _item(modality: str, number: int, world: World) -> dict[str, str]:
    """Make what the page shows of a test item; a text stands for its class, the mean of all phrasings of a number."""
    return _shown(modality, f"“{number:03d}”" if modality == "text" else world.test[modality][number])


def _shown(modality: str, item: Any) -> dict[str, str]:
    buffer = io.BytesIO()
    if modality == "image":
        Image.fromarray(item).save(buffer, format="PNG")
        item = data_uri(buffer.getvalue())
    elif modality == "audio":
        soundfile.write(buffer, item["array"], item["sampling_rate"], format="WAV", subtype="PCM_16")
        item = data_uri(buffer.getvalue(), "audio/wav")
    elif modality == "point_cloud":
        item = json.dumps(np.round(item - item.mean(axis=0), 1).flatten().tolist(), separators=(",", ":"))
    return {"kind": modality, "content": item}
