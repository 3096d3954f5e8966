"""The recipes still run: a few steps of each."""

import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmcr.connection.settings import settings_of
from cmcr.spaces.mini.space import MINI_SPACES, mini_towers

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_recipe_trains_weights_that_the_spaces_load(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--steps", "1", "--out", str(tmp_path)])
    with torch.random.fork_rng(devices=[]):  # which it seeds
        runpy.run_path(str(ROOT / "recipes/mini/train.py"), run_name="__main__")
    assert "point_cloud_to_image/R@1" in capsys.readouterr().out
    for name in MINI_SPACES:
        mini_towers(name).load_state_dict(load_file(tmp_path / f"{name}.safetensors"))
        shipped = ROOT / "src/cmcr/spaces/mini/weights" / f"{name}.safetensors"
        assert shipped.stat().st_size < 2_000_000


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed; only making voices needs it")
def test_the_voices_can_be_recorded_again(tmp_path):
    run("recipes/mini/speak.py", "--out", tmp_path)
    made = json.loads((tmp_path / "spoken_digits.json").read_text())
    shipped = json.loads((ROOT / "src/cmcr/data/numbers/spoken_digits.json").read_text())
    assert [(v["split"], v["voice"], v["pitch"], v["speed"]) for v in made["voices"]] == [
        (v["split"], v["voice"], v["pitch"], v["speed"]) for v in shipped["voices"]
    ]


def test_every_variant_of_the_open_choices_is_a_valid_setting():
    spec = importlib.util.spec_from_file_location("open_choices", ROOT / "benchmarks/open_choices.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    variants = module.variants()
    assert len(variants) == 21
    assert len({repr(settings_of("c-mcr", **settings)) for settings in variants.values()}) == 21
