"""The streamed softmax mean: bfloat16 beside the exact one, scratch that does not grow, parts that merge."""

import math
from itertools import accumulate

import numpy as np
import pytest
import torch
from cmcr.connection.attention_mean import AttentionMean
from cmcr.connection.softmax_mean import SoftmaxSums, Tiling, tiling_for
from connection.together import together
from torch.nn.functional import normalize
from torch.profiler import ProfilerActivity, profile

import reference.enhancement as twin
from cmcr.connection import consistency, softmax_mean
from cmcr.connection.enhancement import semantic_consistency
from cmcr.errors import ConfigError

add = AttentionMean.add
CPU = torch.device("cpu")


def clustered(rows: int, width: int, seed: int) -> torch.Tensor:
    centres = torch.randn(16, width, generator=torch.Generator().manual_seed(1))
    drawn = torch.Generator().manual_seed(seed)
    chosen = torch.randint(16, (rows,), generator=drawn)
    return normalize(centres[chosen] + torch.randn(rows, width, generator=drawn), dim=1)


def random_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def mean_and_worst(found: torch.Tensor, expected: np.ndarray) -> tuple[float, float]:
    far = 1 - torch.cosine_similarity(found.double(), torch.from_numpy(expected), dim=1)
    return far.mean().item(), far.max().item()


@pytest.mark.parametrize("rows", [clustered, random_rows])
@pytest.mark.parametrize("tiling", [None, Tiling(64, 32, torch.bfloat16, torch.float32)])
def test_bfloat16_is_near_the_exact_mean(monkeypatch, rows, tiling):
    if tiling:
        monkeypatch.setattr(consistency, "tiling_for", lambda *_: tiling)
    queries, memory = rows(300, 128, 2), rows(2500, 128, 3)
    expected = twin.semantic_consistency(queries.double().numpy(), memory.double().numpy(), 0.01)
    found = semantic_consistency(queries, memory, precision="bfloat16")
    assert found.dtype == torch.float32
    mean, worst = mean_and_worst(found, expected)
    assert mean < 5e-5
    assert worst < 1e-3


@pytest.mark.parametrize(
    ("temperature", "mean", "worst"), [(0.1, 5e-6, 5e-5), (0.002, 2e-4, 1e-2), (0.001, 4e-4, 2e-2)]
)
def test_bfloat16_at_other_temperatures(temperature, mean, worst):
    queries, memory = clustered(300, 128, 2), clustered(2500, 128, 3)
    expected = twin.semantic_consistency(queries.double().numpy(), memory.double().numpy(), temperature)
    found = mean_and_worst(semantic_consistency(queries, memory, temperature, precision="bfloat16"), expected)
    assert found[0] < mean
    assert found[1] < worst


@pytest.mark.parametrize("place", [0, 40, 99])
def test_bfloat16_finds_the_answer_wherever_it_stands(monkeypatch, place):
    # The logits rise by 144 powers of two in the block that holds the answer.
    monkeypatch.setattr(consistency, "tiling_for", lambda *_: Tiling(8, 4, torch.bfloat16, torch.float32))
    memory = torch.zeros(100, 4)
    memory[:, 1] = -1.0
    memory[place] = torch.tensor([0.0, 0.6, 0.8, 0.0])
    query = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    found = semantic_consistency(query, memory, precision="bfloat16")
    np.testing.assert_allclose(found, memory[[place, place]], atol=4e-3)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("size", [0.0, 1.0, 5.0])
def test_bfloat16_is_finite_for_any_temperature_and_length(temperature, size):
    queries, memory = size * random_rows(20, 32, 4), 5 * random_rows(300, 32, 5)
    assert torch.isfinite(semantic_consistency(queries, memory, temperature, precision="bfloat16")).all()


