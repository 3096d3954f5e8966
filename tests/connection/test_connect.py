"""`connect` from arrays to projectors, against the twins from end to end, and what it refuses before any work."""

import numpy as np
import pytest
import torch

import cmcr
import reference.enhancement as enhancement_twin
import reference.methods as methods_twin
import reference.projectors as projector_twin
import reference.training as training_twin
from cmcr.connection.connect import connect
from cmcr.connection.methods import settings_of
from cmcr.connection.methods.c_mcr import enhance
from cmcr.errors import ConfigError, DeviceError, DimensionError, DtypeError, TooFewRowsError, TrainingError
from connection.trained import completed_batches, initial_layers
from engine.rows import Disk, random_rows
from reference.connection import recall_at_one
from reference.enhancement import normalize

CPU = torch.device("cpu")
QUICK = {"method": "c-mcr", "epochs": 1, "device": "cpu"}


def raw(seed, rows, width, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(dtype)


def clip(kind=np.asarray, **changes):
    arrays = {"text": raw(1, 40, 3), "image": raw(2, 9, 3)} | changes
    return cmcr.Memories("clip", **{name: kind(array) for name, array in arrays.items()})


def clap(kind=np.asarray, **changes):
    arrays = {"text": raw(3, 40, 5), "audio": raw(4, 7, 5)} | changes
    return cmcr.Memories("clap", **{name: kind(array) for name, array in arrays.items()})


def assert_same(one, two):
    for ours, theirs in zip(one.projectors.values(), two.projectors.values(), strict=True):
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


# ------------------------------------------------------------------------------------------------------ against the twins


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalize_consistency": False, "batch_norm": "apart", "noise_variance": 0.0},
        {"semantic_consistency": False, "rescale_noise": False, "centring": False},
    ],
)
def test_everything_from_arrays_to_projected_rows_equals_the_twins(changes):
    chosen = {"consistency_temperature": 0.3, "ttc_temperature": 0.2, "avc_temperature": 0.3, "width": 3, "hidden": ()}
    chosen |= {"batch_size": 5, "epochs": 1, "learning_rate": 0.02, "weight_decay": 0.3, **changes}
    chosen["own_share"] = 0.0
    settings = settings_of("c-mcr", **chosen)
    sets, centred = [], []
    for seed, width, outer in ((1, 3, 9), (3, 5, 7)):
        items, memory = normalize(raw(seed, 40, width)), normalize(raw(seed + 1, outer, width))
        mean = enhancement_twin.semantic_consistency(items, memory, 0.3)
        consistent = normalize(mean) if settings.normalize_consistency else mean
        centred.append(methods_twin.centring(items, memory) if settings.centring else normalize)
        sets += [items, consistent if settings.semantic_consistency else items]
        if settings.centring:
            sets[-2:] = [centred[-1](rows) for rows in sets[-2:]]
    # A step of next to no length leaves the initial weights.
    start = connect(
        clip(), clap(), method="c-mcr", device="cpu", seed=6, **{**chosen, "learning_rate": 1e-30, "weight_decay": 0.0}
    )
    layers = tuple(
        initial_layers(next(part for part in found.modules() if hasattr(part, "linears")))
        for found in start.projectors.values()
    )
    batches = list(completed_batches([torch.from_numpy(x).float() for x in sets], settings, 6))
    losses = {"ttc_temperature": 0.2, "avc_temperature": 0.3}
    expected, history = training_twin.train(layers, batches, settings.batch_norm, 0.02, 0.3, **losses)
    connection = connect(clip(), clap(), method="c-mcr", device="cpu", seed=6, **chosen)
    np.testing.assert_allclose(connection.history["total"], [step[0] for step in history], rtol=1e-4)
    for space, width, to, trained in zip(("clip", "clap"), (3, 5), centred, expected, strict=True):
        rows = raw(9, 6, width)
        found = connection.project(rows, space)
        np.testing.assert_allclose(found, projector_twin.project(to(normalize(rows)), trained), atol=1e-4)
        assert np.abs(found - start.project(rows, space)).max() > 0.01  # the steps are far from nothing


def test_enhance_computes_what_connect_trains_on():
    left, right = clip(), clap()
    settings = settings_of("c-mcr", epochs=1)
    given = {"clip": enhance(left.rows["text"], left.rows["image"], settings, CPU)}
    expected = normalize(enhancement_twin.semantic_consistency(normalize(raw(1, 40, 3)), normalize(raw(2, 9, 3)), 0.01))
    np.testing.assert_allclose(given["clip"], expected, atol=3e-5)
    plain = connect(left, right, **QUICK)
    for rows in (given["clip"], given["clip"].numpy()):
        assert_same(connect(left, right, consistent={"clip": rows}, **QUICK), plain)
    other = connect(left, right, consistent={"clap": random_rows(40, 5, 0)}, **QUICK)
    assert other.history["avc"][0] != pytest.approx(plain.history["avc"][0])


