"""`cmcr index`: exit codes, what is said, and `cmcr info` and `cmcr verify` of an index."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

import cmcr
from cmcr.cli import main
from cmcr.search import building


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write a connection of the miniature spaces, made of noise, and a list of texts."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    clip = cmcr.Memories(cmcr.space("mini-clip"), text=rng.normal(size=(60, 128)), image=rng.normal(size=(60, 128)))
    clap = cmcr.Memories(cmcr.space("mini-clap"), text=rng.normal(size=(60, 96)), audio=rng.normal(size=(60, 96)))
    cmcr.connect(clip, clap, method="ridge").save("connection")
    (tmp_path / "in.csv").write_text("key,caption,year\na,forty,2001\nb,fifty,2002\n")
    return tmp_path


def call(*more, inputs=("in.csv",), out="out"):
    columns = ["--column", "caption", "--id-column", "key"] if inputs == ("in.csv",) else []
    return main(["index", "connection", *inputs, "--out", out, *columns, *more])


def test_an_index_and_what_is_said_of_it(files, capsys):
    assert call() == 0
    said = capsys.readouterr()
    assert "text (mini-clip)" in said.out
    assert "cmcr serve out" in said.out
    assert "embedding text, in.csv ..." in said.err
    assert call("--json", "--via", "mini-clap") == 0
    said = capsys.readouterr()
    facts = {"space": "mini-clap", "modality": "text", "items": 2, "live": 2, "quarantined": 0, "backend": "exact"}
    assert json.loads(said.out) == {"path": "out", "corpora": [facts]}
    assert said.err == ""
    assert main(["info", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["corpora"]["text of mini-clap"]["items"] == 2
    assert main(["info", "out"]) == 0
    assert main(["verify", "out"]) == 0
    assert "whole and unchanged. 2 rows" in capsys.readouterr().out


def test_memories_with_their_lists_and_references(files, capsys):
    assert (
        main(["embed", "mini-clip", "text", "in.csv", "--column", "caption", "--id-column", "key", "--out", "mem"]) == 0
    )
    more = ["--items", "in.csv", "--column", "caption", "--id-column", "key", "--references", "mem", "--json"]
    capsys.readouterr()
    assert call(*more, inputs=("mem",)) == 0
    (item, _) = cmcr.SearchIndex("out").opened.items.items([0, 1])
    assert (item.id, item.text, item.columns["year"]) == ("a", "forty", 2001)


def test_what_could_not_be_read_is_said_and_tried_again(files, capsys):
    (files / "in.csv").write_text("key,caption\na,forty\nb,\nc,five\n")
    assert call() == 0
    said = capsys.readouterr().out
    assert "--retry-quarantined" in said
    (files / "in.csv").write_text("key,caption\na,forty\nb,six\nc,five\n")
    for more, counts in (([], (2, 1)), (["--retry-quarantined"], (3, 0))):
        assert call("--json", *more) == 0
        (facts,) = json.loads(capsys.readouterr().out)["corpora"]
        assert (facts["live"], facts["quarantined"]) == counts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ("nothing",)}, "nothing"),
        ({"more": ["--via", "mini-clop"]}, "Did you mean 'mini-clap' or 'mini-clip'?"),
        ({"more": ["--backend", "fais"]}, "Did you mean 'faiss'?"),
        ({"more": ["--device", "gpu"]}, "unknown device 'gpu'"),
        ({"more": ["--model", "mini-clip=x"]}, "'model'"),
    ],
)
def test_wrong_calls(files, capsys, options, message):
    before = sorted(Path.cwd().iterdir())
    assert call(*options.pop("more", []), **options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count(f"{Path.cwd()}/nothing") <= 1
    assert sorted(Path.cwd().iterdir()) == before  # nothing was written


def test_stopped_by_a_signal_the_same_command_resumes(files, capsys, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(building, "_item_table", lambda *given: signal.raise_signal(signal.SIGTERM))
        assert call() == 130
    assert "Run the same command again to resume" in capsys.readouterr().err
    assert main(["info", "out", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (memory,) = (said for name, said in facts.items() if name.startswith("memory mini-clip-text-"))
    assert (facts["kind"], facts["finished"], memory) == ("index", False, "2 rows")
    assert call() == 0
    assert "embedding" not in capsys.readouterr().err
