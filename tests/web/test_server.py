"""`cmcr serve` as a process: it says where it is, answers, finishes what it was asked, and ends as the other verbs do."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import httpx
import pytest

from cmcr.errors import ConfigError, WriteError
from cmcr.web.server import serve

BODY = {"parts": [{"modality": "text", "text": "one hundred"}]}


@pytest.fixture
def process(index_folder):
    words = [sys.executable, "-m", "cmcr", "serve", str(index_folder), "--port", "0", "--json"]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield started
    started.kill()
    started.communicate()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_requests_in_flight_are_answered_before_it_ends(process):
    line = process.stdout.readline()
    url = json.loads(line)["url"]
    assert httpx.get(url).headers["content-type"].startswith("text/html")
    address = urlsplit(url)
    sent = json.dumps(BODY).encode()
    with socket.create_connection((address.hostname, address.port)) as client:
        head = f"POST /api/search HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent[:10])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        client.sendall(sent[10:])
        assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    assert process.wait(timeout=20) == 130
    assert json.loads(process.stderr.read())["error"] == "interrupted"


def test_a_port_in_use_is_told_before_anything_is_opened(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(WriteError, match="--port"):
            serve(tmp_path / "nothing", port=taken.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "fact"),
    [({"host": "0.0.0.0"}, "--allow-host"), ({"port": 70000}, "65535")],
)
def test_what_cannot_be_served(tmp_path, options, fact):
    with pytest.raises(ConfigError, match=fact):
        serve(tmp_path / "nothing", **options)


def test_strangers_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="no password"), pytest.raises(WriteError, match="--host"):
        serve(tmp_path, host="no such host", allow_hosts=["search.example.org"])
