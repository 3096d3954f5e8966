"""What the demonstration measures: one retrieval task for every method, and the paper's tasks in small."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr.connection.connect import connect
from cmcr.connection.connection import Connection
from cmcr.data.numbers import ALL_NUMBERS, UNSEEN_NUMBERS
from cmcr.demo.plots import png
from cmcr.demo.world import EmbeddedCase
from cmcr.engine.device import cores
from cmcr.evaluation import baselines
from cmcr.evaluation.ablations import ABLATIONS
from cmcr.evaluation.baselines import Method, own_space, through
from cmcr.evaluation.metrics import PerQuery
from cmcr.evaluation.runs import evaluate_runs, runs_for
from cmcr.evaluation.tasks.heatmaps import draw_heatmap
from cmcr.evaluation.tasks.localization import PreparedLocalization
from cmcr.evaluation.tasks.retrieval import PreparedRetrieval
from cmcr.evaluation.tasks.scores import PerItem

TOP = (1, 5, 10)
SOFT = {"ttc_temperature": 0.05, "avc_temperature": 0.05}
"""A softer contrast than the paper's 0.01: better here, and the fairer setting for the oracle, which shares it."""

Job = tuple[EmbeddedCase, Mapping[str, Any]]
"""A case to connect, and changes to the method's settings."""

_ITEMS = {"localization": 32, "counterfactual": 160}  # of the paper's tasks in small
_OTHER_ITEMS = 120
_HEATMAPS = 3
_PAIRS = PerQuery.one(ALL_NUMBERS)  # item i is number i in every test set


@dataclass(frozen=True)
class DemoOptions:
    """What a demonstration does.

    Attributes:
        seed: of the items, the training and the examples shown.
        method: how to connect (see `cmcr.connect`).
        ablations: measure the paper's ablations too.
        per_number: memory items per seen number and modality; 6 makes memories of 4800.
        settings: changes to the method's settings.
    """

    seed: int = 0
    method: str = "c-mcr"
    ablations: bool = False
    per_number: int = 6
    settings: Mapping[str, Any] = field(default_factory=dict)


def true_pairs(data: EmbeddedCase, seed: int) -> dict[str, torch.Tensor]:
    """Give each overlap item a random outer item of the same number in each space, by the space's name.

    In the place of semantically consistent rows they make the paired oracle, which nobody without pairs can have: what is
    left to gain.
    """
    rng, wanted, chosen = np.random.default_rng(seed), data.numbers[data.case.overlap], {}
    for memories, outer in zip(data.memories, data.case.outer, strict=True):
        order = np.argsort(data.numbers[outer], kind="stable")
        rising = data.numbers[outer][order]
        first, past = (np.searchsorted(rising, wanted, side=side) for side in ("left", "right"))
        chosen[memories.space] = memories.loaded(outer)[torch.from_numpy(order[rng.integers(first, past)])]
    return chosen


def measure(data: EmbeddedCase, method: Method) -> dict[str, Any]:
    """Measure a method on the two modalities that never met, in both directions.

    Returns:
        Figures in percent: `audio_to_image/R@1`, its 95 % bootstrap interval `audio_to_image/R@1/interval`, and
        `audio_to_image/unseen/R@1` for queries of the numbers that no training saw, ranked among all 1000.
    """
    left, right = data.outer
    scores = PreparedRetrieval(right, left, _PAIRS).score(method)
    figures: dict[str, Any] = {}
    for task, k in itertools.product(tasks_of(data), TOP):
        hits = scores[f"{task}/R@{k}"]
        assert isinstance(hits, PerItem)
        figure = hits.figure(seed=0)
        figures[f"{task}/R@{k}"] = 100.0 * figure["value"]
        figures[f"{task}/R@{k}/interval"] = [100.0 * figure["low"], 100.0 * figure["high"]]
        figures[f"{task}/unseen/R@{k}"] = 100.0 * float(hits.values[UNSEEN_NUMBERS].mean())
    return figures


def chance_figures(data: EmbeddedCase) -> dict[str, Any]:
    """Give what guessing would: k in 1000."""
    found: dict[str, Any] = {}
    for task, k in itertools.product(tasks_of(data), TOP):
        share = 100.0 * k / len(ALL_NUMBERS)
        found |= {f"{task}/R@{k}": share, f"{task}/R@{k}/interval": [share, share], f"{task}/unseen/R@{k}": share}
    return found


def tasks_of(data: EmbeddedCase) -> tuple[str, str]:
    """Name the two directions of a case: from the right space to the left, and back."""
    left, right = data.case.outer
    return f"{right}_to_{left}", f"{left}_to_{right}"


