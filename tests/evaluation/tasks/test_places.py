"""Embedded crops: in order, at their pictures, float16 in a file; what cannot be read or embedded is left out."""

import numpy as np
from coloured import QUARTERS, MeanColour, picture, silent
from PIL import Image

from cmcr.errors import SampleError
from cmcr.evaluation.tasks.places import PlacesWriter, embed_boxes


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_every_crop_is_embedded_at_its_picture():
    pictures = [picture({0: "red", 3: "blue"}), picture({1: "green"}, width=128), picture({2: "red"}, height=32)]
    boxes = {64: QUARTERS, 128: np.tile(QUARTERS, (20, 1)), 32: QUARTERS[:1]}  # more than are embedded at once
    shares = []
    places, failed = embed_boxes(
        MeanColour(), pictures, lambda seen: boxes[max(seen.width, 64) if seen.height == 64 else 32], shares.append
    )
    assert failed == {}
    assert [places.count(one) for one in range(3)] == [4, 80, 1]
    assert places.rows.dtype == np.float16
    assert isinstance(places.rows, np.memmap)
    np.testing.assert_array_equal(places.boxes_of(1), boxes[128])
    expected = [[255, 0, 0], [128] * 3, [128] * 3, [0, 0, 255]]
    np.testing.assert_allclose(places.embedded([0]).rows, unit(np.array(expected, dtype=float)), atol=1e-3)
    both = places.embedded([0, 2])
    assert both.rows.shape == (5, 3)
    assert both.rows.dtype == np.float32
    assert (both.space, both.modality) == ("eyes", "image")
    np.testing.assert_allclose(both.rows[4], np.full(3, 3**-0.5), atol=1e-3)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_pictures_and_crops_that_fail_are_left_out_and_the_others_keep_their_places():
    half_black = np.zeros((64, 64, 3), dtype=np.uint8)
    half_black[:, 32:] = 200
    pictures = [
        SampleError("the file is gone."),
        Image.fromarray(half_black),  # a black crop has no direction
        "no-such-picture.png",
        Image.new("RGB", (64, 64), "black"),
        lambda: picture({0: "red"}),
    ]
    places, failed = embed_boxes(MeanColour(), pictures, lambda seen: QUARTERS, silent_share)
    assert np.diff(places.starts).tolist() == [0, 2, 0, 0, 4]
    np.testing.assert_array_equal(places.boxes_of(1), QUARTERS[[1, 3]])
    np.testing.assert_allclose(places.embedded([4]).rows[0], [1, 0, 0], atol=1e-3)
    assert sorted(failed) == [0, 2, 3]
    assert failed[0] == "the file is gone."
    assert "no-such-picture.png" in failed[2]
    assert failed[3] == "none of its boxes could be embedded."


def test_nothing_at_all_is_no_crash():
    places, failed = embed_boxes(MeanColour(), [SampleError("gone.")], lambda seen: QUARTERS, silent_share)
    assert (places.starts.tolist(), places.boxes.shape, failed) == ([0, 0], (0, 4), {0: "gone."})
    with PlacesWriter("eyes", 0) as writer:
        assert writer.places().starts.tolist() == [0]


def silent_share(share):
    silent("places", share)
