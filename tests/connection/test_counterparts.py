"""Where the memory is while counterparts are computed: on the device if it fits, else where it was, and never twice."""

import pytest
import torch

from cmcr.connection import counterparts
from cmcr.connection.consistency import SoftmaxMean
from cmcr.connection.counterparts import Work, consistent_rows
from cmcr.connection.peers import Peers
from cmcr.connection.settings import Settings


@pytest.fixture
def means(monkeypatch):
    """What would be computed."""
    found = []
    monkeypatch.setattr(SoftmaxMean, "fill", lambda mean, *given: found.append(mean))
    return found


def rows(count, dtype):
    return torch.nn.functional.normalize(torch.randn(count, 5, dtype=dtype, generator=torch.Generator()), dim=1)


def computed(items, memory, device):
    work = Work(Settings(), torch.device(device), Peers(), torch.empty)
    return consistent_rows(items, memory, work, "left")


@pytest.mark.parametrize(("fits", "place"), [(True, "meta"), (False, "cpu")])
def test_a_memory_goes_to_a_device_that_has_room(means, monkeypatch, fits, place):
    asked = []
    monkeypatch.setattr(counterparts, "fits_on", lambda device, size: asked.append((device.type, size)) or fits)
    computed(rows(4, torch.float32), rows(9, torch.float64), "meta")
    assert asked == [("meta", 4 * 9 * 5)]
    assert means[0].memory.device.type == place


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_on_a_cpu_it_is_not_copied(means, dtype):
    memory = rows(9, dtype)
    computed(rows(4, torch.float32), memory, "cpu")
    assert means[0].memory.data_ptr() == memory.data_ptr()
    assert means[0].tiling.sums == torch.float32


def test_float64_is_computed_in_float32():
    items, memory = rows(4, torch.float64), rows(9, torch.float64)
    assert torch.equal(computed(items, memory, "cpu"), computed(items.float(), memory.float(), "cpu"))
