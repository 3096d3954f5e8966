"""More than two spaces: a method connects every two that are linked, chains of links all others.

The common row of a space has a block for every pair of spaces, zero where the space is not of the pair:

    u(x) = 1 / sqrt(S - 1) [ c_12(x) | c_13(x) | c_23(x) | ... ],    S spaces.

So a cosine between two spaces is that of their own block. The block of a linked pair is what the method finds for these two
alone. A pair without a link, such as sounds and point clouds, meets in the common space of each link on the way between
them, with equal shares: over clap - clip - ulip a sound is compared with a point cloud that was carried into clip, by the
maps of clap - clip, and, carried into clip, with the point cloud by the maps of clip - ulip. To carry is the centred ridge
between two overlaps; the row arrives where the mean of that overlap is, so that the gap between the modalities of the space
in the middle, where one side arrives as text and the other as image, is the map's to close, as it is of any two rows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from cmcr.connection.links import Link, path_of
from cmcr.connection.maps import Blocks, Chain, Identity, Map, Mixture, Shift
from cmcr.connection.methods import METHODS
from cmcr.connection.methods.fitting import Parent, Run, mean_and_covariance
from cmcr.connection.methods.linear import RidgeSettings, ridge
from cmcr.connection.settings import MethodSettings
from cmcr.errors import ConfigError, unknown_name


class Joined(NamedTuple):
    """What was found for any number of spaces.

    Attributes:
        maps: by the space's name.
        history: the loss terms of every training step; of several links by their names too, as "clip + clap: total".
        report: what the method reports; of several links by their names.
    """

    maps: Mapping[str, Map]
    history: Mapping[str, list[float]] = {}
    report: Mapping[str, Any] = {}


def join(
    links: Sequence[Link], names: Sequence[str], base: str | None, method: str, settings: MethodSettings, run: Run
) -> Joined:
    """Give every space a map, into the common space of all or into the coordinates of a base.

    Args:
        links: between the spaces.
        names: of the spaces.
        base: the space whose rows stay as they are: into it, rows are carried over the last link by the method and before
            it by the centred ridge.
        method: its name.
        settings: its settings.
        run: how to fit it.

    Raises:
        ConfigError: no such base, or a method that leaves none as it is.
    """
    if base is not None:
        return Joined(_into(base, links, names, method, settings, run))
    fitted = {link.names: METHODS[method].fit(*link.parents, settings, _run_of(link, links, run)) for link in links}
    side: dict[tuple[str, str], Map] = {}  # of a space, in its link with another
    for (left, right), found in fitted.items():
        side |= {(left, right): found.left, (right, left): found.right}
    if len(names) == 2:
        ((left, right), found), *_ = fitted.items()
        return Joined({left: found.left, right: found.right}, found.history, found.report)
    width = 0
    blocks: dict[str, list[tuple[int, Map]]] = {name: [] for name in names}
    for left, right in combinations(names, 2):
        path = path_of(links, left, right)
        block = _side_by_side(_met(links, path, side))
        blocks[left].append((width, block))
        blocks[right].append((width, _side_by_side(_met(links, path[::-1], side)[::-1])))
        width += block.width
    maps = {name: Blocks([part for _, part in own], [start for start, _ in own], width) for name, own in blocks.items()}
    history = {f"{' + '.join(pair)}: {term}": s for pair, one in fitted.items() for term, s in one.history.items()}
    return Joined(maps, history, {" + ".join(pair): dict(one.report) for pair, one in fitted.items() if one.report})


def _into(
    base: str, links: Sequence[Link], names: Sequence[str], method: str, settings: MethodSettings, run: Run
) -> dict[str, Map]:
    """Carry all spaces into the coordinates of one."""
    if base not in names:
        raise unknown_name("base", base, names)
    into = METHODS[method].into
    if into is None:
        able = ", ".join(name for name, known in METHODS.items() if known.into)
        raise ConfigError(f"base: the method {method!r} leaves no space as it is; these do: {able}.")
    maps: dict[str, Map] = {}
    for link in links:
        if base in link.names:
            (near,) = set(link.names) - {base}
            leaf, kept = _ends(links, near, base)
            how, there = settings, _run_of(link, links, run)
            if base == link.right.space:
                how, there = settings.swapped(), replace(there, consistent=there.consistent[::-1])
            maps |= {base: Identity(kept.width), near: into(kept, leaf, how, there)}
    for name in names:
        if name not in maps:
            *before, _ = path_of(links, name, base)
            maps[name] = _carried(links, before, maps[before[-1]])
    return maps


def _met(links: Sequence[Link], path: Sequence[str], side: Mapping[tuple[str, str], Map]) -> list[Map]:
    """Map the first space of a path into the common space of each link on it, in the order of the path."""
    return [_carried(links, path[:end], side[path[end - 1], path[end]]) for end in range(1, len(path))]


def _side_by_side(parts: Sequence[Map]) -> Map:
    return parts[0] if len(parts) == 1 else Mixture(parts, [1 / len(parts)] * len(parts))


def _carried(links: Sequence[Link], path: Sequence[str], then: Map) -> Map:
    """Carry rows of the first space of a path into the last one, then map them."""
    parts: list[Map] = []
    for leaf, kept in (_ends(links, *names) for names in pairwise(path)):
        arrive = Shift(kept.width)
        mean, covariance = mean_and_covariance(kept.overlap)
        arrive.mean.copy_(mean)
        arrive.scale.copy_(covariance.trace().sqrt())
        parts += [ridge(kept, leaf, RidgeSettings(), Run()).right, arrive]
    then = copy.deepcopy(then)  # what shares memory cannot be saved
    return Chain([*parts, then]) if parts else then


def _ends(links: Sequence[Link], one: str, other: str) -> tuple[Parent, Parent]:
    """Give the rows of two linked spaces."""
    link = next(link for link in links if set(link.names) == {one, other})
    parents = dict(zip(link.names, link.parents, strict=True))
    return parents[one], parents[other]


def _run_of(link: Link, links: Sequence[Link], run: Run) -> Run:
    """Report each of several links by the names of its spaces."""
    report = run.progress
    if len(links) == 1 or report is None:
        return run
    return replace(run, progress=lambda stage, done: report(f"{stage}, {' + '.join(link.names)}", done))
