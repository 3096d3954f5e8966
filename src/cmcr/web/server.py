"""`cmcr serve`: the application behind a socket, from the first request to the last."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import warnings
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cmcr.errors import ConfigError, WriteError, missing_dependency
from cmcr.search.engine import SearchIndex
from cmcr.spaces.protocol import Space

_GRACE_SECONDS = 15
_KEEP_ALIVE_SECONDS = 20
_ANY = {"0.0.0.0", "::"}  # names of no machine


def serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_hosts: Sequence[str] = (),
    encoders: Sequence[Space] = (),
    models: Mapping[str, str] | None = None,
    open_page: bool = False,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer requests until Ctrl-C or SIGTERM; those in flight are answered before this returns.

    Args:
        folder: what `cmcr.index` has written; it may be updated meanwhile.
        host: to listen at; other machines reach one that is not loopback.
        port: 0 takes a free one.
        allow_hosts: names by which the server may be called beside the loopback names; needed for another host.
        encoders: as in `SearchIndex`.
        models: as in `SearchIndex`.
        open_page: open the page in a browser.
        on_ready: called with the address of the page as soon as it answers.

    Raises:
        ConfigError: a port out of range, or a host that is not loopback without `allow_hosts`.
        WriteError: the address is in use, or not of this machine.
        MissingDependencyError: FastAPI or uvicorn is not installed.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the last answer.
        CmcrError: as `SearchIndex`.
    """
    try:
        import uvicorn

        from cmcr.web.app import create_app
        from cmcr.web.limits import is_loopback
        from cmcr.web.served import Served
    except ImportError as error:
        raise missing_dependency(error.name or "fastapi", extra="web", purpose="cmcr serve") from error
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port: expected 0 to 65535, got {port}.")
    if not is_loopback(host):
        _warn_of_strangers(host, allow_hosts)
    with contextlib.closing(_bound(host, port)) as listening:
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}/"

        def open_index(earlier: SearchIndex | None) -> SearchIndex:
            """Open it with the encoders that are open already, unless it is asked by others now."""
            if earlier is not None:
                with contextlib.suppress(ConfigError):
                    return SearchIndex(folder, encoders=tuple(earlier.encoders.values()), models=models)
            return SearchIndex(folder, encoders=encoders, models=models)

        served = Served(open_index)
        served.warm()

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                on_ready(url)
                if open_page:
                    webbrowser.open(url)

        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        config = uvicorn.Config(
            create_app(served, [*allow_hosts, *({host} - _ANY)]),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        Server(config).run([listening])


def _warn_of_strangers(host: str, allow_hosts: Sequence[str]) -> None:
    if not allow_hosts:
        raise ConfigError(
            f"--host {host}: other machines could reach the server and see every file of the index. If that is meant, say by "
            "which name they call it: --allow-host NAME (again for each)."
        )
    warnings.warn(
        f"whoever reaches {host} can search this index and fetch its files: there is no password, and nothing is encrypted. "
        "Put a proxy with both in front of it unless the network is yours.",
        UserWarning,
        stacklevel=3,
    )


def _bound(host: str, port: int) -> socket.socket:
    """Bind, before the encoders are warmed up, so that a port in use is known at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host}: not a name or address of this machine ({error}).") from error
    bound = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets two programs share a port otherwise
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        hint = (
            "choose another with --port, or --port 0 for a free one" if error.errno == errno.EADDRINUSE else str(error)
        )
        raise WriteError(error.errno or errno.EIO, f"cannot listen there; {hint}", f"{host}:{port}") from error
    return bound
