"""A recipe, carried out: whole, a second time, after stops, and after something has changed."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from small_recipe import STAGES, write_items, write_recipe

import cmcr
from cmcr.cli import main
from cmcr.errors import ConfigError, ResumeError
from cmcr.recipes import stages
from cmcr.recipes.dry_run import dry_run
from cmcr.recipes.reading import read_recipe
from cmcr.recipes.stages import run_recipe
from cmcr.recipes.states import made_from_file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A recipe that was carried out by the program, and the lines that it printed."""
    folder = tmp_path_factory.mktemp("finished")
    write_items(folder, 120)
    path = write_recipe(folder)
    command = [sys.executable, "-m", "cmcr", "run", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy")


def states(path, **options):
    return [outcome.state for outcome in run_recipe(read_recipe(path), **options)]


def test_from_raw_folders_to_figures_through_the_program(finished):
    folder, lines = finished
    assert [line["stage"] for line in lines] == [
        "embed clip-clap/texts-in-clip",
        "embed clip-clap/images-in-clip",
        "embed clip-clap/texts-in-clap",
        "embed clip-clap/sounds-in-clap",
        "connect",
        "evaluate counterfactual/mini",
    ]
    assert {line["state"] for line in lines} == {"finished"}
    assert lines[0]["facts"] == {"out": "clip-clap/texts-in-clip", "rows": 120, "width": 128, "quarantined": 0}
    assert lines[4]["facts"]["overlap_rows"] == 120
    connection = cmcr.load(folder / "clip-clap/connection")
    assert (connection.method, connection.settings.epochs) == ("c-mcr", 8)
    kept = json.loads((folder / "clip-clap/results/counterfactual-mini.json").read_text())
    assert kept == lines[5]["facts"]
    figures = kept["figures"]
    assert figures["connection"]["present/AP"]["low"] > figures["chance"]["present/AP"]["high"]


def test_a_second_time_everything_is_there_and_the_table_is_shown_again(copy, capsys):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert main(["run", str(copy / "recipe.toml")]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("done earlier") == STAGES
    assert "miniature CLIP + CLAP through text, percent" in shown.out
    assert "present/max_F1" in shown.out
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


def test_stopped_between_any_two_stages_the_same_call_goes_on(finished, tmp_path):
    write_items(tmp_path, 120)
    path = write_recipe(tmp_path)
    for stopped_after in range(1, STAGES + 1):
        run = run_recipe(read_recipe(path))
        found = [next(run).state for _ in range(stopped_after)]
        run.close()  # as an interrupt between two stages does
        assert found == ["done earlier"] * (stopped_after - 1) + ["finished"]
    results = "clip-clap/results/counterfactual-mini.json"
    assert (tmp_path / results).read_bytes() == (finished[0] / results).read_bytes()


def test_an_interrupt_says_how_to_go_on(copy, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    shutil.rmtree(copy / "clip-clap/results")
    monkeypatch.setattr(stages, "evaluate", interrupted)
    assert main(["run", str(copy / "recipe.toml")]) == 130
    said = capsys.readouterr().err
    assert "connect: done earlier" in said
    assert "stopped; finished stages, and finished shards of the one under way, are safe." in said
    monkeypatch.undo()
    assert states(copy / "recipe.toml") == ["done earlier"] * 5 + ["finished"]


def test_killed_after_the_connection_and_before_its_record_it_is_trained_again(copy, monkeypatch):
    (copy / "clip-clap/connection/config.json").unlink(missing_ok=True)
    shutil.rmtree(copy / "clip-clap/connection")
    monkeypatch.setattr(stages, "record_connection", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        states(copy / "recipe.toml")
    assert (copy / "clip-clap/connection").is_dir()
    monkeypatch.undo()
    # The same seed gives the same weights, so the figures stay.
    assert states(copy / "recipe.toml") == ["done earlier"] * 4 + ["finished"] + ["done earlier"]


def test_other_settings_train_again_and_measure_again(copy):
    path = write_recipe(copy, **{"epochs = 8": "epochs = 3"})
    check = dry_run(read_recipe(path))
    assert [stage.state for stage in check.stages] == ["done"] * 4 + ["stale"] + ["to do"]
    assert check.stages[4].notes == ["will be trained again: changed since: settings"]
    assert states(path) == ["done earlier"] * 4 + ["finished"] * 2
    assert cmcr.load(copy / "clip-clap/connection").settings.epochs == 3


def test_another_seed_of_a_run_measures_that_run_again(copy):
    old = 'run = "counterfactual/mini"'
    path = write_recipe(copy, **{old: f"{old}\nseed = 1"})
    check = dry_run(read_recipe(path))
    assert [stage.state for stage in check.stages] == ["done"] * 5 + ["stale"]
    assert check.stages[5].notes[0].startswith("will be measured again: changed since: ")
    assert check.stages[5].notes[0].endswith("seed")
    assert states(path) == ["done earlier"] * 5 + ["finished"]


def test_another_list_of_items_is_refused_by_its_memory(copy):
    with (copy / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("one hundred\n")
    with pytest.raises(ResumeError, match="number of items was 120, now 121"):
        states(copy / "recipe.toml")
    check = dry_run(read_recipe(copy / "recipe.toml"))
    assert [stage.state for stage in check.stages[:2]] == ["stale", "done"]
    assert "was made with something else (items, digest). Choose another out" in check.problems[0]


def test_memories_made_anew_train_again(copy):
    for name in ("images-in-clip", "results"):
        shutil.rmtree(copy / "clip-clap" / name)
    (copy / "pictures/00000.png").write_bytes(b"damaged")
    assert states(copy / "recipe.toml") == ["done earlier", "finished"] + ["done earlier"] * 2 + ["finished"] * 2


def test_one_stage_alone(copy):
    shutil.rmtree(copy / "clip-clap/connection")
    assert states(copy / "recipe.toml", only=["connect"]) == ["finished"]
    shutil.rmtree(copy / "clip-clap/texts-in-clip")
    with pytest.raises(ConfigError, match=r"texts-in-clip: this memory is not finished. Run the stage that embeds it"):
        states(copy / "recipe.toml", only=["connect"])


def test_a_connection_that_no_recipe_made_is_not_replaced(copy):
    made_from_file(copy / "clip-clap/connection").unlink()
    with pytest.raises(
        ConfigError, match=r"there is a connection that this recipe has not made \(connection.made-from.json"
    ):
        states(copy / "recipe.toml")


def test_a_training_that_was_stopped_is_gone_on_with(copy, monkeypatch):
    from cmcr.connection import checkpoint, training

    (path,) = copy.glob("*.toml")
    whole = cmcr.load(copy / "clip-clap/connection")
    shutil.rmtree(copy / "clip-clap/connection")
    made_from_file(copy / "clip-clap/connection").unlink()
    loss, calls, steps = training._loss, [], len(whole.history["total"])

    def stopping(*given):
        calls.append(1)
        if len(calls) == steps - 2:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(training, "_loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        states(path, only=["connect"])
    assert (copy / "clip-clap/connection.unfinished" / f"step-{steps - 3:09d}.safetensors").is_file()
    assert states(path, only=["connect"]) == ["finished"]
    assert len(calls) == steps + 1
    made = cmcr.load(copy / "clip-clap/connection").history
    assert made["total"] == pytest.approx(whole.history["total"], rel=1e-3)
    assert not (copy / "clip-clap/connection.unfinished").exists()
