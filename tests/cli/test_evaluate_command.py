"""`cmcr evaluate` and `cmcr ablate`: what they print and write. What is measured is tested in tests/evaluation."""

import json
import sys
from unittest.mock import ANY

import pytest
from PIL import Image

from cmcr.artefacts import describe
from cmcr.cli import main
from cmcr.evaluation.runs import evaluate_runs
from evaluation.datasets import tiny_sets
from evaluation.small_connections import audio_image, cloud_text, write_memories

RUN = "retention/mini-image-text"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Connections, as they are saved."""
    home = tmp_path_factory.mktemp("connections")
    made = {"av": audio_image(), "short": audio_image(seed=1, epochs=1), "3d": cloud_text()}
    for name, connection in made.items():
        connection.save(home / name)
    return {name: str(home / name) for name in made}


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    return [str(folder) for folder in write_memories(tmp_path_factory.mktemp("memories")).values()]


def results(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def cells_of(line, bar="│"):
    return [cell.strip() for cell in line.split(bar)[1:-1]]


def test_json_is_what_the_library_returns_and_the_table_shows_it(folders, capsys):
    call = ["evaluate", folders["av"], RUN, "--limit", "20", "--seed", "3"]
    assert main([*call, "--json"]) == 0
    (result,) = results(capsys)
    assert result == next(evaluate_runs(audio_image(), RUN, seed=3, limit=20)).result
    assert main(call) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].endswith("n = 20")
    header = next(line for line in lines if "percent" in line)
    assert cells_of(header, "┃") == ["percent [95 % interval]", "connection", "chance", "own space"]
    figure = {key: 100 * number for key, number in result["figures"]["connection"]["mean/R@1"].items()}
    row = cells_of(next(line for line in lines if "mean/R@1 " in line))
    assert row[1] == "{value:.1f} [{low:.1f}, {high:.1f}]".format(**figure)
    assert "scoring own space ..." in shown.err
    assert "mean/true_recall@1" in result["figures"]["connection"]  # with one answer a query it is R@1: shown once
    assert "true_recall" not in shown.out
    assert "MRR" not in shown.out


def test_all_writes_one_file_a_run_and_replaces_older_ones(folders, tmp_path, capsys):
    (tmp_path / f"{RUN.replace('/', '-')}.json").write_text("older")
    assert main(["evaluate", folders["3d"], "--all", "--limit", "8", "--out", str(tmp_path), "--json"]) == 0
    printed = results(capsys)
    assert len(printed) == 5
    assert len(list(tmp_path.iterdir())) == 5
    for result in printed:
        file = tmp_path / f"{result['run'].replace('/', '-')}.json"
        assert json.loads(file.read_text(encoding="utf-8")) == {**result, "sha256_of_this_file": ANY}
        assert main(["verify", str(file)]) == 0
    facts = describe(file)
    share = result["figures"]["connection"][facts["figure"]]["value"]
    assert (facts["kind"], facts["run"], facts["share"]["connection"]) == ("evaluation", result["run"], share)
    assert describe(tmp_path)["runs_finished"][result["run"]] == f"{facts['figure']} {100 * share:.1f} %"
    file.write_text(file.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8")
    assert main(["verify", str(file)]) == 1
    assert "not what was written" in capsys.readouterr().err


def test_all_ends_with_a_line_for_each_run(folders, capsys):
    assert main(["evaluate", folders["3d"], "--all", "--limit", "8"]) == 0
    summary = capsys.readouterr().out.split("in short")[1].splitlines()
    rows = [cells_of(line) for line in summary if "/mini" in line]
    assert [row[:2] for row in rows] == [
        ["retrieval/mini-point_cloud-text", "mean/R@1"],
        ["classification/mini-point_cloud", "point_cloud/top-1"],
        ["classification/mini-image", "image/top-1"],
        ["retention/mini-image-text", "mean/R@1"],
        ["retention/mini-point_cloud-image", "mean/R@1"],
    ]
    assert [row[3] for row in rows] == ["12.5"] * 5  # one of eight, computed
    assert [bool(row[4]) for row in rows] == [False, False, False, True, True]


def test_heat_maps_are_written_for_localization(folders, tmp_path, capsys):
    call = ["evaluate", folders["av"], "localization/mini", "--limit", "8", "--heatmaps", "2", "--out", str(tmp_path)]
    assert main(call) == 0
    pictures = sorted((tmp_path / "localization-mini-heatmaps").iterdir())
    assert len(pictures) == 2
    for path in pictures:
        with Image.open(path) as opened:
            opened.load()
            assert opened.format == "PNG"
    assert (tmp_path / "localization-mini.json").exists()


def test_heat_maps_without_matplotlib_are_refused_before_anything_is_measured(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert (
        main(["evaluate", folders["av"], "localization/mini", "--heatmaps", "1", "--out", str(tmp_path / "out")]) == 1
    )
    shown = capsys.readouterr()
    assert "cmcr[demo]" in shown.err
    assert "..." not in shown.err  # no stage began
    assert not (tmp_path / "out").exists()


def test_another_connection_is_compared(folders, capsys):
    call = ["evaluate", folders["av"], RUN, "--limit", "40", "--against", folders["short"]]
    assert main([*call, "--json"]) == 0
    (result,) = results(capsys)
    difference = {k: 100 * v for k, v in result["connection_minus"][folders["short"]]["mean/R@1"].items()}
    assert main(call) == 0
    out = capsys.readouterr().out
    assert f"{RUN}: this connection minus {folders['short']}" in out
    assert "{difference:+.1f} [{low:+.1f}, {high:+.1f}]".format(**difference) in out


def test_published_rows_are_quoted_and_never_cut_off(folders, tmp_path, monkeypatch, capsys):
    tiny_sets.write("coco", tmp_path)
    call = ["evaluate", folders["av"], "retention/coco", "--data", str(tmp_path)]
    assert main(call) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if "percent" in line)
    assert cells_of(header, "┃")[4:] == ["quoted: CLIP ViT-B/32", "quoted: C-MCR"]
    rows = {cells[0]: cells for line in lines if len(cells := cells_of(line)) > 5}
    assert rows["mean/R@1"][4:] == ["40.24", "16.67"]
    assert rows["mean/R@10"][4:] == ["", ""]
    assert "image_to_text/true_recall@1" in rows  # a picture has several captions, a caption one picture
    assert "text_to_image/true_recall@1" not in rows
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(call) == 0
    narrow = capsys.readouterr().out
    assert "…" not in narrow
    assert "quoted: CLIP ViT-B/32" in narrow


def test_all_keeps_what_is_measured_and_ends_with_1_where_data_is_incomplete(folders, tmp_path, capsys):
    for name in ("esc-50", "coco"):
        tiny_sets.write(name, tmp_path / name)
    sound = tmp_path / "esc-50" / "audio" / "5-200-A-1.wav"
    sound.unlink()
    call = ["evaluate", folders["av"], "--all", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(call) == 1
    shown = capsys.readouterr()
    assert "retention/coco: coco/karpathy-test, n = " in shown.out
    assert "classification/esc-50" in shown.err
    assert sound.name in shown.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["retention-coco.json"]
    assert main([*call, "--allow-missing"]) == 0
    assert "n = 2, 1 left out for want of files" in capsys.readouterr().out
    sound.write_bytes(b"no sound")
    assert main(call) == 0
    assert "n = 2, 1 could not be embedded" in capsys.readouterr().out


def test_options_reach_the_runs(folders, memories, tmp_path, capsys):
    tiny_sets.write("modelnet40", tmp_path / "modelnet40")
    file = tmp_path / "templates.json"
    file.write_text(json.dumps({"modelnet40_64": ["a point cloud model of {}.", "{}"], "other": ["the {}."]}))
    call = ["evaluate", folders["3d"], "classification/modelnet40", "--data", str(tmp_path), "--prompts", str(file)]
    assert main([*call, "--prompts-key", "modelnet40_64", "--limit", "2", "--json"]) == 0
    (result,) = results(capsys)
    assert result["figures"]["connection"]["point_cloud/top-1"]["n"] == 2
    assert main(call) == 2
    assert "modelnet40_64, other" in capsys.readouterr().err
    call = ["evaluate", folders["av"], "localization/mini", "--limit", "8", "--json"]
    assert main([*call, "--memories", *memories]) == 0
    (result,) = results(capsys)
    assert "centred ridge" in result["figures"]
    assert main([*call, "--map-rule", "shares"]) == 2
    assert "'share'" in capsys.readouterr().err
    assert main([*call, "--detector", "no/such/detector"]) in (1, 2)
    assert "no/such/detector" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "or --all"),
        ([RUN, "--all"], 2, "or --all"),
        (["retention/mini-image-txt"], 2, f"Did you mean '{RUN}'?"),
        (["classification/modelnet40"], 2, "--data FOLDER"),
        (["retrieval/mini-point_cloud-text"], 2, "does not connect point_cloud and text"),
        ([RUN, "--heatmaps", "3"], 2, "--out FOLDER"),
        (["localization/mini", "--heatmaps", "-1", "--out", "out"], 2, "got -1"),
        ([RUN, "--heatmaps", "3", "--out", "out"], 2, "only localization"),
        ([RUN, "--prompts-key", "x"], 2, "--prompts FILE"),
        ([RUN, "--seed", "-1"], 2, "got -1"),
        ([RUN, "--model", "mini-clip"], 2, "expected SPACE=MODEL"),
        ([RUN, "--memories", "nowhere"], 1, "there is no cmcr memory here"),
        ([RUN, "--against", "nowhere"], 1, "nowhere"),
        (["--all", "--data", "nowhere"], 2, "audiocaps, ave, "),
        ([RUN, "--nonsense"], 2, "--nonsense"),
    ],
)
def test_wrong_calls(folders, tmp_path, monkeypatch, capsys, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", folders["av"], *arguments]) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_ablations_are_printed_and_kept(memories, tmp_path, capsys):
    call = ["ablate", *memories, "--run", "counterfactual/mini", "--seeds", "3", "4", "--only", "L_intra"]
    call += ["--set", "epochs=1", "--out", str(tmp_path / "found.json")]
    assert main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert {**found, "sha256_of_this_file": ANY} == kept
    assert main(["verify", str(tmp_path / "found.json")]) == 0
    capsys.readouterr()
    assert set(found["summary"]) == {"full method", "no L_intra"}
    assert describe(tmp_path / "found.json")["trainings_finished"] == 4
    assert main(call) == 0
    shown = capsys.readouterr().out
    assert "seeds 3, 4" in shown
    figure = found["summary"]["no L_intra"]["present/AP"]["minus_full"]
    assert f"{100 * figure['mean']:+.1f} [{100 * figure['low']:+.1f}, " in shown


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only", "L_avx"], "unknown ablation 'L_avx'"),
        (["--set", "method=c-mcr"], "'method'"),
        (["--model", "mini-clip"], "expected SPACE=MODEL"),
    ],
)
def test_wrong_calls_of_ablate(memories, capsys, more, said):
    assert main(["ablate", *memories, "--run", "counterfactual/mini", *more]) == 2
    assert said in capsys.readouterr().err
