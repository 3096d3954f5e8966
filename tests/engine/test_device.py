"""How much RAM there is: the machine's, or a container's limit where that is lower."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from cmcr.engine import device as machine


@pytest.fixture
def sysconf(monkeypatch):
    """A machine of 8 GiB, whatever this one is."""
    names = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**21}
    monkeypatch.setattr(os, "sysconf", names.__getitem__, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


def test_this_machine_has_some():
    assert machine.ram_bytes() > 100_000_000


@pytest.fixture
def group(sysconf, monkeypatch, tmp_path):
    """Write the files of a control group, and which groups this process is in."""
    monkeypatch.setattr(machine, "_VERSION_1", machine._VERSION_1._replace(home=tmp_path / "memory"))
    monkeypatch.setattr(machine, "_VERSION_2", machine._VERSION_2._replace(home=tmp_path))
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_linux_available", lambda: 2**33)

    def write(path, own=None, **files):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / path / name.replace("memory_", "memory.")).write_text(content + "\n")
        if own is not None:
            (tmp_path / "own").write_text(own + "\n")

    return write


@pytest.mark.parametrize(
    "own", [None, "0::/", "0::/../..", "0::/docker/4f2a"]
)  # as containers are shown their own group
def test_the_limit_of_a_container_counts_where_it_is_lower(group, own):
    for said, expected in (("1000000", 1_000_000), ("max", 2**33), (str(2**60), 2**33)):
        group("", own, memory_max=said)
        assert machine.ram_bytes() == expected
        assert machine.available_ram_bytes() == expected


def test_what_a_scheduler_leaves_counts_the_cache_it_would_give_back(group):
    group("", memory_max="1000", memory_current="600", memory_stat="anon 5\ninactive_file 150")
    assert machine.available_ram_bytes() == 550
    group("", memory_current="1200")
    assert machine.available_ram_bytes() == 0


def test_the_lowest_limit_from_the_own_group_upwards_counts(group):
    group("slurm/job/step", "1:name=systemd:/else\n0::/slurm/job/step", memory_max="max", memory_current="7")
    group("slurm/job", memory_max="5000", memory_current="1000")
    group("slurm", memory_max="6000", memory_current="5500")
    group("else", memory_max="1", memory_current="0")
    assert machine.ram_bytes() == 5000
    assert machine.available_ram_bytes() == 500


def test_version_1_of_control_groups(group):
    unlimited = str(2**63 - 4096)
    group("memory", "5:cpu,cpuacct:/a\n4:memory:/a/b", memory_limit_in_bytes=unlimited, memory_usage_in_bytes="9")
    group("memory/a", memory_limit_in_bytes="4000", memory_usage_in_bytes="1500")
    group("memory/a/b", memory_limit_in_bytes=unlimited, memory_usage_in_bytes="9")
    assert (machine.ram_bytes(), machine.available_ram_bytes()) == (4000, 2500)
    group("memory/a", memory_stat="cache 900\ninactive_file 1\ntotal_inactive_file 600")
    assert machine.available_ram_bytes() == 3100


def test_windows_is_asked_its_own_way(monkeypatch):
    def fill(reference):
        status = reference._obj
        assert status.length == 64  # of MEMORYSTATUSEX
        status.total = 16 * 2**30
        status.free = 5 * 2**30

    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(machine.ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(machine, "_groups", lambda: iter(()))
    assert machine.ram_bytes() == 16 * 2**30
    assert machine.available_ram_bytes() == 5 * 2**30


def test_only_gpus_with_memory_of_their_own_have_any(monkeypatch):
    assert machine.gpu_bytes(torch.device("cpu")) is None
    assert machine.gpu_bytes(torch.device("mps")) is None
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=5))
    assert machine.gpu_bytes(torch.device("cuda")) == 5
