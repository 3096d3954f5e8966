"""The files of results, of an evaluation and of ablations: what they hold, and whether that is what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmcr.errors import FormatError
from cmcr.files import Count, Sha256, StrictRecord, read_json, read_signed

EVALUATION, ABLATIONS_FORMAT = "cmcr evaluation", "cmcr ablations"
VERSION = 1


class _Figure(StrictRecord):
    value: float
    low: float | None
    high: float | None
    n: Count


class _Gap(StrictRecord):
    difference: float
    low: float
    high: float
    sign_flip_p: float | None


class _Space(StrictRecord):
    name: str
    fingerprint: str | None
    model: str | None
    revision: str | None


class _Connection(StrictRecord):
    method: str
    seed: int
    overlap: str
    overlap_rows: Count
    width: Count
    weights_sha256: Sha256
    spaces: tuple[_Space, ...]


class _Data(StrictRecord):
    name: str
    sha256: Sha256
    left_out: Count = 0
    failed: Count = 0
    prompts: str = ""


class _Quoted(StrictRecord):
    source: str
    figures: dict[str, float]
    second_hand: bool
    quoted: bool


class _Evaluation(StrictRecord):
    run: str
    connection: _Connection
    data: _Data
    seed: int
    figures: dict[str, dict[str, _Figure]]
    connection_minus: dict[str, dict[str, _Gap]]
    kept: dict[str, float]
    published_in_percent: tuple[_Quoted, ...]
    versions: dict[str, str]


class _OverSeeds(StrictRecord):
    mean: float
    low: float | None
    high: float | None
    seeds: Count


class _Summary(_OverSeeds):
    minus_full: _OverSeeds | None


class _MadeFrom(StrictRecord):
    run: str
    data: _Data
    method: str
    settings: dict[str, Any]
    overlap: str | None
    memories: tuple[tuple[str, str, Sha256], ...]
    versions: dict[str, str]


class _Cell(StrictRecord):
    ablation: str
    seed: int
    figures: dict[str, float]
    seconds: float


class _Ablations(StrictRecord):
    made_from: _MadeFrom
    seeds: tuple[int, ...]
    summary: dict[str, dict[str, _Summary]]
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
