"""The miniature spaces: what they find, read and refuse."""

import numpy as np
import pytest
import torch
from PIL import Image

import cmcr
from cmcr.data.numbers import ALL_NUMBERS, UNSEEN_NUMBERS, draw_pictures, sample_point_clouds, speak_sounds, write_texts
from cmcr.evaluation.metrics import PerQuery, hits, positive_ranks
from cmcr.spaces.mini.space import log_mel_of, tokens_of, voxels_of


def items(modality, numbers, seed=0):
    rng = np.random.default_rng(seed)
    if modality == "text":
        return write_texts(numbers, rng)
    if modality == "image":
        return list(draw_pictures(numbers, "test", rng))
    if modality == "audio":
        return [{"array": s, "sampling_rate": 8000} for s in speak_sounds(numbers, "test", rng)]
    return list(sample_point_clouds(numbers, "test", rng))


@pytest.mark.parametrize(("name", "least"), [("mini-clip", 0.6), ("mini-clap", 0.6), ("mini-ulip", 0.5)])
def test_each_space_finds_its_own_partner_seen_or_not(name, least):
    space = cmcr.space(name)
    first, second = space.widths
    a = space.encode(items(first, ALL_NUMBERS, 1), first, batch_size=200)
    b = space.encode(items(second, ALL_NUMBERS, 2), second, batch_size=200)
    partners = PerQuery.one(ALL_NUMBERS)
    found = np.stack([hits(positive_ranks(*both, partners), 1) for both in ((a, b), (b, a))])
    assert least < found.mean() < 0.9
    assert found[:, UNSEEN_NUMBERS].mean() > least - 0.1


def test_pictures_of_another_size_and_mode_are_brought_to_the_encoders():
    space = cmcr.space("mini-clip")
    grey = Image.fromarray(draw_pictures(np.array([123]), "test", np.random.default_rng(0))[0])
    large = grey.resize((320, 120), Image.Resampling.NEAREST).convert("RGB")
    assert float(space.encode([grey], "image")[0] @ space.encode([large], "image")[0]) > 0.95


def test_point_clouds_do_not_depend_on_order_place_or_size():
    space = cmcr.space("mini-ulip")
    cloud = sample_point_clouds(np.array([123]), "test", np.random.default_rng(0))[0]
    shuffled = np.random.default_rng(1).permutation(cloud) * 4.0 + np.float32(2.0)
    a, b = space.encode([cloud], "point_cloud"), space.encode([shuffled], "point_cloud")
    assert float(a[0] @ b[0]) > 0.99
    mixed = space.encode([cloud, cloud[:300]], "point_cloud")
    np.testing.assert_allclose(mixed[0], a[0], atol=1e-5)


def test_a_space_is_opened_once():
    assert cmcr.space("mini-clip") is cmcr.space("mini-clip")


def test_tokens():
    row = tokens_of(["Four OH seven, 407 xylophone!"])[0].tolist()
    again = tokens_of(["four oh seven 4 0 7 unheard"])[0].tolist()
    assert row == again
    assert row[8:] == [0] * 6
    assert len(set(row[1:7])) == 6


def test_log_mel_does_not_depend_on_loudness():
    sound = torch.from_numpy(speak_sounds(np.array([5]), "test", np.random.default_rng(0)))
    spectrum = log_mel_of(sound)
    assert spectrum.shape == (1, 20, 101)
    np.testing.assert_allclose(spectrum.mean().item(), 0.0, atol=1e-5)
    np.testing.assert_allclose(spectrum.std().item(), 1.0, atol=1e-4)


def test_voxels_count_points_right_side_up():
    cloud = torch.tensor([[[-0.9, 0.28, 0.0]] * 3 + [[0.9, -0.28, 0.0]]])
    grid = torch.expm1(voxels_of(cloud)) * 4 / 608
    filled = {tuple(cell): round(grid[tuple(cell)].item(), 3) for cell in grid.nonzero().tolist()}
    assert filled == {(0, 1, 1, 2): 3.0, (0, 1, 10, 33): 1.0}
