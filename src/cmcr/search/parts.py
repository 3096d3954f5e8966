"""The parts of a query as rows: which encoder reads what, and one vector of them for each block that is searched."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.arrays import is_number, unit_rows
from cmcr.connection.connection import Connection
from cmcr.connection.references import check_encoders
from cmcr.errors import ConfigError, DimensionError, unknown_name
from cmcr.loading import check_encoder
from cmcr.memories.memories import MODALITIES
from cmcr.search.layout import Corpus
from cmcr.search.query import Part
from cmcr.spaces.registry import space as open_space

COMMON = "connection"
"""The scale of the common block of the connection; a space's own block has the space's name."""

_VANISHED = 1e-6  # of the sum of the weights

Row = NDArray[np.float32]


class Encoders:
    """The encoders of a connection: attached ones, and those that are opened by their model when they are first asked.

    Args:
        connection: whose spaces.
        options: by space, how to open it, such as ``{"clip": {"model": "openai/clip-vit-base-patch32"}}``.

    Attributes:
        modalities: what can be embedded.
        open: encoders by space.
    """

    def __init__(self, connection: Connection, options: Mapping[str, Mapping[str, Any]]) -> None:
        self._connection = connection
        self._spaces = {known.name: known for known in connection.spaces}
        self._options, self.open = options, dict(connection.encoders)
        self._locks = {name: threading.Lock() for name in self._spaces}
        ready = [known for known in connection.spaces if known.name in {*self.open, *options}]
        self.modalities = tuple(dict.fromkeys(modality for known in ready for modality in known.modalities))

    def spaces_for(self, modality: str) -> tuple[str, ...]:
        """Find the spaces that can embed a modality, by name, at least one; raises ConfigError if there is none."""
        known = [name for name, space in self._spaces.items() if modality in space.modalities]
        able = tuple(name for name in known if name in self.open or name in self._options)
        if not known:
            has = ", ".join(dict.fromkeys(m for space in self._spaces.values() for m in space.modalities))
            raise ConfigError(f"no space of this index embeds {modality}; it can be asked by {has}.")
        if not able:
            raise ConfigError(
                f"no encoder of space {known[0]!r} is attached, which would read {modality}. Give its model "
                f"(models={{{known[0]!r}: ...}}, --model {known[0]}=MODEL), or the space itself (encoders=[...])."
            )
        return able

    def embed(self, content: Any, modality: str, space: str) -> Row:
        """Embed one item: `(D,)`; raises SampleError if it cannot be decoded, and what opening the encoder raises."""
        with self._locks[space]:
            if space not in self.open:
                opened = open_space(space, **self._options[space])
                check_encoder(opened, self._spaces[space])
                check_encoders(replace(self._connection, encoders={space: opened}), most=1)
                self.open[space] = opened
            found = self.open[space].encode([content], modality, batch_size=1, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)[0]


@dataclass(frozen=True)
class Asked:
    """The parts of a query, each embedded once in each space that is asked for; the corpora are those of the index."""

    parts: Sequence[Part]
    connection: Connection
    encoders: Encoders
    corpora: Sequence[Corpus]
    _rows: dict[tuple[int, str], Row] = field(default_factory=dict)
    _spaces: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("nothing to search for: give a picture, a text, a sound, a point cloud or an item.")
        for part in self.parts:
            if part.modality not in MODALITIES:
                raise unknown_name("modality", part.modality, MODALITIES)
            if not is_number(part.weight) or part.weight == 0:
                raise ConfigError(f"weight: expected a finite number other than 0, got {part.weight!r}.")
            self._spaces.append(self._spaces_for(part))

    def spaces(self, number: int = 0) -> tuple[str, ...]:
        """Give the spaces that have a row of a part, at least one, that which is preferred first."""
        return self._spaces[number]

    def within(self, space: str) -> bool:
        """Whether every part can be had in this space, so that its own block can be searched."""
        return all(space in spaces for spaces in self._spaces)

    def row(self, number: int, space: str) -> Row:
        """Embed a part in a space: `(D,)` unit row."""
        if (number, space) not in self._rows:
            part = self.parts[number]
            embedded = self._embedded(part)
            found = embedded[space] if embedded else self.encoders.embed(part.content, part.modality, space)
            name = f"the query's {part.modality} in space {space!r}"
            width = next(known.width for known in self.connection.spaces if known.name == space)
            unit = unit_rows(np.asarray(found)[None], name).float().numpy()
            if unit.shape[1] != width:
                raise DimensionError(f"{name}: expected {width} numbers, got {unit.shape[1]}.")
            self._rows[number, space] = unit[0]
        return self._rows[number, space]

    def vector(self, scale: str, *, near: str | None = None, centred: bool = False) -> tuple[Row, float]:
        """Add up the parts by their weights.

        Args:
            scale: the name of a space, for its own block; or `COMMON`.
            near: in the common block, the space that reads what several can.
            centred: take from each part of the common block the mean of its modality in its space, as far as the index has
                such items.

        Returns:
            `(D,)` unit row, and how long the sum was.

        Raises:
            ConfigError: the parts cancel each other.
        """
        rows = [self._in_block(number, scale, near, centred) for number in range(len(self.parts))]
        total = np.array([part.weight for part in self.parts], dtype=np.float64) @ np.stack(rows)
        length = float(np.linalg.norm(total))
        if length <= _VANISHED * sum(abs(part.weight) for part in self.parts):
            raise ConfigError(
                "the parts of the query cancel each other: nothing is left to search for. Change their weights."
            )
        return (total / length).astype(np.float32), length

    def _in_block(self, number: int, scale: str, near: str | None, centred: bool) -> Row:
        if scale != COMMON:
            return self.row(number, scale)
        space = near if near in self.spaces(number) else self.spaces(number)[0]
        common = self.connection.common(self.row(number, space)[None], space)[0]
        for corpus in self.corpora if centred else ():
            if (corpus.space, corpus.modality) == (space, self.parts[number].modality):
                common = common - corpus.mean_common
        return common / max(float(np.linalg.norm(common)), 1e-12) if centred else common

    def _spaces_for(self, part: Part) -> tuple[str, ...]:
        """Find the spaces that have a row of the part; raises ConfigError where there is none, or not that which is forced."""
        names = [known.name for known in self.connection.spaces]
        if part.space is not None and part.space not in names:
            raise unknown_name("space", part.space, names)
        able = tuple(self._embedded(part) or self.encoders.spaces_for(part.modality))
        if part.space not in (None, *able):
            raise ConfigError(f"space {part.space!r} has no row of this {part.modality}; {' and '.join(able)} can.")
        return able if part.space is None else (part.space,)

    def _embedded(self, part: Part) -> Mapping[str, NDArray[np.floating]]:
        """Give the rows by space of a part that is embedded already: nothing for others, which an encoder must read."""
        content = part.content
        if is_item(content):
            corpus = next((each for each in self.corpora if 0 <= content - each.first < len(each)), None)
            if corpus is None:
                last = sum(map(len, self.corpora)) - 1
                raise ConfigError(f"item {content} is not there: the index has items 0 to {last}.")
            if corpus.modality != part.modality:
                raise ConfigError(f"item {content} is of modality {corpus.modality}, not {part.modality}.")
            return {corpus.space: corpus.own[content - corpus.first]}
        if isinstance(content, np.ndarray) and content.ndim == 1:  # no encoder reads an array of one axis
            if part.space is None:
                raise ConfigError("a part that is a vector needs its space: Part(modality, vector, space=...).")
            return {part.space: content}
        names = {known.name for known in self.connection.spaces}
        return content if isinstance(content, Mapping) and set(content) <= names else {}


def is_item(content: Any) -> bool:
    """Whether the content of a part is the number of an item."""
    return isinstance(content, int | np.integer) and not isinstance(content, bool)
