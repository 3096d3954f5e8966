"""The whole demonstration through the installed program, as a newcomer runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "cmcr"

pytestmark = pytest.mark.xdist_group("installed")  # one process, so that the demonstration runs once


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer")
    done = subprocess.run([PROGRAM, "demo"], cwd=folder, capture_output=True, text=True, check=False)
    return folder, done


def test_it_ends_well_and_says_where_the_report_is(run):
    folder, done = run
    assert done.returncode == 0, done.stderr
    assert str(folder / "cmcr-demo" / "report.html") in done.stdout
    assert "C-MCR" in done.stdout
    assert "embedding ..." in done.stderr
    assert "Warning" not in done.stderr


def test_spaces_that_never_met_are_connected(run):
    results = json.loads((run[0] / "cmcr-demo" / "results.json").read_text())
    for case in results["connections"].values():
        for task in case["tasks"]:
            r1 = {method: figures[f"{task}/R@1"] for method, figures in case["methods"].items()}
            unseen = case["methods"]["c-mcr"][f"{task}/unseen/R@1"]
            assert r1["c-mcr"] > 300 * r1["chance"], (task, r1)
            assert unseen > 300 * r1["chance"], (task, unseen)
            assert r1["soft"] > r1["c-mcr"], (task, r1)
        for space in case["retention"].values():
            assert space["kept"] > 0.7
            assert space["gap_after"] < space["gap_before"]


def test_python_m_cmcr_is_cmcr():
    as_module = subprocess.run([sys.executable, "-m", "cmcr", "--version"], capture_output=True, text=True, check=True)
    as_program = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert as_module.stdout == as_program.stdout
