"""Every dual encoder of transformers: texts, and pictures or sounds, in one space, by one adapter.

Architecture, sizes, image processor, tokenizer, the length of texts and their padding are those that the files of the
checkpoint and the classes of transformers name. What neither says stands in the constants below, with its source.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmcr.data.texts import read_text
from cmcr.engine.device import choose_device
from cmcr.errors import CmcrError, ConfigError, FormatError, unknown_name
from cmcr.spaces.clap import Sounds
from cmcr.spaces.hub import (
    BPE_FILES,
    DTYPES,
    PROCESSOR,
    SENTENCEPIECE_FILES,
    WEIGHTS,
    Snapshot,
    find_snapshot,
    fingerprint,
    import_library,
    open_model,
    open_processor,
    require_files,
    token_batch,
)
from cmcr.spaces.pictures import Pictures
from cmcr.spaces.tower import Tower, TowerSpace, embed_all, listed

NAMES = {
    "clip": ("openai/clip-vit-base-patch32", ("clip",)),
    "siglip": ("google/siglip-base-patch16-224", ("siglip",)),
    "siglip2": ("google/siglip2-base-patch16-224", ("siglip", "siglip2")),
    "clap": ("laion/clap-htsat-fused", ("clap",)),
}
"""Short names: the default model of each, and the architectures (`model_type`) that others under that name may have."""
PINS = {
    # The main branch holds the weights as a pickled file only. This commit, a conversion by the hub itself that
    # transformers 5 falls back to as well, holds the same weights as safetensors.
    "openai/clip-vit-base-patch32": "c237dc49a33fc61debc9276459120b7eac67e7ef",
    "google/siglip-base-patch16-224": "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed",
    "google/siglip2-base-patch16-224": "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2",
    "laion/clap-htsat-fused": "cca9e288ab447cee67d9ada1f85ddb46500f1401",
    "laion/clap-htsat-unfused": "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
}
"""Commits by model."""

_BROKEN = {
    "laion/larger_clap_music": "its text tower is constant, two texts have a mean cosine of 0.9993 "
    "(embeddings-benchmark/mteb issue 5069). Take laion/larger_clap_general or laion/clap-htsat-fused"
}
_SIGLIP = ("siglip", "siglip2")
# big_vision, which trained both generations, lower-cases texts, fills all 64 tokens and masks none; files say nothing of it.
_LONGEST = {"clap": 77}  # tokens of a text: LAION's code cuts there in training as in use, the files say 512
_RULES = {"image": "2", "audio": "1"}  # raise it when this code or a decoder changes what the encoders see
_PROBES = ("naïve café — 東京", "  two   spaces ", "it's")  # texts whose tokens show what a tokenizer does to them
_UNLIKE = ("rain", "a dog barks", "four hundred and seven", "red cars")
_CONSTANT = 0.99  # mean cosine of unlike texts: a tower that gives more tells them no longer apart
_SAME = 0.999  # cosine of one text embedded alone and in a batch; half precision stays above


class Parts(NamedTuple):
    """What a space runs, for those who run it elsewhere.

    Attributes:
        model: of transformers, in evaluation mode.
        tokenizer: of its texts.
        processor: of its pictures or sounds.
        text_length: the most tokens of a text.
        pad_to_full: whether texts are padded to that, instead of to the longest.
        as_siglip: whether texts are made lower case first, and the model is not told which tokens are padding.
    """

    model: Any
    tokenizer: Any
    processor: Any
    text_length: int
    pad_to_full: bool
    as_siglip: bool


class DualEncoderSpace(TowerSpace):
    """A published model that embeds texts, and pictures or sounds (a `Space`).

    Any model of transformers with `get_text_features` and `get_image_features`, such as CLIP, SigLIP, SigLIP 2, MetaCLIP 2,
    TIPSv2, Chinese-CLIP, ALIGN and AltCLIP, and CLAP. Texts must hold something besides white space; what is beyond the
    model's length is cut, with a warning. Pictures: see `cmcr.spaces.pictures`; sounds: see `cmcr.spaces.clap`.

    Args:
        name: "clip", "siglip", "siglip2" or "clap"; a folder or the name of a repository on the hub; or with `model` any
            name you like.
        model: a folder or repository to open under that name.
        revision: commit, tag or branch; None is the pinned commit where there is one for this model, else the main
            branch.
        device: where to compute: "auto", "cpu", "cuda", ...; None, as "auto", takes a GPU if there is one.
        dtype: "float32", "float16" or "bfloat16", of the weights; embeddings are float32 in any case.
        local_files_only: never fetch anything.

    Attributes:
        name: as given; of a folder or repository its last part.
        widths: width D by modality.
        fingerprint: changes whenever the weights or the preprocessing do, tokenizer included.
        temperature: the trained one, by which cosines are divided. SigLIP's goes with a bias b, which moves
            probabilities, sigmoid(cosine / temperature + b), but no order; b is left aside.
        source: the model that was asked for.
        revision: its commit, None for a folder that is no snapshot of the hub's cache.
        patch_size: pixels of a patch of `patch_features`; None where the model has no patches in the joint space.

    Raises:
        ArtefactNotFoundError: the files are neither here nor within reach; the message says what to fetch.
        FormatError: a model of another kind, one that is known or found to be broken, or files that are missing or
            damaged.
        ConfigError: an unknown revision or dtype.
        DeviceError: a device that this machine does not have.
        MissingDependencyError: a library of the extra `encoders` is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str | Path | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        local_files_only: bool = False,
    ) -> None:
        chosen_device = choose_device(device or "auto")
        default, families = NAMES.get(name, (name, ()))
        source = model or default
        if str(source) in _BROKEN:
            raise FormatError(f"{source} is of no use: {_BROKEN[str(source)]}.")
        if revision is None and not Path(source).is_dir():
            revision = PINS.get(str(source))
        snapshot = find_snapshot(source, revision, local_files_only=local_files_only)
        self.name = name if families or model else Path(name).expanduser().resolve().name
        self.source, self.revision = snapshot.source, snapshot.revision
        require_files(snapshot, ("config.json",))
        config = open_processor(snapshot, "AutoConfig")
        family = config.model_type
        if families and family not in families:
            raise FormatError(f"{snapshot}: expected a model of type {' or '.join(families)}, got {family!r}.")
        modality = _other_modality(config, snapshot)
        require_files(snapshot, WEIGHTS, PROCESSOR, (*BPE_FILES, *SENTENCEPIECE_FILES, "vocab.txt"))
        if not (snapshot.folder / "tokenizer.json").is_file() and any(snapshot.folder.glob("*.model")):
            import_library("sentencepiece")
            import_library("google.protobuf", "protobuf")
        self._tokenizer = open_processor(snapshot, "AutoTokenizer")
        if dtype not in DTYPES:
            raise unknown_name("dtype", dtype, DTYPES)
        self._model = open_model(snapshot, "AutoModel")
        self.temperature = _temperature(self._model)  # before it is rounded to the dtype
        self._model.to(DTYPES[dtype])
        self._items: Any = (Pictures if modality == "image" else Sounds)(snapshot, self._model)
        self.patch_size = self._items.patch_size
        processor = import_library("transformers").PROCESSOR_MAPPING.get(type(config), None)
        said = getattr(processor, "text_kwargs", {})
        lengths = (said.get("max_length"), _LONGEST.get(family), _positions(self._model))
        self._length = min(length for length in (*lengths, self._tokenizer.model_max_length) if length)
        self._as_siglip = family in _SIGLIP
        self._pad_to_full = self._as_siglip or said.get("padding") == "max_length"
        probes = ("A photo of a cat, 1999!" if modality == "image" else "A dog barks, 1999!", *_PROBES)
        self.fingerprint = fingerprint(
            self._model.state_dict(),
            {
                "rules": _RULES[modality],
                "family": family,
                modality: self._items.settings,
                "vocabulary": sorted(self._tokenizer.get_vocab().items()),
                "probes": [self._tokenizer(probe, verbose=False)["input_ids"] for probe in probes],
                "length": self._length,
            },
        )
        self._model.to(chosen_device)
        self.widths = dict.fromkeys((modality, "text"), self._try(snapshot))

    def patch_features(
        self,
        images: Any,
        size: int | tuple[int, int] | None = None,
        *,
        batch_size: int = 8,
        show_progress_bar: bool | None = None,
    ) -> NDArray[np.float32]:
        """Embed every patch of pictures in the space of whole pictures and texts, to find things in them.

        Args:
            images: pictures as for `encode`, one or several.
            size: `(height, width)` in pixels that the whole picture is resized to, without a crop, both multiples of
                `patch_size`; a whole number is both. Position embeddings are interpolated. None prepares pictures as
                `encode` does, crop included.
            batch_size: pictures per forward pass.
            show_progress_bar: as for `encode`.

        Returns:
            `(n, rows, columns, D)` float32, unit rows along D, top row of patches first; `n` is 1 for a single picture.

        Raises:
            ConfigError: a model without patches, a size that is no multiple of the patch size, or a wrong batch size.
            SampleError: a picture that cannot be decoded, with its position.
        """
        if not isinstance(self._items, Pictures):
            raise ConfigError(f"{self.name} embeds no pictures.")
        depth = self.widths["image"]
        tower, grid = self._items.patches(size, depth)
        features = embed_all(tower, listed(images)[0], batch_size, f"{self.name} patches", show_progress_bar)
        return np.asarray(features.cpu()).reshape(len(features), *grid, depth)

    def parts(self) -> Parts:
        """Give what the space runs."""
        processor = self._items.processor
        return Parts(self._model, self._tokenizer, processor, self._length, self._pad_to_full, self._as_siglip)

    def model_inputs(self, items: list[Any], modality: str) -> dict[str, Tensor]:
        """Read and prepare items as the model takes them, by the names of its arguments; of sounds all windows, one a row."""
        if modality == "text":
            return self._text_inputs([read_text(item) for item in items])
        inputs: dict[str, Tensor] = self._items.batch([self._items.prepare(item) for item in items])
        return inputs

    def _move_to(self, device: torch.device) -> None:
        self._model.to(device)

    def _tower(self, modality: str) -> Tower:
        if modality == "text":
            return Tower(self.widths[modality], read_text, self._embed_texts)
        return Tower(self.widths[modality], self._items.prepare, self._items.embed)

    def _embed_texts(self, texts: list[str]) -> Tensor:
        inputs = {name: values.to(self._model.device) for name, values in self._text_inputs(texts).items()}
        rows: Tensor = self._model.get_text_features(**inputs).pooler_output
        return rows

    def _text_inputs(self, texts: list[str]) -> dict[str, Tensor]:
        if self._as_siglip:
            texts = [text.lower() for text in texts]
        ids, mask = token_batch(self._tokenizer, texts, self._length, self.name, pad_to_full=self._pad_to_full)
        return {"input_ids": ids} if self._as_siglip else {"input_ids": ids, "attention_mask": mask}

    def _try(self, snapshot: Snapshot) -> int:
        """Embed a few items, so that files that do not fit together and broken towers are found now; return the width."""
        try:
            with torch.no_grad():
                texts, alone = (self._embed_texts(list(given)).float() for given in (_UNLIKE, _UNLIKE[:1]))
                other = self._items.embed([self._items.prepare(self._items.probe)]).float()
            count, width = texts.shape
            if count != len(_UNLIKE) or other.shape != (1, width):
                raise ValueError(f"a text has {width} numbers, the other modality {tuple(other.shape[1:])}")
        except (CmcrError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a layer raises that gets other shapes than it was made for
            raise FormatError(
                f"{snapshot}: not a dual encoder, or its tokenizer, processor and weights are not of one model ({error})."
            ) from error
        for tower, rows in (("text", texts), ("other", other)):
            if not (rows.isfinite().all() and rows.any(dim=1).all()):
                raise FormatError(
                    f"{snapshot}: its {tower} tower gives rows that are NaN, infinite or zero: its weights are damaged, or too "
                    f"large for {self._model.dtype}."
                )
        together, alone = nn.functional.normalize(texts), nn.functional.normalize(alone)
        alike = float((together @ together.T).fill_diagonal_(0).sum()) / (count * (count - 1))
        if not alike < _CONSTANT:
            raise FormatError(
                f"{snapshot}: its text tower is constant: {count} unlike texts have a mean cosine of {alike:.4f}. Nothing "
                "can be found by text with it; take another checkpoint."
            )
        if not float(together[0] @ alone[0]) > _SAME:
            raise FormatError(
                f"{snapshot}: the embedding of a text changes with its neighbours in the batch, with this version of "
                "transformers (AIMv2's does up to 5.23). Such rows cannot be stored and compared."
            )
        return width


def _other_modality(config: Any, snapshot: Snapshot) -> str:
    """Find what a model embeds beside texts, by the methods that its class has."""
    kind = import_library("transformers").MODEL_MAPPING.get(type(config), None)
    found = [modality for modality in ("image", "audio") if hasattr(kind, f"get_{modality}_features")]
    if len(found) != 1 or not hasattr(kind, "get_text_features"):
        raise FormatError(
            f"{snapshot}: a model of type {config.model_type!r} is no dual encoder of texts and pictures, or texts and sounds, "
            "in transformers. What sentence-transformers opens becomes a space by cmcr.from_sentence_transformers."
        )
    return found[0]


def _positions(model: Any) -> int:
    """Count the tokens that a text tower has positions for: those of RoBERTa begin behind the padding's."""
    tables = (table for name, table in model.named_modules() if name.endswith("position_embeddings"))
    padding = (table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None)
    return int(model.config.text_config.max_position_embeddings) - max((at + 1 for at in padding), default=0)


def _temperature(model: Any) -> float | None:
    """Read the trained temperature of a model, whether it keeps that or the logarithm of its inverse."""
    scale = getattr(
        model, "logit_scale", getattr(model, "logit_scale_a", None)
    )  # CLAP's for sounds; texts have another
    if scale is not None:
        return math.exp(-float(scale))
    return float(model.temperature) if hasattr(model, "temperature") else None
