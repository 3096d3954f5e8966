"""What a connection is compared with: chance, its own space, and the baselines among the methods."""

import numpy as np
import pytest

import cmcr
from cmcr.evaluation.baselines import BASELINES, chance, own_space, through
from cmcr.evaluation.tasks.embedding import Embedded


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


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


def test_closed_forms_recover_a_rotation_that_a_gap_between_modalities_hides(given):
    eyes, ears, images, sounds = given
    methods = {name: through(found) for name, found in cmcr.baselines(eyes, ears).items()}
    assert list(methods) == list(BASELINES)
    for name in ("centred ridge", "centred procrustes", "cca"):
        nearest = (methods[name](images) @ methods[name](sounds).T).argmax(axis=1)
        assert (nearest == np.arange(25)).mean() > 0.5, name  # chance is 0.04
    assert ((images.rows @ sounds.rows.T).argmax(axis=1) == np.arange(25)).mean() < 0.2


def test_baselines_are_methods_of_connect_without_the_parents_own_blocks(given):
    eyes, ears, images, _ = given
    found = cmcr.connect(eyes, ears, overlap="text", method="ridge", own_share=0.0)
    baseline = cmcr.baselines(eyes, ears, overlap="text")["centred ridge"]
    np.testing.assert_array_equal(through(baseline)(images), through(found)(images))


def test_a_connection_projects_and_a_space_stays_as_it_is(given):
    eyes, ears, images, sounds = given
    connection = cmcr.connect(eyes, ears, method="c-mcr", epochs=1, batch_size=100)
    for embedded in (images, sounds):
        projected = connection.project(embedded.rows, space=embedded.space)
        np.testing.assert_array_equal(through(connection)(embedded), projected)
        assert own_space(embedded) is embedded.rows


def test_chance_is_one_draw_for_a_whole_run(rng):
    many = Embedded.whole("eyes", "image", rng.standard_normal((2000, 4), dtype=np.float32))
    rows = chance(5)(many)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert len(np.unique(rows, axis=0)) == 2000
    cosines = rows @ rows.T
    assert abs(cosines[~np.eye(2000, dtype=bool)].mean()) < 4 / np.sqrt(64 * 2000)
    # Handed over in groups, as regions of pictures are, every item keeps its row; equal items stay equal.
    parts = [chance(5)(many.only(range(start, start + 100))) for start in range(0, 2000, 100)]
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    np.testing.assert_array_equal(chance(5)(many.only([7, 7]))[0], rows[7])
    assert (rows != chance(6)(many)).any(axis=1).all()
