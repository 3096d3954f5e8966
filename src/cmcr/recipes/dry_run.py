"""Look at a recipe before it is run: is everything there, does it fit on the disk, how long will it take? Writes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from cmcr.connection.settings import settings_of
from cmcr.data.items import open_items
from cmcr.data.items.survey import Survey
from cmcr.errors import CmcrError, words_of
from cmcr.evaluation.datasets.records import Grounded, Judged, Labelled, Pairs
from cmcr.opening import load
from cmcr.recipes import costs, estimates
from cmcr.recipes.disk import disks_of, written_by
from cmcr.recipes.encoders import Encoders
from cmcr.recipes.reading import settings_in
from cmcr.recipes.recipe import EvaluationRecipe, MemoryRecipe, Recipe
from cmcr.recipes.stages import Stage, expected_of, read_data, stages_of
from cmcr.recipes.states import State, connection_inputs, connection_state, memory_state, result_state

_PROMPTS = 64  # a class, of cmcr's own ensembles
_NAMED = 3  # failures that are told in full


@dataclass
class StageCheck:
    """What is known of a stage.

    Attributes:
        stage: its name.
        state: see `State`.
        items: of its input; 0 where that is not known.
        bytes: of room on disk that it needs, for a while or for good.
        seconds: that it will take; None where that cannot be told.
        problems: why it cannot be done, and what would help.
        notes: what is worth knowing.
    """

    stage: str
    state: State = "missing"
    items: int = 0
    bytes: int = 0
    seconds: float | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DryRun:
    """What a dry run has found.

    Attributes:
        stages: in their order.
        problems: why the recipe cannot be run; empty if it can.
        bytes: of room on disk that all need.
        seconds: that it will take, as far as that is known.
        rates: items a second of every encoder, and operations a second.
    """

    stages: Sequence[StageCheck]
    problems: Sequence[str]
    bytes: int
    seconds: float
    rates: dict[str, float]

    @property
    def can_run(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems


def dry_run(recipe: Recipe, *, only: Sequence[str] = (), device: str = "auto") -> DryRun:
    """Check everything that a recipe needs, and estimate what it will take.

    Args:
        recipe: the recipe.
        only: kinds or names of stages; empty for all.
        device: where the recipe will compute.

    Raises:
        ConfigError: a stage or a device that does not exist.
    """
    check = _Check(recipe, device)
    wanted = stages_of(recipe, only)
    run = {"embed": check.embed, "connect": check.connect, "evaluate": check.evaluate}
    # Memories are looked at even where only what follows is asked for: that needs their rows and widths.
    every = {stage.name: run[stage.kind](stage) for stage in stages_of(recipe)}
    found = [every[stage.name] for stage in wanted]
    problems = [f"{stage.stage}: {problem}" for stage in found for problem in stage.problems]
    written = [(written_by(recipe, stage), check.bytes) for stage, check in zip(wanted, found, strict=True)]
    problems += [problem for disk in disks_of(written) for problem in disk.problems]
    return DryRun(
        found,
        problems,
        sum(s.bytes for s in found),
        sum(s.seconds or 0.0 for s in found),
        dict(sorted(check.rates.items())),
    )


class _Check:
    """Looks at the stages in their order, remembering what later ones need."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe = recipe
        self.device = device
        self.encoders = Encoders(recipe, fetch=False)
        self.rates: dict[str, float] = {}
        self.rows: dict[tuple[str, str], int] = defaultdict(int)
        self.widths: dict[str, int] = {}
        self.surveys: dict[tuple[str | None, ...], Survey] = {}
        self.refused: dict[str, str] = {}
        self.pending = False

    def embed(self, stage: Stage) -> StageCheck:
        """Look at the items and the encoders of a memory."""
        part = stage.part
        assert isinstance(part, MemoryRecipe)
        check = StageCheck(stage.name)
        survey, contents, entries = self._items(part, check)
        self.rows[part.space, part.modality] += check.items
        encoder = self._encoder(part.space, check)
        if encoder is not None and part.modality not in encoder.widths:
            check.problems.append(f"{encoder.name} has no {part.modality}: it has {', '.join(encoder.widths)}.")
            encoder = None
        if survey is None or encoder is None:
            self.pending = True
            return check
        try:
            known = memory_state(self.recipe, part, encoder, survey.count, survey.digest)
        except CmcrError as error:
            check.problems.append(words_of(error))
            return check
        check.state = known.state
        if known.state == "stale":
            check.problems.append(
                f"{self.recipe.path(part.out)} was made with something else ({known.why}). Choose another out, or move it away."
            )
        tried = estimates.sample(encoder, part.modality, contents, self._where)
        self.widths[part.space] = tried.width
        if tried.rate:
            self.rates[f"{part.modality} in {part.space}, items/s"] = tried.rate
        self._failures(tried, len(contents), check)
        self.pending |= known.state != "done"
        left = survey.count - known.items if known.state in ("begun", "to do") else 0
        check.bytes = costs.memory_bytes(left, tried.width, part.dtype, entries, part.shard_items) if left else 0
        check.seconds = left / tried.rate if tried.rate else None
        return check

    def connect(self, stage: Stage) -> StageCheck:
        """Look at the overlap, and count the operations of the training."""
        check = StageCheck(stage.name)
        lists: dict[str, list[Survey | None]] = defaultdict(list)
        for memory in self.recipe.overlap_memories:
            lists[memory.space].append(self.surveys.get(_key(memory)))
        known = {name: [survey for survey in several if survey] for name, several in lists.items()}
        counts = {name: sum(survey.count for survey in several) for name, several in known.items()}
        check.items = min(counts.values())
        whole = all(len(known[name]) == len(lists[name]) for name in lists)
        if whole and len({tuple(survey.digest for survey in several) for several in known.values()}) > 1:
            said = " and ".join(f"{count:,} in {name}" for name, count in counts.items())
            check.problems.append(
                f"the overlap, {self.recipe.overlap}, is not the same list in both spaces ({said}). Give both memories the "
                "same input and columns."
            )
        try:
            check.state, why = connection_state(self.recipe, None if self.pending else connection_inputs(self.recipe))
        except CmcrError as error:
            check.problems.append(words_of(error))
            return check
        if check.items == 0:
            check.state = "missing"
        elif why:
            check.notes.append(f"will be trained again: changed since: {why}")
        if check.state != "done":
            self.pending = True
            self._count(check)
        else:
            check.seconds = 0.0
        return check

    def evaluate(self, stage: Stage) -> StageCheck:
        """Look at the data of a run."""
        part = stage.part
        assert isinstance(part, EvaluationRecipe)
        check = StageCheck(stage.name)
        try:
            record, _ = read_data(self.recipe, part)
        except CmcrError as error:
            check.problems.append(words_of(error))
            return check
        sizes = sizes_of(record)
        check.items = max(sizes.values())
        if record.left_out:
            check.notes.append(f"{record.left_out:,} items are left out for want of files")
        check.state = "to do"
        if not self.pending:
            try:
                connection = load(self.recipe.path(self.recipe.connection.out))
                expected = expected_of(connection, record.digest, part)
                check.state, why = result_state(self.recipe.result_file(part), expected)
            except CmcrError as error:
                check.problems.append(words_of(error))
                return check
            if why:
                check.notes.append(f"will be measured again: changed since: {why}")
        if check.state == "done":
            check.seconds = 0.0
            return check
        check.bytes = costs.RESULT_BYTES
        check.seconds = self._embedding_seconds(sizes)
        return check

    @property
    def _where(self) -> str | None:
        return None if self.device == "auto" else self.device

    def _items(self, part: MemoryRecipe, check: StageCheck) -> tuple[Survey | None, list[Any], list[tuple[str, str]]]:
        """Count the items of a list, and read the first few of them."""
        try:
            items = open_items(
                self.recipe.path(part.input), part.modality, column=part.column, id_column=part.id_column
            )
            survey = self.surveys[_key(part)] = self.surveys.get(_key(part)) or items.survey()
            with closing(items.walk()) as walk:
                first = [(entry.id, entry.source, entry.read()) for entry in islice(walk, estimates.SAMPLE_ITEMS)]
        except CmcrError as error:
            check.problems.append(words_of(error))
            return None, [], []
        check.items = survey.count
        return survey, [content for _, _, content in first], [(id_, source) for id_, source, _ in first]

    def _encoder(self, name: str, check: StageCheck) -> Any:
        if name in self.refused:
            check.problems.append(self.refused[name])
            return None
        try:
            return self.encoders[name]
        except CmcrError as error:
            self.refused[name] = f"space {name!r} cannot be opened: {words_of(error)}"
            check.problems.append(self.refused[name])
            self.refused[name] = f"space {name!r} cannot be opened, as said above"
            return None

    def _failures(self, tried: estimates.Sample, count: int, check: StageCheck) -> None:
        if len(tried.failures) == count:
            check.problems.append(f"none of the first {count} items could be embedded: {tried.failures[0]}")
        else:
            check.notes += [f"cannot be embedded: {reason}" for reason in tried.failures[:_NAMED]]

    def _count(self, check: StageCheck) -> None:
        """Estimate what training takes, where rows and widths are known."""
        spaces = list(dict.fromkeys(memory.space for memory in self.recipe.memories))
        if any(name not in self.widths for name in spaces) or check.items < 2:
            return
        left, right = (self.widths[name] for name in spaces)
        settings = settings_of(self.recipe.connection.method, **settings_in(self.recipe.connection))
        check.bytes = costs.connection_bytes(check.items, left, right, settings)
        check.bytes += costs.state_bytes(check.items, left, right, settings)
        seconds = 0.0
        if settings.semantic_consistency:
            for name in spaces:
                check.bytes += costs.kept_bytes(check.items, self.widths[name])
                rows = sum(
                    n for (owner, modality), n in self.rows.items() if owner == name and modality != self.recipe.overlap
                )
                rate = estimates.consistency_rate(self.widths[name], self.device)
                self.rates[f"semantic consistency in {name}, GFLOP/s"] = rate / 1e9
                seconds += costs.consistency_operations(check.items, rows, self.widths[name]) / rate
        rate = estimates.training_rate(left, right, settings, self.device)
        self.rates["training, GFLOP/s"] = rate / 1e9
        check.seconds = seconds + costs.training_operations(check.items, left, right, settings) / rate

    def _embedding_seconds(self, sizes: dict[str, int]) -> float | None:
        """Estimate how long it takes to embed a data set, by the slower space where both embed a modality."""
        seconds = 0.0
        for modality, count in sizes.items():
            rates = [rate for name, rate in self.rates.items() if name.startswith(f"{modality} in ")]
            if not rates:
                return None
            seconds += count / min(rates)
        return seconds


def _key(memory: MemoryRecipe) -> tuple[str | None, ...]:
    return memory.input, memory.modality, memory.column, memory.id_column


def sizes_of(record: Pairs | Labelled | Grounded | Judged) -> dict[str, int]:
    """Count what is to be embedded of a data set, by modality."""
    if isinstance(record, Pairs):
        return dict(zip(record.modalities, (len(record.first), len(record.second)), strict=True))
    if isinstance(record, Labelled):
        return {record.modality: len(record.items), "text": _PROMPTS * len(record.classes)}
    return {"image": len(record.images), "audio": len(record.sounds)}
