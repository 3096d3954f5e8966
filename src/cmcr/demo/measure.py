"""What the demonstration measures: one retrieval task for every method, and the paper's tasks in small."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from cmcr.connection.connect import connect
from cmcr.connection.connection import Connection
from cmcr.connection.methods import settings_of
from cmcr.data.numbers import ALL_NUMBERS, UNSEEN_NUMBERS
from cmcr.demo.world import WIDE_GAP, EmbeddedCase, gap_of, with_gap
from cmcr.engine.device import cores
from cmcr.engine.precision import fast_float32
from cmcr.evaluation.ablations import ABLATIONS
from cmcr.evaluation.baselines import BASELINES, Method, own_space, through
from cmcr.evaluation.datasets.records import LocalizationRecord
from cmcr.evaluation.metrics import PerQuery
from cmcr.evaluation.runs import evaluate_runs, runs_for
from cmcr.evaluation.tasks.localization import Answer, PreparedLocalization
from cmcr.evaluation.tasks.retrieval import PreparedRetrieval
from cmcr.evaluation.tasks.scores import PerItem

TOP = (1, 5, 10)
PAPER, ORACLE = "c-mcr", "paired_oracle"
WITHOUT_CENTRING = "c-mcr without centring"

Job = tuple[EmbeddedCase, Mapping[str, Any]]
"""A case to connect, and keywords of `cmcr.connect`."""

_ITEMS = {"localization": 32, "counterfactual": 160}  # of the paper's tasks in small
_OTHER_ITEMS = 120
_PAIRS = PerQuery.one(ALL_NUMBERS)  # item i is number i in every test set


@dataclass(frozen=True)
class DemoOptions:
    """What a demonstration does.

    Attributes:
        seed: of the items, the training and the examples shown.
        method: how to connect (see `cmcr.connect`).
        ablations: measure the paper's ablations too.
        per_number: memory items per seen number and modality; 5 makes memories of 4000.
    """

    seed: int = 0
    method: str = "auto"
    ablations: bool = False
    per_number: int = 5


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
        Figures in percent: `audio_to_image/R@1`, its 95 % interval `audio_to_image/R@1/interval`, and
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
    """Compute what guessing gives: k in 1000, exactly, so that it has no interval."""
    kinds = itertools.product(tasks_of(data), ("", "/unseen"), TOP)
    return {f"{task}{unseen}/R@{k}": 100.0 * k / len(ALL_NUMBERS) for task, unseen, k in kinds}


def tasks_of(data: EmbeddedCase) -> tuple[str, str]:
    """Name the two directions of a case: from the right space to the left, and back."""
    left, right = data.case.outer
    return f"{right}_to_{left}", f"{left}_to_{right}"


def retention_of(data: EmbeddedCase, connection: Connection) -> dict[str, Any]:
    """Measure each space on its own pair of modalities, before and after its projector.

    Returns:
        By space: `before`, `after` (R@1 in percent, the mean of both directions over 1000 test items), `kept` (their
        ratio).
    """
    found = {}
    for own in data.own:
        pair = PreparedRetrieval(*own, _PAIRS)
        before, after = (100.0 * pair.score(each)["mean/R@1"].value for each in (own_space, through(connection)))
        found[own[0].space] = {"before": before, "after": after, "kept": after / before}
    return found


def jobs_of(data: EmbeddedCase, options: DemoOptions) -> dict[str, Job]:
    """List what a case is connected by, by name: the baselines, the paper, the method asked for, and the oracle.

    The oracle is the best learner that there is here, with true pairs in the place of semantically consistent rows.
    """
    wanted = {
        **BASELINES,
        PAPER: {"method": PAPER},
        options.method: {"method": options.method},
        ORACLE: {"method": "c-mcr-residual", "consistent": true_pairs(data, options.seed)},
    }
    return {name: (data, keywords) for name, keywords in wanted.items()}


def connect_all(jobs: Sequence[Job], options: DemoOptions, progress: Callable[[float], None]) -> list[Connection]:
    """Connect the spaces of every job.

    As many at once as there are cores, each on one thread: a second one makes such small steps only a quarter faster.
    """
    threads, shares, stopped = torch.get_num_threads(), [0.0] * len(jobs), threading.Event()

    def connected(number: int, job: Job) -> Connection:
        def report(stage: str, share: float) -> None:
            if stopped.is_set():
                raise CancelledError
            if stage != "semantic consistency":  # which is quick
                shares[number] = max(shares[number], share)
            progress(sum(shares) / len(shares))

        data, keywords = job
        return connect(
            *data.memories,
            overlap=data.case.overlap,
            seed=options.seed,
            device="cpu",  # the same figures on every kind of machine matter more here than speed
            progress=report,
            **keywords,
        )

    progress(0.0)
    pool = ThreadPoolExecutor(min(cores(), len(jobs)), initializer=torch.set_num_threads, initargs=(1,))
    try:
        with fast_float32():  # a switch of the whole process: the same bits whatever is trained at the same time
            return list(pool.map(connected, range(len(jobs)), jobs))
    finally:  # Ctrl-C too
        stopped.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def compare(data: EmbeddedCase, connections: Mapping[str, Connection], method: str) -> dict[str, Any]:
    """Measure the connections of `jobs_of` a case, and tell of the method's what there is to tell."""
    connection = connections[method]
    measured = {name: measure(data, through(each)) for name, each in connections.items()}
    return {
        "spaces": list(data.case.spaces),
        "overlap": data.case.overlap,
        "outer": list(data.case.outer),
        "tasks": list(tasks_of(data)),
        "methods": {"chance": chance_figures(data), **measured},
        "retention": retention_of(data, connection),
        "choice": connection.report.get("choice"),
        "diagnosis": [asdict(finding) for finding in connection.diagnose()],
    }


