"""Read a recipe strictly: whatever is wrong with it is said at once, and nothing in it is ever run."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cmcr.connection.settings import settings_of
from cmcr.errors import ArtefactNotFoundError, ConfigError, ReadError
from cmcr.evaluation.evaluate import RUNS
from cmcr.extraction.failures import FailureLimit, parsed_limit
from cmcr.memories.layout import DTYPES
from cmcr.recipes.recipe import (
    ConnectionRecipe,
    EvaluationRecipe,
    MemoryRecipe,
    Recipe,
    SpaceRecipe,
    shared_modalities,
)
from cmcr.spaces.registry import space_names

Part = TypeVar("Part", SpaceRecipe, MemoryRecipe, ConnectionRecipe, EvaluationRecipe)

_KEYS = ("name", "description", "results", "spaces", "memories", "connection", "evaluations")
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda value: isinstance(value, str) and value != "", "a text that is not empty"),
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "Mapping[str, Any]": (lambda value: isinstance(value, dict), "a table"),
}


def read_recipe(path: str | Path, *, root: str | Path | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: of a TOML file; docs/recipes.md describes its keys.
        root: what relative paths begin from; None takes the folder of the recipe.

    Raises:
        ArtefactNotFoundError: there is no such file.
        ReadError: the system refuses to read it.
        ConfigError: not TOML; or everything that is wrong with it, each unknown key with the nearest valid one.
    """
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtefactNotFoundError(errno.ENOENT, "there is no recipe here", str(path)) from error
    except OSError as error:
        raise ReadError(error.errno or errno.EIO, f"could not read ({error.strerror})", str(path)) from error
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError are ones
        raise ConfigError(f"{path}: not a TOML file ({error}).") from error
    problems: list[str] = []
    recipe = _recipe(given, path, Path(root) if root is not None else path.parent, problems)
    if recipe is None or problems:
        raise ConfigError(f"{path}: " + "; ".join(problems) + ". See docs/recipes.md.")
    return recipe


def _recipe(given: Mapping[str, Any], path: Path, root: Path, problems: list[str]) -> Recipe | None:
    """Build the recipe; None where it cannot be, the reasons being in `problems`."""
    _unknown("", given, _KEYS, problems)
    spaces = {
        name: _part(SpaceRecipe, table, f"[spaces.{name}]", problems)
        for name, table in _table(given, "spaces", problems).items()
    }
    memories = [
        _part(MemoryRecipe, table, f"[[memories]] {number}", problems)
        for number, table in enumerate(_tables(given, "memories", problems), start=1)
    ]
    connection = _part(ConnectionRecipe, _table(given, "connection", problems), "[connection]", problems)
    evaluations = [
        _part(EvaluationRecipe, table, f"[[evaluations]] {number}", problems)
        for number, table in enumerate(_tables(given, "evaluations", problems, needed=False), start=1)
    ]
    texts = {}
    for key, default in (("name", path.stem), ("description", ""), ("results", "results")):
        texts[key] = given.get(key, default)
        if not isinstance(texts[key], str):
            problems.append(f"{key}: expected a text, got {texts[key]!r}")
    if problems or connection is None:  # what follows would only repeat it
        return None
    recipe = Recipe(
        **texts,
        root=root,
        spaces={name: known for name, known in spaces.items() if known is not None},
        memories=tuple(memory for memory in memories if memory is not None),
        connection=connection,
        evaluations=tuple(run for run in evaluations if run is not None),
    )
    problems += _disagreements(recipe)
    return recipe


def _part(kind: type[Part], table: Any, where: str, problems: list[str]) -> Part | None:
    """Build one part of the recipe from its table, checking keys and types; None where it cannot be."""
    if not isinstance(table, dict):
        problems.append(f"{where}: expected a table, got {table!r}")
        return None
    known = {field.name: field for field in dataclasses.fields(kind)}
    before = len(problems)
    _unknown(f"{where} ", table, known, problems)
    for name, field in known.items():
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in table:
            if missing:
                problems.append(f"{where} lacks {name}")
            continue
        fits, expected = _KINDS[str(field.type).removesuffix(" | None")]
        if not fits(table[name]):
            problems.append(f"{where} {name}: expected {expected}, got {table[name]!r}")
    return kind(**table) if len(problems) == before else None


def _unknown(where: str, table: Mapping[str, Any], known: Iterable[str], problems: list[str]) -> None:
    names = list(known)
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
            problems.append(f"{where}has no key {key!r} ({hint})" if where else f"no key {key!r} is known ({hint})")


