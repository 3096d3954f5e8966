"""Do exports give the vectors of the connection? Small random models of every architecture, as the tests have them.

    python benchmarks/parity.py --out benchmarks/results/parity.json

Each model is connected (cca, common block) and exported twice: as a folder of sentence-transformers and as ONNX graphs. The
figure is the largest difference of a number of a row from what `Connection.encode` gives, over the tests' items of a modality,
in batches of one and of all; pictures as RGB, sounds no longer than the window. What an exporter refuses is said.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cmcr
from cmcr.data.images import to_rgb
from cmcr.spaces.dual_encoders import DualEncoderSpace
from tables import result_table, save

WINDOW = 48_000  # samples: of the tests' models, one second
ONNX_NAMES = {"text": "text", "image": "visual", "audio": "audio"}


def main() -> None:
    """Export every small model and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    settings = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "spaces"))
    import small_models  # type: ignore[import-not-found]

    warnings.simplefilter("ignore")
    rows: list[list[str]] = []
    for kind, made in small_models.KINDS.items():
        with tempfile.TemporaryDirectory() as place:
            root = Path(place) / kind
            if made.write is None:
                continue
            made.write(root)
            space: Any = made.open(root)
            if isinstance(space, DualEncoderSpace):
                connection = connected(space)
                for modality in space.widths:
                    items = [
                        to_rgb(item) if modality == "image" else item
                        for item in small_models.items(modality)
                        if modality != "audio" or len(item["array"]) <= WINDOW
                    ]
                    expected = connection.encode(items, modality, space=space.name)
                    found = [
                        said(partial(export, connection, space, modality, items, Path(place)), expected)
                        for export in (by_sentence_transformers, by_onnx)
                    ]
                    rows.append([kind, modality, *found])
                    print(*rows[-1], sep="\t", flush=True)
    columns = {"model": "{}", "modality": "{}", "sentence-transformers": "{}", "onnxruntime": "{}"}
    save(settings.out, settings, {"exports": result_table(columns, rows)})


def connected(space: DualEncoderSpace) -> cmcr.Connection:
    """Connect a space with one of arrays, through text."""
    width, (other, _) = space.widths["text"], space.widths
    rng = np.random.default_rng(0)
    left = cmcr.Memories(space, **{"text": rng.normal(size=(64, width)), other: rng.normal(size=(64, width))})
    right = cmcr.Memories("other", text=rng.normal(size=(64, 16)), point_cloud=rng.normal(size=(64, 16)))
    made = cmcr.connect(left, right, method="cca", own_share=0.0)
    return replace(made, encoders={space.name: space, "other": object()})  # type: ignore[dict-item]


def by_sentence_transformers(
    connection: cmcr.Connection, space: DualEncoderSpace, modality: str, items: list[Any], place: Path
) -> list[Any]:
    """Embed items by what sentence-transformers opens."""
    from sentence_transformers import SentenceTransformer

    folder = place / "sentence-transformers"
    if not folder.exists():
        connection.to_sentence_transformer(folder)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    given = [{"audio": item} for item in items] if modality == "audio" else items
    return [model.encode(given, batch_size=size, show_progress_bar=False) for size in (1, len(given))]


def by_onnx(
    connection: cmcr.Connection, space: DualEncoderSpace, modality: str, items: list[Any], place: Path
) -> list[Any]:
    """Embed items by onnxruntime."""
    import onnxruntime

    folder = place / "onnx"
    if not folder.exists():
        connection.export_onnx(folder)
    session = onnxruntime.InferenceSession(folder / f"{ONNX_NAMES[modality]}_model.onnx")
    found = []
    for size in (1, len(items)):
        parts = []
        for start in range(0, len(items), size):
            inputs = {k: v.numpy() for k, v in space.model_inputs(items[start : start + size], modality).items()}
            if modality == "audio":
                inputs = {"input_features": inputs["input_features"][:, :1]}
            parts.append(session.run(["rows"], inputs)[0])
        found.append(np.concatenate(parts))
    return found


def said(export: Callable[[], list[Any]], expected: Any) -> str:
    """Say how far the rows of an export are from those expected, or that it was refused."""
    try:
        return f"{max(float(np.abs(rows - expected).max()) for rows in export()):.0e}"
    except cmcr.CmcrError as error:
        print(error, flush=True)
        return "refused"


if __name__ == "__main__":
    main()
