"""What an array of embeddings must be, and how it goes in as numpy or torch and comes out as the same kind.

Letters used for shapes everywhere in cmcr: `B` batch, `N` memory rows, `D` width of a space,
`K` width of the common space, `Q` queries, `C` corpus; `n` and `m` any number of rows.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Iterator
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.errors import (
    ConfigError,
    DimensionError,
    DtypeError,
    NonFiniteError,
    TooFewRowsError,
    ZeroRowError,
)

Array = NDArray[np.floating] | Tensor
"""Rows of embeddings `(n, D)`: a numpy array or a torch tensor, floating point."""

ArrayT = TypeVar("ArrayT", NDArray[np.floating], Tensor)


@runtime_checkable
class StoredRows(Protocol):
    """Rows of embeddings that lie on disk, maybe more than RAM holds (`cmcr.Memory` is one).

    Attributes:
        shape: `(N, D)`.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """`(N, D)`."""
        ...

    def __len__(self) -> int: ...

    def blocks(self, rows: int = ...) -> Iterator[NDArray[np.float32]]:
        """Read all rows in their order, `(n, D)` float32 at a time, `n` at most `rows`."""
        ...


@runtime_checkable
class IndexedRows(StoredRows, Protocol):
    """Rows on disk that can be read by position, and told from others by a hash (`cmcr.Memory` is one)."""

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows `(n, D)` by position."""
        ...

    def digest(self) -> str:
        """Hash which rows they are and in which order, as 64 hexadecimal digits."""
        ...


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_CHECKED_ROWS = 4096  # rows looked at together, so that a check never doubles the memory of a large array


def rows_of(array: Array, name: str, *, at_least: int = 1) -> Tensor:
    """View an array of embeddings as a tensor, after checking its kind and shape (values: see `check_finite`).

    Args:
        array: `(n, D)` floating point, numpy or torch.
        name: what to call it in a message, such as "text of space 'clip'".
        at_least: the fewest rows that make sense.

    Returns:
        `(n, D)` tensor on the same memory where possible, its dtype unchanged.

    Raises:
        DtypeError: not a numpy array or torch tensor, or not floating point.
        DimensionError: not two axes, or rows of no width.
        TooFewRowsError: fewer than `at_least` rows.
    """
    if isinstance(array, np.ndarray):
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise DtypeError(f"{name}: expected float16, float32 or float64, got {array.dtype}. Convert it first.")
        tensor = _tensor_on(array)
    elif isinstance(array, Tensor):
        if array.dtype not in _DTYPES or array.layout != torch.strided:
            raise DtypeError(
                f"{name}: expected a dense tensor of float16, bfloat16, float32 or float64, got {array.dtype}, "
                f"{array.layout}. Convert it first."
            )
        tensor = array
    else:
        raise DtypeError(
            f"{name}: expected a numpy array or a torch tensor of shape (n, D), got {type(array).__name__}."
        )
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        hint = " For a single embedding pass embedding[None]." if tensor.ndim == 1 else ""
        raise DimensionError(f"{name}: expected shape (n, D), got {tuple(tensor.shape)}.{hint}")
    if len(tensor) < at_least:
        raise TooFewRowsError(f"{name}: expected at least {at_least} row(s), got {len(tensor)}.")
    return tensor


def as_read(stored: StoredRows, block: NDArray[np.float32]) -> Tensor:
    """Scale rows that were read to length one again, which rounding has moved a little, unless they are `as_written`."""
    rows = torch.from_numpy(block)
    return rows if getattr(stored, "as_written", False) else normalized(rows)


def all_rows(stored: StoredRows) -> Tensor:
    """Read rows on disk into RAM, see `as_read`: `(N, D)` float32."""
    rows = torch.empty(stored.shape, dtype=torch.float32)
    start = 0
    for block in stored.blocks(_CHECKED_ROWS):
        rows[start : start + len(block)] = as_read(stored, block)
        start += len(block)
    return rows


def check_finite(rows: Tensor, name: str) -> None:
    """Make sure that no value is NaN or infinite.

    Raises:
        NonFiniteError: with the number of bad rows and the first of them.
    """
    for start in range(0, len(rows), _CHECKED_ROWS):
        block = rows[start : start + _CHECKED_ROWS]
        # One look at the ends of the range, which NaN spreads to, is ten times as fast as a look at each value.
        if not torch.isfinite(torch.stack(torch.aminmax(block))).all():
            bad = ~torch.isfinite(block).all(dim=1)
            first, count = start + int(bad.nonzero()[0]), int(bad.sum())
            raise NonFiniteError(
                f"{name}: NaN or infinity in {count} of the rows {start}..{start + len(block) - 1}, the first is row "
                f"{first}. Remove those rows (in the overlap: from both spaces) or embed them again."
            )


def unit_rows(array: Array, name: str, *, at_least: int = 1) -> Tensor:
    """Check an array of embeddings and scale every row to length one.

    Returns:
        `(n, D)` tensor of unit rows, a copy; float64 stays float64, everything else becomes float32.

    Raises:
        DtypeError, DimensionError, TooFewRowsError: as `rows_of`.
        NonFiniteError: NaN or infinity.
        ZeroRowError: a row of zeros.
    """
    rows = rows_of(array, name, at_least=at_least)
    check_finite(rows, name)
    rows = rows.detach().to(working_dtype(rows))
    zero = (rows == 0).all(dim=1)
    if zero.any():
        raise ZeroRowError(
            f"{name}: {int(zero.sum())} row(s) are all zeros and have no direction, the first is row "
            f"{int(zero.nonzero()[0])}. Remove them or embed those items again."
        )
    return normalized(rows)


def normalized(rows: Tensor) -> Tensor:
    """Scale rows `(n, D)` to length one, however large or small they are; rows of zeros stay zeros."""
    # Divide by the largest value first: squares of very large or very small numbers overflow or vanish.
    tiny = torch.finfo(rows.dtype).tiny
    scaled = rows / rows.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    return scaled / torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp_min(tiny)


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Choose the precision to compute in: float64 if any input is float64, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def check_count(name: str, value: object) -> None:
    """Make sure that a setting is a whole number of at least 1 (true and false are none).

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}: expected a whole number of at least 1, got {value!r}.")


def is_number(value: object) -> bool:
    """Whether a setting is a finite real number (numpy's included; true and false are not)."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def as_given(result: Tensor, given: ArrayT) -> ArrayT:
    """Return a result in the caller's kind: numpy for numpy, a tensor for a tensor."""
    if isinstance(given, np.ndarray):
        return result.detach().cpu().numpy()
    return result


def _tensor_on(array: NDArray[np.floating]) -> Tensor:
    """Wrap a numpy array without a copy where torch can (it reads no reversed axes, odd strides or foreign byte order)."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()  # not ascontiguousarray: it leaves the stride of an axis of length one as it was
    with warnings.catch_warnings():
        # Read-only arrays (memory maps) make torch warn that writing is undefined; cmcr never writes to inputs.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)
