"""`make bench` still runs: all parts at tiny sizes. How long anything takes is not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_ERROR = {"float32": 1e-5, "bfloat16": 0.05}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "benchmarks/speed.py", "--small", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "bench.jsonl").read_text() == done.stdout
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "### Training step" in (out / "bench.md").read_text()
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_part_is_measured_beside_the_naive_way(lines):
    assert lines[0]["part"] == "machine"
    for part in ("consistency", "info_nce", "training", "connect", "memory"):
        ways = {line["way"] for line in lines if line["part"] == part}
        assert ways >= {"naive", "ours_float32", "ours_bfloat16"}
    for line in lines:
        if "left_out" in line:
            assert line["way"] == "faiss_top64"  # which the tests do without where it is not installed
        elif "seconds" in line:
            assert line["times_naive"] > 0
            assert ("share_of_roofline" in line) == (line["way"] != "faiss_top64")


def test_ours_agrees_with_float64(lines):
    compared = [line for line in lines if "largest_error" in line and line["way"].startswith("ours")]
    assert {line["way"] for line in compared} == {"ours_float32", "ours_bfloat16"}
    for line in compared:
        bound = LARGEST_ERROR[line["way"].removeprefix("ours_")]
        assert line["largest_error"] < bound
        assert line.get("random_largest_error", 0) < bound


def test_gradients_agree_with_float64(lines):
    compared = [line for line in lines if "gradient_error" in line and line["way"].startswith("ours")]
    assert {line["data"] for line in compared} == {"random_start", "narrow_cone", "low_loss", "neighbours"}
    for line in compared:
        assert line["gradient_error"] < (1e-2 if line["way"] == "ours_bfloat16" else 1e-4)
        assert line["loss_error"] < 1e-5
