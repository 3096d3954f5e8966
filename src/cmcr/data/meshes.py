"""Meshes and ply clouds: files to surfaces, through trimesh (the extra `mesh`), and points on them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cmcr.data.gltf import MOST_PIECES, checked_glb
from cmcr.data.paths import NamedBytes, content_of
from cmcr.data.textures import Textures
from cmcr.errors import CmcrError, SampleError, missing_dependency
from cmcr.interruption import held_back

MESH_SUFFIXES = (".ply", ".obj", ".off", ".glb", ".stl")

Points = tuple[NDArray[np.float64], NDArray[np.float32] | None]
"""Coordinates `(p, 3)`, and colours `(p, 3)` in [0, 1] where there are any."""

MOST_ROWS = 10_000_000
"""How many points a cloud may have, or vertices and faces a mesh in all its copies: a small file may place one often."""

MOST_LINES = 5_000_000
"""How many lines a mesh or cloud may have that is text."""

_LONG_LINE = 1 << 18  # bytes
_LINE_ENDS = [character.encode() for character in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"]  # of `str.splitlines`
_GREY = 0.4  # ULIP-2 paints points without a colour so
_OBJ_HALF_LINE = re.compile(rb"^[vf][ \t]+\S+(?:[ \t]+\S+)?[ \t]*\r?$", re.MULTILINE)
_OBJ_MATERIAL = re.compile(rb"usemtl[^\n]*")
_PLY_COUNT = re.compile(rb"^element[ \t]+\S+[ \t]+(\d+)", re.MULTILINE)
_OFF_COUNTS = re.compile(rb"OFF\s*(\d+)[ \t]+(\d+)[^\n]*")


def read_points(file: Path | NamedBytes, name: str, n: int) -> Points:
    """Draw points evenly from the surface of a mesh; a file without faces gives its vertices.

    The points of a file are always the same. A face is drawn with a probability in proportion to its area, a point in it as
    `(1 - sqrt(u)) a + sqrt(u) (1 - v) b + sqrt(u) v c` with `u, v` uniform in [0, 1) (Osada et al. 2002). Colours come from
    textures, vertices or faces; surfaces without any are grey (0.4) beside ones that have them. Colours in off files (COFF)
    are not read: trimesh leaves them out. ModelNet's `OFF123 456 0` on one line is understood.

    Args:
        file: an existing file, or its bytes, with one of `MESH_SUFFIXES`; bytes have no materials and textures beside them.
        name: how messages call it.
        n: how many points to draw from a surface.

    Raises:
        SampleError: not decodable, cut short, NaN, or faces without any area.
        MissingDependencyError: trimesh is not installed.
    """
    try:
        return _points(_load(file, name), name, n)
    except CmcrError:
        raise
    except Exception as error:  # trimesh's readers raise whatever a damaged file leads them into
        raise SampleError(f"{name}: the shape cannot be decoded ({type(error).__name__}: {error}).") from error


class _Piece(NamedTuple):
    """Vertices `(v, 3)` at their place, faces `(f, 3)`, none for a cloud, and the geometry of trimesh with its colours."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.integer]
    given: Any


def _points(pieces: list[_Piece], name: str, n: int) -> Points:
    surfaces = [piece for piece in pieces if len(piece.faces)]
    if not surfaces:
        return _vertices(pieces, name)
    if not all(map(_well_formed, surfaces)):
        raise SampleError(f"{name}: damaged: its faces refer to vertices that do not exist.")
    triangles = np.concatenate([surface.vertices[surface.faces] for surface in surfaces])
    if not np.isfinite(triangles).all():
        raise SampleError(f"{name}: holds NaN or infinity.")
    a, b, c = np.moveaxis(triangles, 1, 0)
    with np.errstate(over="ignore", invalid="ignore"):  # refused by their sum
        areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    if not 0 < areas.sum() < np.inf:
        raise SampleError(f"{name}: its faces have no area, or are too large to sample.")

    # Not trimesh's own sampling: the points, and so the embeddings, must not change with its version.
    random = np.random.default_rng(0)
    cumulative = np.cumsum(areas)
    chosen = np.searchsorted(cumulative, random.random(n) * cumulative[-1], side="right")
    pairs = random.random((n, 2))
    root, v = np.sqrt(pairs[:, 0]), pairs[:, 1]
    weights = np.stack([1 - root, root * (1 - v), root * v], axis=1)
    return np.einsum("nc,ncd->nd", weights, triangles[chosen]), _colours_of(surfaces, chosen, weights)


def _colours_of(
    surfaces: list[_Piece], chosen: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float32] | None:
    """Colours `(n, 3)` of points on faces, which are counted through all surfaces; `None` where no surface has any."""
    colours = np.full((len(chosen), 3), _GREY, dtype=np.float32)
    coloured, first = False, 0
    unpacked: dict[int, NDArray[np.uint8]] = {}  # by texture, which a thousand surfaces may share
    for surface in surfaces:
        last = first + len(surface.faces)
        here = (chosen >= first) & (chosen < last)
        found = _colours_at(surface, chosen[here] - first, weights[here], unpacked)
        if found is not None:
            colours[here], coloured = found, True
        first = last
    return colours if coloured else None


def _well_formed(surface: _Piece) -> bool:
    vertices, faces, _ = surface
    shaped = vertices.ndim == faces.ndim == 2 and vertices.shape[1] == faces.shape[1] == 3
    return bool(shaped and faces.min() >= 0 and faces.max() < len(vertices))


