"""Uni3D: equal to the published architecture in numpy, strict files, coordinates without colours."""

import numpy as np
import pytest
import torch
from small_models import GROUP_SIZE, NUM_GROUP, SMALL, cloud, save_published, uni3d_state

from cmcr.errors import FormatError
from cmcr.spaces.points.groups import prepared_points
from cmcr.spaces.uni3d import Uni3dSpace
from reference.uni3d import Weights, embedding


@pytest.fixture(scope="module")
def space(spaces):
    return spaces["uni3d"]


def test_clouds_embed_as_in_the_published_architecture(space):
    depth, state = 2, uni3d_state()
    weights = Weights(state)
    found = space.encode([cloud(seed, 40, 6) for seed in range(3)], "point_cloud", normalize_embeddings=False)
    for seed, row in enumerate(found):
        points = prepared_points(cloud(seed, 40, 6), channels=6, num_points=40, fewest=12, up_axis="y")
        expected = embedding(weights, points, num_group=NUM_GROUP, group_size=GROUP_SIZE, depth=depth)
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    passed_over = {name for name in state if name.endswith("num_batches_tracked")}
    passed_over |= {f"point_encoder.visual.{name}" for name in ("cls_token", "pos_embed", "head.weight", "head.bias")}
    passed_over |= {f"point_encoder.visual.patch_embed.proj.{name}" for name in ("weight", "bias")}
    assert set(state) - weights.asked == passed_over | {"logit_scale"}


def test_points_at_the_centre_are_never_the_centre_of_a_group(space):
    """As in the compiled sampling that the published encoder was trained with."""
    rng = np.random.default_rng(0)
    rim, lump = rng.normal(size=(6, 3)), rng.normal(size=(14, 3)) * 1e-3
    points = np.concatenate([rim, -rim, lump, -lump]).astype(np.float32)
    neighborhoods, centers = space._grouped(points)
    assert neighborhoods.shape == (NUM_GROUP, GROUP_SIZE, 6)
    assert (np.linalg.norm(centers, axis=1) > 0.03).all()


def test_a_cloud_without_colours_is_grey(space):
    points = cloud(2)
    grey = np.concatenate([points, np.full((50, 3), 0.4, dtype=np.float32)], axis=1)
    rows = space.encode([points, grey, {"points": points, "rgb": grey[:, 3:] / 2}], "point_cloud")
    np.testing.assert_array_equal(rows[0], rows[1])
    assert np.abs(rows[0] - rows[2]).max() > 1e-3


class TestFiles:
    def test_a_published_file_in_half_precision_is_read(self, tmp_path, space):
        """As DeepSpeed writes it: the tensors under "module", what else it keeps beside them."""
        state = {name: value.half() if value.is_floating_point() else value for name, value in uni3d_state().items()}
        torch.save({"module": state, "buffer_names": ["a"], "ds_version": "0.10.3", "epoch": 3}, tmp_path / "model.pt")
        rows = Uni3dSpace(tmp_path / "model.pt", device="cpu", **SMALL).encode([cloud(0)], "point_cloud")
        np.testing.assert_allclose(rows, space.encode([cloud(0)], "point_cloud"), atol=0.01)

    @pytest.mark.parametrize(
        ("changes", "facts"),
        [
            ({"point_encoder.visual.rope": torch.ones(2)}, ["visual.rope"]),
            ({"point_encoder.visual.blocks.1.mlp.norm.bias": torch.ones(3)}, ["mlp.norm.bias", "([3])"]),
            ({"point_encoder.encoder.first_conv.0.weight": torch.ones(128, 3, 1)}, ["first_conv.0.weight"]),
            ({"point_encoder.visual.blocks.0.mlp.fc1_g.weight": None}, ["missing", "fc1_g", "BAAI/Uni3D"]),
            ({"point_encoder.trans2embed.bias": torch.full((32,), torch.nan)}, ["NaN", "trans2embed.bias"]),
        ],
    )
    def test_other_weights_are_named(self, tmp_path, changes, facts):
        state = {name: value for name, value in (uni3d_state() | changes).items() if value is not None}
        with pytest.raises(FormatError) as caught:
            Uni3dSpace(save_published(tmp_path / "x.pt", state), **SMALL)
        for fact in ("x.pt", *facts):
            assert fact in str(caught.value)
