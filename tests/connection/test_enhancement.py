"""Semantic consistency and semantic completion, against their equations, and what they accept and refuse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference.enhancement as twin
from cmcr.connection.enhancement import semantic_completion, semantic_consistency
from cmcr.engine.streamed_softmax import queries_at_once, tile_side
from cmcr.errors import ConfigError, DimensionError, DtypeError, NonFiniteError, TooFewRowsError
from engine.rows import Disk, random_rows
from reference.enhancement import normalize

CPU = torch.device("cpu")
SIDE = tile_side(CPU)


def units(seed, rows, width):
    return random_rows(rows, width, seed).numpy()


# ---------------------------------------------------------------------------------------------- semantic consistency


@pytest.mark.parametrize("memory_rows", [1, 9, SIDE, SIDE + 1])
@pytest.mark.parametrize("temperature", [0.01, 0.3, 1e9])
def test_consistency_equals_its_twin(memory_rows, temperature):
    q, m = units(0, 7, 5), units(1, memory_rows, 5)
    expected = twin.semantic_consistency(q, m, temperature)
    how = () if temperature == 0.01 else (temperature,)  # the paper's is the default
    np.testing.assert_allclose(semantic_consistency(q, m, *how), expected, rtol=1e-11, atol=1e-12)
    single = semantic_consistency(q.astype(np.float32), m.astype(np.float32), temperature)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-4)


def test_more_queries_than_are_summed_at_once_and_the_progress_over_them():
    shares, count = [], queries_at_once(1100, CPU)
    q, m = (random_rows(rows, 1100, rows).float().numpy() for rows in (count + 3, SIDE + 8))
    found = semantic_consistency(q, m, 0.05, progress=shares.append)
    for part in (slice(0, 9), slice(count - 3, None)):
        np.testing.assert_allclose(found[part], twin.semantic_consistency(q[part], m, 0.05), atol=3e-5)
    first, block = count / (count + 3), SIDE / (SIDE + 8)
    np.testing.assert_allclose(shares, [first * block, first, first + (1 - first) * block, 1.0])


def test_normalize_makes_unit_rows_of_the_mean():
    q, m = units(0, 5, 4), units(1, 9, 4)
    mean = twin.semantic_consistency(q, m, 0.5)
    assert np.linalg.norm(mean, axis=1).max() < 0.9  # the mean is shorter than its parts, so the choice matters
    np.testing.assert_allclose(semantic_consistency(q, m, 0.5), mean, rtol=1e-11)
    np.testing.assert_allclose(semantic_consistency(q, m, 0.5, normalize=True), normalize(mean), rtol=1e-11)


TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("query_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_single_and_double_stays(query_dtype, memory_dtype):
    q, m = random_rows(4, 6, 0).to(query_dtype), random_rows(9, 6, 1).to(memory_dtype)
    result = semantic_consistency(q, m, 0.1)
    assert result.dtype == (torch.float64 if torch.float64 in (query_dtype, memory_dtype) else torch.float32)
    expected = twin.semantic_consistency(q.double().numpy(), m.double().numpy(), 0.1)
    np.testing.assert_allclose(result.numpy(), expected, atol=TOLERANCE[result.dtype])
    assert semantic_consistency(q, m, 0.1, precision="bfloat16").dtype == result.dtype


@pytest.mark.parametrize(
    "layout",
    [
        lambda a: a[::-1].copy()[::-1],
        lambda a: a.astype(a.dtype.newbyteorder()),
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: torch.from_numpy(a).T.contiguous().T,
    ],
    ids=["reversed", "foreign byte order", "Fortran", "strided", "transposed tensor"],
)
def test_layouts_of_queries_and_memory(layout):
    q, m = units(0, 4, 3), units(1, 9, 3)
    for queries, memory in ((layout(q), layout(m)), (torch.from_numpy(q), layout(m)), (layout(q), torch.from_numpy(m))):
        result = semantic_consistency(queries, memory, 0.1)
        assert type(result) is type(queries)
        np.testing.assert_allclose(np.asarray(result), twin.semantic_consistency(q, m, 0.1), rtol=1e-11)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_memory_on_disk_gives_what_an_array_gives_bit_for_bit(tmp_path, precision):
    q, m = units(0, 4, 3).astype(np.float32), units(1, SIDE + 5, 3).astype(np.float16)
    np.save(tmp_path / "memory.npy", m)
    expected = semantic_consistency(q, m, 0.1, precision=precision)
    disk = Disk(m)
    for memory in (np.load(tmp_path / "memory.npy", mmap_mode="r"), disk):
        np.testing.assert_array_equal(semantic_consistency(q, memory, 0.1, precision=precision), expected)
    assert disk.most_rows_at_once <= SIDE


def test_inputs_are_left_alone_and_no_gradient_is_kept():
    q, m = (random_rows(4, 3, seed).requires_grad_() for seed in (0, 1))
    before = q.detach().clone(), m.detach().clone()
    assert not semantic_consistency(q, m, normalize=True).requires_grad
    assert torch.equal(q, before[0])
    assert torch.equal(m, before[1])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_torch_modes_change_nothing(mode):
    q, m = random_rows(4, 3, 0).float(), random_rows(9, 3, 1).float()
    expected = semantic_consistency(q, m)
    with mode():
        for asked in (q, q.clone()):
            assert torch.equal(semantic_consistency(asked, m), expected)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(semantic_consistency(q, m), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# "any temperature is stable": 1 / 1e-39 overflows float32 and 1 / 5e-324 even float64, the answer does not.
@pytest.mark.parametrize("temperature", [1e-9, 1e-39, 1e-300, 5e-324, np.float32(1e-39)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [3, 64])
def test_a_vanishing_temperature_takes_the_nearest_row(width, dtype, temperature):
    q, m = units(0, 200, width).astype(dtype), units(1, 600, width).astype(dtype)
    found = semantic_consistency(q, m, temperature)
    np.testing.assert_allclose((q * found).sum(axis=1), (q @ m.T).max(axis=1), atol=1e-6)


@pytest.mark.parametrize("temperature", [np.float16(1e-5), np.float32(0.1), np.float64(0.1), np.int64(2)])
def test_a_temperature_of_numpy_is_the_number_it_holds(temperature):
    q, m = float(temperature) * units(0, 5, 3), units(1, 9, 3)  # so that each temperature weighs several rows
    expected = twin.semantic_consistency(q, m, float(temperature))
    np.testing.assert_allclose(semantic_consistency(q, m, temperature), expected, rtol=1e-10)


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e30), (np.float64, 1e200)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("normal", [True, False])
def test_rows_whose_products_overflow_are_refused(dtype, size, sign, normal):
    q, m = np.full((4, 2), sign * size, dtype=dtype), np.full((5, 2), size, dtype=dtype)
    with pytest.raises(NonFiniteError, match="overflow"):
        semantic_consistency(q, m, normalize=normal)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, SIDE + 2])
def test_a_memory_on_disk_that_is_not_finite_is_refused(place, bad, precision):
    rows = units(1, SIDE + 3, 3)
    rows[place, 1] = bad
    with pytest.raises(NonFiniteError, match="cmcr verify"):
        semantic_consistency(units(0, 4, 3), Disk(rows), precision=precision)


@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 6),
    memory_rows=st.integers(1, 12),
    width=st.integers(1, 5),
    temperature=st.sampled_from([0.001, 0.01, 0.1, 1.0]),
)
def test_properties_of_the_softmax_mean(seed, queries, memory_rows, width, temperature):
    q, m = units(seed, queries, width), units(seed + 1, memory_rows, width)
    result = semantic_consistency(q, m, temperature)
    np.testing.assert_array_equal(semantic_consistency(q, m, temperature), result)
    order = np.random.default_rng(seed).permutation(memory_rows)
    for other in (m[order], np.tile(m, (3, 1)), np.concatenate([m, np.tile(m, (300, 1))])):
        np.testing.assert_allclose(semantic_consistency(q, other, temperature), result, atol=1e-9)
    np.testing.assert_allclose(semantic_consistency(q[::-1], m, temperature), result[::-1], atol=1e-9)
    # Only q / temperature counts.
    np.testing.assert_allclose(semantic_consistency(7 * q, m, 7 * temperature), result, atol=1e-9)
    assert (result <= m.max(axis=0) + 1e-9).all()  # a mean lies between its parts,
    assert (result >= m.min(axis=0) - 1e-9).all()
    nearer = (q * result).sum(axis=1) >= (q @ m.T).mean(axis=1) - 1e-9
    assert nearer.all()  # and nearer to the query than the plain mean


@pytest.mark.parametrize("temperature", [0.0, -0.01, math.nan, math.inf, "0.01", True, None])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ConfigError, match="expected a finite number above 0"):
        semantic_consistency(np.ones((1, 2)), np.ones((1, 2)), temperature)


def test_precisions_and_temperatures_that_bfloat16_cannot_serve_are_refused():
    with pytest.raises(ConfigError, match="expected one of float32, bfloat16"):
        semantic_consistency(np.ones((1, 2)), np.ones((1, 2)), precision="float16")
    with pytest.raises(ConfigError, match=r"expected 0.001 or more in bfloat16"):
        semantic_consistency(np.ones((1, 2)), np.ones((1, 2)), 0.0009, precision="bfloat16")


def test_float64_on_an_apple_gpu_is_refused():
    single, double = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.float64)
    for queries, memory in ((single, double), (double, single), (double, Disk(single))):
        with pytest.raises(DtypeError, match="at most float32 on an Apple GPU"):
            semantic_consistency(queries, memory, device=torch.device("mps"))


@pytest.mark.parametrize(
    ("queries", "memory", "error", "message"),
    [
        (np.ones((1, 2)), np.ones((1, 3)), DimensionError, "queries are 2 wide and the memory 3"),
        (np.ones((1, 2)), Disk(np.ones((1, 3))), DimensionError, "queries are 2 wide and the memory 3"),
        (np.ones(2), np.ones((1, 2)), DimensionError, "^queries: "),
        (np.ones((1, 2)), np.ones(2), DimensionError, "^memory: "),
        (np.ones((0, 2)), np.ones((1, 2)), TooFewRowsError, "^queries: "),
        (np.ones((1, 2)), np.ones((0, 2)), TooFewRowsError, "^memory: "),
        (np.ones((1, 2), dtype=int), np.ones((1, 2)), DtypeError, "^queries: "),
        (np.ones((1, 2)), torch.ones(1, 2, dtype=int), DtypeError, "^memory: "),
        (np.array([[1.0, np.nan]]), np.ones((1, 2)), NonFiniteError, "^queries: .* first is row 0"),
        (np.ones((1, 2)), np.array([[1.0, 1.0], [1.0, np.inf]]), NonFiniteError, "^memory: .* first is row 1"),
    ],
)
def test_unusable_inputs_of_the_consistency_are_refused(queries, memory, error, message):
    with pytest.raises(error, match=message):
        semantic_consistency(queries, memory)


# ----------------------------------------------------------------------------------------------- semantic completion


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("width", [1, 2, 7, 512])
@pytest.mark.parametrize("rows", [1, 5])
def test_completion_equals_its_twin_given_the_noise(rows, width, rescale):
    x = random_rows(rows, width, 0)
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        result = semantic_completion(x.to(dtype), 0.01, generator=seeded(5), rescale=rescale)
        assert result.dtype == dtype
        standard = torch.randn(rows, width, generator=seeded(5), dtype=dtype).double().numpy()
        expected = twin.semantic_completion(x, standard * twin.noise_deviation(0.01, width, rescale))
        np.testing.assert_allclose(result.numpy(), expected, atol=tolerance)


@pytest.mark.parametrize("width", [128, 512, 1024])
def test_the_angle_of_the_noise_is_the_papers_at_any_width_unless_it_is_taken_as_it_is(width):
    x = torch.zeros(3000, width)
    x[:, 0] = 1.0
    for rescale, length in ((True, 512 * 0.004), (False, width * 0.004)):  # E|theta|^2, hence the cosine
        cosines = (semantic_completion(x, generator=seeded(0), rescale=rescale) * x).sum(dim=1)
        assert cosines.mean().item() == pytest.approx(1 / math.sqrt(1 + length), abs=0.01)


def test_a_generator_decides_on_the_noise_of_every_row_and_else_the_global_one():
    x, state = torch.tensor([[1.0, 0.0, 0.0]]).repeat(2, 1), torch.get_rng_state()
    one, two, other = (semantic_completion(x, generator=seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert (one - other).abs().amax(dim=1).min() > 1e-3
    assert (one[0] - one[1]).abs().max() > 1e-3
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        assert torch.equal(semantic_completion(x), one)
        assert not torch.equal(semantic_completion(x), one)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_no_variance_only_normalises_and_draws_nothing(dtype):
    x = np.array([[3.0, 4.0], [0.0, 2.0]], dtype=dtype)
    x.flags.writeable = False
    generator = seeded(3)
    state = generator.get_state()
    result = semantic_completion(x, 0.0, generator=generator)
    assert isinstance(result, np.ndarray)
    assert result.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_allclose(result, [[0.6, 0.8], [0.0, 1.0]], atol=1e-7)
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("variance", [-0.1, math.nan, math.inf, "0.004", True, None])
def test_a_variance_below_zero_is_refused(variance):
    with pytest.raises(ConfigError, match="expected a finite number, 0 or more"):
        semantic_completion(np.ones((1, 2)), variance)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.ones(2), DimensionError),
        (np.ones((0, 2)), TooFewRowsError),
        (np.ones((1, 2), dtype=int), DtypeError),
        (np.array([[np.nan, 1.0]]), NonFiniteError),
    ],
)
def test_unusable_inputs_of_the_completion_are_refused(array, error):
    with pytest.raises(error, match=r"^embeddings: "):
        semantic_completion(array)
    with pytest.raises(ConfigError, match=r"torch.Generator"):
        semantic_completion(np.ones((1, 2)), generator=np.random.default_rng())
