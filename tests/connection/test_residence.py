import errno
import os
import tempfile

import pytest
import torch

from cmcr.connection import residence
from cmcr.connection.residence import fits_in_ram, fits_on, room_for
from cmcr.engine.device import available_ram_bytes
from cmcr.errors import WriteError

CPU = torch.device("cpu")


@pytest.fixture
def no_ram(monkeypatch):
    monkeypatch.setattr(residence, "available_ram_bytes", lambda: 1000)


def test_rows_that_fit_are_ordinary_tensors(tmp_path):
    with room_for(1000, CPU, folder=tmp_path / "none") as empty:
        rows = empty(5, 3)
        assert (rows.shape, rows.dtype, rows.device.type) == ((5, 3), torch.float32, "cpu")
    assert not (tmp_path / "none").exists()


@pytest.fixture
def files(monkeypatch):
    """The files that rows live in, held open: they have no name."""
    held, take = [], residence._take_from_disk

    def taking(file, size):
        take(file, size)
        held.append(os.open(file.name, os.O_RDONLY))

    monkeypatch.setattr(residence, "_take_from_disk", taking)
    yield held
    for file in held:
        os.close(file)


def test_rows_that_do_not_fit_live_in_files_for_a_while(tmp_path, no_ram, files):
    with room_for(801, CPU, folder=tmp_path) as empty:
        one, two = empty(50, 3), empty(7, 2)
        one.fill_(1.5)
        two.fill_(-2.0)
        assert [os.fstat(file).st_size for file in files] == [600, 56]
        assert (one.sum(), two.sum()) == (225.0, -28.0)
        assert torch.frombuffer(bytearray(os.pread(files[0], 600, 0)), dtype=torch.float32).sum() == 225.0
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_no_rows(tmp_path, no_ram, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with room_for(801, CPU) as empty:
        rows = empty(50, 3)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        assert rows.fill_(2.0).sum() == 300.0


def test_several_processes_need_room_for_each(tmp_path, no_ram, files):
    for processes, made in ((1, 0), (2, 1)):
        with room_for(500, CPU, processes=processes, folder=tmp_path) as empty:
            empty(5, 5)
            assert len(files) == made


def test_a_folder_that_cannot_be_made_is_said(tmp_path, no_ram, monkeypatch):
    (tmp_path / "file").touch()
    said = r"could not make room for 0\.0 GB of embeddings, which RAM does not hold \("
    with pytest.raises(WriteError, match=said + "Not a directory"), room_for(801, CPU, folder=tmp_path / "file" / "x"):
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(WriteError, match=said + "No such file or directory"), room_for(801, CPU):
        pass


def test_a_disk_without_room_is_said(tmp_path, no_ram, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with (
        pytest.raises(
            WriteError, match=r"could not make room for 4\.0 GB of embeddings, which RAM does not hold \(No space"
        ),
        room_for(10**10, CPU, folder=tmp_path) as empty,
    ):
        empty(10**6, 1000)


def test_the_room_is_real_where_the_system_cannot_reserve_it(tmp_path, monkeypatch, files):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # macOS, Windows
    monkeypatch.setattr(residence, "_ZEROS_AT_ONCE", 2**16)
    rows = residence._in_file(tmp_path / "rows", 1000, 50)
    assert not rows.any()
    found = os.fstat(files[0])
    assert (found.st_size, found.st_blocks * 512 >= 200_000) == (200_000, True)


def test_what_the_system_says_is_plausible():
    assert 2**26 < available_ram_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert fits_in_ram(0)
    assert not fits_in_ram(2**60)


def test_a_gpu_is_asked_for_its_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    assert fits_on(torch.device("cuda", 0), 700)
    assert not fits_on(torch.device("cuda", 0), 701)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 900)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    assert fits_on(torch.device("cuda", 0), 1050)  # what torch holds for later is free
    assert not fits_on(torch.device("cuda", 0), 1051)
    assert fits_on(CPU, 2**60)
