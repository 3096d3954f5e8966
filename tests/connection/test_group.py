import os

import pytest
import torch
from torch.distributed import DistNetworkError

from cmcr.connection import group
from cmcr.connection.group import launched_group
from cmcr.connection.peers import Peers
from cmcr.errors import ConfigError, DeviceError, WorkerError

SECOND = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def launched(monkeypatch):
    """As in the second of two processes that torchrun has started; tells which calls joined and left the group."""
    calls = []
    monkeypatch.setattr(os, "environ", {**os.environ, **SECOND})
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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WORLD_SIZE", "", "expected a whole number of at least 1 in this environment variable, got ''"),
        ("WORLD_SIZE", "0", "got '0'"),
        ("WORLD_SIZE", "two", "got 'two'"),
        (
            "RANK",
            None,
            "WORLD_SIZE is 2, but RANK is not set. torchrun sets it: start with torchrun --nproc-per-node N",
        ),
        ("RANK", "", "RANK is not set"),
        ("RANK", "2", "expected a whole number from 0 to 1 in this environment variable, got '2'"),
        ("RANK", "-1", "got '-1'"),
        ("MASTER_ADDR", None, "unset WORLD_SIZE to run alone"),
        ("MASTER_PORT", "http", "expected a whole number from 0 to 65535"),
        ("LOCAL_RANK", "x", "got 'x'"),
        ("LOCAL_WORLD_SIZE", "3", "expected a whole number from 1 to 2"),
    ],
)
def test_what_the_launcher_should_have_said(launched, monkeypatch, name, value, said):
    changed = {**SECOND, name: value}
    monkeypatch.setattr(os, "environ", {key: text for key, text in changed.items() if text is not None})
    with pytest.raises(ConfigError) as caught, launched_group("cpu"):
        pass
    assert str(caught.value).startswith(f"{name}: ")
    assert said in str(caught.value)
    assert launched == []


def test_others_that_cannot_be_reached_are_said(launched, monkeypatch):
    def refuse(backend, **options):
        raise DistNetworkError("The client socket has timed out")

    monkeypatch.setattr(group.distributed, "init_process_group", refuse)
    with (
        pytest.raises(
            WorkerError, match=r"process 1 of 2 cannot reach the others through localhost:29500 \(The client"
        ),
        launched_group("cpu"),
    ):
        pass


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