def retention_of(data: EmbeddedCase, connection: Connection) -> dict[str, Any]:
    """Measure each space on its own pair of modalities, before and after its projector.

    Returns:
        By space: `before`, `after` (R@1 in percent, the mean of both directions over 1000 test items), `kept` (their
        ratio), `gap_before` and `gap_after` (distance between the means of the two modalities).
    """
    found = {}
    for own in data.own:
        pair, after = PreparedRetrieval(*own, _PAIRS), through(connection)
        r1 = [100.0 * pair.score(method)["mean/R@1"].value for method in (own_space, after)]
        gaps = [_modality_gap(*map(method, own)) for method in (own_space, after)]
        found[own[0].space] = {
            "before": r1[0], "after": r1[1], "kept": r1[1] / r1[0], "gap_before": gaps[0], "gap_after": gaps[1],
        }  # fmt: skip
    return found


def _modality_gap(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Distance between the means of two modalities, from 0 to 2 for unit rows (Liang et al., NeurIPS 2022)."""
    return float(np.linalg.norm(first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)))


def jobs_of(data: EmbeddedCase, seed: int) -> list[Job]:
    """List the three connections of a case: by the settings as they are, by softer ones, and the oracle by these."""
    return [(data, {}), (data, SOFT), (data, {**SOFT, "consistent": true_pairs(data, seed)})]


def connect_all(jobs: Sequence[Job], options: DemoOptions, progress: Callable[[float], None]) -> list[Connection]:
    """Connect the spaces of every job, with its changes to the method's settings.

    As many at once as there are cores, each on one thread: a second one makes such small steps only a quarter faster.
    """
    threads, shares, stopped = torch.get_num_threads(), [0.0] * len(jobs), threading.Event()

    def connected(number: int, job: Job) -> Connection:
        def report(stage: str, share: float) -> None:
            if stopped.is_set():
                raise CancelledError
            shares[number] = share if stage == "training" else 0.0
            progress(sum(shares) / len(shares))

        data, changes = job
        return connect(
            *data.memories,
            overlap=data.case.overlap,
            method=options.method,
            seed=options.seed,
            device="cpu",  # the same figures on every kind of machine matter more here than speed
            progress=report,
            **{**options.settings, **changes},
        )

    progress(0.0)
    pool = ThreadPoolExecutor(min(cores(), len(jobs)), initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(connected, range(len(jobs)), jobs))
    finally:  # Ctrl-C too
        stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def compare(data: EmbeddedCase, connections: Sequence[Connection], method: str) -> dict[str, Any]:
    """Measure the connections of `jobs_of` a case beside everything they must be compared with."""
    connection, soft, oracle = connections
    left, right = data.memories
    fitted = partial(baselines.centred, left, right, data.case.overlap)
    # Chosen on the test items, which favours the baseline.
    ridges = [
        {**measure(data, fitted(partial(baselines.centred_ridge, strength=strength))), "strength": strength}
        for strength in baselines.RIDGE_STRENGTHS
    ]
    return {
        "spaces": list(data.case.spaces),
        "overlap": data.case.overlap,
        "outer": list(data.case.outer),
        "tasks": list(tasks_of(data)),
        "methods": {
            "chance": chance_figures(data),
            "centred_ridge": max(ridges, key=lambda figures: sum(figures[f"{task}/R@1"] for task in tasks_of(data))),
            "centred_procrustes": measure(data, fitted(baselines.centred_procrustes)),
            "overlap_posterior": measure(data, baselines.posterior(left, right, data.case.overlap)),
            method: measure(data, through(connection)),
            "soft": measure(data, through(soft)),
            "paired_oracle": measure(data, through(oracle)),
        },
        "retention": retention_of(data, connection),
    }


def ablate(data: EmbeddedCase, options: DemoOptions, progress: Callable[[float], None]) -> dict[str, Any]:
    """Measure the connection without each ingredient of the method in turn."""
    connections = connect_all([(data, changes) for changes in ABLATIONS.values()], options, progress)
    return {label: measure(data, through(found)) for label, found in zip(ABLATIONS, connections, strict=True)}


def measure_tasks(
    connection: Connection, seed: int, progress: Callable[[float], None]
) -> tuple[dict[str, Any], list[str]]:
    """Measure every run of the miniature world that a connection has the modalities for, on few items.

    Returns:
        by run, its figures by method and key; and heat maps of localization as data URIs.
    """
    measured: dict[str, Any] = {}
    heatmaps: list[str] = []
    runs = runs_for(connection)
    for number, run in enumerate(runs, start=1):
        items = _ITEMS.get(run.split("/", 1)[0], _OTHER_ITEMS)
        evaluation = next(evaluate_runs(connection, run, seed=seed, limit=items))
        measured[run] = {"items": items, "figures": evaluation.result["figures"]}
        if isinstance(evaluation.prepared, PreparedLocalization):
            answers = evaluation.prepared.answers(through(connection), _HEATMAPS)
            heatmaps += [png(draw_heatmap(evaluation.prepared.record, answer)) for answer in answers]
        progress(number / len(runs))
    return measured, heatmaps
