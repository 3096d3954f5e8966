import json

import numpy as np
import pytest
import torch

import cmcr
import reference.enhancement as twin
from cmcr import files
from cmcr.connection import batches, softmax_mean, training
from cmcr.connection import connect as connect_module
from cmcr.connection.connect import connect
from cmcr.connection.settings import settings_of
from cmcr.errors import (
    CmcrError,
    ConfigError,
    DeviceError,
    DimensionError,
    DtypeError,
    NonFiniteError,
    TooFewRowsError,
    TrainingError,
    ZeroRowError,
)
from reference.connection import recall_at_one
from reference.enhancement import normalize

QUICK = {"epochs": 1, "device": "cpu"}


def raw(seed, rows, width, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(dtype)


def clip(kind=np.asarray, **changes):
    arrays = {"text": raw(1, 40, 3), "image": raw(2, 9, 3)} | changes
    return cmcr.Memories("clip", **{name: kind(array) for name, array in arrays.items()})


def clap(kind=np.asarray, **changes):
    arrays = {"text": raw(3, 40, 5), "audio": raw(4, 7, 5)} | changes
    return cmcr.Memories("clap", **{name: kind(array) for name, array in arrays.items()})


def weights(connection):
    return {
        f"{space}.{name}": value
        for space, projector in connection.projectors.items()
        for name, value in projector.state_dict().items()
    }


def assert_same_weights(one, two):
    assert weights(one).keys() == weights(two).keys()
    assert all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())


@pytest.fixture
def handed_over(monkeypatch):
    """What `connect` gives to the training."""
    calls = []
    train = connect_module.train

    def recording(left, right, settings, **options):
        calls.append((left, right, settings, options))
        return train(left, right, settings, **options)

    monkeypatch.setattr(connect_module, "train", recording)
    return calls


# ------------------------------------------------------------------------------------------------- what it hands over


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, lambda items, memory: normalize(twin.semantic_consistency(items, memory, 0.01))),
        (
            {"consistency_temperature": 0.3},
            lambda items, memory: normalize(twin.semantic_consistency(items, memory, 0.3)),
        ),
        (
            {"consistency_temperature": 0.3, "normalize_consistency": False},
            lambda items, memory: twin.semantic_consistency(items, memory, 0.3),
        ),
        ({"semantic_consistency": False}, lambda items, memory: items),
    ],
    ids=["default", "temperature", "not normalised", "switched off"],
)
def test_training_gets_the_overlap_and_its_consistent_counterparts(handed_over, changes, expected):
    left, right = clip(), clap()
    connect(left, right, **QUICK, **changes)
    ((left_side, right_side, settings, options),) = handed_over
    for side, seed, (rows, width), memory in (
        (left_side, 1, (40, 3), raw(2, 9, 3)),
        (right_side, 3, (40, 5), raw(4, 7, 5)),
    ):
        items = normalize(raw(seed, rows, width))
        np.testing.assert_allclose(side.overlap.numpy(), items, atol=1e-6)
        np.testing.assert_allclose(side.consistent.numpy(), expected(items, normalize(memory)), atol=3e-5)
    assert settings == settings_of("c-mcr", epochs=1, **changes)
    assert options["seed"] == 0


@pytest.mark.parametrize(
    ("overlap", "left_outer", "right_outer"),
    [
        ("text", "image", "audio"),
        ("image", "text", "point_cloud"),
        ("audio", "text", "image"),
        ("point_cloud", "image", "text"),
        ("text", "image", "point_cloud"),
    ],
)
def test_any_modality_can_be_the_overlap(handed_over, overlap, left_outer, right_outer):
    left = cmcr.Memories("one", **{left_outer: raw(2, 9, 3), overlap: raw(1, 40, 3)})
    right = cmcr.Memories("two", **{overlap: raw(3, 40, 5), right_outer: raw(4, 7, 5)})
    found = connect(left, right, **QUICK)
    assert found.overlap == overlap
    assert found.modalities == (overlap, left_outer, right_outer)
    assert [space.modalities for space in found.spaces] == [(overlap, left_outer), (overlap, right_outer)]
    np.testing.assert_allclose(handed_over[0][0].overlap.numpy(), normalize(raw(1, 40, 3)), atol=1e-6)
    np.testing.assert_allclose(handed_over[0][1].overlap.numpy(), normalize(raw(3, 40, 5)), atol=1e-6)
    named = connect(left, right, overlap=overlap, **QUICK)
    assert_same_weights(found, named)


