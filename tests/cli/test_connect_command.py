"""`cmcr connect`, from files to a connection, through the commands a user would type."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image

import cmcr
from cmcr.cli import main
from cmcr.connection import checkpoint
from cmcr.connection.connection import Connection
from cmcr.connection.consistency import SoftmaxMean
from cmcr.data.numbers.pictures import draw_pictures
from cmcr.data.numbers.sounds import speak_sounds
from cmcr.data.numbers.texts import write_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Captions, pictures and sounds of numbers as files, embedded into four memories."""
    home = tmp_path_factory.mktemp("numbers")
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 1000, 60)
    (home / "captions.txt").write_text("\n".join(write_texts(np.tile(numbers, 4), rng)), encoding="utf-8")
    for name in ("pictures", "sounds"):
        (home / name).mkdir()
    for i, picture in enumerate(draw_pictures(numbers, "train", rng)):
        Image.fromarray(picture).save(home / "pictures" / f"{i:03d}.png")
    for i, sound in enumerate(speak_sounds(numbers, "train", rng)):
        soundfile.write(home / "sounds" / f"{i:03d}.wav", sound, 8000)
    for space, modality, given in (
        ("mini-clip", "text", "captions.txt"),
        ("mini-clip", "image", "pictures"),
        ("mini-clap", "text", "captions.txt"),
        ("mini-clap", "audio", "sounds"),
    ):
        assert main(["embed", space, modality, str(home / given), "--out", str(home / f"{space}-{modality}")]) == 0
    return home


@pytest.fixture
def memories(folder):
    return [str(folder / name) for name in ("mini-clap-audio", "mini-clip-text", "mini-clap-text", "mini-clip-image")]


