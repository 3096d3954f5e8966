import os

import pytest
import torch

from cmcr.connection import group
from cmcr.connection.group import launched_group
from cmcr.connection.peers import Peers
from cmcr.errors import ConfigError, DeviceError, WorkerError


@pytest.fixture
def launched(monkeypatch):
    """As in the second of two processes that torchrun has started; tells which calls joined and left the group."""
    calls = []
    monkeypatch.setattr(os, "environ", {**os.environ, "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"})
    monkeypatch.setattr(group.distributed, "init_process_group", lambda backend, **options: calls.append(backend))
    monkeypatch.setattr(group.distributed, "destroy_process_group", lambda: calls.append("left"))
    monkeypatch.setattr(group, "peers_here", lambda: Peers(1, 2))
    return calls


@pytest.fixture
def gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_alone_nothing_happens(monkeypatch, environment):
    monkeypatch.setattr(os, "environ", environment)
    with launched_group("cuda:3") as (peers, device):
        assert (peers, device) == (Peers(), "cuda:3")


def test_on_cpus_they_talk_through_gloo(launched):
    with launched_group("cpu") as (peers, device):
        assert (peers, device) == (Peers(1, 2), "cpu")
    assert launched == ["gloo", "left"]


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_takes_its_gpu(launched, gpus, device):
    with launched_group(device) as (_, own):
        assert own == "cuda:1"
    assert launched == ["nccl", "left"]


def test_more_processes_than_gpus_are_refused(launched, gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="this machine has 1 CUDA device"), launched_group("cuda"):
        pass


@pytest.mark.parametrize("device", ["mps", "cuda:0", "gpu"])
def test_one_device_for_all_is_refused(launched, device):
    with (
        pytest.raises(
            ConfigError, match=f"several processes compute on 'cuda', each on its own GPU, or 'cpu', got '{device}'"
        ),
        launched_group(device),
    ):
        pass


def test_a_lost_process_is_said(launched):
    with (
        pytest.raises(
            WorkerError, match=r"process 1 of 2 lost another one, whose own message says why\. Run it again\."
        ),
        launched_group("cpu"),
    ):
        raise RuntimeError("[/x/gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    assert launched == ["gloo"]  # nobody is waited for


def test_other_errors_go_through(launched):
    with pytest.raises(RuntimeError, match=r"^mine$"), launched_group("cpu"):
        raise RuntimeError("mine")
