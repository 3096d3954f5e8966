import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cmcr import arrays as embeddings
from cmcr.arrays import as_given, check_finite, is_number, rows_of, unit_rows, working_dtype
from cmcr.engine.device import choose_device
from cmcr.errors import (
    CmcrError,
    DeviceError,
    DimensionError,
    DtypeError,
    EmbeddingsError,
    NonFiniteError,
    TooFewRowsError,
    ZeroRowError,
)
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
def test_any_memory_layout_of_numpy_is_read_right(rng, layout, dtype):
    array = rng.normal(size=(5, 3)).astype(dtype)
    given_array = LAYOUTS[layout](array)
    np.testing.assert_array_equal(given_array, array)  # the layout holds the same values
    rows = rows_of(given_array, "x")
    assert rows.dtype == {np.float16: torch.float16, np.float32: torch.float32, np.float64: torch.float64}[dtype]
    np.testing.assert_array_equal(rows.numpy(), array)
    units = unit_rows(given_array, "x")
    assert units.dtype == (torch.float64 if dtype is np.float64 else torch.float32)
    np.testing.assert_allclose(units.numpy(), normalize(array), atol=1e-15 if dtype is np.float64 else 1e-7)
    np.testing.assert_array_equal(given_array, array)  # and was not written to


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1, 1)])
def test_reversed_arrays_with_an_axis_of_one_are_read_right(rng, shape):
    # numpy calls them contiguous although their stride is negative.
    array = rng.normal(size=shape)
    for turned in (array[::-1], array[:, ::-1], array[::-1, ::-1]):
        np.testing.assert_array_equal(rows_of(turned, "x").numpy(), turned)


def test_a_broadcast_row_is_read_right():
    rows = unit_rows(np.broadcast_to(np.array([3.0, 4.0]), (3, 2)), "x")
    np.testing.assert_allclose(rows.numpy(), [[0.6, 0.8]] * 3, atol=1e-15)


def test_rows_are_views_where_possible():
    array, tensor = np.ones((2, 3), dtype=np.float32), torch.ones(2, 3)
    assert rows_of(array, "x").data_ptr() == array.__array_interface__["data"][0]
    assert rows_of(tensor, "x") is tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_unit_rows_of_torch(rng, dtype):
    given_tensor = torch.from_numpy(rng.normal(size=(4, 5))).to(dtype)
    units = unit_rows(given_tensor, "x")
    assert units.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = normalize(given_tensor.double().numpy())
    np.testing.assert_allclose(units.numpy(), expected, atol=1e-15 if dtype == torch.float64 else 1e-7)


def test_unit_rows_are_a_copy_without_gradient():
    given_tensor = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    units = unit_rows(given_tensor, "x")
    assert not units.requires_grad
    units.zero_()
    np.testing.assert_array_equal(given_tensor.detach().numpy(), [[1.0, 0.0], [0.0, 1.0]])


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


def dense(got):
    return (
        rf"^x: expected a dense tensor of float16, bfloat16, float32 or float64, got {re.escape(got)}\. "
        r"Convert it first\.$"
    )


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            np.ones((2, 2), dtype=np.int64),
            DtypeError,
            "^x: expected float16, float32 or float64, got int64. Convert it first.$",
        ),
        (np.ones((2, 2), dtype=bool), DtypeError, "got bool"),
        (np.ones((2, 2), dtype=complex), DtypeError, "got complex128"),
        (np.ones((2, 2), dtype=np.longdouble), DtypeError, "expected float16, float32 or float64, got float128"),
        (np.array([["a"]]), DtypeError, "got <U1"),
        (torch.ones(2, 2, dtype=torch.int32), DtypeError, dense("torch.int32, torch.strided")),
        (torch.ones(2, 2, dtype=torch.int64), DtypeError, dense("torch.int64, torch.strided")),
        (torch.ones(2, 2, dtype=torch.bool), DtypeError, dense("torch.bool, torch.strided")),
        (torch.ones(2, 2, dtype=torch.complex64), DtypeError, dense("torch.complex64, torch.strided")),
        (torch.ones(2, 2).to(torch.float8_e4m3fn), DtypeError, dense("torch.float8_e4m3fn, torch.strided")),
        (torch.ones(2, 2).to(torch.float8_e5m2), DtypeError, dense("torch.float8_e5m2, torch.strided")),
        (torch.ones(2, 2).to_sparse(), DtypeError, dense("torch.float32, torch.sparse_coo")),
        (torch.ones(2, 2).double().to_sparse(), DtypeError, dense("torch.float64, torch.sparse_coo")),
        ([[1.0]], DtypeError, r"^x: expected a numpy array or a torch tensor of shape \(n, D\), got list.$"),
        (None, DtypeError, "got NoneType"),
        (
            np.ones(3),
            DimensionError,
            r"^x: expected shape \(n, D\), got \(3,\). For a single embedding pass embedding\[N",
        ),
        (np.array(1.0), DimensionError, r"got \(\)\.$"),
        (np.ones((2, 2, 2)), DimensionError, r"^x: expected shape \(n, D\), got \(2, 2, 2\)\.$"),
        (np.ones((2, 0)), DimensionError, r"got \(2, 0\)"),
        (torch.ones(4), DimensionError, r"got \(4,\). For a single"),
        (np.ones((0, 3)), TooFewRowsError, r"^x: expected at least 1 row\(s\), got 0.$"),
        (torch.ones(0, 3), TooFewRowsError, "got 0"),
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(array, error, message):
    for check in (rows_of, unit_rows):
        with pytest.raises(error, match=message) as caught:
            check(array, "x")
        assert isinstance(caught.value, EmbeddingsError)
        assert isinstance(caught.value, CmcrError)
        assert isinstance(caught.value, ValueError)


