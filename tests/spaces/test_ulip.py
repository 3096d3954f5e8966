"""ULIP-2 with PointBERT: parity with the published code, safe and strict files, preprocessing."""

import json
import os
import pickle
import threading
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from small_ulip import (
    COLOURED,
    GROUP_SIZE,
    NUM_GROUP,
    NUM_POINTS,
    POINT,
    SMALL,
    TEXT,
    cloud,
    randomised,
    saved,
    state_of,
    write_tokenizer,
)

from cmcr.data.point_clouds import with_up_axis
from cmcr.errors import (
    ArtefactNotFoundError,
    ConfigError,
    DeviceError,
    FormatError,
    SampleError,
    WriteError,
)
from cmcr.spaces.ulip.checkpoint import convert, read_tensors
from cmcr.spaces.ulip.grouping import farthest_points, group_points
from cmcr.spaces.ulip.pointbert import GroupEncoder, PointBertShape, PointCloudTower
from cmcr.spaces.ulip.preprocessing import evenly_spaced, pixels_of, prepared_points
from cmcr.spaces.ulip.space import UlipSpace
from cmcr.spaces.ulip.towers import ImageShape, ImageTower, TextShape, TextTower
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ulip")


@pytest.fixture(scope="module")
def tokenizer(folder):
    pytest.importorskip("transformers")
    return write_tokenizer(folder / "tokenizer")


@pytest.fixture(scope="module")
def space(folder, tokenizer):
    return UlipSpace(saved(folder / "small.pt", state_of()), tokenizer=tokenizer, **SMALL)


@pytest.fixture(scope="module")
def coloured(folder):
    return UlipSpace(saved(folder / "coloured.pt", state_of(COLOURED, None, None)), **SMALL)


def picture(seed, height=40, width=50):
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


ITEMS = {
    "point_cloud": [cloud(seed, count) for seed, count in enumerate([50, 40, 30, 50, 16])],
    "image": [picture(seed, 30 + seed, 40) for seed in range(5)],
    "text": ["a chair", "?", "a", "the longer text", "Zug"],
}


class TestParity:
    @pytest.mark.parametrize(("name", "channels"), [("pointbert_xyz", 3), ("pointbert_xyzrgb", 6)])
    def test_point_clouds_as_published(self, name, channels):
        config, tensors = fixture(name)
        shape = PointBertShape(
            channels=channels,
            width=config["trans_dim"],
            depth=config["depth"],
            heads=config["num_heads"],
            group_width=config["encoder_dims"],
            hidden=4 * config["trans_dim"],
            embedding=tensors["embeddings"].shape[1],
        )
        tower = loaded(PointCloudTower(shape), tensors)
        divided = [group_points(p.numpy(), config["num_group"], config["group_size"]) for p in tensors["points"]]
        inputs = [torch.from_numpy(np.stack(part)) for part in zip(*(vars(d).values() for d in divided), strict=True)]
        assert_close(tower.point_encoder(*inputs), tensors["features"])
        assert_close(tower(*inputs), tensors["embeddings"])

    def test_pictures_as_published(self):
        config, tensors = fixture("image_tower")
        shape = ImageShape(
            size=config["img_size"],
            patch=config["patch_size"],
            width=config["embed_dim"],
            depth=config["depth"],
            heads=config["num_heads"],
            hidden=config["mlp_ratio"] * config["embed_dim"],
            embedding=tensors["embeddings"].shape[1],
        )
        tower = loaded(ImageTower(shape), tensors)
        assert_close(tower.visual(tensors["pixels"]), tensors["features"])
        assert_close(tower(tensors["pixels"]), tensors["embeddings"])

    def test_texts_as_published_whatever_follows_their_end(self):
        config, tensors = fixture("text_tower")
        width = config["width"]
        shape = TextShape(
            vocabulary=config["vocab_size"],
            context=config["context_length"],
            width=width,
            depth=config["layers"],
            heads=config["heads"],
            hidden=4 * width,
            embedding=tensors["embeddings"].shape[1],
        )
        tower = loaded(TextTower(shape), tensors)
        ids = tensors["token_ids"]
        assert_close(tower(ids), tensors["embeddings"])
        end = int(ids[0].argmax()) + 1
        assert_close(tower(ids[:1, :end]), tensors["embeddings"][:1])

    def test_groups_are_encoded_as_by_the_published_plain_way(self):
        encoder = randomised(GroupEncoder(6, 24), 5).requires_grad_(False)
        neighborhoods = torch.randn(2, 7, 5, 6, generator=torch.Generator().manual_seed(1))
        points = encoder.first_conv(neighborhoods.reshape(14, 5, 6).transpose(1, 2))
        whole = points.max(dim=2, keepdim=True)[0]
        plain = encoder.second_conv(torch.cat([whole.expand(-1, -1, 5), points], dim=1)).max(dim=2)[0]
        assert_close(encoder(neighborhoods), plain.reshape(2, 7, 24))


