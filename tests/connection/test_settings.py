import dataclasses
import json
import math

import numpy as np
import pytest

from cmcr.connection.enhancement import noise_deviation
from cmcr.connection.projectors import CLAP_CLIP_SHAPE, ULIP_CLIP_SHAPE
from cmcr.connection.settings import METHODS, Settings, check_seed, settings_of
from cmcr.errors import ConfigError


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
        "batch_size": None,
        "learning_rate": 0.001,
        "semantic_consistency": True,
    }
    assert {name: getattr(Settings(), name) for name in expected} == expected


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().epochs = 3


@pytest.mark.parametrize("method", ["c-mcr", "c-mcr-published"])
def test_changes_win_over_the_method(method):
    plain = settings_of(method)
    changed = settings_of(method, epochs=3, rescale_noise=not plain.rescale_noise)
    assert changed == dataclasses.replace(plain, epochs=3, rescale_noise=not plain.rescale_noise)
    assert set(METHODS) == {"c-mcr", "c-mcr-published", "c-mcr-published-ulip"}


def test_the_published_recipe_takes_the_noise_as_it_is_and_the_published_projector():
    published = settings_of("c-mcr-published")
    assert published == Settings(rescale_noise=False, width=512, hidden=(1024,), batch_size=10_240)
    assert {field.name for field in dataclasses.fields(Settings)} == set(METHODS["c-mcr-published"]), (
        "every value is pinned"
    )
    ulip = settings_of("c-mcr-published-ulip")
    assert ulip == dataclasses.replace(published, hidden=(), final_relu=True)
    assert ulip.projector_shape(96, 128) == ULIP_CLIP_SHAPE
    assert published.rows_per_step(10_000) == 10_000
    assert published.rows_per_step(100_000) == 10_240
    for widths in ((512, 512), (96, 128), (768, 1024)):  # whatever the widths of the spaces
        assert published.projector_shape(*widths) == CLAP_CLIP_SHAPE
        for width in widths:
            deviation = noise_deviation(published.noise_variance, width, published.rescale_noise)
            assert deviation == pytest.approx(math.sqrt(0.004), rel=1e-12)
    assert settings_of("c-mcr-published", width=None, hidden=None).projector_shape(3, 2).hidden == (6,)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("c-mrc", " Did you mean 'c-mcr'?"), ("c-mcr-publish", " Did you mean 'c-mcr-published'?"), ("zzz", "")],
)
def test_an_unknown_method_is_refused_with_the_nearest(given, nearest):
    with pytest.raises(ConfigError) as caught:
        settings_of(given)
    assert (
        str(caught.value) == f"unknown method {given!r}.{nearest} Known: c-mcr, c-mcr-published, c-mcr-published-ulip."
    )


def test_unknown_settings_are_refused_all_together_each_with_its_nearest():
    with pytest.raises(ConfigError) as caught:
        settings_of("c-mcr", epoch=3, ttc_temp=0.1, xyzzy=1, epochs=2)
    known = ", ".join(field.name for field in dataclasses.fields(Settings))
    assert str(caught.value) == (
        "unknown settings: 'epoch' (did you mean 'epochs'?), 'ttc_temp' (did you mean 'ttc_temperature'?), 'xyzzy'. "
        f"Known: {known}."
    )


ABOVE_ZERO = ("consistency_temperature", "ttc_temperature", "avc_temperature", "learning_rate")
NOT_BELOW_ZERO = ("noise_variance", "ttc_weight", "avc_weight", "intra_weight", "weight_decay")


