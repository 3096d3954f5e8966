"""The connection: what was learned between spaces, ready to carry embeddings of any of them into the common one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.arrays import Array, ArrayT, StoredRows, as_given, check_finite, normalized, rows_of, unit_rows, working_dtype
from cmcr.connection.maps import Map
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, DimensionError, unknown_name

if TYPE_CHECKING:
    from cmcr.connection.diagnosis import Finding

_ROWS_AT_ONCE = 16_384
_NUMBERS_AT_ONCE = 2**25  # in the widest step of a map


class Encoder(Protocol):
    """What a connection needs of a space's encoders in order to `encode` (every `cmcr.space` has it)."""

    def encode(self, inputs: Sequence[Any], modality: str, *, batch_size: int, show_progress_bar: bool | None) -> Any:
        """Embed items of a modality: `(n, D)` unit rows."""
        ...


@dataclass(frozen=True)
class ConnectedSpace:
    """One of the spaces, as a connection remembers it.

    Attributes:
        name: such as "clip".
        modalities: what it embeds, the overlap first; of several spaces each of its overlaps.
        width: width D of its embeddings.
        fingerprint: of the encoders that made the embeddings; None if only arrays were given.
        outer_rows: number of rows in the memories of all modalities but the first.
    """

    name: str
    modalities: tuple[str, ...]
    width: int
    fingerprint: str | None = None
    outer_rows: int = 0