def ablate(data: EmbeddedCase, options: DemoOptions, progress: Callable[[float], None]) -> dict[str, Any]:
    """Measure the paper's method without each of its ingredients in turn."""
    connections = connect_all(
        [(data, {"method": PAPER, **changes}) for changes in ABLATIONS.values()], options, progress
    )
    return {label: measure(data, through(found)) for label, found in zip(ABLATIONS, connections, strict=True)}


def measure_wide_gap(
    data: EmbeddedCase, connection: Connection, options: DemoOptions, progress: Callable[[float], None]
) -> dict[str, Any]:
    """Measure what a wide modality gap does to the paper's form, to the same with rows centred, and beyond.

    Everything is connected as the spaces are and with their modalities moved apart. What is trained takes a quarter of its
    passes over the overlap, so that figures compare with each other only; rows are the common ones alone.

    Returns:
        `gaps`: by space, that of the embeddings, `before` they are moved and `wide`. `methods`: by name, `before` and
        `wide`, the figures of `measure`; `gap_left`, how far overlap and outer test items of a space lie apart in the
        common space; and `kept`, what is left there of a space's own retrieval; means of both spaces.
    """
    choice = connection.report.get("choice")
    ours = choice["chosen"].split(",")[0] if choice else options.method
    wanted = {name: {"method": name, "own_share": 0.0, **_quarter_of_passes(name)} for name in (PAPER, "cca", ours)}
    wanted = {WITHOUT_CENTRING: {**wanted[PAPER], "centring": False}, **wanted}
    cases = {"before": data, "wide": with_gap(data, WIDE_GAP)}
    jobs = list(itertools.product(wanted, cases))
    connections = connect_all([(cases[gap], wanted[name]) for name, gap in jobs], options, progress)
    methods: dict[str, Any] = {name: {} for name in wanted}
    for (name, gap), found in zip(jobs, connections, strict=True):
        kept = float(np.mean([space["kept"] for space in retention_of(cases[gap], found).values()]))
        figures = {"gap_left": gap_left(cases[gap], found), "kept": kept}
        methods[name][gap] = {**measure(cases[gap], through(found)), **figures}
    gaps = {
        own[0].space: {gap: gap_of(*(items.rows for items in each.own[number])) for gap, each in cases.items()}
        for number, own in enumerate(data.own)
    }
    return {"gaps": gaps, "method": ours, "methods": methods}


def _quarter_of_passes(method: str) -> dict[str, int]:
    epochs = getattr(settings_of(method), "epochs", None)
    return {"epochs": max(1, epochs // 4)} if epochs else {}


def gap_left(data: EmbeddedCase, connection: Connection) -> float:
    """Measure the modality gap of the common rows within a space, the mean of both spaces."""
    common = [[connection.common(items.rows, items.space) for items in own] for own in data.own]
    return float(np.mean([gap_of(*rows) for rows in common]))


def measure_tasks(
    connection: Connection, seed: int, progress: Callable[[float], None]
) -> tuple[dict[str, Any], list[tuple[LocalizationRecord, Answer]]]:
    """Measure every run of the miniature world that a connection has the modalities for, on few items.

    Returns:
        by run, its figures by method and key; and of localization the answers at the median of the map's cIoU, at its upper
        and at its lower quartile.
    """
    measured: dict[str, Any] = {}
    typical: list[tuple[LocalizationRecord, Answer]] = []
    runs = runs_for(connection)
    for number, run in enumerate(runs, start=1):
        items = _ITEMS.get(run.split("/", 1)[0], _OTHER_ITEMS)
        evaluation = next(evaluate_runs(connection, run, seed=seed, limit=items))
        measured[run] = {"items": items, "figures": evaluation.result["figures"]}
        if isinstance(evaluation.prepared, PreparedLocalization):
            answers = evaluation.prepared.answers(lambda e: connection.common(e.rows, e.space))
            rising = sorted(answers, key=lambda answer: answer.map_iou)
            typical += [(evaluation.prepared.record, rising[len(rising) * quarter // 4]) for quarter in (2, 3, 1)]
        progress(number / len(runs))
    return measured, typical
