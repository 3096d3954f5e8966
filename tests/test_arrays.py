"""What is accepted as an array of embeddings, in any layout, and how it comes back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cmcr.arrays import all_rows, as_given, check_count, check_finite, is_number, rows_of, unit_rows, working_dtype
from cmcr.errors import (
    ConfigError,
    DimensionError,
    DtypeError,
    EmbeddingsError,
    NonFiniteError,
    TooFewRowsError,
    ZeroRowError,
)
from engine.rows import Disk
from reference.enhancement import normalize


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def in_a_structured_array(array):
    records = np.zeros(len(array), dtype=[("id", "u1"), ("embedding", array.dtype, (array.shape[1],))])
    records["embedding"] = array
    return records["embedding"]


def unaligned(array):
    raw = b"\0" + array.tobytes()
    return np.frombuffer(raw, dtype=array.dtype, offset=1).reshape(array.shape)


LAYOUTS = {
    "plain": lambda a: a,
    "read-only": read_only,
    "rows reversed": lambda a: a[::-1].copy()[::-1],
    "columns reversed": lambda a: a[:, ::-1].copy()[:, ::-1],
    "foreign byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "foreign and reversed": lambda a: a.astype(a.dtype.newbyteorder())[::-1].copy()[::-1],
    "Fortran order": np.asfortranarray,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "field of records": in_a_structured_array,
    "unaligned": unaligned,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 3), (1, 3), (3, 1), (1, 1)])  # numpy calls axes of one contiguous when reversed
def test_any_memory_layout_of_numpy_is_read_right(rng, shape, layout, dtype):
    array = rng.normal(size=shape).astype(dtype)
    given_array = LAYOUTS[layout](array)
    np.testing.assert_array_equal(given_array, array)  # the layout holds the same values
    rows = rows_of(given_array, "x")
    assert rows.dtype == torch.from_numpy(array).dtype
    np.testing.assert_array_equal(rows.numpy(), array)
    units = unit_rows(given_array, "x")
    assert units.dtype == (torch.float64 if dtype is np.float64 else torch.float32)
    np.testing.assert_allclose(units.numpy(), normalize(array), atol=1e-15 if dtype is np.float64 else 1e-7)
    np.testing.assert_array_equal(given_array, array)  # and was not written to


def test_rows_are_views_where_possible_and_unit_rows_a_copy_without_gradient():
    array, tensor = np.ones((2, 3), dtype=np.float32), torch.ones(2, 3, requires_grad=True)
    assert rows_of(array, "x").data_ptr() == array.__array_interface__["data"][0]
    assert rows_of(tensor, "x") is tensor
    units = unit_rows(tensor, "x")
    assert not units.requires_grad
    units.zero_()
    assert tensor.detach().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_unit_rows_of_torch(rng, dtype):
    tensor = torch.from_numpy(rng.normal(size=(4, 5))).to(dtype)
    units = unit_rows(tensor, "x")
    assert units.dtype == working_dtype(tensor) == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = normalize(tensor.double().numpy())
    np.testing.assert_allclose(units.numpy(), expected, atol=1e-15 if dtype == torch.float64 else 1e-7)
    with pytest.raises(TooFewRowsError, match="at least 5"):
        rows_of(tensor, "x", at_least=5)


@pytest.mark.parametrize(
    ("dtype", "value"), [("f2", 6e-8), ("f2", 6e4), ("f4", 1e-45), ("f4", 3e38), ("f8", 5e-324), ("f8", 1.7e308)]
)
def test_very_small_and_very_large_rows_have_a_direction(dtype, value):
    rows = unit_rows(np.array([[value, value, 0.0, -value]], dtype=dtype), "x")
    np.testing.assert_allclose(rows.numpy(), [[3**-0.5, 3**-0.5, 0.0, -(3**-0.5)]], atol=1e-7)


finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_unit_rows_do_not_depend_on_the_scale(values, scale):
    array = np.array(values)
    array[np.abs(array).max(axis=1) < 1e-6] = 1.0
    units = unit_rows(array, "x").numpy()
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(unit_rows(array * scale, "x").numpy(), units, atol=1e-14)
    np.testing.assert_allclose((units * array).sum(axis=1), np.linalg.norm(array, axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.ones((2, 2), dtype=np.int64), DtypeError, "got int64"),
        (np.ones((2, 2), dtype=bool), DtypeError, "got bool"),
        (np.ones((2, 2), dtype=complex), DtypeError, "got complex128"),
        (np.ones((2, 2), dtype=np.longdouble), DtypeError, "expected float16, float32 or float64"),
        (np.array([["a"]]), DtypeError, "got <U1"),
        (torch.ones(2, 2, dtype=torch.int32), DtypeError, "got torch.int32"),
        (torch.ones(2, 2, dtype=torch.complex64), DtypeError, "got torch.complex64"),
        (torch.ones(2, 2).to(torch.float8_e4m3fn), DtypeError, "got torch.float8_e4m3fn"),
        (torch.ones(2, 2).to_sparse(), DtypeError, "torch.sparse_coo"),
        ([[1.0]], DtypeError, "got list"),
        (None, DtypeError, "got NoneType"),
        (np.ones(3), DimensionError, r"pass embedding\[None\]"),
        (np.array(1.0), DimensionError, r"got \(\)"),
        (np.ones((2, 2, 2)), DimensionError, r"got \(2, 2, 2\)"),
        (np.ones((2, 0)), DimensionError, r"got \(2, 0\)"),
        (torch.ones(4), DimensionError, r"got \(4,\)"),
        (np.ones((0, 3)), TooFewRowsError, r"at least 1 row\(s\), got 0"),
        (torch.ones(0, 3), TooFewRowsError, "got 0"),
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(array, error, message):
    for check in (rows_of, unit_rows):
        with pytest.raises(error, match=f"^x: .*{message}") as caught:
            check(array, "x")
        assert {EmbeddingsError, ValueError} <= set(type(caught.value).__mro__)
        assert isinstance(caught.value, TypeError) == (error is DtypeError)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [0, 4095, 4096, 9000])
def test_the_first_row_that_is_not_finite_is_named_in_any_block(bad, first):
    array = np.ones((9001, 3), dtype=np.float32)
    array[[first, 9000], 1] = bad
    for check in (lambda: check_finite(torch.from_numpy(array), "sounds"), lambda: unit_rows(array, "sounds")):
        with pytest.raises(NonFiniteError, match=rf"^sounds: .* the first is row {first}\."):
            check()
    check_finite(torch.full((9001, 2), 3e38), "x")


def test_rows_of_zeros_are_counted_and_named():
    array = np.ones((5, 2))
    array[[2, 4]] = 0.0
    with pytest.raises(ZeroRowError, match=r"^x: 2 row\(s\) are all zeros .* the first is row 2\."):
        unit_rows(array, "x")


@pytest.mark.parametrize("count", [1, 4096, 9000])
def test_rows_on_disk_are_read_whole_as_unit_rows(rng, count):
    rows = rng.normal(size=(count, 3)).astype(np.float32)
    disk = Disk(rows)
    np.testing.assert_allclose(all_rows(disk).numpy(), normalize(rows), atol=1e-6)
    assert disk.most_rows_at_once <= 4096


def test_results_come_back_in_the_kind_of_the_input():
    result = torch.tensor([[1.5]], requires_grad=True)
    back = as_given(result, np.zeros((1, 1)))
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back[0, 0]) == (np.float32, 1.5)
    assert as_given(result, torch.zeros(1)) is result


NUMBERS = [0, -3, 0.5, np.float16(0.5), np.float64(-0.5), np.int64(3), np.uint8(0)]
NOT_NUMBERS = [math.nan, -math.inf, np.float32("nan"), 10**400, True, np.bool_(True), 1j, "1", None, [1.0]]


def test_numbers_and_counts():
    assert [value for value in NUMBERS + NOT_NUMBERS if is_number(value)] == NUMBERS
    check_count("batch_size", 3)
    for value in (0, -1, True, 2.0, "3", None):
        with pytest.raises(ConfigError, match="batch_size: expected a whole number of at least 1"):
            check_count("batch_size", value)
