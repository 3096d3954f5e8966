"""Pictures prepared by table: bit for bit what the image processor of transformers makes, or the processor itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from cmcr.spaces.pixels import pixel_table

PROCESSORS = {
    "clip": CLIPImageProcessorPil(),
    "siglip": SiglipImageProcessorPil(),
    "small crop": CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 24}),
    "no crop": CLIPImageProcessorPil(size={"height": 30, "width": 50}, do_center_crop=False),
    "bilinear": CLIPImageProcessorPil(resample=2, size={"shortest_edge": 33}, crop_size={"height": 33, "width": 33}),
    "raw": CLIPImageProcessorPil(do_normalize=False, do_rescale=False),
    "not normalised": CLIPImageProcessorPil(do_normalize=False),
}


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", PROCESSORS)
@given(width=st.integers(1, 400), height=st.integers(1, 400), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_the_table_makes_the_processors_pixels_bit_for_bit(name, width, height, seed):
    table = pixel_table(PROCESSORS[name])
    picture = noise(width, height, seed)
    expected = PROCESSORS[name](images=picture, return_tensors="np")["pixel_values"][0]
    prepared = table.prepare(picture)
    np.testing.assert_array_equal(prepared, expected)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous


def test_every_byte_of_every_channel_is_in_the_table():
    ramp = np.zeros((224, 224, 3), dtype=np.uint8)
    ramp.reshape(-1, 3)[:256] = np.arange(256)[:, None]
    picture = Image.fromarray(ramp)
    expected = PROCESSORS["clip"](images=picture, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(pixel_table(PROCESSORS["clip"]).prepare(picture), expected)


@pytest.mark.parametrize(
    "settings_",
    [
        {"do_resize": False},
        {"size": {"shortest_edge": 32, "longest_edge": 40}},
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 48, "width": 48}},
        {"do_pad": True, "pad_size": {"height": 300, "width": 300}},
    ],
    ids=["no resizing", "two edges", "crop that must be padded", "padding"],
)
def test_what_the_table_cannot_do_is_left_to_the_processor(settings_):
    assert pixel_table(CLIPImageProcessorPil(**settings_)) is None


def test_a_processor_that_does_something_else_besides_is_noticed():
    class Mirrored(CLIPImageProcessorPil):
        def resize(self, image, *args, **kwargs):
            return super().resize(image, *args, **kwargs)[..., ::-1]

    assert pixel_table(Mirrored()) is None
