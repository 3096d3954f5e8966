"""Counts and times of requests, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"}


class Metrics:
    """What has been counted since the server started; written by the event loop's thread alone."""

    def __init__(self) -> None:
        self._requests = Counter[str]()
        self._seconds = Counter[str]()

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request by the pattern that matched its path, never by the path itself: there are few of them."""
        labels = f'method="{method if method in _METHODS else "other"}",route="{route}",status="{status}"'
        self._requests[labels] += 1
        self._seconds[labels] += seconds  # type: ignore[assignment]  # a Counter may hold any number

    def text(self, gauges: Mapping[str, int]) -> str:
        """Write everything out, with `gauges`: by name, what is so now."""
        lines = ["# TYPE cmcr_request_seconds summary"]
        for labels, count in sorted(self._requests.items()):
            lines.append(f"cmcr_request_seconds_count{{{labels}}} {count}")
            lines.append(f"cmcr_request_seconds_sum{{{labels}}} {self._seconds[labels]:.6f}")
        for name, value in gauges.items():
            lines += [f"# TYPE cmcr_{name} gauge", f"cmcr_{name} {value}"]
        return "\n".join(lines) + "\n"
