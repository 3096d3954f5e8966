"""Of several processes one says what all would say; torchrun's store is one of this process here."""

import signal
from datetime import timedelta

import pytest
from torch import distributed

from cmcr.cli import main, together

SAID = "unknown settings: 'seed'"


@pytest.fixture
def rank(monkeypatch):
    """Takes the part of one of two processes that torchrun has started."""
    store = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(together, "_PATIENCE", timedelta(seconds=0.3))
    launched = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
    for name, value in {**launched, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    yield lambda number: monkeypatch.setenv("RANK", str(number))
    del store  # until here it answers


def test_what_all_would_say_the_first_says(rank, monkeypatch):
    rank(0)
    assert not together.told_by_first("ConfigError", SAID)
    together.tell_others(SAID)
    rank(1)
    assert together.told_by_first("ConfigError", SAID)
    assert not together.told_by_first("ConfigError", "no such folder, on this machine alone")
    assert together.told_by_first("WorkerError", "process 0 of 2 has failed")
    together.tell_others("of no importance")
    assert together.told_by_first("ConfigError", SAID)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not together.told_by_first("ConfigError", SAID)  # what was said before they were started again


@pytest.mark.parametrize("kind", ["ConfigError", "WorkerError"])
def test_where_the_first_is_silent_another_speaks(rank, kind):
    rank(1)
    assert not together.told_by_first(kind, SAID)


def test_stopped_the_first_alone_says_so(rank):
    rank(1)
    assert together.told_by_first("interrupted", "stopped")


def test_without_torchrun_each_speaks(rank, monkeypatch):
    rank(0)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    together.tell_others(SAID)
    rank(1)
    assert not together.told_by_first("ConfigError", SAID)
    assert not together.told_by_first("interrupted", "stopped")


def test_a_store_that_is_gone(rank, monkeypatch):
    monkeypatch.setattr(together, "_store", lambda: (_ for _ in ()).throw(distributed.DistNetworkError("gone")))
    rank(0)
    together.tell_others(SAID)
    rank(1)
    assert not together.told_by_first("ConfigError", SAID)


def test_a_wrong_call_is_told_once(rank, capsys):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for number, times in ((0, 1), (1, 0)):
        rank(number)
        assert main(["verify", "--wrong"]) == 2
        assert capsys.readouterr().err.count("Unknown option") == times
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
