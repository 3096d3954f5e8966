"""`cmcr index`."""

from __future__ import annotations

import json
from pathlib import Path

from cmcr.cli.console import print_table, say, shown_stages
from cmcr.cli.options import Json, Model, spaces_of
from cmcr.cli.signals import stopped_gently


def index(
    connection: Path,
    inputs: list[Path],
    /,
    *,
    out: Path,
    items: list[Path] | None = None,
    via: str | None = None,
    modality: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
    references: list[Path] | None = None,
    backend: str | None = None,
    model: Model = None,
    batch_size: int = 32,
    retry_quarantined: bool = False,
    device: str = "auto",
    as_json: Json = False,
) -> None:
    """Make an index that cmcr search and cmcr serve answer from, or bring it up to date.

    Give it memories of the connection's spaces, or raw items as cmcr embed takes them: these are embedded into OUT. The same
    command again adds what is new and leaves out what is gone. Stopped or killed, it resumes; an older index stays usable.
    Example: cmcr index my-connection pictures/ sounds/ --out my-index

    Args:
        connection: Folder of a connection.
        inputs: Memories; folders, quoted patterns, lists or tar shards of items.
        out: Folder of the index.
        items: The folders, patterns or lists that the memories were embedded from, to find files, texts and columns.
        via: Space for a modality that several embed; else the first of the connection.
        modality: What raw items are, where their endings do not tell.
        column: Of tables: which column holds the texts, or the paths of the files.
        id_column: Of tables: which column holds the ids; else rows are numbered.
        references: Memories to draw the reference queries of hub correction from, such as those of the training.
        backend: exact, faiss or lancedb; else chosen by the number of rows. lancedb:s3://bucket/folder keeps its tables there.
        batch_size: Items per forward pass.
        retry_quarantined: Try raw items again that could not be read.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    from cmcr.search.building import index as make_index

    kept = f"finished work is kept in {out}, an older index there is as it was. Run the same command again to resume."
    with stopped_gently(kept), shown_stages(quiet=as_json) as progress:
        made = make_index(
            connection,
            inputs,
            out,
            items=items or (),
            via=via,
            modality=modality,
            column=column,
            id_column=id_column,
            references=references or (),
            backend=backend,
            encoders=spaces_of(model),
            batch_size=batch_size,
            retry_quarantined=retry_quarantined,
            device=device,
            progress=progress,
        )
    facts = [
        {
            "space": record.space,
            "modality": record.modality,
            "items": record.rows,
            "live": record.live,
            "quarantined": len(corpus.own.quarantine()),
            "backend": record.backend,
        }
        for record, corpus in zip(made.opened.manifest.corpora, made.opened.corpora, strict=True)
    ]
    if as_json:
        print(json.dumps({"path": str(out), "corpora": facts}))
        return
    rows = [
        [f"{f['modality']} ({f['space']})", *(f"{f[n]:,}" for n in ("items", "live", "quarantined")), str(f["backend"])]
        for f in facts
    ]
    print_table(str(out), ["", "items", "of them there", "could not be read", "back-end"], rows)
    if any(f["quarantined"] for f in facts):
        say("Why items could not be read stands in *.quarantine.jsonl of their memory; then: --retry-quarantined.")
    say(f"Ask it: cmcr search {out} --help; or look and listen: cmcr serve {out}")
