"""The tiled InfoNCE: equal to the plain one in value and gradient, and never B x B."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cmcr.connection.losses import info_nce
from cmcr.engine import tiled_info_nce
from cmcr.engine.streamed_softmax import tile_side
from engine.rows import random_rows


def drawn(batch: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return random_rows(batch, width, 2 * seed), random_rows(batch, width, 2 * seed + 1)


def plain(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    logits = left @ right.T / temperature
    target = torch.arange(len(left))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def with_gradients(loss, left: Tensor, right: Tensor, temperature: float, **how) -> tuple[float, Tensor, Tensor]:
    left, right = left.clone().requires_grad_(), right.clone().requires_grad_()
    value = loss(left, right, temperature, **how)
    value.backward()
    return value.item(), left.grad, right.grad


def off(found: Tensor, expected: Tensor) -> float:
    """The relative error; the absolute one where nothing is expected."""
    expected = expected.double()
    return ((found.double() - expected).norm() / (expected.norm() or 1.0)).item()


def cut_into(monkeypatch, side: int) -> None:
    monkeypatch.setattr(tiled_info_nce, "tile_side", lambda device: side)


@pytest.fixture(params=[1, 3, 4, 64])
def tiles(request, monkeypatch) -> None:
    cut_into(monkeypatch, request.param)


# ---------------------------------------------------------------------------------------------- equal to the plain one


@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("width", [1, 7, 16])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 8, 9, 13])
def test_any_shape_and_tile_equals_the_plain_one(tiles, batch, width, temperature):
    rows = drawn(batch, width)
    loss, *gradients = with_gradients(plain, *rows, temperature)
    for dtype, value_error, gradient_error in ((torch.float64, 1e-11, 1e-10), (torch.float32, 1e-5, 1e-5)):
        found, *given = with_gradients(info_nce, *(x.to(dtype) for x in rows), temperature)
        assert found == pytest.approx(loss, rel=value_error, abs=value_error)
        for ours, expected in zip(given, gradients, strict=True):
            torch.testing.assert_close(ours.double(), expected, rtol=0, atol=gradient_error / temperature)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_batch_about_as_large_as_a_real_tile(extra):
    left, right = drawn(tile_side(torch.device("cpu")) + extra, 8)
    loss, of_left, of_right = with_gradients(plain, left, right, 0.05)
    found, to_left, to_right = with_gradients(info_nce, left.float(), right.float(), 0.05)
    assert found == pytest.approx(loss, rel=1e-6)
    assert max(off(to_left, of_left), off(to_right, of_right)) < 1e-5


# -------------------------------------------------------------------------------------------------------- hostile rows


def low_cosines() -> tuple[Tensor, Tensor]:
    """Every row's best negative is at cosine 0.1, all others at -0.9: far below where a fixed shift by 1 would look."""
    cosines = torch.full((9, 9), -0.9, dtype=torch.float64)
    rows = torch.arange(9)
    cosines[rows, (rows + 1) % 9] = 0.1
    return torch.eye(9, dtype=torch.float64), cosines.T.contiguous()


def long_rows() -> tuple[Tensor, Tensor]:
    left, right = drawn(11, 6)
    return 5 * left, 5 * right


def uneven_rows() -> tuple[Tensor, Tensor]:
    """The sums of the rows lie hundreds of powers of 2 apart: no common shift serves all of them."""
    left, right = drawn(11, 6)
    return left * torch.linspace(0, 9, 11, dtype=torch.float64)[:, None], right * 3


def rows_of_zeros() -> tuple[Tensor, Tensor]:
    left, right = drawn(10, 5)
    left[3] = right[7] = 0
    return left, right


def duplicates() -> tuple[Tensor, Tensor]:
    left, right = drawn(12, 5)
    left[4], right[4], left[9], right[10] = left[1], right[1], right[9], right[9]
    return left, right


def opposites() -> tuple[Tensor, Tensor]:
    left, _ = drawn(8, 5)
    return left, -left


@pytest.mark.parametrize("temperature", [0.001, 0.01, 1.0, 1000.0])
@pytest.mark.parametrize("rows", [low_cosines, long_rows, uneven_rows, rows_of_zeros, duplicates, opposites])
def test_hostile_rows_are_finite_and_equal_to_float64(tiles, rows, temperature):
    left, right = rows()
    loss, of_left, of_right = with_gradients(plain, left, right, temperature)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-3)):
        found, to_left, to_right = with_gradients(info_nce, left.to(dtype), right.to(dtype), temperature)
        assert found == pytest.approx(loss, rel=tolerance, abs=1e-12)
        assert off(to_left, of_left) < tolerance
        assert off(to_right, of_right) < tolerance


@pytest.mark.parametrize("logit", [-3000.0, -200.0, -100.0, 0.0, 100.0, 125.0, 140.0, 3000.0])
def test_equal_logits_of_any_height_share_their_probability(tiles, logit):
    # The loss is log B and nothing is pulled, wherever float32 would over- or underflow.
    left, right = torch.full((6, 1), logit * math.log(2)), torch.ones(6, 1)
    found, to_left, to_right = with_gradients(info_nce, left, right, 1.0)
    assert found == pytest.approx(math.log(6), rel=2e-4)
    assert torch.isfinite(to_right).all()
    assert to_left.abs().max() < 1e-3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_does_not_pass_for_a_loss(bad):
    left, right = drawn(5, 3)
    left[2, 1] = bad
    assert math.isnan(info_nce(left, right, 0.1).item())


