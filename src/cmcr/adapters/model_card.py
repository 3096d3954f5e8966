"""The model card of a connection: what was connected with what, how good it is, and whose licences count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cmcr._version import __version__
from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.evaluate import facts_of
from cmcr.evaluation.results import EVALUATION, read_result
from cmcr.evaluation.tasks.scores import told_by_another
from cmcr.spaces.mini.space import MINI_SPACES

UNKNOWN = "unknown"
_COLUMNS = {"connection": "this connection"}
_EXAMPLES = {"text": "a dog barks", "image": "dog.jpg", "audio": "dog.wav", "point_cloud": "dog.ply"}


class ParentModel(NamedTuple):
    """Where the encoders of a space come from.

    Attributes:
        space: its name.
        modalities: what it embeds.
        width: D.
        model: the repository, or the name of a folder; "" where no encoder is attached.
        revision: its commit; "" for a folder.
        fingerprint: of the encoders; "" where arrays were given.
        licence: `UNKNOWN` where nobody said.
    """

    space: str
    modalities: tuple[str, ...]
    width: int
    model: str
    revision: str
    fingerprint: str
    licence: str

    @property
    def outer(self) -> str:
        """The modality that it brings to the connection."""
        return self.modalities[-1]

    @property
    def published(self) -> bool:
        """Whether the model is named as a repository of the hub, not as a folder of its cache."""
        return bool(self.revision) and "/" in self.model


def parents_of(connection: Connection, licences: Mapping[str, str]) -> list[ParentModel]:
    """List the models that a connection was made of.

    Args:
        connection: with its encoders attached, as far as they are known.
        licences: of the models by the space's name.
    """
    return [
        ParentModel(
            known.name,
            known.modalities,
            known.width,
            facts["model"] or ("comes with cmcr" if known.name in MINI_SPACES else ""),
            facts["revision"] or "",
            facts["fingerprint"] or "",
            licences.get(known.name, "apache-2.0" if known.name in MINI_SPACES else UNKNOWN),
        )
        for known, facts in zip(connection.spaces, facts_of(connection)["spaces"], strict=True)
    ]


def plain_names(spaces: Iterable[str], others: str) -> dict[str, str]:
    """Give each space a name in which `_` stands for what matches the pattern `others`, and no two are alike."""
    found: dict[str, str] = {}
    for space in spaces:
        found[space] = re.sub(others, "_", space)
        while list(found.values()).count(found[space]) > 1:
            found[space] += "_"
    return found


def read_results(paths: Iterable[str | Path], connection: Connection) -> list[dict[str, Any]]:
    """Read what `cmcr evaluate --out` has written, and check that it is about this connection.

    Raises:
        FormatError, IntegrityError: not the result of an evaluation, or one that has changed.
        ConfigError: of another connection.
        ReadError: the system refuses to read it, or there is no such file.
    """
    weights, found = facts_of(connection)["weights_sha256"], []
    for path in map(Path, paths):
        result = read_result(path, EVALUATION)
        measured = result["connection"]["weights_sha256"]
        if measured != weights:
            raise ConfigError(f"{path}: measured of another connection, weights {measured[:12]}…, not {weights[:12]}….")
        found.append(result)
    return found


def card_of(
    connection: Connection,
    repository: str,
    *,
    results: Sequence[Mapping[str, Any]] = (),
    licences: Mapping[str, str] | None = None,
) -> str:
    """Write the card of a connection on the hub, in Markdown, without the block of metadata at its head.

    Args:
        connection: what is pushed.
        repository: its name, as in `cmcr.load`.
        results: of evaluations (`read_results`).
        licences: of the parents, by the space's name.
    """
    parents = parents_of(connection, licences or {})
    names = " + ".join(parent.space for parent in parents)
    sections = [
        f"# {names}, connected through {connection.overlap}",
        f"One vector space for {_listed(connection.modalities)}. The encoders of {_listed([p.space for p in parents])} stay as "
        "they are; here is one small map for each, learned without a pair of items across the spaces "
        "([C-MCR](https://arxiv.org/abs/2305.14381) and the methods of cmcr beyond it).",
        "## Use",
        _usage(parents, repository),
        "## What was connected",
        parents_table(parents),
        _made(connection),
        *_figures(results),
        *_diagnosis(connection),
        "## Licence",
        _licence(parents),
    ]
    return "\n\n".join(sections) + "\n"


def parents_table(parents: Sequence[ParentModel], *, licences: bool = True) -> str:
    """Write the parents as a table: by reference, never copied."""
    rows = [["space", "embeds", "width", "model", "revision", "licence"], ["---"] * 6]
    for parent in parents:
        model = parent.model or f"fingerprint `{parent.fingerprint or 'none'}`"
        linked = f"[{model}](https://huggingface.co/{model})" if parent.published else model
        commit = f"`{parent.revision[:12]}`" if parent.revision else ""
        rows.append([parent.space, ", ".join(parent.modalities), str(parent.width), linked, commit, parent.licence])
    return "\n".join(f"| {' | '.join(row if licences else row[:-1])} |" for row in rows)


def _usage(parents: Sequence[ParentModel], repository: str) -> str:
    """Show how to use it: by its encoders where they can be had, else by rows of them."""
    first, last = parents[0], parents[-1]
    if not all(parent.model for parent in parents):
        lines = [
            f'connection = cmcr.load("{repository}")',
            f'z = connection.project(embeddings, space="{last.space}")  # (n, {last.width}) rows of its encoder',
        ]
    else:
        made = {parent.space: parent for parent in parents if parent.space not in MINI_SPACES}
        opened = {name: made[space] for space, name in plain_names(made, r"\W|^(?=\d)").items()}
        given = f", encoders=[{', '.join(opened)}]" if opened else ""
        queries, answers = (f'connection.encode(["{_EXAMPLES[m]}"], "{m}")' for m in (last.outer, first.outer))
        lines = [
            *(
                f'{name} = cmcr.space("{p.space}", model="{p.model}"'
                + (f', revision="{p.revision}")' if p.published else ")")
                for name, p in opened.items()
            ),
            f'connection = cmcr.load("{repository}"{given})',
            f"connection.similarity({queries}, {answers})",
        ]
    return "\n".join(["```python", "import cmcr", "", *lines, "```"])


def _made(connection: Connection) -> str:
    memories = ", ".join(
        f"{known.outer_rows:,} rows of {_listed(known.modalities[1:])} in {known.name}"
        for known in connection.spaces
        if known.outer_rows
    )
    parts = [f"Method `{connection.method}`, fitted on {connection.overlap_rows:,} unpaired items of the overlap"]
    parts += [f", with memories of {memories}" if memories else "", f"; seed {connection.seed}, cmcr {__version__}. "]
    if connection.base is not None:
        parts.append(
            f"Rows of {connection.base} stay as they are, {connection.width} wide; all others are carried to them."
        )
    elif connection.own_share:
        parts.append(
            f"Rows are a direct sum, {connection.width} wide: a cosine within a space is nearly that space's own, and one "
            f"across spaces is {1 - connection.own_share:.3g} times that of the common block, so compare scores of one kind."
        )
    else:
        parts.append(f"Rows are {connection.width} wide.")
    return "".join(parts) + " All settings are in `config.json`."


def _figures(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write what was measured, with 95 % intervals, and what the parents keep of their own retrieval."""
    if not results:
        return ["## Figures", "None was given. Measure your own data: `cmcr evaluate CONNECTION --pairs TABLE`."]
    parts = ["## Figures", "Percent, with 95 % intervals over items; the seed of the training is not in them."]
    for result in results:
        figures, kept = result["figures"], result.get("kept") or {}
        rows = [["figure", *(_COLUMNS.get(name, name) for name in figures), *(["kept"] if kept else [])]]
        rows.append(["---"] * len(rows[0]))
        for key in figures["connection"]:
            if not told_by_another(key, figures):
                cells = [_percent(measured[key]) if key in measured else "" for measured in figures.values()]
                rows.append([key, *cells, *([f"{100 * kept[key]:.1f}" if key in kept else ""] if kept else [])])
        n = max(figure["n"] for figure in figures["connection"].values())
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts += [f"**{result['run']}**: {result['data']['name']}, n = {n:,}", table]
        if kept:
            parts.append("Kept: the share of what the space reaches by itself that it still reaches here (retention).")
    return parts


def _diagnosis(connection: Connection) -> list[str]:
    findings = connection.diagnose()
    if not findings:
        return []
    failed = [finding for finding in findings if not finding.ok]
    lines = [f"{len(findings) - len(failed)} of {len(findings)} checks on the unpaired rows passed."]
    lines += [f"- **{each.name}**, {each.where}: {each.message} {each.advice}" for each in failed]
    return ["## Diagnosis", "\n".join([lines[0], "", *lines[1:]]) if failed else lines[0]]


def _licence(parents: Sequence[ParentModel]) -> str:
    stated = ", ".join(f"{parent.space}: {parent.licence}" for parent in parents)
    return (
        "No weight of a parent is in this repository; they are named above and fetched from their own. Whoever uses the "
        f"connection uses them too, under their licences: {stated}."
    )


def _percent(figure: Mapping[str, Any]) -> str:
    value = f"{100 * figure['value']:.1f}"
    return value if figure["low"] is None else f"{value} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
