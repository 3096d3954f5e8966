"""Names that mean harm are text: no verb passes control characters on to the terminal, or takes names for markup."""

import ast
from pathlib import Path

import numpy as np
import pytest

import cmcr
from cmcr.cli import main
from cmcr.terminal import plain, plain_lines

NAMES = [
    "\x1b]0;owned\a\x1b[31mred.txt",
    "one\ncmcr: two.txt",
    "[red]three[bold].txt",
    "\u202egpj.four.txt",
    "\x9bfive.txt",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Texts in files of such names, the last of them not UTF-8; a memory of them, a connection and an index."""
    home = tmp_path_factory.mktemp("home")
    (home / "texts").mkdir()
    for number, name in enumerate(NAMES):
        (home / "texts" / name).write_bytes(b"forty" if number < 4 else b"\xff")
    rng = np.random.default_rng(0)
    clip = cmcr.Memories(cmcr.space("mini-clip"), text=rng.normal(size=(60, 128)), image=rng.normal(size=(60, 128)))
    clap = cmcr.Memories(cmcr.space("mini-clap"), text=rng.normal(size=(60, 96)), audio=rng.normal(size=(60, 96)))
    cmcr.connect(clip, clap, method="ridge").save(home / "connection[b]\x1b[1m")
    assert main(["embed", "mini-clip", "text", str(home / "texts"), "--out", str(home / "memory\x1b[2J")]) == 0
    return home


@pytest.fixture
def said(world, capsys, monkeypatch):
    """Run a verb, and give what a terminal would get of it."""
    monkeypatch.chdir(world)
    capsys.readouterr()

    def run(code, *words):
        assert main(list(words)) == code
        shown = "".join(capsys.readouterr())
        assert all(each.isprintable() or each == "\n" for each in shown), ascii(shown)
        assert "\ncmcr: two" not in shown
        return shown

    return run


def test_embed(said):
    again = ("embed", "mini-clip", "text", "texts", "--out")
    assert "1 item(s) are in quarantine" in said(0, *again, "memory\x1b[2J")
    assert "�five.txt: " in said(1, *again, "other[red]", "--max-failures", "0")


def test_info_and_verify(said, world):
    assert "not UTF-N" in said(0, "info", "memory\x1b[2J")
    assert "connection[b]" in said(0, "info", "connection[b]\x1b[1m")
    assert "whole" in said(0, "verify", "memory\x1b[2J")
    assert "[bold]" in said(1, "verify", f"texts/{NAMES[2]}")
    (lines,) = (world / "memory\x1b[2J").glob("*.items.jsonl")
    content = lines.read_bytes()
    lines.write_bytes(content[:-1] + b" ")
    assert "1 of 3 files are damaged" in said(1, "verify", "memory\x1b[2J")
    lines.write_bytes(content)


def test_index_and_search(said):
    said(0, "index", "connection[b]\x1b[1m", "texts", "--modality", "text", "--out", "index\x1b[5m")
    found = said(0, "search", "index\x1b[5m", "--text", "forty", "--targets", "text")
    assert "[red]three[bold].txt" in found
    assert "one cmcr: two.txt" in found


def test_evaluate(said, world):
    (world / "pairs.csv").write_text('audio,image\nc.wav,"a\x1b[31m[red].png"\n')
    assert "[red]" in said(2, "evaluate", "connection[b]\x1b[1m", "--pairs", "pairs.csv")
    run = ("evaluate", "connection[b]\x1b[1m", "retention/mini-image-text", "--limit", "8")
    assert "connection[b]" in said(0, *run, "--against", "connection[b]\x1b[1m")


def test_plain_text():
    assert plain("a\x1b]0;x\a\r\nb\tc\u202ed\udce9 ü 漢 [b]") == "a�]0;x�  b c�d� ü 漢 [b]"
    assert plain_lines("a\n  b\nc\x1b") == "a\n  b\n  c�"


def test_only_the_console_prints():
    for path in Path(main.__code__.co_filename).parent.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            if isinstance(call.func, ast.Name) and call.func.id == "print" and path.name != "console.py":
                assert ast.unparse(call.args[0]).startswith("json.dumps("), f"{path}: use say"