def loaded(tower, tensors):
    tower.load_state_dict({key.removeprefix("state."): v for key, v in tensors.items() if key.startswith("state.")})
    return tower.eval().requires_grad_(False)


def assert_close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-5)


class TestGroups:
    @settings(max_examples=60)
    @given(st.integers(0, 2**32), st.integers(1, 24), st.floats(0, 1), st.floats(0, 1))
    def test_equal_the_plain_way_with_ties_and_duplicates(self, seed, count, groups, size):
        points = np.random.default_rng(seed).integers(-2, 3, size=(count, 3)).astype(np.float32)
        num_group, group_size = 1 + int(groups * (count - 1)), 1 + int(size * (count - 1))
        found = group_points(points, num_group, group_size)
        neighborhoods, centers = reference_groups(points, num_group, group_size)
        np.testing.assert_array_equal(found.neighborhoods, neighborhoods)
        np.testing.assert_array_equal(found.centers, centers)

    def test_of_points_as_far_the_first_are_taken(self):
        cross = np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=np.float32)
        np.testing.assert_array_equal(group_points(cross, 1, 3).neighborhoods[0], cross[:3])
        assert farthest_points(cross, 2)[0].tolist() == [0, 1]

    def test_the_first_bound_on_the_radius_changes_nothing(self):
        points = np.round(np.random.default_rng(3).normal(size=(400, 3)) * 8).astype(np.float32) / 8
        found = group_points(points, 20, 9)
        neighborhoods, centers = reference_groups(points, 20, 9)
        np.testing.assert_array_equal(found.neighborhoods, neighborhoods.astype(np.float32))
        np.testing.assert_array_equal(found.centers, centers.astype(np.float32))

    def test_points_on_a_line_are_taken_from_the_ends_inwards(self):
        line = np.zeros((9, 3), dtype=np.float32)
        line[:, 1] = np.arange(9)
        chosen, squared = farthest_points(line, 5)
        assert chosen.tolist() == [0, 8, 4, 2, 6]
        np.testing.assert_array_equal(squared[1], (np.arange(9) - 8.0) ** 2)

    def test_one_place_chooses_point_0_again(self):
        assert farthest_points(np.ones((4, 3), dtype=np.float32), 3)[0].tolist() == [0, 0, 0]

    def test_colours_are_appended_unchanged_and_the_cloud_is_left_alone(self):
        points = cloud(1, 20, 6)
        before = points.copy()
        found = group_points(points, 4, 20)
        np.testing.assert_array_equal(points, before)
        for neighborhood in found.neighborhoods:
            np.testing.assert_array_equal(neighborhood[:, 3:], points[:, 3:])
        np.testing.assert_array_equal(found.neighborhoods[0, :, :3], points[:, :3] - points[0, :3])


