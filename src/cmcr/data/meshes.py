"""Meshes and ply clouds: files to surfaces, through trimesh (the extra `mesh`), and points on them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.paths import NamedBytes
from cmcr.errors import SampleError, missing_dependency

MESH_SUFFIXES = (".ply", ".obj", ".off", ".glb", ".stl")

Points = tuple[NDArray[np.float64], NDArray[np.float32] | None]
"""Coordinates `(p, 3)`, and colours `(p, 3)` in [0, 1] where there are any."""

_MOST_ROWS = 50_000_000  # a small file may place one surface a million times
_GREY = 0.4  # ULIP-2 paints points without a colour so
_OBJ_HALF_LINE = re.compile(rb"^[vf][ \t]+\S+(?:[ \t]+\S+)?[ \t]*\r?$", re.MULTILINE)
_PLY_COUNT = re.compile(rb"^element[ \t]+\S+[ \t]+(\d+)", re.MULTILINE)
_OFF_COUNTS = re.compile(rb"OFF\s*(\d+)[ \t]+(\d+)[^\n]*")


def read_points(file: Path | NamedBytes, name: str, n: int) -> Points:
    """Draw points evenly from the surface of a mesh; a file without faces gives its vertices.

    The points of a file are always the same. A face is drawn with a probability in proportion to its area, a point in it as
    `(1 - sqrt(u)) a + sqrt(u) (1 - v) b + sqrt(u) v c` with `u, v` uniform in [0, 1) (Osada et al. 2002). Colours come from
    textures, vertices or faces; surfaces without any are grey (0.4) beside ones that have them. Colours in off files (COFF)
    are not read: trimesh leaves them out. ModelNet's `OFF123 456 0` on one line is understood.

    Args:
        file: an existing file, or its bytes, with one of `MESH_SUFFIXES`. Materials and textures beside a file are not
            found for bytes.
        name: how messages call it.
        n: how many points to draw from a surface.

    Raises:
        SampleError: not decodable, cut short, NaN, or faces without any area.
        MissingDependencyError: trimesh is not installed.
    """
    pieces = _load(file, name)
    _refuse_cut(file, name)
    surfaces = [piece for piece in pieces if len(getattr(piece, "faces", ()))]
    if not surfaces:
        return _vertices(pieces, name)
    if not all(map(_well_formed, surfaces)):
        raise SampleError(f"{name}: damaged: its faces refer to vertices that do not exist.")
    triangles = np.concatenate([np.asarray(surface.vertices)[np.asarray(surface.faces)] for surface in surfaces])
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
    surfaces: list[Any], chosen: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float32] | None:
    """Colours `(n, 3)` of points on faces, which are counted through all surfaces; `None` where no surface has any."""
    colours = np.full((len(chosen), 3), _GREY, dtype=np.float32)
    coloured, first = False, 0
    for surface in surfaces:
        last = first + len(surface.faces)
        here = (chosen >= first) & (chosen < last)
        found = _colours_at(surface, chosen[here] - first, weights[here])
        if found is not None:
            colours[here], coloured = found, True
        first = last
    return colours if coloured else None


def _well_formed(surface: Any) -> bool:
    vertices, faces = np.asarray(surface.vertices), np.asarray(surface.faces)
    shaped = vertices.ndim == faces.ndim == 2 and vertices.shape[1] == faces.shape[1] == 3
    return bool(shaped and faces.min() >= 0 and faces.max() < len(vertices))


def _colours_at(
    surface: Any, faces: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float64] | NDArray[np.float32] | None:
    """Colours `(n, 3)` in [0, 1] at points of a surface, or `None` where it has none."""
    visual = surface.visual
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[faces, :3] / 255
    corners = np.asarray(surface.faces)[faces]
    if visual.kind == "vertex":
        return np.einsum("nc,ncd->nd", weights, np.asarray(visual.vertex_colors)[corners][..., :3] / 255)
    if visual.kind != "texture":
        return None
    found: Any = None
    if visual.uv is not None:
        found = visual.material.to_color(np.einsum("nc,ncd->nd", weights, np.asarray(visual.uv)[corners]))
    if np.ndim(found) < 2:  # none, or one for all: a flat colour, though texture coordinates may be there
        return np.broadcast_to(np.asarray(visual.material.main_color)[:3] / 255, (len(faces), 3))
    return np.asarray(found)[:, :3] / 255


def _vertices(pieces: list[Any], name: str) -> Points:
    if not (pieces := [piece for piece in pieces if len(getattr(piece, "vertices", ()))]):
        raise SampleError(f"{name}: holds no shape; it is empty or cut short.")
    points = np.concatenate([np.asarray(piece.vertices, dtype=np.float64) for piece in pieces])
    colours = [np.asarray(getattr(piece, "colors", ())) for piece in pieces]
    if any(len(colour) != len(piece.vertices) for colour, piece in zip(colours, pieces, strict=True)):
        return points, None
    return points, np.asarray(np.concatenate(colours)[:, :3] / 255, dtype=np.float32)


def _load(file: Path | NamedBytes, name: str) -> list[Any]:
    """Load the geometries of a file, each moved to its place in the scene; vertices are not merged."""
    try:
        import trimesh
    except ImportError as error:
        raise missing_dependency("trimesh", extra="mesh", purpose=f"meshes and ply files ({name})") from error
    try:
        opened = file if isinstance(file, Path) else io.BytesIO(file.content)
        scene = trimesh.load_scene(opened, file_type=file.suffix.lower()[1:], process=False)
        placed = [scene.graph[node] for node in sorted(scene.graph.nodes_geometry)]  # its own order differs by process
        size = sum(
            len(getattr(scene.geometry[geometry], part, ())) for _, geometry in placed for part in ("vertices", "faces")
        )
        if size > _MOST_ROWS:
            raise SampleError(
                f"{name}: holds {size:,} vertices and faces in all its copies, the limit is {_MOST_ROWS:,}."
            )
        return [scene.geometry[geometry].copy().apply_transform(transform) for transform, geometry in placed]
    except SampleError:
        raise
    except Exception as error:  # its readers raise whatever a damaged file leads them into
        raise SampleError(f"{name}: the shape cannot be decoded ({type(error).__name__}: {error}).") from error


def _refuse_cut(file: Path | NamedBytes, name: str) -> None:
    """Refuse text files that were cut short, which trimesh reads as far as they go: too few rows, or half an obj line."""
    content, suffix = file.read_bytes(), file.suffix.lower()
    if suffix == ".obj" and (half := _OBJ_HALF_LINE.search(content)):
        raise SampleError(f"{name}: cut short or damaged: a line reads {half[0].decode(errors='replace').strip()!r}.")
    promised, rows = 0, b""
    if suffix == ".ply" and b"format ascii" in content.partition(b"end_header")[0]:
        header, _, rows = content.partition(b"end_header")
        promised = sum(map(int, _PLY_COUNT.findall(header)))
    elif suffix == ".off":
        text = re.sub(rb"#[^\n]*", b"", content)
        if counts := _OFF_COUNTS.search(text):
            promised, rows = int(counts[1]) + int(counts[2]), text[counts.end() :]
    found = sum(1 for row in rows.splitlines() if row.strip())
    if found < promised:
        raise SampleError(f"{name}: cut short: the header promises {promised} rows, {found} are there.")
