"""`cmcr connect` by several processes, and stopped and gone on with, as a user would type it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import cmcr
from cmcr.cli import main
from cmcr.connection.checkpoint import open_checkpoint
from cmcr.connection.peers import Peers

MEMORIES = {("a", "text"): (900, 12), ("a", "image"): (1100, 12), ("b", "text"): (900, 8), ("b", "audio"): (700, 8)}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memories")
    for seed, ((space, modality), shape) in enumerate(MEMORIES.items()):
        rows = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        ids = [f"{modality}:{row}" for row in range(len(rows))]
        cmcr.write_memory(folder / f"{space}-{modality}", rows, ids=ids, space=space, modality=modality)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """As the processes have it that are started here: sums of several threads may differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(home, out, *changes):
    folders = [str(home / f"{space}-{modality}") for space, modality in MEMORIES]
    usual = {"epochs": "3", "batch_size": "60", "learning_rate": "0.0001"}
    changed = usual | dict(change.split("=") for change in changes)
    settings = [f"{name}={value}" for name, value in changed.items()]
    return ["connect", *folders, "--out", str(out), "--device", "cpu", "--set", *settings]


def command(home, out, *changes, before=()):
    return [sys.executable, *before, "-m", "cmcr", *arguments(home, out, *changes)]


def environment():
    source = str(Path(cmcr.__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path, source])}


def run(*arguments):
    return subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False)


def weights(out):
    connection = cmcr.load(out)
    return {
        f"{space}.{key}": value
        for space, projector in connection.projectors.items()
        for key, value in projector.state_dict().items()
    }


def test_two_processes_make_the_connection_of_one(home, tmp_path):
    assert main(arguments(home, tmp_path / "one")) == 0
    both = run(*command(home, tmp_path / "two", before=TORCHRUN))
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("a and b, connected through 900 items of text, 12 wide.") == 1
    assert both.stderr.count("training ...") == 1
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in expected.items():
        assert (found[name].double() - value.double()).abs().max() <= 1e-5 * max(1.0, value.abs().max().item()), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_an_error_ends_all_processes(home, tmp_path):
    done = run(*command(home, tmp_path / "out", "batch_size=1", before=TORCHRUN))
    assert done.returncode != 0
    assert done.stderr.count("batch_size: expected at least 2, got 1") == 1
    assert not (tmp_path / "out").exists()


def test_an_error_of_one_process_ends_all(home, tmp_path):
    with open_checkpoint(tmp_path / "out.unfinished", Peers()):  # which only the first of them tries to hold
        done = run(*command(home, tmp_path / "out", before=TORCHRUN))
    assert done.returncode != 0
    assert done.stderr.count("another run is at work") == 1
    assert "process 1 stops" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_stopped_it_says_how_to_go_on_and_does(home, tmp_path, capsys):
    process = subprocess.Popen(
        command(home, tmp_path / "out", "epochs=20"), env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line == "training ...\n":
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130
    kept = tmp_path / "out.unfinished"
    assert said == f"cmcr: stopped; what is done is safe in {kept}. Run the same command again to go on from there.\n"
    assert list(kept.glob("step-*"))
    assert main(arguments(home, tmp_path / "out", "epochs=5")) == 1
    said = capsys.readouterr().err
    assert "epochs was 20, now 5" in said
    assert "cmcr connect --anew" in said
    assert main(arguments(home, tmp_path / "out", "epochs=20")) == 0
    assert not kept.exists()
    assert main(arguments(home, tmp_path / "whole", "epochs=20")) == 0
    found, expected = weights(tmp_path / "out"), weights(tmp_path / "whole")
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
