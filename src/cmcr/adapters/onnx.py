"""A connection as ONNX graphs: `Connection.export_onnx`.

For each modality a graph of its encoder, and one of its projector alone. The names are those that bundles of CLIP and CLAP
have elsewhere, where the output of `text_model.onnx` goes into `text_projection.onnx`; so it may here, and as a second output
the encoder's graph gives the same row at once.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.adapters.model_card import parents_of, parents_table
from cmcr.adapters.probes import probes_of
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.errors import ConfigError
from cmcr.files import written_aside
from cmcr.spaces.dual_encoders import DualEncoderSpace
from cmcr.spaces.hub import import_library, quiet_transformers

KIND = "folder of ONNX graphs"
_NAMES = {"text": "text", "image": "visual", "audio": "audio", "point_cloud": "point_cloud"}
_ALIKE = 1e-4  # between a graph's rows and torch's, where 1e-6 is usual: more is another computation, not rounding
_LARGE = 2**30  # bytes of weights that go into a file of their own, <name>.onnx.data: a graph may have 2 GiB


def export_onnx(connection: Connection, folder: Path) -> None:
    """Write the graphs (see `Connection.export_onnx`)."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        import_library(module, extra="onnx", purpose="ONNX graphs")
    owners = {modality: _owner(connection, modality) for modality in connection.modalities}
    encoders = {
        modality: encoder
        for modality, known in owners.items()
        if isinstance(encoder := connection.encoders.get(known.name), DualEncoderSpace)
    }
    with written_aside(folder, KIND) as aside, _quiet(), torch.no_grad():
        written: dict[str, Path] = {}
        for modality, known in owners.items():
            projection = _Projection(connection, known.name)
            path = aside / f"{_NAMES[modality]}_projection.onnx"
            if known.name in written:  # the two modalities of a space share a projector
                shutil.copyfile(written[known.name], path)
            else:
                rows = torch.randn(3, known.width, generator=torch.Generator().manual_seed(0))
                _export(projection, {"input": rows}, ("output",), path, f"the projector of {known.name}")
                written[known.name] = path
            if modality in encoders:
                _export_encoder(encoders[modality], modality, projection, aside)
        config = json.dumps(_config(connection, owners, encoders), indent=2)
        (aside / "clip_config.json").write_text(f"{config}\n", encoding="utf-8")
        (aside / "README.md").write_text(_card(connection, owners, encoders), encoding="utf-8")


class _Projection(nn.Module):
    """Carry embeddings of a space into the common space, as `Connection.project` does."""

    def __init__(self, connection: Connection, space: str) -> None:
        super().__init__()
        self.projector = copy.deepcopy(connection.projectors[space]).cpu().float()
        self._connection, self._space = connection, space

    def forward(self, *inputs: Tensor) -> Tensor:
        unit = F.normalize(inputs[0], dim=1)
        return self._connection.lay_out(self.projector, unit, self._space, self._connection.own_share)


class _Encoder(nn.Module):
    """Embed prepared items, and carry the embeddings into the common space."""

    def __init__(self, model: Any, modality: str, names: tuple[str, ...], projection: _Projection) -> None:
        super().__init__()
        self.model, self.projection = model, projection
        self._method, self._names = f"get_{modality}_features", names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(self._names, inputs, strict=True))
        rows = F.normalize(getattr(self.model, self._method)(**given).pooler_output, dim=1)
        return rows, self.projection(rows)


def _export_encoder(space: DualEncoderSpace, modality: str, projection: _Projection, folder: Path) -> None:
    """Write the graph of an encoder, and what prepares its items."""
    parts = space.parts()
    inputs = space.model_inputs(probes_of(modality, parts.processor), modality)
    inputs = {
        name: values.cpu().float() if values.is_floating_point() else values.cpu() for name, values in inputs.items()
    }
    model = copy.deepcopy(parts.model).cpu().float()
    if modality == "audio":
        # The branch for longer sounds takes those of a batch that are marked, which no graph can: it embeds one window.
        inputs = {"input_features": inputs["input_features"][:, :1]}
        for part in model.modules():
            if hasattr(part, "enable_fusion"):
                part.enable_fusion = False
    encoder = _Encoder(model, modality, tuple(inputs), projection)
    path = folder / f"{_NAMES[modality]}_model.onnx"
    _export(encoder, inputs, ("embeddings", "rows"), path, f"the encoder of {modality} of space {space.name}")
    if modality == "text":
        parts.tokenizer.save_pretrained(folder)
    else:
        parts.processor.save_pretrained(folder / modality if modality == "audio" else folder)


