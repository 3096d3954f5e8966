import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference.losses as twin
from cmcr.connection.losses import connection_loss, info_nce, intra_attraction
from cmcr.errors import ConfigError, DimensionError
from reference.enhancement import normalize


def units(rng, batch, width, count=2):
    return [torch.from_numpy(normalize(rng.normal(size=(batch, width)))) for _ in range(count)]


# ----------------------------------------------------------------------------------------------------------- InfoNCE


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("batch", [1, 2, 5, 17])
def test_info_nce_equals_its_twin_in_value_and_gradient(rng, batch, width, temperature):
    a, b = units(rng, batch, width)
    expected = twin.info_nce(a, b, temperature)
    da, db = twin.info_nce_gradients(a, b, temperature)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        left, right = (x.to(dtype, copy=True).requires_grad_() for x in (a, b))
        loss = info_nce(left, right, temperature)
        assert loss.shape == ()
        assert loss.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)
        loss.backward()
        scale = tolerance / temperature
        np.testing.assert_allclose(left.grad.numpy(), da, atol=scale)
        np.testing.assert_allclose(right.grad.numpy(), db, atol=scale)


def test_info_nce_passes_gradcheck(rng):
    a, b = (x.requires_grad_() for x in units(rng, 4, 3))
    assert torch.autograd.gradcheck(lambda left, right: info_nce(left, right, 0.2), (a, b))


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_a_batch_of_one_has_nothing_to_contrast(rng, temperature):
    a, b = (x.requires_grad_() for x in units(rng, 1, 5))
    loss = info_nce(a, b, temperature)
    loss.backward()
    assert loss.item() == 0.0
    assert a.grad.abs().max().item() == b.grad.abs().max().item() == 0.0


@pytest.mark.parametrize("batch", [2, 3, 64])
def test_identical_rows_cost_the_logarithm_of_the_batch(batch):
    same = torch.full((batch, 4), 0.5)
    assert info_nce(same, same, 0.01).item() == pytest.approx(math.log(batch), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5])
def test_orthonormal_pairs_in_closed_form(temperature):
    rows = torch.eye(4, dtype=torch.float64)
    expected = math.log1p(3 * math.exp(-1 / temperature))
    assert info_nce(rows, rows, temperature).item() == pytest.approx(expected, rel=1e-6)


def test_a_perfectly_wrong_pairing_in_closed_form():
    rows = torch.eye(2, dtype=torch.float64)
    # Each row's partner is at cosine 0 and its negative at cosine 1: -log(1 / (1 + e^100)), which must not overflow.
    assert info_nce(rows, rows.flip(0), 0.01).item() == pytest.approx(100.0, rel=1e-12)
    assert info_nce(rows.float(), rows.float().flip(0), 0.01).item() == pytest.approx(100.0, rel=1e-6)


def test_gradients_at_low_loss_in_single_precision(rng):
    noise = 0.02 * rng.normal(size=(2, 6, 6))
    a, b = (torch.from_numpy(normalize(np.eye(6) + part)).float().requires_grad_() for part in noise)
    loss = info_nce(a, b, 0.1)
    loss.backward()
    expected = twin.info_nce(a.detach(), b.detach(), 0.1)
    assert 1e-5 < expected < 1e-3
    assert loss.item() == pytest.approx(expected, rel=2e-3)
    da, db = twin.info_nce_gradients(a.detach(), b.detach(), 0.1)
    assert np.linalg.norm(a.grad.numpy() - da) < 3e-3 * np.linalg.norm(da)
    assert np.linalg.norm(b.grad.numpy() - db) < 3e-3 * np.linalg.norm(db)


def test_loss_far_below_precision_is_all_but_zero_and_its_gradient_finite():
    rows = torch.eye(5).requires_grad_()
    loss = info_nce(rows, torch.eye(5), 0.01)
    loss.backward()
    assert 0.0 <= loss.item() < 1e-40
    assert rows.grad.abs().max().item() < 1e-30


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 8), width=st.integers(1, 5))
def test_info_nce_is_symmetric_and_blind_to_order_and_rotation(seed, batch, width):
    rng = np.random.default_rng(seed)
    a, b = units(rng, batch, width)
    loss = info_nce(a, b, 0.1).item()
    order = torch.from_numpy(rng.permutation(batch))
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(width, width)))[0])
    assert loss >= 0.0
    assert info_nce(b, a, 0.1).item() == pytest.approx(loss, abs=1e-10)
    assert info_nce(a[order], b[order], 0.1).item() == pytest.approx(loss, abs=1e-10)
    assert info_nce(a @ rotation, b @ rotation, 0.1).item() == pytest.approx(loss, abs=1e-10)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, "0.1", True, None])
def test_info_nce_refuses_a_temperature_not_above_zero(temperature):
    with pytest.raises(ConfigError) as caught:
        info_nce(torch.eye(2), torch.eye(2), temperature)
    assert str(caught.value) == f"temperature: expected a finite number above 0, got {temperature!r}."


@pytest.mark.parametrize("temperature", [np.float32(0.5), np.float64(0.5), np.int64(2)])
def test_info_nce_takes_a_temperature_of_numpy(rng, temperature):
    a, b = units(rng, 5, 3)
    assert info_nce(a, b, temperature).item() == pytest.approx(twin.info_nce(a, b, float(temperature)), rel=1e-11)


@pytest.mark.parametrize("loss", [lambda a, b: info_nce(a, b, 0.1), intra_attraction], ids=["info_nce", "intra"])
@pytest.mark.parametrize(("left", "right"), [((2, 3), (3, 3)), ((2, 3), (2, 4)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))])
def test_batches_of_other_shapes_are_refused(loss, left, right):
    with pytest.raises(DimensionError) as caught:
        loss(torch.ones(left), torch.ones(right))
    assert str(caught.value) == f"expected two batches of one shape (B, K), got {left} and {right}."


