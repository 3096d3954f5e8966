"""Meshes: known geometry through every format, colours where they are, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cmcr.data.point_clouds import read_coloured_point_cloud, read_point_cloud
from cmcr.errors import MissingDependencyError, SampleError

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
    "b.stl": box("stl_ascii"),
    "C.STL": box("stl"),
}


def saved(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", BOXES)
def test_a_box_is_a_box_in_every_format(tmp_path, name):
    cloud = read_coloured_point_cloud(saved(tmp_path, BOXES[name], name))
    points = cloud.points
    assert (points.shape, cloud.colours) == ((10_000, 3), None)
    half = np.array([1, 2, 3])
    # Every point lies on one of the six sides and none outside.
    distance = np.abs(np.abs(points) - half).min(axis=1)
    assert distance.max() < 1e-5
    assert (np.abs(points) <= half + 1e-5).all()
    # Sides get points in proportion to their area: 2 * (4*6, 2*6, 2*4) of 88.
    side = np.abs(np.abs(points) - half).argmin(axis=1)
    np.testing.assert_allclose(np.bincount(side) / 10_000, np.array([48, 24, 16]) / 88, atol=0.02)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.1)  # and evenly within a side


def test_polygons_and_materials_that_are_not_there(tmp_path):
    text = "mtllib nothere.mtl\nusemtl gone\n" + SQUARE + "f 1 2 3 4\n"
    points = read_point_cloud(saved(tmp_path, text, "a.obj"))
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 2], bins=4, range=[[0, 4], [0, 2]])
    np.testing.assert_allclose(counts, 10_000 / 16, rtol=0.15)  # even over both triangles


def scene_of(**pieces):
    """A scene of pieces 10 apart along x, in the order of their names."""
    scene = trimesh.Scene()
    for number, (name, piece) in enumerate(sorted(pieces.items())):
        moved = trimesh.transformations.translation_matrix([10 * number, 0, 0])
        scene.add_geometry(piece, geom_name=name, transform=moved)
    return scene.export(file_type="glb")


def test_the_draw_depends_on_the_file_alone(tmp_path):
    path = saved(tmp_path, scene_of(**{f"part{number}": trimesh.creation.box() for number in range(5)}), "scene.glb")
    before = np.random.get_state()[1].copy()
    cloud = read_point_cloud(path)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert sorted(set(np.round(cloud[:, 0] / 10).astype(int))) == [0, 1, 2, 3, 4]
    # In another process too, where names are hashed and so ordered in another way.
    script = f"from cmcr.data.point_clouds import read_point_cloud as r; print(r({str(path)!r}).tobytes().hex()[:4000])"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == cloud.tobytes().hex()[:4000]


def test_vertices_without_faces_are_points(tmp_path, rng):
    points, colours = rng.normal(size=(20, 3)).round(3), rng.integers(0, 256, size=(20, 3), dtype=np.uint8)
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in points)
    plain, painted = trimesh.PointCloud(points), trimesh.PointCloud(points, colors=colours)
    for name, content, expected in (
        ("a.obj", text, None),
        ("a.ply", plain.export(file_type="ply"), None),
        ("b.ply", painted.export(file_type="ply"), colours / 255),
        ("c.ply", painted.export(file_type="ply", encoding="ascii"), colours / 255),
    ):
        cloud = read_coloured_point_cloud(saved(tmp_path, content, name))
        np.testing.assert_allclose(cloud.points, points, rtol=1e-6)
        if expected is None:
            assert cloud.colours is None
        else:
            np.testing.assert_allclose(cloud.colours, expected, atol=1e-6)


def box_of(colour):
    painted = trimesh.creation.box()
    painted.visual.face_colors = colour
    return painted


def textured_square():
    half = Image.new("RGB", (64, 64), "red")
    half.paste("lime", (32, 0, 64, 64))
    square = trimesh.Trimesh([[0, 0, 0], [10, 0, 0], [10, 0, 2], [0, 0, 2]], [[0, 1, 2], [0, 2, 3]], process=False)
    square.visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], image=half)
    return square.export(file_type="glb")


@pytest.mark.parametrize(
    ("name", "content", "right"),
    [
        ("a.ply", trimesh.util.concatenate([box_of([255, 0, 0]), box_of([0, 255, 0]).apply_translation([10, 0, 0])])
         .export(file_type="ply"), (0, 1, 0)),
        ("texture.glb", textured_square(), (0, 1, 0)),
        ("plain.glb", scene_of(a=box_of([255, 0, 0]), b=trimesh.creation.box()), (0.4, 0.4, 0.4)),  # without a colour
    ],
)  # fmt: skip
def test_colours_stay_where_they_are(tmp_path, name, content, right):
    """Red on the left of x = 5, another colour on the right; a texture is blended at the seam."""
    cloud = read_coloured_point_cloud(saved(tmp_path, content, name))
    away = np.abs(cloud.points[:, 0] - 5) > 0.5
    expected = np.where(cloud.points[:, :1] < 5, [[1, 0, 0]], [right])
    np.testing.assert_allclose(cloud.colours[away], expected[away], atol=0.02)


def test_colours_of_vertices_run_between_them(tmp_path):
    corners = "v 0 0 0 1 0 0\nv 4 0 0 0 0 1\nv 0 0 2 1 0 0\n"
    cloud = read_coloured_point_cloud(saved(tmp_path, corners + "f 1 2 3\n", "a.obj"))
    share = cloud.points[:, 0] / 4  # from red at x = 0 to blue at x = 4
    np.testing.assert_allclose(cloud.colours, np.stack([1 - share, 0 * share, share], axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *((name, content[: len(content) * 9 // 10], "cut short|cannot be decoded|holds no shape")
          for name, content in BOXES.items()),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n1 1 0\n3 0 1 7\n", "cannot be decoded|damaged"),
        ("a.off", "OFF 4 3 0 # quads\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n4 3 2 1 0\n", "7 rows, 6 are there"),
        ("a.obj", SQUARE + "f 1 2 9\n", "cannot be decoded|damaged"),
        ("a.obj", SQUARE + "f 1 2", "a line reads 'f 1 2'"),
        ("a.obj", SQUARE + "v 1 2\nf 1 2 3\n", "a line reads 'v 1 2'"),
        ("a.obj", SQUARE.replace("4", "nan") + "f 1 2 3\n", "NaN or infinity"),
        ("a.obj", SQUARE + "f 1 2 2\nf 3 3 3\n", "no area"),
        ("b.ply", BOXES["b.ply"].replace(b"vertex 8", b"vertex 80"), "cut short|cannot be decoded"),
    ],
)  # fmt: skip
def test_broken_meshes(tmp_path, name, content, message):
    with pytest.raises(SampleError, match=rf"{name}: .*({message})"):
        read_point_cloud(saved(tmp_path, content, name))


def test_meshes_need_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(MissingDependencyError, match=r"a\.ply.*cmcr\[mesh\]"):
        read_point_cloud(saved(tmp_path, BOXES["a.ply"], "a.ply"))


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_a_flat_colour_is_read_where_texture_coordinates_are_there_too(tmp_path, kind):
    """As Blender writes them, and trimesh itself: coordinates for a texture that no material has."""
    square = trimesh.Trimesh([[0, 0, 0], [4, 0, 0], [4, 0, 2], [0, 0, 2]], [[0, 1, 2], [0, 2, 3]], process=False)
    if kind == "obj":
        (tmp_path / "flat.mtl").write_text("newmtl flat\nKd 1 0 0\n")
        mapped = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        text = "mtllib flat.mtl\nusemtl flat\n" + SQUARE + mapped + "f 1/1 2/2 3/3 4/4\n"
        path = saved(tmp_path, text, "a.obj")
    else:
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255])
        square.visual = trimesh.visual.TextureVisuals(uv=np.zeros((4, 2)), material=material)
        path = saved(tmp_path, square.export(file_type="glb"), "a.glb")
    cloud = read_coloured_point_cloud(path)
    np.testing.assert_allclose(cloud.colours, np.tile([1.0, 0.0, 0.0], (len(cloud.points), 1)), atol=0.01)


def test_an_obj_that_trimesh_has_exported_is_read(tmp_path):
    box_ = trimesh.creation.box(extents=(2, 4, 6))
    box_.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(box_.vertices), 2)))
    box_.export(tmp_path / "a.obj")
    assert b"vt " in (tmp_path / "a.obj").read_bytes()
    assert np.abs(read_point_cloud(tmp_path / "a.obj")).max() <= 3 + 1e-5
