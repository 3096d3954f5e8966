"""A connection, or a space, as a model that MTEB evaluates: on tasks of texts, pictures, sounds, or of two of them.

MTEB decodes sounds with torchcodec and its models resample them with torchaudio, to 16 kHz if nothing else is said. Here the
file goes undecoded to the space's own reader, which resamples it with soxr to the rate of the encoder. Written against MTEB
2.26.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, overload
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.errors import ConfigError, missing_dependency
from cmcr.spaces.hub import fingerprint
from cmcr.spaces.protocol import Space

MODALITIES = ("text", "image", "audio")
"""Those of MTEB that a space can embed. MTEB has no point clouds."""


class MtebEncoder:
    """A model for `mteb.evaluate` (MTEB's `EncoderProtocol`).

        model = MtebEncoder(cmcr.load("my-connection"), "me/my-connection")
        with undecoded_sounds():
            results = mteb.evaluate(model, mteb.get_tasks(tasks=["SpokenCOCOA2IRetrieval"]))

    MTEB stores results under the model's name and revision. The revision is the fingerprint of the space, or of the
    connection's maps and the encoders it was made with, so results of another model are never taken for this one's.

    Args:
        model: a connection with its encoders, or a space.
        name: as "owner/name"; None is "cmcr/" and the names of the spaces.
        spaces: of a connection in which several spaces embed a modality, whose encoder embeds it, such as
            `{"text": "clap"}`. Without it the space that embeds most modalities of the task does, of equals the first: text
            goes to CLAP beside sounds and to CLIP beside pictures.

    Attributes:
        mteb_model_meta: MTEB's `ModelMeta`. Without a loader: that demands torchaudio and torchvision of any model with
            sounds or pictures, which are not needed here.

    Raises:
        ConfigError: no modality that MTEB has, a connection without encoders, or a name without an owner.
        MissingDependencyError: MTEB is not installed (the extra `mteb`).
    """

    mteb_model_meta: Any

    def __init__(
        self, model: Connection | Space, name: str | None = None, *, spaces: Mapping[str, str] | None = None
    ) -> None:
        self._model = model
        self._spaces = dict(spaces or {})
        known = _modalities(model)
        modalities = [modality for modality in MODALITIES if modality in known]
        if not modalities:
            raise ConfigError(f"MTEB has tasks of {', '.join(MODALITIES)}; this model embeds {', '.join(known)} only.")
        default = "-".join(space.name for space in model.spaces) if isinstance(model, Connection) else model.name
        name = name or f"cmcr/{default}"
        if "/" not in name:
            raise ConfigError(f"name: MTEB names models 'owner/name', got {name!r}.")
        width = model.width if isinstance(model, Connection) else model.widths[modalities[0]]
        self.mteb_model_meta = _mteb("models").ModelMeta(
            loader=None,
            name=name,
            revision=_revision(model),
            modalities=modalities,  # without them MTEB takes the model for one of text
            embed_dim=width or None,
            similarity_fn_name="cosine",
            framework=["PyTorch"],
            use_instructions=False,
            **dict.fromkeys(_UNKNOWN),
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> NDArray[np.float32]:
        """Embed the items of a task.

        Args:
            inputs: MTEB's `DataLoader`, of which only the data set is used.
            task_metadata: of the task; its modalities choose the space where several embed one.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: not used.
            batch_size: items per forward pass.
            show_progress_bar: None shows one in an interactive terminal.

        Returns:
            `(n, K)` float32 rows: unit rows, and for items of several modalities, such as a picture with a text, the sum of
            theirs.

        Raises:
            ConfigError: items of none of the model's modalities, or no encoder attached.
            SampleError: an item that cannot be decoded, with its position.
        """
        dataset = inputs.dataset
        given = [modality for modality in self.mteb_model_meta.modalities if modality in dataset.features]
        if not given:
            raise ConfigError(
                f"{task_metadata.name}: expected a column of {', '.join(self.mteb_model_meta.modalities)}, "
                f"got {', '.join(dataset.features)}."
            )
        model: Any = self._model
        rows = []
        for modality in given:
            chosen = self._space(modality, task_metadata.modalities)
            column = _Column(dataset, modality)
            rows.append(
                model.encode(column, modality, batch_size=batch_size, show_progress_bar=show_progress_bar, **chosen)
            )
        return np.sum(rows, axis=0, dtype=np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Compute all cosines: `(n, K)` and `(m, K)` -> `(n, m)`."""
        scores: Tensor = _mteb("similarity_functions").cos_sim(embeddings1, embeddings2)
        return scores

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Compute the cosines of rows in the same place: twice `(n, K)` -> `(n,)`."""
        scores: Tensor = _mteb("similarity_functions").pairwise_cos_sim(embeddings1, embeddings2)
        return scores

    def _space(self, modality: str, together: Sequence[str]) -> dict[str, str]:
        """Choose the space that embeds a modality, as an option of `Connection.encode`."""
        if not isinstance(self._model, Connection):
            return {}
        if modality in self._spaces:
            return {"space": self._spaces[modality]}
        owners = [space for space in _with_encoders(self._model) if modality in space.modalities]
        return {"space": max(owners, key=lambda space: len({*space.modalities} & {*together})).name}


@contextmanager
def undecoded_sounds() -> Iterator[None]:
    """Have data sets give the sounds they hold as files, undecoded, as long as this lasts.

    MTEB looks at the first item of a data set while it loads a task, which for a sound takes torchcodec and FFmpeg. Nothing
    that `MtebEncoder` does needs it, so this is for tasks with sounds where torchcodec is not installed. In this process
    only, and for all of its threads.

    Raises:
        MissingDependencyError: MTEB, which brings `datasets`, is not installed.
    """
    _mteb("types")
    audio = import_module("datasets").Audio
    decode = audio.decode_example
    audio.decode_example = lambda self, value, token_per_repo_id=None: value
    try:
        yield
    finally:
        audio.decode_example = decode


class _Column(Sequence[Any]):
    """The items of one column of a `datasets.Dataset`, read when they are asked for; sounds as files, undecoded."""

    def __init__(self, dataset: Any, modality: str) -> None:
        audio = import_module("datasets").Audio
        self._dataset, self._modality = dataset.select_columns([modality]), modality
        if isinstance(self._dataset.features[modality], audio):
            self._dataset = self._dataset.cast_column(modality, audio(decode=False))

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        found = self._dataset[index][self._modality]
        if self._modality != "audio":
            return found
        return list(map(_sound, found)) if isinstance(index, slice) else _sound(found)


def _sound(value: Mapping[str, Any]) -> Any:
    """Give a stored sound as `read_audio` takes it."""
    if "array" in value:
        return {"array": np.asarray(value["array"], dtype=np.float32), "sampling_rate": value["sampling_rate"]}
    return value["path"] if value["bytes"] is None else value["bytes"]


_UNKNOWN = (  # fields without a default that nothing here knows
    "release_date", "languages", "n_parameters", "memory_usage_mb", "max_tokens", "license", "open_weights",
    "public_training_code", "public_training_data", "training_datasets",
)  # fmt: skip


def _modalities(model: Connection | Space) -> Sequence[str]:
    """List what a model can embed: of a connection, what a space with an encoder embeds."""
    if not isinstance(model, Connection):
        return list(model.widths)
    known = [modality for space in _with_encoders(model) for modality in space.modalities]
    if not known:
        raise ConfigError(
            "this connection has no encoders, which MTEB needs. Give them to cmcr.load: encoders=[cmcr.space(...), ...]."
        )
    return list(dict.fromkeys(known))


def _with_encoders(connection: Connection) -> list[ConnectedSpace]:
    return [space for space in connection.spaces if space.name in connection.encoders]


def _revision(model: Connection | Space) -> str:
    """Name what decides the rows, in characters that a path may hold: MTEB makes a folder of it."""
    if not isinstance(model, Connection):
        return quote(model.fingerprint, safe="")
    weights = {
        f"{space}.{key}": v for space, carry in model.projectors.items() for key, v in carry.state_dict().items()
    }
    weights |= {f"{space}.axes": axes for space, axes in model.own_axes.items()}
    encoders = {space: getattr(encoder, "fingerprint", None) for space, encoder in model.encoders.items()}
    return fingerprint(weights, {"own_share": model.own_share, "base": model.base, "encoders": encoders})


def _mteb(module: str) -> Any:
    """Import a part of MTEB; late, because it takes seconds."""
    try:
        return import_module(f"mteb.{module}")
    except ImportError as error:
        raise missing_dependency("mteb", extra="mteb", purpose="MTEB's tasks") from error
