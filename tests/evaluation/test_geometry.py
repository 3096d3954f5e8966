"""The shape of a space against plain Python from the definitions, and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference.geometry as twin
from cmcr.arrays import unit_rows
from cmcr.errors import ConfigError, DimensionError, NonFiniteError, TooFewRowsError
from cmcr.evaluation.geometry import alignment, hubness, k_occurrences, modality_gap, uniformity

seeds = st.integers(0, 10_000)
ROWS = np.eye(3)


def test_modality_gap_is_the_distance_of_the_means():
    first, second = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[-1.0, 0.0]])
    assert modality_gap(first, second) == pytest.approx(np.hypot(1.5, 0.5))
    assert modality_gap(first, first[::-1]) == 0.0


@given(st.integers(2, 12), st.integers(1, 5), st.sampled_from([1.0, 2.0]), seeds)
def test_alignment_and_uniformity_equal_their_definitions(n, width, number, seed):
    first, second = np.random.default_rng(seed).normal(size=(2, n, width))
    assert alignment(first, second, power=number) == pytest.approx(twin.alignment(first, second, number), abs=1e-13)
    assert uniformity(first, sharpness=number) == pytest.approx(twin.uniformity(first, number), abs=1e-13)
    assert uniformity(first.astype(np.float32)) == pytest.approx(twin.uniformity(first, 2.0), abs=2e-6)
    assert -8.0 <= uniformity(first) <= 0.0
    assert 0.0 <= alignment(first, second) <= 4.0


def test_alignment_and_uniformity_in_closed_form():
    corners = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert alignment(corners, corners) == 0.0
    assert alignment(corners, -3 * corners) == pytest.approx(4.0)
    assert uniformity(corners) == pytest.approx(-8.0)
    assert uniformity(np.ones((5, 3))) == pytest.approx(0.0, abs=1e-15)
    equator = np.stack([np.cos(np.arange(4) * np.pi / 2), np.sin(np.arange(4) * np.pi / 2)], axis=1)
    assert uniformity(equator) == pytest.approx(np.log((2 * np.exp(-4) + np.exp(-8)) / 3))


@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 12), st.booleans(), seeds)
def test_k_occurrences_equal_their_definition_even_with_ties(q, c, k, ties, seed):
    rng = np.random.default_rng(seed)
    queries, corpus = rng.normal(size=(q, 3)), rng.normal(size=(c, 3))
    if ties:
        queries, corpus = np.sign(queries), np.sign(corpus)
    counts = k_occurrences(queries, corpus, k)
    np.testing.assert_array_equal(counts, twin.k_occurrences(queries, corpus, k))
    order = rng.permutation(c)
    np.testing.assert_array_equal(k_occurrences(queries, corpus[order], k), counts[order])
    if not ties:
        assert counts.sum() == q * min(k, c)


@pytest.mark.parametrize("size", [5, 301])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_occur_equally_often_at_any_position(dtype, size):
    # Both sizes are such that a matrix product rounds equal columns differently, in float32 or in float64.
    generator = torch.Generator().manual_seed(1)
    corpus = torch.nn.functional.normalize(torch.randn(size, 384, generator=generator), dim=1).to(dtype)
    queries = corpus + 0.02 * torch.randn(size, 384, generator=generator)
    np.testing.assert_array_equal(k_occurrences(queries, torch.cat([corpus, corpus]), 1), np.ones(2 * size))


def test_a_hub_is_seen():
    rng = np.random.default_rng(0)
    queries, corpus = rng.normal(size=(200, 20)) + 1.0, rng.normal(size=(100, 20))
    corpus[0] = 3.0
    assert k_occurrences(queries, corpus, 5)[0] == 200
    counts = k_occurrences(queries, corpus, 5)
    moments = [((counts - counts.mean()) ** power).mean() for power in (2, 3)]
    assert hubness(queries, corpus, 5) == pytest.approx(moments[1] / moments[0] ** 1.5)
    assert hubness(queries, corpus, 5) > 3.0 > abs(hubness(rng.normal(size=(200, 20)), corpus[1:], 5))
    assert hubness(np.ones((5, 2)), np.ones((7, 2))) == 0.0


def test_nothing_depends_on_the_block(rng):
    queries, corpus = rng.normal(size=(2500, 8)).astype(np.float32), rng.normal(size=(41, 8)).astype(np.float32)
    counts = k_occurrences(queries, corpus, 4)  # three blocks
    first, second = (k_occurrences(torch.from_numpy(part), corpus, 4) for part in (queries[:700], queries[700:]))
    np.testing.assert_array_equal(first + second, counts)
    rows = unit_rows(queries, "queries").double()
    pairs = torch.pdist(rows) ** 2
    assert uniformity(queries) == pytest.approx(float(torch.log(torch.exp(-2 * pairs).mean())), abs=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: modality_gap(ROWS, np.ones((1, 2))), DimensionError, "widths differ: 3 and 2"),
        (lambda: alignment(ROWS, ROWS[:2]), DimensionError, r"pairs of rows, got \(3, 3\) and \(2, 3\)"),
        (lambda: alignment(ROWS, ROWS, power=0.0), ConfigError, "power: expected above 0"),
        (lambda: uniformity(ROWS, sharpness=-1.0), ConfigError, "sharpness: expected above 0"),
        (lambda: uniformity(ROWS[:1]), TooFewRowsError, "at least 2"),
        (lambda: hubness(ROWS, ROWS, 0), ConfigError, "k: expected at least 1, got 0"),
        (lambda: hubness(ROWS, np.full((3, 3), np.inf)), NonFiniteError, "corpus"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