def test_the_same_outer_modality_on_both_sides_needs_the_overlap_named(handed_over):
    left = cmcr.Memories("one", text=raw(1, 40, 3), image=raw(2, 40, 3))
    right = cmcr.Memories("two", text=raw(3, 40, 5), image=raw(4, 40, 5))
    with pytest.raises(ConfigError, match=r"^'one' and 'two' share text, image: choose one by overlap=\.$"):
        connect(left, right, **QUICK)
    for overlap, seeds in (("text", (1, 3)), ("image", (2, 4))):
        handed_over.clear()
        assert connect(left, right, overlap=overlap, **QUICK).overlap == overlap
        for side, seed in zip(handed_over[0][:2], seeds, strict=True):
            np.testing.assert_allclose(side.overlap.numpy(), normalize(raw(seed, 40, side.overlap.shape[1])), atol=1e-6)


# --------------------------------------------------------------------------------------------------- what it gives back


def test_the_connection_remembers_how_it_was_made():
    connection = connect(clip(), clap(), method="c-mcr-published", seed=7, hidden=(4,), **QUICK)
    assert (connection.method, connection.seed, connection.overlap, connection.overlap_rows) == (
        "c-mcr-published",
        7,
        "text",
        40,
    )
    assert connection.settings == settings_of("c-mcr-published", epochs=1, hidden=(4,))
    assert [(s.name, s.modalities, s.width, s.fingerprint) for s in connection.spaces] == [
        ("clip", ("text", "image"), 3, None),
        ("clap", ("text", "audio"), 5, None),
    ]
    assert list(connection.projectors) == ["clip", "clap"]
    assert [p.width_in for p in connection.projectors.values()] == [3, 5]
    assert connection.width == 512  # the published one
    assert len(connection.history["total"]) == 1  # the published batch holds all 40 items
    assert connection.encoders == {}


@pytest.mark.parametrize(
    ("method", "hidden", "width", "variances"),
    [("c-mcr", 10, 5, (0.004 * 512 / 3, 0.004 * 512 / 5)), ("c-mcr-published", 1024, 512, (0.004, 0.004))],
)
def test_each_method_has_its_shape_and_its_noise(monkeypatch, method, hidden, width, variances):
    deviations = []
    complete = batches.complete_

    def recording(rows, noise, deviation):
        deviations.append((rows.shape[1], deviation))
        complete(rows, noise, deviation)

    monkeypatch.setattr(batches, "complete_", recording)
    connection = connect(clip(), clap(), method=method, **QUICK)
    assert connection.width == width
    for space, width_in in (("clip", 3), ("clap", 5)):
        shapes = [tuple(linear.weight.shape) for linear in connection.projectors[space].linears]
        assert shapes == [(hidden, width_in), (width, hidden)]
        assert connection.project(raw(9, 2, width_in), space).shape == (2, width)
    assert dict(deviations) == {
        width_in: pytest.approx(variance**0.5, rel=1e-12) for width_in, variance in zip((3, 5), variances, strict=True)
    }


def test_numpy_and_torch_give_the_same_connection():
    assert_same_weights(connect(clip(), clap(), **QUICK), connect(clip(torch.tensor), clap(torch.tensor), **QUICK))


def test_the_scale_of_the_embeddings_does_not_matter():
    scaled = connect(clip(text=raw(1, 40, 3) * 8, image=raw(2, 9, 3) * 0.5), clap(), **QUICK)
    assert_same_weights(connect(clip(), clap(), **QUICK), scaled)


def test_precision_of_the_memories(handed_over):
    half = {"text": raw(1, 40, 3, np.float16), "image": raw(2, 9, 3, np.float16)}
    single, double = ({name: x.astype(dtype) for name, x in half.items()} for dtype in (np.float32, np.float64))
    one, two, _ = (connect(clip(**arrays), clap(), **QUICK) for arrays in (half, single, double))
    assert_same_weights(one, two)
    for name in ("overlap", "consistent"):
        in_half, in_double = getattr(handed_over[0][0], name), getattr(handed_over[2][0], name)
        np.testing.assert_allclose(in_half.numpy(), in_double.numpy(), atol=1e-5)


