"""`cmcr embed` over a folder of items that mean harm: it finishes, keeps the good rows and says why of the others."""

import gzip
import io
import os
import struct
import sys
import wave
import zlib

import numpy as np
import pytest
import soundfile
from PIL import Image

import cmcr
from cmcr.cli import main
from cmcr.data.numbers import draw_pictures, sample_point_clouds, speak_sounds

GOOD = 4
SPACE_OF = {"image": "mini-clip", "text": "mini-clip", "audio": "mini-clap", "point_cloud": "mini-ulip"}
ENDING_OF = {"image": ".png", "text": ".txt", "audio": ".wav", "point_cloud": ".npy"}
STRANGE = "\x1b]0;owned\a\x1b[2J\u202e\nname"


def png(width, height, content=b""):
    """A PNG whose header says what it likes."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", content), (b"IEND", b"")]
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def wav(rate, frames, promised=None):
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1), made.setsampwidth(2), made.setframerate(rate)
        made.writeframes(bytes(2 * frames))
    return (
        file.getvalue() if promised is None else file.getvalue()[:40] + struct.pack("<I", promised) + bytes(2 * frames)
    )


def npy(shape, dtype="<f4", content=b""):
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def bad_files(modality):
    """Contents by name; of every kind that a decoder may choke on, and what `embed` may say of each."""
    noise = np.random.default_rng(0).bytes(2000)
    bad = {"empty": b"", "noise": noise, "postscript": b"%!PS\n(%pipe%id) (w) file\n", "zeros": bytes(100_000)}
    if modality == "text":
        return {"noise": noise, "utf16": "text".encode("utf-16"), "blank": b" \n", "empty": b"", "nul": b"\0\xff"}
    if modality == "image":
        bomb = zlib.compress(bytes(3 * 10**6), 9)
        bad |= {"bomb": png(60_000, 60_000, bomb), "lie": png(2**31 - 1, 1, bomb), "nothing": png(0, 0)}
        return {**bad, "sound": wav(8000, 800), "packed": gzip.compress(noise)}
    if modality == "audio":
        bad |= {"no-frames": wav(8000, 0), "no-rate": wav(1, 0)[:24] + bytes(20), "lie": wav(8000, 80, 2**20)}
        return {**bad, "picture": png(1, 1, zlib.compress(bytes(4)))}
    bad |= {
        "huge": npy((2**40, 3)),
        "many-axes": npy((1,) * 40),
        "negative": npy((-1, 3)),
        "no-items": npy((10**9, 3), "|V0"),
    }
    return {
        **bad,
        "objects": npy((1, 3), "|O", b"cos\nsystem\n(S'true'\ntR."),
        "nan": npy((4, 3), content=b"\xff" * 48),
    }


def write_good(modality, folder):
    numbers, rng = np.arange(100, 100 + GOOD), np.random.default_rng(0)
    made = {"image": draw_pictures, "audio": speak_sounds, "point_cloud": sample_point_clouds}.get(modality)
    items = [f"number {n}" for n in numbers] if made is None else made(numbers, "test", rng)
    for n, item in enumerate(items):
        path = folder / f"good-{n}{ENDING_OF[modality]}"
        if modality == "text":
            path.write_text(item)
        elif modality == "image":
            Image.fromarray(item).save(path)
        elif modality == "audio":
            soundfile.write(path, item, 8000, subtype="FLOAT")
        else:
            np.save(path, item)
    return [folder / f"good-{n}{ENDING_OF[modality]}" for n in range(GOOD)]


def write_strange(folder, ending):
    """What is no file, or not one that may be read: the names of those that are items."""
    strange = []
    if sys.platform != "win32":
        (folder / f"{STRANGE}{ending}").write_bytes(b"\xff\xfe\xfd")
        os.mkfifo(folder / f"pipe{ending}")
        for name, target in (("device", "/dev/zero"), ("dead", "nowhere"), ("self", f"self{ending}")):
            (folder / f"{name}{ending}").symlink_to(target)
        (folder / "loop").symlink_to(folder)
        forbidden = folder / f"forbidden{ending}"
        forbidden.write_bytes(b"\xff")
        forbidden.chmod(0)  # which means nothing to root
        strange += [STRANGE, "pipe", "device", "dead", "self", "forbidden"]
    (folder / f"folder{ending}").mkdir()
    return strange


@pytest.mark.parametrize("modality", SPACE_OF)
def test_embed_finishes_keeps_good_rows_and_says_why_of_the_others(tmp_path, modality, capsys):
    folder, out, ending = tmp_path / "items", tmp_path / "out", ENDING_OF[modality]
    folder.mkdir()
    good = write_good(modality, folder)
    bad = bad_files(modality)
    for name, content in bad.items():
        (folder / f"{name}{ending}").write_bytes(content)
    (folder / "other.xyz123").write_bytes(b"passed over")
    strange = write_strange(folder, ending)
    if modality != "text":
        (folder / f"cut{ending}").write_bytes(good[0].read_bytes()[: good[0].stat().st_size // 2])
        strange.append("cut")
    call = ["embed", SPACE_OF[modality], modality, str(folder), "--out", str(out), "--batch-size", "4"]
    assert main(call) == 0
    said = "".join(capsys.readouterr())
    memory = cmcr.Memory(out)
    reasons = {item.id: item.reason for item in memory.quarantine()}
    expected = {f"{name}{ending}" for name in (*bad, *strange)}
    assert set(reasons) == expected
    assert sorted(memory.ids) == [path.name for path in good]
    assert all(reason.strip() and str(tmp_path) not in reason for reason in reasons.values())
    assert "\x1b" not in said
    assert f"{len(reasons)} item(s) are in quarantine" in said
    rows = dict(zip(memory.ids, memory[:], strict=True))
    contents = [path.read_text() for path in good] if modality == "text" else good
    encoded = cmcr.space(SPACE_OF[modality]).encode(contents, modality)
    np.testing.assert_allclose([rows[path.name] for path in good], encoded, rtol=0, atol=6e-4)
    assert main([*call[:5], str(tmp_path / "strict"), "--max-failures", "0"]) == 1  # and nothing is lost in silence
    assert "failed" in capsys.readouterr().err
