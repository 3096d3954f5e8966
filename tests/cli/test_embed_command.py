"""`cmcr embed`: exit codes, messages, events."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import cmcr
from cmcr.cli import main
from cmcr.memories import embed as embed_module


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("".join(f"number {n}\n" for n in range(20)))
    return path


def call(lines, out, *more, space="mini-clip", modality="text"):
    return main(["embed", space, modality, str(lines), "--out", str(out), *more])


def test_a_memory_and_what_is_said_of_it(lines, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(lines, out) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 20 rows of 128 (text in mini-clip, float16).\n"
    assert said.err == "embedding 20 items ...\n"
    assert call(lines, out) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 20 rows of 128 (text in mini-clip, float16).\n"
    assert said.err == ""
    expected = cmcr.space("mini-clip").encode([f"number {n}" for n in range(20)], "text")
    np.testing.assert_allclose(cmcr.Memory(out)[:], expected, rtol=0, atol=5e-4)


def test_options_reach_the_run(lines, tmp_path, capsys):
    out = tmp_path / "out"
    options = [
        "--batch-size",
        "3",
        "--dtype",
        "float32",
        "--shard-items",
        "8",
        "--max-failures",
        "5%",
        "--device",
        "cpu",
    ]
    assert call(lines, out, *options) == 0
    memory = cmcr.Memory(out)
    assert memory.dtype == "float32"
    assert [shard.rows for shard in memory.contents[0].shards] == [8, 8, 4]


def test_tables(tmp_path, capsys):
    table = tmp_path / "in.csv"
    table.write_text("name,caption\nn1,one\nn2,two\n")
    assert call(table, tmp_path / "out", "--column", "caption", "--id-column", "name") == 0
    assert cmcr.Memory(tmp_path / "out").ids == ["n1", "n2"]
    capsys.readouterr()
    assert call(table, tmp_path / "other", "--column", "captions") == 2
    assert "unknown column 'captions'. Did you mean 'caption'?" in capsys.readouterr().err


def test_events_are_lines_of_json(lines, tmp_path, capsys):
    assert call(lines, tmp_path / "out", "--json", "--shard-items", "12") == 0
    said = capsys.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == [
        {"event": "started", "items": 20, "done": 0, "shards": 2},
        {"event": "shard", "shard": "shard-00000", "rows": 12, "quarantined": 0},
        {"event": "shard", "shard": "shard-00001", "rows": 8, "quarantined": 0},
        {"event": "finished", "rows": 20, "quarantined": 0},
    ]
    assert said.err == ""


def test_quarantine_and_its_mending(lines, tmp_path, capsys):
    out = tmp_path / "out"
    lines.write_text("one\n\ntwo\n")
    assert call(lines, out) == 0
    said = capsys.readouterr().out
    assert "2 rows of 128" in said
    assert f"1 item(s) could not be embedded: {out}/*.quarantine.jsonl says why. Mend them" in said
    lines.write_text("one\nfive\ntwo\n")
    assert call(lines, out, "--retry-quarantined") == 0
    said = capsys.readouterr().out
    assert "3 rows of 128" in said
    assert "could not be embedded" not in said
    more = tmp_path / "more.txt"
    more.write_text("six\n")
    assert call(more, out, "--append", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "event": "finished",
        "rows": 4,
        "quarantined": 0,
        "new": 1,
    }
    assert cmcr.Memory(out).ids == ["in.txt:1", "in.txt:2", "in.txt:3", "more.txt:1"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"space": "mini-clop"}, 2, "unknown space 'mini-clop'. Did you mean 'mini-clip'?"),
        ({"space": "ulip"}, 2, "space 'ulip' needs model=..."),
        ({"modality": "txt"}, 2, "unknown modality of mini-clip 'txt'. Did you mean 'text'?"),
        ({"lines": "in.tx"}, 2, "no such file or folder"),
        ({"more": ["--max-failures", "some"]}, 2, "--max-failures: expected a number or a share, such as 100 or 5%"),
        ({"more": ["--max-failures", "150%"]}, 2, "expected a number of items or a share below 1"),
        ({"more": ["--batch-size", "0"]}, 2, "batch_size: expected a whole number of at least 1, got 0"),
        ({"more": ["--batch-size", "x"]}, 2, "--batch-size"),
        ({"more": ["--dtype", "int8"]}, 2, "dtype: expected float16, bfloat16, float32, got 'int8'"),
        ({"more": ["--append"]}, 2, "there is no finished memory to append to. Leave --append out."),
        ({"more": ["--append", "--retry-quarantined"]}, 2, "are two things: run one after the other"),
        ({"more": ["--retry-quarantined"]}, 1, "there is no memory here to be completed"),
        ({"more": ["--modell", "x"]}, 2, "--modell"),
        ({"more": ["--model", "x"]}, 2, "unknown option of space 'mini-clip' 'model'"),
        ({"more": ["--no-append"]}, 2, "--no-append"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_calls(lines, tmp_path, monkeypatch, capsys, change, code, message, as_json):
    monkeypatch.chdir(tmp_path)
    change = {"lines": "in.txt", "more": [], **change}
    more = [*change.pop("more"), *(["--json"] if as_json else [])]
    assert call(change.pop("lines"), "out", *more, **change) == code
    said = capsys.readouterr()
    told = json.loads(said.err)["message"] if as_json else said.err
    assert message in told
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_device_that_is_not_there(lines, tmp_path, capsys):
    assert call(lines, tmp_path / "out", "--device", "tpu") == 2
    assert "tpu" in capsys.readouterr().err


def test_out_has_to_be_said(lines, capsys):
    assert main(["embed", "mini-clip", "text", str(lines)]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize(("allowed", "code"), [("2", 0), ("1", 1), ("0", 1), ("0%", 1), ("0.5", 0), ("50%", 0)])
def test_limits_of_failures(tmp_path, capsys, allowed, code):
    (tmp_path / "in.txt").write_text("one\n\ntwo\n\n")
    assert call(tmp_path / "in.txt", tmp_path / "out", "--max-failures", allowed) == code
    if code:
        assert "2 of 4 items failed, more than the" in capsys.readouterr().err


def test_failures_of_the_run(lines, tmp_path, capsys):
    assert call(lines, tmp_path / "out") == 0
    lines.write_text("one\n")
    assert call(lines, tmp_path / "out") == 1
    assert "made with something else: number of items was 20, now 1" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").write_bytes(b"")
    assert call(lines, tmp_path / "full") == 1
    assert "holds other things (a.png, ...)" in capsys.readouterr().err


def test_stopped_by_a_signal_it_says_how_to_go_on(lines, tmp_path, capsys, monkeypatch):
    real = embed_module.shard_facts

    def stop(shard):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(shard)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(embed_module, "shard_facts", stop)
        assert call(lines, tmp_path / "out", "--json", "--shard-items", "10") == 130
    assert signal.getsignal(signal.SIGTERM) is before
    said = json.loads(capsys.readouterr().err)
    assert said["error"] == "interrupted"
    assert "finished shards are safe in" in said["message"]
    assert call(lines, tmp_path / "out", "--shard-items", "10") == 0
    assert capsys.readouterr().err == "embedding 20 items, 10 of them done earlier ...\n"


def test_a_bar_where_a_person_looks(lines, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    assert call(lines, tmp_path / "out") == 0
    assert "20/20" in capsys.readouterr().err


def test_as_a_program(lines, tmp_path):
    command = [sys.executable, "-m", "cmcr", "embed", "mini-clip", "text", "in.txt", "--out", "out", "--json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout.splitlines()[-1]) == {"event": "finished", "rows": 20, "quarantined": 0}
    assert run.stderr == ""


def test_files_of_other_endings_are_passed_over_and_said(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.txt", "notes.md", "list.json", "more.json"):
        (tmp_path / "in" / name).write_text("seven", encoding="utf-8")
    arguments = ["embed", "mini-clip", "text", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "passed over, by their endings: .json (2), .md (1)" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(lines, tmp_path, capsys):
    assert call(lines, tmp_path / "out", "--device", "gpu") == 2
    said = capsys.readouterr().err
    assert said == "cmcr: unknown device 'gpu': expected 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.\n"
    assert not (tmp_path / "out").exists()


def test_an_append_says_how_many_rows_are_new(lines, tmp_path, capsys):
    assert call(lines, tmp_path / "out") == 0
    lines.write_text(lines.read_text() + "number 20\nnumber 21\n")
    capsys.readouterr()
    assert call(lines, tmp_path / "out", "--append") == 0
    assert capsys.readouterr().err == "embedding 2 items ...\n2 new row(s).\n"
    assert call(lines, tmp_path / "out", "--append", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"event": "finished", "rows": 22, "quarantined": 0, "new": 0}
