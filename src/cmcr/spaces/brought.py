"""Encoders that the user brings: callables, sentence-transformers-like and open_clip-like models, precomputed rows.

Each becomes a `Space` without touching cmcr; `cmcr.register_space` gives it a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcr.arrays import Array, rows_of, unit_rows
from cmcr.data.images import read_image, to_rgb
from cmcr.data.texts import read_text
from cmcr.errors import ConfigError, DimensionError, SampleError
from cmcr.spaces.tower import Tower, TowerSpace


class BroughtSpace(TowerSpace):
    """A space made of one function per modality (a `Space`).

        space = cmcr.BroughtSpace("mine", text=embed_texts, image=embed_images, fingerprint="resnet50-2026-11")

    Args:
        name: the space's name.
        fingerprint: what identifies model and preprocessing. cmcr cannot see into a function: change it whenever the
            embeddings change.
        **embed: by modality, a function of a list of items that returns `(B, D)` rows, numpy or torch. A row may depend
            on its own item only.

    The width of a modality is 0 in `widths` until it has been embedded for the first time. `encode(device=...)` is
    refused: where a function computes is its own affair.

    Raises:
        ConfigError: no function, or an empty name or fingerprint.
    """

    def __init__(self, name: str, *, fingerprint: str, **embed: Callable[[list[Any]], Array]) -> None:
        if not embed or not all(callable(function) for function in embed.values()):
            raise ConfigError(f"space {name!r}: expected a function per modality, got {sorted(embed)}.")
        self._start(
            name,
            fingerprint,
            {modality: Tower(0, _as_it_is, self._checked(f, modality)) for modality, f in embed.items()},
        )

    def _start(self, name: str, fingerprint: str, towers: Mapping[str, Tower]) -> None:
        if not name or not fingerprint:
            raise ConfigError("a space needs a name and a fingerprint: what identifies its model and preprocessing.")
        self.name = name
        self.fingerprint = fingerprint
        self._towers = towers
        self._known_widths = {modality: tower.width for modality, tower in towers.items()}
        self.widths = self._known_widths

    def _place(self, device: torch.device) -> None:
        raise ConfigError(f"space {self.name!r} was brought by you: put its model on {str(device)!r} yourself.")

    def _opened_towers(self) -> AbstractContextManager[Mapping[str, Tower]]:
        widths = self._known_widths  # learned since the towers were made
        return nullcontext({m: replace(tower, width=widths[m]) for m, tower in self._towers.items()})

    def _checked(self, function: Callable[[list[Any]], Array], modality: str) -> Callable[[list[Any]], Tensor]:
        """Make sure that a user's function returns one row per item, and remember how wide they are."""

        def embed(items: list[Any]) -> Tensor:
            what = f"the {modality} function of space {self.name!r}"
            rows = rows_of(function(items), f"what {what} returned")
            if len(rows) != len(items):
                raise DimensionError(f"{what} returned {len(rows)} rows for {len(items)} items.")
            self._known_widths[modality] = rows.shape[1]
            return rows.detach()

        return embed


def from_sentence_transformers(model: Any, name: str, *, fingerprint: str, modality: str = "text") -> BroughtSpace:
    """Make a space of a sentence-transformers-like model: anything with `encode(list) -> (n, D)`.

    Args:
        model: such as `SentenceTransformer("all-MiniLM-L6-v2")`.
        name: the space's name.
        fingerprint: see `BroughtSpace`.
        modality: what the model embeds.

    Raises:
        ConfigError: the model has no `encode`.
    """
    if not callable(getattr(model, "encode", None)):
        raise ConfigError(f"expected a model with a method encode, got {type(model).__name__}.")
    return BroughtSpace(
        name, fingerprint=fingerprint, **{modality: lambda items: model.encode(items, convert_to_numpy=True)}
    )


