"""The scripts in runs/, at miniature scale: bash decides which verbs are called, and each call is made in this process."""

import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import cmcr
from cmcr.cli import main
from evaluation.datasets import tiny_sets

ROOT = Path(__file__).parents[2]
QUICK = {"CONNECT": "--set epochs=2 batch_size=64", "EVALUATE": "--limit 8", "PYTHON": sys.executable}
MINI_SPACES = {f"{name}_MODEL": "" for name in ("CLIP", "CLAP", "ULIP")} | {
    name.upper(): f"mini-{name}" for name in ("clip", "clap", "ulip")
}


@pytest.fixture
def calls_of(tmp_path):
    """Run a script with a `cmcr` that writes its words down instead of doing anything."""
    stub, log = tmp_path / "bin" / "cmcr", tmp_path / "calls"
    stub.parent.mkdir()
    stub.write_text(f"#!/usr/bin/env bash\nprintf '%q ' \"$@\" >> {log}\necho >> {log}\n")
    stub.chmod(0o755)

    def run(script, **variables):
        log.write_text("")
        path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            ["bash", ROOT / "runs" / script], env={**os.environ, **QUICK, **variables, "PATH": path}, check=True
        )
        return [shlex.split(line) for line in log.read_text().splitlines()]

    return run


def done(calls):
    """Make the calls; give their verbs."""
    for call in calls:
        assert main(call) == 0, call
    return [call[0] for call in calls]


def results_in(folder):
    return {json.loads(file.read_text())["run"] for file in folder.glob("*.json")}


def test_the_miniature_run(calls_of, tmp_path):
    out = tmp_path / "out"
    variables = {"OUT": str(out), "ITEMS": "60"}
    assert done(calls_of("mini.sh", **variables)) == ["embed"] * 6 + ["connect"] * 2 + ["evaluate"] * 8
    assert "retrieval/mini-audio-image" in results_in(out / "audio-image-results")
    assert "classification/mini-point_cloud" in results_in(out / "cloud-text-results")
    assert {call[0] for call in calls_of("mini.sh", **variables)} == {"embed"}  # what is finished is not made again


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The paper's raw data and its data sets, tiny and drawn."""
    root = tmp_path_factory.mktemp("data")
    runpy.run_path(str(ROOT / "recipes" / "mini" / "items.py"))["write_items"](root, 1, 0, 60)
    for drawn, published in {"captions.txt": "captions/a.txt", "pictures": "imagenet/train", "sounds": "audioset",
                             "clouds": "objaverse"}.items():  # fmt: skip
        (root / published).parent.mkdir(exist_ok=True)
        (root / drawn).rename(root / published)
    return root


@pytest.mark.parametrize(
    ("script", "connection", "runs", "spaces"),
    [
        ("clip_clap.sh", "clip-clap", 12, ["mini-clip", "mini-clap"]),
        ("clip_ulip.sh", "clip-ulip", 5, ["mini-clip", "mini-ulip"]),
    ],
)
def test_the_runs_of_the_paper(calls_of, data, tmp_path, script, connection, runs, spaces):
    variables = {**MINI_SPACES, "DATA": str(data), "OUT": str(tmp_path / "out")}
    calls = calls_of(script, **variables)
    assert [call[0] for call in calls] == ["embed"] * 4 + ["connect"] + ["evaluate"] * runs
    measured = [call[2] for call in calls[5:]]
    for name in {run.split("/")[1] for run in measured}:
        if not (data / name).exists():
            tiny_sets.write(name, data / name)
    done(calls)
    assert [space.name for space in cmcr.load(tmp_path / "out" / connection).spaces] == spaces
    assert results_in(tmp_path / "out" / f"{connection}-results") == set(measured)
    assert {call[0] for call in calls_of(script, **variables)} == {"embed"}


def test_the_published_models_reach_the_verbs(calls_of, tmp_path):
    calls = calls_of("clip_ulip.sh", DATA="data", OUT=str(tmp_path), ULIP_MODEL="ulip 2.pt", EMBED="--device cuda")
    assert calls[1][-4:] == ["--model", "ulip 2.pt", "--device", "cuda"]
    assert calls[5][-3:] == ["--model", "clip=openai/clip-vit-base-patch32", "ulip=ulip 2.pt"]
    assert "--prompts" not in calls[5]  # without the file cmcr's own are taken, and the result says so
    (tmp_path / "ulip prompts.json").touch()
    calls = calls_of("clip_ulip.sh", DATA="data", OUT=str(tmp_path), PROMPTS=str(tmp_path / "ulip prompts.json"))
    given = ["--prompts", str(tmp_path / "ulip prompts.json"), "--prompts-key", "modelnet40_64"]
    assert [call[3:7] == given for call in calls[5:]] == [True, True, False, False, False]
