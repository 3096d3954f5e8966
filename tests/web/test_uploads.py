"""Uploads: what is asked with them, and what is refused before it is decoded."""

import hashlib
import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
import soundfile
from PIL import Image
from web_client import client_of

from cmcr.web.bounds import Limits
from cmcr.web.served import Served


def wav(seconds, rate=8000):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(seconds * rate), dtype=np.int16), rate, format="WAV", subtype="PCM_U8")
    return file.getvalue()


def png_header(width, height):
    """A picture that says it is large and holds nothing."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def npz_bomb(size):
    """An archive that says how large it is unpacked."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", bytes(100))
        archive.infolist()[0].file_size = size
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize(("modality", "name"), [("image", "pictures"), ("audio", "sounds"), ("point_cloud", "clouds")])
def test_an_upload_finds_itself(client, media, index, modality, name, form):
    path = sorted((media / name).iterdir())[3]
    sent = {"files": {"file": (path.name, path.read_bytes())}} if form else {"content": path.read_bytes()}
    answer = client.post(f"/api/uploads/{modality}", params={} if form else {"name": path.name}, **sent)
    assert answer.status_code == 200
    part = {"modality": modality, "upload": answer.json()["upload"]}
    (ranking,) = client.post("/api/search", json={"parts": [part], "targets": [modality]}).json()["rankings"]
    assert ranking["hits"][0]["id"] == path.name
    assert ranking["hits"][0]["cosine"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("modality", "name", "content", "fact"),
    [
        ("image", "", b"", "empty"),
        ("image", "", b"hello", "not a picture"),
        ("image", "a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        ("image", "", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        ("image", "", png_header(100_000, 100_000), "too large"),
        ("image", "", png_header(10_000, 10_000), "too large"),
        ("image", "", png_header(90, 90), "decoded"),
        ("audio", "", b"hello", "decoded"),
        ("audio", "", wav(1)[:600], "cut short"),
        ("audio", "", wav(601), "601.0 s"),
        ("point_cloud", "a.npz", npz_bomb(300 * 2**20), "unpacked"),
        ("point_cloud", "a.npz", npz_bomb(100)[:-30], "not a zip file"),
        ("point_cloud", "a.npy", npy(np.full((20, 3), np.nan)), "NaN"),
        ("point_cloud", "a.npy", npy(np.zeros((20, 2))), "(20, 2)"),
        ("point_cloud", "a.npy", npy(np.array([{}], dtype=object)), "never opened"),
        ("point_cloud", "a.obj.gz", b"\x1f\x8b", ".gz"),
        ("point_cloud", "", npy(np.eye(20, 3)), "no ending"),
        ("text", "", b"hello", "not uploaded"),
        ("pictures", "", b"hello", "Known"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",  # a zip file holds the time
)
def test_unusable_uploads_are_refused(client, modality, name, content, fact):
    answer = client.post(f"/api/uploads/{modality}", params={"name": name}, content=content)
    assert answer.status_code == 422
    assert fact in answer.json()["message"]


def test_a_container_that_hides_its_length_is_decoded_no_further_than_the_limit(index):
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:  # to memory: without a duration in its header
        stream = container.add_stream("libopus", rate=48_000)
        for _ in range(150):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
            frame.rate = 48_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with client_of(Served(lambda earlier: index, Limits(sound_seconds=1))) as client:
        answer = client.post("/api/uploads/audio", content=file.getvalue())
    assert answer.status_code == 422
    assert "the limit is 1.0 s" in answer.json()["message"]


def test_a_mesh_that_is_placed_ever_again(client):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.Scene(trimesh.creation.icosphere(subdivisions=6))  # 40,962 vertices, 81,920 faces
    (name,) = scene.geometry
    for _ in range(500):
        scene.graph.update(frame_from=scene.graph.base_frame, frame_to=trimesh.util.unique_id(), geometry=name)
    content = scene.export(file_type="glb")
    answer = client.post("/api/uploads/point_cloud", params={"name": "a.glb"}, content=content)
    assert (len(content) < 4 * 2**20, answer.status_code) == (True, 422)
    assert "in all its copies" in answer.json()["message"]


def test_a_form_without_a_file(client):
    assert client.post("/api/uploads/image", files={"picture": b"x"}).status_code == 422
    head = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/uploads/image", content=b"--x\r\nrubbish", headers=head).status_code in (400, 422)
    assert (
        client.post("/api/uploads/image", content=b"", headers={"content-type": "multipart/form-data"}).status_code
        == 400
    )


def test_the_oldest_uploads_go(index):
    contents = []
    for grey in (10, 20, 30):
        file = io.BytesIO()
        Image.new("L", (32, 12), grey).save(file, "PNG")
        contents.append(file.getvalue())
    with client_of(Served(lambda earlier: index, Limits(kept=2))) as client:
        hashes = [client.post("/api/uploads/image", content=content).json()["upload"] for content in contents]
        found = [
            client.post("/api/search", json={"parts": [{"modality": "image", "upload": each}]}).status_code
            for each in hashes
        ]
        other = client.post("/api/search", json={"parts": [{"modality": "audio", "upload": hashes[2]}]})
    assert found == [404, 200, 200]
    assert other.status_code == 404
    assert len({hashlib.sha256(content).hexdigest() for content in contents}) == len(set(hashes)) == 3