def test_bfloat16_refuses_temperatures_at_which_its_rounding_decides():
    with pytest.raises(ConfigError, match=r"temperature: expected 0.001 or more in bfloat16.* got 0.0009"):
        semantic_consistency(np.ones((1, 2)), np.ones((1, 2)), 0.0009, precision="bfloat16")
    assert np.isfinite(semantic_consistency(np.ones((1, 2)), np.ones((1, 2)), 1e-30)).all()


def test_bfloat16_near_minus_one_weighs_what_is_nearest():
    # All logits are far below zero, so that a shift of zero would leave no weight at all.
    query = torch.tensor([[1.0, 0.0]])
    memory = torch.tensor([[-1.0, 0.0]] * 50 + [[-0.8, 0.6]] + [[-1.0, 0.0]] * 50)
    found = semantic_consistency(query, memory, precision="bfloat16")
    np.testing.assert_allclose(found, memory[50:51], atol=4e-3)


def test_float64_inputs_in_bfloat16_come_back_as_float64():
    found = semantic_consistency(random_rows(3, 8, 1).double(), random_rows(9, 8, 2), precision="bfloat16")
    assert found.dtype == torch.float64


@pytest.mark.parametrize("precision", ["float16", "", None, 32])
def test_an_unknown_precision_is_refused(precision):
    with pytest.raises(ConfigError, match=r"precision: expected one of float32, bfloat16, got"):
        semantic_consistency(np.ones((1, 2)), np.ones((1, 2)), precision=precision)


def scratch(work) -> int:
    """The most bytes that torch held at once during some work, besides what it returns."""
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held) - result.nbytes


@pytest.mark.parametrize(
    ("width", "dtype", "precision"),
    [
        (512, torch.float32, "float32"),
        (512, torch.float32, "bfloat16"),
        (768, torch.float64, "float64"),
        (1280, torch.float32, "float32"),
        (9000, torch.float64, "float64"),
        (3, torch.float32, "float32"),
    ],
)
def test_scratch_on_a_cpu_stays_under_64_megabytes(width, dtype, precision):
    products = torch.bfloat16 if precision == "bfloat16" else dtype
    tiling = tiling_for(width, products, dtype, CPU, 10**6)
    queries = torch.ones(min(tiling.queries, 8192), width, dtype=dtype)
    memory = torch.ones(1, width, dtype=dtype)
    how = {"precision": precision} if precision == "bfloat16" else {}
    taken = scratch(lambda: semantic_consistency(queries, memory, normalize=True, **how))
    left_out = (tiling.queries - len(queries)) * softmax_mean._columns(width) * (products.itemsize + dtype.itemsize)
    if dtype == torch.float32 and precision == "float32":
        left_out = (tiling.queries - len(queries)) * width * 12
    as_read = tiling.side * width * (4 + 4 + 2)  # of a memory on disk: a block, the next one, and that one's bytes
    assert 15e6 < taken + left_out + as_read < 64e6


@pytest.mark.parametrize("width", [16, 512, 4096])
def test_scratch_of_few_queries_stays_under_64_megabytes_too(width):
    queries, memory = torch.ones(767, width), torch.ones(4096, width)
    side = tiling_for(width, torch.float32, torch.float32, CPU, 767).side
    assert scratch(lambda: semantic_consistency(queries, memory)) + side * width * (4 + 4 + 2) < 64e6


def test_scratch_does_not_grow_with_the_memory():
    queries = random_rows(50, 16, 1)
    few, many = random_rows(8192, 16, 2), random_rows(32_768, 16, 2)
    assert scratch(lambda: semantic_consistency(queries, many)) == scratch(lambda: semantic_consistency(queries, few))


def test_widths_that_are_very_large_still_have_a_tiling():
    tiling = tiling_for(200_000, torch.float64, torch.float64, CPU, 1)
    assert tiling.queries >= 1
    assert tiling.side >= 1


