"""What the caller has set in torch changes nothing, and is as it was afterwards."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cmcr.engine import precision
from cmcr.engine.precision import check_precision, fast_float32, guarded_torch_state, seeded_weights
from cmcr.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("cores", "inside"), [(1, 1), (64, 2)])
def test_no_more_threads_than_cores(monkeypatch, cores, inside):
    monkeypatch.setattr(precision, "cores", lambda: cores)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with guarded_torch_state(CPU):
            assert torch.get_num_threads() == inside
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_float32_products_stay_in_float32_and_the_setting_is_restored():
    rows = torch.nn.functional.normalize(torch.randn(300, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    exact = rows.double() @ rows.double().T
    before = torch.get_float32_matmul_precision()
    with fast_float32():
        inside = getattr(torch.backends.mkldnn, "matmul", None) and torch.backends.mkldnn.matmul.fp32_precision
        with fast_float32():
            assert (rows @ rows.T - exact).abs().max() < 2e-5
        assert inside is None or torch.backends.mkldnn.matmul.fp32_precision == inside
    assert torch.get_float32_matmul_precision() == before


def test_threads_that_overlap_restore_the_setting_once():
    before = torch.get_float32_matmul_precision()
    inside, leave = threading.Event(), threading.Event()

    def work():
        with fast_float32():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with fast_float32():
        thread.start()
        assert inside.wait(10)
    leave.set()
    thread.join()
    assert torch.get_float32_matmul_precision() == before


def test_products_that_are_not_exact_leave_the_setting_alone(monkeypatch):
    monkeypatch.setattr(precision, "_exact_through_onednn", lambda: False)
    with fast_float32():
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("given", ["float16", "", None, torch.bfloat16])
def test_an_unknown_precision_is_refused(given):
    with pytest.raises(ConfigError, match="expected one of float32, bfloat16"):
        check_precision(given)


def test_weights_drawn_in_many_threads_are_those_of_their_seeds():
    def drawn(seed):
        with seeded_weights(seed):
            return torch.stack([torch.rand(100) for _ in range(100)])

    before = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(drawn, [1, 2] * 40))
    assert all(torch.equal(rows, drawn(seed)) for rows, seed in zip(found, [1, 2] * 40, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
