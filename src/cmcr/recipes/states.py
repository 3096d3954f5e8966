"""What of a recipe is done: found out without writing, and told from results of other inputs or settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cmcr.connection.artefact import FORMAT as CONNECTION
from cmcr.connection.artefact import VERSION as CONNECTION_VERSION
from cmcr.connection.settings import settings_of
from cmcr.errors import ConfigError
from cmcr.evaluation.evaluate import FORMAT as RESULT
from cmcr.evaluation.evaluate import VERSION as RESULT_VERSION
from cmcr.extraction.embed import origin_of
from cmcr.files import MANIFEST, parsed_manifest, write_text_whole
from cmcr.memories.layout import RUN, Run
from cmcr.memories.plan import versions_here
from cmcr.memories.writer import finished_contents
from cmcr.recipes.reading import settings_in
from cmcr.recipes.recipe import MemoryRecipe, Recipe
from cmcr.spaces.protocol import Space

MADE_FROM = "cmcr made from"
MADE_FROM_VERSION = 1

State = Literal["done", "begun", "to do", "stale", "missing"]
"""Of a stage: stale is done, but from something else; missing cannot be done for want of something."""


@dataclass(frozen=True)
class MemoryState:
    """How far a memory is.

    Attributes:
        state: "stale" where the writer will refuse to go on.
        items: that have a row or are in quarantine.
        why: of a stale one.
    """

    state: State
    items: int
    why: str = ""


def memory_state(recipe: Recipe, memory: MemoryRecipe, encoder: Space, count: int, digest: str) -> MemoryState:
    """Say how far a memory is, by the rules of its writer.

    Args:
        recipe: the recipe.
        memory: which.
        encoder: its space.
        count: items of the list as it is now.
        digest: of the list as it is now.

    Raises:
        ArtefactError: something else is in its folder, or the manifest is damaged.
    """
    folder = recipe.path(memory.out)
    contents = finished_contents(folder)
    run = Run(count, digest, memory.shard_items, versions_here())
    origin = origin_of(encoder, memory.modality, memory.dtype)
    if contents is None:
        done = begun_items(folder)
        return MemoryState("begun" if done else "to do", done)
    done = sum(shard.items for shard in contents.shards)
    if contents.origin == origin and any(_same(run, earlier) for earlier in contents.runs):
        return MemoryState("done", done)
    was = {**asdict(contents.origin), **asdict(contents.runs[0])}
    now = {**asdict(origin), **asdict(run)}
    return MemoryState("stale", done, ", ".join(key for key in was if was[key] != now[key]))


def begun_items(folder: Path) -> int:
    """Count the items in the finished shards of a memory that is not finished itself."""
    return sum(json.loads(path.read_bytes())["items"] for path in folder.glob(f"{RUN}/shard-*.json"))


def _same(run: Run, earlier: Run) -> bool:
    return asdict(run) == asdict(earlier)


def connection_inputs(recipe: Recipe) -> dict[str, Any]:
    """Say what a connection is made from: method, every setting, seed, overlap and the memories' manifests.

    Raises:
        ArtefactNotFoundError: a memory is not finished.
    """
    part = recipe.connection
    return {
        "method": part.method,
        "settings": json.loads(json.dumps(asdict(settings_of(part.method, **settings_in(part))))),
        "seed": part.seed,
        "overlap": recipe.overlap,
        "memories": {memory.out: manifest_digest(recipe.path(memory.out)) for memory in recipe.memories},
    }


def manifest_digest(folder: Path) -> str:
    """Hash a memory's manifest, which holds the hashes of all its files.

    Raises:
        ArtefactError: it is not finished, or is something else.
    """
    finished = finished_contents(folder)
    if finished is None:
        raise ConfigError(f"{folder}: this memory is not finished. Run the stage that embeds it first.")
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def connection_state(recipe: Recipe, inputs: Mapping[str, Any] | None) -> tuple[State, str]:
    """Say whether the connection is there, and made from these inputs.

    Args:
        recipe: the recipe.
        inputs: from `connection_inputs`; None where memories are still to be made.

    Returns:
        The state, and of a stale connection what differs.

    Raises:
        ConfigError: a connection is there that no recipe has made.
        ArtefactError: something else is there, or it is damaged.
    """
    folder = recipe.path(recipe.connection.out)
    if not (folder / MANIFEST).exists():
        return "to do", ""
    seal = connection_seal(folder)
    made_from = _read(made_from_file(folder), MADE_FROM, MADE_FROM_VERSION)
    if made_from is None:
        raise ConfigError(
            f"{folder}: there is a connection that this recipe has not made ({made_from_file(folder).name} is missing). Move "
            "it away, or choose another out in [connection]."
        )
    if made_from.get("connection") != seal:
        return "to do", ""  # stopped between the connection and the record, or before a new connection was whole
    if inputs is None:
        return "stale", "memories"
    differing = [key for key in inputs if made_from["inputs"].get(key) != inputs[key]]
    return ("stale", ", ".join(differing)) if differing else ("done", "")


def made_from_file(connection: Path) -> Path:
    """Name the file, beside a connection, that says what it was made from."""
    return connection.with_name(f"{connection.name}.made-from.json")


def claim_connection(connection: Path) -> None:
    """Say, before a connection is written, that a recipe makes it: what is there afterwards may be replaced."""
    _write_made_from(connection, None, {})


def record_connection(connection: Path, inputs: Mapping[str, Any]) -> None:
    """Say what the connection that is there was made from."""
    _write_made_from(connection, connection_seal(connection), inputs)


def connection_seal(connection: Path) -> str:
    """Hash the manifest of a connection.

    Raises:
        ArtefactError: it is not whole.
    """
    parsed_manifest(connection, CONNECTION, CONNECTION_VERSION)
    return hashlib.sha256((connection / MANIFEST).read_bytes()).hexdigest()


def result_state(file: Path, expected: Mapping[str, Any]) -> tuple[State, str]:
    """Say whether a result is there, and of this connection, this data and this seed.

    Args:
        file: of the result.
        expected: what it must say, by "weights_sha256", "data_sha256" and "seed".

    Returns:
        The state, and of a stale result what differs.
    """
    result = read_result(file)
    if result is None:
        return "to do", ""
    was = {
        "weights_sha256": result["connection"]["weights_sha256"],
        "data_sha256": result["data"]["sha256"],
        "seed": result["seed"],
    }
    differing = [key.removesuffix("_sha256") for key in expected if was[key] != expected[key]]
    return ("stale", ", ".join(differing)) if differing else ("done", "")


def read_result(file: Path) -> dict[str, Any] | None:
    """Read the result of a run; None where there is none, or one of another version."""
    return _read(file, RESULT, RESULT_VERSION)


def _write_made_from(connection: Path, seal: str | None, inputs: Mapping[str, Any]) -> None:
    content = {"format": MADE_FROM, "version": MADE_FROM_VERSION, "connection": seal, "inputs": inputs}
    write_text_whole(made_from_file(connection), json.dumps(content, indent=2) + "\n")


def _read(file: Path, expected_format: str, version: int) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    known = isinstance(content, dict) and (content.get("format"), content.get("version")) == (expected_format, version)
    return content if known else None
