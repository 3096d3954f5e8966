"""Hub correction against its equation."""

import numpy as np
import pytest

import cmcr
from cmcr.errors import TooFewRowsError
from cmcr.search import hubs
from cmcr.search.hubs import draw_references, hub_coordinates
from reference import search_hubs


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def memory(tmp_path, rng):
    rows = rng.normal(size=(23, 6))
    return cmcr.write_memory(tmp_path / "m", rows, space="s", modality="text")


@pytest.mark.parametrize("neighbours", [1, 3, 100])
def test_a_coordinate_is_what_the_equation_takes_off(memory, rng, neighbours):
    references, query = rng.normal(size=(11, 6)), unit(rng.normal(size=(1, 6)))[0]  # made unit rows
    found = hub_coordinates(memory, references, neighbours=neighbours, share=0.5)
    assert found.dtype == np.float32
    for position, item in enumerate(unit(memory[:])):
        expected = search_hubs.corrected(query, item, unit(references), neighbours, 0.5)
        assert query @ item - found[position] == pytest.approx(expected, abs=1e-6)


def test_references_are_drawn_evenly_below_a_power_of_two(memory, monkeypatch):
    np.testing.assert_array_equal(draw_references(memory), memory[:])
    monkeypatch.setattr(hubs, "MOST_REFERENCES", 4)
    np.testing.assert_array_equal(draw_references(memory), memory[[0, 4, 8, 12]])  # of 16 in 23


def test_references_must_be_there(memory):
    with pytest.raises(TooFewRowsError, match="reference queries"):
        hub_coordinates(memory, np.zeros((0, 6), dtype=np.float32))
