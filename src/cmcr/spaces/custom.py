"""Encoders of the user: callables, sentence-transformers-like and open_clip-like models, precomputed rows.

Each becomes a `Space` without touching cmcr; `cmcr.register_space` gives it a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cmcr.arrays import Array, rows_of, unit_rows
from cmcr.data.audio import read_audio
from cmcr.data.images import read_image, to_rgb
from cmcr.data.texts import read_text
from cmcr.errors import ConfigError, DimensionError, SampleError
from cmcr.spaces.tower import Tower, TowerSpace


class CustomSpace(TowerSpace):
    """A space made of one function per modality (a `Space`).

        space = cmcr.CustomSpace("mine", text=embed_texts, image=embed_images, fingerprint="resnet50-2026-11")

    Args:
        name: the space's name.
        fingerprint: what identifies model and preprocessing. cmcr cannot see into a function: change it whenever the
            embeddings change.
        decode: by modality, a function of one item, called ahead and from other threads; the result is what the
            modality's function gets. It raises `cmcr.errors.SampleError` for an item that cannot be read.
        **embed: by modality, a function of a list of items that returns `(B, D)` rows, numpy or torch. A row may depend
            on its own item only.

    The width of a modality is 0 in `widths` until it has been embedded for the first time. `encode(device=...)` is
    refused: a function computes where its author put its model.

    Raises:
        ConfigError: no function, or an empty name or fingerprint.
    """

    def __init__(
        self,
        name: str,
        *,
        fingerprint: str,
        decode: Mapping[str, Callable[[Any], Any]] | None = None,
        **embed: Callable[[list[Any]], Array],
    ) -> None:
        if not embed or not all(callable(function) for function in embed.values()):
            raise ConfigError(f"space {name!r}: expected a function per modality, got {sorted(embed)}.")
        if not name or not fingerprint:
            raise ConfigError("a space needs a name and a fingerprint: what identifies its model and preprocessing.")
        self.name = name
        self.fingerprint = fingerprint
        self._decode, self._embed = decode or {}, embed
        self._widths = dict.fromkeys(embed, 0)
        self.widths = self._widths

    def _move_to(self, device: torch.device) -> None:
        raise ConfigError(f"space {self.name!r} is your own: put its model on {str(device)!r} yourself.")

    def _tower(self, modality: str) -> Tower:
        def embed(items: list[Any]) -> Tensor:
            what = f"the {modality} function of space {self.name!r}"
            rows = rows_of(self._embed[modality](items), f"what {what} returned")
            if len(rows) != len(items):
                raise DimensionError(f"{what} returned {len(rows)} rows for {len(items)} items.")
            self._widths[modality] = rows.shape[1]
            return rows.detach()

        return Tower(self._widths[modality], self._decode.get(modality, lambda item: item), embed)


def from_sentence_transformers(
    model: Any, name: str, *, fingerprint: str, modality: str | Sequence[str] = "text", sample_rate_hz: int = 16_000
) -> CustomSpace:
    """Make a space of a sentence-transformers-like model: anything with `encode(list) -> (n, D)`.

    Args:
        model: such as `SentenceTransformer("all-MiniLM-L6-v2")`.
        name: the space's name.
        fingerprint: see `CustomSpace`.
        modality: what the model embeds, or several such as `("text", "image", "audio")`. Pictures reach it as upright RGB
            PIL images, sounds as `{"audio": {"array": ..., "sampling_rate": ...}}`, mono.
        sample_rate_hz: of the sounds that the model reads; others are resampled.

    Raises:
        ConfigError: the model has no `encode`.
    """
    if not callable(getattr(model, "encode", None)):
        raise ConfigError(f"expected a model with a method encode, got {type(model).__name__}.")

    def sound(item: Any) -> dict[str, Any]:
        return {"audio": {"array": read_audio(item, sample_rate_hz), "sampling_rate": sample_rate_hz}}

    decode = {"image": lambda item: to_rgb(read_image(item)), "audio": sound}
    modalities = (modality,) if isinstance(modality, str) else modality
    embed: dict[str, Any] = dict.fromkeys(modalities, lambda items: model.encode(items, convert_to_numpy=True))
    return CustomSpace(name, fingerprint=fingerprint, decode=decode, **embed)


def from_open_clip(
    model: Any,
    name: str,
    *,
    fingerprint: str,
    preprocess: Callable[[Any], Tensor],
    tokenizer: Callable[[list[str]], Tensor],
) -> CustomSpace:
    """Make a space of an open_clip-like model: anything with `encode_image` and `encode_text`.

    Args:
        model: as `open_clip.create_model_and_transforms` returns it, in evaluation mode.
        name: the space's name.
        fingerprint: see `CustomSpace`.
        preprocess: one upright RGB PIL image, what was transparent white -> `(3, H, W)`; called from other threads.
        tokenizer: texts -> `(n, L)` token ids.

    Raises:
        ConfigError: a model without the methods.
    """
    for method in ("encode_image", "encode_text"):
        if not callable(getattr(model, method, None)):
            raise ConfigError(f"expected a model with a method {method}, got {type(model).__name__}.")
    return CustomSpace(
        name,
        fingerprint=fingerprint,
        decode={"image": lambda item: preprocess(to_rgb(read_image(item))), "text": read_text},
        image=lambda pixels: model.encode_image(torch.stack(pixels)),
        text=lambda texts: model.encode_text(tokenizer(texts)),
    )


class PrecomputedSpace(CustomSpace):
    """A space whose rows were computed elsewhere: items are looked up by their ids.

    Args:
        name: the space's name.
        fingerprint: see `CustomSpace`.
        **rows: by modality, a pair of ids and `(n, D)` rows.

    Raises:
        ConfigError: no pair of ids and rows, or ids that occur twice.
        DimensionError: ids and rows of different number.
        EmbeddingsError: unusable rows.
    """

    def __init__(self, name: str, *, fingerprint: str, **rows: tuple[Sequence[str], Array]) -> None:
        tables: dict[str, Tensor] = {}
        row_of: dict[str, dict[str, int]] = {}
        for modality, given in rows.items():
            what = f"{modality} of space {name!r}"
            if not isinstance(given, Sequence) or len(given) != 2:
                raise ConfigError(f"{what}: expected a pair of ids and rows, got {type(given).__name__}.")
            ids, tables[modality] = given[0], unit_rows(given[1], what)
            row_of[modality] = {id_: row for row, id_ in enumerate(ids)}
            if len(ids) != len(tables[modality]):
                raise DimensionError(f"{what}: {len(ids)} ids for {len(tables[modality])} rows.")
            if len(row_of[modality]) != len(ids):
                raise ConfigError(f"{what}: {len(ids) - len(row_of[modality])} ids occur twice.")

        def find(modality: str, item: Any) -> int:
            try:
                return row_of[modality][item]
            except (KeyError, TypeError) as error:
                raise SampleError(f"space {name!r} has no precomputed {modality} with the id {item!r}.") from error

        super().__init__(
            name,
            fingerprint=fingerprint,
            decode={modality: partial(find, modality) for modality in tables},
            **{modality: table.__getitem__ for modality, table in tables.items()},
        )
        self._widths.update({modality: table.shape[1] for modality, table in tables.items()})
