"""`cmcr embed`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cmcr.cli.console import print_memory, say, shown_stages
from cmcr.cli.options import Engine
from cmcr.cli.signals import stopped_gently


def embed(
    space: str,
    modality: str,
    input_: Annotated[str, Parameter(name="input")],
    /,
    *,
    out: Path,
    model: str | None = None,
    revision: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
    batch_size: int = 32,
    dtype: str = "float16",
    shard_items: int = 16_384,
    max_failures: float = 0.5,
    append: bool = False,
    retry_quarantined: bool = False,
    device: str | None = None,
    engine: Engine = Engine(),  # noqa: B008 - frozen
    as_json: Annotated[bool, Parameter(name="--json", help="Print events, one line of JSON each.")] = False,
) -> None:
    """Embed many items into a memory on disk. Stopped or killed, the same command resumes.

    Example: cmcr embed mini-clip text captions.txt --out captions-in-clip

    Args:
        space: A space by name, such as clip, clap, ulip, mini-clip.
        modality: image, text, audio or point_cloud.
        input_: A folder, a quoted pattern ("photos/**/*.jpg"), a text file of lines, a CSV, JSONL or Parquet file, or tar
            shards.
        out: Folder of the memory.
        model: The model to open the space with: a repository, a folder or a file.
        revision: Commit, tag or branch of the model.
        column: Of a table: which column holds the texts, or the paths of the files.
        id_column: Of a table: which column holds the ids; else rows are numbered.
        batch_size: Items per forward pass.
        dtype: How rows are kept: float16, bfloat16 or float32.
        shard_items: Items a shard; at most so many are embedded again after a crash.
        max_failures: Items that may fail before the run stops: a number, or a share such as 0.05.
        append: Add what is new in INPUT to a finished memory.
        retry_quarantined: Append, and try the items in quarantine again.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    from cmcr.memories.embed import embed as embed_items

    options = {name: value for name, value in (("model", model), ("revision", revision)) if value is not None}
    kept = f"finished shards are kept in {out}. Run the same command again to resume."
    with stopped_gently(kept), _shown(as_json) as on_event:
        memory = embed_items(
            space,
            modality,
            input_,
            out,
            column=column,
            id_column=id_column,
            batch_size=batch_size,
            dtype=dtype,
            shard_items=shard_items,
            max_failures=max_failures,
            append=append,
            retry_quarantined=retry_quarantined,
            device=device,
            on_event=on_event,
            space_options=options,
            **engine.keywords(),
        )
    if not as_json:
        print_memory(memory, out)
        if memory.quarantine():
            say("Fix them, then run the same command with --retry-quarantined.")


@contextmanager
def _shown(as_json: bool) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Show events: lines of JSON on standard output, or one stage of work on standard error."""
    if as_json:
        yield (
            lambda event, facts: None if event == "items" else print(json.dumps({"event": event, **facts}), flush=True)
        )
        return
    stage, items, finished = "", 0, 0
    with shown_stages() as progress:

        def show(event: str, facts: Mapping[str, Any]) -> None:
            nonlocal stage, items, finished
            if event == "started":
                items, finished = facts["items"], facts["done"]
                stage = f"embedding {items:,} items" + (f", {finished:,} finished earlier" if finished else "")
            elif event == "items":
                finished += facts["count"]
            if stage:
                progress(stage, finished / items)
            if skipped := facts.get("passed_over"):
                kinds = ", ".join(f"{ending} ({count:,})" for ending, count in sorted(skipped.items()))
                say(f"skipped, by their endings: {kinds}", aside=True)
            if "new" in facts:
                say(f"{facts['new']:,} new row(s).", aside=True)

        yield show
