"""Numeric arrays out of a pickled dictionary, without unpickling.

The published point clouds of ULIP and C-MCR are `.npy` files that hold a pickled dictionary. Unpickling calls whatever the
file names; here nothing is called. The opcodes are read as data (`pickletools.genops`), and the few names that numpy
writes for an array stand for inert records. Any other name, and any opcode that is not needed for dictionaries, lists,
strings, numbers and arrays, ends the reading.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from cmcr.data.paths import FilePath, file_of
from cmcr.data.point_clouds import read_coloured_point_cloud
from cmcr.errors import SampleError

_NUMERIC = re.compile("[fiu][1248]|b1")
_MARK = object()
_LITERALS = frozenset(
    "INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING "
    "BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: _MARK,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_NAMES = {
    "numpy.core.multiarray _reconstruct": "new array",
    "numpy._core.multiarray _reconstruct": "new array",
    "numpy.core.numeric _frombuffer": "filled array",  # protocol 5
    "numpy._core.numeric _frombuffer": "filled array",
    "numpy ndarray": "array class",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",  # how protocol 2 writes bytes
}


class _NotPlainError(Exception):
    """The file holds something other than plain data and arrays."""


@dataclass(frozen=True)
class _Name:
    """One of the allowed names; never called."""

    means: str


@dataclass
class _Dtype:
    code: str
    byte_order: str = "="


@dataclass
class _Array:
    """What the file says of an array."""

    shape: tuple[int, ...] = ()
    dtype: _Dtype | None = None
    fortran: bool = False
    content: Any = None

    def set(self, shape: Any, dtype: Any, fortran: bool, content: Any) -> None:
        self.shape = tuple(_checked(length, int) for length in _checked(shape, tuple))
        self.dtype, self.fortran, self.content = _checked(dtype, _Dtype), fortran, content


def read_pickled_arrays(path: FilePath) -> dict[str, NDArray[Any]]:
    """Read the numeric arrays of a pickled dictionary, in a `.npy` file or a bare pickle; no code of the file runs.

    Args:
        path: a file that `numpy.save` wrote of a dictionary, or `pickle.dump` of one.

    Returns:
        The entries of the dictionary that are arrays of numbers, in their own types; its other entries (texts, lists,
        nested dictionaries) are left out.

    Raises:
        SampleError: no such file, names other than numpy's arrays, damaged, or no dictionary.
    """
    file = file_of(path, "pickled file")
    try:
        content = _pickle_in(file)
        found = _Reader().read(content)
    except _NotPlainError as error:
        raise SampleError(f"{path}: not a plain dictionary of arrays: {error}. It was not opened further.") from error
    except Exception as error:  # damaged opcodes and headers raise of every kind
        raise SampleError(f"{path}: damaged: its pickle cannot be read ({error}).") from error
    if not isinstance(found, dict):
        raise SampleError(f"{path}: expected a pickled dictionary, got {type(found).__name__}.")
    return {key: _numbers(value, f"{path}: {key!r}") for key, value in _numeric_entries(found)}


def convert_pickled_point_cloud(source: FilePath, target: FilePath) -> Path:
    """Write the cloud of a pickled dictionary as a plain `.npy` file that `read_point_cloud` reads.

    Args:
        source: a file that `read_pickled_arrays` reads, with the entries `xyz` or `points` and perhaps `rgb` or `colors`.
        target: where to write `(p, 3)` float32, or `(p, 6)` with colours in [0, 1]; it must end in `.npy` and not exist.

    Returns:
        `target` as a path.

    Raises:
        SampleError: as `read_pickled_arrays` and `read_coloured_point_cloud`, or a target that is there or named otherwise.
    """
    written = Path(target)
    if written.suffix != ".npy" or written.exists():
        raise SampleError(f"{target}: give a new file that ends in .npy; nothing was written.")
    cloud = read_coloured_point_cloud(read_pickled_arrays(source))
    table = cloud.points if cloud.colours is None else np.hstack([cloud.points, cloud.colours])
    np.save(written, table, allow_pickle=False)
    return written


class _Reader:
    """A stack machine for the harmless opcodes of a pickle: it builds containers and records, and calls nothing."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                return _unwrapped(self._stack.pop())
            self._take(opcode.name, argument)
        raise _NotPlainError("it does not end")

    def _take(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self._stack.append(tuple(self._popped(int(name[-1]))))
        elif name == "TUPLE":
            self._stack.append(tuple(self._to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._popped(1) if name == "APPEND" else self._to_mark()
            _checked(self._stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._popped(2) if name == "SETITEM" else self._to_mark()
            _checked(self._stack[-1], dict).update(_entries(items))
        elif name in ("LIST", "DICT"):
            items = self._to_mark()
            self._stack.append(items if name == "LIST" else _entries(items))
        elif name == "GLOBAL":
            self._stack.append(_allowed(argument))
        elif name == "STACK_GLOBAL":
            self._stack.append(_allowed(" ".join(_checked(part, str) for part in self._popped(2))))
        elif name == "REDUCE":
            named, arguments = self._popped(2)
            self._stack.append(_record(_checked(named, _Name), _checked(arguments, tuple)))
        elif name == "BUILD":
            (state,) = self._popped(1)
            _fill(self._stack[-1], _checked(state, tuple))
        else:
            raise _NotPlainError(f"it uses the opcode {name}")

    def _popped(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise _NotPlainError("its stack runs empty")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _to_mark(self) -> list[Any]:
        at = next((i for i in reversed(range(len(self._stack))) if self._stack[i] is _MARK), None)
        if at is None:
            raise _NotPlainError("a mark is missing")
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items


def _entries(items: list[Any]) -> dict[Any, Any]:
    """Pair keys and values. Keys are plain: hashing a deeply nested one would overflow the stack of the process."""
    if not all(type(key) in (str, bytes, int, float, bool) for key in items[::2]):
        raise _NotPlainError("it has keys that are not texts or numbers")
    return dict(zip(items[::2], items[1::2], strict=True))


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _NotPlainError(f"expected a {kind.__name__.strip('_').lower()}, got {type(value).__name__}")
    return value


def _allowed(name: str) -> _Name:
    if name not in _NAMES:
        raise _NotPlainError(f"it names {name.replace(' ', '.')!r}")
    return _Name(_NAMES[name])


def _record(named: _Name, arguments: tuple[Any, ...]) -> Any:
    """Note what numpy would be asked to make."""
    if named.means == "new array":
        return _Array()
    if named.means == "filled array":
        content, dtype, shape, order = arguments
        array = _Array()
        array.set(shape, dtype, order == "F", content)
        return array
    if named.means == "dtype":
        return _Dtype(_checked(arguments[0], str))
    if named.means == "encode" and arguments[1:] == ("latin1",):
        return _checked(arguments[0], str).encode("latin-1")
    raise _NotPlainError(f"it calls the {named.means}")


def _fill(record: Any, state: tuple[Any, ...]) -> None:
    """Note the state that numpy would set: of a dtype `(3, byte order, ...)`, of an array `(1, shape, dtype, order, data)`."""
    if type(record) is _Dtype:
        record.byte_order = _checked(state[1], str)
    elif type(record) is _Array:
        _, shape, dtype, fortran, content = state
        record.set(shape, dtype, bool(fortran), content)
    else:
        raise _NotPlainError(f"it sets the state of a {type(record).__name__}")


def _unwrapped(found: Any) -> Any:
    """Take the dictionary out of the array of one object that `numpy.save` puts around it."""
    if isinstance(found, _Array) and found.shape == () and type(found.content) is list and len(found.content) == 1:
        return found.content[0]
    return found


def _numeric_entries(found: dict[Any, Any]) -> Iterator[tuple[str, _Array]]:
    for key, value in found.items():
        if isinstance(key, str) and isinstance(value, _Array) and value.dtype and _NUMERIC.fullmatch(value.dtype.code):
            yield key, value


def _numbers(record: _Array, name: str) -> NDArray[Any]:
    dtype = record.dtype
    order = dtype.byte_order if dtype else ""
    if dtype is None or order not in ("<", ">", "|", "=") or min(record.shape, default=0) < 0:
        raise SampleError(f"{name}: an array of an unknown kind.")
    kind = np.dtype(order + dtype.code)
    content = record.content
    if not isinstance(content, bytes | bytearray) or len(content) != math.prod(record.shape) * kind.itemsize:
        raise SampleError(f"{name}: damaged: its data does not fill the shape {record.shape} of {kind}.")
    flat = np.frombuffer(content, dtype=kind)
    return flat.reshape(record.shape, order="F" if record.fortran else "C").astype(kind.newbyteorder("="))


def _pickle_in(path: Path) -> bytes:
    """Take the pickle out of a `.npy` file; a file without numpy's mark is one from its first byte."""
    with path.open("rb") as opened:
        if opened.read(len(npy_format.MAGIC_PREFIX)) != npy_format.MAGIC_PREFIX:
            opened.seek(0)
            return opened.read()
        opened.seek(0)
        version = npy_format.read_magic(opened)
        header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        _, _, dtype = header(opened)
        if not dtype.hasobject:
            raise _NotPlainError("it is an array that numpy.load reads without unpickling")
        return opened.read()
