"""Point clouds: every format against the numbers that were written, and what is refused."""

import io

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cmcr.data.paths import NamedBytes
from cmcr.data.point_clouds import normalised, read_coloured_point_cloud, read_point_cloud, with_up_axis
from cmcr.errors import ConfigError, SampleError

CLOUD = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
COLOURS = np.random.default_rng(1).integers(0, 256, size=(20, 3)).astype(np.uint8)
TABLES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(16, 30), st.integers(3, 7)),
    elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False),
    unique=True,
)


def text_of(table, separator=" "):
    return "\n".join(separator.join(repr(float(value)) for value in row) for row in table)


@given(TABLES)
def test_the_same_numbers_come_from_every_format(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("clouds")
    np.save(folder / "wölkchen ☁ #1.npy", table)
    np.savez(folder / "a.npz", table)
    np.savez_compressed(folder / "b.NPZ.npz", xyz=table, faces=np.zeros((2, 3)))
    (folder / "a.xyz").write_text("# x y z\n\n" + text_of(table) + "\n")
    (folder / "a.txt").write_text(text_of(table, ",") + " // end")
    (folder / "a.csv").write_text('"x","y","z"\r\n' + text_of(table, ";").replace("\n", "\r\n"))
    (folder / "a.pts").write_bytes(b"\xef\xbb\xbf" + text_of(table).encode())
    arrays = (table, table.astype(np.float64), np.asfortranarray(table), {"points": table})
    for source in (*folder.iterdir(), *arrays):
        read = read_point_cloud(source)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, table[:, :3], err_msg=str(source))
    counts = np.arange(60).reshape(20, 3)
    np.testing.assert_array_equal(read_point_cloud(counts), counts)


def test_colours_from_every_place(tmp_path):
    unit = COLOURS / np.float32(255)
    np.savez(tmp_path / "a.npz", points=CLOUD, colors=COLOURS)
    (tmp_path / "a.txt").write_text(text_of(np.hstack([CLOUD, COLOURS])))
    (tmp_path / "b.txt").write_text(text_of(np.hstack([CLOUD, unit])))
    for source in (
        *tmp_path.iterdir(),
        np.hstack([CLOUD, unit]),
        {"xyz": CLOUD, "rgb": unit},
        {"xyz": CLOUD, "colours": COLOURS},
    ):
        cloud = read_coloured_point_cloud(source)
        np.testing.assert_array_equal(cloud.points, CLOUD)
        assert cloud.colours.dtype == np.float32
        np.testing.assert_allclose(cloud.colours, unit, atol=1e-7)
        np.testing.assert_array_equal(read_point_cloud(source), CLOUD)
    dark = read_coloured_point_cloud({"xyz": CLOUD, "rgb": np.ones((20, 3), dtype=np.uint8)})
    np.testing.assert_allclose(dark.colours, 1 / 255)  # integers are of 255, however dark


def test_what_is_not_colour_is_not_called_so():
    normals = CLOUD / np.linalg.norm(CLOUD, axis=1, keepdims=True)
    for table in (CLOUD, np.hstack([CLOUD, normals]), np.hstack([CLOUD, COLOURS, COLOURS])):
        assert read_coloured_point_cloud(table).colours is None


@pytest.mark.parametrize(
    ("colours", "message"),
    [
        *(
            (colours, "must be numbers")
            for colours in (COLOURS * 2.0, -1.0 * COLOURS, np.nan * COLOURS, COLOURS.astype(str))
        ),
        (COLOURS[:19], r"got \(19, 3\)"),
        (COLOURS[:, 0], r"got \(20,\)"),
    ],
)
def test_unusable_colours(colours, message):
    with pytest.raises(SampleError, match=message):
        read_coloured_point_cloud({"xyz": CLOUD, "rgb": colours})
    np.testing.assert_array_equal(read_point_cloud({"xyz": CLOUD, "rgb": colours}), CLOUD)


