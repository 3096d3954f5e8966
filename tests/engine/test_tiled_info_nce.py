"""The tiled InfoNCE: equal to the plain one in value and gradient, never B x B, and one loss over several processes."""

from __future__ import annotations

import math
import multiprocessing
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from cmcr.connection.info_nce import info_nce
from cmcr.connection.peers import peers_here
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import reference.losses as twin
from cmcr.connection import info_nce as tiled
from cmcr.connection.losses import connection_loss
from cmcr.errors import ConfigError, DtypeError, TooFewRowsError


def drawn(batch: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    left, right = torch.randn(2, batch, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(left, dim=1), F.normalize(right, dim=1)


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
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.fixture(params=[1, 3, 4, 64])
def edge(request, monkeypatch) -> int:
    monkeypatch.setattr(tiled, "_TILE", request.param)
    return request.param


# ---------------------------------------------------------------------------------------------- equal to the plain one


@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("width", [1, 7, 16])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 8, 9, 13])
def test_any_shape_and_tile_equals_the_plain_way_and_the_twin(edge, batch, width, temperature):
    left, right = drawn(batch, width)
    loss, of_left, of_right = with_gradients(plain, left, right, temperature)
    assert loss == pytest.approx(twin.info_nce(left, right, temperature), rel=1e-12, abs=1e-13)
    found, to_left, to_right = with_gradients(info_nce, left, right, temperature)
    assert found == pytest.approx(loss, rel=1e-11, abs=1e-13)
    torch.testing.assert_close(to_left, of_left, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(to_right, of_right, rtol=1e-10, atol=1e-12)
    found, to_left, to_right = with_gradients(info_nce, left.float(), right.float(), temperature)
    assert found == pytest.approx(loss, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(to_left.double(), of_left, rtol=0, atol=1e-5 / temperature)
    torch.testing.assert_close(to_right.double(), of_right, rtol=0, atol=1e-5 / temperature)


def test_gradcheck_over_several_tiles(monkeypatch):
    monkeypatch.setattr(tiled, "_TILE", 2)
    left, right = (x.requires_grad_() for x in drawn(5, 3))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.2), (left, right))


def low_cosines() -> tuple[Tensor, Tensor]:
    """Every row's best negative is at cosine 0.1, all others at -0.9: far below where a fixed shift by 1 would look."""
    angles = torch.full((9, 9), -0.9, dtype=torch.float64)
    rows = torch.arange(9)
    angles[rows, (rows + 1) % 9] = 0.1
    return torch.eye(9, dtype=torch.float64), angles.T.contiguous()


def long_rows() -> tuple[Tensor, Tensor]:
    left, right = drawn(11, 6)
    return 5 * left, 5 * right


def uneven_rows() -> tuple[Tensor, Tensor]:
    """The sums of the rows lie hundreds of powers of 2 apart: no common shift serves all of them."""
    left, right = drawn(11, 6)
    return left * torch.linspace(0, 9, 11, dtype=torch.float64)[:, None], right * 3


def one_row_of_zeros() -> tuple[Tensor, Tensor]:
    left, right = drawn(10, 5)
    left[3] = 0
    right[7] = 0
    return left, right


def duplicates() -> tuple[Tensor, Tensor]:
    left, right = drawn(12, 5)
    left[4], right[4], left[9], right[10] = left[1], right[1], right[9], right[9]
    return left, right


def opposites() -> tuple[Tensor, Tensor]:
    left, _ = drawn(8, 5)
    return left, -left


HARD = [low_cosines, long_rows, uneven_rows, one_row_of_zeros, duplicates, opposites]


