"""`cmcr connect`, from files to a connection, through the commands a user would type."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

import cmcr
from cmcr.cli import main
from cmcr.data.numbers import draw_pictures, speak_sounds, write_texts


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
    assert facts.pop("final_loss") > 0
    assert facts == {
        "path": str(out),
        "spaces": ["mini-clap", "mini-clip"],
        "overlap": "text",
        "overlap_rows": 240,
        "width": 128,
    }
    connection = cmcr.load(out)  # finds the encoders by itself, for the memories know their fingerprints
    assert connection.settings.epochs == 2
    assert connection.encode([folder / "sounds" / "000.wav"], "audio").shape == (1, 128)
    assert [path.name for path in tmp_path.iterdir()] == ["connection"]


def test_several_memories_of_one_kind_are_taken_together(memories, tmp_path, capsys):
    out = tmp_path / "connection"
    assert main(["connect", *memories, memories[3], "--out", str(out), "--set", "epochs=1"]) == 0
    assert "mini-clap and mini-clip, connected through 240 items of text, 128 wide." in capsys.readouterr().out
    assert cmcr.load(out).spaces[1].outer_rows == 120


def test_a_finished_connection_is_replaced_only_on_demand(memories, tmp_path, capsys):
    call = ["connect", *memories, "--out", str(tmp_path / "connection"), "--set"]
    assert main([*call, "epochs=1"]) == 0
    assert main([*call, "epochs=2"]) != 0
    assert "--replace" in capsys.readouterr().err
    assert cmcr.load(tmp_path / "connection").settings.epochs == 1
    assert main([*call, "epochs=2", "--replace"]) == 0
    assert cmcr.load(tmp_path / "connection").settings.epochs == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--set", "epoch=2"], 2, "did you mean 'epochs'?"),
        (["--set", "epochs"], 2, "expected NAME=VALUE"),
        (["--set", "epochs=1", "epochs=2"], 2, "'epochs' twice"),
        (["--set", "seed=3"], 2, "'seed'"),
        (["--set", "out=3"], 2, "'out'"),
        (["--batch-size=3"], 2, "--set batch_size=VALUE"),
        (["--bach-size=3"], 2, "Unknown option: --bach-size. See: cmcr --help"),
        (["--seed", "-1"], 2, "got -1"),
        (["--device", "gpu"], 2, "unknown device 'gpu'"),
        (["--method", "c-mrc"], 2, "c-mcr"),
        (["--overlap", "image"], 2, "'image'"),
    ],
)
def test_wrong_calls_write_nothing(memories, tmp_path, capsys, arguments, code, said):
    assert main(["connect", *memories, "--out", str(tmp_path / "connection"), *arguments]) == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_memory_that_is_not_there(memories, tmp_path, capsys):
    assert main(["connect", *memories[:3], str(tmp_path / "nothing"), "--out", str(tmp_path / "connection")]) == 1
    assert "there is no cmcr memory here" in capsys.readouterr().err


def test_an_overlap_whose_ids_occur_twice_is_refused(memories, tmp_path, capsys):
    assert main(["connect", *memories, memories[1], "--out", str(tmp_path / "connection")]) == 2
    assert "'captions.txt:1' occurs twice" in capsys.readouterr().err


@pytest.mark.parametrize("inner", ["pictures", "mini-clip-text/inner", "captions.txt/x", "n" * 230])
def test_where_nothing_can_be_written_it_is_refused_before_the_training(memories, folder, capsys, monkeypatch, inner):
    monkeypatch.setattr("cmcr.connection.connect.train", None)
    assert main(["connect", *memories, "--out", str(folder / inner)]) == 1
    said = capsys.readouterr().err
    assert str(folder / inner) in said
    assert "Errno" not in said
