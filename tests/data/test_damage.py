"""Files with flipped, lost and added bytes: decoded or refused, and never another error."""

import contextlib
import io
import random
import warnings

import numpy as np
import pytest
import soundfile
from PIL import Image

from cmcr.data.audio import read_audio
from cmcr.data.images import read_image, to_rgb
from cmcr.data.point_clouds import read_coloured_point_cloud
from cmcr.errors import SampleError

ROUNDS = 60
CLOUD = np.random.default_rng(0).normal(size=(20, 6))


def damaged(content, chance):
    changed = bytearray(content)
    for _ in range(chance.choice([1, 2, 5, 20])):
        at = chance.randrange(min(len(changed), chance.choice([300, len(changed)])))
        kind = chance.random()
        if kind < 0.7:
            changed[at] = chance.choice([0, 255, chance.randrange(256), changed[at] ^ 1 << chance.randrange(8)])
        elif kind < 0.85:
            del changed[at : min(at + chance.randrange(1, 30), len(changed) - 1)]
        else:
            changed[at:at] = chance.randbytes(chance.randrange(1, 20))
    return bytes(changed)


def picture(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.effect_noise((48, 32), 60).convert("RGB").save(
        buffer, kind, **({} if kind in ("GIF", "BMP") else {"exif": exif})
    )
    return buffer.getvalue()


def sound(kind):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, size=4000)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, 16_000, format=kind)
    return buffer.getvalue()


def cloud(kind):
    buffer = io.BytesIO()
    if kind == "npz":
        np.savez(buffer, points=CLOUD)
    elif kind == "npy":
        np.save(buffer, CLOUD)
    else:
        np.savetxt(buffer, CLOUD)
    return buffer.getvalue()


def mesh(kind):
    trimesh = pytest.importorskip("trimesh")
    content = trimesh.creation.box().export(file_type=kind)
    return content.encode() if isinstance(content, str) else content


def decode_all(path, content, decode):
    """Decode damaged copies of a file; say whether some were refused, each by its name."""
    chance = random.Random(0)
    messages = []
    for _ in range(ROUNDS):
        path.write_bytes(damaged(content, chance))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow and trimesh warn of the damage first
            try:
                decode(path)
            except SampleError as error:
                messages.append(str(error))
    return sum(str(path) in message for message in messages) == len(messages) > 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_damaged_pictures(tmp_path, kind):
    with contextlib.suppress(KeyError):  # a Pillow without AVIF
        assert decode_all(tmp_path / "a", picture(kind), lambda path: to_rgb(read_image(path)))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_damaged_sounds(tmp_path, kind):
    assert decode_all(tmp_path / "a", sound(kind), lambda path: read_audio(path, 8000, length_seconds=0.1))


@pytest.mark.parametrize("kind", ["mp4", "matroska", "adts"])
def test_damaged_sound_tracks(tmp_path, kind):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "whole"), "w", format=kind) as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, size=(1, 4096)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert decode_all(tmp_path / "a", (tmp_path / "whole").read_bytes(), lambda path: read_audio(path, 8000))


@pytest.mark.parametrize("kind", ["npy", "npz", "txt"])
def test_damaged_clouds(tmp_path, kind):
    assert decode_all(tmp_path / f"a.{kind}", cloud(kind), read_coloured_point_cloud)


@pytest.mark.parametrize("kind", ["ply", "obj", "off", "glb", "stl"])
def test_damaged_meshes(tmp_path, kind):
    assert decode_all(tmp_path / f"a.{kind}", mesh(kind), lambda path: read_coloured_point_cloud(path, mesh_points=50))