def _table(given: Mapping[str, Any], key: str, problems: list[str]) -> Mapping[str, Any]:
    table = given.get(key)
    if not isinstance(table, dict) or not table:
        problems.append(f"expected a table [{key}{'.NAME' if key == 'spaces' else ''}], got {table!r:.40}")
        return {}
    return table


def _tables(given: Mapping[str, Any], key: str, problems: list[str], *, needed: bool = True) -> list[Any]:
    tables = given.get(key, [])
    if not isinstance(tables, list) or (needed and not tables):
        problems.append(f"expected tables [[{key}]], got {tables!r:.40}")
        return []
    return tables


def _disagreements(recipe: Recipe) -> list[str]:
    """Say what is wrong between parts, and in values that can be checked without looking at any data."""
    problems = []
    names = space_names()
    for name, known in recipe.spaces.items():
        if (kind := known.kind or name) not in names:
            problems.append(f"[spaces.{name}]: {_nearest('kind', kind, names)}")
        if taken := sorted({"model", "revision", "dtype"} & set(known.options)):
            problems.append(f"[spaces.{name}] options: {', '.join(taken)} stands beside the options, not in them")
    for number, memory in enumerate(recipe.memories, start=1):
        where = f"[[memories]] {number}"
        if memory.space not in recipe.spaces:
            problems.append(f"{where}: {_nearest('space', memory.space, recipe.spaces)}")
        if memory.dtype not in DTYPES:
            problems.append(f"{where}: {_nearest('dtype', memory.dtype, DTYPES)}")
        for count in ("batch_size", "shard_items", "expected_items"):
            if getattr(memory, count) is not None and getattr(memory, count) < 1:
                problems.append(f"{where} {count}: expected at least 1, got {getattr(memory, count)}")
        problems += _refused(f"{where} max_failures", partial(_check_limit, memory.max_failures))
    problems += _refused(
        "[connection]", lambda: settings_of(recipe.connection.method, **settings_in(recipe.connection))
    )
    problems += _unconnectable(recipe)
    problems += [
        f"[[evaluations]] {number}: {_nearest('run', run.run, RUNS)}"
        for number, run in enumerate(recipe.evaluations, start=1)
        if run.run not in RUNS
    ]
    problems += [f"two evaluations are {run!r}" for run in _repeated(run.run for run in recipe.evaluations)]
    places = [*(m.out for m in recipe.memories), recipe.connection.out, recipe.results]
    problems += [f"two parts write to {place!r}" for place in _repeated(places)]
    problems += [
        f"[[evaluations]] {run.run} limit: expected at least 1, got {run.limit}"
        for run in recipe.evaluations
        if run.limit is not None and run.limit < 1
    ]
    return problems


def _check_limit(given: str) -> None:
    FailureLimit(parsed_limit(given))


def settings_in(connection: ConnectionRecipe) -> dict[str, Any]:
    """Give the changes to the method's settings as the method takes them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in connection.settings.items()}


def _unconnectable(recipe: Recipe) -> list[str]:
    """Say why the memories are not two spaces, a shared modality in both and one more of each."""
    used = list(dict.fromkeys(memory.space for memory in recipe.memories))
    if len(used) != 2:
        return [f"expected memories of two spaces, got {len(used)} ({', '.join(used)})"]
    shared = shared_modalities(recipe.memories)
    overlap = recipe.connection.overlap
    if not shared:
        return [f"the memories of {' and '.join(used)} share no modality"]
    if overlap is None and len(shared) > 1:
        return [f"the memories share {', '.join(shared)}: choose one by overlap in [connection]"]
    if overlap is not None and overlap not in shared:
        return [f"[connection]: {_nearest('overlap', overlap, shared)}"]
    chosen = overlap or shared[0]
    problems = []
    for name in used:
        others = {memory.modality for memory in recipe.memories if memory.space == name} - {chosen}
        if len(others) != 1:
            found = ", ".join(sorted(others)) or "none"
            problems.append(f"space {name!r}: expected one modality besides the overlap {chosen!r}, got {found}")
    return problems


def _refused(where: str, check: Callable[[], object]) -> list[str]:
    try:
        check()
    except ConfigError as error:
        return [f"{where}: {str(error).rstrip('.')}"]
    return []


def _nearest(what: str, given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"unknown {what} {given!r} ({hint})"


def _repeated(given: Iterable[str]) -> list[str]:
    return [value for value, count in Counter(given).items() if count > 1]