# ------------------------------------------------------------------------------------------- low losses, and bfloat16


def far_apart(batch: int, width: int = 64) -> tuple[Tensor, Tensor]:
    """Rows far from each other, with partners that are near enough: a loss of about a thousandth."""
    left, noise = drawn(batch, width)
    return left, F.normalize(left + 1.35 * noise, dim=1)


def in_groups(batch: int, width: int = 64) -> tuple[Tensor, Tensor]:
    """Close partners, among neighbours that are nearly as close: again a loss of about a thousandth."""
    centres, _ = drawn(batch // 4, width)
    spread, noise = drawn(batch, width, seed=1)
    left = F.normalize(centres.repeat(4, 1) + 0.3 * spread, dim=1)
    return left, F.normalize(left + 0.05 * noise, dim=1)


# Neighbours in the same direction cancel out only after bfloat16 has rounded them: coarser.
@pytest.mark.parametrize("side", [32, 50, 2048])
@pytest.mark.parametrize(("rows", "coarse"), [(far_apart, 3e-3), (in_groups, 1e-2)])
def test_a_low_loss_keeps_its_gradient_in_either_precision(monkeypatch, side, rows, coarse):
    cut_into(monkeypatch, side)
    left, right = (x.float() for x in rows(160))
    loss, of_left, of_right = with_gradients(plain, left.double(), right.double(), 0.01)
    assert 1e-4 < loss < 1e-2
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", coarse)):
        found, to_left, to_right = with_gradients(info_nce, left, right, 0.01, precision=precision)
        assert found == pytest.approx(loss, rel=1e-4)
        assert off(to_left, of_left) < tolerance
        assert off(to_right, of_right) < tolerance


def test_bfloat16_changes_the_gradient_of_float32_alone_and_only_a_little():
    left, right = (x.float() for x in drawn(1024, 128))
    fine, coarse = (with_gradients(info_nce, *drawn(9, 4), 0.1, precision=p) for p in ("float32", "bfloat16"))
    assert torch.equal(fine[1], coarse[1])  # of float64
    loss, of_left, of_right = with_gradients(info_nce, left, right, 0.01)
    found, to_left, to_right = with_gradients(info_nce, left, right, 0.01, precision="bfloat16")
    assert found == loss
    assert to_left.dtype == torch.float32
    assert 0 < off(to_left, of_left) < 5e-3
    assert 0 < off(to_right, of_right) < 5e-3


# ------------------------------------------------------------------------------------------------ types and gradients


@pytest.mark.parametrize(
    ("of_left", "of_right", "wide"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_the_wider_type_and_at_least_float32_computes_and_each_side_gets_a_gradient_of_its_own(of_left, of_right, wide):
    left, right = (x.to(dtype) for x, dtype in zip(drawn(9, 4), (of_left, of_right), strict=True))
    loss, *expected = with_gradients(info_nce, left.to(wide), right.to(wide), 0.1)
    found, *given = with_gradients(info_nce, left, right, 0.1)
    assert found == loss
    for ours, theirs, dtype in zip(given, expected, (of_left, of_right), strict=True):
        assert torch.equal(ours, theirs.to(dtype))


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_gradient_goes_where_it_is_asked_for_with_the_slope_above_it(wanted):
    rows = drawn(7, 3)
    assert not info_nce(*rows, 0.1).requires_grad
    expected = with_gradients(info_nce, *rows, 0.1)[1 + wanted]
    rows[wanted].requires_grad_()
    (-3 * info_nce(*rows, 0.1)).backward()
    torch.testing.assert_close(rows[wanted].grad, -3 * expected)
    assert rows[1 - wanted].grad is None
    with torch.no_grad():
        assert info_nce(*rows, 0.1).grad_fn is None


def test_rows_with_strides_of_their_own(tiles):
    left, right = drawn(9, 4)
    expected = with_gradients(info_nce, left, right, 0.1)
    strided = left.T.contiguous().T, torch.stack([right, right], dim=2)[:, :, 0]
    for ours, theirs in zip(with_gradients(info_nce, *strided, 0.1), expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs))


@pytest.mark.parametrize("side", [16, 2048])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_second_backward_gives_the_same_gradient(monkeypatch, precision, side):
    cut_into(monkeypatch, side)  # a batch that is one tile keeps its logits for the first backward pass
    left, right = (x.float().requires_grad_() for x in drawn(70, 16))
    loss = info_nce(left, right, 0.05, precision=precision)
    first = torch.autograd.grad(loss, (left, right), retain_graph=True)
    second = torch.autograd.grad(loss, (left, right))
    for again, once in zip(second, first, strict=True):
        assert off(again, once) < 1e-6


# ------------------------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """Remembers the largest number of elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        for each in given if isinstance(given, tuple | list) else [given]:
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return given


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_there_is_never_a_table_of_the_batch(monkeypatch, precision):
    cut_into(monkeypatch, 16)
    left, right = (x.float() for x in drawn(150, 8))
    with Largest() as largest:
        with_gradients(info_nce, left, right, 0.1, precision=precision)
    assert largest.elements == 150 * 8
    with Largest() as largest:
        with_gradients(plain, left, right, 0.1)
    assert largest.elements == 150 * 150  # it does see tables
