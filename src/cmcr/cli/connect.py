"""`cmcr connect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmcr.cli.console import say, shown_stages
from cmcr.cli.options import Engine, Json, Set, memories_of, settings_of

if TYPE_CHECKING:
    from cmcr.connection.connection import Connection


def connect(
    memories: list[Path],
    /,
    *,
    out: Path,
    overlap: str | None = None,
    method: str = "auto",
    seed: int = 0,
    setting: Set = None,
    device: str = "auto",
    engine: Engine = Engine(),  # noqa: B008 - frozen
    restart: bool = False,
    replace: bool = False,
    as_json: Json = False,
) -> None:
    """Connect spaces from their memories on disk: the shared modality in both, and one more modality of each.

    Every memory knows its space and modality, so they may come in any order; several of one kind are taken together.
    With --engine ray, several workers compute the semantically consistent rows; training runs here, on one device.
    Finished work is kept in OUT.unfinished until the connection is written: stopped or killed, the same command resumes
    (more than two spaces begin anew).
    Example: cmcr connect captions-in-clip pictures captions-in-clap sounds --out my-connection

    Args:
        memories: Folders of memories, of two spaces; or of more, which are linked wherever two share a modality.
        out: Folder of the connection.
        overlap: The shared modality, where there are two.
        method: auto chooses one without a pair, in half a minute; or c-mcr, c-mcr-residual, distilled, cca, concepts, mixed,
            posterior, ridge, procrustes, ex-mcr, clipclap, clipclap-text, c-mcr-published, c-mcr-published-ulip.
        seed: The same seed gives the same connection.
        device: Where to train: auto, cpu, cuda, cuda:1, mps.
        restart: Drop the state of a stopped training; what was chosen, and semantically consistent rows, only where they are
            of other memories or settings.
    """
    from cmcr.connecting import connect_on_disk, unfinished
    from cmcr.connection.diagnosis import EXAMINED, findings
    from cmcr.connection.methods import settings_of as check_settings
    from cmcr.connection.summary import in_short

    settings = settings_of(setting)
    check_settings(method, **settings)  # first: as keywords below, words such as seed would be arguments
    try:
        with shown_stages(quiet=as_json) as progress:
            connection = connect_on_disk(
                *memories_of(memories),
                out=out,
                overlap=overlap,
                method=method,
                seed=seed,
                device=device,
                **engine.keywords(),
                restart=restart,
                replace=replace,
                progress=progress,
                **settings,
            )
    except KeyboardInterrupt:
        kept = unfinished(out.absolute())
        if not kept.exists():  # more than two spaces, or nothing was finished
            raise
        said = f"stopped; finished work is kept in {kept}. Run the same command again to resume."
        raise KeyboardInterrupt(said) from None
    choices = _choices(connection)
    names, shared, rows = [space.name for space in connection.spaces], connection.overlap, connection.overlap_rows
    if not as_json:
        say(f"{out}: {' and '.join(names)}, connected through {rows:,} items of {shared}, {connection.width} wide.")
        for where, choice in choices.items():
            say(f"chosen for {where}: {_said(choice)}")
        say(*in_short(connection))
        for finding in findings(each for each in connection.report["measured"] if each["check"] not in EXAMINED):
            if not finding.ok:  # of what was given, `connect` has warned
                say(f"FAILED: {finding.name}, {finding.where}: {finding.message} {finding.advice}")
        return
    facts = {"path": str(out), "spaces": names, "overlap": shared, "overlap_rows": rows, "width": connection.width}
    losses = connection.history.get("total")  # several links have several, a closed form has none
    facts |= {"final_loss": losses[-1] if losses else None, "method": method, "in_short": connection.report["in_short"]}
    print(json.dumps({**facts, "chosen": {where: choice["chosen"] for where, choice in choices.items()}}))


def _choices(connection: Connection) -> dict[str, Any]:
    """Give what `auto` chose, by the names of each link."""
    names, reports = [space.name for space in connection.spaces], connection.report
    if len(names) == 2:  # of more, it is laid out so
        reports = {" + ".join(names): reports}
    return {where: each["choice"] for where, each in reports.items() if isinstance(each, dict) and "choice" in each}


def _said(choice: dict[str, Any]) -> str:
    if not choice["candidates"]:
        return f"{choice['chosen']} (closed form): the overlap is too small to weigh others by."
    found = choice["candidates"][choice["by"]]
    parts = ", ".join(f"{key} {found[key]:.1f} % to {found[f'{key}_beside']:.1f} %" for key in ("classes", "instances"))
    return f"{choice['chosen']} ({found['worth']:.2f} times the evidence of the closed form, cca: {parts}). See: cmcr compare"
