"""Archives, folders and tables that mean harm: refused or quarantined, never endless, never large in memory."""

import gzip
import os
import socket
import struct
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from cmcr.data.items import open_items, tables, tar_files
from cmcr.errors import ConfigError, ReadError, SampleError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes")


def header(name="a.jpg", size=0, kind=tarfile.REGTYPE):
    """One header; a negative size is written in base 256, as GNU tar writes large ones."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    if kind != tarfile.REGTYPE:
        block[156:157] = kind
    block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else (1 << 95 | size % 2**95).to_bytes(12, "big")
    if size < 0:
        block[124:136] = b"\xff" * 4 + struct.pack(">q", size)
    block[148:156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:512]))
    return bytes(block)


def pax(**records):
    lines = b""
    for key, value in records.items():
        rest = f" {key.replace('_', '.')}={value}\n".encode()
        lines += next(b"%d" % n + rest for n in range(len(rest), len(rest) + 9) if n == len(rest) + len(str(n)))
    return header("pax", len(lines), tarfile.XHDTYPE) + lines.ljust(-(-len(lines) // 512) * 512, b"\0")


END = bytes(1024)
ARCHIVES = {
    "negative size": header("a.jpg") + header("b.jpg", -1024) + END,
    "negative size at first": header("b.jpg", -512) + END,
    "negative size in pax": header("a.jpg") + pax(size=-2048) + header("b.jpg") + END,
    "negative long name": header("a.jpg") + header("x", -1, tarfile.GNUTYPE_LONGNAME) + END,
    "huge long name": header("a.jpg") + header("x", 2**33, tarfile.GNUTYPE_LONGNAME) + END,
    "huge pax header": header("a.jpg") + header("x", 2**33, tarfile.XHDTYPE) + END,
    "chain of long names": (header("x", 512, tarfile.GNUTYPE_LONGNAME) + b"y" * 512) * 2000 + header() + END,
    "chain of pax headers": pax(comment="x") * 2000 + header() + END,
    "chain of global headers": (header("x", 16, tarfile.XGLTYPE) + b"16 comment=abcd\n".ljust(512, b"\0")) * 2000 + END,
    "sparse": header("a.jpg") + header("b.jpg", 2**40, tarfile.GNUTYPE_SPARSE) + END,
    "sparse in pax": pax(GNU_sparse_major=1, GNU_sparse_minor=0, GNU_sparse_realsize=2**60) + header("b.jpg") + END,
    "sparse in old pax": pax(GNU_sparse_map="0,1,2", GNU_sparse_size=2**60) + header("b.jpg") + END,
    "more than there is": header("a.jpg") + header("b.jpg", 2**50) + END,
}  # fmt: skip


def read_all(path, modality="image"):
    return [(entry.id, entry.read()) for entry in open_items(path, modality).walk()]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_without_end_are_refused(tmp_path, kind, packed):
    path = tmp_path / "s.tar"
    path.write_bytes(gzip.compress(ARCHIVES[kind]) if packed else ARCHIVES[kind])
    tracemalloc.start()
    try:
        with pytest.raises(ReadError, match=r"s\.tar"):
            read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_member_that_is_too_large_is_one_item_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_files, "MEMBER_BYTES", 1000)
    content = (
        header("a.jpg", 3) + b"abc".ljust(512, b"\0") + header("b.jpg", 1024) + bytes(1024) + header("c.jpg") + END
    )
    (tmp_path / "s.tar").write_bytes(content)
    found = dict(read_all(tmp_path / "s.tar"))
    assert (found["s.tar/a.jpg"], found["s.tar/c.jpg"]) == (b"abc", b"")
    assert "1024 bytes, a member may have 1000" in str(found["s.tar/b.jpg"])


@pytest.mark.parametrize("content", [header("a.bin", 2**21) + bytes(2**21) + END, header("a.jpg") + bytes(2**22)])
def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, content):
    monkeypatch.setattr(tar_files, "_UNPACKED", 2**20)
    monkeypatch.setattr(tar_files, "_PADDING", 2**20)
    (tmp_path / "s.tar").write_bytes(gzip.compress(content))
    with pytest.raises(ReadError, match=r"s\.tar"):
        read_all(tmp_path / "s.tar")


def test_devices_and_pipes_in_an_archive_are_passed_over(tmp_path):
    kinds = (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE)
    (tmp_path / "s.tar").write_bytes(
        b"".join(header(f"{n}.jpg", 0, kind) for n, kind in enumerate(kinds)) + header() + END
    )
    items = open_items(tmp_path / "s.tar", "image")
    assert [entry.id for entry in items.walk()] == ["s.tar/a.jpg"]
    assert dict(items.ignored) == {"link or device": 5}


@POSIX
def test_pipes_sockets_devices_and_dead_links_never_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe.txt")
    Path("device.txt").symlink_to("/dev/zero")
    Path("dead.txt").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.txt")
        found = dict(read_all(tmp_path, "text"))
    assert len(found) == 4
    assert all(isinstance(each, SampleError) and "text file" in str(each) for each in found.values())
    for name in ("list.csv", "list.parquet", "s.tar"):
        os.mkfifo(name)
        with pytest.raises(ReadError, match=f"a pipe or device.*{name}"):
            read_all(tmp_path / f"*{Path(name).suffix}")
        with pytest.raises(ConfigError, match="neither a file nor a folder"):
            read_all(tmp_path / name)


@POSIX
def test_folders_without_end_are_refused(tmp_path):
    fan = tmp_path / "fan"
    for name in range(12):
        (fan / str(name)).mkdir(parents=True)
        (fan / str(name) / "a.jpg").touch()
        for other in range(12):
            (fan / str(name) / f"to-{other}").symlink_to(fan / str(other))
    with pytest.raises(ReadError, match="linked to over 100 times"):
        read_all(fan)
    loop = tmp_path / "loop"
    loop.mkdir()
    (loop / "again").symlink_to(loop)
    (loop / "self.jpg").symlink_to(loop / "self.jpg")
    (loop / "a.jpg").touch()
    found = dict(read_all(loop))
    assert list(found) == ["a.jpg", "self.jpg"]
    deep = tmp_path / "deep"
    deep.joinpath(*["d"] * 300).mkdir(parents=True)
    with pytest.raises(ReadError, match="nested over 200 deep"):
        read_all(deep)
    os.removedirs(deep.joinpath(*["d"] * 300))  # too deep for pytest to remove


def test_lines_without_end_are_one_item_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_LINE", 1000)
    (tmp_path / "a.txt").write_text("one\n" + "x" * 5000 + "\ntwo")
    found = read_all(tmp_path / "a.txt", "text")
    assert [content for _, content in found if not isinstance(content, SampleError)] == ["one", "two"]
    assert "a.txt:2: longer than 1000 characters" in str(found[1][1])
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "' + "x" * 5000 + '"}\n{"text": "two"}\n')
    assert [type(content) for _, content in read_all(tmp_path / "a.jsonl", "text")] == [str, SampleError, str]
    (tmp_path / "a.csv").write_text("text\none\n" + "x" * 5000 + "\n")
    with pytest.raises(ReadError, match="longer than 1000 characters"):
        read_all(tmp_path / "a.csv", "text")


@pytest.mark.parametrize(
    "cell", ["9" * 5000, "1e999", "NaN", "[" * 900 + "]" * 900, "[" * 10**5, '{"x": ' * 900 + "1" + "}" * 900, "true"]
)
def test_absurd_cells_of_json_are_items_that_cannot_be_read(tmp_path, cell):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n{{"text": {cell}}}\n{{"text": "two"}}\n')
    items = open_items(tmp_path / "a.jsonl", "text", whole_rows=True)
    assert [type(entry.read()) for entry in items.walk()] == [str, SampleError, str]


def test_cells_of_parquet_that_would_fill_the_memory_come_one_by_one(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "_PARQUET_BYTES", 2**18)
    column = pyarrow.array(["x" * 2**18] * 64)  # one page of 256 kB that every row refers to
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet", dictionary_pagesize_limit=2**24)
    before, most = pyarrow.total_allocated_bytes(), 0
    for entry in open_items(tmp_path / "a.parquet", "text").walk():
        assert len(entry.read()) == 2**18
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert most < 10 * 2**18
