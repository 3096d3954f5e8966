"""ULIP-2 with PointBERT: parity with the published code, safe and strict files, preprocessing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from small_models import (
    CLIP_PIECES,
    GROUP_SIZE,
    NUM_GROUP,
    NUM_POINTS,
    SMALL,
    cloud,
    items,
    point_tower,
    save_published,
    text_tower,
    ulip_state,
)

from cmcr.data.point_clouds import with_up_axis
from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, SampleError
from cmcr.spaces.points.groups import group_points, prepared_points
from cmcr.spaces.points.towers import TowerShape
from cmcr.spaces.ulip.pictures import pixels_of
from cmcr.spaces.ulip.space import UlipSpace
from cmcr.spaces.ulip.towers import ImageTower, PointCloudTower, TextTower
from reference.point_groups import groups as reference_groups


def fixture(name):
    for parent in Path(__file__).parents:
        for folder in (parent / "shared", parent.parent / "shared"):
            path = folder / "fixtures" / "ulip" / f"{name}.safetensors"
            if path.is_file():
                with safe_open(path, "pt") as file:
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
                    return json.loads(file.metadata()["config"]), tensors
    pytest.skip("no folder shared/fixtures/ulip beside the repository")


def loaded(tower, tensors):
    tower.load_state_dict({key.removeprefix("state."): v for key, v in tensors.items() if key.startswith("state.")})
    return tower.eval().requires_grad_(False)


def shape_of(width, depth, heads, tensors):
    return TowerShape(width, depth, heads, 4 * width, tensors["embeddings"].shape[1])


def assert_close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def space(spaces):
    return spaces["ulip-xyz"]


@pytest.fixture(scope="module")
def coloured(spaces):
    return spaces["ulip-xyzrgb"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The weights of `space`, as published."""
    return save_published(tmp_path_factory.mktemp("ulip") / "small.pt", ulip_state())


class TestParity:
    @pytest.mark.parametrize(("name", "channels"), [("pointbert_xyz", 3), ("pointbert_xyzrgb", 6)])
    def test_point_clouds_as_published(self, name, channels):
        config, tensors = fixture(name)
        shape = shape_of(config["trans_dim"], config["depth"], config["num_heads"], tensors)
        tower = loaded(PointCloudTower(shape, channels=channels, group_width=config["encoder_dims"]), tensors)
        divided = [group_points(p.numpy(), config["num_group"], config["group_size"]) for p in tensors["points"]]
        inputs = [torch.from_numpy(np.stack(part)) for part in zip(*divided, strict=True)]
        assert_close(tower.point_encoder(*inputs), tensors["features"])
        assert_close(tower(*inputs), tensors["embeddings"])

    def test_pictures_as_published(self):
        config, tensors = fixture("image_tower")
        shape = shape_of(config["embed_dim"], config["depth"], config["num_heads"], tensors)
        tower = loaded(ImageTower(shape, size=config["img_size"], patch=config["patch_size"]), tensors)
        assert_close(tower.visual(tensors["pixels"]), tensors["features"])
        assert_close(tower(tensors["pixels"]), tensors["embeddings"])

    def test_texts_as_published_whatever_follows_their_end(self):
        config, tensors = fixture("text_tower")
        shape = shape_of(config["width"], config["layers"], config["heads"], tensors)
        tower = TextTower(shape, vocabulary=config["vocab_size"], context=config["context_length"])
        loaded(tower, tensors)
        ids = tensors["token_ids"]
        assert_close(tower(ids), tensors["embeddings"])
        end = int(ids[0].argmax()) + 1
        assert_close(tower(ids[:1, :end]), tensors["embeddings"][:1])


class TestGroups:
    @settings(max_examples=60)
    @given(st.integers(0, 2**32), st.integers(1, 24), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0, 1, 50]))
    def test_equal_the_plain_way_with_ties_and_duplicates(self, seed, count, groups, size, core):
        points = np.random.default_rng(seed).integers(-2, 3, size=(count, 3)).astype(np.float32)
        num_group, group_size = 1 + int(groups * (count - 1)), 1 + int(size * (count - 1))
        found = group_points(points, num_group, group_size, core)
        neighborhoods, centers = reference_groups(points, num_group, group_size, core)
        np.testing.assert_array_equal(found[0], neighborhoods)
        np.testing.assert_array_equal(found[1], centers)


