"""Files that cannot be embedded, by modality: how each is made, and what must be said of it."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

PICTURE = Image.effect_noise((64, 40), 60)


def saved(kind, picture=PICTURE, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def wav(samples=None, rate=8000, subtype="FLOAT"):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 4000) if samples is None else samples
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def plain_wav(channels=1, rate=8000, promised=64, there=64):
    sizes = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    body = b"WAVEfmt " + sizes + b"data" + struct.pack("<I", promised) + bytes(there)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def cloud(count=50, width=3):
    return np.random.default_rng(0).normal(size=(count, width))


def with_nan(array):
    array = np.array(array, dtype=np.float32)
    array.flat[7] = np.nan
    return array


def damaged_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved("JPEG", exif=exif)
    at = content.index(b"Exif\0\0") + 14
    return content[:at] + b"\xff" * 8 + content[at + 8 :]


PLY = "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
POINTS = "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in cloud())

IMAGES = {
    "torn.jpg": (lambda: saved("JPEG")[:500], r"torn\.jpg: the picture cannot be decoded \(image file is truncated"),
    "torn.png": (lambda: saved("PNG")[:-200], r"torn\.png: the picture cannot be decoded \("),
    "torn.gif": (lambda: saved("GIF")[:200], r"torn\.gif: "),
    "empty.png": (lambda: b"", r"empty\.png: not a picture that Pillow can read"),
    "words.png": (lambda: b"four hundred and seven\n" * 9, r"words\.png: not a picture that Pillow can read"),
    "head.png": (lambda: saved("PNG")[:20], r"head\.png: (not a picture|the picture cannot be decoded)"),
    "bomb.png": (lambda: saved("PNG", Image.new("1", (20000, 10000))), r"bomb\.png: too large to decode safely"),
    "large.png": (lambda: saved("PNG", Image.new("1", (10000, 9500))), r"large\.png: too large to decode safely"),
    "nan.tif": (
        lambda: saved("TIFF", Image.fromarray(with_nan(np.zeros((9, 9))))),
        r"nan\.tif: greys must be integers",
    ),
    "bright.tif": (
        lambda: saved("TIFF", Image.fromarray(np.full((9, 9), 255.0, dtype=np.float32))),
        r"bright\.tif: greys must be integers",
    ),
    "page.png": (lambda: b"<!DOCTYPE html><html>404</html>", r"page\.png: not a picture that Pillow can read"),
    "exif.jpg": (damaged_exif, r"exif\.jpg: the picture cannot be decoded"),
    "gone.png": ("link", r"gone\.png: no such picture"),
    "pipe.png": ("pipe", r"pipe\.png: no such picture"),
    "locked.png": ("locked", r"locked\.png: the picture may not be read \(permission denied\)"),
}
SOUNDS = {
    "torn.wav": (lambda: wav()[:5000], r"torn\.wav: cut short: the header promises 16000 bytes of samples, \d+ are"),
    "header.wav": (
        lambda: plain_wav(there=0),
        r"header\.wav: cut short: the header promises 64 bytes of samples, 0 are",
    ),
    "nothing.wav": (lambda: plain_wav(promised=0, there=0), r"nothing\.wav: holds no samples"),
    "nan.wav": (lambda: wav(with_nan(np.zeros(4000))), r"nan\.wav: holds NaN or infinity"),
    "channels.wav": (lambda: plain_wav(channels=0), r"channels\.wav: the sound cannot be decoded"),
    "rate.wav": (lambda: plain_wav(rate=0), r"rate\.wav: the sound cannot be decoded"),
    "words.mp3": (lambda: b"four hundred and seven\n" * 9, r"words\.mp3: the sound cannot be decoded"),
    "empty.flac": (lambda: b"", r"empty\.flac: the sound cannot be decoded"),
    "gone.wav": ("link", r"gone\.wav: no such sound"),
    "locked.wav": ("locked", r"locked\.wav: the sound may not be read \(permission denied\)"),
}
CLOUDS = {
    "pickled.npy": (
        lambda: npy(np.array([{"a": 1}], dtype=object), allow_pickle=True),
        r"pickled\.npy: .* never opened",
    ),
    "shape.npy": (
        lambda: npy(cloud(width=2)),
        r"shape\.npy: expected numbers of shape \(p, 3\) or wider, got .*\(50, 2\)",
    ),
    "nan.npy": (lambda: npy(with_nan(cloud())), r"nan\.npy: holds NaN or infinity"),
    "few.npy": (lambda: npy(cloud(9)), r"few\.npy: expected at least 16 points, got 9"),
    "huge.npy": (lambda: npy(cloud() * 1e39), r"huge\.npy: holds NaN or infinity"),
    "point.npy": (lambda: npy(np.ones((50, 3))), r"point\.npy: all 50 points lie in one place"),
    "torn.npy": (lambda: npy(cloud())[:400], r"torn\.npy: not a plain array of numbers"),
    "words.npy": (lambda: b"four hundred", r"words\.npy: not a plain array of numbers"),
    "torn.npz": (lambda: b"PK\3\4", r"torn\.npz: not a plain array"),
    "words.xyz": (lambda: b"1 2 3\nfour hundred\n", r"words\.xyz: expected lines of numbers"),
    "empty.ply": (lambda: b"", r"empty\.ply: "),
    "none.ply": (lambda: PLY.format(0).encode(), r"none\.ply: holds no shape"),
    "torn.ply": (lambda: (PLY.format(50) + POINTS[:300]).encode(), r"torn\.ply: "),
    "bare.obj": (lambda: b"# nothing\n", r"bare\.obj: "),
    "gone.ply": ("link", r"gone\.ply: no such point cloud"),
    "locked.npy": ("locked", r"locked\.npy: the point cloud may not be read \(permission denied\)"),
}
TEXTS = {
    "latin.txt": (lambda: "caf\xe9".encode("latin-1"), r"latin\.txt: not UTF-8"),
    "wide.txt": (lambda: "seven".encode("utf-16"), r"wide\.txt: written in UTF-16"),
    "surrogate.txt": (lambda: b"a\xed\xa0\x80", r"surrogate\.txt: not UTF-8"),
    "blank.txt": (lambda: b" \t\n", r"white space only; there is nothing to embed"),
    "empty.txt": (lambda: b"", r"empty; there is nothing to embed"),
    "nul.txt": (lambda: b"four\0hundred", r"holds a NUL at character 4; remove it"),
    "gone.txt": ("link", r"gone\.txt: the text file cannot be read"),
}
BROKEN = {"image": IMAGES, "audio": SOUNDS, "point_cloud": CLOUDS, "text": TEXTS}


def write_broken(modality, folder, monkeypatch):
    """Write the broken files of a modality, and a folder that is named like a file."""
    real = os.access

    def refused(path, mode, **options):
        return not Path(path).name.startswith("locked.") and real(path, mode, **options)

    monkeypatch.setattr(os, "access", refused)  # whoever may do everything, such as root, is refused nothing
    for name, (made, _) in BROKEN[modality].items():
        path = folder / name
        if made == "link":
            path.symlink_to(folder / "nowhere")
        elif made == "pipe":
            os.mkfifo(path)
        else:
            path.write_bytes(b"" if made == "locked" else made())
    (folder / f"folder{next(iter(BROKEN[modality]))[-4:]}").mkdir()