def test_dtype_error_is_a_type_error():
    with pytest.raises(TypeError):
        rows_of([1.0], "x")


def test_fewest_rows():
    assert len(rows_of(np.ones((3, 1)), "x", at_least=3)) == 3
    with pytest.raises(TooFewRowsError, match=r"^x: expected at least 4 row\(s\), got 3\.$"):
        rows_of(np.ones((3, 1)), "x", at_least=4)
    with pytest.raises(TooFewRowsError, match="at least 4"):
        unit_rows(np.ones((3, 1)), "x", at_least=4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [0, 3, 4, 9])
def test_non_finite_rows_are_named_over_blocks(monkeypatch, bad, first):
    monkeypatch.setattr(embeddings, "_CHECKED_ROWS", 4)
    array = np.ones((10, 3), dtype=np.float32)
    array[first, 1] = bad
    with pytest.raises(
        NonFiniteError, match=f"^sounds: NaN or infinity in 1 of the rows .* the first is row {first}\\."
    ):
        check_finite(torch.from_numpy(array), "sounds")
    with pytest.raises(NonFiniteError, match=f"the first is row {first}\\. Remove those rows"):
        unit_rows(array, "sounds")


def test_non_finite_rows_are_counted_within_their_block():
    array = np.ones((5, 2))
    array[[1, 3]] = np.nan
    with pytest.raises(NonFiniteError, match=r"in 2 of the rows 0\.\.4, the first is row 1"):
        unit_rows(array, "x")


def test_finite_rows_pass_over_blocks(monkeypatch):
    monkeypatch.setattr(embeddings, "_CHECKED_ROWS", 4)
    assert check_finite(torch.full((9, 2), 3e38), "x") is None


def test_rows_of_zeros_are_counted_and_named():
    array = np.ones((5, 2))
    array[[2, 4]] = 0.0
    with pytest.raises(ZeroRowError, match=r"^x: 2 row\(s\) are all zeros and have no direction, the first is row 2\."):
        unit_rows(array, "x")


def test_working_dtype():
    half, single, double = torch.ones(1).half(), torch.ones(1), torch.ones(1).double()
    assert working_dtype(half, torch.ones(1).bfloat16()) == torch.float32
    assert working_dtype(single, half) == torch.float32
    assert working_dtype(single, double) == torch.float64


def test_results_come_back_in_the_kind_of_the_input():
    result = torch.tensor([[1.5]], requires_grad=True)
    back = as_given(result, np.zeros((1, 1)))
    assert isinstance(back, np.ndarray)
    assert back.dtype == np.float32
    assert back[0, 0] == 1.5
    assert as_given(result, torch.zeros(1)) is result


@pytest.mark.parametrize(
    "value", [0, -3, 0.5, np.float16(0.5), np.float32(0.5), np.float64(-0.5), np.int64(3), np.uint8(0)]
)
def test_finite_real_numbers_are_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf"), True, np.bool_(True), 1j, "1", None, [1.0]],
)
def test_anything_else_is_no_number(value):
    assert not is_number(value)


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_best_device(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == torch.device(best)


def test_a_device_of_this_machine_is_kept():
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "mps"])
def test_the_devices_that_there_are_may_be_named(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(name) == choose_device(torch.device(name)) == torch.device(name)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:2", 2), ("cuda:99", 2)])
@pytest.mark.parametrize("kind", [str, torch.device])
def test_a_missing_cuda_device_is_refused(monkeypatch, name, count, kind):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(DeviceError) as caught:
        choose_device(kind(name))
    assert str(caught.value) == f"device {kind(name)!r}: this machine has {count} CUDA device(s). Use 'auto'."


def test_a_missing_apple_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"^device 'mps' is not available on this machine\. Use 'auto' or 'cpu'\.$"):
        choose_device("mps")


@pytest.mark.parametrize(
    "device",
    ["gpu", "CPU", "", "cuda:x", "cuda:-1", "meta", "xpu", torch.device("meta"), torch.device("xpu"), None, []],
)
def test_an_unknown_device_is_refused(device):
    with pytest.raises(DeviceError) as caught:
        choose_device(device)
    assert str(caught.value) == f"unknown device {device!r}: expected 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'."