def test_a_cloud_embeds_as_its_tower_does(space):
    points = prepared_points(cloud(0), channels=3, num_points=40, fewest=12, up_axis="y")
    neighborhoods, centers = group_points(points, NUM_GROUP, GROUP_SIZE)
    tower = point_tower().requires_grad_(False)
    row = tower(torch.from_numpy(neighborhoods)[None], torch.from_numpy(centers)[None])
    found = space.encode([cloud(0)], "point_cloud", normalize_embeddings=False)
    np.testing.assert_allclose(found, row.numpy(), atol=1e-5)


def test_settings_out_of_range_are_refused(published):
    for setting, message in [
        ({"up_axis": "w"}, "up_axis 'w'"),
        ({"num_points": 100}, "num_points: .*at least 512"),
        ({"group_size": 0}, "group_size"),
    ]:
        with pytest.raises(ConfigError, match=message):
            UlipSpace(published, **setting)


def test_the_fingerprint_follows_the_settings(published, space):
    assert UlipSpace(published, **SMALL).fingerprint == space.fingerprint
    assert UlipSpace(published, up_axis="z", **SMALL).fingerprint != space.fingerprint
    assert UlipSpace(published, **(SMALL | {"num_points": 41})).fingerprint != space.fingerprint
    assert UlipSpace(published, num_points=8192).fingerprint == UlipSpace(published).fingerprint


class TestFiles:
    def test_a_published_file_is_the_same_space_as_its_tensors(self, published, spaces, space):
        found = UlipSpace(published, tokenizer=spaces.root / "ulip-xyz" / "tokenizer", **SMALL)
        assert found.fingerprint == space.fingerprint
        for modality in space.widths:
            np.testing.assert_array_equal(
                found.encode(items(modality), modality), space.encode(items(modality), modality)
            )

    def test_the_coloured_files_copy_of_another_model_is_left_out(self, tmp_path, coloured):
        state = ulip_state(point_tower(6, 1)) | {"open_clip_model.visual.proj": torch.ones(2, 2)}
        path = save_published(tmp_path / "openclip.pt", state)
        assert UlipSpace(path, **SMALL).fingerprint == coloured.fingerprint

    def test_every_difference_is_listed_with_both_shapes(self, tmp_path):
        state = ulip_state() | {"point_encoder.cls_head": torch.ones(2), "ln_final.bias": torch.ones(63)}
        del state["visual.blocks.1.norm2.weight"]
        with pytest.raises(FormatError) as caught:
            UlipSpace(save_published(tmp_path / "x.pt", state), **SMALL)
        for fact in ("x.pt", "visual.blocks.1.norm2.weight", "point_encoder.cls_head", "ln_final.bias", "([63])"):
            assert fact in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("point_encoder.encoder.first_conv.0.weight", torch.ones(128, 4, 1), "got 4"),
            ("point_encoder.reduce_dim.weight", torch.ones(60, 24), "a multiple of 64"),
            ("pc_projection", torch.ones(128), "not those of a published ULIP file"),
            ("pc_projection", torch.ones(128, 31), "different widths"),
            ("visual.pos_embed", torch.ones(1, 16, 64), "size mismatch for .*visual.pos_embed"),
            ("text_projection", torch.full((64, 32), torch.nan), "NaN .*text_projection"),
        ],
    )
    def test_impossible_tensors_are_named(self, tmp_path, name, value, message):
        with pytest.raises(FormatError, match=message):
            UlipSpace(save_published(tmp_path / "x.pt", ulip_state() | {name: value}))

    def test_other_files_say_what_to_fetch(self, tmp_path):
        with pytest.raises(FormatError, match=r"missing 'point_encoder.*salesforce/ULIP"):
            UlipSpace(save_published(tmp_path / "resnet.pt", {"conv1.weight": torch.ones(3)}))

    def test_any_safetensors_of_the_published_names_is_read_in_any_precision(self, tmp_path, space):
        state = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in ulip_state().items()}
        save_file(state, tmp_path / "own.safetensors")
        rows = UlipSpace(tmp_path / "own.safetensors", **SMALL).encode(items("point_cloud"), "point_cloud")
        np.testing.assert_allclose(rows, space.encode(items("point_cloud"), "point_cloud"), atol=0.01)


