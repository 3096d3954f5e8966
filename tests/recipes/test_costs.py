"""The counts of a plan: against counts by hand, and against what torch counts in real steps."""

import signal

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

import cmcr
from cmcr.connection import info_nce, softmax_mean
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.settings import settings_of
from cmcr.connection.training import Side, train
from cmcr.recipes import costs

IN_PLACE = {torch.ops.aten.addmm_: lambda total, *factors, out_shape=None, **rest: addmm_flop(total, *factors)}
"""Products that torch's counter leaves out."""


def rows(count, width, seed=0):
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def counted(work):
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        work()
    return counter.get_total_flops()


def test_by_hand():
    assert costs.consistency_operations(2_330_000, 1_800_000, 512) == pytest.approx(8.6e15, rel=0.01)
    settings = settings_of("c-mcr", width=4, hidden=(), epochs=2, batch_size=5)
    # 2 passes of 2 batches of 5 items. An item: 16 + 16 weights, which two modalities pass through, 2 * 2 * 32 forwards and
    # again for their gradients; two losses of 2 * 5 * 4 a product, three products, or four where logits are computed twice.
    assert costs.training_operations(11, 4, 4, settings) == 20 * (2 * 128 + 3 * 80)
    assert costs.training_operations(11, 4, 4, settings, recomputed=True) == 20 * (2 * 128 + 4 * 80)
    # A hidden layer: 4 * 8 weights, whose input needs no gradient, then 8 * 4, whose input does; of either projector.
    settings = settings_of("c-mcr", width=4, hidden=(8,), epochs=1, batch_size=5, avc_weight=0)
    assert costs.training_operations(5, 4, 4, settings) == 5 * (2 * 4 * (2 * 32 + 3 * 32) + 3 * 40)


def test_bytes_by_hand():
    assert costs.rows_bytes(10, 512, "float16") == 10_240
    assert costs.rows_bytes(10, 512, "float32") == 20_480
    settings = settings_of("c-mcr")
    assert costs.embeddings_bytes(1000, 512, 768, settings) == 4 * 2 * 1000 * 1280
    settings = settings_of("c-mcr", semantic_consistency=False)
    assert costs.embeddings_bytes(1000, 512, 768, settings) == 4 * 1000 * 1280
    assert costs.kept_bytes(1000, 512) == 4 * 1000 * 512
    settings = settings_of("c-mcr", width=4, hidden=())
    assert costs.state_bytes(None, 8, 6, settings) == 2 * 3 * 4 * (4 * 8 + 4 * 6)
    settings = settings_of("c-mcr", width=4, hidden=(), epochs=3, batch_size=10)
    assert [costs.steps(rows, settings) for rows in (None, 1, 5, 10, 29)] == [0, 0, 3, 3, 6]
    assert costs.state_bytes(29, 8, 6, settings) == 2 * 4 * (3 * (4 * 8 + 4 * 6) + 6 * 5)
    assert costs.memory_bytes(100, 8, "float16", [], 60) == 100 * (16 + 60) + 2 * 1500


def stopping_at_the_end(stage, share):
    """As Ctrl-C does when nearly all is done."""
    if stage == "training" and share > 0.98:
        signal.raise_signal(signal.SIGINT)


def test_a_connection_and_a_state_are_as_large_as_they_are_on_disk(tmp_path):
    rng = np.random.default_rng(0)
    left = cmcr.Memories("clip", text=rng.normal(size=(20, 8)), image=rng.normal(size=(9, 8)))
    right = cmcr.Memories("clap", text=rng.normal(size=(20, 6)), audio=rng.normal(size=(8, 6)))
    changes = {"epochs": 500, "batch_size": 4, "width": 4, "hidden": ()}
    settings = settings_of("c-mcr", **changes)
    with pytest.raises(KeyboardInterrupt):
        cmcr.connect(left, right, device="cpu", checkpoint=tmp_path / "kept", progress=stopping_at_the_end, **changes)
    (state,) = (tmp_path / "kept").glob("step-*")
    kept = costs.state_bytes(20, 8, 6, settings) / 2
    assert state.stat().st_size == pytest.approx(kept, rel=0.1)  # and a header, and batch normalisation
    cmcr.connect(left, right, device="cpu", checkpoint=tmp_path / "kept", **changes).save(tmp_path / "out")
    written = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert written == pytest.approx(costs.connection_bytes(20, 8, 6, settings), rel=0.1)


def test_of_a_loss_two_products_are_coarse():
    assert costs.coarse_operations(11, 4, 4, settings_of("c-mcr", batch_size=5)) == 0
    settings = settings_of("c-mcr", width=4, hidden=(), epochs=2, batch_size=5, precision="bfloat16")
    assert costs.coarse_operations(11, 4, 4, settings) == 20 * 2 * 2 * 2 * 5 * 4


@pytest.mark.parametrize("queries", [1500, 5000])
def test_a_semantic_consistency_does_as_many_operations(queries, monkeypatch):
    monkeypatch.setattr(softmax_mean, "has_kernel", lambda: False)  # which torch does not count
    asked, memory = rows(queries, 253), rows(3000, 253, 1)
    semantic_consistency(asked[:1], memory)  # the first use measures whether products are exact
    found = counted(lambda: semantic_consistency(asked, memory))
    assert found == pytest.approx(costs.consistency_operations(queries, 3000, 253), rel=0.02)  # columns are 256


class Streamed:
    """A memory on disk that counts how often it is read."""

    def __init__(self, array):
        self.array, self.shape, self.width, self.reads = array, array.shape, array.shape[1], 0

    def __len__(self):
        return len(self.array)

    def __getitem__(self, chosen):
        return self.array[chosen]

    def blocks(self, count):
        self.reads += 1
        yield from (self.array[start : start + count] for start in range(0, len(self.array), count))


@pytest.mark.parametrize("queries", [300, 7000, 13_000])
def test_a_memory_on_disk_is_read_as_often(queries):
    memory = Streamed(rows(50, 512).numpy().astype(np.float32))
    semantic_consistency(rows(queries, 512, 1), memory)
    assert memory.reads == costs.passes(queries, 512, torch.device("cpu"), "float32")


@pytest.mark.parametrize("changes", [{}, {"hidden": ()}, {"hidden": (24, 40), "width": 12}, {"avc_weight": 0.0}])
@pytest.mark.parametrize("tile", [2048, 16])  # one tile, whose logits are kept, and four
def test_a_training_does_as_many_operations(monkeypatch, tile, changes):
    monkeypatch.setattr(info_nce, "_TILE", tile)
    settings = settings_of("c-mcr", epochs=2, batch_size=30, **changes)
    left, right = (Side(rows(64, width), rows(64, width, 1)) for width in (16, 20))
    found = counted(lambda: train(left, right, settings))
    assert found == costs.training_operations(64, 16, 20, settings)


def test_a_batch_holds_no_more_than_is_planned():
    settings = settings_of("c-mcr-published", batch_size=256, width=32, hidden=(64,))
    saved = {}

    def remember(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    sides = [Side(rows(256, 32, 0), rows(256, 32, 1)) for _ in range(2)]
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        train(sides[0], sides[1], settings_of("c-mcr-published", batch_size=256, width=32, hidden=(64,), epochs=1))
    planned = costs.batch_bytes(256, 32, 32, settings) - costs.SCRATCH_BYTES
    logits = 4 * 4 * 256 * 256  # a small batch keeps them, or blocks of them
    assert planned / 3 < sum(saved.values()) < planned + logits
