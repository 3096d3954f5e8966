import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cmcr
import reference.enhancement as twin
from cmcr.connection import consistency
from cmcr.connection.enhancement import complete, noise_deviation, semantic_completion, semantic_consistency
from cmcr.connection.softmax_mean import Tiling, tiling_for
from cmcr.errors import ConfigError, DimensionError, DtypeError, NonFiniteError, TooFewRowsError
from reference.enhancement import normalize


def cut_into(patch, queries, side, attention=False):
    """Let semantic consistency work in pieces of these sizes, where float32 may go through the attention kernel."""

    def tiling(width, products, sums, *_):
        return Tiling(queries, side, products, sums, attention and products == torch.float32)

    patch.setattr(consistency, "tiling_for", tiling)


@pytest.fixture(params=["with the attention kernel", "without"])
def tiny_blocks(monkeypatch, request):
    cut_into(monkeypatch, 6, 3, attention=request.param == "with the attention kernel")


# ---------------------------------------------------------------------------------------------- semantic consistency


@pytest.mark.parametrize("temperature", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize("memory_rows", [1, 4, 9])
@pytest.mark.parametrize("queries", [1, 3, 7])
def test_consistency_equals_its_twin_in_many_blocks(tiny_blocks, rng, queries, memory_rows, width, temperature):
    q, m = normalize(rng.normal(size=(queries, width))), normalize(rng.normal(size=(memory_rows, width)))
    expected = twin.semantic_consistency(q, m, temperature)
    np.testing.assert_allclose(semantic_consistency(q, m, temperature), expected, rtol=1e-11, atol=1e-12)
    single = semantic_consistency(q.astype(np.float32), m.astype(np.float32), temperature)
    assert single.dtype == np.float32
    rounded = twin.semantic_consistency(q.astype(np.float32), m.astype(np.float32), temperature)
    np.testing.assert_allclose(single, rounded, atol=3e-5)


@pytest.mark.parametrize(("queries", "side"), [(1, 1), (4, 2), (5, 5), (6, 2), (13, 13), (99, 3)])
def test_blocks_do_not_change_the_answer(monkeypatch, rng, queries, side):
    q, m = normalize(rng.normal(size=(7, 5))), normalize(rng.normal(size=(13, 5)))
    whole = semantic_consistency(q, m, 0.05)
    cut_into(monkeypatch, queries, side)
    np.testing.assert_allclose(semantic_consistency(q, m, 0.05), whole, rtol=1e-12, atol=1e-14)


def test_consistency_over_the_real_block_sizes(rng):
    side = tiling_for(4, torch.float32, torch.float32, torch.device("cpu"), 10_000).side
    q = normalize(rng.normal(size=(side + 1, 4))).astype(np.float32)
    m = normalize(rng.normal(size=(2 * side + 1, 4))).astype(np.float32)
    np.testing.assert_allclose(semantic_consistency(q, m), twin.semantic_consistency(q, m, 0.01), atol=3e-5)


def test_the_default_temperature_is_the_papers(rng):
    q, m = normalize(rng.normal(size=(3, 4))), normalize(rng.normal(size=(6, 4)))
    np.testing.assert_allclose(semantic_consistency(q, m), twin.semantic_consistency(q, m, 0.01), rtol=1e-11)
    assert cmcr.semantic_consistency is semantic_consistency


def test_normalize_makes_unit_rows_of_the_mean(tiny_blocks, rng):
    q, m = normalize(rng.normal(size=(5, 4))), normalize(rng.normal(size=(9, 4)))
    mean = twin.semantic_consistency(q, m, 0.5)
    assert np.linalg.norm(mean, axis=1).max() < 0.9  # the mean is shorter than its parts, so the choice matters
    np.testing.assert_allclose(semantic_consistency(q, m, 0.5), mean, rtol=1e-11)
    np.testing.assert_allclose(semantic_consistency(q, m, 0.5, normalize=True), normalize(mean), rtol=1e-11)


def test_numpy_gives_numpy_and_torch_gives_torch(rng):
    q, m = normalize(rng.normal(size=(2, 3))), normalize(rng.normal(size=(4, 3)))
    expected = twin.semantic_consistency(q, m, 0.1)
    for queries in (q, torch.from_numpy(q)):
        for memory in (m, torch.from_numpy(m)):
            result = semantic_consistency(queries, memory, 0.1)
            assert type(result) is type(queries)
            np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-11)


TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("query_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_single_and_double_stays(rng, tiny_blocks, query_dtype, memory_dtype):
    q = torch.from_numpy(normalize(rng.normal(size=(4, 6)))).to(query_dtype)
    m = torch.from_numpy(normalize(rng.normal(size=(9, 6)))).to(memory_dtype)
    result = semantic_consistency(q, m, 0.1)
    assert result.dtype == (torch.float64 if torch.float64 in (query_dtype, memory_dtype) else torch.float32)
    expected = twin.semantic_consistency(q.double().numpy(), m.double().numpy(), 0.1)
    np.testing.assert_allclose(result.numpy(), expected, atol=TOLERANCE[result.dtype])


@pytest.mark.parametrize(
    "layout",
    [
        lambda a: a[::-1].copy()[::-1],
        lambda a: a.astype(a.dtype.newbyteorder()),
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    ],
    ids=["reversed", "foreign byte order", "Fortran", "strided"],
)
def test_layouts_of_queries_and_memory(rng, tiny_blocks, layout):
    q, m = normalize(rng.normal(size=(4, 3))), normalize(rng.normal(size=(9, 3)))
    expected = twin.semantic_consistency(q, m, 0.1)
    np.testing.assert_allclose(semantic_consistency(layout(q), layout(m), 0.1), expected, rtol=1e-11)


def test_a_read_only_memory_map_will_do(rng, tiny_blocks, tmp_path):
    q, m = normalize(rng.normal(size=(4, 3))), normalize(rng.normal(size=(9, 3))).astype(np.float16)
    np.save(tmp_path / "memory.npy", m)
    mapped = np.load(tmp_path / "memory.npy", mmap_mode="r")
    np.testing.assert_allclose(
        semantic_consistency(q, mapped, 0.1), twin.semantic_consistency(q, m, 0.1), rtol=1e-11, atol=1e-12
    )


def test_inputs_are_left_alone_and_no_gradient_is_kept(rng):
    q = torch.from_numpy(normalize(rng.normal(size=(4, 3)))).requires_grad_()
    m = torch.from_numpy(normalize(rng.normal(size=(5, 3)))).requires_grad_()
    before = q.detach().clone(), m.detach().clone()
    result = semantic_consistency(q, m, normalize=True)
    assert not result.requires_grad
    assert torch.equal(q, before[0])
    assert torch.equal(m, before[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_best_cosine_of_a_tenth_among_minus_nine_tenths(tiny_blocks, dtype):
    # A shift fixed at 1/tau instead of the maximum loses such a row to underflow.
    def at(cosine, sign):
        return [cosine, sign * math.sqrt(1 - cosine**2)]

    memory = np.array([at(-0.9, 1.0)] * 30 + [at(0.1, 1.0)] + [at(-0.9, -1.0)] * 30, dtype=dtype)
    query = np.array([[1.0, 0.0]], dtype=dtype)
    np.testing.assert_allclose(semantic_consistency(query, memory, 0.01), memory[30:31], atol=1e-6)


@pytest.mark.parametrize("place", [0, 5, 12])
def test_the_answer_in_one_block_only(tiny_blocks, place):
    memory = np.full((13, 4), 0.0, dtype=np.float32)
    memory[:, 1] = -1.0
    memory[place] = [0.0, 0.6, 0.8, 0.0]
    query = np.array([[0.0, 1.0, 0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(semantic_consistency(query, memory), memory[[place]], atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("temperature", [0.001, 0.01])
def test_sharp_temperatures_and_long_rows(tiny_blocks, rng, scale, temperature):
    q, m = scale * normalize(rng.normal(size=(7, 6))), scale * normalize(rng.normal(size=(13, 6)))
    np.testing.assert_allclose(
        semantic_consistency(q, m, temperature), twin.semantic_consistency(q, m, temperature), rtol=1e-8, atol=1e-9
    )
    q, m = q.astype(np.float32), m.astype(np.float32)
    # The logits reach 36,000: float32 places them to 0.004, hence the weights to some tenths of a percent.
    np.testing.assert_allclose(
        semantic_consistency(q, m, temperature), twin.semantic_consistency(q, m, temperature), atol=2e-2 * scale
    )


# "any temperature is stable": 1 / 1e-39 overflows float32 and 1 / 5e-324 even float64, the answer does not.
@pytest.mark.parametrize("temperature", [1e-6, 1e-39, 1e-300, 5e-324, np.float32(1e-39)])
def test_a_vanishing_temperature_takes_the_nearest_row(tiny_blocks, rng, temperature):
    q, m = normalize(rng.normal(size=(5, 3))), normalize(rng.normal(size=(9, 3)))
    nearest = m[(q @ m.T).argmax(axis=1)]
    np.testing.assert_allclose(semantic_consistency(q, m, temperature), nearest, atol=1e-12)
    single = semantic_consistency(q.astype(np.float32), m.astype(np.float32), temperature)
    np.testing.assert_allclose(single, nearest, atol=1e-6)


@pytest.mark.parametrize("temperature", [np.float16(1e-5), np.float32(0.1), np.float64(0.1), np.int64(2)])
def test_a_temperature_of_numpy_is_the_number_it_holds(tiny_blocks, rng, temperature):
    q, m = normalize(rng.normal(size=(5, 3))), normalize(rng.normal(size=(9, 3)))
    q = q * float(temperature)  # so that each of the temperatures weighs several rows
    expected = twin.semantic_consistency(q, m, float(temperature))
    np.testing.assert_allclose(semantic_consistency(q, m, temperature), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e30), (np.float64, 1e200)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("normal", [True, False])
def test_rows_whose_products_overflow_are_refused(tiny_blocks, kind, dtype, size, sign, normal):
    q, m = np.full((4, 2), sign * size, dtype=dtype), np.full((5, 2), size, dtype=dtype)
    with pytest.raises(NonFiniteError) as caught:
        semantic_consistency(kind(q), kind(m), normalize=normal)
    assert str(caught.value) == "the products of queries and memory overflow: scale the rows to unit length."


def test_long_rows_whose_products_do_not_overflow_are_no_problem(tiny_blocks, rng):
    q, m = 1e30 * normalize(rng.normal(size=(5, 3))), 1e30 * normalize(rng.normal(size=(9, 3)))
    nearest = m[(q @ m.T).argmax(axis=1)]
    np.testing.assert_allclose(semantic_consistency(q, m), nearest, rtol=1e-12)


def test_a_large_temperature_takes_the_mean(tiny_blocks, rng):
    q, m = normalize(rng.normal(size=(5, 3))), normalize(rng.normal(size=(9, 3)))
    np.testing.assert_allclose(semantic_consistency(q, m, 1e12), np.tile(m.mean(axis=0), (5, 1)), atol=1e-10)


def test_a_query_of_zeros_gets_the_plain_mean(tiny_blocks, rng):
    m = normalize(rng.normal(size=(9, 3)))
    q = np.array([[0.0, 0.0, 0.0], m[4].tolist()])
    result = semantic_consistency(q, m, 0.001)
    np.testing.assert_allclose(result[0], m.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(result[1], twin.semantic_consistency(q, m, 0.001)[1], rtol=1e-9)


def test_a_memory_of_one_row_is_the_answer_to_everything(rng):
    q, m = normalize(rng.normal(size=(5, 3))), normalize(rng.normal(size=(1, 3)))
    np.testing.assert_allclose(semantic_consistency(q, m), np.tile(m, (5, 1)), rtol=1e-15)


@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 6),
    memory_rows=st.integers(1, 12),
    width=st.integers(1, 5),
    temperature=st.sampled_from([0.001, 0.01, 0.1, 1.0]),
)
def test_properties_of_the_softmax_mean(seed, queries, memory_rows, width, temperature):
    rng = np.random.default_rng(seed)
    q, m = normalize(rng.normal(size=(queries, width))), normalize(rng.normal(size=(memory_rows, width)))
    with pytest.MonkeyPatch.context() as patch:
        cut_into(patch, 4, 2)
        result = semantic_consistency(q, m, temperature)
        order = rng.permutation(memory_rows)
        np.testing.assert_allclose(semantic_consistency(q, m[order], temperature), result, atol=1e-9)
        np.testing.assert_allclose(semantic_consistency(q, np.tile(m, (3, 1)), temperature), result, atol=1e-9)
        np.testing.assert_allclose(semantic_consistency(q[::-1], m, temperature), result[::-1], atol=1e-9)
        # Only q / temperature counts.
        np.testing.assert_allclose(semantic_consistency(7 * q, m, 7 * temperature), result, atol=1e-9)
    assert (result <= m.max(axis=0) + 1e-9).all()  # a mean lies between its parts,
    assert (result >= m.min(axis=0) - 1e-9).all()
    assert (
        (q * result).sum(axis=1) >= (q @ m.T).mean(axis=1) - 1e-9
    ).all()  # and nearer to the query than the plain mean


def test_progress_counts_queries_and_memory(tiny_blocks, rng):
    shares = []
    semantic_consistency(rng.normal(size=(7, 2)), rng.normal(size=(9, 2)), progress=shares.append)
    np.testing.assert_allclose(shares, [2 / 7, 4 / 7, 6 / 7, 6 / 7 + 1 / 21, 6 / 7 + 2 / 21, 1.0])


@pytest.mark.parametrize("temperature", [0.0, -0.01, math.nan, math.inf, "0.01", True, None])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ConfigError) as caught:
        semantic_consistency(np.ones((1, 2)), np.ones((1, 2)), temperature)
    assert str(caught.value) == f"temperature: expected a finite number above 0, got {temperature!r}."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peers": 3}, "peers: expected cmcr.connection.peers.Peers or None, got 3."),
        ({"progress": 3}, "progress: expected a function or None, got 3."),
        ({"checkpoint": 5}, "checkpoint: expected the path of a folder or None, got 5."),
    ],
)
def test_arguments_of_another_kind_are_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        semantic_consistency(np.ones((1, 2)), np.ones((1, 2)), **options)
    assert str(caught.value) == message


def test_float64_on_an_apple_gpu_is_refused():
    single, double = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.float64)
    gpu = torch.device("mps")
    for queries, memory in ((single, double), (double, single)):
        with pytest.raises(DtypeError, match="expected at most float32 on an Apple GPU, got float64"):
            consistency.SoftmaxMean.of(queries, memory, device=gpu)
    assert consistency.SoftmaxMean.of(double, double, device=gpu, dtype=torch.float32).tiling.sums == torch.float32


@pytest.mark.parametrize(
    ("queries", "memory", "error", "message"),
    [
        (
            np.ones((1, 2)),
            np.ones((1, 3)),
            DimensionError,
            "^queries are 2 wide and the memory 3: both must be embeddings",
        ),
        (np.ones(2), np.ones((1, 2)), DimensionError, r"^queries: expected shape \(n, D\), got \(2,\)"),
        (np.ones((1, 2)), np.ones(2), DimensionError, r"^memory: expected shape \(n, D\), got \(2,\)"),
        (np.ones((0, 2)), np.ones((1, 2)), TooFewRowsError, r"^queries: expected at least 1 row\(s\), got 0"),
        (np.ones((1, 2)), np.ones((0, 2)), TooFewRowsError, r"^memory: expected at least 1 row\(s\), got 0"),
        (
            np.ones((1, 2), dtype=int),
            np.ones((1, 2)),
            DtypeError,
            "^queries: expected float16, float32 or float64, got int",
        ),
        (
            np.ones((1, 2)),
            torch.ones(1, 2, dtype=int),
            DtypeError,
            "^memory: expected a dense tensor of float16, bfloat16, float32 or float64, got torch.int64, torch.strided",
        ),
        (np.array([[1.0, np.nan]]), np.ones((1, 2)), NonFiniteError, "^queries: NaN or infinity .* first is row 0"),
        (np.ones((1, 2)), np.array([[1.0, 1.0], [1.0, np.inf]]), NonFiniteError, "^memory: NaN or .* first is row 1"),
    ],
)
def test_unusable_inputs_of_the_consistency_are_refused(queries, memory, error, message):
    with pytest.raises(error, match=message):
        semantic_consistency(queries, memory)


# ----------------------------------------------------------------------------------------------- semantic completion


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize("rows", [1, 5])
def test_completion_equals_its_twin_given_the_noise(rng, rows, width, rescale):
    x = normalize(rng.normal(size=(rows, width)))
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        result = semantic_completion(
            torch.from_numpy(x).to(dtype), 0.01, generator=torch.Generator().manual_seed(5), rescale=rescale
        )
        standard = torch.randn(rows, width, generator=torch.Generator().manual_seed(5), dtype=dtype).double().numpy()
        expected = twin.semantic_completion(x, standard * twin.noise_deviation(0.01, width, rescale))
        np.testing.assert_allclose(result.numpy(), expected, atol=tolerance)


@pytest.mark.parametrize("width", [128, 512, 1024])
def test_the_angle_of_the_noise_is_the_papers_at_any_width(width):
    x = torch.zeros(3000, width)
    x[:, 0] = 1.0
    cosines = (semantic_completion(x, generator=torch.Generator().manual_seed(0)) * x).sum(dim=1)
    # E|theta|^2 = 512 * 0.004 whatever the width, hence cos = 1 / sqrt(1 + 2.048).
    assert cosines.mean().item() == pytest.approx(1 / math.sqrt(1 + 512 * 0.004), abs=0.01)


def test_the_variance_is_taken_as_it_is_without_rescaling():
    x = torch.zeros(3000, 128)
    x[:, 0] = 1.0
    result = semantic_completion(x, 0.004, generator=torch.Generator().manual_seed(0), rescale=False)
    cosine = (result * x).sum(dim=1).mean().item()
    assert cosine == pytest.approx(1 / math.sqrt(1 + 128 * 0.004), abs=0.01)


def test_the_noise_has_no_preferred_direction():
    x = torch.zeros(20_000, 4)
    x[:, 0] = 1.0
    blurred = semantic_completion(x, 0.004, generator=torch.Generator().manual_seed(1), rescale=False)
    theta = (blurred / blurred[:, :1])[:, 1:]  # theta_j / (1 + theta_0), nearly theta_j
    covariance = (theta.T @ theta / len(theta)).numpy()
    np.testing.assert_allclose(covariance, 0.004 * np.eye(3), atol=3e-4)
    np.testing.assert_allclose(theta.mean(dim=0).numpy(), 0.0, atol=2e-3)


@pytest.mark.parametrize(
    ("variance", "width", "rescale", "expected"),
    [
        (0.004, 512, True, 0.0632455532),
        (0.004, 512, False, 0.0632455532),
        (0.004, 128, True, 0.1264911064),
        (0.004, 128, False, 0.0632455532),
        (0.0, 7, True, 0.0),
    ],
)
def test_noise_deviation(variance, width, rescale, expected):
    assert noise_deviation(variance, width, rescale) == pytest.approx(expected, abs=1e-10)
    assert noise_deviation(variance, width, rescale) == pytest.approx(twin.noise_deviation(variance, width, rescale))


def test_noise_is_redrawn_at_every_call_and_for_every_row():
    x = torch.tensor([[1.0, 0.0, 0.0]]).repeat(2, 1)
    first, second = semantic_completion(x), semantic_completion(x)
    assert (first - second).abs().amax(dim=1).min() > 1e-3
    assert (first[0] - first[1]).abs().max() > 1e-3
    np.testing.assert_allclose(torch.linalg.vector_norm(first, dim=1).numpy(), 1.0, atol=1e-6)


def test_a_generator_reproduces_the_noise_without_the_global_state():
    x = torch.eye(3)
    state = torch.get_rng_state()
    one, two = (semantic_completion(x, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    other = semantic_completion(x, generator=torch.Generator().manual_seed(4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_generator_the_global_one_decides():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        one = semantic_completion(torch.eye(3))
        torch.manual_seed(8)
        two = semantic_completion(torch.eye(3))
    assert torch.equal(one, two)


@pytest.mark.parametrize("rescale", [True, False])
def test_no_variance_only_normalises_and_draws_nothing(rescale):
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    result = semantic_completion(np.array([[3.0, 4.0], [0.0, 2.0]]), 0.0, generator=generator, rescale=rescale)
    np.testing.assert_allclose(result, [[0.6, 0.8], [0.0, 1.0]], atol=1e-15)
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_completion_keeps_the_kind_and_leaves_the_input_alone(rng, dtype):
    x = normalize(rng.normal(size=(4, 3))).astype(dtype)
    x.flags.writeable = False
    before = x.copy()
    result = semantic_completion(x, 1e-12)
    assert isinstance(result, np.ndarray)
    assert result.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_allclose(result, normalize(x), atol=1e-4)  # noise of 1e-6 * sqrt(512 / 3) moves them hardly
    np.testing.assert_array_equal(x, before)


def test_completion_of_bfloat16_is_computed_in_single(rng):
    x = torch.from_numpy(normalize(rng.normal(size=(4, 3)))).bfloat16()
    result = semantic_completion(x, 0.0)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), normalize(x.double().numpy()), atol=1e-6)


def test_complete_is_the_core_of_semantic_completion(rng):
    x = torch.from_numpy(normalize(rng.normal(size=(4, 3))))
    one = complete(x, noise_deviation(0.004, 3), torch.Generator().manual_seed(1))
    assert torch.equal(one, semantic_completion(x, 0.004, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("variance", [-0.1, math.nan, math.inf, "0.004", True, None])
def test_a_variance_below_zero_is_refused(variance):
    with pytest.raises(ConfigError) as caught:
        semantic_completion(np.ones((1, 2)), variance)
    assert str(caught.value) == f"noise_variance: expected a finite number, 0 or more, got {variance!r}."


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.ones(2), DimensionError, r"^embeddings: expected shape \(n, D\), got \(2,\)"),
        (np.ones((0, 2)), TooFewRowsError, "^embeddings: expected at least 1 row"),
        (np.ones((1, 2), dtype=int), DtypeError, "^embeddings: expected float16, float32 or float64, got int64"),
        (np.array([[np.nan, 1.0]]), NonFiniteError, "^embeddings: NaN or infinity in 1 of the rows 0..0"),
    ],
)
def test_unusable_inputs_of_the_completion_are_refused(array, error, message):
    with pytest.raises(error, match=message):
        semantic_completion(array)
