"""The report: one self-contained page in which a person can look and listen."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from cmcr.connection.connection import Connection
from cmcr.data.numbers import SEEN_NUMBERS, UNSEEN_NUMBERS
from cmcr.demo.cases import CaseData
from cmcr.demo.plots import gap_picture, loss_picture
from cmcr.demo.tasks import KEYS
from cmcr.demo.world import World
from cmcr.errors import missing_dependency

if TYPE_CHECKING:
    from jinja2 import Template

_ENLARGED = 6  # pixels of the report per pixel of a picture

LABELS = {
    "chance": "chance",
    "centred_ridge": "centred ridge, best of five strengths",
    "centred_procrustes": "centred Procrustes",
    "overlap_posterior": "posterior over the overlap, no training",
    "c-mcr": "C-MCR",
    "c-mcr-published": "C-MCR, published recipe",
    "c-mcr-published-ulip": "C-MCR, published recipe, projectors of ULIP-CLIP",
    "soft": "the same, contrasting at temperature 0.05",
    "paired_oracle": "paired oracle: the line above, trained on true pairs",
}
MODALITY_WORDS = {"image": "picture", "audio": "sound", "text": "text", "point_cloud": "3D"}


def task_words(task: str) -> str:
    """Say a task in words: `"audio_to_image"` -> "sound → picture"."""
    return " → ".join(MODALITY_WORDS[modality] for modality in task.split("_to_"))


def render_report(
    results: dict[str, Any],
    world: World,
    cases: list[CaseData],
    connections: list[Connection],
    heatmaps: list[bytes],
    seed: int,
) -> str:
    """Fill the page.

    Args:
        results: what `results.json` will hold.
        world: the items, to show some of them.
        cases: the embeddings of each case.
        connections: the connection of each case.
        heatmaps: PNG files to show.
        seed: chooses the queries that are shown, four seen and two unseen numbers a task.

    Returns:
        HTML without any reference to the outside.

    Raises:
        MissingDependencyError: Jinja or matplotlib is not installed.
    """
    page = page_template()
    rng = np.random.default_rng([seed, 7])
    queries = np.concatenate([rng.choice(SEEN_NUMBERS, 4, replace=False), rng.choice(UNSEEN_NUMBERS, 2, replace=False)])
    return page.render(
        results=results,
        labels=LABELS,
        words=MODALITY_WORDS,
        task_words=task_words,
        paper_tasks=_paper_tasks(results),
        heatmaps=[f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in heatmaps],
        examples={
            data.case.name: _examples(data, connection, world, queries)
            for data, connection in zip(cases, connections, strict=True)
        },
        gaps={
            data.case.name: gap_picture(data, connection) for data, connection in zip(cases, connections, strict=True)
        },
        losses=loss_picture({data.case.name: c.history for data, c in zip(cases, connections, strict=True)}),
        settings=json.dumps(results["settings"], indent=2),
    )


def _paper_tasks(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Make the rows of the table of the paper's tasks: a run's figure of the connection, of chance, and of its own space."""
    return [
        {
            "run": run,
            "spaces": case["spaces"],
            "items": measured["items"],
            "figure": label,
            "cells": [measured["figures"].get(way, {}).get(key) for way in ("connection", "own space", "chance")],
        }
        for case in results["connections"].values()
        for run, measured in case["paper_tasks"].items()
        for key, label in KEYS
        if key in measured["figures"]["connection"]
    ]


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


def _examples(data: CaseData, connection: Connection, world: World, queries: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Show some queries of each direction with the five nearest answers."""
    left, right = data.sides
    in_left = connection.project(left.test_outer, left.space.name)
    in_right = connection.project(right.test_outer, right.space.name)
    similarity = connection.similarity(in_left, in_right)
    directions = (
        (data.case.outer[1], data.case.outer[0], similarity.T),
        (data.case.outer[0], data.case.outer[1], similarity),
    )
    return [
        {
            "task": f"{asked}_to_{answered}",
            "rows": [_example(number, asked, answered, scores[number], world) for number in queries.tolist()],
        }
        for asked, answered, scores in directions
    ]


def _example(number: int, asked: str, answered: str, scores: NDArray[np.floating], world: World) -> dict[str, Any]:
    shown = 3 if answered == "audio" else 5
    best = np.argsort(-scores, kind="stable")[:shown].tolist()
    return {
        "number": f"{number:03d}",
        "unseen": number in UNSEEN_NUMBERS,
        "query": _shown(asked, number, world),
        "answers": [
            {
                "item": _shown(answered, found, world),
                "right": found == number,
                "number": f"{found:03d}",
                "score": f"{scores[found]:.2f}",
            }
            for found in best
        ],
    }


def _shown(modality: str, number: int, world: World) -> dict[str, str]:
    item = world.test[modality].inputs[number]
    return {"kind": modality, "content": _CONTENT[modality](item, number)}


def _picture_uri(item: NDArray[np.uint8], number: int) -> str:
    picture = Image.fromarray(item)
    picture = picture.resize((picture.width * _ENLARGED, picture.height * _ENLARGED), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _sound_uri(item: dict[str, Any], number: int) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, item["array"], item["sampling_rate"], format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cloud_json(item: NDArray[np.float32], number: int) -> str:
    return json.dumps(np.round(item - item.mean(axis=0), 1).flatten().tolist(), separators=(",", ":"))


def _text(item: str, number: int) -> str:
    return f"“{number:03d}”"  # the answer is a class: the mean of all phrasings of a number


_CONTENT: dict[str, Callable[[Any, int], str]] = {
    "image": _picture_uri,
    "audio": _sound_uri,
    "point_cloud": _cloud_json,
    "text": _text,
}
