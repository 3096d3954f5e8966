"""Maps of patches and of windows: the same shape, up-sampled as the definition has it."""

import numpy as np
import pytest
from coloured import MeanColour, PatchColour, picture
from hypothesis import given
from hypothesis import strategies as st

from cmcr.errors import ConfigError, SampleError
from cmcr.evaluation.tasks.dense import DenseSettings, embed_cells, up_sampled, window_grid
from spaces.small_models import write_clip


def bilinear(values, height, width):
    """Interpolate between the centres of cells, in plain Python from the definition."""

    def between(size, count, place):
        at = min(max((place + 0.5) * count / size - 0.5, 0.0), count - 1.0)
        low = int(at)
        return low, min(low + 1, count - 1), at - low

    found = np.empty((height, width))
    for y in range(height):
        top, bottom, down = between(height, values.shape[0], y)
        for x in range(width):
            left, right, across = between(width, values.shape[1], x)
            upper = (1 - across) * values[top, left] + across * values[top, right]
            lower = (1 - across) * values[bottom, left] + across * values[bottom, right]
            found[y, x] = (1 - down) * upper + down * lower
    return found


@given(st.integers(1, 6), st.integers(1, 6), st.integers(6, 20), st.integers(6, 20), st.integers(0, 999))
def test_up_sampling_equals_its_definition(rows, columns, height, width, seed):
    values = np.random.default_rng(seed).standard_normal((rows, columns))
    np.testing.assert_allclose(up_sampled(values, (height, width)), bilinear(values, height, width), atol=1e-12)


def test_windows_stand_around_the_centres_of_cells_but_never_leave_the_picture():
    windows, grid = window_grid(DenseSettings(cells=(2, 4), window=0.5))
    assert grid.shape == (2, 4)
    tops, lefts = (0.0, 0.5), (0.0, 0.125, 0.375, 0.5)
    for row, column in np.ndindex(2, 4):
        left, top = lefts[column], tops[row]
        np.testing.assert_allclose(windows[grid[row, column]], [left, top, left + 0.5, top + 0.5])
    windows, grid = window_grid(DenseSettings(cells=(7, 7), window=0.5))
    assert len(windows) == 25  # of 49 cells: those at the edge share the window of their neighbours
    assert set(grid.ravel()) == set(range(25))
    whole, grid = window_grid(DenseSettings(cells=(3, 3), window=1.0))
    assert (whole.tolist(), grid.tolist()) == ([[0, 0, 1, 1]], [[0] * 3] * 3)


def test_patches_and_windows_make_maps_of_one_shape():
    pictures = [picture({0: "red", 3: "blue"}), picture({1: "green"})]
    settings = DenseSettings(pixels=64, cells=(8, 8), window=0.125)
    patches, failed = embed_cells(PatchColour(), pictures, settings, lambda share: None)
    windows, also_failed = embed_cells(MeanColour(), pictures, settings, lambda share: None)
    forced, _ = embed_cells(
        PatchColour(), pictures, DenseSettings(cells=(8, 8), window=0.125, patches=False), lambda share: None
    )
    assert failed == also_failed == {}
    assert patches.grid.shape == windows.grid.shape == (8, 8)
    for position in range(2):
        rows = patches.places.embedded([position]).rows
        np.testing.assert_array_equal(rows[patches.grid], windows.places.embedded([position]).rows[windows.grid])
        np.testing.assert_array_equal(rows[patches.grid], forced.places.embedded([position]).rows[forced.grid])
        red = patches.values(rows[:, 0])
        assert red.shape == (8, 8)
        assert (red[:4, :4] == (1 if position == 0 else np.float16(3**-0.5))).all()
    np.testing.assert_array_equal(patches.places.boxes, windows.places.boxes)


@pytest.mark.parametrize("eyes", [PatchColour, MeanColour])
def test_pictures_that_cannot_be_read_have_no_map(eyes):
    pictures = ["missing.png", picture({0: "red"}), SampleError("gone.")]
    cells, failed = embed_cells(eyes(), pictures, DenseSettings(pixels=32, cells=(4, 4)), lambda share: None)
    assert sorted(failed) == [0, 2]
    assert failed[2] == "gone."
    assert cells.places.count(0) == cells.places.count(2) == 0
    assert cells.values(cells.places.embedded([1]).rows[:, 0]).shape == (4, 4)


def test_a_published_model_gives_its_own_patches(tmp_path):
    from cmcr.spaces.dual_encoders import ClipSpace

    clip = ClipSpace(write_clip(tmp_path), device="cpu")
    pictures = [picture({0: "red", 3: "blue"}), "missing.png", picture({1: "green"}, 90, 50)]
    cells, failed = embed_cells(clip, pictures, DenseSettings(pixels=48), lambda share: None)
    assert list(failed) == [1]
    assert cells.grid.shape == (6, 6)
    expected = clip.patch_features([pictures[0], pictures[2]], 48)
    for position, features in ((0, expected[0]), (2, expected[1])):
        rows = cells.places.embedded([position]).rows
        np.testing.assert_allclose(rows[cells.grid], features, atol=5e-4)  # kept in float16
    with pytest.raises(ConfigError, match="size: expected multiples of the 8 pixels of a patch"):
        embed_cells(clip, pictures, DenseSettings(pixels=50), lambda share: None)


def test_a_map_with_holes_is_no_map():
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[32:] = 100
    _, failed = embed_cells(MeanColour(), [pixels], DenseSettings(cells=(2, 2)), lambda share: None)
    assert failed == {0: "only 2 of its 4 windows could be embedded."}


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"cells: expected \(rows, columns\) of at least 1, got \(0, 3\)"):
        DenseSettings(cells=(0, 3))
    with pytest.raises(ConfigError, match=r"window: expected 0.01 to 1, got 1.5"):
        DenseSettings(window=1.5)
