import numpy as np
import pytest
import torch
from cmcr.connection.batches import NOISE_ROWS, Batches, Noise, complete_, item_order
from cmcr.connection.peers import Peers
from cmcr.connection.sides import Side

from cmcr.connection import batches
from cmcr.connection.settings import Settings
from reference.enhancement import normalize

CPU = torch.device("cpu")


def noise(batch=2500, own=None, widths=(3, 5), **draw):
    made = Noise(batch, own or slice(0, batch), list(widths), CPU)
    try:
        return made.draw(**({"seed": 1, "step": 2, "place": 3, "width": widths[0]} | draw)).clone()
    finally:
        made.close()


def sides(rows, seed=0):
    rng = np.random.default_rng(seed)
    four = [torch.from_numpy(normalize(rng.normal(size=(rows, width)))).float() for width in (3, 3, 4, 4)]
    return Side(*four[:2]), Side(*four[2:])


def test_the_noise_is_standard_normal():
    drawn = noise(batch=20_000, widths=(8,)).double()
    assert drawn.shape == (20_000, 8)
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert abs((drawn**3).mean()) < 0.03
    assert abs((drawn**4).mean() - 3) < 0.1
    correlation = torch.corrcoef(drawn.T) - torch.eye(8)
    assert correlation.abs().max() < 0.03


@pytest.mark.parametrize(
    "own", [slice(0, 1), slice(0, 1250), slice(1250, 2500), slice(1023, 1025), slice(1024, 2048), slice(2499, 2500)]
)
def test_a_part_of_a_batch_is_drawn_as_in_the_whole(own):
    assert torch.equal(noise(own=own), noise()[own])


def test_noise_differs_by_seed_step_set_and_block():
    drawn = [noise(**{name: value}) for name in ("seed", "step", "place") for value in (0, 4)]
    blocks = [part for one in drawn for part in one.split(NOISE_ROWS)[:2]]
    assert len(blocks) == 12
    for place, one in enumerate(blocks):
        for other in blocks[place + 1 :]:
            assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 0.1


def test_seeds_of_any_size_are_told_apart_from_what_is_drawn():
    given = [(2**80, 0), (2**32, 0), (0, 0), (0, 0, 1), (0, 1, 0), (0, 1), (1, 0), (1, 1)]
    assert len({batches._mixed(*one) for one in given}) == len(given)


def test_noise_does_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    several = noise(batch=5000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert torch.equal(several, noise(batch=5000))


def test_noise_does_not_depend_on_what_was_drawn_before():
    made = Noise(1500, slice(0, 1500), [3, 5], CPU)
    made.draw(seed=1, step=0, place=0, width=5)
    assert torch.equal(made.draw(seed=1, step=2, place=3, width=3), noise(batch=1500))
    made.close()


def test_the_order_is_a_permutation_that_changes_with_seed_and_epoch():
    orders = [item_order(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for place, order in enumerate(orders):
        assert sorted(order.tolist()) == list(range(100))
        assert all(not torch.equal(order, other) for other in orders[place + 1 :])
    assert torch.equal(orders[3], item_order(100, 1, 1))


def completed(settings, peers=None, steps=range(5), rows=70):
    with Batches(sides(rows), settings, 7, CPU, peers or Peers()) as made:
        return [tuple(part.clone() for part in made.completed(step)) for step in steps]


@pytest.mark.parametrize("variance", [0.0, 0.004])
def test_processes_hold_together_what_one_holds(variance):
    settings = Settings(batch_size=25, noise_variance=variance)
    whole = completed(settings)
    shares = [completed(settings, Peers(rank, 3)) for rank in range(3)]
    for step, both in enumerate(whole):
        for side in (0, 1):
            halves = zip(*(share[step][side].chunk(2) for share in shares), strict=True)
            assert torch.equal(torch.cat([torch.cat(half) for half in halves]), both[side])


def test_any_step_can_be_the_first():
    settings = Settings(batch_size=20)  # three steps an epoch
    in_order = completed(settings, steps=range(8))
    for step in (7, 4, 5, 0):
        for one, other in zip(completed(settings, steps=[step])[0], in_order[step], strict=True):
            assert torch.equal(one, other)


def test_completed_rows_are_unit_rows_near_their_items():
    left, right = completed(Settings(batch_size=70, noise_variance=1e-6))[0]
    for both, side in ((left, sides(70)[0]), (right, sides(70)[1])):
        np.testing.assert_allclose(both.norm(dim=1), 1.0, atol=1e-6)
        for half, rows in zip(both.chunk(2), (side.overlap, side.consistent), strict=True):
            nearest = (half @ rows.T).argmax(dim=1)
            assert sorted(nearest.tolist()) == list(range(70))
            assert (half - rows[nearest]).norm(dim=1).max() < 0.1


def test_completion_in_place_equals_the_equation(rng):
    rows, drawn = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    got = torch.from_numpy(rows.copy())
    complete_(got, torch.from_numpy(drawn), 0.3)
    np.testing.assert_allclose(got.numpy(), normalize(rows + 0.3 * drawn), atol=1e-12)


def test_buffers_are_made_once(monkeypatch):
    settings = Settings(batch_size=20)
    with Batches(sides(70), settings, 7, CPU, Peers()) as made:
        places = [part.data_ptr() for part in made.completed(0)]
        assert [part.data_ptr() for part in made.completed(4)] == places
