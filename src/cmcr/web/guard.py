"""The outermost layer: from where a request may come, how large and how long it may be, and what every answer carries."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Collection

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cmcr.web.bounds import Limits
from cmcr.web.metrics import Metrics

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+?)\.?(:\d+)?", re.ASCII)
_SECURITY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_log = logging.getLogger("cmcr.web")


def problem(status: int, error: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Build the answer to a request that cannot be answered; its form is `schemas.Problem`."""
    return JSONResponse({"error": error, "message": message}, status, headers)


class Guard:
    """Refuses what must not reach the application, and counts everything (pure ASGI).

    Args:
        app: the application.
        limits: see `Limits`.
        hosts: names by which the server may be called, beside the loopback names.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, limits: Limits, hosts: Collection[str], metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._hosts = {_name_of(host) or host.lower() for host in (*LOOPBACK, *hosts)}
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), 0
        clock = asyncio.timeout(self.limits.timeout_seconds)

        async def sealed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, headers = message["status"], MutableHeaders(scope=message)
                headers.setdefault("cache-control", "no-cache")
                headers.update(_SECURITY)
            await send(message)

        async def in_time(message: Message) -> None:
            clock.reschedule(None)  # a long file may take as long as the client needs
            await sealed(message)

        self._inside += 1
        try:
            async with clock:
                await (self._refusal(scope) or self.app)(scope, self._counted(scope, receive), in_time)
        except Exception as error:
            if status:  # too late for another answer; the server logs it and cuts the connection
                raise
            await self._failed(scope, error)(scope, receive, sealed)
        finally:
            self._inside -= 1
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count(scope["method"], route, status, time.perf_counter() - started)

    def _failed(self, scope: Scope, error: Exception) -> JSONResponse:
        if isinstance(error, TimeoutError):
            most = f"{self.limits.timeout_seconds:g} s"
            return problem(504, "Timeout", f"no answer within {most}: the server is too busy, or the request too slow.")
        _log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
        return problem(500, "InternalError", "the server made a mistake; its log says more.")

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        if said := self._foreign(scope["path"], Headers(scope=scope)):
            return problem(403, "Forbidden", said)
        if self._inside > self.limits.requests and scope["path"] not in ("/healthz", "/metrics"):
            return problem(503, "Busy", "too many requests at once. Try again in a second.", {"Retry-After": "1"})
        return None

    def _foreign(self, path: str, headers: Headers) -> str | None:
        """Tell why a request may come from a page elsewhere, which must not reach a server on loopback.

        The name in `Host` stops pages whose own name was made to point here (DNS rebinding).
        """
        host = ", ".join(headers.getlist("host"))
        if _name_of(host) not in self._hosts:
            return (
                f"this server does not answer for the host {host[:100]!r}. If it should: cmcr serve --allow-host NAME"
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:  # a proxy in front may speak https
            return f"requests from pages of {origin[:100]!r} are not answered."
        link = path == "/" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not link:
            return "requests from pages of other sites are not answered."
        return None

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        """Count the bytes of a body while they come."""
        upload, taken = scope["path"].startswith("/api/uploads/"), 0
        most = self.limits.body_bytes if upload else self.limits.json_bytes

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"the request is too large: expected at most {most:,} bytes.")
            return message

        return counted


def _name_of(host: str) -> str:
    """Take the name out of `name:port`, lower-cased; "" if it is neither a name nor an address."""
    found = _HOST.fullmatch(host.lower())
    return found[1].strip("[]") if found else ""
