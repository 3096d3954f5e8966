"""Heat maps: files that can be opened, with the colours, boxes and sizes that they should have."""

import numpy as np
import pytest
from coloured import QUARTERS, PatchColour, connection, picture, record, silent, sound
from PIL import Image

from cmcr.errors import WriteError
from cmcr.evaluation.tasks.dense import DenseSettings
from cmcr.evaluation.tasks.grounded import GroundedTask
from cmcr.evaluation.tasks.heatmaps import colours, draw_heatmap, overlaid, write_heatmaps
from cmcr.evaluation.tasks.proposals import GridProposals
from cmcr.evaluation.tasks.ways import OwnSpace


@pytest.fixture(scope="module")
def prepared():
    squares = [picture({0: "red", 3: "blue"}), picture({1: "red"}, 32, 12), picture({2: "red"}, 1200, 800)]
    task = GroundedTask("squares", GridProposals(((0.5, 0.5),), 1.0), DenseSettings(pixels=64))
    given = record(squares, [sound("red")] * 3, [QUARTERS[0], QUARTERS[1], QUARTERS[2]])
    return task.prepare(connection(PatchColour()), given, silent)


def test_colours_rise_in_brightness_from_blue_to_yellow():
    table = colours(np.linspace(0, 1, 101)).astype(float)
    assert table[0].tolist() == [0, 32, 77]
    assert table[-1].tolist() == [255, 234, 70]
    assert (np.diff(table @ [0.2126, 0.7152, 0.0722]) > 0).all()
    assert colours(np.zeros((3, 4))).shape == (3, 4, 3)


def test_overlay_is_brightest_where_the_map_is_highest_and_survives_a_flat_one():
    grey = Image.new("RGB", (100, 60), (90, 90, 90))
    values = np.zeros((30, 50))
    values[:, 25:] = 1.0
    drawn = np.asarray(overlaid(grey, values)).astype(float)
    assert drawn.shape == (60, 100, 3)
    np.testing.assert_allclose(drawn[30, 90], 0.6 * np.array([255, 234, 70]) + 0.4 * 90, atol=1)
    np.testing.assert_allclose(drawn[30, 10], 0.6 * np.array([0, 32, 77]) + 0.4 * 90, atol=1)
    flat = np.asarray(overlaid(grey, np.full((5, 5), 0.3)))
    assert (flat == flat[0, 0]).all()


def test_boxes_are_outlined_and_small_pictures_enlarged(prepared):
    answers = list(prepared.answers(OwnSpace()))
    sizes = []
    for answer in answers:
        drawn = draw_heatmap(prepared.images[answer.item], answer, prepared.boxes[answer.item], "name " * 60)
        sizes.append(drawn.size)
        colours_in = {colour for _, colour in drawn.getcolors(1 << 24)}
        assert (255, 90, 30) in colours_in
        assert (255, 255, 255) in colours_in
    edges = [(320, 320), (320, 120), (480, 320)]  # 5 times, 10 times, 0.4 times
    assert sizes == [(2 * width + 24, height + 52) for width, height in edges]


def test_narrow_pictures_leave_room_for_the_caption(prepared):
    answer = next(prepared.answers(OwnSpace()))
    drawn = draw_heatmap(picture({0: "red"}, 12, 64), answer, prepared.boxes[0], "narrow")
    assert drawn.size == (500, 320 + 52)
    assert drawn.getpixel((200, 100)) == (255, 255, 255)


def test_files_are_written_for_items_spread_over_all(prepared, tmp_path):
    written = write_heatmaps(prepared, OwnSpace(), tmp_path / "maps", limit=2)
    assert [path.name for path in written] == ["00000-item_0.png", "00002-item_2.png"]
    for path in written:
        with Image.open(path) as opened:
            opened.load()
            assert opened.format == "PNG"
    assert len(write_heatmaps(prepared, OwnSpace(), tmp_path / "maps")) == 3
    first = written[0].read_bytes()
    write_heatmaps(prepared, OwnSpace(), tmp_path / "maps", limit=1)
    assert written[0].read_bytes() == first


def test_a_folder_that_cannot_be_is_said(prepared, tmp_path):
    (tmp_path / "maps").write_text("a file")
    with pytest.raises(WriteError, match=r"00000-item_0.png: could not be written"):
        write_heatmaps(prepared, OwnSpace(), tmp_path / "maps", limit=1)
