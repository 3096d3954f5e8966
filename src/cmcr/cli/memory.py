"""`cmcr memory`: import and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from cmcr.cli.console import shown_stages

memory = cyclopts.App(name="memory", help="Bring memories in and out.")

Json = Annotated[bool, Parameter(name="--json", negative="")]
Flag = Annotated[bool, Parameter(negative="")]


@memory.command(name="import")
def import_(
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
    quarantine: Flag = False,
    json_output: Json = False,
) -> None:
    """Turn embeddings that another program has written into a memory. Stopped, the same command goes on where it was.

    Example: cmcr memory import rows.npy --from npy --ids ids.txt --space clip --modality image --out pictures-in-clip

    Parameters
    ----------
    path
        A .npy file, a folder that clip-retrieval's inference has written, or a Parquet file or folder of such files.
    layout
        npy, clip-retrieval or parquet.
    out
        Folder of the memory.
    space
        Name of the space, such as clip.
    modality
        image, text, audio or point_cloud.
    fingerprint
        Of the encoders; unknown if left out.
    model
        Which model; unknown if left out.
    revision
        Its commit; unknown if left out.
    dtype
        How rows are kept: float16, bfloat16 or float32.
    ids
        Of npy: a file of ids (lines of text, .json, .jsonl or .npy); else rows are numbered.
    column
        Of parquet: the column of embeddings.
    id_column
        Of parquet: the column of ids.
    quarantine
        Put rows that are not finite or all zeros into quarantine instead of refusing them.
    json_output
        Print one line of JSON.
    """
    from cmcr.memories.interchange.transfer import import_memory

    with shown_stages(quiet=json_output) as progress:
        made = import_memory(
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
    _say(made, out, json_output)


@memory.command
def export(
    folder: Path, /, *, layout: Annotated[str, Parameter(name="--to")], out: Path, json_output: Json = False
) -> None:
    """Write a memory as other programs read it. Rows keep their bits; bfloat16 becomes float32.

    Example: cmcr memory export pictures-in-clip --to parquet --out pictures.parquet

    Parameters
    ----------
    folder
        Of the memory.
    layout
        npy, clip-retrieval or parquet.
    out
        A new folder; of parquet a new file.
    json_output
        Print one line of JSON.
    """
    from cmcr.memories.interchange.transfer import export_memory
    from cmcr.memories.memory import Memory

    source = Memory(folder)
    export_memory(source, out, layout=layout)
    if json_output:
        print(json.dumps({"exported": str(out), "layout": layout, "rows": len(source), "width": source.width}))
        return
    print(f"{out}: {len(source):,} rows of {source.width}, as {layout}.")


def _say(made: Any, out: Path, json_output: bool) -> None:
    quarantined = sum(contents.quarantined for contents in made.contents)
    if json_output:
        facts = {"rows": len(made), "width": made.width, "dtype": made.dtype, "quarantined": quarantined}
        print(json.dumps({"memory": str(out), "space": made.space, "modality": made.modality, **facts}))
        return
    print(f"{out}: {len(made):,} rows of {made.width} ({made.modality} in {made.space}, {made.dtype}).")
    if quarantined:
        print(f"{quarantined:,} item(s) are in quarantine: {out}/*.quarantine.jsonl says why.")
