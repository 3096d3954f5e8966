"""Everything that can go wrong because of what the user gave, as one tree.

    CmcrError
    ├── ConfigError            a setting or a name that does not exist or is out of range     (ValueError)
    ├── EmbeddingsError        arrays that cannot be used                                     (ValueError)
    │   ├── DimensionError     wrong number of axes, widths or row counts that do not match
    │   ├── DtypeError         not floating point                                             (TypeError)
    │   ├── NonFiniteError     NaN or infinity, with the first row that holds one
    │   ├── ZeroRowError       a row of zeros, which has no direction
    │   └── TooFewRowsError    empty, or fewer rows than the operation needs
    ├── SampleError            one item (picture, sound, cloud, text) that cannot be decoded  (ValueError)
    ├── ArtefactError          a folder on disk that is not what it should be
    │   ├── ArtefactNotFoundError   nothing there                                             (FileNotFoundError)
    │   ├── FormatError        half-written, another version, or not ours
    │   ├── IntegrityError     a file's bytes are not those that were written
    │   ├── ReadError          the system refuses to read it                                  (OSError)
    │   ├── WriteError         could not be written; nothing half-written was left            (OSError)
    │   ├── LockedError        another run is writing it
    │   └── ResumeError        begun with another model, input or setting
    ├── TooManyFailuresError   more items failed than the caller allows
    ├── WorkerError            a worker process was lost, or failed for no reason of the above (RuntimeError)
    ├── DeviceError            a device that this machine does not have                       (ValueError)
    ├── TrainingError          training diverged                                              (RuntimeError)
    └── MissingDependencyError an optional library, with the extra that brings it             (ImportError)

Every message says what was expected, what came, where, and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any


class CmcrError(Exception):
    """Anything a user can cause."""


class ConfigError(CmcrError, ValueError):
    """A setting or a name that does not exist or is out of range."""


class EmbeddingsError(CmcrError, ValueError):
    """Arrays of embeddings that cannot be used."""


class DimensionError(EmbeddingsError):
    """Wrong number of axes, or widths or row counts that do not match."""


class DtypeError(EmbeddingsError, TypeError):
    """Embeddings that are not floating point."""


class NonFiniteError(EmbeddingsError):
    """NaN or infinity among the embeddings."""


class ZeroRowError(EmbeddingsError):
    """A row of zeros: it has no direction, so it cannot be made a unit row."""


class TooFewRowsError(EmbeddingsError):
    """Empty embeddings, or fewer rows than the operation needs."""


class SampleError(CmcrError, ValueError):
    """One item that cannot be decoded."""


class ArtefactError(CmcrError):
    """A folder on disk that is not what it should be."""


class ArtefactNotFoundError(ArtefactError, FileNotFoundError):
    """There is nothing at this path."""


class FormatError(ArtefactError):
    """A folder that is half-written, of another version, or not ours."""


class IntegrityError(ArtefactError):
    """A file whose bytes are not those that were written."""


class ReadError(ArtefactError, OSError):
    """The system refuses to read an artefact: no permission, a failing disk, replaced while being read."""


class WriteError(ArtefactError, OSError):
    """An artefact could not be written; nothing half-written was left behind."""


class LockedError(ArtefactError):
    """Another run is writing this artefact."""


class ResumeError(ArtefactError):
    """An artefact was begun with another model, preprocessing, input or setting; the message names what differs."""


class TooManyFailuresError(CmcrError):
    """More items failed than the caller allows."""


class WorkerError(CmcrError, RuntimeError):
    """A worker process, of a run with several, was lost again and again or failed in a way that nobody foresaw."""


class DeviceError(CmcrError, ValueError):
    """A device that this machine does not have."""


class TrainingError(CmcrError, RuntimeError):
    """Training diverged: the loss is no longer a finite number."""


class MissingDependencyError(CmcrError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


class PoorInputWarning(UserWarning):
    """What was given will hardly make a good connection: a few rows, or rows that do not belong together."""


def missing_dependency(library: str, *, extra: str, purpose: str) -> MissingDependencyError:
    """Build the error for an optional library.

    Args:
        library: its name on the package index.
        extra: the extra of cmcr that brings it.
        purpose: what it is needed for, to complete "cmcr needs it for ...".
    """
    return MissingDependencyError(
        f"{library} is not installed; cmcr needs it for {purpose}. Install it with: pip install 'cmcr[{extra}]'"
    )


def validation_problems(error: Any) -> str:
    """List what pydantic found wrong: the field, what was expected, what came.

    Args:
        error: a `pydantic.ValidationError`.
    """
    problems = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("tuple[", "constrained")))
        said = problem["msg"].removeprefix("Value error, ")
        got = "" if problem["type"] in ("missing", "value_error") else f", got {problem['input']!r:.80}"
        problems.append(f"{field}: {said[0].lower()}{said[1:]}{got}" if field else said)
    return "; ".join(dict.fromkeys(problems))


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """List what differs between two records, such as "dtype was float16, now float32"; empty where nothing does."""
    found = []
    for name in {**was, **now}:
        before, after = was.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found.append(f"{name}: {inner}" if (inner := differences(before, after)) else "")
        elif before != after:
            found.append(f"{name} was {_short(before)}, now {_short(after)}")
    return "; ".join(filter(None, found))


def _short(value: object) -> str:
    """Show a value; of a hash, enough to tell it from another."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{16,}", text) else text


def words_of(error: Exception) -> str:
    """Put an error in words: those of the system without their number, the file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.rstrip('.')}."
    return str(error)


def unknown_name(kind: str, given: str, known: Iterable[str]) -> ConfigError:
    """Build the error for a name that does not exist, naming the nearest that do: all that are equally near."""
    names = sorted(known)
    nearness = {name: difflib.SequenceMatcher(None, str(given), name).ratio() for name in names}
    best = max(nearness.values(), default=0.0)
    near = [repr(name) for name in names if nearness[name] == best]
    hint = f" Did you mean {' or '.join(near)}?" if best >= 0.4 and len(near) < 4 else ""
    return ConfigError(f"unknown {kind} {given!r}.{hint} Known: {', '.join(names) or 'none'}.")