class TestSpace:
    def test_a_cloud_embeds_as_its_tower_says(self, space):
        points = prepared_points(ITEMS["point_cloud"][0], channels=3, num_points=40, fewest=12, up_axis="y")
        divided = group_points(points, NUM_GROUP, GROUP_SIZE)
        tower = randomised(PointCloudTower(POINT), 0).requires_grad_(False)
        row = tower(torch.from_numpy(divided.neighborhoods)[None], torch.from_numpy(divided.centers)[None])
        found = space.encode(ITEMS["point_cloud"][:1], "point_cloud", normalize_embeddings=False)
        np.testing.assert_allclose(found, row.numpy(), atol=1e-5)

    def test_threads_and_random_state_do_not_matter(self, space):
        expected = space.encode(ITEMS["point_cloud"], "point_cloud")
        state = torch.get_rng_state()
        torch.manual_seed(1)
        found = []
        workers = [
            threading.Thread(target=lambda: found.append(space.encode(ITEMS["point_cloud"], "point_cloud", 2)))
            for _ in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        torch.set_rng_state(state)
        for rows in found:
            np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)
        assert len(found) == 2

    def test_what_the_file_does_not_hold_is_no_modality(self, space, coloured):
        assert "point_cloud 32, image 32, text 32" in repr(space)
        with pytest.raises(ConfigError, match="Known: point_cloud"):
            coloured.encode(["a"], "text")

    def test_settings_out_of_range_are_refused(self, folder, space):
        path = folder / "small.pt"
        with pytest.raises(ConfigError, match="unknown up_axis 'w'"):
            UlipSpace(path, up_axis="w")
        with pytest.raises(ConfigError, match="num_points: expected a whole number of at least 512, got 100"):
            UlipSpace(path, num_points=100)
        with pytest.raises(ConfigError, match="group_size: expected a whole number of at least 1, got 0"):
            UlipSpace(path, group_size=0)
        with pytest.raises(DeviceError):
            UlipSpace(path, device="abacus")

    def test_the_published_counts_of_points_are_the_defaults(self, folder, space):
        explicit = UlipSpace(folder / "small.pt", num_points=8192)
        assert explicit.fingerprint == UlipSpace(folder / "small.pt").fingerprint != space.fingerprint


