"""Ways to compare: through a connection, within a space, by chance, and the baselines, which are those of the library."""

import numpy as np
import pytest
import torch

import cmcr
from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import centred_procrustes, centred_ridge, overlap_posterior
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.evaluation.tasks.ways import (
    RIDGE_STRENGTH,
    Chance,
    OwnSpace,
    SpaceRows,
    ThroughConnection,
    baselines,
    unit_mean,
)

COUNT, WIDTHS = 40, {"eyes": 6, "ears": 4}


def rows_of(seed, count, width):
    drawn = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def embedded(space, modality, seed=9, count=10):
    return Embedded(space, modality, rows_of(seed, count, WIDTHS[space]), np.arange(count), {})


@pytest.fixture
def spaces():
    """Unpaired memories of both spaces; the texts are the overlap."""
    return {
        "eyes": SpaceRows({"text": torch.tensor(rows_of(1, COUNT, 6)), "image": torch.tensor(rows_of(2, 30, 6))}),
        "ears": SpaceRows({"text": torch.tensor(rows_of(3, COUNT, 4)), "audio": torch.tensor(rows_of(4, 20, 4))}),
    }


@pytest.fixture(scope="module")
def connection():
    memories = [
        cmcr.Memories(name, text=rows_of(seed, COUNT, WIDTHS[name]), **{other: rows_of(seed + 4, 30, WIDTHS[name])})
        for seed, (name, other) in enumerate((("eyes", "image"), ("ears", "audio")))
    ]
    return cmcr.connect(*memories, epochs=1, batch_size=COUNT)


def test_through_a_connection_is_its_projection(connection):
    way = ThroughConnection(connection)
    assert way.name == "connection"
    for space, modality in (("eyes", "image"), ("ears", "audio")):
        given = embedded(space, modality)
        np.testing.assert_array_equal(way.rows(given), connection.project(given.rows, space=space))
    assert way.rows(embedded("eyes", "image")).shape[1] == connection.width


def test_within_a_space_rows_stay_as_they_are():
    given = embedded("eyes", "image")
    assert OwnSpace().name == "own space"
    assert OwnSpace().rows(given) is given.rows


def test_chance_depends_on_the_seed_the_space_and_the_modality_and_on_nothing_else():
    drawn = Chance(5).rows(embedded("eyes", "image"))
    assert Chance(5).name == "chance"
    assert (drawn.shape, drawn.dtype) == ((10, 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(drawn, Chance(5).rows(embedded("eyes", "image", seed=11)))
    for other in (
        Chance(6).rows(embedded("eyes", "image")),
        Chance(5).rows(embedded("eyes", "text")),
        Chance(5).rows(embedded("ears", "text")),
    ):
        assert np.abs((drawn * other).sum(axis=1)).max() < 0.6


def test_chance_finds_what_chance_finds():
    many = {
        modality: embedded(space, modality, count=2000) for space, modality in (("eyes", "image"), ("ears", "audio"))
    }
    cosines = (Chance(0).rows(many["image"]) * Chance(0).rows(many["audio"])).sum(axis=1)
    assert abs(cosines.mean()) < 4 / np.sqrt(64 * 2000)


def test_baselines_are_those_of_the_library(spaces):
    ridge, procrustes, posterior = baselines("eyes", spaces, "text")
    assert [way.name for way in (ridge, procrustes, posterior)] == ["centred ridge", "centred procrustes", "posterior"]
    image, audio = embedded("eyes", "image"), embedded("ears", "audio")
    one, other = spaces["eyes"].rows["text"], spaces["ears"].rows["text"]
    means = spaces["eyes"].rows["image"].mean(dim=0), spaces["ears"].rows["audio"].mean(dim=0)
    for way, fitted in (
        (ridge, centred_ridge(one, other, RIDGE_STRENGTH)),
        (procrustes, centred_procrustes(one, other)),
    ):
        np.testing.assert_array_equal(way.rows(image), fitted.left(image.rows, means[0]).numpy())
        np.testing.assert_array_equal(way.rows(audio), fitted.right(audio.rows, means[1]).numpy())
    np.testing.assert_array_equal(posterior.rows(image), overlap_posterior(image.rows, one).numpy())
    np.testing.assert_array_equal(posterior.rows(audio), overlap_posterior(audio.rows, other).numpy())


def test_baselines_recover_a_rotation_that_a_gap_between_modalities_hides():
    """Both spaces are one another's rotation, each modality moved by a vector of its own; chance is 0.04."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    texts, things, shown = (rng.standard_normal((count, 6)) for count in (200, 300, 25))
    gaps = {name: 3 * rng.standard_normal(6) for name in ("text", "image", "audio")}

    def made(rows, gap, turned):
        moved = torch.tensor((rows @ rotation if turned else rows) + gap, dtype=torch.float32)
        return torch.nn.functional.normalize(moved, dim=1)

    spaces = {
        "eyes": SpaceRows({"text": made(texts, gaps["text"], False), "image": made(things, gaps["image"], False)}),
        "ears": SpaceRows({"text": made(texts, gaps["text"], True), "audio": made(things, gaps["audio"], True)}),
    }
    image = Embedded("eyes", "image", made(shown, gaps["image"], False).numpy(), np.arange(25), {})
    audio = Embedded("ears", "audio", made(shown, gaps["audio"], True).numpy(), np.arange(25), {})
    ways = {way.name: way for way in baselines("eyes", spaces, "text")}
    for name in ("centred ridge", "centred procrustes"):
        nearest = (ways[name].rows(image) @ ways[name].rows(audio).T).argmax(axis=1)
        assert (nearest == np.arange(25)).mean() > 0.7


def test_memories_that_are_missing_are_named(spaces):
    ridge, *_ = baselines("eyes", spaces, "text")
    with pytest.raises(ConfigError, match=r"the baselines need a memory of depth; given are text, image\."):
        ridge.rows(embedded("eyes", "depth"))
    with pytest.raises(ConfigError, match=r"the baselines need a memory of image; given are text, audio\."):
        baselines("eyes", spaces, "image")


def test_means_of_a_modality_are_taken_once(spaces):
    mean = spaces["eyes"].mean("image")
    np.testing.assert_allclose(mean, rows_of(2, 30, 6).mean(axis=0), atol=1e-6)
    assert spaces["eyes"].mean("image") is mean


def test_unit_means_of_groups(rng):
    rows, counts = rng.standard_normal((9, 4)).astype(np.float32), np.array([2, 1, 6])
    found = unit_mean(rows, counts)
    for mean, group in zip(found, np.split(rows, [2, 3]), strict=True):
        np.testing.assert_allclose(mean, group.mean(axis=0) / np.linalg.norm(group.mean(axis=0)), atol=1e-6)
    assert found.dtype == np.float32
