"""The house: imports point down, nothing heavy is loaded early, the public names are those that are declared."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cmcr

SOURCE = Path(cmcr.__file__).parent
FLOORS = [
    {"__init__", "__main__"},
    {"cli"},
    {"similarities", "artefacts"},
    {"demo"},
    {"web"},
    {"search", "adapters"},
    {"evaluation", "connecting", "loading", "published"},
    {"embedding"},
    {"spaces", "memories", "connection"},
    {"data"},
    {"engine"},
    {"errors", "arrays", "files", "interruption", "progress", "terminal", "_version"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(SOURCE.rglob("*.py"))
DOORS = {("connection.py", name) for name in ("hub", "sentence_transformer", "onnx")}
"""Adapters that methods of `Connection` open, each by a late import: the one exception to imports that point down."""


def room_of(path: Path) -> str:
    room, *rest = path.relative_to(SOURCE).with_suffix("").parts
    return floor_name(room, rest[0] if rest else "")


def floor_name(room: str, file: str) -> str:
    """What fills a memory with an encoder, or by a connection, stands a floor above memories as such."""
    return (
        "embedding"
        if room == "memories" and (file.startswith("embed") or file in ("consistency", "projection"))
        else room
    )


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    room = room_of(path)
    for module in imported_modules(path):
        if not module.startswith("cmcr."):
            continue
        _, other, *rest = module.split(".")
        if other == "adapters" and room == "connection":
            assert (path.name, *rest) in DOORS, f"{path}: {module}"
            continue
        other = floor_name(other, rest[0] if rest else "")
        if room != "__init__" and other != room:
            # Files of the base may use each other; rooms of one floor may not.
            allowed = FLOOR_OF[other] > FLOOR_OF[room] or FLOOR_OF[other] == FLOOR_OF[room] == len(FLOORS) - 1
            assert allowed, f"{path}: {room} imports {other}"


def test_the_paper_needs_few_libraries():
    for path in (SOURCE / "connection").rglob("*.py"):
        for module in imported_modules(path):
            root = module.split(".")[0]
            assert root in sys.stdlib_module_names or root in {"torch", "numpy", "pydantic", "safetensors", "cmcr"}, (
                f"{path}: {module}"
            )


def test_there_is_no_drawer_for_odds_and_ends():
    assert {p.stem for p in FILES} & {"utils", "util", "common", "helpers", "misc"} == set()


def test_public_names_are_those_declared():
    assert sorted(cmcr._HOME) == sorted(set(cmcr.__all__) - {"__version__"})
    for name in cmcr.__all__:
        assert getattr(cmcr, name) is not None
    assert set(dir(cmcr)) == set(cmcr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        _ = cmcr.conect


@pytest.mark.parametrize("statement", ["import cmcr", "import cmcr.cli"])
def test_nothing_heavy_is_loaded_early(statement):
    script = (
        f"{statement}; import sys; heavy = {{'torch', 'sklearn', 'matplotlib', 'scipy', 'jinja2', 'transformers'}}; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
