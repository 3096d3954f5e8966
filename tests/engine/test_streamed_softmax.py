"""The streamed softmax mean against the plain one: any cut into blocks, hostile rows, every precision, bounded scratch."""

import math
from itertools import accumulate

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import reference.enhancement as twin
from cmcr.connection.enhancement import semantic_consistency
from cmcr.engine.streamed_softmax import StreamedSoftmax, queries_at_once, slices, tile_side
from engine.rows import clustered, random_rows

CPU = torch.device("cpu")
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def streamed(queries, memory, temperature, block, precision="float64"):
    """The means of a memory that is added in blocks of a size."""
    products = DTYPES[precision]
    sums = torch.float64 if products == torch.float64 else torch.float32
    softmax = StreamedSoftmax(queries.to(sums), math.log2(math.e) / temperature, products, sums)
    for part in slices(len(memory), block):
        softmax.add(memory[part].to(sums))
    return softmax.means()


def expected_of(queries, memory, temperature, dtype=torch.float64):
    """The twin on what the rounding to a dtype leaves of the rows."""
    return twin.semantic_consistency(queries.to(dtype).double().numpy(), memory.to(dtype).double().numpy(), temperature)


# -------------------------------------------------------------------------------------------------- any cut, any shape


@pytest.mark.parametrize("temperature", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("width", [1, 2, 7, 15, 33])
@pytest.mark.parametrize("memory", [1, 4, 9])
@pytest.mark.parametrize("queries", [1, 7])
def test_any_shape_and_cut_equals_the_twin(queries, memory, width, temperature):
    asked, stored = random_rows(queries, width, 0), random_rows(memory, width, 1)
    for block in (1, 2, 4, 9):
        found = streamed(asked, stored, temperature, block)
        np.testing.assert_allclose(found, expected_of(asked, stored, temperature), rtol=1e-11, atol=1e-12)
        found = streamed(asked, stored, temperature, block, "float32")
        np.testing.assert_allclose(found, expected_of(asked, stored, temperature, torch.float32), atol=3e-5)


def test_many_queries_and_rows_over_uneven_last_tiles():
    side = tile_side(CPU)
    asked, stored = random_rows(side + 1, 5, 0), random_rows(side + 3, 5, 1)
    expected = expected_of(asked, stored, 0.01)
    np.testing.assert_allclose(streamed(asked, stored, 0.01, side), expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(streamed(asked, stored, 0.01, side, "float32"), expected, atol=1e-4)
    found = streamed(asked, stored, 0.1, side, "bfloat16").double()
    far = 1 - torch.cosine_similarity(found, torch.from_numpy(expected_of(asked, stored, 0.1)), dim=1)
    assert far.mean() < 1e-4


# -------------------------------------------------------------------------------------------------------- hostile rows

HOSTILE_TOLERANCE = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 4e-3}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("block", [1, 7, 700])
@pytest.mark.parametrize("place", [0, 5, 300, 699])
def test_a_best_cosine_of_a_tenth_among_minus_nine_tenths(place, block, precision):
    # A shift fixed at 1/tau underflows here; one taken from the first rows overflows when the best row comes last.
    def at(cosine):
        return [cosine, math.sqrt(1 - cosine**2)]

    memory = torch.tensor([at(-0.9)] * 700, dtype=torch.float64)
    memory[place] = torch.tensor(at(0.1))
    query = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    found = streamed(query, memory, 0.01, block, precision)
    expected = torch.stack([memory[place], memory[(place + 1) % 700]])
    np.testing.assert_allclose(found, expected, atol=HOSTILE_TOLERANCE[precision])


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("place", [0, 40, 99])
def test_the_answer_in_one_block_only(place, precision):
    # The logits rise by 144 powers of two in the block that holds the answer.
    memory = torch.zeros(100, 4, dtype=torch.float64)
    memory[:, 1] = -1.0
    memory[place] = torch.tensor([0.0, 0.6, 0.8, 0.0])
    query = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    found = streamed(query, memory, 0.01, 4, precision)
    np.testing.assert_allclose(found, memory[[place, place]], atol=HOSTILE_TOLERANCE[precision])


@pytest.mark.parametrize("rise", [7, 9, 59, 61, 240])
def test_sums_follow_logits_that_rise_within_and_beyond_the_headroom(rise):
    scale = 2 * rise
    at = [-0.5, -0.4, 0.0, 0.1, 0.1]
    memory = torch.tensor([[c, math.sqrt(1 - c * c)] for c in at], dtype=torch.float64)
    weights = 2 ** (scale * (memory[:, 0] - 0.1))
    expected = (weights[:, None] * memory).sum(0) / weights.sum()
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-4), ("bfloat16", 1e-2)):
        found = streamed(query, memory, math.log2(math.e) / scale, 1, precision)
        np.testing.assert_allclose(found[0], expected, atol=tolerance)