@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf, "0.1", True, None, np.float32(-1), np.float64("nan")])
@pytest.mark.parametrize("name", ABOVE_ZERO)
def test_numbers_that_must_be_above_zero(name, value):
    with pytest.raises(ConfigError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"settings: {name}: expected a number above 0, got {value!r}."


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, "0.1", False, None, np.float32(-1), np.bool_(True)])
@pytest.mark.parametrize("name", NOT_BELOW_ZERO)
def test_numbers_that_may_be_zero(name, value):
    assert getattr(Settings(**{name: 0}), name) == 0
    with pytest.raises(ConfigError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"settings: {name}: expected 0 or more, got {value!r}."


@pytest.mark.parametrize("number", [np.float16(0.5), np.float32(0.1), np.float64(0.1), np.int64(2), np.uint8(2)])
@pytest.mark.parametrize("name", [*ABOVE_ZERO, *NOT_BELOW_ZERO])
def test_numbers_of_numpy_are_numbers(name, number):
    assert getattr(Settings(**{name: number}), name) == number


def test_numbers_of_numpy_can_be_written_into_a_manifest():
    given = {"ttc_temperature": np.float32(0.1), "noise_variance": np.float16(0.5), "intra_weight": np.int64(2)}
    written = json.loads(json.dumps(dataclasses.asdict(Settings(**given))))
    assert {name: written[name] for name in given} == {name: float(number) for name, number in given.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("epochs", "batch_size") for value in (0, -3, 2.0, True, "3")] + [("epochs", None)],
)
def test_counts(name, value):
    with pytest.raises(ConfigError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"settings: {name}: expected a whole number of at least 1, got {value!r}."


def test_a_batch_of_one_contrasts_nothing():
    with pytest.raises(ConfigError, match=r"^settings: batch_size: expected at least 2, got 1\.$"):
        Settings(batch_size=1)
    assert Settings(batch_size=2).batch_size == 2
    assert Settings(batch_size=None) == Settings()


@pytest.mark.parametrize("value", [0, 1, "true", None])
@pytest.mark.parametrize("name", ["normalize_consistency", "semantic_consistency", "rescale_noise", "final_relu"])
def test_flags(name, value):
    with pytest.raises(ConfigError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"settings: {name}: expected true or false, got {value!r}."


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("intra_distance", "cosine", "euclidean, squared"),
        ("batch_norm", "none", "together, apart"),
        ("precision", "float16", "float32, bfloat16"),
    ],
)
def test_choices(name, value, known):
    with pytest.raises(ConfigError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == f"settings: {name}: expected one of {known}, got {value!r}."
    for choice in known.split(", "):
        assert getattr(Settings(**{name: choice}), name) == choice


def test_all_problems_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        Settings(epochs=0, learning_rate=-1, batch_norm="x", final_relu=1, intra_weight=-2)
    assert str(caught.value) == (
        "settings: learning_rate: expected a number above 0, got -1; intra_weight: expected 0 or more, got -2; epochs: "
        "expected a whole number of at least 1, got 0; final_relu: expected true or false, got 1; batch_norm: expected "
        "one of together, apart, got 'x'."
    )


def test_a_loss_without_contrast_is_refused():
    with pytest.raises(ConfigError, match=r"^settings: ttc_weight and avc_weight: one of them must be above 0"):
        Settings(ttc_weight=0, avc_weight=0)


@pytest.mark.parametrize("value", [0, -1, 2.5, 8.0, "8", True])
def test_an_impossible_width_is_refused(value):
    with pytest.raises(ConfigError) as caught:
        settings_of("c-mcr", width=value)
    assert str(caught.value) == f"settings: width: expected None or a whole number of at least 1, got {value!r}."


@pytest.mark.parametrize("value", [512, 0, "512", "", (0,), ("a",), (4, 1.5), (True,), [8, -1], {8}])
def test_impossible_hidden_widths_are_refused(value):
    with pytest.raises(ConfigError) as caught:
        settings_of("c-mcr", hidden=value)
    assert str(caught.value) == (
        f"settings: hidden: expected None or a tuple of whole numbers of at least 1, got {value!r}."
    )


def test_impossible_projectors_are_reported_with_the_rest():
    with pytest.raises(ConfigError) as caught:
        Settings(width=0, hidden=(0,), epochs=0, final_relu=1)
    assert str(caught.value) == (
        "settings: epochs: expected a whole number of at least 1, got 0; width: expected None or a whole number of at "
        "least 1, got 0; hidden: expected None or a tuple of whole numbers of at least 1, got (0,); final_relu: expected "
        "true or false, got 1."
    )


def test_hidden_widths_given_as_a_list_are_kept_as_a_tuple():
    assert Settings(hidden=[8, 4]).hidden == (8, 4)
    assert Settings(hidden=[8]) == Settings(hidden=(8,))


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
    shape = Settings(**changes).projector_shape(*widths)
    assert (shape.width, shape.hidden, shape.final_relu) == expected


@pytest.mark.parametrize(
    ("overlap_rows", "batch_size", "expected"),
    [
        # Left open: the paper's, or a sixteenth of a small overlap.
        (2, None, 2),
        (3, None, 2),
        (31, None, 2),
        (47, None, 2),
        (48, None, 3),
        (1600, None, 100),
        (163_839, None, 10239),
        (163_840, None, 10240),
        (2_330_000, None, 10240),
        # Asked for: as it is, but never more than there are rows.
        (10, 2, 2),
        (48, 32, 32),
        (48, 48, 48),
        (48, 49, 48),
        (2, 10240, 2),
        (1600, 64, 64),
        (1600, 10240, 1600),
        (2_330_000, 20480, 20480),
    ],
)
def test_rows_per_step(overlap_rows, batch_size, expected):
    assert Settings(batch_size=batch_size).rows_per_step(overlap_rows) == expected


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@pytest.mark.parametrize("whole", [int, np.int64, np.uint8, np.array, Index])
@pytest.mark.parametrize("value", [0, 3, 200])
def test_a_seed_is_anything_that_is_a_whole_number(value, whole):
    seed = check_seed(whole(value))
    assert type(seed) is int
    assert seed == value


def test_a_seed_may_be_large():
    assert check_seed(2**80) == 2**80


@pytest.mark.parametrize(
    "seed", [-1, np.int64(-1), True, False, np.bool_(True), 1.0, np.float64(1.0), "1", None, (1,), np.array([1, 2])]
)
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ConfigError) as caught:
        check_seed(seed)
    assert str(caught.value) == f"seed: expected a whole number, 0 or more, got {seed!r}."


def test_a_temperature_that_bfloat16_cannot_tell_apart_is_refused():
    with pytest.raises(ConfigError, match=r"consistency_temperature: expected 0.001 or more in bfloat16, got 0.0005"):
        Settings(precision="bfloat16", consistency_temperature=0.0005)
    Settings(consistency_temperature=0.0005)
    Settings(precision="bfloat16", consistency_temperature=0.0005, semantic_consistency=False)