class TestPointClouds:
    @given(st.tuples(*[st.integers(-64, 64)] * 3), st.integers(-60, 60), st.integers(0, 5))
    def test_place_and_size_do_not_matter(self, space, offset, doublings, seed):
        points = cloud(seed)
        moved = (points + np.array(offset, dtype=np.float32)) * np.float32(2.0) ** doublings
        rows = space.encode([points, moved], "point_cloud")
        np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-5)

    def test_a_turned_cloud_with_its_up_axis_embeds_the_same(self, published, space):
        lying = cloud(0)[:, [2, 0, 1]]  # a rotation: y goes to z
        found = UlipSpace(published, up_axis="z", **SMALL).encode([lying], "point_cloud")
        np.testing.assert_allclose(found, space.encode([with_up_axis(lying, "z")], "point_cloud"), atol=1e-6)

    def test_more_points_than_the_count_are_thinned_evenly(self, space):
        points = cloud(8, 2 * NUM_POINTS)
        rows = space.encode([points, points[::2]], "point_cloud")
        np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-6)

    def test_fewer_points_are_used_as_they_are_down_to_what_groups_need(self, published):
        found = UlipSpace(published, num_group=20, group_size=6, num_points=40)
        assert np.isfinite(found.encode([cloud(1, 20)], "point_cloud")).all()
        with pytest.raises(SampleError, match="at least 20 points"):
            found.encode([cloud(1, 19)], "point_cloud")

    def test_colours_are_read_where_the_model_has_them_and_grey_where_there_are_none(self, coloured, space):
        points = cloud(2, 50, 6)
        grey = np.concatenate([points[:, :3], np.full((50, 3), 0.4, dtype=np.float32)], axis=1)
        named = {"points": points[:, :3], "rgb": points[:, 3:]}
        rows = coloured.encode([points[:, :3], grey, points, named], "point_cloud")
        np.testing.assert_array_equal(rows[[0, 2]], rows[[1, 3]])
        assert np.abs(rows[0] - rows[2]).max() > 1e-3
        plain = space.encode([points, points[:, :3]], "point_cloud")
        np.testing.assert_array_equal(plain[0], plain[1])
        with pytest.raises(SampleError, match="its colours"):
            coloured.encode([np.abs(points) * 1000], "point_cloud")


class TestPictures:
    def test_imagenets_statistics_are_taken_off(self):
        flat = Image.new("RGB", (300, 260), (124, 116, 104))
        expected = (np.array([124, 116, 104]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(
            pixels_of(flat, 224), np.broadcast_to(expected[:, None, None], (3, 224, 224)), atol=1e-6
        )

    @pytest.mark.parametrize("lying", [True, False])
    def test_the_middle_is_kept(self, lying):
        ramp = np.broadcast_to(np.arange(40, dtype=np.uint8) * 6, (20, 40))
        found = pixels_of(Image.fromarray(np.ascontiguousarray(ramp if lying else ramp.T)), 20)[0]
        middle = (ramp[:, 10:30] / 255 - 0.485) / 0.229
        np.testing.assert_allclose(found if lying else found.T, middle, atol=1e-5)


class TestTexts:
    def test_tokens_start_and_end_a_text(self, spaces, space):
        tower = text_tower().requires_grad_(False)
        words = json.loads((spaces.root / "ulip-xyz" / "tokenizer" / "vocab.json").read_text())
        start, end = len(CLIP_PIECES) - 2, len(CLIP_PIECES) - 1
        ids = torch.tensor([[start, words["a</w>"], words["b"], words["c</w>"], end]])
        found = space.encode(["A  bc "], "text", normalize_embeddings=False)
        np.testing.assert_allclose(found, tower(ids).numpy(), atol=1e-5)

    def test_without_a_tokenizer_everything_else_works(self, published, space, cache, tmp_path):
        bare = UlipSpace(published, tokenizer=tmp_path, **SMALL)
        assert bare.fingerprint == space.fingerprint
        assert np.isfinite(bare.encode(items("image"), "image")).all()
        with pytest.raises(FormatError, match=r"lacks tokenizer\.json or vocab\.json and merges\.txt"):
            bare.encode(["a"], "text")
        with pytest.raises(ArtefactNotFoundError, match="hf download openai/clip-vit-base-patch32"):
            UlipSpace(published, **SMALL).encode(["a"], "text")

    def test_a_tokenizer_of_another_vocabulary_is_refused(self, spaces, space, tmp_path):
        path = save_published(tmp_path / "x.pt", ulip_state(point_tower(), text_tower(600)))
        found = UlipSpace(path, tokenizer=spaces.root / "ulip-xyz" / "tokenizer", **SMALL)
        with pytest.raises(FormatError, match=rf"\(598, 599\), as these weights do, got \({len(CLIP_PIECES) - 2}"):
            found.encode(["a"], "text")
