"""Settings: the paper's values, what is refused, and what the methods change."""

import dataclasses
import json
import math

import numpy as np
import pytest

from cmcr.connection.methods import METHODS, settings_of
from cmcr.connection.settings import CLAP_CLIP_SHAPE, ULIP_CLIP_SHAPE, ProjectorShape, Settings, check_seed
from cmcr.errors import ConfigError


def refused(**changes):
    with pytest.raises(ConfigError) as caught:
        settings_of("c-mcr", **changes)
    return str(caught.value)


def test_the_defaults_are_the_papers():
    expected = {
        "consistency_temperature": 0.01,
        "ttc_temperature": 0.01,
        "avc_temperature": 0.01,
        "noise_variance": 0.004,
        "ttc_weight": 1.0,
        "avc_weight": 1.0,
        "intra_weight": 0.1,
        "epochs": 36,
        "learning_rate": 0.001,
        "semantic_consistency": True,
    }
    assert {name: getattr(Settings(), name) for name in expected} == expected
    assert settings_of("c-mcr") == Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().epochs = 3


def test_the_published_recipe_pins_every_value():
    published, ulip = settings_of("c-mcr-published"), settings_of("c-mcr-published-ulip")
    assert published == Settings(
        centring=False, rescale_noise=False, width=512, hidden=(1024,), batch_size=10_240, own_share=0.0
    )
    assert {field.name for field in dataclasses.fields(Settings)} == set(METHODS["c-mcr-published"].changes)
    assert ulip == dataclasses.replace(published, hidden=(), final_relu=True)
    for widths in ((512, 512), (96, 128), (768, 1024)):  # whatever the widths of the spaces
        assert published.projector_shape(*widths) == CLAP_CLIP_SHAPE
        assert ulip.projector_shape(*widths) == ULIP_CLIP_SHAPE


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].settings is Settings])
def test_changes_win_over_the_method(method):
    plain = settings_of(method)
    changed = settings_of(method, epochs=3, rescale_noise=not plain.rescale_noise)
    assert changed == dataclasses.replace(plain, epochs=3, rescale_noise=not plain.rescale_noise)


@pytest.mark.parametrize(("given", "nearest"), [("c-mrc", "'c-mcr'?"), ("c-mcr-publish", "'c-mcr-published'?")])
def test_an_unknown_method_is_refused_with_the_nearest(given, nearest):
    with pytest.raises(ConfigError, match=f"Did you mean {nearest[:-1]}"):
        settings_of(given)


def test_unknown_settings_are_refused_all_together_each_with_its_nearest():
    message = refused(epoch=3, ttc_temp=0.1, xyzzy=1, epochs=2)
    assert "'epoch' (did you mean 'epochs'?), 'ttc_temp' (did you mean 'ttc_temperature'?), 'xyzzy'." in message


# -------------------------------------------------------------------------------------------------------------- values

ABOVE_ZERO = ("consistency_temperature", "ttc_temperature", "avc_temperature", "learning_rate")
NOT_BELOW_ZERO = ("noise_variance", "ttc_weight", "avc_weight", "intra_weight", "weight_decay")
WRONG = {
    ABOVE_ZERO: [0, -0.1, math.nan, math.inf, "0.1", True, None, np.float32(-1), np.float64("nan")],
    NOT_BELOW_ZERO: [-1e-9, math.nan, math.inf, "0.1", False, None, np.float32(-1), np.bool_(True)],
    ("epochs",): [0, -3, 2.0, True, "3", None, 10**40],
    ("batch_size",): [0, 1, -3, 2.0, True, "3"],
    ("width",): [0, -1, 2.5, 8.0, "8", True, 10**40],
    ("hidden",): [512, "512", (0,), ("a",), (4, 1.5), (True,), [8, -1], (10**40,)],
    ("normalize_consistency", "semantic_consistency", "rescale_noise", "final_relu"): [0, 1, "true", None],
    ("intra_distance", "batch_norm", "precision"): ["cosine", "none", "float16", None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for names, values in WRONG.items() for name in names for value in values]
)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    assert refused(**{name: value}).startswith(f"settings: {name}")


RIGHT = {
    ABOVE_ZERO: [1, 1e-300, np.float16(0.5), np.float32(0.1), np.int64(2), np.uint8(2)],
    NOT_BELOW_ZERO: [0, 0.0, np.float16(0.5), np.float32(0.1), np.int64(2)],
    ("epochs", "width"): [1, np.int64(3)],
    ("batch_size",): [2, None, np.int64(3)],
    ("intra_distance",): ["euclidean", "squared"],
    ("batch_norm",): ["together", "apart"],
    ("precision",): ["float32", "bfloat16"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for names, values in RIGHT.items() for name in names for value in values]
)
def test_a_value_in_range_is_kept_as_a_number_that_a_manifest_can_hold(name, value):
    chosen = settings_of("c-mcr", **{name: value})
    assert getattr(chosen, name) == value
    assert Settings(**json.loads(json.dumps(dataclasses.asdict(chosen)))) == chosen


def test_all_problems_are_reported_together():
    message = refused(epochs=0, learning_rate=-1, batch_norm="x", final_relu=1, intra_weight=-2)
    assert all(name in message for name in ("epochs", "learning_rate", "batch_norm", "final_relu", "intra_weight"))


def test_settings_that_contradict_each_other_are_refused():
    assert "one of them must be above 0" in refused(ttc_weight=0, avc_weight=0)


@pytest.mark.parametrize(
    ("changes", "widths", "expected"),
    [
        ({}, (512, 512), (512, (1024,), False)),
        ({}, (96, 128), (128, (256,), False)),
        ({"width": 7}, (96, 128), (7, (14,), False)),
        ({"hidden": ()}, (3, 2), (3, (), False)),
        ({"hidden": (9, 8), "width": 4, "final_relu": True}, (3, 2), (4, (9, 8), True)),
    ],
)
def test_projector_shape(changes, widths, expected):
    width, hidden, final_relu = expected
    shape = Settings(**changes).projector_shape(*widths)
    assert shape == ProjectorShape(width=width, hidden=hidden, final_relu=final_relu)


@pytest.mark.parametrize(
    ("overlap_rows", "batch_size", "expected"),
    [
        # Left open: the paper's, or a sixteenth of a small overlap.
        (2, None, 2),
        (47, None, 2),
        (48, None, 3),
        (163_839, None, 10_239),
        (2_330_000, None, 10_240),
        # Asked for: as it is, but never more than there are rows.
        (10, 2, 2),
        (48, 49, 48),
        (2_330_000, 20_480, 20_480),
    ],
)
def test_rows_per_step(overlap_rows, batch_size, expected):
    assert Settings(batch_size=batch_size).rows_per_step(overlap_rows) == expected


@pytest.mark.parametrize("seed", [0, 200, 2**80, np.int64(3), np.uint8(3)])
def test_a_seed_is_anything_that_is_a_whole_number(seed):
    assert type(check_seed(seed)) is int
    assert check_seed(seed) == seed


@pytest.mark.parametrize("seed", [-1, np.int64(-1), True, np.bool_(True), 1.0, np.float64(1.0), "1", None, (1,)])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ConfigError, match="seed: expected a whole number, 0 or more"):
        check_seed(seed)
