"""A few items of each modality, on which an export is compared with the connection before it appears."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image


def probes_of(modality: str, processor: Any) -> list[Any]:
    """Give two items of a modality, as a space takes them.

    Args:
        modality: "text", "image" or "audio".
        processor: of the pictures or sounds of the space.
    """
    if modality == "text":
        return ["A dog barks!", "four hundred and seven red cars"]
    if modality == "image":
        values = np.linspace(0, 255, 40 * 56 * 3).reshape(40, 56, 3).astype(np.uint8)
        return [Image.fromarray(values), Image.fromarray(values[::-1, :30])]
    rate = int(processor.sampling_rate)
    samples = np.sin(np.arange(rate // 2) ** 1.2 / 40).astype(np.float32)
    return [{"array": part, "sampling_rate": rate} for part in (samples, samples[: rate // 3])]
