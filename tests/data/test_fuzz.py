"""Files mutated at random, always the same, are decoded or refused by name, in bounded time and memory; cut ones refused."""

import random
import re
import struct
import time

import numpy as np
import psutil
import pytest
import trimesh
from PIL import Image, features
from sounds import NOISE, encoded, written

from cmcr.data.audio import SoundClip, read_audio
from cmcr.data.images import read_image, to_rgb
from cmcr.data.point_clouds import read_coloured_point_cloud
from cmcr.errors import SampleError

ROUNDS = 40
CODECS = {"mp4": "aac", "webm": "libopus", "mov": "pcm_s16le", "matroska": "pcm_s16le"}
RATE = 48_000
CLOUD = np.random.default_rng(0).normal(size=(20, 6))


LENGTHS = [struct.pack(order + code, value) for order in "<>" for code, value in (
    ("H", 0xFFFF), ("I", 0), ("I", 0xFFFFFFFF), ("I", 0x7FFFFFFF), ("I", 0x00FFFFFF), ("Q", 1 << 62), ("f", 1e30)
)]  # fmt: skip


def mutated(content, chance):
    """One to twenty changes, half of them among the first 300 bytes, where headers stand."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(max(1, min(len(changed), chance.choice([300, len(changed)]))))
        kind = chance.randrange(10)
        if kind < 4:
            changed[at : at + 1] = bytes(
                [chance.choice([0, 255, chance.randrange(256), content[at % len(content)] ^ 1])]
            )
        elif kind < 6:
            length = chance.choice(LENGTHS)
            changed[at : at + len(length)] = length
        elif kind == 6:
            changed[at : at + 16] = bytes(16)
        elif kind == 7:
            del changed[at : at + chance.randrange(1, 30)]
        elif kind == 8:
            changed[at:at] = chance.randbytes(chance.randrange(1, 20))
        else:
            changed[at:at] = changed[at : at + chance.randrange(1, 200)]
    return bytes(changed[: chance.randrange(len(changed) + 1)]) if chance.random() < 0.05 else bytes(changed)


@pytest.fixture
def little_memory():
    """Let this process have a gigabyte more than it has."""
    resource = pytest.importorskip("resource")
    _, most = before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (1 << 30), most))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def picture(path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if kind in ("gif", "bmp") else {"exif": exif}
    Image.effect_noise((48, 32), 60).convert("RGB").save(path, kind, **options)


def sound(path, kind):
    path.write_bytes(written(NOISE, RATE, *(("OGG", "OPUS") if kind == "opus" else (kind,))))


def sound_track(path, kind):
    path.write_bytes(encoded(NOISE[None], RATE, kind, CODECS[kind]))


def mesh(path, kind):
    trimesh.creation.box().export(path, file_type=kind)


def cloud(path, kind):
    with path.open("wb") as file:
        if kind == "npz":
            np.savez(file, points=CLOUD)
        elif kind == "npy":
            np.save(file, CLOUD)
        else:
            np.savetxt(file, CLOUD)


READERS = {
    picture: lambda path: to_rgb(read_image(path)),
    sound: lambda path: (read_audio(SoundClip(path, 0.1, 0.1), 8000), read_audio(path, 8000)),
    sound_track: lambda path: read_audio(path, 8000),
    cloud: read_coloured_point_cloud,
    mesh: read_coloured_point_cloud,
}
KINDS = {
    picture: "jpeg png gif webp tiff bmp avif",
    sound: "wav flac ogg opus mp3 aiff au caf",
    sound_track: " ".join(CODECS),
    cloud: "npy npz txt",
    mesh: "ply obj off glb stl",
}


@pytest.fixture(params=[(write, kind) for write, kinds in KINDS.items() for kind in kinds.split()], ids=lambda p: p[1])
def whole(request, tmp_path):
    """A file that can be read, and its reader."""
    write, kind = request.param
    if kind == "avif" and not features.check("avif"):
        pytest.skip("a Pillow without AVIF")
    path = tmp_path / f"a.{kind}"
    write(path, kind)
    READERS[write](path)
    return path, READERS[write]


@pytest.mark.filterwarnings("ignore")  # Pillow and trimesh warn of the damage first
def test_mutated_files(whole, little_memory):
    path, read = whole
    content, chance, reasons = path.read_bytes(), random.Random(0), []
    for _ in range(ROUNDS):
        path.write_bytes(mutated(content, chance))
        started = time.process_time()
        try:
            read(path)
        except SampleError as error:
            reasons.append(str(error))
        assert time.process_time() - started < 5
    assert reasons
    assert all(str(path) in reason for reason in reasons)
    assert "MemoryError" not in str(reasons)


@pytest.mark.filterwarnings("ignore")
def test_files_that_are_cut_short(whole):
    path, read = whole
    content = path.read_bytes()
    for share in (0,) if path.suffix == ".txt" else (0, 0.02, 0.2, 0.6, 0.8):  # a text has no header with a length
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(SampleError, match=re.escape(str(path))):
            read(path)