def test_the_seed_decides():
    one, two, other = (connect(clip(), clap(), seed=seed, **QUICK) for seed in (1, 1, 2))
    assert_same_weights(one, two)
    assert not torch.equal(one.projectors["clip"].linears[0].weight, other.projectors["clip"].linears[0].weight)


def test_a_seed_of_numpy_is_the_whole_number_it_holds():
    connection = connect(clip(), clap(), seed=np.int64(7), **QUICK)
    assert type(connection.seed) is int
    assert connection.seed == 7
    assert_same_weights(connection, connect(clip(), clap(), seed=7, **QUICK))


@pytest.mark.parametrize(("batch_size", "steps"), [(None, 20), (2, 20), (16, 2), (40, 1), (41, 1)])
def test_the_batch_size_that_is_asked_for_is_taken(batch_size, steps):
    connection = connect(clip(), clap(), batch_size=batch_size, **QUICK)
    assert len(connection.history["total"]) == steps


def test_an_outer_memory_may_be_one_row_and_in_any_order(handed_over):
    connect(clip(image=raw(2, 1, 3)), clap(), **QUICK)
    connect(clip(), clap(audio=raw(4, 7, 5)[::-1]), **QUICK)
    connect(clip(), clap(), **QUICK)
    lonely, turned, plain = handed_over
    np.testing.assert_allclose(lonely[0].consistent.numpy(), np.tile(normalize(raw(2, 1, 3)), (40, 1)), atol=1e-6)
    np.testing.assert_allclose(turned[1].consistent.numpy(), plain[1].consistent.numpy(), atol=1e-5)


def test_two_overlap_rows_are_enough():
    connection = connect(clip(text=raw(1, 2, 3)), clap(text=raw(3, 2, 5)), **QUICK)
    assert connection.overlap_rows == 2
    assert len(connection.history["total"]) == 1


def test_progress_tells_the_stages_in_order():
    told = []
    connect(clip(), clap(), progress=lambda stage, share: told.append((stage, share)), epochs=2, device="cpu")
    assert told == [
        ("semantic consistency", 0.5),
        ("semantic consistency", 1.0),
        ("training", 0.5),
        ("training", 1.0),
    ]


def test_encoders_stay_attached():
    class Space:
        name = "clip"
        fingerprint = "abc"

        def encode(self, inputs, modality, *, batch_size, show_progress_bar):
            raise AssertionError("connecting encodes nothing")

    space = Space()
    connection = connect(cmcr.Memories(space, text=raw(1, 40, 3), image=raw(2, 9, 3)), clap(), **QUICK)
    assert connection.encoders == {"clip": space}
    assert [s.fingerprint for s in connection.spaces] == ["abc", None]


# ------------------------------------------------------------------------------------------------------------- quality


def world(rng, items, shuffled=False):
    """Two spaces that see the same latent codes through different maps, each modality behind its own gap."""
    maps = {"clip": rng.normal(size=(6, 64)), "clap": rng.normal(size=(6, 48))}
    gaps = {
        (space, modality): 1.5 * rng.normal(size=maps[space].shape[1])
        for space in maps
        for modality in ("text", "image", "audio")
    }

    def embed(latent, space, modality):
        seen = latent @ maps[space] + gaps[space, modality]
        return normalize(seen + 0.05 * rng.normal(size=seen.shape)).astype(np.float32)

    texts, pictures, sounds = (rng.normal(size=(items, 6)) for _ in range(3))
    other_texts = texts[rng.permutation(items)] if shuffled else texts
    left = cmcr.Memories("clip", text=embed(texts, "clip", "text"), image=embed(pictures, "clip", "image"))
    right = cmcr.Memories("clap", text=embed(other_texts, "clap", "text"), audio=embed(sounds, "clap", "audio"))
    return left, right, embed