# ----------------------------------------------------------------------------------------------------- what it connects


@pytest.mark.parametrize(
    ("overlap", "left_outer", "right_outer"),
    [("text", "image", "audio"), ("image", "text", "point_cloud"), ("audio", "text", "image")],
)
def test_any_modality_can_be_the_overlap(overlap, left_outer, right_outer):
    left = cmcr.Memories("one", **{left_outer: raw(2, 9, 3), overlap: raw(1, 40, 3)})
    right = cmcr.Memories("two", **{overlap: raw(3, 40, 5), right_outer: raw(4, 7, 5)})
    found = connect(left, right, **QUICK)
    assert found.overlap == overlap
    assert [space.modalities for space in found.spaces] == [(overlap, left_outer), (overlap, right_outer)]
    assert_same(found, connect(left, right, overlap=overlap, **QUICK))
    assert_same(found, connect(clip(), clap(), **QUICK))  # names change nothing


def test_the_same_outer_modality_on_both_sides_needs_the_overlap_named():
    left = cmcr.Memories("one", text=raw(1, 40, 3), image=raw(2, 40, 3))
    right = cmcr.Memories("two", text=raw(3, 40, 5), image=raw(4, 40, 5))
    with pytest.raises(ConfigError, match="share text, image"):
        connect(left, right, **QUICK)
    by_text, by_image = (connect(left, right, overlap=overlap, **QUICK) for overlap in ("text", "image"))
    assert (by_text.overlap, by_image.overlap) == ("text", "image")
    assert by_text.history != by_image.history


def test_four_memories_on_disk_are_grouped_by_their_own_class():
    class Stored(Disk):
        @staticmethod
        def by_space(memories, overlap):
            assert ([len(memory) for memory in memories], overlap) == ([40, 9, 40, 7], None)
            return clip(), clap()

    memories = [Stored(raw(seed, rows, 3)) for seed, rows in ((1, 40), (2, 9), (3, 40), (4, 7))]
    assert_same(connect(*memories, **QUICK), connect(clip(), clap(), **QUICK))


class Space:
    name, fingerprint = "clip", "abc"

    def encode(self, inputs, modality, *, batch_size, show_progress_bar):
        raise AssertionError("connecting encodes nothing")


def test_the_connection_remembers_how_it_was_made():
    space = Space()
    left = cmcr.Memories(space, text=raw(1, 40, 3), image=raw(2, 9, 3))
    connection = connect(left, clap(), seed=np.int64(7), hidden=(4,), **QUICK | {"method": "c-mcr-published"})
    assert (connection.method, connection.overlap, connection.overlap_rows) == ("c-mcr-published", "text", 40)
    assert (type(connection.seed), connection.seed) == (int, 7)
    assert connection.settings == settings_of("c-mcr-published", epochs=1, hidden=(4,))
    assert [(s.name, s.modalities, s.width, s.fingerprint, s.outer_rows) for s in connection.spaces] == [
        ("clip", ("text", "image"), 3, "abc", 9),
        ("clap", ("text", "audio"), 5, None, 7),
    ]
    assert connection.width == 512  # the published one
    assert len(connection.history["total"]) == 1  # the published batch holds all 40 items
    assert connection.encoders == {"clip": space}


def test_kind_scale_precision_and_number_of_the_arrays_do_not_matter():
    plain = connect(clip(), clap(), **QUICK)
    assert_same(connect(clip(torch.tensor), clap(torch.tensor), **QUICK), plain)
    assert_same(connect(clip(text=raw(1, 40, 3) * 8, image=raw(2, 9, 3) * 0.5), clap(), **QUICK), plain)
    half = {"text": raw(1, 40, 3, np.float16), "image": raw(2, 9, 3, np.float16)}
    single = {name: array.astype(np.float32) for name, array in half.items()}
    assert_same(connect(clip(**half), clap(), **QUICK), connect(clip(**single), clap(), **QUICK))
    smallest = connect(clip(text=raw(1, 2, 3), image=raw(2, 2, 3)), clap(text=raw(3, 2, 5)), **QUICK)
    assert len(smallest.history["total"]) == 1


