"""SigLIP: pictures and texts (Zhai et al., "Sigmoid Loss for Language Image Pre-Training").

It was trained with a sigmoid over each pair instead of a softmax over a batch. The scale and bias of that sigmoid turn a
cosine into a probability; embeddings and their order do not depend on them, so cmcr leaves them aside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from cmcr.spaces.hub import require_library
from cmcr.spaces.image_text import Family, ImageTextSpace

SIGLIP_MODEL = "google/siglip-base-patch16-224"
SIGLIP_REVISION = "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed"


def pool_patches(model: Any, hidden: Tensor) -> Tensor:
    """Carry patches `(B, T, D)` into the joint space: `(B, T, D)`.

    SigLIP has no class token: a learned query attends to all patches. Here it attends to one patch at a time, so that a
    picture of a single patch has the embedding of that patch. The paper says nothing of patches.
    """
    alone = hidden.flatten(0, 1)[:, None]
    pooled: Tensor = model.vision_model.head(alone)
    return pooled.reshape(hidden.shape)


_SIGLIP = Family(
    name="siglip",
    pins={SIGLIP_MODEL: SIGLIP_REVISION},
    model_type="siglip",
    model_class="SiglipModel",
    image_processors=("SiglipImageProcessorPil", "SiglipImageProcessor"),
    tokenizers=("SiglipTokenizer",),
    tokenizer_files=("spiece.model",),
    width=lambda config: int(config.vision_config.hidden_size),
    pad_to_full=True,  # the last token is what is pooled, and all were seen in training
    masked=False,
    patches=pool_patches,
)


class SiglipSpace(ImageTextSpace):
    """SigLIP, or any model of its architecture (a `Space`); see `ImageTextSpace` for what it does with its inputs.

    SigLIP 2, which has another tokenizer, is refused.

    Args:
        model: a folder or the name of a repository on the hub.
        revision: commit, tag or branch; None is a pinned commit for the default model, else the main branch.
        device: where to compute; None takes a GPU if there is one.
        dtype: "float32", "float16" or "bfloat16"; embeddings are float32 in any case.
        local_files_only: never fetch anything.

    Raises:
        ArtefactNotFoundError, FormatError, ConfigError, DeviceError: as `ImageTextSpace`.
        MissingDependencyError: transformers, sentencepiece or protobuf is not installed.
    """

    def __init__(
        self,
        model: str | Path = SIGLIP_MODEL,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        local_files_only: bool = False,
    ) -> None:
        require_library("sentencepiece", "sentencepiece", "the tokenizer of SigLIP")
        require_library("google.protobuf", "protobuf", "the tokenizer of SigLIP")
        super().__init__(
            _SIGLIP, model, revision=revision, device=device, dtype=dtype, local_files_only=local_files_only
        )
