"""`cmcr.Memories` of arrays: unit rows of one width by modality, or a clear refusal."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import cmcr
from cmcr.errors import ConfigError, DimensionError, DtypeError, NonFiniteError, TooFewRowsError, ZeroRowError
from reference.enhancement import normalize


def raw(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def spoilt(value, row=3):
    array = raw(40, 3)
    array[row] = value
    return array


def test_arrays_become_unit_rows_by_modality():
    memories = cmcr.Memories("clip", text=raw(40, 3), image=torch.from_numpy(raw(9, 3, 1)))
    assert (memories.space, list(memories.rows), memories.width) == ("clip", ["text", "image"], 3)
    np.testing.assert_allclose(memories.loaded("text").numpy(), normalize(raw(40, 3)), atol=1e-6)
    assert repr(memories) == "Memories('clip', text: 40 x 3, image: 9 x 3)"


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (spoilt(np.nan), NonFiniteError, "the first is row 3"),
        (spoilt(-np.inf, 39), NonFiniteError, "the first is row 39"),
        (spoilt(0.0), ZeroRowError, "the first is row 3"),
        (np.ones((0, 3)), TooFewRowsError, "got 0"),
        (np.ones((4, 3), dtype=np.int32), DtypeError, "got int32"),
        (torch.ones(4, 3, dtype=torch.int64), DtypeError, "got torch.int64"),
        (np.ones(3), DimensionError, r"pass embedding\[None\]"),
        (raw(40, 4), DimensionError, "got text 4, image 3"),
    ],
)
def test_unusable_arrays_are_refused_by_space(array, error, message):
    with pytest.raises(error, match=rf"space 'clip': .*{message}"):
        cmcr.Memories("clip", text=array, image=raw(9, 3))


@pytest.mark.parametrize(("given", "nearest"), [("txt", "'text'"), ("pointcloud", "'point_cloud'")])
def test_an_unknown_modality_is_refused_with_the_nearest(given, nearest):
    with pytest.raises(ConfigError, match=f"Did you mean {nearest}"):
        cmcr.Memories("clip", **{given: raw(4, 3)})


@pytest.mark.parametrize("space", ["", "  ", 3, None, SimpleNamespace(name=3)], ids=repr)
def test_what_is_no_space_is_refused(space):
    with pytest.raises(ConfigError, match="expected a space's name"):
        cmcr.Memories(space, text=raw(1, 3))
    with pytest.raises(ConfigError, match="at least one array"):
        cmcr.Memories("clip")


def test_rows_that_the_attached_encoders_cannot_have_made_are_refused():
    space = SimpleNamespace(name="clip", fingerprint="abc", widths={"text": 3, "image": 0})
    assert cmcr.Memories(space, text=raw(4, 3), image=raw(4, 3)).fingerprint == "abc"
    with pytest.raises(DimensionError, match="makes rows 3 wide, got 4"):
        cmcr.Memories(space, text=raw(4, 4))
    with pytest.raises(ConfigError, match="modality of clip"):
        cmcr.Memories(space, audio=raw(4, 3))
