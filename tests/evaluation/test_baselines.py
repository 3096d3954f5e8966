"""What a connection is compared with: chance, its own space, and closed forms against numpy and scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import cmcr
from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import (
    RIDGE_STRENGTH,
    RIDGE_STRENGTHS,
    baselines,
    centred_procrustes,
    centred_ridge,
    chance,
    overlap_posterior,
    own_space,
    through,
)
from cmcr.evaluation.tasks.embedding import Embedded


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_procrustes_finds_a_rotation_between_the_spaces(rng):
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    right = unit(rng.normal(size=(200, 6)))
    np.testing.assert_allclose(centred_procrustes(right @ rotation, right).numpy(), rotation, atol=1e-5)


def test_procrustes_between_different_widths_keeps_the_narrower_space_whole(rng):
    found = centred_procrustes(unit(rng.normal(size=(300, 8))), unit(rng.normal(size=(300, 5)))).numpy()
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-5)


@pytest.mark.parametrize("strength", RIDGE_STRENGTHS)
def test_ridge_equals_scikit_learn(rng, strength):
    right = unit(rng.normal(size=(120, 5)))
    left = unit(right @ rng.normal(size=(5, 7)) + 0.3 * rng.normal(size=(120, 7)))
    centred = right - right.mean(axis=0)
    expected = Ridge(alpha=strength * (centred**2).sum() / 5).fit(right, left).coef_.T
    np.testing.assert_allclose(centred_ridge(left, right, strength).numpy(), expected, atol=1e-5)


def test_overlap_posterior_is_a_softmax_of_cosines(rng):
    rows, overlap = unit(rng.normal(size=(5, 4))), unit(rng.normal(size=(9, 4)))
    weights = np.exp(rows @ overlap.T / 0.02)
    expected = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(overlap_posterior(3 * rows, overlap).numpy(), expected, atol=1e-9)


@pytest.fixture
def given(rng):
    """Unpaired memories of two spaces, of which the second is a rotation of the first; every modality lies apart."""
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    gaps = {name: 1.5 * rng.standard_normal(6) for name in ("text", "image", "audio")}

    def rows(items, modality, turned):
        return unit((items @ rotation if turned else items) + gaps[modality]).astype(np.float32)

    texts, things, shown = (rng.standard_normal((count, 6)) for count in (200, 300, 25))
    eyes = cmcr.Memories("eyes", text=rows(texts, "text", False), image=rows(things, "image", False))
    ears = cmcr.Memories("ears", text=rows(texts, "text", True), audio=rows(things[::-1], "audio", True))
    images = Embedded.whole("eyes", "image", rows(shown, "image", False))
    return eyes, ears, images, Embedded.whole("ears", "audio", rows(shown, "audio", True))


def test_baselines_recover_a_rotation_that_a_gap_between_modalities_hides(given):
    eyes, ears, images, sounds = given
    methods = baselines(eyes, ears, "text")
    for name in ("centred ridge", "centred procrustes"):
        nearest = (methods[name](images) @ methods[name](sounds).T).argmax(axis=1)
        assert (nearest == np.arange(25)).mean() > 0.5, name  # chance is 0.04
    assert ((images.rows @ sounds.rows.T).argmax(axis=1) == np.arange(25)).mean() < 0.2


def test_baselines_centre_each_modality_by_its_own_mean(given):
    eyes, ears, images, sounds = given
    methods = baselines(eyes, ears, "text")
    weight = centred_ridge(eyes.loaded("text"), ears.loaded("text"), RIDGE_STRENGTH).numpy()
    means = eyes.loaded("image").numpy().mean(axis=0), ears.loaded("audio").numpy().mean(axis=0)
    np.testing.assert_allclose(methods["centred ridge"](images), unit(images.rows - means[0]), atol=1e-5)
    np.testing.assert_allclose(methods["centred ridge"](sounds), unit((sounds.rows - means[1]) @ weight), atol=1e-5)
    expected = overlap_posterior(sounds.rows, ears.loaded("text")).numpy()
    np.testing.assert_array_equal(methods["posterior"](sounds), expected)
    with pytest.raises(ConfigError, match="depth in eyes"):
        methods["centred ridge"](Embedded.whole("eyes", "depth", images.rows))


def test_a_connection_projects_and_a_space_stays_as_it_is(given):
    eyes, ears, images, sounds = given
    connection = cmcr.connect(eyes, ears, method="c-mcr", epochs=1, batch_size=100)
    for embedded in (images, sounds):
        projected = connection.project(embedded.rows, space=embedded.space)
        np.testing.assert_array_equal(through(connection)(embedded), projected)
        assert own_space(embedded) is embedded.rows


def test_chance_knows_nothing_but_its_seed():
    many = Embedded.whole("eyes", "image", np.zeros((2000, 4), dtype=np.float32))
    method = chance(5)
    first, second = method(many), method(many)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    assert abs((first * second).sum(axis=1).mean()) < 4 / np.sqrt(64 * 2000)
    np.testing.assert_array_equal(first, chance(5)(many))
    assert (first != chance(6)(many)).any()
