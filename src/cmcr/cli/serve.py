"""`cmcr serve`."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cmcr.cli.console import say
from cmcr.cli.options import Json, Model, models_of
from cmcr.cli.signals import stopped_gently


def serve(
    index: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_host: list[str] | None = None,
    open_page: Annotated[bool, Parameter(name="--open")] = False,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Serve an index as a page to look and listen, and as a JSON API, until Ctrl-C.

    Example: cmcr serve my-index --open

    Args:
        index: What cmcr index has written. It may be updated meanwhile: nobody's request is dropped.
        host: To listen at. Others than loopback need --allow-host.
        port: 0 takes a free one.
        allow_host: Names by which browsers may call the server, beside localhost, such as that of a proxy.
        open_page: Open the page in a browser.
    """
    from cmcr.web.server import serve as serve_index

    def ready(url: str) -> None:
        if as_json:
            print(json.dumps({"url": url}), flush=True)
        else:
            say(f"Open {url} (Ctrl-C stops it).")
        if open_page:
            webbrowser.open(url)

    with stopped_gently("what was asked before was answered."):
        serve_index(
            index,
            host=host,
            port=port,
            allow_hosts=allow_host or (),
            models=models_of(model),
            on_ready=ready,
        )
