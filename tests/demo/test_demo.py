"""The demonstration on few items and epochs, as a newcomer runs it: good figures, the same again, a page that stands alone."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cmcr
from cmcr.cli import main
from cmcr.connection.ablations import ABLATIONS
from cmcr.data.numbers import ALL_NUMBERS, UNSEEN_NUMBERS, handwriting
from cmcr.demo import run
from cmcr.demo.cases import CASES
from cmcr.demo.methods import _paired
from cmcr.demo.run import QUICK, DemoOptions, run_demo
from cmcr.demo.world import draw_world
from cmcr.errors import ConfigError, MissingDependencyError, WriteError

PROGRAM = Path(sys.executable).parent / "cmcr"
OPTIONS = DemoOptions(seed=1, **QUICK)


def silent(stage, share):
    pass


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The installed program, in the folder in which it was started."""
    folder = tmp_path_factory.mktemp("newcomer")
    command = [PROGRAM, "demo", "--quick", "--ablations", "--seed", "1"]
    return folder, subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(installed):
    out = installed[0] / "cmcr-demo"
    return out, json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The same in this process, without ablations: the folder, the results, the items and what was made of them."""
    out, kept = tmp_path_factory.mktemp("again"), {}

    def keeping(name):
        made = getattr(run, name)
        return lambda *given: kept.setdefault(name, made(*given))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_world", "embed_cases"):
            patch.setattr(run, name, keeping(name))
        results = run_demo(out, OPTIONS, silent)
    return out, results, kept["draw_world"], kept["embed_cases"]


@pytest.fixture(scope="module")
def world(again):
    return again[2]


@pytest.fixture(scope="module")
def cases(again):
    return again[3]


def test_the_installed_program_ends_well_and_says_where_the_report_is(installed):
    folder, done = installed
    assert done.returncode == 0, done.stderr
    assert str(folder / "cmcr-demo" / "report.html") in done.stdout
    assert "C-MCR" in done.stdout
    assert "embedding ..." in done.stderr
    assert "Warning" not in done.stderr


def test_spaces_that_never_met_are_connected(demo):
    for case in demo[1]["connections"].values():
        for task in case["tasks"]:
            r1 = {method: figures[f"{task}/R@1"] for method, figures in case["methods"].items()}
            unseen = case["methods"]["c-mcr"][f"{task}/unseen/R@1"]
            assert r1["c-mcr"] > 300 * r1["chance"], (task, r1)
            assert unseen > 300 * r1["chance"], (task, unseen)
            assert r1["soft"] > r1["c-mcr"], (task, r1)
        for space in case["retention"].values():
            assert space["kept"] > 0.7
            assert space["gap_after"] < space["gap_before"]


def test_the_same_seed_gives_the_same_figures_bit_for_bit_and_another_seed_others(demo, again):
    told = [json.loads(json.dumps(result)) for result in (demo[1], again[1])]
    for result in told:
        del result["timing"]
        for case in result["connections"].values():
            case.pop("ablations", None)
    assert json.dumps(told[0]) == json.dumps(told[1])
    other = draw_world(seed=2, per_number=1)
    assert all((other.memory[m].numbers != items.numbers).any() for m, items in again[2].memory.items())
    for case in CASES:
        saved = [folder / "connections" / case.name / "model.safetensors" for folder in (demo[0], again[0])]
        assert saved[0].read_bytes() == saved[1].read_bytes()


def test_without_quick_it_is_whole(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "run_demo", lambda out, options, progress: asked.append(options) or {})
    for arguments in ([], ["--quick"]):
        assert main(["demo", "--out", str(tmp_path), "--json", *arguments]) == 0
    assert asked == [DemoOptions(), DemoOptions(per_number=1, settings={"epochs": 6})]
    assert (DemoOptions().per_number, dict(DemoOptions().settings)) == (6, {})


def test_memories_hold_no_unseen_number_and_are_not_paired(world):
    assert len(world.memory["text"].numbers) == 800
    for modality, items in world.memory.items():
        assert not set(items.numbers.tolist()) & set(UNSEEN_NUMBERS.tolist()), modality
        assert len(items.inputs) == len(items.numbers)
    orders = [items.numbers.tolist() for items in world.memory.values()]
    assert all((np.array(a) == np.array(b)).mean() < 0.02 for i, a in enumerate(orders) for b in orders[:i])
    for items in world.test.values():
        assert items.numbers.tolist() == ALL_NUMBERS.tolist()


def test_the_oracle_pairs_true_numbers(world, cases):
    for data in cases:
        for side, outer in zip(data.sides, data.case.outer, strict=True):
            paired = _paired(side, data, outer, np.random.default_rng(0))
            rows = side.memories.rows[outer]
            for i in range(0, 800, 97):
                source = int((rows == paired.consistent[i]).all(dim=1).nonzero()[0, 0])
                assert side.outer_numbers[source] == data.overlap_numbers[i]


def test_what_it_returns_is_what_it_writes(again):
    assert again[1] == json.loads((again[0] / "results.json").read_text())


def test_results_hold_every_figure_that_must_stand_beside_ours(demo):
    results = demo[1]
    assert results["finished"] is True
    tasks = {name: case["tasks"] for name, case in results["connections"].items()}
    assert tasks == {
        "audio-image": ["audio_to_image", "image_to_audio"],
        "3d-text": ["point_cloud_to_text", "text_to_point_cloud"],
    }
    for case in results["connections"].values():
        assert list(case["methods"]) == [
            "chance", "centred_ridge", "centred_procrustes", "overlap_posterior", "c-mcr", "soft", "paired_oracle",
        ]  # fmt: skip
        assert list(case["ablations"]) == list(ABLATIONS)
        assert set(case["retention"]) == set(case["spaces"])
        for figures in [*case["methods"].values(), *case["ablations"].values()]:
            for task in case["tasks"]:
                low, high = figures[f"{task}/R@5/interval"]
                assert 0 <= low <= figures[f"{task}/R@5"] <= high <= 100
                assert figures[f"{task}/R@1"] <= figures[f"{task}/R@5"] <= figures[f"{task}/R@10"]
                assert 0 <= figures[f"{task}/unseen/R@1"] <= 100
    assert results["connections"]["audio-image"]["methods"]["chance"]["audio_to_image/R@5"] == 0.5


def test_the_page_stands_alone_and_lets_people_look_and_listen(demo):
    page = (demo[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<audio ") == 6 + 6 * 3
    assert page.count("<canvas ") == 6 + 6 * 5
    assert page.count("unseen number</span>") == 4 * 2
    assert page.count('class="plot"') == 3 + 3  # gaps and losses, and heat maps
    assert "C-MCR: only L_ttc" in page
    assert "undefined" not in page.lower()


def test_saved_connections_open_with_their_encoders(demo, world):
    connection = cmcr.load(demo[0] / "connections" / "audio-image")
    assert set(connection.encoders) == {"mini-clip", "mini-clap"}
    z = connection.encode(world.test["audio"].inputs[:2], modality="audio")
    rows = cmcr.space("mini-clap").encode(world.test["audio"].inputs[:2], "audio")
    np.testing.assert_allclose(z, connection.project(rows, "mini-clap"), atol=1e-6)
    single = connection.encode(world.test["audio"].inputs[0], modality="audio")
    np.testing.assert_allclose(single, z[0], atol=1e-5)


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    stages = []
    with pytest.raises(WriteError):
        run_demo(tmp_path / "file", OPTIONS, lambda stage, share: stages.append(stage))
    with pytest.raises(ConfigError, match="unknown method 'cmcr'"):
        run_demo(
            tmp_path / "out", dataclasses.replace(OPTIONS, method="cmcr"), lambda stage, share: stages.append(stage)
        )
    assert stages == []


@pytest.mark.parametrize(
    ("module", "library"),
    [("sklearn.datasets", "scikit-learn"), ("matplotlib.figure", "matplotlib"), ("jinja2", "jinja2")],
)
def test_a_missing_library_is_named_with_its_extra_before_the_work(tmp_path, monkeypatch, module, library):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    handwriting.cache_clear()
    stages = []
    with pytest.raises(MissingDependencyError, match=rf"{library} is not installed.*cmcr\[demo\]"):
        run_demo(tmp_path, OPTIONS, lambda stage, share: stages.append(stage))
    assert stages == []