@pytest.mark.parametrize("method", ["c-mcr", "c-mcr-published"])
def test_outer_modalities_find_each_other_without_pairs(rng, method):
    left, right, embed = world(rng, 800)
    connection = connect(left, right, method=method, epochs=12, batch_size=50, device="cpu")
    unseen = rng.normal(size=(100, 6))
    pictures = connection.project(embed(unseen, "clip", "image"), "clip")
    sounds = connection.project(embed(unseen, "clap", "audio"), "clap")
    texts = connection.project(embed(unseen, "clip", "text"), "clip")
    # Chance is 1 in 100.
    assert recall_at_one(sounds, pictures) > 0.5
    assert recall_at_one(pictures, sounds) > 0.5
    assert recall_at_one(texts, sounds) > 0.5


def test_nothing_is_found_if_the_overlap_rows_do_not_belong_together(rng):
    left, right, embed = world(rng, 800, shuffled=True)
    connection = connect(left, right, epochs=12, device="cpu")
    unseen = rng.normal(size=(100, 6))
    pictures = connection.project(embed(unseen, "clip", "image"), "clip")
    assert recall_at_one(connection.project(embed(unseen, "clap", "audio"), "clap"), pictures) < 0.1


# -------------------------------------------------------------------------------------------------------------- errors


def message_of(error, action):
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) is error
    assert isinstance(caught.value, CmcrError)
    return str(caught.value)


def test_overlap_rows_must_match():
    assert message_of(DimensionError, lambda: connect(clip(), clap(text=raw(3, 39, 5)))) == (
        "the overlap 'text' has 40 rows in 'clip' and 39 in 'clap': row i must be the same item in both. Embed the same "
        "list of items with both encoders."
    )


def test_one_overlap_row_is_too_few():
    assert message_of(TooFewRowsError, lambda: connect(clip(text=raw(1, 1, 3)), clap(text=raw(3, 1, 5)))) == (
        "the overlap 'text' has 1 row: at least 2 are needed to contrast, thousands to learn from."
    )


def test_spaces_need_different_names():
    assert message_of(ConfigError, lambda: connect(clip(), clip())) == (
        "both spaces are called 'clip': give them different names."
    )


def test_spaces_must_share_a_modality():
    left = cmcr.Memories("clip", image=raw(2, 9, 3))
    assert message_of(ConfigError, lambda: connect(left, clap())) == (
        "'clip' has image and 'clap' has text, audio: they share no modality. Embed one modality with both."
    )


@pytest.mark.parametrize(("given", "nearest"), [("txt", " Did you mean 'text'?"), ("image", ""), ("zzz", "")])
def test_an_overlap_that_is_not_shared_is_refused(given, nearest):
    message = message_of(ConfigError, lambda: connect(clip(), clap(), overlap=given))
    assert message == f"unknown overlap modality {given!r}.{nearest} Known: text."


def test_exactly_one_outer_modality_is_expected():
    alone = cmcr.Memories("clip", text=raw(1, 40, 3))
    crowd = clap(point_cloud=raw(5, 4, 5))
    hint = "Pass the overlap and the modality to be connected."
    assert message_of(ConfigError, lambda: connect(alone, clap())) == (
        f"space 'clip': expected exactly one modality besides the overlap 'text', got none. {hint}"
    )
    assert message_of(ConfigError, lambda: connect(clip(), crowd)) == (
        f"space 'clap': expected exactly one modality besides the overlap 'text', got audio, point_cloud. {hint}"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "cmcr"},
            "unknown method 'cmcr'. Did you mean 'c-mcr'? Known: c-mcr, c-mcr-published, c-mcr-published-ulip.",
        ),
        ({"epochs": 0}, "settings: epochs: expected a whole number of at least 1, got 0."),
        ({"batch_size": 1}, "settings: batch_size: expected at least 2, got 1."),
        ({"width": 0}, "settings: width: expected None or a whole number of at least 1, got 0."),
        ({"seed": -1}, "seed: expected a whole number, 0 or more, got -1."),
        ({"checkpoint": 5}, "checkpoint: expected the path of a folder or None, got 5."),
        ({"progress": 3}, "progress: expected a function or None, got 3."),
        ({"counterparts": 3}, "counterparts: expected a mapping that can be changed, such as {} or None, got 3."),
        ({"seed": 1.5}, "seed: expected a whole number, 0 or more, got 1.5."),
        ({"seed": True}, "seed: expected a whole number, 0 or more, got True."),
        ({"seed": None}, "seed: expected a whole number, 0 or more, got None."),
        ({"seed": np.bool_(True)}, "seed: expected a whole number, 0 or more, got np.True_."),
    ],
)
def test_wrong_options_are_refused(options, message):
    assert message_of(ConfigError, lambda: connect(clip(), clap(), **options)) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"epochs": 10**11},
            "settings: epochs: 100000000000 are 2000000000000 steps, whose losses alone take 40,000 GB of memory, and there "
            "are ",
        ),
        ({"epochs": 10**40}, "settings: epochs: 1"),
        (
            {"width": 10**7},
            "settings: width, hidden: projectors of (20000000, 10000000) take 6,400,003 GB of memory to train, and there ",
        ),
        ({"hidden": (10**12, 7)}, "settings: width, hidden: projectors of (1000000000000, 7, 5) take "),
    ],
)
def test_settings_for_which_no_memory_suffices_are_refused_before_any_work(monkeypatch, tmp_path, settings, message):
    monkeypatch.setattr(connect_module, "consistent_rows", None)
    options = QUICK | settings
    found = message_of(ConfigError, lambda: connect(clip(), clap(), checkpoint=tmp_path / "kept", **options))
    assert found.startswith(message)
    assert not (tmp_path / "kept").exists()


