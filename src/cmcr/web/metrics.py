"""Counts and times of requests, in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram, in seconds."""


class Metrics:
    """What has been counted since the server started; written by the event loop's thread alone."""

    def __init__(self) -> None:
        self._requests = Counter[tuple[str, str, int]]()
        self._seconds = Counter[str]()
        self._buckets: dict[str, list[int]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            method: of HTTP.
            route: the pattern that matched its path, never the path itself: there are few of them.
            status: of the response.
            seconds: until the last byte was sent.
        """
        self._requests[method, route, status] += 1
        self._seconds[route] += seconds  # type: ignore[assignment]  # a Counter may hold any number
        buckets = self._buckets.setdefault(route, [0] * (len(_BOUNDS) + 1))
        buckets[bisect_left(_BOUNDS, seconds)] += 1

    def text(self, gauges: Mapping[str, float]) -> str:
        """Write everything out.

        Args:
            gauges: by name, what is so now.
        """
        lines = ["# TYPE cmcr_requests_total counter"]
        for (method, route, status), count in sorted(self._requests.items()):
            lines.append(f'cmcr_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE cmcr_request_seconds histogram")
        for route, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*_BOUNDS, "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'cmcr_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
            lines.append(f'cmcr_request_seconds_sum{{route="{route}"}} {self._seconds[route]:.6f}')
            lines.append(f'cmcr_request_seconds_count{{route="{route}"}} {total}')
        for name, value in gauges.items():
            lines += [f"# TYPE cmcr_{name} gauge", f"cmcr_{name} {value}"]
        return "\n".join(lines) + "\n"
