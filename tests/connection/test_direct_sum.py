"""The direct sum that keeps the parents: against its twin, and what its cosines are by construction."""

import dataclasses

import numpy as np
import pytest

import cmcr
import reference.direct_sum as twin
from cmcr.connection.connect import connect

WIDTHS = {"clip": 6, "clap": 5}


def unit(seed, rows, width):
    drawn = np.random.default_rng(seed).normal(size=(rows, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def memories():
    return (
        cmcr.Memories("clip", text=unit(1, 60, 6), image=unit(2, 40, 6)),
        cmcr.Memories("clap", text=unit(3, 60, 5), audio=unit(4, 30, 5)),
    )


@pytest.fixture(scope="module", params=[("concepts", {"concepts": 8}), ("ridge", {}), ("c-mcr", {"epochs": 1})])
def connection(request):
    method, settings = request.param
    return connect(*memories(), method=method, device="cpu", **settings)


@pytest.mark.parametrize("own_width", [None, 2])
def test_projected_rows_equal_the_twin(own_width):
    found = connect(*memories(), method="concepts", concepts=8, own_width=own_width, own_share=0.9, device="cpu")
    widths = [6, 5] if own_width is None else [3, 3]
    for number, (space, width) in enumerate(WIDTHS.items()):
        rows = unit(9, 20, width)
        axes = None if own_width is None else found.own_axes[space].numpy()
        common = found.common(rows, space)[:, :8]
        expected = twin.project(common, rows, number, widths, 0.9, axes)
        np.testing.assert_allclose(found.project(rows, space), expected, atol=2e-6)
        if axes is not None:
            own = memories()[number].rows
            both = sum(np.float64(part).T @ np.float64(part) / len(part) for part in own.values())
            leading = np.linalg.eigh(both)[1][:, ::-1][:, :2]
            np.testing.assert_allclose(np.abs(np.diag(leading.T @ axes)), 1, atol=1e-5)


def test_rows_are_unit_rows_that_rank_as_the_parents_within_and_as_the_method_across(connection):
    share = connection.own_share
    assert share == 0.98
    parts = {space: unit(7, 25, width) for space, width in WIDTHS.items()}
    whole = {space: connection.project(np.float64(rows), space) for space, rows in parts.items()}
    common = {space: connection.common(np.float64(rows), space) for space, rows in parts.items()}
    for rows in (*whole.values(), *common.values()):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert {rows.shape[1] for rows in whole.values()} == {connection.width}
    assert {rows.shape[1] for rows in common.values()} == {connection.common_width}
    across = connection.similarity(whole["clip"], whole["clap"])
    np.testing.assert_allclose(across, (1 - share) * connection.similarity(common["clip"], common["clap"]), atol=1e-7)
    for space, rows in parts.items():
        within, own = connection.similarity(whole[space], whole[space]), np.float64(rows) @ np.float64(rows).T
        assert np.abs(within - share * own).max() <= 1 - share + 1e-6


def test_the_direct_sum_survives_saving(connection, tmp_path):
    connection.save(tmp_path / "saved")
    again = cmcr.load(tmp_path / "saved")
    for space, width in WIDTHS.items():
        rows = unit(8, 5, width)
        assert np.array_equal(again.project(rows, space), connection.project(rows, space))
    assert (again.own_share, again.settings) == (connection.own_share, connection.settings)


def test_no_own_share_leaves_the_common_block(connection):
    bare = dataclasses.replace(connection, own_share=0.0)
    rows = unit(8, 5, 6)
    assert np.array_equal(bare.project(rows, "clip"), connection.common(rows, "clip"))
    assert bare.width == connection.common_width


@pytest.mark.parametrize("method", ["ridge", "procrustes"])
def test_a_base_keeps_its_rows_and_its_width(method):
    found = connect(*memories(), method=method, base="clip", device="cpu")
    rows = unit(8, 5, 6)
    np.testing.assert_allclose(found.project(rows, "clip"), rows, atol=1e-7)
    assert found.project(unit(8, 4, 5), "clap").shape == (4, 6) == (4, found.width)
