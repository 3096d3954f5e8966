"""What every space offers, whichever model stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from cmcr.errors import SampleError


@runtime_checkable
class Space(Protocol):
    """A contrastive embedding space with its frozen encoders.

    Attributes:
        name: such as "mini-clip".
        widths: width D of the embeddings by modality, 0 where it is not known yet; its keys are the modalities.
        fingerprint: changes whenever the weights or the preprocessing do.
        temperature: the trained one, by which a cosine is divided before the softmax (1 / exp(logit scale)); None where
            it is not known.
    """

    name: str
    widths: Mapping[str, int]
    fingerprint: str
    temperature: float | None

    def encode(
        self,
        inputs: Sequence[Any],
        modality: str,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = True,
    ) -> Any:
        """Embed items of one modality.

        The same item gives the same row whatever the batch size, the order or the neighbours (to 1e-5 in float32).

        Args:
            inputs: `n` items; a single path, string, PIL image, mapping, or the bytes of a file counts as one
                item.
            modality: one of `widths`.
            batch_size: items per forward pass, at least 1.
            show_progress_bar: None shows one in an interactive terminal for longer work.
            convert_to_numpy: return a numpy array.
            convert_to_tensor: return a torch tensor instead.
            device: where to compute; None leaves the encoder where it is.
            normalize_embeddings: scale rows to unit length.

        Returns:
            `(n, D)` float32, or `(D,)` for a single item.

        Raises:
            ConfigError: an unknown modality (the nearest is named) or a wrong batch size.
            SampleError: an item that cannot be decoded, with its position.
        """
        ...


@dataclass(frozen=True)
class EncodedBatch:
    """The rows of one batch, and the items that have none.

    Attributes:
        rows: `(B', D)` float32 unit rows on the CPU, of the items that did not fail, in their order.
        failures: by position in the batch, why an item has no row.
    """

    rows: Tensor
    failures: Mapping[int, SampleError]
