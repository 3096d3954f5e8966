"""Measure what the server costs beside the engine: p50 and p99 of POST /api/search at 8 clients, errors, and both rates.

The index is a miniature one, of pictures and sounds in two connected spaces. The server is `cmcr serve`, in a process of its
own; the clients are threads of this one, each with a connection that it keeps. The engine answers the same queries in this
process, one after the other, before the server is started. A third of the queries are texts that nobody has asked before,
a third are items of the index, a third are texts with a filter. One JSON line.

    python benchmarks/serving.py --requests 10000 --clients 8
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import cmcr
from cmcr.data.numbers import SEEN_NUMBERS, draw_pictures, speak_sounds, write_texts
from cmcr.search.query import Part, Query

Body = dict[str, Any]


def build(folder: Path, items: int) -> cmcr.SearchIndex:
    """Make an index of `items` pictures and as many sounds, of memories."""
    rng, numbers = np.random.default_rng(0), np.resize(SEEN_NUMBERS, items)
    clip, clap = cmcr.space("mini-clip"), cmcr.space("mini-clap")
    texts = write_texts(SEEN_NUMBERS, rng)
    pictures = clip.encode(list(draw_pictures(numbers, "train", rng)), "image")
    heard = [{"array": sound, "sampling_rate": 8000} for sound in speak_sounds(numbers, "train", rng)]
    sounds = clap.encode(heard, "audio")
    connection = cmcr.connect(
        cmcr.Memories(clip, text=clip.encode(texts, "text"), image=pictures),
        cmcr.Memories(clap, text=clap.encode(texts, "text"), audio=sounds),
        method="procrustes",
    )
    for space, modality, rows in ((clip, "image", pictures), (clap, "audio", sounds)):
        ids = [f"{number:06d}" for number in range(items)]
        cmcr.write_memory(
            folder / modality, rows, ids, space=space.name, modality=modality, fingerprint=space.fingerprint
        )
    cmcr.index(connection, [folder / "image", folder / "audio"], folder / "index")
    return cmcr.SearchIndex(folder / "index")


def queries(count: int, items: int) -> list[Body]:
    """Draw bodies of requests, always the same."""
    rng = np.random.default_rng(1)
    texts = write_texts(rng.integers(100, 1000, count), rng)
    bodies: list[Body] = []
    for number, text in enumerate(texts):
        if number % 3 == 1:
            bodies.append({"parts": [{"modality": "image", "item": int(rng.integers(items))}]})
        else:
            bodies.append({"parts": [{"modality": "text", "text": f"{text} {number}"}]})
        if number % 3 == 2:
            bodies[-1]["where"] = [f"id=*{rng.integers(10)}"]
    return bodies


def engine_seconds(index: cmcr.SearchIndex, bodies: list[Body]) -> list[float]:
    """Answer the queries one after the other, without a server."""
    taken = []
    for body in bodies:
        (part,) = body["parts"]
        started = time.perf_counter()
        index.search(
            Query((Part(part["modality"], part.get("text", part.get("item"))),), where=tuple(body.get("where", ())))
        )
        taken.append(time.perf_counter() - started)
    return taken


def ask(url: str, bodies: list[Body], taken: list[float], errors: list[str]) -> None:
    """Send requests over one connection, one after the other; note the seconds of each, and what went wrong."""
    address = urlsplit(url)
    client = http.client.HTTPConnection(str(address.hostname), address.port)
    for body in bodies:
        sent = json.dumps(body)
        started = time.perf_counter()
        try:
            client.request("POST", "/api/search", sent, {"content-type": "application/json"})
            answer = client.getresponse()
            content = answer.read()
            if answer.status != 200:
                errors.append(f"{answer.status} {content[:200]!r}")
        except OSError as error:
            errors.append(repr(error))
        taken.append(time.perf_counter() - started)
    client.close()


def serve_and_ask(folder: Path, bodies: list[Body], clients: int) -> tuple[list[float], list[str], float]:
    """Start the server, send all requests from several clients at once, and stop it."""
    command = [sys.executable, "-m", "cmcr", "serve", str(folder), "--port", "0", "--json"]
    taken, errors = list[float](), list[str]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        ask(url, bodies[:50], [], [])
        threads = [
            threading.Thread(target=ask, args=(url, bodies[number::clients], taken, errors))
            for number in range(clients)
        ]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        server.terminate()
    return taken, errors, seconds


def milliseconds(taken: list[float], share: float) -> float:
    """Give a quantile, in milliseconds."""
    return round(1000 * float(np.quantile(taken, share)), 2)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--items", type=int, default=1000, help="pictures, and as many sounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        index = build(Path(place), options.items)
        bodies = queries(options.requests, 2 * options.items)
        for body in bodies:  # items of the first corpus are pictures or sounds, whichever comes first
            if "item" in body["parts"][0]:
                body["parts"][0]["modality"] = index.item(body["parts"][0]["item"]).modality
        engine_seconds(index, bodies[:50])
        alone = engine_seconds(index, bodies[: max(1000, options.requests // 10)])
        taken, errors, seconds = serve_and_ask(Path(place) / "index", bodies, options.clients)
    engine_rate = len(alone) / sum(alone)
    print(
        json.dumps(
            {
                "items": 2 * options.items,
                "requests": len(taken),
                "clients": options.clients,
                "errors": len(errors),
                "first_errors": errors[:3],
                "p50_ms": milliseconds(taken, 0.5),
                "p99_ms": milliseconds(taken, 0.99),
                "requests_per_second": round(len(taken) / seconds),
                "engine_p50_ms": milliseconds(alone, 0.5),
                "engine_queries_per_second": round(engine_rate),
                "share_of_engine": round(len(taken) / seconds / engine_rate, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