class TestFiles:
    def test_the_fingerprint_changes_with_weights_and_preprocessing_only(self, folder, space):
        path = folder / "small.pt"
        assert UlipSpace(path, **SMALL).fingerprint == space.fingerprint
        assert UlipSpace(path, up_axis="z", **SMALL).fingerprint != space.fingerprint
        assert UlipSpace(path, **(SMALL | {"num_points": 41})).fingerprint != space.fingerprint
        state = state_of()
        state["pc_projection"][3, 4] += 1e-3
        assert UlipSpace(saved(folder / "other.pt", state), **SMALL).fingerprint != space.fingerprint

    def test_a_converted_file_is_the_same_space(self, folder, space, tokenizer):
        out = convert(folder / "small.pt", folder / "small.safetensors")
        converted = UlipSpace(out, tokenizer=tokenizer, **SMALL)
        assert converted.fingerprint == space.fingerprint
        assert "logit_scale" not in read_tensors(out)
        for modality, items in ITEMS.items():
            np.testing.assert_array_equal(converted.encode(items, modality), space.encode(items, modality))

    def test_conversion_replaces_nothing_and_checks_first(self, folder, space, tmp_path):
        (tmp_path / "there.safetensors").write_text("mine")
        with pytest.raises(WriteError, match="something is there already"):
            convert(folder / "small.pt", tmp_path / "there.safetensors")
        assert (tmp_path / "there.safetensors").read_text() == "mine"
        with pytest.raises(WriteError, match=r"ends in \.safetensors"):
            convert(folder / "small.pt", tmp_path / "out.pt")
        with pytest.raises(WriteError, match="could not write"):
            convert(folder / "small.pt", tmp_path / "no" / "out.safetensors")
        state = state_of()
        del state["pc_projection"]
        with pytest.raises(FormatError, match="missing pc_projection"):
            convert(saved(tmp_path / "bad.pt", state), tmp_path / "out.safetensors")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.pt", "there.safetensors"]

    def test_half_precision_and_bare_tensors_are_read(self, tmp_path, space):
        state = {k: v.half() if v.is_floating_point() else v for k, v in state_of().items()}
        torch.save(state, tmp_path / "half.pt")
        found = UlipSpace(tmp_path / "half.pt", **SMALL)
        rows = found.encode(ITEMS["point_cloud"], "point_cloud")
        np.testing.assert_allclose(rows, space.encode(ITEMS["point_cloud"], "point_cloud"), atol=0.01)

    def test_numbers_of_an_older_numpy_are_passed_over(self, folder, space, tmp_path):
        with ZipFile(folder / "small.pt") as new, ZipFile(tmp_path / "old.pt", "w") as old:
            for name in new.namelist():
                content = new.read(name)
                if name.endswith("data.pkl"):
                    assert b"numpy._core" in content
                    content = content.replace(b"numpy._core", b"numpy.core")
                old.writestr(name, content)
        assert UlipSpace(tmp_path / "old.pt", **SMALL).fingerprint == space.fingerprint

    def test_the_coloured_files_copy_of_another_model_is_left_out(self, tmp_path, coloured):
        state = state_of(COLOURED, None, None) | {"open_clip_model.visual.proj": torch.ones(2, 2)}
        path = saved(tmp_path / "openclip.pt", state)
        assert UlipSpace(path, **SMALL).fingerprint == coloured.fingerprint
        assert coloured.widths == {"point_cloud": 32}

    def test_every_difference_is_listed_with_both_shapes(self, tmp_path):
        state = state_of()
        del state["point_encoder.norm.bias"], state["visual.blocks.1.norm2.weight"]
        state["point_encoder.cls_head"] = torch.ones(2)
        state["ln_final.bias"] = torch.ones(63)
        state["text_projection"][0, 0] = float("nan")
        with pytest.raises(FormatError) as caught:
            UlipSpace(saved(tmp_path / "x.pt", state), **SMALL)
        told = str(caught.value)
        assert str(tmp_path / "x.pt") in told
        assert "2 missing: point_encoder.norm.bias, visual.blocks.1.norm2.weight" in told
        assert "1 unexpected: point_encoder.cls_head" in told
        assert "1 of another shape: ln_final.bias (expected (64,), got (63,))" in told
        assert "1 not finite: text_projection" in told
        assert "https://github.com/salesforce/ULIP" in told

    def test_a_long_list_is_cut(self, tmp_path):
        state = state_of() | {f"extra.{number}": torch.ones(1) for number in range(20)}
        with pytest.raises(FormatError, match=r"20 unexpected: .*extra\.7 and 12 more"):
            UlipSpace(saved(tmp_path / "x.pt", state))

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("point_encoder.encoder.first_conv.0.weight", (128, 4, 1), "3 channels .xyz. or 6 .xyz and rgb., got 4"),
            ("point_encoder.reduce_dim.weight", (60, 24), "a multiple of 64"),
            ("pc_projection", (128,), r"expected 2 axes, none of length 0, got \(128,\)"),
            ("pc_projection", (128, 31), "different widths, {'point_cloud': 31, 'image': 32, 'text': 32}"),
            ("visual.pos_embed", (1, 16, 64), r"visual.pos_embed \(expected \(1, 17, 64\), got \(1, 16, 64\)\)"),
        ],
    )
    def test_impossible_sizes_are_named(self, tmp_path, name, shape, message):
        with pytest.raises(FormatError, match=message):
            UlipSpace(saved(tmp_path / "x.pt", state_of() | {name: torch.ones(shape)}))

    def test_a_block_that_is_missing_is_listed(self, tmp_path):
        state = {k: v for k, v in state_of().items() if not k.startswith("visual.blocks.0.norm1")}
        with pytest.raises(FormatError, match=r"missing: visual\.blocks\.0\.norm1\.weight"):
            UlipSpace(saved(tmp_path / "x.pt", state))

    def test_nothing_there_says_what_to_fetch(self, tmp_path):
        with pytest.raises(
            ArtefactNotFoundError, match=r"pointbert_ULIP-2\.pt .see https://github.com/salesforce/ULIP"
        ):
            UlipSpace(tmp_path / "none.pt")

    def test_a_file_of_another_model_is_named(self, tmp_path):
        torch.save({"state_dict": {"conv1.weight": torch.ones(3)}}, tmp_path / "resnet.pt")
        with pytest.raises(FormatError, match=r"missing point_encoder.* it holds 1 tensors: conv1\.weight"):
            UlipSpace(tmp_path / "resnet.pt")
        torch.save([1, 2], tmp_path / "list.pt")
        with pytest.raises(FormatError, match="expected a file with tensors by name, found none"):
            UlipSpace(tmp_path / "list.pt")

    @pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"PK\x03\x04 nonsense", bytes(range(256))])
    def test_a_damaged_file_is_a_clear_error(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=name):
            UlipSpace(tmp_path / name)

    def test_a_cut_file_is_a_clear_error(self, folder, space, tmp_path):
        whole = (folder / "small.pt").read_bytes()
        (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FormatError, match="Fetch a PointBERT file"):
            UlipSpace(tmp_path / "cut.pt")

    def test_a_file_that_would_run_code_is_refused(self, tmp_path):
        mark = tmp_path / "ran"

        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(mark),)

        torch.save({"state_dict": state_of(), "args": Evil()}, tmp_path / "evil.pt")
        with pytest.raises(FormatError, match=r"it names \w+\.mkdir\).*never opened") as caught:
            UlipSpace(tmp_path / "evil.pt")
        assert "weights_only" not in str(caught.value)
        assert not mark.exists()

    def test_the_allowance_for_settings_ends_with_the_reading(self, folder, space):
        with pytest.raises(pickle.UnpicklingError, match="not an allowed global"):
            torch.load(folder / "small.pt", weights_only=True)

    def test_any_safetensors_of_the_published_names_is_read(self, tmp_path, space):
        save_file({f"module.{k}": v.clone() for k, v in state_of().items()}, tmp_path / "own.safetensors")
        assert UlipSpace(tmp_path / "own.safetensors", **SMALL).fingerprint == space.fingerprint


