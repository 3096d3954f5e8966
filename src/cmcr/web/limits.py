"""What a request may be: from where, how large, how long, how many at once; and what browsers are told with every answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cmcr.web.metrics import Metrics

LOOPBACK = ("localhost", "127.0.0.1", "::1")
UPLOADS = "/api/uploads/"

_CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _CONTENT_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"}
_log = logging.getLogger("cmcr.web")


@dataclass(frozen=True)
class Limits:
    """How much of everything.

    Attributes:
        body_bytes: of an upload.
        json_bytes: of any other request.
        timeout_seconds: until an answer must have begun.
        requests: at once, each of which may hold an upload; further ones are told to come back.
        encodings: that may wait for the one that runs.
        searches: that may wait for those that run.
        picture_pixels: of an uploaded picture.
        sound_seconds: of an uploaded sound, at 48 kHz; of one at 96 kHz it is half of that.
        archive_bytes: of an uploaded .npz, unpacked.
        uploads: kept, the latest used.
        kept_bytes: of uploads together.
    """

    body_bytes: int = 32 * 2**20
    json_bytes: int = 2**20
    timeout_seconds: float = 30.0
    requests: int = 64
    encodings: int = 16
    searches: int = 64
    picture_pixels: int = 64_000_000
    sound_seconds: float = 600.0
    archive_bytes: int = 256 * 2**20
    uploads: int = 256
    kept_bytes: int = 256 * 2**20


def problem(status: int, error: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Build the answer to a request that cannot be answered; its form is `schemas.Problem`."""
    return JSONResponse({"error": error, "message": message}, status, headers)


class Guard:
    """The outermost layer (pure ASGI): refuses what must not reach the application, and counts everything.

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
        if scope["type"] == "websocket":  # there are none; browsers do not ask before opening one across origins
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0
        clock = asyncio.timeout(self.limits.timeout_seconds)

        async def sealed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message["headers"]
                fresh = [] if any(name == b"cache-control" for name, _ in given) else [(b"cache-control", b"no-cache")]
                message = {**message, "headers": [*given, *fresh, *_SECURITY]}
            await send(message)

        async def in_time(message: Message) -> None:
            clock.reschedule(None)  # a long file may take as long as the client needs
            await sealed(message)

        self._inside += 1
        try:
            async with clock:
                answer = self._refusal(scope) or self.app
                await answer(scope, self._counted(scope, receive), in_time)
        except Exception as error:
            late = isinstance(error, TimeoutError)
            if not late:
                _log.exception("%s %s failed", scope["method"], scope["path"])
            if status:  # too late for another answer; the server cuts the connection
                raise
            words = (
                f"no answer within {self.limits.timeout_seconds:g} s: the server is too busy, or the request too slow."
            )
            mistake = problem(500, "InternalError", "the server made a mistake; its log says more.")
            await (problem(504, "Timeout", words) if late else mistake)(scope, receive, sealed)
        finally:
            self._inside -= 1
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.count(method, route, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if said := self._foreign(scope, headers):
            return problem(403, "Forbidden", said)
        most, length = self._most_bytes(scope), headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return problem(400, "BadRequest", "Content-Length is not a number.")
        if len(length) > 18 or int(length) > most:
            return problem(413, "TooLarge", _too_large(most))
        if self._inside > self.limits.requests and scope["path"] not in ("/healthz", "/metrics"):
            return problem(503, "Busy", "too many requests at once. Try again in a second.", {"Retry-After": "1"})
        return None

    def _foreign(self, scope: Scope, headers: Headers) -> str | None:
        """Tell why a request may come from a page elsewhere, which must not reach a server on loopback.

        The name in `Host` stops pages whose own name was made to point here (DNS rebinding).
        """
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if _name_of(host) not in self._hosts:
            return (
                f"this server does not answer for the host {host[:100]!r}. If it should: cmcr serve --allow-host NAME"
            )
        origin = headers.get("origin")
        if origin is not None and not _same_origin(origin, host):
            return f"requests from pages of {origin[:100]!r} are not answered."
        site, path = headers.get("sec-fetch-site", "none"), scope["path"]
        if site not in ("none", "same-origin") and not (path == "/" and headers.get("sec-fetch-mode") == "navigate"):
            return "requests from pages of other sites are not answered."  # links to the page itself are
        return None

    def _most_bytes(self, scope: Scope) -> int:
        return self.limits.body_bytes if scope["path"].startswith(UPLOADS) else self.limits.json_bytes

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        """Count the bytes of a body while they come; `Content-Length` may be missing."""
        most, taken = self._most_bytes(scope), 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, _too_large(most))
            return message

        return counted


def _too_large(most: int) -> str:
    return f"the request is too large: expected at most {most:,} bytes."


def _name_of(host: str) -> str:
    """Take the name out of `name:port`, lower-cased; "" if it is neither a name nor an address."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port  # raises for one that is no number
    except ValueError:
        return ""
    extra = parts.username or parts.password or parts.path or parts.query or parts.fragment or port == 0
    return "" if extra else (parts.hostname or "").rstrip(".")


def _same_origin(origin: str, host: str) -> bool:
    """Compare name and port. The scheme may differ: a proxy in front speaks https."""
    try:
        parts, here = urlsplit(origin), urlsplit(f"//{host}")
        default = {"http": 80, "https": 443}.get(parts.scheme)
        return default is not None and (parts.hostname, parts.port or default) == (here.hostname, here.port or default)
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tell whether a host to bind is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