# -------------------------------------------------------------------------------------------------------- attraction


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("batch", [1, 6])
def test_attraction_equals_its_twin(rng, batch, width, distance):
    a, b = units(rng, batch, width)
    # The twin sums both spaces and halves: the same pair twice gives the mean of one space.
    expected = twin.intra(a, b, a, b, distance)
    assert intra_attraction(a, b, distance).item() == pytest.approx(expected, rel=1e-12)
    assert intra_attraction(a.float(), b.float(), distance).item() == pytest.approx(expected, rel=1e-5)


def test_attraction_in_closed_form():
    rows = torch.eye(3, dtype=torch.float64)
    assert intra_attraction(rows, -rows).item() == pytest.approx(2.0)
    assert intra_attraction(rows, -rows, "squared").item() == pytest.approx(4.0)
    assert intra_attraction(rows, rows.roll(1, 0)).item() == pytest.approx(math.sqrt(2))
    assert intra_attraction(rows, rows.roll(1, 0), "squared").item() == pytest.approx(2.0)
    half = torch.stack([rows[0], -rows[1]])
    assert intra_attraction(rows[:2], half).item() == pytest.approx(1.0)  # a mean over the batch, not a sum


def test_euclidean_is_the_default(rng):
    a, b = units(rng, 5, 4)
    assert intra_attraction(a, b).item() == intra_attraction(a, b, "euclidean").item()


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
def test_attraction_passes_gradcheck(rng, distance):
    a, b = (x.requires_grad_() for x in units(rng, 3, 4))
    assert torch.autograd.gradcheck(lambda left, right: intra_attraction(left, right, distance), (a, b))


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
    with pytest.raises(ConfigError, match=r"^distance: expected 'euclidean' or 'squared', got 'cosine'"):
        intra_attraction(torch.eye(2), torch.eye(2), "cosine")


# ------------------------------------------------------------------------------------------------------ the whole loss


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_the_whole_loss_equals_its_twin(rng, batch, distance):
    tl, vl, tr, ar = units(rng, batch, 4, count=4)
    # All different, so that no two of them can be mistaken for each other.
    terms = connection_loss(
        (tl, vl),
        (tr, ar),
        ttc_temperature=0.05,
        avc_temperature=0.2,
        ttc_weight=0.7,
        avc_weight=1.3,
        intra_weight=0.4,
        intra_distance=distance,
    )
    total, ttc, avc, intra = twin.total(
        tl,
        vl,
        tr,
        ar,
        ttc_temperature=0.05,
        avc_temperature=0.2,
        ttc_weight=0.7,
        avc_weight=1.3,
        intra_weight=0.4,
        distance=distance,
    )
    expected = {"total": total, "ttc": ttc, "avc": avc, "inter": 0.7 * ttc + 1.3 * avc, "intra": intra}
    assert {name: term.item() for name, term in terms._asdict().items()} == pytest.approx(
        expected, rel=1e-11, abs=1e-12
    )


def test_the_defaults_are_the_papers(rng):
    tl, vl, tr, ar = units(rng, 5, 4, count=4)
    total, ttc, avc, intra = twin.total(tl, vl, tr, ar)
    terms = connection_loss((tl, vl), (tr, ar))
    assert terms.total.item() == pytest.approx(total, rel=1e-11)
    assert terms.total.item() == pytest.approx(ttc + avc + 0.1 * intra, rel=1e-11)
    assert terms.inter.item() == pytest.approx(ttc + avc, rel=1e-11)


def test_gradients_flow_through_the_total(rng):
    rows = [x.requires_grad_() for x in units(rng, 3, 3, count=4)]

    def total(tl, vl, tr, ar):
        return connection_loss((tl, vl), (tr, ar), ttc_temperature=0.3, avc_temperature=0.5, intra_weight=0.7).total

    assert torch.autograd.gradcheck(total, rows)


@pytest.mark.parametrize("off", ["ttc", "avc", "intra"])
def test_a_term_of_weight_zero_is_left_out(rng, off):
    rows = [x.requires_grad_() for x in units(rng, 4, 3, count=4)]
    terms = connection_loss(tuple(rows[:2]), tuple(rows[2:]), **{f"{off}_weight": 0.0})
    total, ttc, avc, intra = twin.total(*(x.detach() for x in rows), **{f"{off}_weight": 0.0})
    expected = {"ttc": ttc, "avc": avc, "intra": intra} | {off: 0.0}
    assert {name: getattr(terms, name).item() for name in expected} == pytest.approx(expected, rel=1e-11)
    assert terms.total.item() == pytest.approx(total, rel=1e-11)
    terms.total.backward()
    assert all(torch.isfinite(x.grad).all() for x in rows if x.grad is not None)


def test_a_term_of_weight_zero_is_not_computed(rng):
    bad = torch.full((3, 3), torch.nan)
    tl, tr = units(rng, 3, 3)
    terms = connection_loss((tl, bad), (tr, bad), avc_weight=0.0, intra_weight=0.0)
    assert terms.total.item() == pytest.approx(twin.info_nce(tl, tr, 0.01), rel=1e-11)


def test_each_space_is_attracted_to_itself(rng):
    (rows,) = units(rng, 4, 3, count=1)
    # The left space is closed, the right one wide open: only the right one counts, by half.
    terms = connection_loss((rows, rows), (rows, -rows))
    assert terms.intra.item() == pytest.approx(1.0)