class TestPointClouds:
    @given(st.tuples(*[st.integers(-64, 64)] * 3), st.integers(-4, 8), st.integers(0, 5))
    def test_place_and_size_do_not_matter(self, space, offset, doublings, seed):
        points = cloud(seed)
        moved = (points + np.array(offset, dtype=np.float32)) * np.float32(2.0) ** doublings
        rows = space.encode([points, moved], "point_cloud")
        np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-5)

    @given(st.integers(0, 20), st.integers(16, 60), st.sampled_from("xyz"))
    def test_a_prepared_cloud_is_centred_with_radius_1(self, seed, count, up_axis):
        given = cloud(seed, count) * 7 + 1000
        points = prepared_points(given, channels=3, num_points=60, fewest=12, up_axis=up_axis)
        np.testing.assert_allclose(points.mean(axis=0), np.zeros(3), atol=1e-6)
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-6)

    def test_a_turned_cloud_with_its_up_axis_embeds_the_same(self, folder, space):
        lying = ITEMS["point_cloud"][0][:, [2, 0, 1]]  # a rotation: y goes to z
        found = UlipSpace(folder / "small.pt", up_axis="z", **SMALL)
        turned = with_up_axis(lying, "z")
        expected = space.encode([turned], "point_cloud")
        np.testing.assert_allclose(found.encode([lying], "point_cloud"), expected, atol=1e-6)

    def test_more_points_than_the_count_are_thinned_evenly(self, space):
        assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]
        assert evenly_spaced(4, 10).tolist() == [0, 1, 2, 3]
        points = cloud(8, 2 * NUM_POINTS)
        rows = space.encode([points, points[::2]], "point_cloud")
        np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-6)

    def test_fewer_points_are_used_as_they_are_down_to_what_groups_need(self, folder, space):
        found = UlipSpace(folder / "small.pt", num_group=20, group_size=6, num_points=40)
        rows = found.encode([cloud(1, 20)], "point_cloud")
        assert np.isfinite(rows).all()
        with pytest.raises(SampleError, match=r"item 0: the point cloud: expected at least 20 points.*got 19"):
            found.encode([cloud(1, 19)], "point_cloud")

    def test_points_in_one_place_are_refused(self, space, tmp_path):
        np.save(tmp_path / "dot.npy", np.full((30, 3), 0.1, dtype=np.float32))
        with pytest.raises(SampleError, match=r"item 1: .*dot\.npy: all 30 points lie in one place"):
            space.encode([cloud(0), tmp_path / "dot.npy"], "point_cloud")

    def test_clouds_of_few_places_and_tiny_or_huge_ones_embed(self, space):
        cube = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, 8).T.astype(np.float32)
        odd = [np.tile(cube, (4, 1)), cloud(0) * np.float32(1e-20), cloud(0) * np.float32(1e18)]
        rows = space.encode(odd, "point_cloud")
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.ones(3), atol=1e-6)
        np.testing.assert_allclose(rows[1], rows[2], atol=1e-4)

    def test_points_without_colours_are_grey(self, coloured):
        points = cloud(2)
        grey = np.concatenate([points, np.full((50, 3), 0.4, dtype=np.float32)], axis=1)
        rows = coloured.encode([points, grey, cloud(2, 50, 6)], "point_cloud")
        np.testing.assert_array_equal(rows[0], rows[1])
        assert np.abs(rows[0] - rows[2]).max() > 1e-3

    def test_colours_are_read_from_files_and_left_out_where_the_model_has_none(self, coloured, space, tmp_path):
        points = cloud(3, 50, 6)
        np.save(tmp_path / "c.npy", points)
        rows = coloured.encode([points, tmp_path / "c.npy", str(tmp_path / "c.npy")], "point_cloud")
        np.testing.assert_array_equal(rows[1:], rows[[0, 0]])
        plain = space.encode([points, points[:, :3]], "point_cloud")
        np.testing.assert_array_equal(plain[0], plain[1])

    @pytest.mark.parametrize(
        ("points", "message"),
        [
            (np.abs(cloud(1, 50, 6)) * 1000, r"its colours must be numbers in \[0, 1\] or in \[0, 255\]"),
            (np.full((50, 6), np.nan), "NaN"),
            ({"points": cloud(1), "rgb": np.ones((49, 3))}, r"expected colours of shape \(50, 3\), got \(49, 3\)"),
        ],
    )
    def test_what_cannot_be_colours_is_refused(self, coloured, points, message):
        with pytest.raises(SampleError, match=message):
            coloured.encode([points], "point_cloud")

    def test_colours_are_read_as_in_every_space(self, coloured, space, tmp_path):
        points = cloud(3, 50, 6)
        points[:, 3:] = np.rint(points[:, 3:] * 255) / 255
        of_255 = points * np.array([1, 1, 1, 255, 255, 255], dtype=np.float32)
        np.savez(tmp_path / "c.npz", points=points[:, :3], colours=points[:, 3:])
        np.savetxt(tmp_path / "c.xyz", points, fmt="%.9g")
        named = {"points": points[:, :3], "rgb": points[:, 3:]}
        rows = coloured.encode([points, of_255, named, tmp_path / "c.npz", tmp_path / "c.xyz"], "point_cloud")
        np.testing.assert_allclose(rows, rows[[0] * 5], atol=1e-5)
        normals = np.concatenate([points[:, :3], points[:, 3:] - 0.5], axis=1)
        grey = coloured.encode([points[:, :3], normals, points[:, :5]], "point_cloud")
        np.testing.assert_array_equal(grey, grey[[0] * 3])
        wild = space.encode([points[:, :3], np.abs(points) * 1000], "point_cloud")
        np.testing.assert_allclose(wild[1], space.encode(np.abs(points[None, :, :3]), "point_cloud")[0], atol=1e-5)

    @pytest.mark.parametrize("item", [3, "no.npy", np.ones((3, 50)), np.ones((50, 2)), None])
    def test_what_is_no_cloud_is_refused(self, space, item):
        with pytest.raises(SampleError, match="item 0"):
            space.encode([item], "point_cloud")


