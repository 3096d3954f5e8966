"""`cmcr connect`: what it prints and refuses. What stopped runs leave is tested in tests/test_connecting.py."""

import json

import pytest

import cmcr
from cmcr.cli import main
from evaluation.small_connections import write_memories

METHOD = ("--method", "c-mcr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four memories of 800 items each."""
    home = tmp_path_factory.mktemp("memories")
    write_memories(home)
    return home


@pytest.fixture
def memories(folder):
    return [str(folder / name) for name in ("clap-audio", "clip-text", "clap-text", "clip-image")]


def test_from_memories_to_a_connection_that_embeds(memories, tmp_path, capsys):
    out = tmp_path / "connection"
    assert main(["connect", *memories, "--out", str(out), *METHOD, "--set", "epochs=2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts.pop("final_loss") > 0
    assert facts == {
        "path": str(out),
        "spaces": ["mini-clap", "mini-clip"],
        "overlap": "text",
        "overlap_rows": 800,
        "width": 352,
        "method": "c-mcr",
    }
    connection = cmcr.load(out)  # finds the encoders by itself, for the memories know their fingerprints
    assert connection.settings.epochs == 2
    assert connection.encode(["seven"], "text", space="mini-clap").shape == (1, 352)
    assert [path.name for path in tmp_path.iterdir()] == ["connection"]


def test_several_memories_of_one_kind_are_taken_together(memories, tmp_path, capsys):
    out = tmp_path / "connection"
    assert main(["connect", *memories, memories[3], "--out", str(out), *METHOD, "--set", "epochs=1"]) == 0
    assert "mini-clap and mini-clip, connected through 800 items of text, 352 wide." in capsys.readouterr().out
    assert cmcr.load(out).spaces[1].outer_rows == 1600


def test_a_finished_connection_is_replaced_only_on_demand(memories, tmp_path, capsys):
    call = ["connect", *memories, "--out", str(tmp_path / "connection"), *METHOD, "--set"]
    assert main([*call, "epochs=1"]) == 0
    assert main([*call, "epochs=2"]) != 0
    assert "--replace" in capsys.readouterr().err
    assert cmcr.load(tmp_path / "connection").settings.epochs == 1
    assert main([*call, "epochs=2", "--replace"]) == 0
    assert cmcr.load(tmp_path / "connection").settings.epochs == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([*METHOD, "--set", "epoch=2"], 2, "did you mean 'epochs'?"),
        (["--set", "epochs=2"], 2, "it is one of 'c-mcr': pass method='c-mcr'"),
        (["--set", "epochs"], 2, "expected NAME=VALUE"),
        (["--set", "epochs=1", "epochs=2"], 2, "'epochs' twice"),
        (["--set", "seed=3"], 2, "'seed'"),
        (["--set", "out=3"], 2, "'out'"),
        (["--batch-size=3"], 2, "--set NAME=VALUE"),
        (["--seed", "-1"], 2, "got -1"),
        (["--device", "gpu"], 2, "unknown device 'gpu'"),
        (["--workers", "3"], 2, "--engine ray"),
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
    assert "'00000' occurs twice" in capsys.readouterr().err


@pytest.mark.parametrize("inner", ["clip-text", "clip-text/config.json/x"])
def test_where_nothing_can_be_written_it_is_refused_before_the_training(memories, folder, capsys, monkeypatch, inner):
    monkeypatch.setattr("cmcr.connection.methods.c_mcr.train", None)
    assert main(["connect", *memories, "--out", str(folder / inner)]) == 1
    said = capsys.readouterr().err
    assert str(folder / inner) in said
    assert "Errno" not in said
