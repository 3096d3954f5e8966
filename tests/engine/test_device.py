"""Which device, how many cores and how much RAM: the machine's, or a container's limits where those are lower."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from cmcr.engine import device as devices
from cmcr.engine.device import available_ram_bytes, choose_device, cores, memory_errors
from cmcr.errors import ConfigError, DeviceError

FREE, OWN = 2**32, 1000


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_best_device(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == torch.device(best)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1", "mps"])
def test_the_devices_that_there_are_may_be_named(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(name) == choose_device(torch.device(name)) == torch.device(name)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:99", 2)])
@pytest.mark.parametrize("kind", [str, torch.device])
def test_a_missing_cuda_device_is_refused(monkeypatch, name, count, kind):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(DeviceError, match=rf"this machine has {count} CUDA device"):
        choose_device(kind(name))


def test_a_missing_apple_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="'mps' is not available"):
        choose_device("mps")


@pytest.mark.parametrize("device", ["gpu", "CPU", "", "cuda:x", "cuda:-1", "meta", torch.device("xpu"), None, []])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(DeviceError, match="expected 'auto', 'cpu'"):
        choose_device(device)


@pytest.fixture
def group(monkeypatch, tmp_path):
    """A machine with 4 GiB free and 64 cores; writes the files of its control groups, and which of them this process is in."""
    monkeypatch.setattr(devices, "_GROUPS", tmp_path)
    monkeypatch.setattr(devices, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=FREE))
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=OWN)))
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    cores.cache_clear()

    def write(path, own=None, **files):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / path / name.replace("__", ".")).write_text(content + "\n")
        if own is not None:
            (tmp_path / "own").write_text(own + "\n")
        cores.cache_clear()

    yield write
    cores.cache_clear()


def test_without_a_container_the_machine_counts(group):
    assert (available_ram_bytes(), cores()) == (FREE, 64)


@pytest.mark.parametrize("own", [None, "0::/", "0::/../..", "0::/docker/4f2a"])  # as containers see their own group
def test_the_limits_of_a_container_count_where_they_are_lower(group, own):
    for limit, free in (("1000000", 10**6 - OWN), ("max", FREE), (str(2**60), FREE), ("7", 0)):
        group("", own, memory__max=limit)
        assert available_ram_bytes() == free
    for quota, count in (("150000 100000", 2), ("10000 100000", 1), ("max 100000", 64), ("9900000 100000", 64)):
        group("", own, cpu__max=quota)
        assert cores() == count


def test_the_lowest_limit_from_the_own_group_upwards_counts(group):
    group("slurm/job/step", "1:name=systemd:/else\n0::/slurm/job/step", memory__max="max", cpu__max="max 100000")
    group("slurm/job", memory__max="5000", cpu__max="800000 100000")
    group("slurm", memory__max="6000", cpu__max="300000 100000")
    group("else", memory__max="1", cpu__max="100000 100000")
    assert (available_ram_bytes(), cores()) == (5000 - OWN, 3)


def test_version_1_of_control_groups(group):
    unlimited = str(2**63 - 4096)
    group("memory/a/b", "5:cpu,cpuacct:/c\n4:memory:/a/b", memory__limit_in_bytes=unlimited)
    group("memory/a", memory__limit_in_bytes="4000")
    group("cpu,cpuacct/c", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    assert (available_ram_bytes(), cores()) == (3000, 3)
    group("cpu,cpuacct/c", cpu__cfs_quota_us="-1")
    assert cores() == 64


def test_memory_that_does_not_suffice_is_a_matter_of_settings():
    with pytest.raises(ConfigError, match="Lower batch_size"), memory_errors():
        torch.empty(10**15, dtype=torch.float32)
    with pytest.raises(ConfigError, match="Lower batch_size"), memory_errors():
        raise torch.OutOfMemoryError("of a GPU")
    with pytest.raises(RuntimeError, match="another error"), memory_errors():
        raise RuntimeError("another error")