class TestPictures:
    def test_imagenets_statistics_are_taken_off(self):
        flat = Image.new("RGB", (300, 260), (124, 116, 104))
        found = pixels_of(flat, 224)
        assert found.shape == (3, 224, 224)
        expected = (np.array([124, 116, 104]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None], found.shape), atol=1e-6)

    @pytest.mark.parametrize(("width", "height", "kept"), [(40, 20, slice(10, 30)), (20, 40, slice(10, 30))])
    def test_the_middle_is_kept(self, width, height, kept):
        ramp = np.broadcast_to(np.arange(40, dtype=np.uint8) * 6, (20, 40))
        array = ramp if width == 40 else ramp.T
        found = pixels_of(Image.fromarray(np.ascontiguousarray(array)), 20)
        middle = array[:, kept] if width == 40 else array[kept]
        np.testing.assert_allclose(found[0], (middle / 255 - 0.485) / 0.229, atol=1e-5)

    def test_a_picture_of_the_right_size_passes_unchanged(self):
        array = picture(4, 32, 32)
        expected = (array / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(pixels_of(Image.fromarray(array), 32), expected.transpose(2, 0, 1), atol=1e-5)

    @given(st.integers(1, 90), st.integers(1, 90))
    def test_any_size_fits(self, width, height):
        assert pixels_of(Image.new("RGB", (width, height)), 16).shape == (3, 16, 16)

    def test_files_arrays_and_pictures_are_the_same(self, space, tmp_path):
        array = picture(1)
        Image.fromarray(array).save(tmp_path / "p.png")
        rows = space.encode([array, Image.fromarray(array), tmp_path / "p.png"], "image")
        np.testing.assert_array_equal(rows[1:], rows[[0, 0]])

    def test_what_is_transparent_shows_white(self, space):
        clear, white = np.zeros((32, 32, 4), dtype=np.uint8), np.full((32, 32, 3), 255, dtype=np.uint8)
        rows = space.encode([clear, white, picture(1)], "image")
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
        assert np.abs(rows[1] - rows[2]).max() > 1e-3

    def test_what_is_no_picture_is_refused(self, space, tmp_path):
        with pytest.raises(SampleError, match=r"item 1: .*no such picture"):
            space.encode([picture(0), tmp_path / "none.png"], "image")


class TestTexts:
    def test_tokens_start_and_end_a_text(self, space, tokenizer):
        tower = randomised(TextTower(TEXT), 2).requires_grad_(False)
        words = json.loads((tokenizer / "vocab.json").read_text())
        ids = torch.tensor([[512, words["a</w>"], words["b"], words["c</w>"], 513]])
        found = space.encode(["A  bc "], "text", normalize_embeddings=False)
        np.testing.assert_allclose(found, tower(ids).numpy(), atol=1e-5)

    def test_what_does_not_fit_is_said(self, space):
        with pytest.warns(UserWarning, match="ulip: ") as said:
            row, _, _ = space.encode(["a" * 20, "b", "c" * 30], "text", batch_size=1)
        assert [str(warning.message) for warning in said] == [
            "ulip: 2 text(s) are longer than the 14 tokens that this encoder reads; the rest of each was not embedded. One "
            f"begins with {'a' * 20!r}."
        ]
        assert said[0].filename == __file__
        # Without merges the last letter of a word has a token of its own, so the words must not end within the window.
        with pytest.warns(UserWarning, match=r"ulip: 1 text\(s\)"):
            longer = space.encode("a" * 30, "text")
        np.testing.assert_allclose(row, longer, atol=1e-6)

    def test_any_unicode_embeds(self, space):
        rows = space.encode(["züge", "椅子", "\u202e", "\U0001f6aa"], "text")
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.ones(4), atol=1e-6)

    def test_what_is_no_text_is_refused(self, space):
        with pytest.raises(SampleError, match="item 0: a text: expected a string, got int"):
            space.encode([3], "text")

    @pytest.mark.parametrize("text", ["", " \n", "a\0b", "a \ud800"])
    def test_texts_that_say_nothing_are_refused(self, space, text):
        with pytest.raises(SampleError, match="item 1: a text: "):
            space.encode(["a", text], "text")

    def test_without_a_tokenizer_everything_else_works(self, folder, space, tmp_path):
        pytest.importorskip("transformers")
        bare = UlipSpace(folder / "small.pt", tokenizer=tmp_path, **SMALL)
        assert bare.fingerprint == space.fingerprint
        assert np.isfinite(bare.encode(ITEMS["image"], "image")).all()
        with pytest.raises(ArtefactNotFoundError, match=r"Fetch vocab\.json and merges\.txt .* give it as tokenizer="):
            bare.encode(["a"], "text")

    def test_a_tokenizer_of_another_vocabulary_is_refused(self, tmp_path, tokenizer):
        state = state_of(text=TextShape(600, 16, 64, 1, 1, 96, 32))
        found = UlipSpace(saved(tmp_path / "x.pt", state), tokenizer=tokenizer, **SMALL)
        with pytest.raises(FormatError, match=r"texts with 598 and 599, as these weights do, got \(512, 513\)"):
            found.encode(["a"], "text")
