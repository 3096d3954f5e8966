"""Run a recipe: embed, connect, evaluate. What is done stays; stopped anywhere, the same call goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmcr.connection.checkpoint import remove_checkpoint, unfinished
from cmcr.connection.connect import connect
from cmcr.connection.connection import Connection
from cmcr.errors import unknown_name
from cmcr.evaluation.evaluate import evaluate, facts_of
from cmcr.evaluation.reading import record_of
from cmcr.extraction.embed import embed
from cmcr.extraction.failures import parsed_limit
from cmcr.files import write_text_whole
from cmcr.memories.memory import Memory
from cmcr.opening import load
from cmcr.recipes.encoders import Encoders
from cmcr.recipes.reading import settings_in
from cmcr.recipes.recipe import EvaluationRecipe, MemoryRecipe, Recipe
from cmcr.recipes.states import (
    claim_connection,
    connection_inputs,
    connection_state,
    read_result,
    record_connection,
    result_state,
)
from cmcr.recipes.target import check_place

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done, in (0, 1]."""

KINDS = ("embed", "connect", "evaluate")


@dataclass(frozen=True)
class Stage:
    """A step of a recipe whose result is kept.

    Attributes:
        kind: one of `KINDS`.
        part: what of the recipe it carries out; None for the connection.
    """

    kind: str
    part: MemoryRecipe | EvaluationRecipe | None = None

    @property
    def name(self) -> str:
        """How it is called, such as "embed memories/text-in-clip"."""
        if isinstance(self.part, MemoryRecipe):
            return f"{self.kind} {self.part.out}"
        return self.kind if self.part is None else f"{self.kind} {self.part.run}"


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes:
        stage: its name.
        state: "done earlier" or "finished".
        seconds: that it took.
        facts: of its result.
    """

    stage: str
    state: str
    seconds: float
    facts: Mapping[str, Any]


def stages_of(recipe: Recipe, only: Sequence[str] = ()) -> list[Stage]:
    """List the stages of a recipe in their order.

    Args:
        recipe: the recipe.
        only: kinds or names of stages; empty for all.

    Raises:
        ConfigError: none is called so.
    """
    every = [
        *(Stage("embed", memory) for memory in recipe.memories),
        Stage("connect"),
        *(Stage("evaluate", run) for run in recipe.evaluations),
    ]
    known = {*KINDS, *(stage.name for stage in every)}
    for name in only:
        if name not in known:
            raise unknown_name("stage", name, known)
    return [stage for stage in every if not only or stage.kind in only or stage.name in only]


def run_recipe(
    recipe: Recipe, *, only: Sequence[str] = (), device: str = "auto", progress: Progress | None = None
) -> Iterator[Outcome]:
    """Carry out a recipe, stage by stage.

    A stage is left out where its result is there and was made from the same inputs with the same settings. A memory knows
    its items and encoders, and refuses others; a connection is trained again when its memories or settings have changed; a
    run is measured again when the connection or the data have.

    Args:
        recipe: the recipe.
        only: kinds or names of stages; empty for all.
        device: where to compute: "auto", "cpu", "cuda", ...
        progress: see `Progress`.

    Yields:
        what became of each stage, when it is done.

    Raises:
        CmcrError: whatever a stage raises; those before it are kept.
    """
    tell = progress or (lambda what, share: None)
    encoders = Encoders(recipe)
    run = {"embed": _embed, "connect": _connect, "evaluate": _evaluate}
    for stage in stages_of(recipe, only):
        start = time.perf_counter()
        state, facts = run[stage.kind](recipe, stage, encoders, device, tell)
        yield Outcome(stage.name, state, round(time.perf_counter() - start, 2), facts)


_Made = tuple[str, dict[str, Any]]


def _embed(recipe: Recipe, stage: Stage, encoders: Encoders, device: str, progress: Progress) -> _Made:
    """Embed one memory; its writer knows what is done and refuses to mix inputs."""
    assert isinstance(stage.part, MemoryRecipe)
    part = stage.part
    counts = {"items": 0, "done": 0}
    began = False

    def tell(event: str, facts: Mapping[str, Any]) -> None:
        nonlocal began
        if event == "started":
            began = True
            counts["items"], counts["done"] = facts["items"], facts["done"]
        elif event == "items":
            counts["done"] += facts["count"]
            progress(stage.name, counts["done"] / counts["items"])

    memory = embed(
        encoders[part.space],
        part.modality,
        recipe.path(part.input),
        recipe.path(part.out),
        column=part.column,
        id_column=part.id_column,
        batch_size=part.batch_size,
        dtype=part.dtype,
        shard_items=part.shard_items,
        max_failures=parsed_limit(part.max_failures),
        device=None if device == "auto" else device,
        on_event=tell,
    )
    facts = {
        "out": part.out,
        "rows": len(memory),
        "width": memory.width,
        "quarantined": sum(contents.quarantined for contents in memory.contents),
    }
    return "finished" if began else "done earlier", facts


def _connect(recipe: Recipe, stage: Stage, encoders: Encoders, device: str, progress: Progress) -> _Made:
    """Train the connection, unless one of the same memories and settings is there."""
    part = recipe.connection
    out = recipe.path(part.out)
    inputs = connection_inputs(recipe)
    state, _ = connection_state(recipe, inputs)
    if state == "done":
        return "done earlier", _connection_facts(part.out, load(out))
    check_place(out)
    connection = connect(
        *_memories(recipe),
        overlap=recipe.overlap,
        method=part.method,
        seed=part.seed,
        device=device,
        progress=progress,
        checkpoint=unfinished(out),
        **settings_in(part),
    )
    claim_connection(out)
    connection.save(out)
    record_connection(out, inputs)
    remove_checkpoint(unfinished(out))
    return "finished", _connection_facts(part.out, connection)


def _memories(recipe: Recipe) -> list[Memory]:
    """Open the memories, those of one kind as one."""
    kinds: dict[tuple[str, str], list[MemoryRecipe]] = {}
    for memory in recipe.memories:
        kinds.setdefault((memory.space, memory.modality), []).append(memory)
    return [Memory(*(recipe.path(memory.out) for memory in several)) for several in kinds.values()]


def _connection_facts(out: str, connection: Connection) -> dict[str, Any]:
    return {
        "out": out,
        "overlap_rows": connection.overlap_rows,
        "width": connection.width,
        "final_loss": connection.history["total"][-1],
    }


def _evaluate(recipe: Recipe, stage: Stage, encoders: Encoders, device: str, progress: Progress) -> _Made:
    """Measure the connection on one data set, unless it was measured on the same items."""
    assert isinstance(stage.part, EvaluationRecipe)
    part = stage.part
    connection = load(recipe.path(recipe.connection.out), encoders=encoders.all())
    record, prompts = read_data(recipe, part)
    file = recipe.result_file(part)
    state, _ = result_state(file, expected_of(connection, record.digest, part))
    if state == "done":
        return "done earlier", read_result(file) or {}
    evaluation = evaluate(
        connection,
        part.run,
        record,
        prompts=prompts,
        seed=part.seed,
        progress=lambda what, share: progress(f"{stage.name}: {what}", share),
    )
    write_text_whole(file, json.dumps(evaluation.result, indent=2) + "\n")
    return "finished", dict(evaluation.result)


def expected_of(connection: Connection, data_digest: str, part: EvaluationRecipe) -> dict[str, Any]:
    """Say what the result of a run must say to be of this connection and this data."""
    return {
        "weights_sha256": facts_of(connection)["weights_sha256"],
        "data_sha256": data_digest,
        "seed": part.seed,
    }


def read_data(recipe: Recipe, part: EvaluationRecipe) -> tuple[Any, Sequence[Sequence[str]] | None]:
    """Read the data of a run (see `cmcr.evaluation.reading.record_of`)."""
    return record_of(
        part.run,
        None if part.data is None else recipe.path(part.data),
        split=part.split,
        limit=part.limit,
        allow_missing=part.allow_missing,
        seed=part.seed,
    )