@pytest.mark.parametrize("temperature", [0.001, 0.01, 1.0])
@pytest.mark.parametrize("rows", HARD)
def test_hard_rows_are_finite_and_equal_to_float64(edge, rows, temperature):
    left, right = rows()
    loss, of_left, of_right = with_gradients(plain, left, right, temperature)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-3)):
        # The inputs must be the same numbers, since a temperature of 0.001 blows a rounding of them up.
        found, to_left, to_right = with_gradients(info_nce, left.to(dtype), right.to(dtype), temperature)
        assert all(torch.isfinite(x).all() for x in (torch.tensor(found), to_left, to_right))
        assert found == pytest.approx(loss, rel=tolerance, abs=1e-12)
        assert off(to_left, of_left) < tolerance
        assert off(to_right, of_right) < tolerance


@pytest.mark.parametrize("logit", [-3000.0, -200.0, -100.0, 0.0, 100.0, 125.0, 140.0, 3000.0])
def test_logits_of_any_height_share_their_probability(edge, logit):
    # All logits alike: the loss is log B, and every pair is pulled by 1 - 1/B, wherever float32 would over- or underflow.
    left, right = torch.full((6, 1), logit * math.log(2)), torch.ones(6, 1)
    found, to_left, to_right = with_gradients(info_nce, left, right, 1.0)
    assert found == pytest.approx(math.log(6), rel=2e-4)
    assert torch.isfinite(to_right).all()
    torch.testing.assert_close(to_left, torch.zeros(6, 1), rtol=0, atol=1e-3)


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


# Neighbours in other tiles cancel out only after each tile's product has been rounded: coarser, in bfloat16 alone.
@pytest.mark.parametrize("tile", [32, 50, 2048])
@pytest.mark.parametrize(("rows", "across_tiles"), [(far_apart, 5e-3), (in_groups, 1e-2)])
def test_a_low_loss_keeps_its_gradient_in_either_precision(monkeypatch, tile, rows, across_tiles):
    monkeypatch.setattr(tiled, "_TILE", tile)
    left, right = (x.float() for x in rows(160))
    loss, of_left, of_right = with_gradients(plain, left.double(), right.double(), 0.01)
    assert 1e-4 < loss < 1e-2
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 5e-3 if tile > 160 else across_tiles)):
        found, to_left, to_right = with_gradients(info_nce, left, right, 0.01, precision=precision)
        assert found == pytest.approx(loss, rel=1e-4)
        assert off(to_left, of_left) < tolerance
        assert off(to_right, of_right) < tolerance


def test_bfloat16_changes_the_gradient_alone_and_only_a_little():
    left, right = (x.float() for x in drawn(200, 64))
    loss, of_left, of_right = with_gradients(info_nce, left, right, 0.01)
    found, to_left, to_right = with_gradients(info_nce, left, right, 0.01, precision="bfloat16")
    assert found == loss
    assert to_left.dtype == torch.float32
    for given, exact in ((to_left, of_left), (to_right, of_right)):
        assert 0 < off(given, exact.double()) < 5e-3


