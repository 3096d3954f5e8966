"""`cmcr serve`: the application behind a socket, from the first request to the last."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import warnings
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
    on_ready: Callable[[str], object] = lambda url: None,
) -> None:
    """Answer requests until Ctrl-C or SIGTERM; those in flight are answered before this returns.

    Args:
        folder: what `cmcr.index` has written; it may be updated meanwhile.
        host: to listen at; other machines reach one that is not loopback.
        port: 0 takes a free one.
        allow_hosts: names by which the server may be called beside the loopback names; needed for another host.
        encoders: as in `SearchIndex`.
        models: as in `SearchIndex`.
        on_ready: called with the address of the page, from when on it may be asked.

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
        from cmcr.web.served import Served
    except ImportError as error:
        raise missing_dependency(error.name or "fastapi", extra="web", purpose="cmcr serve") from error

    def open_index(earlier: SearchIndex | None) -> SearchIndex:
        """Open it with the encoders that are open already, unless it is asked by others now."""
        if earlier is not None:
            with contextlib.suppress(ConfigError):
                return SearchIndex(folder, encoders=tuple(earlier.encoders.values()), models=models)
        return SearchIndex(folder, encoders=encoders, models=models)

    if not _is_loopback(host):
        _warn_of_strangers(host, allow_hosts)
    with _listening(host, port) as listening:  # before encoders are opened: a port in use is told at once
        served = Served(open_index)
        served.warm()
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
        name = f"[{host}]" if ":" in host else host
        on_ready(f"http://{name}:{listening.getsockname()[1]}/")  # who asks before the loop runs waits in the backlog
        uvicorn.Server(config).run([listening])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


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


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port: expected 0 to 65535, got {port}.")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        said = f"cannot listen there ({error.strerror}). Choose another --port (0 takes a free one) or --host"
        raise WriteError(error.errno or errno.EIO, said, f"{host}:{port}") from error
