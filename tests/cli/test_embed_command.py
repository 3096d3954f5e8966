"""`cmcr embed`: exit codes, messages, events. What embedding does is tested in tests/memories."""

import json
import signal

import numpy as np
import pytest

import cmcr
from cmcr.cli import main


@pytest.fixture
def lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in.txt"
    path.write_text("".join(f"number {n}\n" for n in range(20)))
    return path


def call(*more, source="in.txt", space="mini-clip", modality="text", out="out"):
    return main(["embed", space, modality, source, "--out", out, *more])


def test_a_memory_and_what_is_said_of_it(lines, capsys):
    for shown in ("embedding 20 items ...\n", ""):  # the second time there is nothing to do
        assert call() == 0
        said = capsys.readouterr()
        assert said.out == "out: 20 rows of 128 (text in mini-clip, float16).\n"
        assert said.err == shown
    expected = cmcr.space("mini-clip").encode([f"number {n}" for n in range(20)], "text")
    np.testing.assert_allclose(cmcr.Memory("out")[:], expected, rtol=0, atol=5e-4)


def test_options_reach_the_run(lines):
    lines.with_name("in.csv").write_text("name,caption\nn1,one\nn2,two\n")
    assert call("--column", "caption", "--id-column", "name", source="in.csv", out="table") == 0
    assert cmcr.Memory("table").ids == ["n1", "n2"]
    assert call("--batch-size", "3", "--dtype", "float32", "--shard-items", "8", "--device", "cpu") == 0
    memory = cmcr.Memory("out")
    assert memory.dtype == "float32"
    assert [shard.rows for shard in memory.contents[0].shards] == [8, 8, 4]


def test_events_are_lines_of_json(lines, capsys):
    assert call("--json", "--shard-items", "12") == 0
    said = capsys.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == [
        {"event": "started", "items": 20, "done": 0, "shards": 2},
        {"event": "shard", "shard": "shard-00000", "rows": 12, "quarantined": 0},
        {"event": "shard", "shard": "shard-00001", "rows": 8, "quarantined": 0},
        {"event": "finished", "rows": 20, "quarantined": 0},
    ]
    assert said.err == ""


def test_quarantine_then_retry_then_append(lines, capsys):
    lines.write_text("one\n\ntwo\n")
    assert call() == 0
    said = capsys.readouterr().out
    assert "2 rows of 128" in said
    assert "1 item(s) are in quarantine: out/*.quarantine.jsonl" in said
    assert "--retry-quarantined" in said
    lines.write_text("one\nfive\ntwo\n")
    assert call("--retry-quarantined") == 0
    said = capsys.readouterr().out
    assert "3 rows of 128" in said
    assert "quarantine" not in said
    lines.write_text("one\nfive\ntwo\nsix\n")
    assert call("--append") == 0
    assert capsys.readouterr().err == "embedding 1 items ...\n1 new row(s).\n"
    assert call("--append", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"event": "finished", "rows": 4, "quarantined": 0, "new": 0}


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"space": "mini-clop"}, 2, "Did you mean 'mini-clap' or 'mini-clip'?"),
        ({"space": "ulip"}, 2, "model=..."),
        ({"modality": "txt"}, 2, "Did you mean 'text'?"),
        ({"source": "in.tx"}, 2, "in.tx"),
        ({"more": ["--max-failures", "some"]}, 2, "--max-failures"),
        ({"more": ["--max-failures", "1.5"]}, 2, "max_failures"),
        ({"more": ["--batch-size", "0"]}, 2, "batch_size"),
        ({"more": ["--batch-size", "x"]}, 2, "--batch-size"),
        ({"more": ["--dtype", "int8"]}, 2, "dtype"),
        ({"more": ["--append"]}, 2, "there is no finished memory"),
        ({"more": ["--retry-quarantined"]}, 2, "there is no finished memory"),
        ({"more": ["--modell", "x"]}, 2, "--modell"),
        ({"more": ["--model", "x"]}, 2, "'model'"),
        ({"more": ["--no-append"]}, 2, "--no-append"),
        ({"more": ["--workers", "3"]}, 2, "--engine ray"),
        ({"more": ["--device", "gpu"]}, 2, "unknown device 'gpu'"),
    ],
)
def test_wrong_calls_write_nothing(lines, capsys, change, code, message):
    assert call(*change.pop("more", []), **change) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert [path.name for path in lines.parent.iterdir()] == ["in.txt"]


def test_stopped_by_a_signal_the_same_command_resumes(lines, capsys, monkeypatch):
    before, shards = signal.getsignal(signal.SIGTERM), []

    def stop_at_the_first_shard(line, **options):
        shards.append(line)
        if json.loads(line).get("event") == "shard":
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("builtins.print", stop_at_the_first_shard)
        assert call("--json", "--shard-items", "10") == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert "finished shards are kept in out" in json.loads(shards[-1])["message"]
    assert call("--shard-items", "10") == 0
    assert capsys.readouterr().err == "embedding 20 items, 10 finished earlier ...\n"


def test_files_of_other_endings_are_skipped_and_named(lines, capsys):
    folder = lines.parent / "in"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "notes.md", "list.json", "more.json"):
        (folder / name).write_text("seven", encoding="utf-8")
    assert call(source="in") == 0
    assert "skipped, by their endings: .json (2), .md (1)" in capsys.readouterr().err
