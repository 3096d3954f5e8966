"""torch's modes belong to the caller: whatever they are, the same is learned."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

import cmcr
from cmcr.connection.connect import connect
from cmcr.connection.modes import plain_modes
from cmcr.connection.settings import Settings
from cmcr.connection.sides import Side
from cmcr.connection.training import train


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


def connected():
    a = cmcr.Memories("a", text=unit(60, 6, 0), image=unit(40, 6, 1))
    b = cmcr.Memories("b", text=unit(60, 4, 2), audio=unit(30, 4, 3))
    return connect(a, b, epochs=2, batch_size=20, device="cpu")


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