def _colours_at(
    surface: _Piece, faces: NDArray[np.intp], weights: NDArray[np.float64], unpacked: dict[int, NDArray[np.uint8]]
) -> NDArray[np.float64] | NDArray[np.float32] | None:
    """Colours `(n, 3)` in [0, 1] at points of a surface, or `None` where it has none."""
    visual = surface.given.visual
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[faces, :3] / 255
    corners = surface.faces[faces]
    if visual.kind == "vertex":
        return np.einsum("nc,ncd->nd", weights, np.asarray(visual.vertex_colors)[corners][..., :3] / 255)
    if visual.kind != "texture":
        return None
    material = visual.material
    texture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if visual.uv is None or texture is None:  # a flat colour, though texture coordinates may be there
        return np.broadcast_to(np.asarray(material.main_color)[:3] / 255, (len(faces), 3))
    if id(texture) not in unpacked:
        unpacked[id(texture)] = np.asarray(texture.convert("RGBA"))
    pixels = unpacked[id(texture)]
    u, v = np.einsum("nc,ncd->dn", weights, np.asarray(visual.uv)[corners])
    with np.errstate(invalid="ignore"):  # coordinates that are NaN are as good as any
        rows, columns = (
            (share * (size - 1) % size).round().astype(np.int64) % size
            for share, size in zip((1 - v, u), pixels.shape[:2], strict=True)
        )
    return pixels[rows, columns, :3] / 255


def _vertices(pieces: list[_Piece], name: str) -> Points:
    if not (pieces := [piece for piece in pieces if len(piece.vertices)]):
        raise SampleError(f"{name}: holds no shape; it is empty or cut short.")
    points = np.concatenate([piece.vertices for piece in pieces])
    colours = [np.asarray(getattr(piece.given, "colors", ())) for piece in pieces]
    if any(len(colour) != len(piece.vertices) for colour, piece in zip(colours, pieces, strict=True)):
        return points, None
    return points, np.asarray(np.concatenate(colours)[:, :3] / 255, dtype=np.float32)


def _load(file: Path | NamedBytes, name: str) -> list[_Piece]:
    """Load the geometries of a file, each at its place in the scene; vertices are not merged."""
    try:
        import trimesh
    except ImportError as error:
        raise missing_dependency("trimesh", extra="mesh", purpose=f"meshes and ply files ({name})") from error
    content, suffix, beside = content_of(file, name), file.suffix.lower(), Textures(file, name)
    if suffix == ".glb":
        content = checked_glb(content, name, beside.add)
    else:
        _refuse_many_parts(content, suffix, name)
        _refuse_cut(content, suffix, name)
    with held_back():  # trimesh goes on after an interrupt in many places
        scene = trimesh.load_scene(io.BytesIO(content), file_type=suffix[1:], resolver=cast(Any, beside), process=False)
    if beside.refused:
        raise beside.refused
    # By the names of the geometries: those of nodes are drawn at random where a mesh has several primitives.
    placed = sorted((scene.graph[node][1], node) for node in scene.graph.nodes_geometry)
    size = sum(
        len(getattr(scene.geometry[geometry], part, ())) for geometry, _ in placed for part in ("vertices", "faces")
    )
    if size > MOST_ROWS:
        raise SampleError(f"{name}: holds {size:,} vertices and faces in all its copies, the limit is {MOST_ROWS:,}.")
    pieces = []
    for geometry, node in placed:
        given = scene.geometry[geometry]
        vertices = trimesh.transform_points(given.vertices, scene.graph[node][0])
        pieces.append(_Piece(vertices, np.asarray(getattr(given, "faces", ())), given))
    return pieces


def _is_text(content: bytes, suffix: str) -> bool:
    """Whether trimesh reads a file as text: a ply by its second line, a stl whose length is not that of its header."""
    if suffix == ".ply":
        start = content.find(b"\n") + 1
        return b"ascii" in content[start : content.find(b"\n", start)].lower()
    return suffix != ".stl" or len(content) != 84 + 50 * int.from_bytes(content[80:84], "little")


def _refuse_many_parts(content: bytes, suffix: str, name: str) -> None:
    """Refuse files of more lines than can be split, if they are text, or of more surfaces than can be made."""
    if _is_text(content, suffix):
        if sum(map(content.count, _LINE_ENDS)) > MOST_LINES:
            raise SampleError(f"{name}: more than {MOST_LINES:,} lines. Save it as glb, or as a binary ply or stl.")
        if any(content.find(b"\n", at, at + _LONG_LINE) < 0 for at in range(0, len(content) - _LONG_LINE, _LONG_LINE)):
            raise SampleError(f"{name}: a line of more than {_LONG_LINE:,} bytes.")
    pieces = len(set(_OBJ_MATERIAL.findall(content))) if suffix == ".obj" else content.lower().count(b"endsolid")
    if suffix in (".obj", ".stl") and pieces > MOST_PIECES:
        raise SampleError(f"{name}: made of {pieces:,} materials or solids, the limit is {MOST_PIECES:,}.")


def _refuse_cut(content: bytes, suffix: str, name: str) -> None:
    """Refuse text files that were cut short, which trimesh reads as far as they go: too few rows, or half an obj line."""
    if suffix == ".obj" and (half := _OBJ_HALF_LINE.search(content)):
        raise SampleError(f"{name}: cut short or damaged: a line reads {half[0].decode(errors='replace').strip()!r}.")
    promised, rows = 0, b""
    if suffix == ".ply" and _is_text(content, suffix):
        header, _, rows = content.partition(b"end_header")
        promised = sum(map(int, _PLY_COUNT.findall(header)))
    elif suffix == ".off":
        text = re.sub(rb"#[^\n]*", b"", content)
        if counts := _OFF_COUNTS.search(text):
            promised, rows = int(counts[1]) + int(counts[2]), text[counts.end() :]
    found = sum(1 for row in rows.splitlines() if row.strip())
    if found < promised:
        raise SampleError(f"{name}: cut short: the header promises {promised} rows, {found} are there.")
