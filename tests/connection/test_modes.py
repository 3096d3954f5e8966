"""torch's modes belong to the caller: whatever they are, the same is learned."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

import cmcr
from cmcr.connection import connect as connect_module
from cmcr.connection import consistency
from cmcr.connection.connect import connect
from cmcr.connection.modes import float32_on, plain_modes
from cmcr.connection.peers import Peers
from cmcr.connection.settings import Settings
from cmcr.connection.sides import Side
from cmcr.connection.training import train
from cmcr.errors import ResumeError


@contextmanager
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": float64_by_default,
}


def unit(rows, width, seed):
    made = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def connected(**options):
    a = cmcr.Memories("a", text=unit(60, 6, 0), image=unit(40, 6, 1))
    b = cmcr.Memories("b", text=unit(60, 4, 2), audio=unit(30, 4, 3))
    return connect(a, b, epochs=2, batch_size=20, device="cpu", **options)


def trained():
    sides = (Side(*(torch.from_numpy(unit(60, 6, seed)) for seed in pair)) for pair in ((0, 1), (2, 3)))
    return train(*sides, Settings(epochs=2, batch_size=20, batch_norm="apart"))


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) and value.dtype == other[name].dtype for name, value in one.items())
    assert not any(value.is_inference() for value in other.values())


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_does_not_depend_on_the_mode(mode):
    expected = connected()
    with MODES[mode]():
        found = connected()
    assert found.history == expected.history
    for space, projector in expected.projectors.items():
        assert_same(projector.state_dict(), found.projectors[space].state_dict())


@pytest.mark.parametrize("mode", MODES)
def test_a_training_does_not_depend_on_the_mode(mode):
    expected = trained()
    with MODES[mode]():
        found = trained()
    assert found.history == expected.history
    assert_same(expected.left.state_dict(), found.left.state_dict())


@pytest.mark.parametrize("mode", ["inference_mode", "autocast"])
def test_semantic_consistency_does_not_depend_on_the_mode(mode):
    queries, memory = torch.from_numpy(unit(9, 6, 0)), torch.from_numpy(unit(40, 6, 1))
    expected = cmcr.semantic_consistency(queries, memory, normalize=True)
    with MODES[mode]():
        assert torch.equal(cmcr.semantic_consistency(queries, memory, normalize=True), expected)


def test_the_modes_come_back():
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        with plain_modes(torch.device("cpu")):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("chosen", "named"), [("highest", "float32"), ("high", "TF32"), ("medium", "TF32")])
def test_what_the_caller_chose_for_float32_on_a_gpu_is_named(chosen, named):
    earlier = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(chosen)
    try:
        assert float32_on(torch.device("cuda", 1)) == {"float32 products": named}
        assert float32_on(torch.device("cpu")) == {}
    finally:
        torch.set_float32_matmul_precision(earlier)


def test_what_was_chosen_for_float32_belongs_to_what_a_stopped_run_is_known_by(monkeypatch, tmp_path):
    connected(checkpoint=tmp_path / "kept")
    for module in (consistency, connect_module):
        monkeypatch.setattr(module, "float32_on", lambda device: {"float32 products": "TF32"})
    with pytest.raises(ResumeError, match="float32 products was none, now TF32"):
        connected(checkpoint=tmp_path / "kept")
    queries, memory = unit(9, 6, 0), unit(40, 6, 1)
    assert consistency.SoftmaxMean.of(queries, memory).identity(Peers())["float32 products"] == "TF32"
