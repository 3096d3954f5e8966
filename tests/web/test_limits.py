"""What must not reach the application: pages elsewhere, other hosts, what is too large, too slow or too much."""

import asyncio
import threading
import time

import pytest
from fastapi import HTTPException
from web_client import client_of

from cmcr.web import answers
from cmcr.web.bounds import Lane, Latest, Limits
from cmcr.web.served import Served

BODY = {"parts": [{"modality": "text", "text": "one"}]}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("search.example.org", 200),
        ("[fe80::1]:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost:80@evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("localhost/..", 403),
        ("localhost:x", 403),
        ("", 403),
    ],
)
def test_hosts(served, host, status):
    with client_of(served, ["search.example.org:443", "fe80::1"]) as client:
        assert client.get("/healthz", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("https://localhost:8000", 200),  # a proxy in front speaks https
        ("http://localhost", 403),
        ("http://localhost:9000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://[", 403),
    ],
)
def test_origins(client, origin, status):
    assert client.post("/api/search", json=BODY, headers={"origin": origin}).status_code == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/items/0/media", {"sec-fetch-site": "cross-site"}, 403),
        ("/api/items/0/media", {"sec-fetch-site": "same-site"}, 403),
        ("/api/items/0/media", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("/api/items/0/media", {"sec-fetch-site": "same-origin"}, 200),
        ("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
    ],
)
def test_pages_of_other_sites_reach_nothing_but_a_link_to_the_page(client, path, headers, status):
    assert client.get(path, headers=headers).status_code == status


def test_every_answer_tells_browsers_to_stay_here(client):
    for answer in (
        client.get("/"),
        client.get("/api/nothing"),
        client.get("/healthz", headers={"host": "evil.example"}),
    ):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' blob: data:")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


def test_bodies_are_bounded_with_and_without_a_length(index):
    with client_of(Served(lambda earlier: index, Limits(body_bytes=1000, json_bytes=500))) as client:
        for path, most in (("/api/uploads/image", 1000), ("/api/search", 500)):
            head = {"content-type": "application/json"}
            declared = client.post(path, content=b" " * (most + 1), headers=head)
            streamed = client.post(path, content=iter([b" " * most, b" "]), headers=head)
            fits = client.post(path, content=iter([b" " * most]), headers=head)
            assert (declared.status_code, streamed.status_code, fits.status_code) == (413, 413, 422)
            assert streamed.json()["message"] == declared.json()["message"]
        form = client.post("/api/uploads/image", files={"file": b" " * 1001})
        assert form.status_code == 413


def test_an_answer_that_takes_too_long(index, monkeypatch):
    monkeypatch.setattr(answers, "found", lambda *asked: time.sleep(0.3))
    with client_of(Served(lambda earlier: index, Limits(timeout_seconds=0.05))) as client:
        answer = client.post("/api/search", json=BODY)
        assert answer.status_code == 504
        assert "0.05 s" in answer.json()["message"]


def test_a_mistake_of_ours_is_told_without_its_insides(client, monkeypatch, caplog):
    def broken(*asked):
        raise RuntimeError("secret")

    monkeypatch.setattr(answers, "found", broken)
    answer = client.post("/api/search", json=BODY)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_a_full_queue_says_when_to_come_back(index, numbers, monkeypatch):
    gate, body = threading.Event(), {"parts": [{"modality": "image", "item": numbers["image"]}]}
    monkeypatch.setattr(answers, "found", lambda *asked: gate.wait(5) and {"rankings": [], "point": None, "seconds": 0})
    served = Served(lambda earlier: index, Limits(searches=0, timeout_seconds=5))
    served.searches = Lane("searches", 1, 1)
    with client_of(served) as client:
        answered = []
        asking = [
            threading.Thread(target=lambda: answered.append(client.post("/api/search", json=body))) for _ in range(3)
        ]
        for thread in asking:
            thread.start()
        while not answered:
            time.sleep(0.005)
        gate.set()
        for thread in asking:
            thread.join()
    assert sorted(answer.status_code for answer in answered) == [200, 200, 503]
    refused = next(answer for answer in answered if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"


def test_abandoned_work_counts_until_it_ends():
    async def run():
        lane, gate = Lane("tests", 1, 0), threading.Event()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lane.run(gate.wait, 5), 0.02)
        with pytest.raises(HTTPException):
            await lane.run(int)
        gate.set()
        while lane.inside:
            await asyncio.sleep(0.005)
        assert await lane.run(int) == 0
        lane.close()

    asyncio.run(run())


def test_too_many_requests_at_once(served):
    served.limits = Limits(requests=0)
    with client_of(served) as client:
        answer = client.get("/api/index")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.get("/healthz").status_code == 200


def test_the_latest_are_kept():
    kept = Latest[str](3)
    for key in "abc":
        kept.put(key, key)
    assert kept.get("a") == "a"
    kept.put("d", "d")
    assert [kept.get(key) for key in "abcd"] == ["a", None, "c", "d"]
    assert len(kept) == 3
