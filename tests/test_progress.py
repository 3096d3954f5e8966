"""Progress: bars where a person looks, lines with the time left elsewhere, nothing where nobody asked."""

import re
import sys

import numpy as np

import cmcr
from cmcr import progress
from cmcr.progress import stages


def in_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def connected(**options):
    rng = np.random.default_rng(0)
    left = cmcr.Memories("clip", text=rng.normal(size=(40, 6)), image=rng.normal(size=(9, 6)))
    right = cmcr.Memories("clap", text=rng.normal(size=(40, 4)), audio=rng.normal(size=(8, 4)))
    return cmcr.connect(left, right, method="c-mcr", epochs=1, device="cpu", **options)


def test_connecting_shows_a_bar_in_a_terminal_alone(capsys, monkeypatch):
    in_a_terminal(monkeypatch)
    connected()
    assert "training" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    for options in ({"show_progress_bar": False}, {"progress": lambda stage, share: None}):
        connected(**options)
        assert capsys.readouterr().err == ""


def test_connecting_is_silent_where_nobody_looks(capsys):
    connected()
    assert capsys.readouterr().err == ""
    connected(show_progress_bar=True)
    assert "training ...\n" in capsys.readouterr().err


def test_lines_tell_how_long_it_took_and_what_is_left(monkeypatch, capsys):
    clock = iter([100.0, 110.0, 140.0, 145.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with stages(True) as show:
        for share in (0.2, 0.3, 0.6, 0.65):  # a fifth was finished earlier: 0.4 of it in 40 s
            show("embedding", share)
    assert capsys.readouterr().err.splitlines() == ["embedding ...", "embedding: 60 % in 0:00:40, 0:00:40 left"]
