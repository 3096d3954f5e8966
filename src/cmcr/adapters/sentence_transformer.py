"""A folder that plain sentence-transformers opens: `Connection.to_sentence_transformer`.

It holds modules of that library alone, for any other class would need `trust_remote_code`: a route a space (`Router`), each
an encoder (`Transformer`), `Normalize`, and the map of the space as `Dense` layers and `Normalize`. A layer
``activation(A x + b) + R x``, which `Dense` is with `use_residual`, carries some numbers on while it bends others; so centring
by the modality that the row tells and a perceptron beside a linear map are two layers each. No module of theirs normalises
one part of a row, so direct sums, mixtures and unnormalised posteriors are refused.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from cmcr.adapters.model_card import parents_of, parents_table, plain_names
from cmcr.adapters.probes import probes_of
from cmcr.connection.connection import Connection
from cmcr.connection.maps import Centring, Chain, Identity, Linear, Map, Posterior, Shift
from cmcr.connection.projectors import Projector, ResidualProjector
from cmcr.errors import ConfigError
from cmcr.files import written_aside
from cmcr.spaces.dual_encoders import DualEncoderSpace
from cmcr.spaces.hub import find_snapshot, import_library, quiet_transformers

KIND = "sentence-transformers model"
_ALIKE = 1e-4  # between its rows and ours, where 1e-7 is usual: more is another preprocessing, not rounding
_NEVER = -100.0  # whose sigmoid is zero in float32
_REQUIREMENTS = {"sentence-transformers": ">=6", "transformers": ">=5"}
_METHODS = "Connect with cca, ridge, procrustes, c-mcr, c-mcr-residual, distilled or posterior"


def to_sentence_transformer(connection: Connection, folder: Path, common: bool) -> None:
    """Write the folder (see `Connection.to_sentence_transformer`)."""
    library = import_library(
        "sentence_transformers", "sentence-transformers", extra="sentence-transformers", purpose="such a folder"
    )
    if connection.own_share and not common:
        raise ConfigError(
            "the rows of this connection are a direct sum, which the modules of sentence-transformers cannot put together. "
            "Pass common=True for its common block, which ranks across spaces alike, or connect with own_share=0."
        )
    spaces = _spaces_of(connection)
    routes = plain_names(spaces, r"[^\w-]")  # names of folders, without dots, which torch has for other uses
    heads = {name: modules_of(connection.projectors[name], connection) for name in spaces}
    with written_aside(folder, KIND) as aside, quiet_transformers(), torch.no_grad():
        router = library.base.modules.Router(
            {
                routes[name]: [_encoder(library, space), library.base.modules.Normalize(), *heads[name]]
                for name, space in spaces.items()
            },
            route_mappings=_mappings(connection, routes),
        )
        library.SentenceTransformer(modules=[router], device="cpu").save(str(aside), create_model_card=False)
        _add_json(aside / "config_sentence_transformers.json", requirements=_REQUIREMENTS)
        for name, space in spaces.items():
            settings = aside / f"{routes[name]}_0_Transformer" / "sentence_bert_config.json"
            # Torchvision, where it is installed, would resize to other pixels; their tokenizers forget lower case.
            pil = {"processor_kwargs": {"backend": "pil"}} if "image" in space.widths else {}
            _add_json(settings, do_lower_case=space.parts().as_siglip, **pil)
        (aside / "README.md").write_text(_card(connection, routes, common), encoding="utf-8")
        _check(library, aside, connection, routes, common)


def modules_of(found: Map, connection: Connection) -> list[Any]:
    """Write a map as modules of sentence-transformers, batch normalisation folded into linear layers.

    Raises:
        ConfigError: a map that these modules cannot express.
    """
    normalize = _modules().Normalize
    match found:
        case Chain():
            return [module for part in found.parts for module in modules_of(part, connection)]  # type: ignore[arg-type]
        case Identity():
            return []
        case Centring():
            ahead, (first, second) = torch.eye(found.width), found.means
            share = _dense(
                _below(torch.zeros_like(ahead), found.weight[None]),
                torch.cat([torch.full_like(first, _NEVER), found.bias[None]]),
                nn.Sigmoid(),
                _below(ahead, torch.zeros_like(first)[None]),
            )
            return [share, _dense(torch.cat([ahead, (second - first)[:, None]], dim=1), -second), normalize()]
        case Shift():
            return [_dense(found.scale * torch.eye(found.width), found.mean), normalize()]
        case Linear():
            return [_dense(found.weight.T), normalize()]
        case Posterior(unit=True):
            shares = _dense(found.anchors / found.temperature, activation=nn.Softmax())
            return [_dense(found.whitening.T), normalize(), shares, normalize()]
        case Projector():
            layers = []
            for depth, pair in enumerate(zip(found.linears, found.norms, strict=True), 1):
                bent = depth < len(found.linears) or found.shape.final_relu
                layers.append(_dense(*_folded(*pair), nn.ReLU() if bent else None))
            return [*layers, normalize()]
        case ResidualProjector():
            ahead = torch.eye(found.width_in)
            weight, bias = _folded(found.inner, found.norm)
            inner = _dense(
                _below(torch.zeros_like(ahead), weight),
                torch.cat([torch.zeros(found.width_in), bias]),
                nn.ReLU(),
                _below(ahead, torch.zeros_like(weight)),
            )
            return [inner, _dense(torch.cat([found.straight.weight, found.outer.weight], dim=1)), normalize()]
    if len(connection.spaces) > 2 and connection.base is None:
        raise ConfigError(
            "the rows of a connection of several spaces are blocks side by side, which the modules of sentence-transformers "
            "cannot normalise one by one. Connect with base=, the space whose coordinates all others get."
        )
    raise ConfigError(
        f"the modules of sentence-transformers cannot express the map {found.kind!r} of method {connection.method!r}. "
        f"{_METHODS}."
    )


def _spaces_of(connection: Connection) -> dict[str, DualEncoderSpace]:
    """Choose the spaces whose encoders transformers can run; the others are left out, and the card says so."""
    missing = [known.name for known in connection.spaces if known.name not in connection.encoders]
    if missing:
        raise ConfigError(
            f"no encoder of space {missing[0]!r} is attached: load the connection with encoders=[cmcr.space(...), ...]."
        )
    found = {name: each for name, each in connection.encoders.items() if isinstance(each, DualEncoderSpace)}
    if not found:
        raise ConfigError(
            f"the encoders of {' and '.join(connection.encoders)} are none of transformers, which is all that a folder of "
            "sentence-transformers can hold. Use Connection.encode, or export_onnx for the projectors."
        )
    return found


def _encoder(library: Any, space: DualEncoderSpace) -> Any:
    """Open the encoder of a space as a module of theirs, set to read texts, pictures and sounds as the space does."""
    parts = space.parts()
    revision = None if Path(space.source).expanduser().is_dir() else space.revision
    snapshot = find_snapshot(space.source, revision, local_files_only=True)
    local = {"local_files_only": True}
    try:
        found = library.base.modules.Transformer(
            str(snapshot.folder),
            model_kwargs={**local, "use_safetensors": True, "dtype": torch.float32},  # not that of the files
            processor_kwargs=dict(local),
            config_kwargs=dict(local),
            do_lower_case=parts.as_siglip,
        )
    except Exception as error:  # whatever its processor classes raise
        raise ConfigError(f"{snapshot}: sentence-transformers cannot open it ({error}).") from error
    found.tokenizer.model_max_length = parts.text_length
    found.processing_kwargs = {"text": {"max_length": parts.text_length}}
    if parts.pad_to_full:
        found.processing_kwargs["text"]["padding"] = "max_length"
    if parts.as_siglip:
        found.processing_kwargs["text"]["return_attention_mask"] = False
    if "audio" in space.widths:
        found.processing_kwargs["audio"] = {"padding": "repeatpad"}
        for name, value in found.model.state_dict().items():
            # Their extractor marks a random sound of a batch of short ones as longer. With the branch for longer ones at
            # zero the fused rows are those of the whole sound, marked or not.
            if "patch_embed.fusion_model" in name or "patch_embed.mel_conv2d" in name:
                value.zero_()
    return found


def _mappings(connection: Connection, routes: dict[str, str]) -> dict[tuple[str | None, str], str]:
    """Send every modality to the first space that embeds it, or to the one that is named as the task."""
    found: dict[tuple[str | None, str], str] = {}
    for known in connection.spaces:
        for modality in known.modalities:
            if known.name in routes:
                found.setdefault((None, modality), routes[known.name])
                found[routes[known.name], modality] = routes[known.name]
    return found


def _check(library: Any, folder: Path, connection: Connection, routes: dict[str, str], common: bool) -> None:
    """Open the folder as anyone would, and compare what it makes of a few items with what the connection does."""
    carry = connection.common if common else connection.project
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of a softmax without a dimension
        opened = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        for known in connection.spaces:
            for modality in known.modalities if known.name in routes else ():
                encoder: Any = connection.encoders[known.name]
                ours = probes_of(modality, encoder.parts().processor)
                theirs = [{"audio": sound} for sound in ours] if modality == "audio" else ours
                expected = carry(encoder.encode(ours, modality), known.name)
                try:
                    rows = opened.encode(theirs, task=routes[known.name], show_progress_bar=False)
                    apart = float(np.abs(rows - expected).max())
                except Exception as error:  # whatever a model raises that gets other inputs than it reads
                    raise ConfigError(
                        f"sentence-transformers cannot embed {modality} of {known.name!r} ({error})."
                    ) from error
                if not apart < _ALIKE:
                    raise ConfigError(
                        f"sentence-transformers embeds {modality} of space {known.name!r} otherwise than cmcr does, by up to "
                        f"{apart:.1g}, with these versions of the libraries. Nothing was written. Was the space opened in half "
                        "precision?"
                    )


def _modules() -> Any:
    return import_library("sentence_transformers.base.modules")


def _dense(
    weight: Tensor, bias: Tensor | None = None, activation: nn.Module | None = None, residual: Tensor | None = None
) -> Any:
    """Make ``activation(x A^T + b) + x R^T`` as their module; A and R `(K, D)`."""
    width, width_in = weight.shape
    found = _modules().Dense(width_in, width, bias is not None, activation, use_residual=residual is not None)
    with torch.no_grad():
        found.linear.weight.copy_(weight)
        if bias is not None:
            found.linear.bias.copy_(bias)
        if residual is not None:
            found.residual.weight.copy_(residual)
    return found


def _folded(linear: Any, norm: Any) -> tuple[Tensor, Tensor]:
    fused = fuse_linear_bn_eval(linear, norm)
    return fused.weight, fused.bias


def _below(upper: Tensor, lower: Tensor) -> Tensor:
    return torch.cat([upper, lower])


def _add_json(path: Path, **more: Any) -> None:
    known = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**known, **more}, indent=2) + "\n", encoding="utf-8")


def _card(connection: Connection, routes: dict[str, str], common: bool) -> str:
    """Write the card: how to use the folder, what it was made of, and what it cannot promise."""
    parents = parents_of(connection, {})
    inside = [parent for parent in parents if parent.space in routes]
    outside = [parent.space for parent in parents if parent.space not in routes]
    modalities = list(dict.fromkeys(modality for parent in inside for modality in parent.modalities))
    block = (
        "the common block of the rows of `Connection.encode` (`Connection.common`)" if common else "`Connection.encode`"
    )
    calls = {"text": '"a dog barks"', "image": 'Image.open("dog.jpg")', "audio": _EXAMPLE_SOUND}
    lines = [f"model.encode([{calls[modality]}])  # {modality}" for modality in modalities]
    shared = sorted({m for m in modalities if sum(m in parent.modalities for parent in inside) > 1})
    notes: list[str] = [
        f"Rows equal those of {block} to 1e-5 in float32. One call takes items of one modality.",
        *(
            f"Several spaces embed {modality}: the first one does unless another is named, such as "
            f'`task="{routes[inside[-1].space]}"`.'
            for modality in shared
        ),
        *([_SOUNDS] if "audio" in modalities else []),
        *([_PICTURES] if "image" in modalities else []),
        *([f"Not in here: {' and '.join(outside)}, whose encoders are none of transformers."] if outside else []),
        "Point clouds cannot be read by sentence-transformers: `Connection.encode` carries them into the same space.",
    ]
    return _CARD.format(
        names=" + ".join(parent.space for parent in parents),
        lines="\n".join(lines),
        table=parents_table(parents, licences=False),
        imports="from PIL import Image\n" if "image" in modalities else "",
        method=connection.method,
        notes="\n".join(f"- {note}" for note in notes),
    )


_EXAMPLE_SOUND = '{"audio": {"array": samples, "sampling_rate": 48_000}}'
_SOUNDS = (
    f"Give a sound as `{_EXAMPLE_SOUND}`, at the rate of the model: another rate is refused, and a bare array is taken to "
    "have the right one. Up to 10 s, rows are equal. Of longer sounds their code reads a window at a random position, another "
    "with every call, where `Connection.encode` reads windows at fixed ones; of a fused model it reads here the whole, shrunk: "
    "the branch for longer sounds is set to zero in the weights, because their code takes it for short sounds at random."
)
_PICTURES = (
    "Pictures are prepared by Pillow, whether torchvision is installed or not. Give them as RGB: the processors of a few "
    "models read nothing else, and a path to a transparent picture loses its transparency."
)
_CARD = """---
library_name: sentence-transformers
tags: [sentence-transformers, cmcr, feature-extraction, multimodal]
pipeline_tag: feature-extraction
---
# {names}, connected, for sentence-transformers

Frozen encoders and the maps that connect them without paired data (method `{method}` of cmcr), as modules of
sentence-transformers alone: no remote code. Nothing of this was trained with sentence-transformers.

```python
{imports}from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
{lines}
```

{table}

The weights of the encoders are in this folder, under the licences of their own repositories.

## What it promises, and what it cannot

{notes}
"""
