"""Members of tar files as items."""

import io
import tarfile
import tracemalloc

import numpy as np
import pytest

from cmcr.data.items import open_items
from cmcr.data.paths import NamedBytes
from cmcr.errors import ConfigError, ReadError

MEMBERS = [("./b.jpg", b"bb"), ("x/a.jpg", b"a"), ("x/a.json", b"{}"), ("x/a.txt", b"caption\n"), ("x/._a.jpg", b"mac")]


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def pairs(items):
    return [(entry.id, entry.read()) for entry in items.walk()]


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz"), ("t.tar", "w:gz")])
def test_members_come_in_their_order(tmp_path, name, mode):
    items = open_items(tar(tmp_path / name, MEMBERS, mode), "image")
    assert pairs(items) == pairs(items) == [(f"{name}/b.jpg", b"bb"), (f"{name}/x/a.jpg", b"a")]
    assert dict(items.ignored) == {".json": 1, ".txt": 1}
    assert pairs(open_items(tmp_path / name, "text")) == [(f"{name}/x/a.txt", "caption")]
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    with pytest.raises(ConfigError, match=r"files ending in \.wav.*got \.jpg \(2\)"):
        open_items(tmp_path / name, "audio")


def test_a_pattern_of_tar_files_is_what_they_hold(tmp_path):
    for number in (1, 0):
        tar(tmp_path / f"shard-{number}.tar", [("a.wav", b"%d" % number)])
    items = open_items(tmp_path / "shard-*.tar", "audio")
    assert pairs(items) == [("shard-0.tar/a.wav", b"0"), ("shard-1.tar/a.wav", b"1")]
    with pytest.raises(ConfigError, match=r"'\*\.tar'"):
        open_items(tmp_path, "audio")


def test_names_that_are_long_or_not_ascii_and_sizes_as_marks(tmp_path):
    long = "d" * 90 + "/" + "é中" * 60 + ".jpg"
    items = open_items(tar(tmp_path / "s.tar", [("a.jpg", b"34"), (long, b""), ("b.jpg", b"1")]), "image")
    assert pairs(items) == [("s.tar/a.jpg", b"34"), (f"s.tar/{long}", b""), ("s.tar/b.jpg", b"1")]
    assert [entry.mark for entry in items.walk()] == [b"2", b"0", b"1"]


def test_links_are_ignored_and_texts_must_be_utf8(tmp_path):
    path = tar(tmp_path / "s.tar", [("a.txt", b"caf\xe9")])
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("b.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    items = open_items(path, "text")
    assert "s.tar/a.txt: not UTF-8" in str(pairs(items)[0][1])
    assert dict(items.ignored) == {"link or device": 1}


def test_point_clouds_keep_their_ending(tmp_path):
    ((_, content),) = pairs(open_items(tar(tmp_path / "s.tar", [("a.npy", b"points")]), "point_cloud"))
    assert content == NamedBytes("s.tar/a.npy", b"points")


def test_headers_are_not_kept(tmp_path):
    """A header takes some 1.5 KB once read, so all of these would take 1.5 MB."""
    items = open_items(tar(tmp_path / "s.tar", [(f"{number}.jpg", b"") for number in range(1000)]), "image")
    tracemalloc.start()
    assert sum(1 for _ in items.walk()) == 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e5


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("mode", "damage", "message"),
    [
        *((mode, lambda content, kept=kept: content[: int(len(content) * kept)], "damaged or cut short")
          for mode in ("w", "w:gz") for kept in (0.0, 0.02, 0.3, 0.6, 0.8)),
        ("w", lambda content: flipped(content, content.index(b"b.jpg") + 120), "no header where one should be"),
        ("w", lambda content: content[: content.rindex(b"b.jpg") + 512 + 30_208], "mark of its end is missing"),
        ("w", lambda content: b"no tar file at all, but some text" * 100, "damaged"),
        ("w", lambda content: content * 2, "no header where one should be"),
        ("w:gz", lambda content: flipped(content, len(content) - 8), "CRC check failed"),
    ],
)  # fmt: skip
def test_tar_files_that_are_damaged(tmp_path, mode, damage, message):
    noise = np.random.default_rng(0).bytes(30_000)
    path = tar(tmp_path / "s.tar", [("a.jpg", noise), ("b.jpg", noise)], mode)
    path.write_bytes(damage(path.read_bytes()))
    for use in (pairs, lambda items: list(items.walk())):
        with pytest.raises(ReadError, match=rf"({message}).*s\.tar"):
            use(open_items(path, "image"))