def test_memory_that_does_not_suffice_is_said(monkeypatch):
    monkeypatch.setattr(training, "_loss", lambda *given: torch.empty(10**15, dtype=torch.float32))
    message = message_of(ConfigError, lambda: connect(clip(), clap(), **QUICK))
    assert message.startswith("the training needs more memory than there is. Lower batch_size, width or hidden. (")


def test_an_unknown_setting_is_refused_with_the_nearest():
    message = message_of(ConfigError, lambda: connect(clip(), clap(), learning_rat=0.1, Epochs=2))
    assert message.startswith(
        "unknown settings: 'learning_rat' (did you mean 'learning_rate'?), 'Epochs' (did you mean 'epochs'?). Known: "
    )


@pytest.mark.parametrize("device", ["gpu", "meta", "xpu", None])
def test_an_unknown_device_is_refused(device):
    assert message_of(DeviceError, lambda: connect(clip(), clap(), device=device)) == (
        f"unknown device {device!r}: expected 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'."
    )


def test_a_missing_device_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(connect_module, "consistent_rows", None)
    assert message_of(DeviceError, lambda: connect(clip(), clap(), device="cuda")) == (
        "device 'cuda': this machine has 0 CUDA device(s). Use 'auto'."
    )


def test_a_diverging_loss_is_refused():
    message = message_of(TrainingError, lambda: connect(clip(), clap(), ttc_temperature=1e-40, **QUICK))
    assert message == (
        "the loss is no longer a finite number by step 20 of 20. Lower learning_rate or weight_decay, or "
        "raise the temperatures."
    )


def test_everything_is_checked_before_the_work_starts(monkeypatch):
    monkeypatch.setattr(connect_module, "consistent_rows", None)  # calling it would be a TypeError
    for error, call in (
        (DimensionError, lambda: connect(clip(), clap(text=raw(3, 39, 5)))),
        (ConfigError, lambda: connect(clip(), clap(), seed=-1)),
        (ConfigError, lambda: connect(clip(), clap(), epochs=-1)),
        (ConfigError, lambda: connect(clip(), clap(point_cloud=raw(5, 4, 5)))),
    ):
        with pytest.raises(error):
            call()


# ------------------------------------------------------------------------------------------------ errors of the memories