@dataclass(frozen=True, eq=False)
class Connection:
    """One map per space into a common space in which all modalities of all spaces can be compared.

    Made by `cmcr.connect` or `cmcr.load`. A projected row is a direct sum, whose plain cosine ranks across spaces as the
    maps do and within a space as that space itself does:

        z(x) = [ sqrt(1 - w) c(x) | sqrt(w) x in the block of its own space ],    w = own_share,

    where ``c(x)`` is the common block (`common`): what the space's map gives, and one column a space that makes it a unit
    row. The blocks of the other spaces are zero. So the cosine across two spaces is ``(1 - w) c . c'``, small but ranked as
    ``c . c'``; within a space it is ``w x . x'`` and at most ``1 - w`` more. With `own_share` 0 a row is ``c(x)`` alone.

    Attributes:
        spaces: what is connected, two or more.
        projectors: the maps by the space's name, in evaluation mode.
        overlap: the modality through which they were connected; of several spaces all of them, as "text, image".
        method: the method's name.
        settings: all of its settings.
        seed: what it was seeded with.
        overlap_rows: number of overlap items it was fitted on.
        own_share: w above, from 0 to below 1.
        own_axes: of spaces whose own block was reduced, `(D, d)` its orthonormal axes, by the space's name.
        base: the space whose rows stay as they are and whose coordinates all others get; None for a direct sum.
        history: the loss terms of every training step; empty if there was none.
        report: what was chosen and why, and what was measured, as JSON can hold it.
        encoders: encoders by the space's name, for `encode`; may be empty.
        references: of a connection that was saved, by the space's name and the modality, what its encoders made of a few
            fixed inputs; compared when encoders are attached.
        versions: of the libraries that made them.
    """

    spaces: tuple[ConnectedSpace, ...]
    projectors: Mapping[str, Map]
    overlap: str
    method: str
    settings: Any
    seed: int
    overlap_rows: int
    own_share: float = 0.0
    own_axes: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    base: str | None = None
    history: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)
    report: Mapping[str, Any] = field(default_factory=dict, repr=False)
    encoders: Mapping[str, Encoder] = field(default_factory=dict, repr=False)
    references: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict, repr=False)
    versions: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def common_width(self) -> int:
        """Width of the common block."""
        maps = list(self.projectors.values())
        return maps[0].width + (0 if all(each.unit for each in maps) else len(maps))

    @property
    def width(self) -> int:
        """Width K of projected rows."""
        return self.common_width + (sum(map(self._own_width, self.spaces)) if self.own_share else 0)

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities that can be compared, each once."""
        return tuple(dict.fromkeys(m for space in self.spaces for m in space.modalities))

    def project(self, embeddings: ArrayT | StoredRows, space: str, *, device: str = "cpu") -> ArrayT:
        """Carry embeddings of one space into the common space.

        Args:
            embeddings: `(n, D)` embeddings of any modality of the space, numpy or torch; or a `cmcr.Memory`, whose rows are
                read into RAM (`cmcr project` streams one onto the disk). Scaled to unit rows first, as in training.
            space: the space's name.
            device: where to compute if `embeddings` is a numpy array; tensors are projected where they are.

        Returns:
            `(n, K)` unit rows, numpy for numpy and memories (float32; float64 stays float64). With `final_relu` and no own
            share a row may be zero.

        Raises:
            ConfigError: an unknown space, or a memory of another one.
            DimensionError: another width than the space's.
            DtypeError, NonFiniteError, ZeroRowError, TooFewRowsError: unusable embeddings.
        """
        return self._carried(embeddings, space, device, own=True)

    def common(self, embeddings: ArrayT | StoredRows, space: str, *, device: str = "cpu") -> ArrayT:
        """Carry embeddings of one space into the common block alone, for an index of items of several spaces.

        The cosine of two such rows of different spaces is that of `project` divided by ``1 - own_share``, so they rank
        alike. Within a space the block ranks as the method does, not as the space itself: for that, use `project`.

        Arguments and errors: as `project`.

        Returns:
            `(n, common_width)` unit rows in the kind of `embeddings`.
        """
        return self._carried(embeddings, space, device, own=False)

    def _carried(self, embeddings: ArrayT | StoredRows, space: str, device: str, *, own: bool) -> ArrayT:
        given: Any = embeddings
        if isinstance(embeddings, StoredRows):
            self._projector(space)
            if (theirs := getattr(embeddings, "space", space)) != space:
                raise ConfigError(f"the memory is of space {theirs!r}, expected one of {space!r}.")
            given = np.concatenate(list(embeddings.blocks()))
        return as_given(torch.cat(self._parts(given, space, device, own=own)), given)

    def _parts(self, embeddings: Array, space: str, device: str, *, own: bool) -> list[Tensor]:
        """Project block by block, which bounds the scratch space."""
        projector = self._projector(space)
        rows = unit_rows(embeddings, f"embeddings of space {space!r}")
        if rows.shape[1] != projector.width_in:
            raise DimensionError(
                f"embeddings of space {space!r} must be {projector.width_in} wide, got {rows.shape[1]}: were they made by "
                "another encoder, or do they belong to the other space?"
            )
        where = rows.device if isinstance(embeddings, Tensor) else choose_device(device)
        dtype = torch.float32 if where.type == "mps" else rows.dtype  # Apple's GPUs have no float64
        first = next(projector.buffers(), None)
        if first is None or (first.device, first.dtype) != (where, dtype):
            # A copy, so that the connection itself never changes device or precision.
            projector = copy.deepcopy(projector).to(device=where, dtype=dtype)
        share = self.own_share if own else 0.0
        widest = max(part.width for part in projector.modules() if isinstance(part, Map))
        at_once = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // widest))
        with torch.no_grad():
            return [self.lay_out(projector, part.to(where, dtype), space, share) for part in rows.split(at_once)]

    def lay_out(self, projector: Map, rows: Tensor, space: str, share: float) -> Tensor:
        """Project unit rows of one space and lay them out as a direct sum: `project` without its checks, for exports.

        Args:
            projector: the map of the space, or a copy of it.
            rows: `(n, D)` unit rows, where the projector is.
            space: the space's name.
            share: `own_share`, or 0 for the common block alone.
        """
        names = [known.name for known in self.spaces]
        common = projector(rows)
        if self.common_width > projector.width:
            slack = rows.new_zeros(rows.shape[0], len(names))  # not len(rows), which an export takes for a constant
            slack[:, names.index(space)] = (1 - common.square().sum(dim=1)).clamp_min(0).sqrt()
            common = torch.cat([common, slack], dim=1)
        if not share:
            return common
        blocks = [common * (1 - share) ** 0.5]
        for known in self.spaces:
            if known.name != space:
                blocks.append(rows.new_zeros(rows.shape[0], self._own_width(known)))
                continue
            axes = self.own_axes.get(space)
            if axes is not None:
                inside = rows @ axes.to(rows)
                rows = torch.cat([inside, (1 - inside.square().sum(dim=1, keepdim=True)).clamp_min(0).sqrt()], dim=1)
            blocks.append(rows * share**0.5)
        return torch.cat(blocks, dim=1)

    def _own_width(self, known: ConnectedSpace) -> int:
        axes = self.own_axes.get(known.name)
        return known.width if axes is None else axes.shape[1] + 1

    def similarity(self, queries: ArrayT, corpus: Array) -> ArrayT:
        """Compute the cosine of every query with every corpus row.

        Args:
            queries: `(Q, K)` projected rows.
            corpus: `(C, K)` projected rows.

        Returns:
            `(Q, C)` cosines in [-1, 1], in the kind of `queries`; 0 for a row of zeros.

        Raises:
            DimensionError: widths that differ.
            DtypeError, NonFiniteError, TooFewRowsError: unusable rows.
        """
        q, c = rows_of(queries, "queries"), rows_of(corpus, "corpus")
        check_finite(q, "queries")
        check_finite(c, "corpus")
        if q.shape[1] != c.shape[1]:
            raise DimensionError(f"queries are {q.shape[1]} wide and the corpus {c.shape[1]}: project both first.")
        dtype = working_dtype(q, c)
        q, c = normalized(q.detach().to(dtype)), normalized(c.detach().to(device=q.device, dtype=dtype))
        return as_given((q @ c.T).clamp_(-1.0, 1.0), queries)

    def encode(
        self,
        inputs: Sequence[Any],
        modality: str,
        *,
        space: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> NDArray[np.float32]:
        """Embed items with the encoder of their space and carry them into the common space.

        Args:
            inputs: what the space's encoder reads: paths, arrays, PIL images, strings.
            modality: one of `modalities`.
            space: whose encoder to use; needed only for what several spaces embed, such as the overlap.
            batch_size: items per forward pass.
            show_progress_bar: None shows one in an interactive terminal.

        Returns:
            `(n, K)` float32 numpy unit rows, or `(K,)` for a single item.

        Raises:
            ConfigError: an unknown modality or space, an overlap without `space`, or no encoder attached.
        """
        chosen = self._space_for(modality, space)
        if chosen not in self.encoders:
            known = next(s.fingerprint for s in self.spaces if s.name == chosen)
            reason = "was made from arrays" if known is None else f"needs the encoders with fingerprint {known}"
            raise ConfigError(
                f"no encoder of space {chosen!r} is attached: this connection {reason}. Embed the items yourself and call "
                f"project(embeddings, space={chosen!r})."
            )
        embeddings = self.encoders[chosen].encode(
            inputs, modality, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        single = embeddings.ndim == 1
        projected = self.project(embeddings[None] if single else embeddings, chosen)
        return projected[0] if single else projected

    def diagnose(self) -> tuple[Finding, ...]:
        """Tell what is wrong with the connection, from what was measured of its unpaired rows when it was made.

        Returns:
            every check (`cmcr.connection.diagnosis.Finding`), those that failed first; nothing for a connection of which
            nothing was measured, such as an imported one.
        """
        from cmcr.connection import diagnosis  # which knows what a connection is

        return diagnosis.diagnose(self)

    def save(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the connection to a folder: `config.json`, `model.safetensors` and `README.md`, a model card.

        The folder appears only when it is whole.

        Args:
            folder: where; its parent is made if need be.
            replace: take the place of a connection that is there already.

        Raises:
            WriteError: a connection is there and `replace` was not given; no permission, disk full, or something else at
                that path. What was there stays as it was.
        """
        from cmcr.connection import artefact  # which knows what a connection is

        artefact.save(self, Path(folder), replace=replace)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        results: str | Path | Sequence[str | Path] = (),
        license: str | None = None,
        parent_licenses: Mapping[str, str] | None = None,
    ) -> str:
        """Push the connection to the model hub, where `cmcr.load(name)` finds it, with a model card.

        The card names the parents by repository and commit, so attach the encoders first; nothing of them is copied. The
        files go up in one commit.

        Args:
            name: of the repository, as "owner/name"; made if need be.
            private: whether a new repository is private; None leaves it to the owner's default.
            token: of the hub; None takes the one that `hf auth login` has stored.
            results: a file, or several, that `cmcr evaluate --out` has written of this connection: the figures of the card.
            license: of the maps, such as "apache-2.0".
            parent_licenses: of the parents by the space's name, where their own cards on the hub do not say.

        Returns:
            the address of the commit.

        Raises:
            ConfigError: not the name of a repository, or results of another connection.
            FormatError: results that are none.
            WriteError: the hub refuses, or is out of reach.
            MissingDependencyError: huggingface_hub is not installed.
        """
        from cmcr.adapters.hub import push_to_hub

        return push_to_hub(self, name, private, token, results, license, parent_licenses or {})

    def to_sentence_transformer(self, folder: str | Path, *, common: bool = False) -> None:
        """Write a folder that plain `SentenceTransformer(folder)` opens, without code of cmcr and without trust in any.

        Its vectors equal those of `encode` to 1e-5 for texts, pictures and sounds of up to ten seconds, which is tried on
        a few items before the folder appears. Its card says what it cannot promise. It holds the weights of the encoders
        that are of transformers; others, such as those of point clouds, are left out.

        Args:
            folder: where; must not be there yet.
            common: write what `common` gives, instead of what `project` gives: the way for a direct sum, which their
                modules cannot express.

        Raises:
            ConfigError: a direct sum without `common`, a method whose maps their modules cannot express (the message names
                some that they can), or no encoder of transformers attached.
            WriteError: something is there, no permission, disk full.
            MissingDependencyError: sentence-transformers is not installed.
        """
        from cmcr.adapters.sentence_transformer import to_sentence_transformer

        to_sentence_transformer(self, Path(folder), common)

    def export_onnx(self, folder: str | Path) -> None:
        """Write the connection as ONNX: of every modality its encoder and its projector, to run without torch.

        `text_model.onnx`, `visual_model.onnx` and `audio_model.onnx` take what the processors make of items, batches of any
        size, and give the embedding in the space ("embeddings") and the row that `encode` gives ("rows").
        `text_projection.onnx`, ..., `point_cloud_projection.onnx` take embeddings ("input") and give the rows of `project`
        ("output"). Encoders that are not attached or not of transformers are left out, their projectors are not. What
        several spaces embed is of the first. Every graph is run and compared with torch before the folder appears.

        Args:
            folder: where; must not be there yet.

        Raises:
            ConfigError: an encoder that torch cannot export, or whose graph gives other rows.
            WriteError: something is there, no permission, disk full.
            MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        """
        from cmcr.adapters.onnx import export_onnx

        export_onnx(self, Path(folder))

    def _projector(self, space: str) -> Map:
        if space not in self.projectors:
            raise unknown_name("space", space, self.projectors)
        return self.projectors[space]

    def _space_for(self, modality: str, space: str | None) -> str:
        """Find the space that embeds a modality."""
        if modality not in self.modalities:
            raise unknown_name("modality", modality, self.modalities)
        owners = [s.name for s in self.spaces if modality in s.modalities]
        if space is not None:
            self._projector(space)
            if space not in owners:
                raise ConfigError(f"space {space!r} does not embed {modality}; {owners[0]!r} does.")
            return space
        if len(owners) > 1:
            choices = " or ".join(f"space={owner!r}" for owner in owners)
            raise ConfigError(f"several spaces embed {modality}: choose one, {choices}.")
        return owners[0]
