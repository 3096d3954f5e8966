"""The batches of a training, and the state that its steps change."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import reference.optimisation as twin
from cmcr.engine import batches as batches_module
from cmcr.engine.batches import Batches
from cmcr.engine.train_state import TrainState
from cmcr.errors import FormatError, TrainingError
from engine.rows import Disk, random_rows

CPU = torch.device("cpu")


def sets_of(rows=37):
    return [random_rows(rows, width, width).float() for width in (3, 3, 4, 5)]


def made(sets=None, batch=10, seed=7):
    return Batches(sets_of() if sets is None else sets, batch, seed, CPU)


# ------------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(("rows", "batch", "steps"), [(37, 10, 3), (40, 10, 4), (2, 2, 1), (3, 2, 1), (37, 37, 1)])
def test_every_epoch_visits_each_item_at_most_once_in_an_order_of_its_own(rows, batch, steps):
    sets = sets_of(rows)
    batches = made(sets, batch)
    assert batches.per_epoch == steps
    epochs = []
    for epoch in range(3):
        taken = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            items = [
                [int((rows == row).all(dim=1).nonzero()) for row in found]
                for rows, found in zip(sets, batches.rows(step), strict=True)
            ]
            assert len(items[0]) == batch
            assert items[0] == items[1] == items[2] == items[3]  # the same items of all four sets
            taken += items[0]
        assert len(set(taken)) == len(taken) == batch * steps
        epochs.append(taken)
    assert rows < 4 or epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_seeds_of_any_size_give_orders_and_noises_of_their_own():
    seeds = (0, 1, 2**32, 2**80)
    firsts = [made(seed=seed).rows(0)[0] for seed in seeds]
    noises = [torch.randn(64, generator=made(seed=seed).noise(step)) for seed in seeds for step in (0, 1)]
    for drawn in (firsts, noises):
        for place, one in enumerate(drawn):
            assert all(not torch.equal(one, other) for other in drawn[place + 1 :])


def test_any_step_can_be_the_first():
    in_order = made()
    expected = {step: [*in_order.rows(step), torch.randn(3, generator=in_order.noise(step))] for step in range(8)}
    for step in (7, 4, 5, 0):
        batches = made()
        found = [*batches.rows(step), torch.randn(3, generator=batches.noise(step))]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected[step], strict=True))


@pytest.mark.parametrize("free", [10**12, 0])
def test_rows_on_disk_equal_rows_in_ram_whether_they_fit_or_not(monkeypatch, free):
    monkeypatch.setattr(batches_module, "available_ram_bytes", lambda: free)
    sets = sets_of()
    stored = [Disk(3 * rows) for rows in sets]  # not quite unit rows, as rounding leaves them
    on_disk, in_ram = made(stored), made(sets)
    for step in (0, 1, 5):
        for ours, theirs in zip(on_disk.rows(step), in_ram.rows(step), strict=True):
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert all(disk.most_rows_at_once == (10 if free == 0 else 37) for disk in stored)


# --------------------------------------------------------------------------------------------------------------- state

STEPS = 7


def fitting(learning_rate=0.05, weight_decay=0.1):
    """A linear layer under one frozen and one free parameter, and the loss of each of its steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2).double()
    layer.bias.requires_grad_(False)
    state = TrainState({"layer": layer}, STEPS, 2, learning_rate=learning_rate, weight_decay=weight_decay)
    inputs = random_rows(STEPS, 3, 5)

    def loss():
        out = layer(inputs[state.step])
        return (out**2).sum(), out.sum()

    return layer, inputs, state, loss


def test_every_step_is_adamw_under_a_cosine():
    layer, inputs, state, loss = fitting()
    weight, bias = layer.weight.detach().numpy().copy(), layer.bias.numpy().copy()
    first = second = 0.0
    for step in range(STEPS):
        out = weight @ inputs[step].numpy() + bias
        state.descend(loss())
        np.testing.assert_allclose(state.history[step], [(out**2).sum(), out.sum()], rtol=1e-6)
        slope = 2 * np.outer(out, inputs[step].numpy())
        rate = twin.cosine_rate(step, STEPS, 0.05)
        weight, first, second = twin.adamw_step(weight, slope, first, second, step + 1, rate, 0.1)
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(layer.bias, bias)


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_a_state_is_resumed_from_a_file_bit_for_bit(tmp_path, stop):
    layer, _, state, loss = fitting()
    for _ in range(STEPS):
        state.descend(loss())
        if state.step == stop:
            save_file(state.tensors(), tmp_path / "kept.safetensors")
    again, _, resumed, loss = fitting()
    with torch.no_grad():
        again.weight.zero_()
    resumed.restore(load_file(tmp_path / "kept.safetensors"))
    assert resumed.step == stop
    while resumed.step < STEPS:
        resumed.descend(loss())
    assert torch.equal(again.weight, layer.weight)
    assert torch.equal(resumed.history, state.history)


def test_a_restored_state_shares_no_memory_with_what_it_was_restored_from():
    _, _, state, loss = fitting()
    state.descend(loss())
    kept = {name: value.clone() for name, value in state.tensors().items()}
    before = {name: value.clone() for name, value in kept.items()}
    state.restore(kept)
    state.descend(loss())
    assert all(torch.equal(value, before[name]) for name, value in kept.items())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: kept.pop("history"),
        lambda kept: kept.pop("layer.bias"),
        lambda kept: kept.pop("optimizer.0.exp_avg"),
        lambda kept: kept.update({"layer.weight": torch.zeros(5, 5)}),
        lambda kept: kept.update({"layer.more": torch.zeros(1)}),
        lambda kept: kept.update({"history": torch.zeros(STEPS + 1, 2)}),
    ],
)
def test_a_state_of_other_modules_is_refused(spoil):
    _, _, state, loss = fitting()
    state.descend(loss())
    kept = state.tensors()
    spoil(kept)
    with pytest.raises(FormatError, match="of other projectors"):
        fitting()[2].restore(kept)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(bad):
    _, _, state, loss = fitting()
    state.check_loss()  # nothing to check yet
    state.descend(loss())
    state.check_loss()
    state.descend([bad * term for term in loss()])
    with pytest.raises(TrainingError, match=f"by step 2 of {STEPS}"):
        state.check_loss()