def spoilt(value, row=3):
    array = raw(1, 40, 3)
    array[row] = value
    return array


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            spoilt(np.nan),
            NonFiniteError,
            "text of space 'clip': NaN or infinity in 1 of the rows 0..39, the first is row 3. Remove those rows (in the "
            "overlap: from both spaces) or embed them again.",
        ),
        (
            spoilt(-np.inf, 39),
            NonFiniteError,
            "text of space 'clip': NaN or infinity in 1 of the rows 0..39, the first is row 39. Remove those rows (in the "
            "overlap: from both spaces) or embed them again.",
        ),
        (
            spoilt(0.0),
            ZeroRowError,
            "text of space 'clip': 1 row(s) are all zeros and have no direction, the first is row 3. Remove them or embed "
            "those items again.",
        ),
        (np.ones((0, 3)), TooFewRowsError, "text of space 'clip': expected at least 1 row(s), got 0."),
        (
            np.ones((4, 3), dtype=np.int32),
            DtypeError,
            "text of space 'clip': expected float16, float32 or float64, got int32. Convert it first.",
        ),
        (
            torch.ones(4, 3, dtype=torch.int64),
            DtypeError,
            "text of space 'clip': expected a dense tensor of float16, bfloat16, float32 or float64, got torch.int64, "
            "torch.strided. Convert it first.",
        ),
        (
            np.ones(3),
            DimensionError,
            "text of space 'clip': expected shape (n, D), got (3,). For a single embedding pass embedding[None].",
        ),
        (
            raw(1, 40, 4),
            DimensionError,
            "space 'clip': all modalities of one space have one width, got text 4, image 3. Do they come from the same "
            "model, after its projection?",
        ),
    ],
    ids=["NaN", "infinity", "zero row", "empty", "int numpy", "int torch", "one axis", "widths"],
)
def test_unusable_memories_are_refused(array, error, message):
    assert message_of(error, lambda: cmcr.Memories("clip", text=array, image=raw(2, 9, 3))) == message


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("txt", " Did you mean 'text'?"), ("pointcloud", " Did you mean 'point_cloud'?"), ("xyz", "")],
)
def test_an_unknown_modality_is_refused_with_the_nearest(given, nearest):
    message = message_of(ConfigError, lambda: cmcr.Memories("clip", **{given: raw(1, 4, 3)}))
    assert message == f"unknown modality {given!r}.{nearest} Known: audio, image, point_cloud, text."


class Nameless:
    name = 3

    def __repr__(self):
        return "Nameless()"


@pytest.mark.parametrize("space", ["", "  ", 3, None, b"clip", Nameless()], ids=repr)
def test_a_space_that_is_neither_a_name_nor_a_space_is_refused(space):
    assert message_of(ConfigError, lambda: cmcr.Memories(space, text=raw(1, 4, 3))) == (
        f"expected a space's name or a space from cmcr.space, got {space!r}."
    )


def test_memories_need_an_array():
    assert message_of(ConfigError, lambda: cmcr.Memories("clip")) == (
        "space 'clip': expected at least one array, by modality: image, text, audio, point_cloud."
    )


def test_memories_hold_unit_rows():
    memories = clip()
    assert list(memories.rows) == ["text", "image"]
    np.testing.assert_allclose(memories.rows["text"].numpy(), normalize(raw(1, 40, 3)), atol=1e-6)
    assert memories.width == 3
    assert repr(memories) == "Memories('clip', text: 40 x 3, image: 9 x 3)"


# ------------------------------------------------------------------------------------------------------------ precision


def test_bfloat16_reaches_consistency_and_loss(monkeypatch):
    from cmcr.connection import consistency
    from cmcr.connection.losses import connection_loss

    consistencies, losses = [], []

    def tiling(width, products, *rest):
        consistencies.append(products)
        return softmax_mean.tiling_for(width, products, *rest)

    def loss(*rows, **options):
        losses.append(options["precision"])
        return connection_loss(*rows, **options)

    monkeypatch.setattr(consistency, "tiling_for", tiling)
    monkeypatch.setattr(training, "connection_loss", loss)
    made = connect(clip(), clap(), precision="bfloat16", **QUICK)
    assert set(consistencies) == {torch.bfloat16}
    assert set(losses) == {"bfloat16"}
    assert made.settings.precision == "bfloat16"
    consistencies.clear()
    losses.clear()
    assert connect(clip(), clap(), **QUICK).settings.precision == "float32"
    assert set(consistencies) == {torch.float32}
    assert set(losses) == {"float32"}


def test_a_connection_saved_before_there_was_a_precision_is_float32(tmp_path):
    connection = connect(clip(), clap(), **QUICK)
    connection.save(tmp_path / "c")
    path = tmp_path / "c" / "config.json"
    manifest = json.loads(path.read_text())
    del manifest["settings"]["precision"]
    files.write_manifest(tmp_path / "c", manifest)
    loaded = cmcr.load(tmp_path / "c")
    assert loaded.settings == connection.settings
    assert loaded.settings.precision == "float32"
