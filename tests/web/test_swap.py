"""An index that is updated while it is served: nobody's request is dropped, and a damaged update changes nothing."""

import shutil
import threading
import time

import pytest
from web_client import client_of

import cmcr
from cmcr.files import MANIFEST
from cmcr.web import served as module
from cmcr.web.served import Served

BODY = {"parts": [{"modality": "text", "text": "one hundred"}], "targets": ["image"], "limit": 3}


@pytest.fixture
def folder(index_folder, tmp_path):
    """An index of the sounds' own pictures that may be changed."""
    return shutil.copytree(index_folder, tmp_path / "index")


@pytest.fixture
def client(folder, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    with client_of(Served(lambda earlier: cmcr.SearchIndex(folder))) as opened:
        yield opened


def until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_requests_during_updates_are_all_answered(client, folder, connection, media):
    was, stop, answers = client.get("/api/index").json()["hash"], threading.Event(), []

    def hammer():
        while not stop.is_set():
            answers.append(client.post("/api/search", json=BODY))

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    inputs = [media / name for name in ("pictures", "sounds")]
    hashes = [was]
    for update in (inputs, inputs[:1], inputs):
        cmcr.index(connection, update, folder)
        until(lambda: client.get("/healthz").json()["index"] != hashes[-1])
        hashes.append(client.get("/healthz").json()["index"])
    stop.set()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert len(answers) > 20
    first = [answer.json()["rankings"][0]["hits"] for answer in answers]
    assert {tuple(hit["id"] for hit in hits) for hits in first} == {tuple(hit["id"] for hit in first[0])}
    assert len({hits[0]["media_url"] for hits in first}) >= 2  # the hash of the index is in it
    assert client.get("/api/index").json()["items"] == 24


def test_a_damaged_update_leaves_the_old_index(client, folder):
    good = (folder / MANIFEST).read_bytes()
    was = client.get("/healthz").json()
    assert (was["status"], was["problem"]) == ("ready", None)
    (folder / MANIFEST).write_bytes(good[:-20])
    until(lambda: client.get("/healthz").json()["problem"])
    health = client.get("/healthz").json()
    assert (health["status"], health["index"]) == ("outdated", was["index"])
    assert "not valid JSON" in health["problem"]
    assert client.post("/api/search", json=BODY).status_code == 200
    (folder / MANIFEST).unlink()
    until(lambda: "has no config.json" in client.get("/healthz").json()["problem"])
    (folder / MANIFEST).write_bytes(good)
    until(lambda: client.get("/healthz").json()["status"] == "ready")


def test_uploads_outlive_an_update(client, folder, connection, media):
    content = next((media / "pictures").iterdir()).read_bytes()
    upload = client.post("/api/uploads/image", content=content).json()["upload"]
    was = client.get("/healthz").json()["index"]
    cmcr.index(connection, [media / "pictures"], folder)
    until(lambda: client.get("/healthz").json()["index"] != was)
    answer = client.post("/api/search", json={"parts": [{"modality": "image", "upload": upload}]})
    assert answer.json()["rankings"][0]["hits"][0]["cosine"] == pytest.approx(1, abs=1e-3)
