"""Float32 products through oneDNN: exact, and no setting left behind."""

from __future__ import annotations

import threading

import pytest
import torch

from cmcr.connection import products
from cmcr.connection.products import fast_float32


def setting() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


def test_products_stay_in_float32() -> None:
    rows = torch.nn.functional.normalize(torch.randn(700, 384), dim=1)
    with fast_float32():
        found = rows @ rows.T
    assert (found - rows.double() @ rows.double().T).abs().max() < 2e-5


@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
def test_the_setting_of_the_user_is_put_back(chosen: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(chosen)
    try:
        was = setting()
        with pytest.raises(ValueError, match="inside"), fast_float32():
            raise ValueError("inside")
        assert setting() == was
        assert torch.get_float32_matmul_precision() == chosen
    finally:
        torch.set_float32_matmul_precision(before)


def test_overlapping_blocks_of_two_threads_put_the_first_setting_back() -> None:
    was = setting()
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        with fast_float32():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=second)
    with fast_float32():
        thread.start()
        assert entered.wait(10)
    leave.set()
    thread.join()
    assert setting() == was


def test_a_cpu_that_really_rounds_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_LARGEST_ERROR", 0.0)  # as if the error were that of bfloat16
    products._exact_through_onednn.cache_clear()
    try:
        was = setting()
        with fast_float32():
            assert setting() == was
    finally:
        products._exact_through_onednn.cache_clear()


def test_a_setting_that_was_inherited_is_inherited_again() -> None:
    above = torch.backends.mkldnn
    was, own = above.fp32_precision, setting()
    above.matmul.fp32_precision = "none"
    above.fp32_precision = "bf16"
    try:
        with fast_float32():
            pass
        above.fp32_precision = "none"
        assert setting() == "none"
    finally:
        above.fp32_precision = was
        above.matmul.fp32_precision = own
