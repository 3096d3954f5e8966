"""`cmcr connect`: what it prints and refuses. What stopped runs leave is tested in tests/test_connecting.py."""

import json
import re

import numpy as np
import pytest

import cmcr
from cmcr.cli import main
from cmcr.connection import compare
from cmcr.connection.diagnosis import Finding
from cmcr.connection.methods import auto, residual
from connection.methods.worlds import on_disk, world
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
    (short,) = facts.pop("in_short")
    assert (short["by"], short["items"], short["held_out"]) == ("c-mcr", 800, False)
    assert facts == {
        "path": str(out),
        "spaces": ["mini-clap", "mini-clip"],
        "overlap": "text",
        "overlap_rows": 800,
        "width": 352,
        "method": "c-mcr",
        "chosen": {},
    }
    connection = cmcr.load(out)  # finds the encoders by itself, for the memories know their fingerprints
    assert connection.settings.epochs == 2
    assert connection.encode(["seven"], "text", space="mini-clap").shape == (1, 352)
    assert [path.name for path in tmp_path.iterdir()] == ["connection"]


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Memories of a world of concepts, and a training that is as good as none."""
    quick = auto.TRAINED._replace(settings=residual.ResidualSettings(epochs=1))
    monkeypatch.setattr(auto, "CANDIDATES", (*auto.CANDIDATES[:3], quick))
    monkeypatch.setattr(compare, "CANDIDATES", auto.CANDIDATES)
    clip, clap, pairs = world("concepts")
    on_disk(tmp_path, clip, clap)
    for space, modality in (("clip", "image"), ("clap", "audio")):
        ids = [f"pair-{number}" for number in range(60)]
        rows, at = pairs[space], np.arange(60) if space == "clip" else np.arange(60)[::-1]
        cmcr.write_memory(
            tmp_path / f"pairs-{space}", rows[at], [ids[i] for i in at], space=space, modality=modality, dtype="float32"
        )
    return [str(tmp_path / name) for name in ("clip-text", "clip-image", "clap-text", "clap-audio")]


def test_what_was_chosen_and_what_is_wrong_are_said(few, tmp_path, capsys, monkeypatch):
    failed = [Finding("hubs", "clip to clap", 0.3, 0.2, ok, "Much.", "Look.") for ok in (False, True)]
    monkeypatch.setattr("cmcr.connection.diagnosis.findings", lambda measured: tuple(failed))
    assert main(["connect", *few, "--out", str(tmp_path / "connection"), "--device", "cpu"]) == 0
    chosen, short, *wrong = capsys.readouterr().out.splitlines()[1:]
    assert re.fullmatch(
        r"chosen for clip \+ clap: concepts \(\d\.\d\d times the evidence of the closed form, cca: .*\)\. See: cmcr compare",
        chosen,
    )
    assert re.fullmatch(
        r"clip \+ clap: overlap R@1 of 80 held-out items: concepts [\d.]+ %, cca [\d.]+ %; "
        r"modality gap of clip 0\.\d\d before, 0\.\d\d after, of clap 0\.\d\d before, 0\.\d\d after\.",
        short,
    )
    assert wrong == ["FAILED: hubs, clip to clap: Much. Look."]
    assert main(["connect", *few, "--out", str(tmp_path / "other"), "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["method"], facts["chosen"], facts["final_loss"]) == ("auto", {"clip + clap": "concepts"}, None)


def test_methods_are_compared_by_pairs_that_have_one_id(few, tmp_path, capsys):
    call = ["compare", *few, "--device", "cpu", "--pairs", str(tmp_path / "pairs-clap"), str(tmp_path / "pairs-clip")]
    assert main(call) == 0
    assert re.search(r"^\* concepts .*\]$", capsys.readouterr().out, re.M)
    assert main([*call, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["method"]: row for row in rows}["concepts"]["clip_to_clap/R@1"]["value"] > 25  # in another order: 2
    assert main([*call[:-1], few[0]]) == 2
    assert "no id in common" in capsys.readouterr().err


@pytest.mark.parametrize(("method", "kept"), [("auto", True), ("ridge", False)])
def test_a_stopped_run_says_what_is_kept(few, tmp_path, capsys, monkeypatch, method, kept):
    def stop(*given, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr("cmcr.connecting.connect", stop)
    assert main(["connect", *few, "--out", str(tmp_path / "connection"), "--device", "cpu", "--method", method]) == 130
    assert ("connection.unfinished" in capsys.readouterr().err) == kept


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