def test_from_memories_to_a_connection_that_embeds(folder, memories, tmp_path, capsys):
    out = tmp_path / "connection"
    assert main(["connect", *memories, "--out", str(out), "--set", "epochs=2", "batch_size=60", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {
        "path": str(out),
        "spaces": ["mini-clap", "mini-clip"],
        "overlap": "text",
        "overlap_rows": 240,
        "width": 128,
        "final_loss": pytest.approx(facts["final_loss"]),
    }
    connection = cmcr.load(out)  # finds the encoders by itself, for the memories knew their fingerprints
    assert connection.settings.epochs == 2
    assert connection.encode([folder / "sounds" / "000.wav"], "audio").shape == (1, 128)


def test_a_plan_tells_what_it_would_take_and_writes_nothing(folder, memories, capsys):
    before = sorted(folder.iterdir())
    assert main(["connect", *memories, "--plan", "--set", "epochs=2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in plan["stages"]] == [
        "connect: semantic consistency of mini-clap",
        "connect: semantic consistency of mini-clip",
        "connect: training",
    ]
    assert [stage["items"] for stage in plan["stages"]] == [240] * 3
    assert plan["stages"][0]["operations"] == 4 * 240 * 60 * 96
    assert all(stage["seconds"] > 0 for stage in plan["stages"])
    assert sorted(folder.iterdir()) == before


def test_neither_a_folder_nor_a_plan_is_a_wrong_call(memories, capsys):
    assert main(["connect", *memories]) == 2
    assert "--out: expected the folder of the connection to be made, or --plan." in capsys.readouterr().err


def test_trained_anew_from_the_rows_that_are_kept(memories, tmp_path, capsys, monkeypatch):
    call = ["connect", *memories, "--out", str(tmp_path / "connection"), "--set", "batch_size=60"]
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "save", lambda connection, out: 1 / 0)
        patch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
        with pytest.raises(ZeroDivisionError):
            main([*call, "epochs=2"])
    assert main([*call, "epochs=1"]) == 1
    assert "epochs was 2, now 1. Run it as it was begun; or train anew" in capsys.readouterr().err
    monkeypatch.setattr(SoftmaxMean, "_means", None)
    assert main([*call, "epochs=1", "--anew"]) == 0
    assert cmcr.load(tmp_path / "connection").settings.epochs == 1
    assert not (tmp_path / "connection.unfinished").exists()


def test_a_connection_in_the_folder_where_one_is(memories, tmp_path, capsys, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["connect", *memories, "--out", ".", "--set", "epochs=1"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert cmcr.load(tmp_path / "here").settings.epochs == 1


def test_memories_of_one_kind_are_taken_together(memories, tmp_path, capsys):
    out = tmp_path / "connection"
    assert main(["connect", *memories, memories[3], "--out", str(out), "--set", "epochs=1"]) == 0
    assert "mini-clap and mini-clip, connected through 240 items of text, 128 wide." in capsys.readouterr().out
    assert cmcr.load(out).spaces[1].outer_rows == 120


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--set", "epoch=2"], 2, "did you mean 'epochs'?"),
        (["--set", "epochs"], 2, "--set: expected NAME=VALUE, such as epochs=10, got 'epochs'."),
        (["--set", "epochs=1", "epochs=2"], 2, "--set: expected every setting once, got 'epochs' twice."),
        (["--precision", "bfloat16"], 2, "Unknown option: --precision. It is a setting: --set precision=VALUE."),
        (["--batch-size=3"], 2, "Unknown option: --batch-size. It is a setting: --set batch_size=VALUE."),
        (["--bach-size=3"], 2, "Unknown option: --bach-size. See: cmcr --help"),
        (["--device", "gpu"], 2, "unknown device 'gpu'"),
        (["--device", "gpu", "--plan"], 2, "unknown device 'gpu'"),
        (["--method", "c-mrc"], 2, "c-mcr"),
        (["--overlap", "image"], 2, "unknown overlap modality 'image'"),
    ],
)
def test_wrong_calls(memories, tmp_path, capsys, arguments, code, said):
    assert main(["connect", *memories, "--out", str(tmp_path / "connection"), *arguments]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "connection").exists()


@pytest.mark.parametrize("way", [["--plan"], []])
@pytest.mark.parametrize(
    "name", ["seed", "overlap", "device", "method", "progress", "checkpoint", "counterparts", "memories"]
)
def test_arguments_of_connecting_are_no_settings(memories, tmp_path, capsys, name, way):
    assert main(["connect", *memories, "--out", str(tmp_path / "connection"), "--set", f"{name}=3", *way]) == 2
    assert f"unknown settings: '{name}'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", [["--plan"], []])
def test_a_seed_below_0_is_a_wrong_call(memories, tmp_path, capsys, way):
    assert main(["connect", *memories, "--out", str(tmp_path / "connection"), "--seed", "-1", *way]) == 2
    assert "seed: expected a whole number, 0 or more, got -1." in capsys.readouterr().err


def test_a_memory_that_is_not_there(memories, tmp_path, capsys):
    assert main(["connect", *memories[:3], str(tmp_path / "nothing"), "--out", str(tmp_path / "connection")]) == 1
    assert "there is no cmcr memory here" in capsys.readouterr().err


@pytest.mark.parametrize("way", [["--plan"], []])
def test_a_damaged_list_of_items_is_named(memories, tmp_path, capsys, way):
    damaged = shutil.copytree(memories[1], tmp_path / "captions")
    path = damaged / "shard-00000.items.jsonl"
    path.write_bytes(path.read_bytes().replace(b"captions", b"\xffaptions", 1))
    given = [memories[0], str(damaged), *memories[2:]]
    assert main(["connect", *given, "--out", str(tmp_path / "connection"), *way]) == 1
    assert f"{path}: its lines are damaged" in capsys.readouterr().err


def test_something_else_at_the_target_is_refused_before_the_training(memories, folder, capsys, monkeypatch):
    monkeypatch.setattr("cmcr.connection.connect.connect", None)
    assert main(["connect", *memories, "--out", str(folder / "pictures")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        f"cmcr: {folder / 'pictures'}: could not write (something that is not a cmcr connection is there"
    )
    assert "Errno" not in said


@pytest.mark.parametrize("way", [["--plan"], []])
@pytest.mark.parametrize("inner", ["mini-clip-text/inner", "captions.txt/x", "n" * 230])
def test_where_it_cannot_be_written_both_refuse(memories, folder, capsys, monkeypatch, inner, way):
    monkeypatch.setattr("cmcr.connection.connect.connect", None)
    assert main(["connect", *memories, "--out", str(folder / inner), *way]) == 1
    assert str(folder / inner) in capsys.readouterr().err
    assert not (folder / "mini-clip-text" / "inner").exists()


def test_an_overlap_whose_ids_occur_twice_is_refused(memories, tmp_path, capsys):
    assert main(["connect", *memories, memories[1], "--out", str(tmp_path / "connection")]) == 2
    said = capsys.readouterr().err
    assert "the overlap of 'mini-clip': the id 'captions.txt:1' occurs twice" in said
    assert not (tmp_path / "connection").exists()
