"""Plan a recipe: what each stage takes, before any data or weights are there. Opens no encoders, fetches and writes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cmcr.connection.settings import settings_of
from cmcr.errors import CmcrError, words_of
from cmcr.evaluation.evaluate import facts_of
from cmcr.evaluation.miniature import MINI_RECORDS
from cmcr.memories.writer import finished_contents
from cmcr.opening import load
from cmcr.recipes import costs
from cmcr.recipes.assumptions import Assumptions, known_width
from cmcr.recipes.connect_plan import PlannedSpace, connect_stages, time_steps
from cmcr.recipes.disk import written_by
from cmcr.recipes.dry_run import sizes_of
from cmcr.recipes.lists import Listed, listed
from cmcr.recipes.plan import Machine, Plan, StagePlan, plan_of
from cmcr.recipes.reading import settings_in
from cmcr.recipes.recipe import EvaluationRecipe, MemoryRecipe, Recipe
from cmcr.recipes.stages import Stage, read_data, stages_of
from cmcr.recipes.states import State, begun_items, connection_inputs, connection_state, result_state


def plan_recipe(
    recipe: Recipe, assumptions: Assumptions | None = None, *, only: Sequence[str] = (), device: str = "auto"
) -> Plan:
    """Plan a recipe by arithmetic; only the rate of matrix products is measured, for a second or two.

    Memories that are finished count with their real rows and widths; whether they are of the same encoders and lists, the dry
    run looks. Lists that are there are counted. Everything else is as the recipe (`expected_items`) and `assumptions` say,
    and what nobody says is told to be missing.

    Args:
        recipe: the recipe.
        assumptions: what the user says about data and encoders.
        only: kinds or names of stages; empty for all.
        device: where the recipe will compute.

    Raises:
        ConfigError: a stage that does not exist.
        DeviceError: a device that this machine does not have.
    """
    wanted = {stage.name for stage in stages_of(recipe, only)}
    planner = _Planner(recipe, assumptions or Assumptions(), device)
    run = {"embed": planner.embed, "connect": planner.connect, "evaluate": planner.evaluate}
    found: list[StagePlan] = []
    for stage in stages_of(recipe):
        if stage.name in wanted:
            found += run[stage.kind](stage)
        elif stage.kind == "embed":  # what follows needs its rows and width
            planner.embed(stage)
    return plan_of(recipe.name, planner.machine, found)


class _Planner:
    """Looks at the stages in their order, remembering what later ones need."""

    def __init__(self, recipe: Recipe, assumptions: Assumptions, device: str) -> None:
        self.recipe = recipe
        self.assumptions = assumptions
        self.settings = settings_of(recipe.connection.method, **settings_in(recipe.connection))
        self.machine = Machine(device, self.settings.precision)
        self.rows: dict[tuple[str, str], list[int | None]] = defaultdict(list)
        self.lists: dict[tuple[str | None, ...], Listed] = {}
        self.guessed: set[str] = set()
        self.widths = self._known_widths()
        self.pending = False

    def embed(self, stage: Stage) -> list[StagePlan]:
        """Plan a memory."""
        part = stage.part
        assert isinstance(part, MemoryRecipe)
        plan = StagePlan(stage.name, where=self.recipe.path(part.out))
        try:
            contents = finished_contents(self.recipe.path(part.out))
        except CmcrError as error:
            plan.problems.append(words_of(error))
            contents = None
        if contents is not None:
            self.rows[part.space, part.modality].append(contents.rows)
            plan.items = sum(shard.items for shard in contents.shards)
            plan.set_done()
            return [plan]
        self.pending = True
        items = self._items(part, plan)
        plan.items = None if items is None else items.count
        self.rows[part.space, part.modality].append(plan.items)
        width = self.widths.get(part.space)
        if width is None:
            plan.unknown.append(f"width of {part.space}: --width {part.space}=N")
        elif part.space in self.guessed:
            plan.notes.append(
                f"{part.space} is taken to be {width} wide; ULIP-2's coloured file is 1280: --width says so"
            )
        left = self._left(part, plan)
        if items is not None and left is not None:
            if width is not None:
                plan.writes = costs.memory_bytes(left, width, part.dtype, items.entries, part.shard_items)
            plan.reads = None if items.item_bytes is None else int(left * items.item_bytes)
        self._time_embedding(part, left, plan)
        return [plan]

    def connect(self, stage: Stage) -> list[StagePlan]:
        """Plan the steps of connecting."""
        plans = connect_stages(*self._spaces(), self.settings, self.machine, written_by(self.recipe, stage))
        try:
            state, why = connection_state(self.recipe, None if self.pending else connection_inputs(self.recipe))
        except CmcrError as error:
            plans[-1].problems.append(words_of(error))
            return plans
        if state == "done":
            for plan in plans:
                plan.set_done()
            return plans
        self.pending = True
        time_steps(plans, self.machine)
        for plan in plans:
            plan.unknown += self._missing_for_connecting() if plan.operations is None else []
        if why:
            plans[-1].notes.append(f"will be trained again: changed since: {why}")
        return plans

    def evaluate(self, stage: Stage) -> list[StagePlan]:
        """Plan a run: its items are embedded; scoring and intervals are not counted."""
        part = stage.part
        assert isinstance(part, EvaluationRecipe)
        plan = StagePlan(stage.name, writes=costs.RESULT_BYTES, where=written_by(self.recipe, stage))
        sizes = self._sizes(part, plan)
        if self._evaluated(part) == "done":
            plan.set_done()
            return [plan]
        seconds = [self._slowest(modality, count) for modality, count in sizes.items()]
        if seconds and None not in seconds:
            plan.seconds = sum(second for second in seconds if second is not None)
        else:
            plan.unknown.append("how long evaluations take: cmcr run --dry-run looks, once data and encoders are there")
        return [plan]

    def _known_widths(self) -> dict[str, int]:
        """Tell widths by finished memories, by what the user says, by what is published, in this order."""
        found: dict[str, int] = {}
        for name, given in self.recipe.spaces.items():
            width = self.assumptions.widths.get(name) or known_width(given.kind or name, given.model)
            if width is not None:
                found[name] = width
            if (given.kind or name) == "ulip" and name not in self.assumptions.widths:
                self.guessed.add(name)
        for part in self.recipe.memories:
            try:
                contents = finished_contents(self.recipe.path(part.out))
            except CmcrError:
                continue  # told at its stage
            if contents is not None and contents.width:
                found[part.space] = contents.width
                self.guessed.discard(part.space)
        return found

    def _items(self, part: MemoryRecipe, plan: StagePlan) -> Listed | None:
        """Count a memory's items: as the user says, else as its list is, else as the recipe expects."""
        said = self.assumptions.items_of(part)
        if said is not None:
            return Listed(said)
        key = part.input, part.modality, part.column, part.id_column
        try:
            self.lists[key] = self.lists.get(key) or listed(self.recipe, part)
        except CmcrError as error:
            if part.expected_items is not None:
                plan.notes.append(f"{part.input} cannot be counted here yet: planned with the recipe's expected_items")
                return Listed(part.expected_items)
            plan.notes.append(words_of(error))
            plan.unknown.append(f"items of {part.input}: --items '{part.input}'=COUNT")
            return None
        return self.lists[key]

    def _left(self, part: MemoryRecipe, plan: StagePlan) -> int | None:
        """Count the items that are still to be embedded."""
        done = begun_items(self.recipe.path(part.out))
        if done:
            plan.state = "begun"
        return None if plan.items is None else max(0, plan.items - done)

    def _time_embedding(self, part: MemoryRecipe, left: int | None, plan: StagePlan) -> None:
        name = f"{part.space}/{part.modality}"
        rate = self.assumptions.rates.get(name)
        if rate is None:
            plan.unknown.append(f"rate of {name}: --rate {name}=ITEMS_A_SECOND, or --rates FILE of a dry run")
        elif left is not None:
            plan.seconds = left / rate

    def _spaces(self) -> tuple[PlannedSpace, PlannedSpace]:
        names = dict.fromkeys(memory.space for memory in self.recipe.memories)
        left, right = (self._space(name) for name in names)
        return left, right

    def _space(self, name: str) -> PlannedSpace:
        outer = next(m for m in self.recipe.memories if m.space == name and m.modality != self.recipe.overlap)
        overlap_rows, outer_rows = (_sum(self.rows[name, m]) for m in (self.recipe.overlap, outer.modality))
        return PlannedSpace(name, self.widths.get(name), overlap_rows, outer_rows, outer.dtype)

    def _missing_for_connecting(self) -> list[str]:
        wanted = [f"width of {name}: --width {name}=N" for name in self.recipe.spaces if name not in self.widths]
        for part in self.recipe.memories:
            if None in self.rows[part.space, part.modality]:
                wanted.append(f"items of {part.input}: --items '{part.input}'=COUNT")
        return wanted

    def _sizes(self, part: EvaluationRecipe, plan: StagePlan) -> dict[str, int]:
        """Count the items of a data set by modality, where its annotations are there."""
        if part.run in MINI_RECORDS:  # drawing them takes seconds
            plan.items = part.limit or MINI_RECORDS[part.run][1]
            return {}
        try:
            sizes = sizes_of(read_data(self.recipe, part)[0])
        except CmcrError:
            return {}
        plan.items = max(sizes.values())
        return sizes

    def _slowest(self, modality: str, count: int) -> float | None:
        rates = [rate for name, rate in self.assumptions.rates.items() if name.endswith(f"/{modality}")]
        return count / min(rates) if rates else None

    def _evaluated(self, part: EvaluationRecipe) -> State:
        """Look whether a result is of the connection that is there; of which data it is, only the dry run looks."""
        if self.pending:
            return "to do"
        try:
            connection = load(self.recipe.path(self.recipe.connection.out))
        except CmcrError:
            return "to do"
        expected = {"weights_sha256": facts_of(connection)["weights_sha256"], "seed": part.seed}
        return result_state(self.recipe.result_file(part), expected)[0]


def _sum(counts: Sequence[int | None]) -> int | None:
    """Add counts; None where one of them is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
