"""CLIP: pictures and texts (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from cmcr.spaces.image_text import Family, ImageTextSpace

CLIP_MODEL = "openai/clip-vit-base-patch32"
# The main branch holds the weights as a pickled file only. This commit, a conversion by the hub itself that
# transformers 5 falls back to as well, holds the same weights as safetensors.
CLIP_REVISION = "c237dc49a33fc61debc9276459120b7eac67e7ef"


def project_tokens(model: Any, hidden: Tensor) -> Tensor:
    """Carry tokens `(B, T, width)` of the last block into the joint space, as the class token is: `(B, T, D)`.

    The class token, which comes first, becomes the embedding of the picture.
    """
    projected: Tensor = model.visual_projection(model.vision_model.post_layernorm(hidden))
    return projected


_CLIP = Family(
    name="clip",
    pins={CLIP_MODEL: CLIP_REVISION},
    model_type="clip",
    model_class="CLIPModel",
    image_processors=("CLIPImageProcessorPil", "CLIPImageProcessor"),
    tokenizers=("CLIPTokenizerFast", "CLIPTokenizer"),
    tokenizer_files=("tokenizer.json", "vocab.json+merges.txt"),
    width=lambda config: int(config.projection_dim),
    pad_to_full=False,  # its text transformer is causal: padding cannot reach the end-of-text token
    masked=True,
    patches=lambda model, hidden: project_tokens(model, hidden)[:, 1:],
)


class ClipSpace(ImageTextSpace):
    """CLIP, or any model of its architecture (a `Space`); see `ImageTextSpace` for what it does with its inputs.

    Args:
        model: a folder or the name of a repository on the hub.
        revision: commit, tag or branch; None is a pinned commit for the default model, else the main branch.
        device: where to compute; None takes a GPU if there is one.
        dtype: "float32", "float16" or "bfloat16"; embeddings are float32 in any case.
        local_files_only: never fetch anything.

    Raises:
        ArtefactNotFoundError, FormatError, ConfigError, DeviceError, MissingDependencyError: as `ImageTextSpace`.
    """

    def __init__(
        self,
        model: str | Path = CLIP_MODEL,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        local_files_only: bool = False,
    ) -> None:
        super().__init__(_CLIP, model, revision=revision, device=device, dtype=dtype, local_files_only=local_files_only)
