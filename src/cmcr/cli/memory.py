"""`cmcr memory import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cmcr.cli.console import print_memory, shown_stages
from cmcr.cli.options import Json


def import_memory(
    path: Path,
    /,
    *,
    layout: Annotated[str, Parameter(name="--from")],
    out: Path,
    space: str,
    modality: str,
    fingerprint: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    dtype: str = "float16",
    ids: Path | None = None,
    column: str | None = None,
    id_column: str | None = None,
    quarantine: bool = False,
    as_json: Json = False,
) -> None:
    """Turn embeddings that another program has written into a memory. Stopped, the same command resumes.

    Example: cmcr memory import rows.npy --from npy --ids ids.txt --space clip --modality image --out pictures-in-clip

    Args:
        path: A .npy file, a folder that clip-retrieval's inference has written, or a Parquet file or folder of such files.
        layout: npy, clip-retrieval or parquet.
        out: Folder of the memory.
        space: Name of the space, such as clip.
        modality: image, text, audio or point_cloud.
        fingerprint: Of the encoders; unknown if left out.
        model: Which model; unknown if left out.
        revision: Its commit; unknown if left out.
        dtype: How rows are kept: float16, bfloat16 or float32.
        ids: Of npy: a file of ids (lines of text, or .jsonl); else rows are numbered.
        column: Of parquet: the column of embeddings.
        id_column: Of parquet: the column of ids.
        quarantine: Put rows that are not finite or all zeros into quarantine instead of refusing them.
    """
    from cmcr.memories.interchange import import_memory

    with shown_stages(quiet=as_json) as progress:
        memory = import_memory(
            path,
            out,
            layout=layout,
            space=space,
            modality=modality,
            fingerprint=fingerprint,
            model=model,
            revision=revision,
            dtype=dtype,
            ids=ids,
            column=column,
            id_column=id_column,
            quarantine=quarantine,
            on_progress=lambda share: progress("importing", share),
        )
    if not as_json:
        print_memory(memory, out)
        return
    facts = {"rows": len(memory), "width": memory.width, "dtype": memory.dtype}
    facts["quarantined"] = len(memory.quarantine())
    print(json.dumps({"memory": str(out), "space": memory.space, "modality": memory.modality, **facts}))
