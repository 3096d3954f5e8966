"""The losses against their equations (the tiles of InfoNCE: tests/engine/test_tiled_info_nce.py)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference.losses as twin
from cmcr.connection.losses import connection_loss, info_nce, intra_attraction
from cmcr.connection.methods import settings_of
from cmcr.errors import ConfigError, DimensionError, DtypeError, TooFewRowsError
from engine.rows import random_rows


def units(batch, width, count=2, seed=0):
    return [random_rows(batch, width, seed + number) for number in range(count)]


def settings(**changes):
    return settings_of("c-mcr", **changes)


# ----------------------------------------------------------------------------------------------------------- InfoNCE


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("batch", [1, 2, 17])
def test_info_nce_equals_its_twin_in_value_and_gradient(batch, width, temperature):
    a, b = units(batch, width)
    expected, slopes = twin.info_nce(a, b, temperature), twin.info_nce_gradients(a, b, temperature)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        rows = [x.to(dtype, copy=True).requires_grad_() for x in (a, b)]
        loss = info_nce(*rows, temperature)
        assert (loss.shape, loss.dtype) == ((), dtype)
        assert loss.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)
        loss.backward()
        for ours, slope in zip(rows, slopes, strict=True):
            np.testing.assert_allclose(ours.grad.numpy(), slope, atol=tolerance / temperature)


def test_losses_in_closed_form():
    for batch in (2, 3, 64):
        same = torch.full((batch, 4), 0.5)
        assert info_nce(same, same, 0.01).item() == pytest.approx(math.log(batch), rel=1e-6)
    rows = torch.eye(4, dtype=torch.float64)
    for temperature in (0.05, 0.1, 0.5):
        expected = math.log1p(3 * math.exp(-1 / temperature))
        assert info_nce(rows, rows, temperature).item() == pytest.approx(expected, rel=1e-6)
    # Each row's partner is at cosine 0 and its negative at cosine 1: -log(1 / (1 + e^100)), which must not overflow.
    rows = torch.eye(2, dtype=torch.float64)
    assert info_nce(rows, rows.flip(0), 0.01).item() == pytest.approx(100.0, rel=1e-12)
    assert info_nce(rows.float(), rows.float().flip(0), 0.01).item() == pytest.approx(100.0, rel=1e-6)
    assert info_nce(rows[:1], rows[1:], 0.01).item() == 0.0  # a batch of one has nothing to contrast


def test_a_loss_far_below_precision_is_all_but_zero_and_its_gradient_finite():
    rows = torch.eye(5).requires_grad_()
    loss = info_nce(rows, torch.eye(5), 0.01)
    loss.backward()
    assert 0.0 <= loss.item() < 1e-40
    assert rows.grad.abs().max().item() < 1e-30


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 8), width=st.integers(1, 5))
def test_info_nce_is_symmetric_and_blind_to_order_and_rotation(seed, batch, width):
    rng = np.random.default_rng(seed)
    a, b = units(batch, width, seed=seed)
    loss = info_nce(a, b, 0.1).item()
    order = torch.from_numpy(rng.permutation(batch))
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(width, width)))[0])
    assert loss >= 0.0
    assert info_nce(b, a, 0.1).item() == pytest.approx(loss, abs=1e-10)
    assert info_nce(a[order], b[order], 0.1).item() == pytest.approx(loss, abs=1e-10)
    assert info_nce(a @ rotation, b @ rotation, 0.1).item() == pytest.approx(loss, abs=1e-10)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, "0.1", True, None])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ConfigError, match="expected a finite number above 0"):
        info_nce(torch.eye(2), torch.eye(2), temperature)
    with pytest.raises(ConfigError, match="expected one of float32, bfloat16"):
        info_nce(torch.eye(2), torch.eye(2), 0.1, precision="float16")


@pytest.mark.parametrize("loss", [lambda a, b: info_nce(a, b, 0.1), intra_attraction], ids=["info_nce", "intra"])
@pytest.mark.parametrize(
    ("left", "right", "error"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), DimensionError),
        (torch.ones(2, 3), torch.ones(2, 4), DimensionError),
        (torch.ones(3), torch.ones(3), DimensionError),
        (torch.ones(1, 2, 3), torch.ones(1, 2, 3), DimensionError),
        (np.ones((3, 2)), torch.ones(3, 2), DtypeError),
        (torch.ones(3, 2), torch.ones(3, 2, dtype=torch.int64), DtypeError),
        (torch.ones(0, 2), torch.ones(0, 2), TooFewRowsError),
    ],
)
def test_what_is_no_batch_of_pairs_is_refused(loss, left, right, error):
    with pytest.raises(error):
        loss(left, right)


# -------------------------------------------------------------------------------------------------------- attraction


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize(("batch", "width"), [(1, 1), (6, 4)])
def test_attraction_equals_its_twin(batch, width, distance):
    a, b = units(batch, width)
    # The twin sums both spaces and halves: the same pair twice gives the mean of one space.
    expected = twin.intra(a, b, a, b, distance)
    assert intra_attraction(a, b, distance).item() == pytest.approx(expected, rel=1e-12)
    assert intra_attraction(a.float(), b.float(), distance).item() == pytest.approx(expected, rel=1e-5)
    rows = (a.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(lambda left, right: intra_attraction(left, right, distance), rows)


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
def test_rows_that_coincide_have_a_finite_gradient(distance):
    # d sqrt(x) at 0 is infinite: a naive square root turns the whole batch into NaN.
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    b = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    intra_attraction(a, b, distance).backward()
    slope = 1 / math.sqrt(8) if distance == "euclidean" else 1.0
    np.testing.assert_allclose(a.grad.numpy(), [[0.0, 0.0], [-slope, slope]], atol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), [[0.0, 0.0], [slope, -slope]], atol=1e-6)


def test_an_unknown_distance_is_refused():
    with pytest.raises(ConfigError, match="got 'cosine'"):
        intra_attraction(torch.eye(2), torch.eye(2), "cosine")


# ------------------------------------------------------------------------------------------------------ the whole loss

# All different, so that no two of them can be mistaken for each other.
DIFFERENT = {"ttc_temperature": 0.05, "avc_temperature": 0.2, "ttc_weight": 0.7, "avc_weight": 1.3, "intra_weight": 0.4}


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize("changes", [{}, DIFFERENT, {"ttc_weight": 0.0}, {"avc_weight": 0.0}, {"intra_weight": 0.0}])
def test_the_whole_loss_equals_its_twin(changes, batch, distance):
    tl, vl, tr, ar = (x.requires_grad_() for x in units(batch, 4, count=4))
    terms = connection_loss((tl, vl), (tr, ar), settings(intra_distance=distance, **changes))
    total, ttc, avc, intra = twin.total(*(x.detach() for x in (tl, vl, tr, ar)), distance=distance, **changes)
    weights = {name: changes.get(f"{name}_weight", 1.0) for name in ("ttc", "avc")}
    expected = {"total": total, "ttc": ttc, "avc": avc, "intra": intra}
    expected["inter"] = weights["ttc"] * ttc + weights["avc"] * avc
    expected.update({name[:-7]: 0.0 for name, weight in changes.items() if weight == 0.0})
    assert {name: x.item() for name, x in terms._asdict().items()} == pytest.approx(expected, rel=1e-11, abs=1e-12)
    if batch == 2:
        sharp = settings(intra_distance=distance, **{"ttc_temperature": 0.3, "avc_temperature": 0.5, **changes})
        rows = (tl, vl, tr, ar)
        assert torch.autograd.gradcheck(lambda a, b, c, d: connection_loss((a, b), (c, d), sharp).total, rows)


def test_a_term_of_weight_zero_is_not_computed():
    bad = torch.full((3, 3), torch.nan)
    tl, tr = units(3, 3)
    terms = connection_loss((tl, bad), (tr, bad), settings(avc_weight=0.0, intra_weight=0.0))
    assert terms.total.item() == pytest.approx(twin.info_nce(tl, tr, 0.01), rel=1e-11)


def test_the_precision_reaches_both_contrasts():
    rows = [x.float() for x in units(64, 16, count=4)]

    def slopes(precision):
        tl, vl, tr, ar = (x.clone().requires_grad_() for x in rows)
        connection_loss((tl, vl), (tr, ar), settings(precision=precision, intra_weight=0.0)).total.backward()
        return tl.grad, vl.grad

    for fine, coarse in zip(slopes("float32"), slopes("bfloat16"), strict=True):
        assert 0 < (fine - coarse).norm() / fine.norm() < 5e-3
