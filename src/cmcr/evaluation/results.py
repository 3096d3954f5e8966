"""The files of results, of an evaluation and of ablations: whether they are what was written, and hold what cmcr reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cmcr.errors import FormatError
from cmcr.files import Count, Sha256, StrictRecord, read_json, read_signed

EVALUATION, ABLATIONS_FORMAT = "cmcr evaluation", "cmcr ablations"
VERSION = 1


class _Figure(StrictRecord):
    value: float
    low: float | None
    high: float | None
    n: Count


class _Figures(StrictRecord, extra="allow"):
    __pydantic_extra__: dict[str, dict[str, _Figure]]  # of baselines and spaces
    connection: Annotated[dict[str, _Figure], Field(min_length=1)]


class _Connection(StrictRecord, extra="allow"):
    method: str
    seed: int
    overlap: str
    weights_sha256: Sha256


class _Data(StrictRecord, extra="allow"):
    name: str


class _Evaluation(StrictRecord, extra="allow"):
    run: str
    connection: _Connection
    data: _Data
    figures: _Figures
    kept: dict[str, float]


class _MadeFrom(StrictRecord, extra="allow"):
    run: str


class _Cell(StrictRecord):
    ablation: str
    seed: int
    figures: dict[str, float]
    seconds: float


class _Ablations(StrictRecord, extra="allow"):
    made_from: _MadeFrom
    seeds: tuple[int, ...]
    cells: tuple[_Cell, ...]


_KINDS: dict[Any, type[StrictRecord]] = {EVALUATION: _Evaluation, ABLATIONS_FORMAT: _Ablations}


def read_result(path: Path, *expected: str) -> dict[str, Any]:
    """Read a file of results, checked whole.

    Args:
        path: of the file.
        *expected: formats; none for any.

    Raises:
        FormatError: not such a file, of another version, or of impossible content.
        IntegrityError: its content is not what was written.
        ReadError: the system refuses to read it.
    """
    found = read_json(path)
    kind = found.get("format")
    wanted = expected or tuple(_KINDS)
    if kind not in wanted or found.get("version") != VERSION:
        said = f"{kind!r:.80} of version {found.get('version')!r:.80}"
        raise FormatError(f"{path}: expected {' or '.join(wanted)} of version {VERSION}, got {said}.")
    read_signed(path, _KINDS[kind])
    return found
