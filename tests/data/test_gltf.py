"""What glb files declare, and what meshes name besides themselves: bounded before anything is allocated or decoded."""

import io
import json
import os
import signal
import struct

import numpy as np
import pytest
from PIL import Image

from cmcr.data import textures
from cmcr.data.point_clouds import read_coloured_point_cloud
from cmcr.errors import SampleError

pytest.importorskip("trimesh")

CORNERS = np.array([[0, 0, 0], [4, 0, 0], [0, 0, 2]], dtype="<f4").tobytes()
UV = np.array([[0, 0], [1, 0], [0, 1]], dtype="<f4").tobytes()


def description(**changes):
    """One triangle."""
    return {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 60}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": 24}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
        "materials": [{}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        **changes,
    }


def glb(header, binary=CORNERS + UV):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    header += b" " * (-len(header) % 4)
    chunks = struct.pack("<2I", len(header), 0x4E4F534A) + header + struct.pack("<2I", len(binary), 0x004E4942) + binary
    return struct.pack("<3I", 0x46546C67, 2, 12 + len(chunks)) + chunks


def textured(picture, material=None):
    used = material or {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    views = [*description()["bufferViews"], {"buffer": 0, "byteOffset": 60, "byteLength": len(picture)}]
    header = description(
        bufferViews=views,
        materials=[used],
        textures=[{"source": 0}],
        images=[{"bufferView": 2, "mimeType": "image/png"}],
    )
    return glb(header, CORNERS + UV + picture)


def picture(size=(8, 8), colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def read(tmp_path, content, name="a.glb"):
    (tmp_path / name).write_bytes(content)
    return read_coloured_point_cloud(tmp_path / name)


ACCESSORS = description()["accessors"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (description(accessors=[{**ACCESSORS[0], "count": 4}, ACCESSORS[1]]), "declares 4 values"),
        (description(accessors=[{**ACCESSORS[0], "count": -1}, ACCESSORS[1]]), "declares -1 values"),
        (
            description(accessors=[{"componentType": 5126, "count": 10**9, "type": "VEC3"}]),
            "declares 12,000,000,060 bytes",
        ),
        (description(bufferViews=[{"buffer": 0, "byteLength": 12_000}] * 2), r"declares 24,\d+ bytes"),
        (description(nodes=[{"mesh": 0}] * 10_001), "10,001 nodes or primitives"),
        (description(buffers=[{"uri": "/dev/zero", "byteLength": 60}]), "not in the file itself"),
        (description(extensionsRequired=["KHR_draco_mesh_compression"]), "compressed by KHR_draco"),
        (description(nodes=[{"mesh": 0, "children": [1]}, {"children": [0]}]), "in themselves"),
        (description(nodes=[{"children": [n + 1]} for n in range(101)] + [{"mesh": 0}]), "more than 100 deep"),
        (b'{"asset":' + b"[" * 100_000, "RecursionError"),
        (b" " * (1 << 24), "describes itself in 16,777,"),
    ],
)
def test_glbs_that_declare_what_is_not_there(tmp_path, header, message):
    if message.startswith("describes"):
        header += b"    "
    with pytest.raises(SampleError, match=rf"a\.glb.*({message})"):
        read(tmp_path, glb(header))


def test_a_glb_is_read_by_its_surfaces_and_base_colours_alone(tmp_path):
    cloud = read(tmp_path, textured(picture()))
    np.testing.assert_allclose(cloud.colours, np.broadcast_to([1, 0, 0], (10_000, 3)))
    assert cloud.points.max(axis=0) == pytest.approx([4, 0, 2], abs=0.1)
    glossy = {"KHR_materials_pbrSpecularGlossiness": {"diffuseTexture": {"index": 0}, "diffuseFactor": [1, 1, 1, 1]}}
    assert (read(tmp_path, textured(picture(), {"extensions": glossy})).colours == cloud.colours).all()
    flat = {"pbrMetallicRoughness": {"baseColorFactor": [0, 1, 0, 1]}}
    assert (read(tmp_path, textured(picture(), flat)).colours == [0, 1, 0]).all()


def test_the_parts_of_a_mesh_come_in_the_same_order_each_time(tmp_path):
    primitives = [{"attributes": {"POSITION": 0}, "material": number} for number in range(4)]
    materials = [{"pbrMetallicRoughness": {"baseColorFactor": [number / 4, 0, 0, 1]}} for number in range(4)]
    content = glb(description(meshes=[{"primitives": primitives}], materials=materials))
    first, *others = (read(tmp_path, content).colours.tolist() for _ in range(4))
    assert all(other == first for other in others)


def test_textures_are_pictures_of_bounded_size(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *call, **options: started.append(call))
    read(tmp_path, textured(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"))
    assert started == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(SampleError, match=r"a texture of .*a\.glb.*too large"):
        read(tmp_path, textured(picture()))
    texels = textures.Textures(tmp_path / "a.obj", "a.obj")
    assert all(texels.add(picture((5, 10))) for _ in range(4))
    with pytest.raises(SampleError, match=r"a\.obj: its textures"):
        texels.add(picture((1, 1)))


SQUARE = "usemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"


def test_textures_beside_a_mesh_are_files_in_its_folder_or_the_one_above(tmp_path, monkeypatch):
    for folder in ("set/model", "set/images", "secret"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "set/images/a.png").write_bytes(picture())
    (tmp_path / "secret/b.png").write_bytes(picture())
    folder = tmp_path / "set/model"
    os.mkfifo(folder / "pipe.mtl")
    read_from = {"../images/a.png": True, "..\\images\\a.png": True, "../../secret/b.png": False}
    read_from |= dict.fromkeys([str(tmp_path / "secret/b.png"), "/dev/zero", "nothing.png"], False)
    for named, coloured in read_from.items():
        (folder / "a.mtl").write_text(f"newmtl m\nmap_Kd {named}\n")
        colours = read(folder, f"mtllib a.mtl\n{SQUARE}".encode(), "a.obj").colours
        assert (colours is not None and (colours == [1, 0, 0]).all()) == coloured, named
    for library in ("pipe.mtl", "/dev/zero"):
        read(folder, f"mtllib {library}\n{SQUARE}".encode(), "a.obj")
    (folder / "a.mtl").write_text("newmtl m\nmap_Kd ../images/a.png\n")
    monkeypatch.setattr(textures, "MOST_BYTES", 60)
    with pytest.raises(SampleError, match="bytes of materials and textures"):
        read(folder, f"mtllib a.mtl\n{SQUARE}".encode(), "a.obj")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.obj", b"v 0 0 0\n" * 5_000_001, "more than 5,000,000 lines"),
        ("a.off", b"OFF\n" + b"\v" * 5_000_001, "more than 5,000,000 lines"),
        ("a.ply", b"ply\nformat ascii 1.0\n" + "\u2028".encode() * 5_000_001, "more than 5,000,000 lines"),
        ("a.obj", SQUARE.encode() + b"f " + b"1 2 3 " * 100_000, "line of more than 262,144 bytes"),
        ("a.obj", b"".join(b"usemtl %d\nf 1 2 3\n" % number for number in range(10_001)), "10,001 materials"),
        ("a.stl", b"solid vertex 0 0 0 vertex 1 0 0 vertex 0 1 0 endsolid\n" * 10_001, "10,001 materials or solids"),
    ],
)
def test_texts_that_would_be_split_into_too_many_parts(tmp_path, name, content, message):
    with pytest.raises(SampleError, match=message):
        read(tmp_path, content, name)


def test_ctrl_c_is_obeyed_where_trimesh_goes_on_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(textures.Textures, "__getitem__", lambda self, key: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, f"mtllib a.mtl\n{SQUARE}".encode(), "a.obj")