@given(TABLES)
def test_with_up_axis_turns_and_does_not_mirror(table):
    points = table[:, :3]
    x, y, z = points.T
    np.testing.assert_array_equal(with_up_axis(points, "y"), points)
    np.testing.assert_array_equal(with_up_axis(points, "z"), np.stack([x, z, -y], axis=1))
    np.testing.assert_array_equal(with_up_axis(points, "x"), np.stack([-y, x, z], axis=1))
    with pytest.raises(ConfigError, match="unknown up axis 'Z'"):
        with_up_axis(CLOUD, "Z")


@given(hnp.arrays(np.float32, (20, 3), elements=st.floats(-100, 100, width=32), unique=True), st.floats(0.01, 100))
def test_normalised_clouds(points, scale):
    unit = normalised(points)
    np.testing.assert_allclose(unit.mean(axis=0), 0, atol=1e-5)
    assert np.linalg.norm(unit, axis=1).max() == pytest.approx(1, abs=1e-6)
    moved = normalised((points * np.float32(scale)).astype(np.float32))
    np.testing.assert_allclose(moved, unit, atol=1e-4)


def saved(save, *arrays, **named):
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


NPY, NPZ = saved(np.save, CLOUD), saved(np.savez, a=CLOUD)
PICKLED = np.array({"xyz": 1}, dtype=object)
TEXT = text_of(CLOUD)


@pytest.mark.parametrize(
    ("ending", "content"),
    [("npy", NPY), ("npz", NPZ), ("xyz", TEXT.encode()), ("glb", trimesh.creation.box().export(file_type="glb"))],
)
def test_bytes_with_a_name_are_read_as_their_file(tmp_path, ending, content):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    held = NamedBytes(f"s.tar/a.{ending.upper()}", content)
    np.testing.assert_array_equal(read_point_cloud(held), read_point_cloud(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", saved(np.save, np.zeros((1, 20, 3))), r"got float64 \(1, 20, 3\)"),
        ("a.npy", saved(np.save, np.zeros((20, 3), dtype=complex)), "got complex128"),
        ("a.npy", NPY.replace(b"(20, 3)", b"(99999999, 3)"), "not a plain array.*EOF"),
        ("a.npy", NPY.replace(b"'<f4'", b"'|V0'"), r"got \|V0"),
        ("a.npy", NPY.replace(b"(20, 3), }", b"(9" + b"9" * 30 + b", 3), }")[: len(NPY)], "not a plain array"),
        ("a.npz", saved(np.savez_compressed, xyz=np.zeros((6_000_000, 6))), "288,000,128 bytes, the limit"),
        ("a.npz", saved(np.savez, **{f"a{number}": CLOUD for number in range(101)}), "101 arrays"),
        ("a.npy", saved(np.save, np.zeros((10_000_001, 3), dtype=np.int8)), "to 10,000,000 points"),
        ("a.xyz", b"\n" * 5_000_001, "more than 5,000,000 lines"),
        ("a.xyz", b"1 " * 6000, "line of more than 10,000"),
        ("a.npy", saved(np.save, PICKLED), r"never opened.*savez\('cloud.npz', xyz=cloud\['xyz'\]"),
        ("a.npz", NPZ.replace(CLOUD[3:5].tobytes(), bytes(24)), "CRC"),
        ("a.npz", saved(np.savez, a=CLOUD, b=CLOUD), "got: a, b"),
        ("a.npz", saved(np.savez, xyz=PICKLED), "never opened"),
        ("a.txt", b"", "holds no points"),
        ("a.txt", f"{TEXT}\n1 2 three".encode(), "'three'"),
        ("a.txt", f"{TEXT}\n1 2".encode(), "same length"),
        ("a.pts", f"20\n{TEXT}".encode(), "same length"),
        ("a.xyz", NPY, "not UTF-8"),
        ("a.pcd", b"", r"expected .*\.ply.*, got \.pcd"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleError, match=rf"{name}.*({message})"):
        read_point_cloud(tmp_path / name)
