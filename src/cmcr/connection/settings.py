"""The settings of a connection: one frozen record, and the methods that name a set of them."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import operator
from dataclasses import dataclass
from typing import Any, get_args

from cmcr.arrays import is_number
from cmcr.connection.losses import IntraDistance
from cmcr.connection.products import LOWEST_TEMPERATURE_IN_BFLOAT16, Precision
from cmcr.connection.projectors import CLAP_CLIP_SHAPE, ULIP_CLIP_SHAPE, BatchNormMode, ProjectorShape
from cmcr.errors import ConfigError, unknown_name

PUBLISHED_BATCH = 10_240


@dataclass(frozen=True)
class Settings:
    """How two spaces are connected. Defaults are the published ones where the paper states them.

    Attributes:
        consistency_temperature: tau_1 of the semantic consistency (paper: 0.01).
        normalize_consistency: make the softmax mean a unit row before the noise (paper: silent).
        semantic_consistency: False lets the overlap's own embeddings stand in for their counterparts, so that no memory
            is used: the paper's ablation.
        noise_variance: s^2 of the semantic completion at width 512 (paper: 0.004); 0 switches it off.
        rescale_noise: keep the angle of the noise at other widths (see `semantic_completion`).
        ttc_temperature: tau_2 of L_ttc (paper: 0.01).
        avc_temperature: tau_3 of L_avc (paper: 0.01).
        ttc_weight: weight of L_ttc (paper: 1).
        avc_weight: weight of L_avc (paper: 1).
        intra_weight: lambda of L_intra (paper: 0.1).
        intra_distance: "euclidean" or "squared" (sources disagree).
        batch_norm: whether the two modalities of a space pass through batch normalisation "together" or "apart" in
            training (paper: silent).
        width: width of the common space; None is the larger width of the two spaces.
        hidden: widths of the projector's inner layers; None is one layer of twice `width` (the published CLAP-CLIP
            shape); empty is a single layer.
        final_relu: end the projector in a ReLU, as the published ULIP-CLIP projectors do.
        epochs: passes over the overlap (paper: 36).
        batch_size: overlap items per step. None is the paper's 10,240, or a sixteenth of an overlap that is smaller
            than 16 such batches, so that it still gets enough steps.
        learning_rate: of AdamW, decayed to zero along a cosine (paper: 1e-3).
        weight_decay: of AdamW (paper: silent; PyTorch's default, 0.01).
        precision: "float32"; or "bfloat16", in which the large products of semantic consistency and of the losses'
            gradients are faster and coarser. Projectors, logits, sums and the optimiser stay in float32.
    """

    consistency_temperature: float = 0.01
    normalize_consistency: bool = True
    semantic_consistency: bool = True
    noise_variance: float = 0.004
    rescale_noise: bool = True
    ttc_temperature: float = 0.01
    avc_temperature: float = 0.01
    ttc_weight: float = 1.0
    avc_weight: float = 1.0
    intra_weight: float = 0.1
    intra_distance: IntraDistance = "euclidean"
    batch_norm: BatchNormMode = "together"
    width: int | None = None
    hidden: tuple[int, ...] | None = None
    final_relu: bool = False
    epochs: int = 36
    batch_size: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        problems = [
            *self._not_above_zero("consistency_temperature", "ttc_temperature", "avc_temperature", "learning_rate"),
            *self._below_zero("noise_variance", "ttc_weight", "avc_weight", "intra_weight", "weight_decay"),
            *self._not_counts("epochs", *(() if self.batch_size is None else ("batch_size",))),
            *self._not_widths(),
            *self._not_flags("normalize_consistency", "semantic_consistency", "rescale_noise", "final_relu"),
            *self._not_one_of("intra_distance", get_args(IntraDistance)),
            *self._not_one_of("batch_norm", get_args(BatchNormMode)),
            *self._not_one_of("precision", get_args(Precision)),
        ]
        if _is_count(self.batch_size) and self.batch_size == 1:
            problems.append("batch_size: expected at least 2, got 1")
        if self.precision == "bfloat16" and self.semantic_consistency and not problems:
            problems.extend(self._too_fine_for_bfloat16())
        if not problems and self.ttc_weight + self.avc_weight == 0:
            problems.append("ttc_weight and avc_weight: one of them must be above 0, or nothing is learned")
        if problems:
            raise ConfigError("settings: " + "; ".join(problems) + ".")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "float" or _is_count(value):  # numpy's numbers become what JSON can hold
                object.__setattr__(self, field.name, float(value) if field.type == "float" else int(value))
        if self.hidden is not None:
            object.__setattr__(self, "hidden", tuple(int(width) for width in self.hidden))

    def projector_shape(self, left_width: int, right_width: int) -> ProjectorShape:
        """Choose the projectors' layers for two spaces of these widths."""
        width = max(left_width, right_width) if self.width is None else self.width
        hidden = (2 * width,) if self.hidden is None else self.hidden
        return ProjectorShape(width=width, hidden=hidden, final_relu=self.final_relu)

    def rows_per_step(self, overlap_rows: int) -> int:
        """How many overlap items one training step takes; never more than there are."""
        wanted = self.batch_size or max(2, min(PUBLISHED_BATCH, overlap_rows // 16))
        return min(wanted, overlap_rows)

    def _not_above_zero(self, *names: str) -> list[str]:
        return [
            f"{n}: expected a number above 0, got {v!r}" for n, v in self._of(names) if not (is_number(v) and v > 0)
        ]

    def _too_fine_for_bfloat16(self) -> list[str]:
        lowest = LOWEST_TEMPERATURE_IN_BFLOAT16
        if self.consistency_temperature >= lowest:
            return []
        return [f"consistency_temperature: expected {lowest} or more in bfloat16, got {self.consistency_temperature!r}"]

    def _below_zero(self, *names: str) -> list[str]:
        return [f"{n}: expected 0 or more, got {v!r}" for n, v in self._of(names) if not (is_number(v) and v >= 0)]

    def _not_counts(self, *names: str) -> list[str]:
        return [
            f"{n}: expected a whole number of at least 1, got {v!r}" for n, v in self._of(names) if not _is_count(v)
        ]

    def _not_widths(self) -> list[str]:
        problems = []
        if self.width is not None and not _is_count(self.width):
            problems.append(f"width: expected None or a whole number of at least 1, got {self.width!r}")
        if self.hidden is not None and not (isinstance(self.hidden, tuple | list) and all(map(_is_count, self.hidden))):
            problems.append(f"hidden: expected None or a tuple of whole numbers of at least 1, got {self.hidden!r}")
        return problems

    def _not_flags(self, *names: str) -> list[str]:
        return [f"{n}: expected true or false, got {v!r}" for n, v in self._of(names) if not isinstance(v, bool)]

    def _not_one_of(self, name: str, known: tuple[str, ...]) -> list[str]:
        value = getattr(self, name)
        return [] if value in known else [f"{name}: expected one of {', '.join(known)}, got {value!r}"]

    def _of(self, names: tuple[str, ...]) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in names]


_PUBLISHED: dict[str, Any] = {
    # Every value is pinned here, so that better defaults never change what "published" means.
    "consistency_temperature": 0.01,
    "normalize_consistency": True,
    "semantic_consistency": True,
    "noise_variance": 0.004,
    "rescale_noise": False,
    "ttc_temperature": 0.01,
    "avc_temperature": 0.01,
    "ttc_weight": 1.0,
    "avc_weight": 1.0,
    "intra_weight": 0.1,
    "intra_distance": "euclidean",
    "batch_norm": "together",
    "epochs": 36,
    "batch_size": PUBLISHED_BATCH,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "precision": "float32",
}

METHODS: dict[str, dict[str, Any]] = {
    "c-mcr": {},
    "c-mcr-published": {**_PUBLISHED, **dataclasses.asdict(CLAP_CLIP_SHAPE)},
    "c-mcr-published-ulip": {**_PUBLISHED, **dataclasses.asdict(ULIP_CLIP_SHAPE)},
}
"""What each method changes in the defaults of `Settings`."""


def settings_of(method: str, /, **changes: Any) -> Settings:
    """Look up a method's settings and change some of them.

    Args:
        method: `"c-mcr"`, the best of what we measured where the paper is silent; `"c-mcr-published"` and
            `"c-mcr-published-ulip"`, the recipe as far as it is known, with unscaled noise, batches of 10,240 however few
            the items, and the projectors of the published CLAP-CLIP or ULIP-CLIP weights.
        **changes: attributes of `Settings`.

    Raises:
        ConfigError: an unknown method or setting (all of them named, each with the nearest valid one), or a value out of
            range.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise unknown_name("method", method, METHODS)
    known = [field.name for field in dataclasses.fields(Settings)]
    wrong = [name for name in changes if name not in known]
    if wrong:
        raise ConfigError(
            f"unknown settings: {', '.join(_with_nearest(n, known) for n in wrong)}. Known: {', '.join(known)}."
        )
    return Settings(**{**METHODS[method], **changes})


def check_seed(seed: object) -> int:
    """Make sure that a seed is a whole number, 0 or more.

    Raises:
        ConfigError: it is not.
    """
    try:
        whole = -1 if isinstance(seed, bool) else operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        whole = -1
    if whole < 0:
        raise ConfigError(f"seed: expected a whole number, 0 or more, got {seed!r}.")
    return whole


def _is_count(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def _with_nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"{name!r} (did you mean {near[0]!r}?)" if near else repr(name)