def test_float64_ignores_the_coarse_precision():
    left, right = drawn(9, 4)
    fine = with_gradients(info_nce, left, right, 0.1)
    for a, b in zip(fine, with_gradients(info_nce, left, right, 0.1, precision="bfloat16"), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------ types and gradients


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_compute_in_float32_and_get_their_own_gradient(dtype):
    left, right = (x.to(dtype) for x in drawn(9, 4))
    loss, of_left, of_right = with_gradients(info_nce, left.float(), right.float(), 0.1)
    found = info_nce(left, right, 0.1)
    assert found.dtype == torch.float32
    value, to_left, to_right = with_gradients(info_nce, left, right, 0.1)
    assert value == loss
    assert to_left.dtype == to_right.dtype == dtype
    assert torch.equal(to_left, of_left.to(dtype))
    assert torch.equal(to_right, of_right.to(dtype))


def test_autocast_changes_nothing():
    left, right = (x.float() for x in drawn(9, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = with_gradients(info_nce, left, right, 0.1)
    outside = with_gradients(info_nce, left, right, 0.1)
    assert inside[0] == outside[0]
    assert torch.equal(inside[1], outside[1])


@pytest.mark.parametrize("wanted", ["left", "right"])
def test_one_side_alone_gets_its_gradient(wanted):
    sides = dict(zip(("left", "right"), drawn(7, 3), strict=True))
    _, of_left, of_right = with_gradients(info_nce, *sides.values(), 0.1)
    sides[wanted].requires_grad_()
    info_nce(sides["left"], sides["right"], 0.1).backward()
    assert torch.equal(sides[wanted].grad, {"left": of_left, "right": of_right}[wanted])
    assert sides["right" if wanted == "left" else "left"].grad is None


def test_without_gradients_nothing_is_remembered():
    left, right = (x.requires_grad_() for x in drawn(7, 3))
    with torch.no_grad():
        assert info_nce(left, right, 0.1).grad_fn is None
    assert not info_nce(left.detach(), right.detach(), 0.1).requires_grad


def test_the_gradient_follows_the_slope_above_it():
    left, right = drawn(7, 3)
    _, once, _ = with_gradients(info_nce, left, right, 0.1)
    _, thrice, _ = with_gradients(lambda *rows: -3 * info_nce(*rows), left, right, 0.1)
    torch.testing.assert_close(thrice, -3 * once)


def test_rows_with_strides_of_their_own(edge):
    left, right = drawn(9, 4)
    expected = with_gradients(info_nce, left, right, 0.1)
    strided = (left.T.contiguous().T.detach(), torch.stack([right, right], dim=2)[:, :, 0])
    for a, b in zip(with_gradients(info_nce, *strided, 0.1), expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_does_not_pass_for_a_loss(bad):
    left, right = drawn(5, 3)
    left[2, 1] = bad
    assert math.isnan(info_nce(left, right, 0.1).item())


# ------------------------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """Remembers the largest number of elements that any operation gave back."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        for each in given if isinstance(given, tuple | list) else [given]:
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return given


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_there_is_never_a_table_of_the_batch(monkeypatch, precision):
    monkeypatch.setattr(tiled, "_TILE", 16)
    batch, width = 150, 8
    left, right = (x.float() for x in drawn(batch, width))
    with Largest() as largest:
        with_gradients(info_nce, left, right, 0.1, precision=precision)
    assert largest.elements == batch * width
    with Largest() as largest:
        with_gradients(plain, left, right, 0.1)
    assert largest.elements == batch * batch  # it does see tables


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("precision", ["float16", "", None, torch.bfloat16])
def test_an_unknown_precision_is_refused(precision):
    with pytest.raises(ConfigError) as caught:
        info_nce(*drawn(3, 2), 0.1, precision=precision)
    assert str(caught.value) == f"precision: expected one of float32, bfloat16, got {precision!r}."


# -------------------------------------------------------------------------------------------------- several processes

COUNTS = {2: [(7, 4), (1, 1), (12, 0)], 3: [(5, 1, 9), (4, 4, 4), (6, 0, 3)]}
TOGETHER = [("float64", "float32", 1e-6), ("float32", "float32", 1e-5), ("float32", "bfloat16", 5e-3)]


def rows_together(count: int, dtype: str) -> list[Tensor]:
    return [x.to(getattr(torch, dtype)) for seed in (0, 1) for x in drawn(count, 6, seed)]


def losses(rows: list[Tensor], precision: str, distance: str, peers=None) -> list[Tensor]:
    left, right = (rows[0], rows[2]), (rows[1], rows[3])
    how = {"intra_weight": 0.7, "intra_distance": distance, "precision": precision, "peers": peers}
    terms = connection_loss(left, right, ttc_temperature=0.05, avc_temperature=0.2, **how)
    return [*terms, info_nce(rows[0], rows[3], 0.02, precision=precision, peers=peers)]


def values_and_gradients(rows: list[Tensor], precision: str, distance: str, peers=None) -> dict[str, np.ndarray]:
    rows = [x.detach().clone().requires_grad_() for x in rows]
    found = losses(rows, precision, distance, peers)
    (found[0] + 2 * found[-1]).backward()
    values = np.array([x.item() for x in found])
    return {"values": values, **{f"gradient{i}": x.grad.numpy() for i, x in enumerate(rows)}}


def cases(size: int):
    for counts in COUNTS[size]:
        for dtype, precision, tolerance in TOGETHER:
            for distance in ("euclidean", "squared"):
                yield counts, dtype, precision, distance, tolerance


SIZES = (3, 2)


def one_of_several(rank: int, folder: str) -> None:
    """Compute this process's part of every case of each size and leave it in the folder."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    tiled._TILE = 4
    for size in SIZES:
        if rank < size:
            meet_and_compute(rank, size, f"{folder}/{size}")


def meet_and_compute(rank: int, size: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    for number, (counts, dtype, precision, distance, _) in enumerate(cases(size)):
        own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        rows = [x[own] for x in rows_together(sum(counts), dtype)]
        found = values_and_gradients(rows, precision, distance, peers_here())
        np.savez(f"{folder}/{number}-{rank}.npz", **found)
    distributed.destroy_process_group()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_logits_give_the_gradient_of_logits_computed_again(monkeypatch, precision):
    left, right = (rows.float() for rows in drawn(70, 16))
    kept = with_gradients(info_nce, left, right, 0.05, precision=precision)
    monkeypatch.setattr(tiled, "is_one_tile", lambda *_: False)
    again = with_gradients(info_nce, left, right, 0.05, precision=precision)
    assert kept[0] == again[0]
    for found, expected in zip(kept[1:], again[1:], strict=True):
        assert off(found, expected.double()) < 1e-6


def test_a_second_backward_finds_no_kept_logits_and_gives_the_same_gradient():
    left, right = (rows.float().requires_grad_() for rows in drawn(70, 16))
    loss = info_nce(left, right, 0.05)
    (first,) = torch.autograd.grad(loss, left, retain_graph=True)
    (second,) = torch.autograd.grad(loss, left)
    assert off(second, first.double()) < 1e-6


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (np.ones((3, 2)), DtypeError, "torch tensors of floating point, got ndarray"),
        (torch.ones(3, 2, dtype=torch.int64), DtypeError, "torch tensors of floating point, got torch.int64"),
        (torch.ones(0, 2), TooFewRowsError, "at least 1 pair, got 0"),
    ],
)
def test_batches_that_are_no_rows_are_refused(batch, error, message):
    with pytest.raises(error, match=message):
        info_nce(batch, batch, 0.1)


@pytest.fixture(scope="module")
def computed_apart(tmp_path_factory) -> Path:
    """What three processes, and then two of them, have computed together."""
    folder = tmp_path_factory.mktemp("apart")
    for size in SIZES:
        (folder / str(size)).mkdir()
    spawning = multiprocessing.get_context("spawn")
    processes = [spawning.Process(target=one_of_several, args=(rank, str(folder))) for rank in range(max(SIZES))]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * max(SIZES)
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_several_processes_compute_the_loss_of_one(computed_apart: Path, size: int):
    for number, (counts, dtype, precision, distance, tolerance) in enumerate(cases(size)):
        expected = values_and_gradients(rows_together(sum(counts), dtype), precision, distance)
        parts = [np.load(computed_apart / str(size) / f"{number}-{rank}.npz") for rank in range(size)]
        for part in parts:
            np.testing.assert_allclose(part["values"], expected["values"], rtol=tolerance, atol=1e-7)
        for name in (f"gradient{i}" for i in range(4)):
            together = np.concatenate([part[name] for part in parts])
            assert together.shape == expected[name].shape
            assert np.linalg.norm(together - expected[name]) <= tolerance * np.linalg.norm(expected[name])
