"""How much RAM there is: the machine's, or a container's limit where that is lower."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from cmcr import machine


@pytest.fixture
def sysconf(monkeypatch):
    """A machine of 8 GiB, whatever this one is."""
    names = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**21}
    monkeypatch.setattr(os, "sysconf", names.__getitem__, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


def test_this_machine_has_some():
    assert machine.ram_bytes() > 100_000_000


def test_the_limit_of_a_container_counts_where_it_is_lower(sysconf, monkeypatch, tmp_path):
    limit, gone = tmp_path / "memory.max", tmp_path / "gone"
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (str(limit), str(gone)))
    for said, expected in (("1000000\n", 1_000_000), ("max\n", 2**33), (str(2**60), 2**33)):
        limit.write_text(said)
        assert machine.ram_bytes() == expected


def test_what_a_scheduler_leaves_counts_the_cache_it_would_give_back(sysconf, monkeypatch, tmp_path):
    for name, content in (
        ("memory.max", "1000"),
        ("memory.current", "600"),
        ("memory.stat", "anon 5\ninactive_file 150"),
    ):
        (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (str(tmp_path / "memory.max"),))
    assert machine.available_ram_bytes() == 550
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "_linux_available", lambda: 2**40)
    assert machine.available_ram_bytes() == 2**33  # of the whole machine


def test_windows_is_asked_its_own_way(monkeypatch):
    def fill(reference):
        status = reference._obj
        assert status.length == 64  # of MEMORYSTATUSEX
        status.total = 16 * 2**30
        status.free = 5 * 2**30

    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(machine.ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", ())
    assert machine.ram_bytes() == 16 * 2**30
    assert machine.available_ram_bytes() == 5 * 2**30


def test_only_gpus_with_memory_of_their_own_have_any(monkeypatch):
    assert machine.gpu_bytes(torch.device("cpu")) is None
    assert machine.gpu_bytes(torch.device("mps")) is None
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=5))
    assert machine.gpu_bytes(torch.device("cuda")) == 5