def _export(module: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...], path: Path, what: str) -> None:
    """Export a module for batches of any size, run the graph on batches of two sizes, and compare it with torch.

    Raises:
        ConfigError: torch cannot export it, or the graph gives other rows.
    """
    ragged = ("input_ids", "attention_mask") if "attention_mask" in inputs else ()  # else padded to one length
    axes = tuple({0: "batch", 1: "tokens"} if name in ragged else {0: "batch"} for name in inputs)
    size = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    try:
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            path,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(axes,),
            external_data=size > _LARGE,
            verbose=False,
        )
        session = import_library("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
        for count in (1, len(next(iter(inputs.values())))):
            some = {name: values[:count] for name, values in inputs.items()}
            expected = module(*some.values())
            found = session.run(None, {name: values.numpy() for name, values in some.items()})
            for ours, theirs in zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True):
                if not np.abs(ours.numpy() - theirs).max() < _ALIKE:
                    raise ConfigError("onnxruntime gives other rows than torch, with these versions of the libraries")
    except Exception as error:  # whatever the exporter raises of an architecture that it cannot trace
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{what} cannot be exported ({reason}). Nothing was written.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from warning of libraries that it could use, and of its own future."""
    levels = {log: log.level for log in map(logging.getLogger, ("torch.onnx", "onnxscript"))}
    for log in levels:
        log.setLevel(logging.ERROR)
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)


def _owner(connection: Connection, modality: str) -> ConnectedSpace:
    return next(known for known in connection.spaces if modality in known.modalities)


def _config(
    connection: Connection, owners: Mapping[str, ConnectedSpace], encoders: Mapping[str, DualEncoderSpace]
) -> dict[str, Any]:
    """Say what the graphs take and give, under the names that such bundles have elsewhere."""
    width = connection.width
    found: dict[str, Any] = {"model_type": "clipclap", "projection_dim": width}
    for modality, section in (("image", "vision_config"), ("text", "text_config"), ("audio", "audio_config")):
        if modality in owners:
            found[section] = {"hidden_size": owners[modality].width, "projection_dim": width}
    for modality, encoder in encoders.items():
        parts = encoder.parts()
        config = parts.model.config
        if modality == "text":
            found["text_config"]["max_position_embeddings"] = parts.text_length
        elif modality == "image":
            for name in ("image_size", "patch_size"):
                found["vision_config"][name] = getattr(config.vision_config, name, None)
        else:
            found["audio_config"]["sample_rate"] = int(parts.processor.sampling_rate)
            found["audio_config"]["max_length_s"] = parts.processor.max_length_s
    return found


def _card(
    connection: Connection, owners: Mapping[str, ConnectedSpace], encoders: Mapping[str, DualEncoderSpace]
) -> str:
    rows = [
        f"| {modality} | {known.name} | {f'`{_NAMES[modality]}_model.onnx`' if modality in encoders else 'not here'} | "
        f"`{_NAMES[modality]}_projection.onnx` | {known.width} |"
        for modality, known in owners.items()
    ]
    return _CARD.format(
        names=" + ".join(known.name for known in connection.spaces),
        method=connection.method,
        width=connection.width,
        rows="\n".join(rows),
        table=parents_table(parents_of(connection, {}), licences=False),
        sounds=_SOUNDS if "audio" in encoders else "",
    )


_SOUNDS = """
The audio graph takes one window of ten seconds, as the extractor in `audio/` prepares a sound of up to that length; give it
one channel, also of a fused model. Of longer sounds `Connection.encode` reads several windows of an unfused model: embed
each, and project the mean of their embeddings.
"""
_CARD = """# {names}, connected, as ONNX graphs

Method `{method}` of cmcr. Every graph takes batches of any size.

| modality | space | encoder | projector | width of embeddings |
|---|---|---|---|---|
{rows}

- An encoder takes what the processor of its model gives (`input_ids`, `attention_mask`; `pixel_values`; `input_features`)
  and gives `embeddings`, unit rows in its own space, and `rows`, unit rows in the common space, {width} wide.
- A projector takes `input`, embeddings of any modality of its space, and gives `output`, the same rows.
{sounds}
{table}

The weights of the encoders are in this folder, under the licences of their own repositories.
"""
