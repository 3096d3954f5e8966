"""Binary glTF files (.glb): what a file declares is checked, and all that cmcr does not read is left out, before trimesh."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from cmcr.errors import SampleError

MOST_PIECES = 10_000
"""How many nodes the scene of a file may have, and how many primitives its meshes."""

_MOST_DEPTH = 100  # trimesh walks from each node to the root
_MOST_JSON = 1 << 24  # bytes of the description; vertices, faces and textures stand outside it
_GLTF, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
_BYTES_OF = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}  # by component type
_COMPONENTS_OF = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_SHARED = 8  # how often the bytes of a file may be declared: accessors may share them
_NODE = ("name", "children", "matrix", "translation", "rotation", "scale", "mesh")
_PRIMITIVE = ("attributes", "indices", "mode", "material")
_ATTRIBUTES = ("POSITION", "COLOR_0", "TEXCOORD_0")
_COLOURS = ("baseColorTexture", "baseColorFactor")


def checked_glb(content: bytes, name: str, is_texture: Callable[[bytes], bool]) -> bytes:
    """Reduce a file to its surfaces and their colours, after checking what it declares: a file of the same shapes.

    The colour of a material is that of `pbrMetallicRoughness`, or the diffuse one of `KHR_materials_pbrSpecularGlossiness`.
    `is_texture` tells whether a picture is one that is read.

    Raises:
        SampleError: more bytes, nodes, primitives or texels than there may be, parts in other files, or compressed.
        Exception: of any kind, where the file is damaged.
    """
    magic, version, _, size, kind = struct.unpack_from("<5I", content)
    if (magic, version, kind) != (_GLTF, 2, _JSON):
        raise SampleError(f"{name}: not a glb file of version 2.")
    if size > _MOST_JSON:
        raise SampleError(f"{name}: describes itself in {size:,} bytes, the limit is {_MOST_JSON:,}.")
    given: Mapping[str, Any] = json.loads(content[20 : 20 + size])
    binary = b""
    if (rest := content[20 + size :])[8:]:
        length, kind = struct.unpack_from("<2I", rest)
        binary = rest[8 : 8 + length]
        if kind != _BINARY or len(binary) < length:
            raise ValueError("its second chunk is cut short, or not binary")
    if compressed := [known for known in given.get("extensionsRequired", ()) if "compression" in known]:
        raise SampleError(f"{name}: compressed by {', '.join(compressed)}, which is not read. Save it without.")
    if any("uri" in buffer for buffer in given.get("buffers", ())):
        raise SampleError(f"{name}: parts of it are not in the file itself. Save it as one file.")
    _check_sizes(given, len(content), name)
    meshes = [
        {**_only(mesh, ("name",)), "primitives": [*map(_primitive, mesh["primitives"])]}
        for mesh in given.get("meshes", ())
    ]
    header = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": given.get("bufferViews", []),
        "accessors": given.get("accessors", []),
        "meshes": meshes,
        "nodes": [_only(node, _NODE) for node in given.get("nodes", ())],
        **_only(given, ("scene", "scenes")),
        **_materials(given, binary, is_texture),
    }
    description = json.dumps(header).encode()
    description += b" " * (-len(description) % 4)
    chunks = struct.pack("<2I", len(description), _JSON) + description + struct.pack("<2I", len(binary), _BINARY)
    return struct.pack("<3I", _GLTF, 2, 12 + len(chunks) + len(binary)) + chunks + binary


def _only(given: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: given[key] for key in keys if key in given}


def _primitive(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**_only(given, _PRIMITIVE), "attributes": _only(given["attributes"], _ATTRIBUTES)}


def _check_sizes(given: Mapping[str, Any], size: int, name: str) -> None:
    """Compare what is declared with the bytes there are: trimesh copies each view, and allocates each accessor."""
    nodes = given.get("nodes", ())
    primitives = sum(len(mesh["primitives"]) for mesh in given.get("meshes", ()))
    pieces = max(len(nodes), sum(len(node.get("children", ())) for node in nodes), primitives)
    views = given.get("bufferViews", ())
    declared = sum(view["byteLength"] for view in views)
    for accessor in given.get("accessors", ()):
        count, width = accessor["count"], _BYTES_OF[accessor["componentType"]] * _COMPONENTS_OF[accessor["type"]]
        declared += count * width
        if "bufferView" in accessor:
            view = views[accessor["bufferView"]]
            last = accessor.get("byteOffset", 0) + (count - 1) * view.get("byteStride", width) + width
            if count < 1 or last > view["byteLength"]:
                raise SampleError(f"{name}: damaged: it declares {count:,} values where there are fewer.")
    if pieces > MOST_PIECES:
        raise SampleError(f"{name}: made of {pieces:,} nodes or primitives, the limit is {MOST_PIECES:,}.")
    level, depth = set(range(len(nodes))), 0
    while level := {child for node in level for child in nodes[node].get("children", ())}:
        depth += 1
        if depth > _MOST_DEPTH:
            raise SampleError(f"{name}: nodes in nodes more than {_MOST_DEPTH} deep, or in themselves.")
    if declared > _SHARED * size:
        raise SampleError(f"{name}: declares {declared:,} bytes, in a file of {size:,}.")


def _materials(given: Mapping[str, Any], binary: bytes, is_texture: Callable[[bytes], bool]) -> dict[str, Any]:
    """Reduce materials to colours, and images to those that give one; each is checked to be a picture that is read."""
    materials = []
    for material in given.get("materials", ()):
        colours = material.get("pbrMetallicRoughness", {})
        if gloss := material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness"):
            renamed = {"baseColorTexture": gloss.get("diffuseTexture"), "baseColorFactor": gloss.get("diffuseFactor")}
            colours = {key: value for key, value in renamed.items() if value is not None}
        materials.append({"pbrMetallicRoughness": _only(colours, _COLOURS)})
    textures = [
        texture.get("extensions", {}).get("EXT_texture_webp", texture).get("source")
        for texture in given.get("textures", ())
    ]
    used = [material["pbrMetallicRoughness"].get("baseColorTexture") for material in materials]
    wanted = {textures[texture["index"]] for texture in used if texture is not None}
    images = []
    for number, image in enumerate(given.get("images", ())):
        kept = {}
        if number in wanted and "bufferView" in image:
            view = given["bufferViews"][image["bufferView"]]
            start = view.get("byteOffset", 0)
            if is_texture(binary[start : start + view["byteLength"]]):
                kept = {"bufferView": image["bufferView"]}
        images.append(kept)
    return {"materials": materials, "images": images, "textures": [{"source": source} for source in textures]}
