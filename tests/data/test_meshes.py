"""Meshes: known geometry through every format, colours where they are, every broken file against its message."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cmcr.data.meshes import MESH_SUFFIXES, read_mesh, sample_surface
from cmcr.data.point_clouds import read_coloured_point_cloud, read_point_cloud
from cmcr.errors import ConfigError, MissingDependencyError, SampleError

trimesh = pytest.importorskip("trimesh")

SQUARE = "v 0 0 0\nv 4 0 0\nv 4 0 2\nv 0 0 2\n"  # in the plane y = 0, of area 8


def box(kind, **options):
    content = trimesh.creation.box(extents=(2, 4, 6)).export(file_type=kind, **options)
    return content.encode() if isinstance(content, str) else content


BOXES = {
    "a.ply": box("ply"),
    "b.ply": box("ply", encoding="ascii"),
    "a.obj": box("obj"),
    "a.off": box("off"),
    "broken.off": box("off").replace(b"OFF\n", b"OFF"),  # as in ModelNet40: no end of line behind OFF
    "a.glb": box("glb"),
    "a.stl": box("stl"),
    "b.stl": box("stl_ascii"),
    "C.STL": box("stl"),
}


def ply(points, colours=None, promised=None):
    names = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue")) if colours is not None else ""
    header = (
        f"ply\nformat ascii 1.0\nelement vertex {promised or len(points)}\nproperty float x\nproperty float y\n"
        f"property float z\n{names}end_header\n"
    )
    rows = points if colours is None else [[*p, *c] for p, c in zip(points, colours, strict=True)]
    return (header + "".join(" ".join(map(str, row)) + "\n" for row in rows)).encode()


def saved(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", BOXES)
def test_a_box_is_a_box_in_every_format(tmp_path, name):
    points, colours = sample_surface(read_mesh(saved(tmp_path, BOXES[name], name)), 6000)
    assert colours is None
    assert points.shape == (6000, 3)
    half = np.array([1, 2, 3])
    # Every point lies on one of the six sides and none outside.
    distance = np.abs(np.abs(points) - half).min(axis=1)
    assert distance.max() < 1e-5
    assert (np.abs(points) <= half + 1e-5).all()
    # Sides get points in proportion to their area: 2 * (4*6, 2*6, 2*4) of 88.
    side = np.abs(np.abs(points) - half).argmin(axis=1)
    np.testing.assert_allclose(np.bincount(side) / 6000, np.array([48, 24, 16]) / 88, atol=0.02)
    # And evenly within a side.
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.1)
    cloud = read_point_cloud(tmp_path / name)
    assert cloud.shape == (10_000, 3)
    np.testing.assert_array_equal(cloud, read_point_cloud((tmp_path / name).as_uri()))


def test_points_are_even_over_a_triangle(tmp_path):
    mesh = read_mesh(saved(tmp_path, SQUARE + "f 1 2 3\n", "a.obj"))
    points, _ = sample_surface(mesh, 20_000)
    np.testing.assert_allclose(points.mean(axis=0), [8 / 3, 0, 2 / 3], atol=0.03)  # the centroid
    # The halves cut by the line from (2, 0) to the middle of the long side hold a quarter each at the ends.
    assert (points[:, 0] < 2).mean() == pytest.approx(0.25, abs=0.01)


def test_the_draw_is_the_seed_s_alone(tmp_path):
    mesh = read_mesh(saved(tmp_path, BOXES["a.glb"], "a.glb"))
    before = np.random.get_state()[1].copy()
    first, again, other = (sample_surface(mesh, 50, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    with pytest.raises(ConfigError, match="n must be at least 1, got 0"):
        sample_surface(mesh, 0)


def test_scenes_are_put_together_the_same_way_in_every_process(tmp_path):
    scene = trimesh.Scene()
    for number in range(5):
        moved = trimesh.transformations.translation_matrix([10 * number, 0, 0])
        scene.add_geometry(trimesh.creation.box(), geom_name=f"part {number}", transform=moved)
    path = saved(tmp_path, scene.export(file_type="glb"), "scene.glb")
    cloud = read_point_cloud(path)
    assert sorted(set(np.round(cloud[:, 0] / 10).astype(int))) == [0, 1, 2, 3, 4]
    script = f"from cmcr.data.point_clouds import read_point_cloud as r; print(r({str(path)!r}).tobytes().hex()[:4000])"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout.strip() == cloud.tobytes().hex()[:4000]


def test_vertices_without_faces_are_points(tmp_path):
    points = np.random.default_rng(0).normal(size=(20, 3)).round(3)
    colours = np.random.default_rng(1).integers(0, 256, size=(20, 3))
    plain = read_coloured_point_cloud(saved(tmp_path, ply(points), "a.ply"))
    np.testing.assert_array_equal(plain.points, points.astype(np.float32))
    assert plain.colours is None
    painted = read_coloured_point_cloud(saved(tmp_path, ply(points, colours), "b.ply"))
    np.testing.assert_array_equal(painted.points, points.astype(np.float32))
    np.testing.assert_allclose(painted.colours, colours / 255, atol=1e-6)
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in points)
    np.testing.assert_array_equal(read_point_cloud(saved(tmp_path, text, "a.obj")), points.astype(np.float32))
    binary = trimesh.PointCloud(points, colors=colours.astype(np.uint8)).export(file_type="ply")
    np.testing.assert_allclose(
        read_coloured_point_cloud(saved(tmp_path, binary, "c.ply")).colours, colours / 255, atol=1e-6
    )
    with pytest.raises(SampleError, match=r"a\.ply: a mesh without faces; its vertices alone"):
        read_mesh(tmp_path / "a.ply")


def test_colours_of_vertices_run_between_them(tmp_path):
    corners = "v 0 0 0 1 0 0\nv 4 0 0 0 0 1\nv 0 0 2 1 0 0\n"
    cloud = read_coloured_point_cloud(saved(tmp_path, corners + "f 1 2 3\n", "a.obj"), mesh_points=100)
    assert len(cloud.points) == 100
    share = cloud.points[:, 0] / 4  # from red at x = 0 to blue at x = 4
    np.testing.assert_allclose(cloud.colours, np.stack([1 - share, 0 * share, share], axis=1), atol=1e-5)


def test_colours_of_faces_stay_on_them(tmp_path):
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [6, 0, 0], [5, 1, 0]], [[0, 1, 2], [3, 4, 5]])
    mesh.visual.face_colors = [[255, 0, 0, 255], [0, 255, 0, 255]]
    cloud = read_coloured_point_cloud(saved(tmp_path, mesh.export(file_type="ply"), "a.ply"))
    np.testing.assert_allclose(cloud.colours[cloud.points[:, 0] < 2], [[1, 0, 0]] * (cloud.points[:, 0] < 2).sum())
    np.testing.assert_allclose(cloud.colours[cloud.points[:, 0] > 2], [[0, 1, 0]] * (cloud.points[:, 0] > 2).sum())


def test_textures_are_looked_up_at_the_points(tmp_path):
    half = Image.new("RGB", (64, 64), "red")
    half.paste("blue", (32, 0, 64, 64))
    square = trimesh.Trimesh([[0, 0, 0], [4, 0, 0], [4, 0, 2], [0, 0, 2]], [[0, 1, 2], [0, 2, 3]], process=False)
    square.visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], image=half)
    cloud = read_coloured_point_cloud(saved(tmp_path, square.export(file_type="glb"), "a.glb"), mesh_points=500)
    away = np.abs(cloud.points[:, 0] - 2) > 0.2  # from the seam, where the picture is blended
    expected = np.where(cloud.points[:, :1] < 2, [[1, 0, 0]], [[0, 0, 1]])
    np.testing.assert_allclose(cloud.colours[away], expected[away], atol=0.02)


def test_polygons_and_materials_that_are_not_there(tmp_path):
    text = "mtllib nothere.mtl\nusemtl gone\n" + SQUARE + "f 1 2 3 4\n"
    points, _ = sample_surface(read_mesh(saved(tmp_path, text, "a.obj")), 4000)
    np.testing.assert_allclose(points.mean(axis=0), [2, 0, 1], atol=0.1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *((f"a{suffix}", b"", "cannot be decoded|holds no shape") for suffix in MESH_SUFFIXES),
        *((f"a{suffix}", b"\0junk" * 50, "cannot be decoded|holds no shape") for suffix in MESH_SUFFIXES),
        *((name, content[: len(content) // 2], "cut short|cannot be decoded|holds no shape|at least 16|lie in one")
          for name, content in BOXES.items()),
        ("a.ply", BOXES["a.ply"][:-9], "cannot be decoded"),
        ("b.ply", BOXES["b.ply"][:-20], r"cut short: the header promises 20 rows, 1\d are there"),
        ("a.glb", BOXES["a.glb"][:-9], "cannot be decoded"),
        ("a.stl", BOXES["a.stl"][:-9], "holds no shape; it is empty or cut short"),
        ("a.off", BOXES["a.off"][:-9], "cut short: the header promises 20 rows, 19 are there"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n1 1 0\n3 0 1 7\n", "the shape cannot be decoded .*index outside"),
        ("a.off", "OFF 4 3 0 # quads\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n4 3 2 1 0\n", "7 rows, 6 are there"),
        ("a.obj", SQUARE + "f 1 2 9\n", r"the shape cannot be decoded \(IndexError"),
        ("a.obj", SQUARE + "f 1 2", "cut short or damaged: a line reads 'f 1 2'"),
        ("a.obj", SQUARE + "v 1 2\nf 1 2 3\n", "cut short or damaged: a line reads 'v 1 2'"),
        ("a.obj", SQUARE.replace("4", "nan") + "f 1 2 3\n", "holds NaN or infinity"),
        ("a.obj", SQUARE + "f 1 2 2\nf 3 3 3\n", "its faces have no area"),
        ("a.obj", SQUARE, "at least 16 points, got 4"),
        ("a.obj", "v 1 1 1\n" * 20, "all 20 points lie in one place"),
        ("a.ply", ply(np.eye(3).repeat(9, axis=0), promised=300), "the header promises 300 rows, 27 are there"),
    ],
)  # fmt: skip
def test_broken_meshes(tmp_path, name, content, message):
    path = saved(tmp_path, content, name)
    with pytest.raises(SampleError, match=rf"{name}: .*({message})"):
        read_point_cloud(path)


def test_places_without_a_mesh(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3")
    (tmp_path / "folder.obj").mkdir()
    for source, message in (
        (tmp_path / "none.obj", "no such mesh"),
        (tmp_path / "folder.obj", "a folder, not a mesh"),
        (tmp_path / "a.txt", r"expected one of \.ply, .*, got \.txt"),
    ):
        with pytest.raises(SampleError, match=message):
            read_mesh(source)


def test_meshes_need_the_extra_and_plain_points_do_not(tmp_path, monkeypatch):
    path = saved(tmp_path, BOXES["a.ply"], "a.ply")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(MissingDependencyError, match=r"trimesh is not installed.*a\.ply.*pip install 'cmcr\[mesh\]'"):
        read_point_cloud(path)
    buffer = io.BytesIO()
    np.save(buffer, np.eye(3).repeat(9, axis=0))
    assert len(read_point_cloud(saved(tmp_path, buffer.getvalue(), "a.npy"))) == 27
