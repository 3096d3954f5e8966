"""`cmcr embed`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from cmcr.cli.stopping import stopped_gently
from cmcr.errors import ConfigError


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
    max_failures: str = "50%",
    append: Annotated[bool, Parameter(negative="")] = False,
    retry_quarantined: Annotated[bool, Parameter(negative="")] = False,
    device: str | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Embed many items into a memory on disk. Stopped or killed, the same command goes on where it was.

    Example: cmcr embed mini-clip text captions.txt --out captions-in-clip

    Parameters
    ----------
    space
        A space by name, such as clip, clap, ulip, mini-clip.
    modality
        image, text, audio or point_cloud.
    input_
        A folder, a quoted pattern ("photos/**/*.jpg"), a text file of lines, a CSV, JSONL or Parquet file, or tar shards.
    out
        Folder of the memory.
    model
        Which model the space shall be opened with: a repository, a folder or a file.
    revision
        Commit, tag or branch of the model.
    column
        Of a table: which column holds the texts, or the paths of the files.
    id_column
        Of a table: which column holds the ids; else rows are numbered.
    batch_size
        Items per forward pass.
    dtype
        How rows are kept: float16, bfloat16 or float32.
    shard_items
        Items a shard; at most so many are embedded again after a crash.
    max_failures
        Items that may fail before the run stops: a number, or a share such as 5%.
    append
        Add what is new in INPUT to a finished memory.
    retry_quarantined
        Try the items in quarantine again, and complete a finished memory with them.
    device
        auto, cpu, cuda, cuda:1, mps.
    engine
        local: in this process. ray: by several workers, on this machine or on the Ray cluster at RAY_ADDRESS.
    workers
        Processes that embed, with --engine ray; 2 unless given.
    cpus_per_worker
        Cores for each worker, and threads it computes with; 1 unless given.
    gpus_per_worker
        GPUs for each worker, such as 1 or 0.5; none unless given.
    json_output
        Print events, one line of JSON each.
    """
    from cmcr.memories.embed import embed as embed_items
    from cmcr.memories.embed_failures import parsed_limit
    from cmcr.memories.embed_retry import retry_quarantined as retry
    from cmcr.spaces.registry import space as open_space

    options = {name: value for name, value in (("model", model), ("revision", revision)) if value is not None}
    if retry_quarantined and append:
        raise ConfigError("--append and --retry-quarantined are two things: run one after the other.")
    if retry_quarantined and engine != "local":
        raise ConfigError("--retry-quarantined runs in one process: leave --engine out.")
    chosen = _engine(engine, workers=workers, cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker)
    common: dict[str, Any] = {
        "column": column,
        "id_column": id_column,
        "batch_size": batch_size,
        "device": device,
    }
    safe = f"finished shards are safe in {out}. Run the same command again to go on from there."
    with stopped_gently(safe), _shown(json_output) as tell:
        if retry_quarantined:
            memory = retry(open_space(space, **options), modality, input_, out, on_event=tell, **common)
        else:
            memory = embed_items(
                space,
                modality,
                input_,
                out,
                dtype=dtype,
                shard_items=shard_items,
                max_failures=parsed_limit(max_failures),
                append=append,
                on_event=tell,
                space_options=options,
                engine=chosen,
                **common,
            )
    if not json_output:
        _say(memory, out)


def _engine(name: str, **given: float | None) -> Any:
    """Choose where shards are embedded."""
    options = {option: value for option, value in given.items() if value is not None}
    if name == "ray":
        from cmcr.memories.embed_ray import RayEngine

        return RayEngine(**options)  # type: ignore[arg-type]
    if options:
        raise ConfigError(f"--{next(iter(options)).replace('_', '-')} is for --engine ray.")
    from cmcr.memories.embed_engine import embed_here

    return embed_here


def _say(memory: Any, out: Path) -> None:
    quarantined = sum(contents.quarantined for contents in memory.contents)
    print(f"{out}: {len(memory):,} rows of {memory.width} ({memory.modality} in {memory.space}, {memory.dtype}).")
    if quarantined:
        print(
            f"{quarantined:,} item(s) could not be embedded: {out}/*.quarantine.jsonl says why. Mend them, then run the"
        )
        print("same command with --retry-quarantined.")


@contextmanager
def _shown(as_json: bool) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Show events: lines of JSON on standard output, or a bar on standard error with rate and time left."""
    if as_json:
        yield (
            lambda event, facts: print(json.dumps({"event": event, **facts}), flush=True) if event != "items" else None
        )
        return
    if not sys.stderr.isatty():
        yield _sentence
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("embedding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("embedding", total=None, rate="")

        def show(event: str, facts: Mapping[str, Any]) -> None:
            if event == "started":
                _say_what_was_passed_over(facts)
                bar.reset(task, total=facts["items"], completed=facts["done"], rate="")
            elif event == "items":
                bar.advance(task, facts["count"])
                speed = bar.tasks[0].speed
                bar.update(task, rate=f"{speed:,.0f}/s" if speed else "")

        yield show


def _sentence(event: str, facts: Mapping[str, Any]) -> None:
    if event == "started":
        done = f", {facts['done']:,} of them done earlier" if facts["done"] else ""
        print(f"embedding {facts['items']:,} items{done} ...", file=sys.stderr, flush=True)
        _say_what_was_passed_over(facts)
    elif event == "finished" and "new" in facts:
        print(f"{facts['new']:,} new row(s).", file=sys.stderr, flush=True)


def _say_what_was_passed_over(facts: Mapping[str, Any]) -> None:
    if passed := facts.get("passed_over"):
        kinds = ", ".join(f"{ending} ({count:,})" for ending, count in sorted(passed.items()))
        print(f"passed over, by their endings: {kinds}", file=sys.stderr, flush=True)
