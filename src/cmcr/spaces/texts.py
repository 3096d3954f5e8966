"""Texts as token ids: cut to what an encoder reads, padded, and the cut ones reported once a call."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_SHOWN = 40  # characters


class TruncatedTexts:
    """Counts the texts of one call that were cut; not which ones, of which there may be millions.

    Args:
        space: the name of the space, for the warning.
    """

    def __init__(self, space: str) -> None:
        self._space = space
        self._count = 0
        self._first = ""
        self._length = 0

    def add(self, text: str, length: int) -> None:
        """Count a text of which the first `length` tokens are embedded."""
        if not self._count:
            self._first, self._length = text[:_SHOWN], length
        self._count += 1

    def warn(self) -> None:
        """Warn if any text was cut; to be called by `encode` itself, so that the warning points at its caller."""
        if self._count:
            warnings.warn(
                f"{self._space}: {self._count} text(s) are longer than the {self._length} tokens that this encoder reads; "
                f"the rest of each was not embedded. The first begins with {self._first!r}.",
                UserWarning,
                stacklevel=3,
            )


def token_batch(
    tokenizer: Any, texts: Sequence[str], length: int, truncated: TruncatedTexts, *, pad_to_full: bool = False
) -> tuple[Tensor, Tensor]:
    """Turn texts into token ids, as a tokenizer of transformers that truncates and pads on the right does.

    Args:
        tokenizer: of transformers; not asked to cut or pad, which would change its state.
        texts: `B` texts.
        length: the most tokens of a text; of a longer one the last token, which marks its end, is kept.
        truncated: counts the texts that are cut.
        pad_to_full: pad to `length` instead of to the longest text.

    Returns:
        `(B, L)` int64 token ids, and `(B, L)` int64 with 1 for tokens and 0 for padding.
    """
    rows: list[list[int]] = tokenizer(list(texts), padding=False, truncation=False, verbose=False)["input_ids"]
    for text, row in zip(texts, rows, strict=True):
        if len(row) > length:
            truncated.add(text, length)
            row[length - 1 :] = row[-1:]
    padded = length if pad_to_full else max(map(len, rows))
    ids = torch.full((len(rows), padded), int(tokenizer.pad_token_id))
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask
