"""Two real processes of torch.distributed do together what one does alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import cmcr
from cmcr.connection.batches import Batches
from cmcr.connection.peers import Peers
from cmcr.connection.training import train
from cmcr.errors import ConfigError
from connection import shared_training
from connection.shared_training import CASES, STEPS, connected, settings, sides, trained


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    source = str(Path(cmcr.__file__).parents[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, shared_training.__file__, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path, source])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def assert_near(found, expected):
    """Equal to 1e-5 of what is largest in each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        off = (found[name].double() - value.double()).abs().max()
        assert off <= 1e-5 * max(1.0, value.abs().max().item()), (name, off)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does(results, name):
    expected = trained(name)
    assert len(expected["history.total"]) >= STEPS
    one, other = (load_file(results / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert_near(one, expected)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    start = dict(train(*sides(), settings(**CASES[name], learning_rate=1e-30), seed=3).left.state_dict())
    assert (
        expected["left.linears.0.weight"] - start["linears.0.weight"]
    ).abs().max() > 1e-3  # it has learned something


def state(connection):
    return {
        f"{space}.{key}": value
        for space, projector in connection.projectors.items()
        for key, value in projector.state_dict().items()
    }


def test_two_processes_connect_as_one_does(results):
    one, other = (cmcr.load(results / f"connected-{rank}") for rank in (0, 1))
    assert_near(state(one), state(connected()))
    assert all(torch.equal(value, state(other)[key]) for key, value in state(one).items())


def test_stopped_together_they_go_on_to_the_same_weights(results):
    for rank in (0, 1):
        whole, resumed = cmcr.load(results / f"connected-{rank}"), cmcr.load(results / f"resumed-{rank}")
        assert all(torch.equal(value, state(resumed)[key]) for key, value in state(whole).items())
        assert whole.history == resumed.history


def test_more_processes_than_rows_are_refused():
    with pytest.raises(ConfigError, match=r"batches of 2 rows cannot be shared by 3 processes\. Start fewer\."):
        train(*sides(), settings(batch_size=2), peers=Peers(0, 3))


def test_shares_of_a_batch_are_equal_to_within_one():
    counts = []
    for rank in range(3):
        with Batches(sides(), settings(batch_size=20), 0, torch.device("cpu"), Peers(rank, 3)) as batches:
            counts.append(len(batches.completed(0)[0]) // 2)
    assert sorted(counts) == [6, 7, 7]