@pytest.mark.parametrize("size", [1.0, 5.0])
@pytest.mark.parametrize("temperature", [0.001, 0.01])
def test_sharp_temperatures_and_long_rows(temperature, size):
    asked, stored = size * random_rows(7, 6, 0), size * random_rows(13, 6, 1)
    expected = expected_of(asked, stored, temperature)
    np.testing.assert_allclose(streamed(asked, stored, temperature, 3), expected, rtol=1e-8, atol=1e-9)
    # The logits reach 36,000: float32 places them to 0.004, hence the weights to some tenths of a percent.
    expected = expected_of(asked, stored, temperature, torch.float32)
    np.testing.assert_allclose(streamed(asked, stored, temperature, 3, "float32"), expected, atol=2e-2 * size)


@pytest.mark.parametrize("precision", DTYPES)
def test_a_query_of_zeros_gets_the_plain_mean(precision):
    stored = random_rows(9, 3, 1)
    asked = torch.stack([torch.zeros(3, dtype=torch.float64), stored[4]])
    found = streamed(asked, stored, 0.001, 2, precision).double()
    assert torch.isfinite(streamed(asked, 5 * stored, 1e-3, 2, precision)).all()
    np.testing.assert_allclose(found[0], stored.mean(dim=0), atol=HOSTILE_TOLERANCE[precision])
    np.testing.assert_allclose(found[1], stored[4], atol=HOSTILE_TOLERANCE[precision])


# --------------------------------------------------------------------------------------------- errors that are promised


@pytest.mark.parametrize(
    ("rows", "temperature", "mean", "worst"),
    [
        (clustered, 0.01, 5e-5, 1e-3),
        (random_rows, 0.01, 5e-5, 1e-3),
        (clustered, 0.1, 5e-6, 5e-5),
        (clustered, 0.002, 2e-4, 1e-2),
        (clustered, 0.001, 4e-4, 2e-2),
    ],
)
def test_bfloat16_is_near_the_exact_mean(rows, temperature, mean, worst):
    asked, stored = rows(300, 128, 2), rows(2500, 128, 3)
    found = semantic_consistency(asked.float(), stored.float(), temperature, precision="bfloat16")
    assert found.dtype == torch.float32
    far = 1 - torch.cosine_similarity(found.double(), torch.from_numpy(expected_of(asked, stored, temperature)), dim=1)
    assert far.mean() < mean
    assert far.max() < worst


@pytest.mark.parametrize("rows", [clustered, random_rows])
def test_float32_is_off_by_some_millionths(rows):
    asked, stored = rows(300, 512, 2).float(), rows(5000, 512, 3).float()
    expected = expected_of(asked, stored, 0.01)
    found = semantic_consistency(asked, stored).numpy()
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


# ------------------------------------------------------------------------------------------------------------- scratch


def scratch(work) -> int:
    """The most bytes that torch held at once during some work, besides what it returns."""
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held) - result.nbytes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scratch_on_a_cpu_is_bounded(precision):
    queries, memory = random_rows(queries_at_once(512, CPU) + 1, 512, 1).float(), random_rows(1, 512, 2).float()
    assert scratch(lambda: semantic_consistency(queries, memory, precision=precision)) < 110e6


def test_scratch_does_not_grow_with_the_memory():
    queries = random_rows(50, 16, 1)
    few, many = (random_rows(rows, 16, 2) for rows in (8192, 32_768))
    assert scratch(lambda: semantic_consistency(queries, many)) == scratch(lambda: semantic_consistency(queries, few))