def from_open_clip(
    model: Any,
    name: str,
    *,
    fingerprint: str,
    preprocess: Callable[[Any], Tensor] | None = None,
    tokenizer: Callable[[list[str]], Tensor] | None = None,
) -> BroughtSpace:
    """Make a space of an open_clip-like model: anything with `encode_image` and `encode_text`.

    Args:
        model: as `open_clip.create_model_and_transforms` returns it, in evaluation mode.
        name: the space's name.
        fingerprint: see `BroughtSpace`.
        preprocess: one upright RGB PIL image, what was transparent white -> `(3, H, W)`; called from other threads.
            Without it there is no image modality.
        tokenizer: texts -> `(n, L)` token ids; without it there is no text modality.

    Raises:
        ConfigError: neither of the two, or a model without the methods.
    """
    return _OpenClipSpace(model, name, fingerprint, preprocess, tokenizer)


class _OpenClipSpace(BroughtSpace):
    """See `from_open_clip`. It decodes before it embeds, so that an item which cannot be read is named by position."""

    def __init__(
        self,
        model: Any,
        name: str,
        fingerprint: str,
        preprocess: Callable[[Any], Tensor] | None,
        tokenizer: Callable[[list[str]], Tensor] | None,
    ) -> None:
        towers: dict[str, Tower] = {}
        if preprocess is not None and callable(getattr(model, "encode_image", None)):
            prepared = preprocess
            towers["image"] = Tower(
                0,
                lambda item: prepared(to_rgb(read_image(item))),
                self._checked(lambda pixels: model.encode_image(torch.stack(pixels)), "image"),
            )
        if tokenizer is not None and callable(getattr(model, "encode_text", None)):
            tokens = tokenizer
            towers["text"] = Tower(0, read_text, self._checked(lambda texts: model.encode_text(tokens(texts)), "text"))
        if not towers:
            raise ConfigError(
                "expected a model with encode_image and a preprocess, or with encode_text and a tokenizer, got "
                f"{type(model).__name__}."
            )
        self._start(name, fingerprint, towers)


class PrecomputedSpace(BroughtSpace):
    """A space whose rows were computed elsewhere: items are looked up by their ids.

    Args:
        name: the space's name.
        fingerprint: see `BroughtSpace`.
        **rows: by modality, a mapping of ids to rows `(D,)`, or a pair of ids and `(n, D)` rows.

    Raises:
        ConfigError: no rows, or ids that occur twice.
        DimensionError: ids and rows of different number.
        EmbeddingsError: unusable rows.
    """

    def __init__(
        self, name: str, *, fingerprint: str, **rows: Mapping[str, Array] | tuple[Sequence[str], Array]
    ) -> None:
        if not rows:
            raise ConfigError(f"space {name!r}: expected rows for at least one modality.")
        self._start(name, fingerprint, {modality: _lookup(name, modality, given) for modality, given in rows.items()})


def _lookup(space: str, modality: str, given: Mapping[str, Array] | tuple[Sequence[str], Array]) -> Tower:
    """Make a tower that finds rows by id."""
    if isinstance(given, Mapping):
        ids, stacked = list(given), np.stack([np.asarray(row) for row in given.values()])
    else:
        ids, stacked = list(given[0]), given[1]  # type: ignore[assignment]
    table = unit_rows(stacked, f"{modality} of space {space!r}")
    if len(ids) != len(table):
        raise DimensionError(f"{modality} of space {space!r}: {len(ids)} ids for {len(table)} rows.")
    row_of = {id_: row for row, id_ in enumerate(ids)}
    if len(row_of) != len(ids):
        raise ConfigError(f"{modality} of space {space!r}: {len(ids) - len(row_of)} ids occur twice.")

    def find(item: Any) -> int:
        try:
            return row_of[item]
        except (KeyError, TypeError) as error:
            raise SampleError(f"space {space!r} has no precomputed {modality} with the id {item!r}.") from error

    return Tower(table.shape[1], find, lambda found: table[torch.tensor(found)])


def _as_it_is(item: Any) -> Any:
    return item
