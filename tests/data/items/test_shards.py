"""Members of tar files as items."""

import io
import tarfile

import numpy as np
import pytest

from cmcr.data.items import Item, open_items
from cmcr.data.items import shards as shards_module
from cmcr.data.paths import NamedBytes
from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import ConfigError, ReadError

MEMBERS = [("./b.jpg", b"bb"), ("x/a.jpg", b"a"), ("x/a.json", b"{}"), ("x/a.txt", b"caption\n"), ("x/._a.jpg", b"mac")]


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz"), ("t.tar", "w:gz")])
def test_members_come_in_their_order(tmp_path, name, mode):
    items = open_items(tar(tmp_path / name, MEMBERS, mode), "image")
    expected = [Item(f"{name}/b.jpg", f"{name}/b.jpg", b"bb"), Item(f"{name}/x/a.jpg", f"{name}/x/a.jpg", b"a")]
    assert list(items) == list(items) == expected
    assert dict(items.ignored) == {".json": 1, ".txt": 1}
    assert items.survey().count == 2
    assert [item.content for item in open_items(tmp_path / name, "text")] == ["caption"]
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_folder_of_tar_files_is_its_shards(tmp_path):
    for number in (1, 0):
        tar(tmp_path / f"shard-{number}.tar", [("a.wav", b"%d" % number)])
    expected = [("shard-0.tar/a.wav", b"0"), ("shard-1.tar/a.wav", b"1")]
    for given in (tmp_path, tmp_path / "shard-*.tar"):
        assert [(item.id, item.content) for item in open_items(given, "audio")] == expected
    (tmp_path / "sizes.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"give the pattern '{tmp_path.name}/\*\.tar'"):
        open_items(tmp_path, "audio")


def test_names_that_occur_twice_and_that_are_long_or_not_ascii(tmp_path):
    long = "d" * 90 + "/" + "é中" * 60 + ".jpg"
    items = open_items(
        tar(tmp_path / "s.tar", [("a.jpg", b"1"), (long, b"2"), ("a.jpg", b"34"), ("a.jpg", b"")]), "image"
    )
    assert [item.id for item in items] == ["s.tar/a.jpg", f"s.tar/{long}", "s.tar/a.jpg#2", "s.tar/a.jpg#3"]
    assert [item.content for item in items] == [b"1", b"2", b"34", b""]
    assert items.survey().count == 4


def test_links_are_ignored_and_texts_must_be_utf8(tmp_path):
    path = tar(tmp_path / "s.tar", [("a.txt", b"caf\xe9")])
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("b.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    items = open_items(path, "text")
    (item,) = items
    assert str(item.content) == "s.tar/a.txt: not UTF-8: byte 3 is 0xE9. Save it as UTF-8."
    assert dict(items.ignored) == {"link": 1}


def test_point_clouds_keep_their_ending(tmp_path):
    cloud = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, cloud)
    np.savez(npz, cloud)
    text = "\ufeff" + "\n".join(" ".join(map(repr, row)) for row in cloud.tolist())
    ply = "ply\nformat ascii 1.0\nelement vertex 20\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    members = [("a.npy", npy.getvalue()), ("a.NPZ", npz.getvalue()), ("a.xyz", text.encode())]
    members.append(("a.ply", (ply + text[1:] + "\n").encode()))
    items = list(open_items(tar(tmp_path / "s.tar", members), "point_cloud"))
    assert [item.content.name for item in items] == ["s.tar/a.npy", "s.tar/a.NPZ", "s.tar/a.xyz", "s.tar/a.ply"]
    for item in items:
        assert isinstance(item.content, NamedBytes)
        np.testing.assert_allclose(read_point_cloud(item.content), cloud, rtol=1e-6)


def test_one_header_is_held_at_a_time(tmp_path):
    path = tar(tmp_path / "s.tar", [(f"{number}.jpg", b"") for number in range(50)])
    with shards_module._opened(path) as archive:
        for _ in shards_module._members(archive):
            assert len(archive.members) <= 1


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.6, 0.8])
def test_tar_files_that_are_cut_short(tmp_path, mode, kept):
    noise = np.random.default_rng(0).bytes(30_000)
    path = tar(tmp_path / "s.tar", [("a.jpg", noise), ("b.jpg", noise)], mode)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    for use in (lambda: open_items(path, "image").survey(), lambda: list(open_items(path, "image"))):
        with pytest.raises(
            ReadError, match=r"the tar file is damaged or cut short \(.*fetch or write it again.*s\.tar"
        ):
            use()


def test_a_tar_file_without_the_mark_of_its_end_is_cut_short(tmp_path):
    path = tar(tmp_path / "s.tar", [("a.jpg", b"a"), ("b.jpg", b"b")])
    path.write_bytes(path.read_bytes()[: 4 * 512])
    with pytest.raises(ReadError, match="no header where one should be: empty header"):
        open_items(path, "image").survey()


def test_tar_files_that_are_damaged(tmp_path):
    path = tar(tmp_path / "s.tar", [("a.jpg", b"a"), ("b.jpg", b"b")])
    content = bytearray(path.read_bytes())
    content[1024 + 5] ^= 1  # in the second header
    path.write_bytes(content)
    with pytest.raises(ReadError, match="no header where one should be: bad checksum"):
        open_items(path, "image").survey()
    path.write_bytes(b"no tar file at all, but some text" * 100)
    with pytest.raises(ReadError, match="the tar file is damaged"):
        open_items(path, "image")


def test_what_shows_at_the_last_byte_only(tmp_path):
    path = tar(tmp_path / "s.tar", MEMBERS)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ReadError, match="more follows the mark of its end"):
        open_items(path, "image").survey()
    content = bytearray(tar(tmp_path / "s.tgz", MEMBERS, "w:gz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "s.tgz").write_bytes(content)
    with pytest.raises(ReadError, match="CRC check failed"):
        open_items(tmp_path / "s.tgz", "image").survey()


def test_tar_files_without_members_that_fit(tmp_path):
    with pytest.raises(
        ConfigError, match=r"expected members ending in \.wav.*got \.jpg \(2\), \.json \(1\), \.txt \(1\)"
    ):
        open_items(tar(tmp_path / "s.tar", MEMBERS), "audio")