def test_progress_reports_the_stages_in_order_and_every_step_can_be_kept():
    reported, steps, kept = [], [], {}

    def keep(state):
        steps.append(state.step)
        if state.step == 13:
            kept.update({name: value.clone() for name, value in state.tensors().items()})

    how = {**QUICK, "epochs": 2, "after_step": keep}
    whole = connect(clip(), clap(), progress=lambda stage, done: reported.append((stage, done)), **how)
    halves = [(stage, done) for stage in ("semantic consistency", "training") for done in (0.5, 1.0)]
    assert reported == halves
    assert steps == list(range(1, 41))
    assert_same(connect(clip(), clap(), resume_from=dict(kept), **how), whole)
    assert steps[40:] == list(range(14, 41))


# ------------------------------------------------------------------------------------------------------------- quality


@pytest.mark.parametrize("shuffled", [False, True])
def test_outer_modalities_find_each_other_without_pairs_unless_the_overlap_is_shuffled(rng, shuffled):
    """Two spaces that see the same latent codes through different maps, each modality behind its own gap."""
    maps = {"clip": rng.normal(size=(6, 64)), "clap": rng.normal(size=(6, 48))}
    gaps = {(s, m): 1.5 * rng.normal(size=maps[s].shape[1]) for s in maps for m in ("text", "image", "audio")}

    def embed(latent, space, modality):
        seen = latent @ maps[space] + gaps[space, modality]
        return normalize(seen + 0.05 * rng.normal(size=seen.shape)).astype(np.float32)

    texts, pictures, sounds, unseen = (rng.normal(size=(rows, 6)) for rows in (800, 800, 800, 100))
    others = texts[rng.permutation(800)] if shuffled else texts
    left = cmcr.Memories("clip", text=embed(texts, "clip", "text"), image=embed(pictures, "clip", "image"))
    right = cmcr.Memories("clap", text=embed(others, "clap", "text"), audio=embed(sounds, "clap", "audio"))
    connection = connect(left, right, method="c-mcr", epochs=12, batch_size=50, device="cpu")
    image, text, audio = (
        connection.project(embed(unseen, space, modality), space)
        for space, modality in (("clip", "image"), ("clip", "text"), ("clap", "audio"))
    )
    for queries, corpus in ((audio, image), (image, audio), (text, audio)):
        found = recall_at_one(queries, corpus)
        assert found < 0.1 if shuffled else found > 0.5  # chance is 1 in 100


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("memories", "options", "error", "message"),
    [
        ((clip(), clap(text=raw(3, 39, 5))), {}, DimensionError, "40 rows in 'clip' and 39 in 'clap'"),
        ((clip(text=raw(1, 1, 3)), clap(text=raw(3, 1, 5))), {}, TooFewRowsError, "at least 2 rows"),
        ((clip(), clip()), {}, ConfigError, "give them different names"),
        ((cmcr.Memories("clip", image=raw(2, 9, 3)), clap()), {}, ConfigError, "share no modality"),
        ((cmcr.Memories("clip", text=raw(1, 40, 3)), clap()), {}, ConfigError, "besides the overlap 'text', got none"),
        ((clip(),), {}, ConfigError, "expected two or more cmcr.Memories"),
        ((), {}, ConfigError, "expected two or more cmcr.Memories"),
        ((raw(1, 40, 3), raw(3, 40, 5)), {}, ConfigError, "got ndarray"),
        ((clip(), clap()), {"overlap": "txt"}, ConfigError, "Did you mean 'text'"),
        ((clip(), clap()), {"method": "cmcr"}, ConfigError, "Did you mean 'c-mcr'"),
        ((clip(), clap()), {"method": "c-mcr", "learning_rat": 0.1}, ConfigError, "did you mean 'learning_rate'"),
        ((clip(), clap()), {"method": "c-mcr", "epochs": 0}, ConfigError, "settings: epochs"),
        ((clip(), clap()), {"seed": -1}, ConfigError, "seed: expected a whole number"),
        ((clip(), clap()), {"device": "gpu"}, DeviceError, "unknown device"),
        ((clip(), clap()), {"consistent": {"clup": raw(1, 40, 3)}}, ConfigError, "Did you mean 'clap'|'clip'"),
        ((clip(), clap()), {"consistent": {"clip": [[1.0]]}}, DtypeError, "consistent rows of space 'clip'"),
    ],
)
def test_what_cannot_be_connected_is_refused_before_any_work(memories, options, error, message):
    stages = []
    with pytest.raises(error, match=message):
        connect(*memories, progress=lambda stage, done: stages.append(stage), **options)
    assert stages == []


def test_errors_of_the_training_come_through():
    with pytest.raises(TrainingError, match="by step 20 of 20"):
        connect(clip(), clap(), ttc_temperature=1e-40, **QUICK)
    with pytest.raises(DimensionError, match="one row per overlap item"):
        connect(clip(), clap(), consistent={"clip": raw(1, 39, 3)}, **QUICK)
