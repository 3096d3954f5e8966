"""No process waits in vain for one that has failed alone."""

import errno

import numpy as np
import pytest
import torch

from cmcr.connection import checkpoint as checkpoint_module
from cmcr.connection.agreement import failing_together
from cmcr.connection.checkpoint import Checkpoint, open_checkpoint
from cmcr.connection.consistency import SoftmaxMean
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.peers import Peers
from cmcr.errors import (
    ConfigError,
    DimensionError,
    IntegrityError,
    LockedError,
    NonFiniteError,
    ReadError,
    TooFewRowsError,
    WorkerError,
    WriteError,
)
from connection.together import together
from reference.enhancement import normalize


def errors_of(size, work):
    """What each process raised, by rank."""

    def caught(peers):
        try:
            work(peers)
        except Exception as error:
            return error
        return None

    return together(size, caught)


def test_the_others_name_the_one_that_failed():
    def work(peers):
        with failing_together(peers, "cpu"):
            if peers.rank == 1:
                raise ConfigError("its own")

    found = errors_of(3, work)
    assert [type(error) for error in found] == [WorkerError, ConfigError, WorkerError]
    assert str(found[1]) == "its own"
    assert str(found[2]) == "process 1 of 3 has failed, so process 2 stops; its own message says why."


def test_alone_and_where_all_is_well_nothing_happens():
    assert errors_of(2, lambda peers: failing_together(peers, "cpu").__enter__()) == [None, None]
    with failing_together(Peers(), "no device is asked"):
        pass
    with pytest.raises(ConfigError), failing_together(Peers(), "cpu"):
        raise ConfigError("its own")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_memory_of_fewer_rows_than_processes(rng, precision):
    queries, memory = (normalize(rng.normal(size=(rows, 5))).astype(np.float32) for rows in (7, 2))
    expected = semantic_consistency(queries, memory, precision=precision)
    for found in together(
        3, lambda peers: semantic_consistency(queries, memory[peers.part_of(2)], peers=peers, precision=precision)
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6 if precision == "float32" else 1e-2)


def test_no_rows_at_all_are_refused_by_all(rng):
    queries = rng.normal(size=(7, 5))
    found = errors_of(2, lambda peers: semantic_consistency(queries, queries[:0], peers=peers))
    assert [type(error) for error in found] == [TooFewRowsError] * 2
    assert str(found[0]) == "memory: expected at least 1 row(s), got 0."


@pytest.mark.parametrize("kept", [False, True])
def test_not_a_number_in_the_part_of_one_process(rng, tmp_path, kept):
    queries = rng.normal(size=(7, 5))
    memory = queries.copy()
    memory[6, 0] = np.nan
    folder = tmp_path / "c" if kept else None
    found = errors_of(
        2, lambda peers: semantic_consistency(queries, memory[peers.part_of(7)], peers=peers, checkpoint=folder)
    )
    assert [type(error) for error in found] == [WorkerError, NonFiniteError]
    assert not (tmp_path / "c" / "config.json").exists()


def test_a_memory_that_one_process_cannot_take_at_all(rng):
    rows = normalize(rng.normal(size=(7, 5)))
    found = errors_of(2, lambda peers: semantic_consistency(rows, rows[:, : 5 - peers.rank], peers=peers))
    assert [type(error) for error in found] == [WorkerError, DimensionError]


class Stored:
    """Rows on disk with a bad one at the end."""

    def __init__(self, rows):
        self.rows, self.shape = rows, rows.shape

    def __len__(self):
        return len(self.rows)

    def blocks(self, rows=4096):
        yield from np.array_split(self.rows, 2)


def test_the_process_whose_rows_on_disk_are_no_numbers_says_so(rng):
    rows = normalize(rng.normal(size=(7, 5))).astype(np.float32)
    bad = rows.copy()
    bad[6, 0] = np.nan
    found = errors_of(
        3, lambda peers: semantic_consistency(rows, Stored(bad if peers.rank == 1 else rows), peers=peers)
    )
    assert [type(error) for error in found] == [WorkerError, NonFiniteError, WorkerError]
    assert str(found[1]).startswith(
        "rows on disk: NaN or infinity, first in row 6. Look for damage with `cmcr verify`;"
    )


def test_a_memory_is_looked_at_before_anything_is_computed(rng, monkeypatch):
    monkeypatch.setattr(SoftmaxMean, "_means", None)
    memory = torch.full((3, 5), torch.inf)
    with pytest.raises(NonFiniteError, match="memory: NaN or infinity in 3 of the rows"):
        semantic_consistency(rng.normal(size=(7, 5)), memory.numpy())


class Unreadable:
    """Rows on disk of which some processes cannot read the second block."""

    def __init__(self, rows, broken):
        self.rows, self.shape, self.broken = rows, rows.shape, broken

    def __len__(self):
        return len(self.rows)

    def blocks(self, rows=4096):
        yield self.rows[:2]
        if self.broken:
            raise ReadError(errno.EIO, "could not read (the disk)", "shard-00001")
        yield self.rows[2:]


@pytest.mark.parametrize("kept", [False, True])
def test_a_block_that_one_process_cannot_read(rng, tmp_path, kept):
    rows = normalize(rng.normal(size=(7, 5))).astype(np.float32)
    folder = tmp_path / "c" if kept else None
    found = errors_of(
        3, lambda peers: semantic_consistency(rows, Unreadable(rows, peers.rank == 1), peers=peers, checkpoint=folder)
    )
    assert [type(error) for error in found] == [WorkerError, ReadError, WorkerError]


def test_no_room_for_what_the_first_process_keeps(rng, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "no space left")

    rows = normalize(rng.normal(size=(7, 5))).astype(np.float32)
    keep = Checkpoint.keep

    def keeping(self, name, kept):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_module, "write_bytes_whole", full)
            keep(self, name, kept)

    monkeypatch.setattr(Checkpoint, "keep", keeping)
    found = errors_of(2, lambda peers: semantic_consistency(rows, rows, peers=peers, checkpoint=tmp_path / "c"))
    assert [type(error) for error in found] == [WriteError, WorkerError]


def test_a_checkpoint_that_the_first_process_cannot_have(rng, tmp_path):
    rows = normalize(rng.normal(size=(7, 5))).astype(np.float32)
    with open_checkpoint(tmp_path / "c", Peers()):
        found = errors_of(2, lambda peers: semantic_consistency(rows, rows, peers=peers, checkpoint=tmp_path / "c"))
    assert [type(error) for error in found] == [LockedError, WorkerError]


def test_kept_rows_that_one_process_finds_damaged(rng, tmp_path, monkeypatch):
    rows = normalize(rng.normal(size=(7, 5))).astype(np.float32)

    def damaged(self, name, shape):
        if self._peers.rank == 1:
            raise IntegrityError("its bytes have changed")

    monkeypatch.setattr(Checkpoint, "kept", damaged)
    found = errors_of(2, lambda peers: semantic_consistency(rows, rows, peers=peers, checkpoint=tmp_path / "c"))
    assert [type(error) for error in found] == [WorkerError, IntegrityError]
