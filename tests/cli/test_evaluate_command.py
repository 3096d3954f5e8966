"""`cmcr evaluate`, on the miniature world and on tiny data sets in their published layouts."""

import json

import pytest
from PIL import Image

from cmcr.cli import main
from cmcr.evaluation.evaluate import DATASETS, evaluate_miniature
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
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name in {name for names in DATASETS.values() for name in names} - {"imagenet"}:
        tiny_sets.write(name, root / name)
    return root


def results(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_line_of_json_a_run_equal_to_that_of_the_library(folders, capsys):
    assert main(["evaluate", folders["av"], RUN, "--limit", "20", "--seed", "3", "--json"]) == 0
    (result,) = results(capsys)
    assert result == evaluate_miniature(audio_image(), RUN, seed=3, items=20).result


def test_a_table_has_a_row_a_figure_and_a_column_a_way(folders, capsys):
    assert main(["evaluate", folders["av"], RUN, "--limit", "20"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "retention/mini-image-text: miniature image and text, n = 20"
    header = next(line for line in lines if "percent" in line)
    assert [cell.strip() for cell in header.split("┃")[1:-1]] == [
        "percent [95 % interval]", "connection", "chance", "own space",
    ]  # fmt: skip
    value = evaluate_miniature(audio_image(), RUN, items=20).result["figures"]["connection"]["mean/R@1"]
    cell = "{value:.1f} [{low:.1f}, {high:.1f}]".format(**{key: 100 * number for key, number in value.items()})
    row = next(line for line in lines if "mean/R@1 " in line)
    assert row.split("│")[2].strip() == cell
    assert "quoted" not in shown.out
    assert shown.err.splitlines() == ["image in mini-clip ...", "text in mini-clip ...", "scoring chance ...",
                                      "scoring own space ..."]  # fmt: skip


def test_all_writes_one_whole_file_a_run(folders, tmp_path, capsys):
    out = tmp_path / "new" / "results"
    assert main(["evaluate", folders["3d"], "--all", "--limit", "8", "--out", str(out), "--json"]) == 0
    printed = results(capsys)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{row['run'].replace('/', '-')}.json" for row in printed
    )
    assert len(printed) == 5
    for result in printed:
        text = (out / f"{result['run'].replace('/', '-')}.json").read_text(encoding="utf-8")
        assert json.loads(text) == result
        assert text.endswith("}\n")


def test_results_replace_those_of_before(folders, tmp_path):
    file = tmp_path / "retention-mini-image-text.json"
    file.write_text("of before")
    assert main(["evaluate", folders["av"], RUN, "--limit", "8", "--out", str(tmp_path)]) == 0
    assert json.loads(file.read_text())["run"] == RUN
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_heat_maps_are_written_for_localization(folders, tmp_path, capsys):
    call = ["evaluate", folders["av"], "localization/mini", "--limit", "8", "--heatmaps", "2", "--out", str(tmp_path)]
    assert main(call) == 0
    pictures = sorted((tmp_path / "localization-mini-heatmaps").iterdir())
    assert [path.name for path in pictures] == ["00000-000.png", "00007-007.png"]
    for path in pictures:
        with Image.open(path) as opened:
            opened.load()
            assert opened.format == "PNG"
    assert (tmp_path / "localization-mini.json").exists()
    assert "proposals/cIoU@0.5" in capsys.readouterr().out


def test_another_connection_is_compared(folders, capsys):
    call = ["evaluate", folders["av"], RUN, "--limit", "40", "--against", folders["short"]]
    assert main([*call, "--json"]) == 0
    (result,) = results(capsys)
    assert list(result["connection_minus"]) == [folders["short"]]
    difference = result["connection_minus"][folders["short"]]["mean/R@1"]
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert f"retention/mini-image-text: this connection minus {folders['short']}" in out
    assert "p (sign flip)" in out
    gap = "{difference:+.1f} [{low:+.1f}, {high:+.1f}]".format(
        **{key: 100 * difference[key] for key in ("difference", "low", "high")}
    )
    assert gap in out


def test_baselines_stand_beside_where_memories_are_given(folders, tmp_path, capsys):
    memories = [str(folder) for folder in write_memories(tmp_path).values()]
    call = ["evaluate", folders["av"], "retrieval/mini-audio-image", "--limit", "8", "--json", "--memories", *memories]
    assert main(call) == 0
    (result,) = results(capsys)
    assert list(result["figures"]) == ["connection", "chance", "centred ridge", "centred procrustes", "posterior"]


@pytest.mark.parametrize(
    ("name", "run", "key", "n"),
    [
        ("av", "retrieval/ave", "audio_to_image/R@1", 3),
        ("av", "retrieval/vgg-ss", "audio_to_image/R@1", 2),
        ("av", "retrieval/flickr-soundnet", "audio_to_image/R@1", 4),
        ("av", "localization/vgg-ss", "proposals/AUC", 2),
        ("av", "localization/flickr-soundnet", "proposals/AUC", 2),
        ("av", "localization/music-solo", "proposals/AUC", 2),
        ("av", "counterfactual/ex-vgg-ss", "present/AP", 4),
        ("av", "counterfactual/ex-flickrnet", "present/AP", 4),
        ("av", "classification/esc-50", "audio/top-1", 3),
        ("av", "retention/coco", "text_to_image/R@1", 10),
        ("av", "retention/flickr30k", "text_to_image/R@1", 10),
        ("av", "retention/audiocaps", "text_to_audio/R@1", 7),
        ("av", "retention/clotho", "text_to_audio/R@1", 10),
        ("3d", "classification/modelnet40", "point_cloud/top-1", 3),
        ("3d", "classification/scanobjectnn", "point_cloud/top-1", 4),
        ("3d", "classification/objaverse-lvis", "point_cloud/top-1", 3),
    ],
)
def test_published_layouts_are_measured(folders, data, capsys, name, run, key, n):
    assert main(["evaluate", folders[name], run, "--data", str(data / run.split("/")[1]), "--json"]) == 0
    (result,) = results(capsys)
    assert result["run"] == run
    assert result["data"]["failed"] == 0
    figure = result["figures"]["connection"][key]
    assert figure["n"] == n
    assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1


def test_published_rows_are_marked_as_quoted(folders, data, capsys):
    call = ["evaluate", folders["av"], "retention/coco", "--data", str(data)]
    assert main([*call, "--json"]) == 0
    (result,) = results(capsys)
    assert [row["quoted"] for row in result["published_in_percent"]] == [True, True]
    assert main(call) == 0
    out = capsys.readouterr().out
    header = next(line for line in out.splitlines() if "percent" in line)
    cells = [cell.strip() for cell in header.split("┃")[1:-1]]
    assert cells[:4] == ["percent [95 % interval]", "connection", "chance", "own space"]
    assert cells[4:] == ["quoted: CLIP ViT-B/32", "quoted: C-MCR"]
    assert "…" not in out
    row = next(line for line in out.splitlines() if "mean/R@1 " in line).split("│")
    assert [row[5].strip(), row[6].strip()] == ["40.24", "16.67"]
    other = next(line for line in out.splitlines() if "mean/R@10 " in line).split("│")
    assert [other[5].strip(), other[6].strip()] == ["", ""]


def test_figures_are_not_cut_off_in_a_narrow_terminal(folders, data, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["evaluate", folders["av"], "retention/coco", "--data", str(data)]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    for shown in ("quoted: CLIP ViT-B/32", "40.24", "100.0 [100.0, 100.0]"):
        assert shown in out


def test_all_finds_folders_by_the_name_of_the_data_set(folders, tmp_path, capsys):
    for name in ("esc-50", "coco", "modelnet40"):
        tiny_sets.write(name, tmp_path / name)
    assert main(["evaluate", folders["av"], "--all", "--data", str(tmp_path), "--json"]) == 0
    assert [result["run"] for result in results(capsys)] == ["classification/esc-50", "retention/coco"]


def test_all_ends_with_1_where_a_data_set_is_incomplete_and_keeps_the_rest(folders, tmp_path, capsys):
    for name in ("esc-50", "coco"):
        tiny_sets.write(name, tmp_path / name)
    (tmp_path / "esc-50" / "audio" / "5-200-A-1.wav").unlink()
    (tmp_path / "modelnet40").mkdir()  # nothing that this connection can do
    call = ["evaluate", folders["av"], "--all", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*call, "--json"]) == 1
    shown = capsys.readouterr()
    assert [json.loads(line)["run"] for line in shown.out.splitlines()] == ["retention/coco"]
    told = json.loads(shown.err)
    assert told["error"] == "IncompleteDataError"
    assert "- classification/esc-50: " in told["message"]
    assert "1 of the 3 items that the annotations of esc-50 name are not there: audio/5-200-A-1.wav" in told["message"]
    assert "modelnet40" not in told["message"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["retention-coco.json"]
    assert main(call) == 1
    shown = capsys.readouterr()
    assert "retention/coco: coco/karpathy-test, n = " in shown.out
    assert shown.err.splitlines()[-1].startswith("- classification/esc-50: ")
    assert main([*call, "--allow-missing", "--json"]) == 0
    assert [result["run"] for result in results(capsys)] == ["classification/esc-50", "retention/coco"]


def test_prompts_in_the_form_of_ulip(folders, data, tmp_path, capsys):
    file = tmp_path / "templates.json"
    file.write_text(json.dumps({"modelnet40_64": ["a point cloud model of {}.", "{}"], "other": ["the {}."]}))
    call = [
        "evaluate",
        folders["3d"],
        "classification/modelnet40",
        "--data",
        str(data),
        "--prompts",
        str(file),
        "--json",
    ]
    assert main([*call, "--prompts-key", "modelnet40_64"]) == 0
    assert len(results(capsys)) == 1
    assert main(call) == 2
    assert "holds 2 lists; say which: modelnet40_64, other." in json.loads(capsys.readouterr().err)["message"]
    assert main([*call, "--prompts-key", "modelnet"]) == 2
    assert "Did you mean 'modelnet40_64'?" in json.loads(capsys.readouterr().err)["message"]
    file.unlink()
    assert main(call) == 1
    assert json.loads(capsys.readouterr().err) == {
        "error": "ArtefactNotFoundError",
        "message": f"{file}: no such file of prompts; expected JSON such as ULIP's templates.json.",
    }


def test_limit_takes_fewer(folders, data, capsys):
    call = ["evaluate", folders["av"], "classification/esc-50", "--data", str(data), "--limit", "2", "--json"]
    assert main(call) == 0
    (result,) = results(capsys)
    assert result["figures"]["connection"]["audio/top-1"]["n"] == 2


def test_missing_files_stop_the_run_or_are_counted(folders, tmp_path, capsys):
    tiny_sets.write("esc-50", tmp_path)
    (tmp_path / "audio" / "5-200-A-1.wav").unlink()
    call = ["evaluate", folders["av"], "classification/esc-50", "--data", str(tmp_path)]
    assert main([*call, "--json"]) == 1
    assert "5-200-A-1.wav" in json.loads(capsys.readouterr().err)["message"]
    assert main([*call, "--allow-missing", "--json"]) == 0
    (result,) = results(capsys)
    assert (result["data"]["left_out"], result["figures"]["connection"]["audio/top-1"]["n"]) == (1, 2)
    assert main([*call, "--allow-missing"]) == 0
    assert "n = 2, 1 left out for want of files" in capsys.readouterr().out


def test_items_that_cannot_be_read_are_counted(folders, tmp_path, capsys):
    tiny_sets.write("esc-50", tmp_path)
    (tmp_path / "audio" / "5-200-A-1.wav").write_bytes(b"no sound")
    assert main(["evaluate", folders["av"], "classification/esc-50", "--data", str(tmp_path)]) == 0
    assert "n = 2, 1 could not be embedded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "say what to measure: RUN, such as retrieval/mini-audio-image, or --all."),
        ([RUN, "--all"], 2, "say what to measure: RUN"),
        (
            ["retention/mini-image-txt"],
            2,
            "unknown run 'retention/mini-image-txt'. Did you mean 'retention/mini-image-text'?",
        ),
        (["classification/modelnet40"], 2, "classification/modelnet40: say where the data set is, --data FOLDER"),
        (["retrieval/mini-point_cloud-text"], 2, "mini-clap does not connect point_cloud and text: it has mini-clip: "),
        ([RUN, "--heatmaps", "3"], 2, "--heatmaps: say where to write them, --out FOLDER."),
        (
            ["localization/mini", "--heatmaps", "-1", "--out", "out"],
            2,
            "expected a number of pictures, 0 or more, got -1.",
        ),
        (
            [RUN, "--heatmaps", "3", "--out", "out"],
            2,
            "--heatmaps: only localization has any, not retention/mini-image-t",
        ),
        ([RUN, "--prompts-key", "x"], 2, "--prompts-key: say of which file, --prompts FILE."),
        ([RUN, "--seed", "-1"], 2, "seed: expected a whole number, 0 or more, got -1."),
        ([RUN, "--limit", "0"], 2, "expected 8 to 1000 items, got 0."),
        ([RUN, "--data", "here"], 2, "is drawn, not read: leave --data out."),
        (
            [RUN, "--model", "mini-clip"],
            2,
            "--model: expected SPACE=MODEL, such as ulip=pointbert.pt, got 'mini-clip'.",
        ),
        ([RUN, "--memories", "nowhere"], 1, "there is no cmcr memory here"),
        ([RUN, "--against", "nowhere"], 1, "nowhere"),
        (["retention/coco", "--data", "nowhere"], 1, "dataset_coco.json"),
        (["--all", "--data", "nowhere"], 2, "nowhere: expected a folder for each data set, called audiocaps, ave, "),
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


def test_connections_of_other_encoders_or_of_a_taken_name(folders, tmp_path, monkeypatch, capsys):
    assert main(["evaluate", folders["av"], RUN, "--limit", "8", "--against", folders["3d"]]) == 2
    assert "connects other encoders (mini-clip, mini-ulip)" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    audio_image(seed=1, epochs=1).save(tmp_path / "connection")
    assert main(["evaluate", folders["av"], RUN, "--limit", "8", "--against", "connection"]) == 2
    assert "the name 'connection' is taken; call the other connection otherwise" in capsys.readouterr().err
    absolute = str(tmp_path / "connection")
    assert main(["evaluate", folders["av"], RUN, "--limit", "8", "--against", absolute]) == 0


def test_a_connection_that_is_not_there(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "nothing"), RUN]) == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_a_folder_for_results_that_cannot_be(folders, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert main(["evaluate", folders["av"], RUN, "--limit", "8", "--out", str(tmp_path / "out")]) == 1
    assert "retention-mini-image-text.json" in capsys.readouterr().err


def test_localization_takes_another_rule_and_other_boxes(folders, capsys):
    call = ["evaluate", folders["av"], "localization/mini", "--limit", "8", "--json"]
    figures = {}
    for rule in ("value", "share"):
        assert main([*call, "--map-rule", rule]) == 0
        figures[rule] = json.loads(capsys.readouterr().out)["figures"]["connection"]
    assert figures["value"]["proposals/AUC"] == figures["share"]["proposals/AUC"]
    assert figures["value"]["dense/AUC"] != figures["share"]["dense/AUC"]
    assert main([*call, "--map-rule", "shares"]) == 2
    assert "Did you mean 'share'?" in capsys.readouterr().err
    assert main([*call, "--detector", "no/such/detector"]) in (1, 2)
    assert "no/such/detector" in capsys.readouterr().err