@pytest.mark.parametrize("rise", [softmax_mean._HEADROOM - 1, softmax_mean._HEADROOM + 1, 4 * softmax_mean._HEADROOM])
def test_sums_follow_logits_that_rise_within_and_beyond_the_headroom(rise):
    scale = 2 * rise
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    at = [-0.5, -0.4, 0.0, 0.1, 0.1]
    memory = torch.tensor([[c, math.sqrt(1 - c * c)] for c in at], dtype=torch.float64)
    sums = SoftmaxSums(query, scale, Tiling(1, 1, torch.float64, torch.float64))
    for row in memory:
        sums.add(row[None])
    weights = 2 ** (scale * (memory[:, 0] - 0.1))
    expected = (weights[:, None] * memory).sum(0) / weights.sum()
    means, weight = sums.finished()
    np.testing.assert_allclose(means[0], expected, rtol=1e-12)
    np.testing.assert_allclose(weight[0], weights.sum().log2() + 0.1 * scale, rtol=1e-12)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cuts", [(0, 150, 300), (0, 10, 300), (0, 100, 101, 300)])
def test_parts_of_a_memory_on_several_processes_merge_to_the_whole(precision, cuts):
    queries, memory = clustered(40, 32, 2), clustered(300, 32, 3)
    memory[-1] = queries[0]  # the last process alone has the answer to this one
    whole = semantic_consistency(queries, memory, precision=precision)

    def work(peers):
        part = memory[cuts[peers.rank] : cuts[peers.rank + 1]]
        return semantic_consistency(queries, part, precision=precision, peers=peers)

    for found in together(len(cuts) - 1, work):
        np.testing.assert_allclose(found, whole, atol=2e-5 if precision == "float32" else 5e-3)


def test_processes_with_a_checkpoint_go_on_together(tmp_path, monkeypatch):
    monkeypatch.setattr(consistency, "tiling_for", lambda *_: Tiling(16, 8, torch.float32, torch.float32))
    queries, memory = clustered(40, 32, 2), clustered(300, 32, 3)
    expected = semantic_consistency(queries, memory)
    finished = []

    def work(peers, stop_at):
        def stop(share):
            if share > stop_at:
                raise KeyboardInterrupt
            finished.append(share)

        part = memory[peers.part_of(300)]
        return semantic_consistency(queries, part, peers=peers, checkpoint=tmp_path / "c", progress=stop)

    with pytest.raises(KeyboardInterrupt):
        together(2, lambda peers: work(peers, 0.5))
    assert len(list((tmp_path / "c").glob("rows-*"))) == 1
    finished.clear()
    for found in together(2, lambda peers: work(peers, 1.0)):
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert finished.count(16 / 40) == 2  # found finished by both
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("rows", [clustered, random_rows])
@pytest.mark.parametrize(("queries", "memory", "width"), [(1, 1, 1), (70, 300, 3), (300, 2500, 128), (40, 90, 700)])
def test_float32_is_the_same_with_and_without_the_attention_kernel(monkeypatch, rows, queries, memory, width):
    asked, stored = rows(queries, width, 2), rows(memory, width, 3)
    monkeypatch.setattr(softmax_mean, "_FEWEST_ATTENDED", 1)
    with_kernel = semantic_consistency(asked, stored)
    monkeypatch.setattr(softmax_mean, "has_kernel", lambda: False)
    without = semantic_consistency(asked, stored)
    expected = twin.semantic_consistency(asked.double().numpy(), stored.double().numpy(), 0.01)
    for found in (with_kernel, without):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_kernel_is_used_in_float32_alone_and_for_many_queries(monkeypatch):
    used = []
    monkeypatch.setattr(AttentionMean, "add", lambda self, memory: used.append(1) or add(self, memory))
    ways = [(torch.float64, "float32"), (torch.float32, "bfloat16"), (torch.float32, "float32")]
    for queries, (dtype, precision) in [(3, ways[2]), *((768, way) for way in ways)]:
        assert not used
        semantic_consistency(random_rows(queries, 8, 1).to(dtype), random_rows(9, 8, 2), precision=precision)
    assert used
