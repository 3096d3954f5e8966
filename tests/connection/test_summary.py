"""A connection in a line: its figures are those of numpy, and what was fitted on is never called held out."""

import numpy as np
import pytest

import cmcr
from cmcr.connection.methods import auto, residual
from cmcr.connection.methods.evidence import HELD_OUT
from cmcr.connection.summary import in_short
from connection.methods.worlds import world


def recall(left, right):
    hits = left @ right.T
    own = np.arange(len(left))
    return 50 * ((hits.argmax(axis=1) == own).mean() + (hits.argmax(axis=0) == own).mean())


@pytest.fixture(scope="module")
def spaces():
    return world("continuous")[:2]


@pytest.fixture(scope="module")
def ridge(spaces):
    return cmcr.connect(*spaces, method="ridge", device="cpu")


def test_figures_of_what_it_was_fitted_on(spaces, ridge):
    (found,) = ridge.report["in_short"]
    closed = cmcr.connect(*spaces, method="cca", device="cpu")
    texts = [space.rows["text"].numpy() for space in spaces]
    for connection, key in ((ridge, "recall"), (closed, "recall_cca")):
        rows = [connection.common(each, space.space) for each, space in zip(texts, spaces, strict=True)]
        assert found[key] == pytest.approx(recall(*rows), abs=0.3)
    for space, outer in zip(spaces, ("image", "audio"), strict=True):
        rows = [space.rows[modality].numpy() for modality in ("text", outer)]
        common = [ridge.common(each, space.space) for each in rows]
        for pair, gap in zip((rows, common), found["gaps"][space.space], strict=True):
            assert gap == pytest.approx(np.linalg.norm(pair[0].mean(axis=0) - pair[1].mean(axis=0)), abs=1e-3)
    (line,) = in_short(ridge)
    assert "R@1 of 400 items that it was fitted on: ridge" in line
    assert "cca" not in in_short(closed)[0].replace("cca", "", 1)  # not beside itself


def test_auto_tells_what_it_held_out(spaces, monkeypatch):
    quick = auto.TRAINED._replace(settings=residual.ResidualSettings(epochs=1))
    monkeypatch.setattr(auto, "CANDIDATES", (*auto.CANDIDATES[:3], quick))
    connection = cmcr.connect(*spaces, device="cpu")
    (found,), choice = connection.report["in_short"], connection.report["choice"]
    assert (found["items"], found["held_out"], found["by"]) == (HELD_OUT * 400, True, choice["by"])
    assert found["recall"] == choice["candidates"][choice["by"]]["overlap"]
    assert "of 80 held-out items" in in_short(connection)[0]
    again = cmcr.connect(*spaces, device="cpu", choice={"chosen": "cca", "by": "cca", "candidates": {}})
    assert "held-out" not in in_short(again)[0]  # a choice that says nothing of it


def test_it_is_shown_where_a_bar_is_and_kept(spaces, ridge, capsys, tmp_path):
    assert capsys.readouterr().err == ""
    cmcr.connect(*spaces, method="ridge", device="cpu", show_progress_bar=True)
    assert in_short(ridge)[0] in capsys.readouterr().err
    ridge.save(tmp_path / "saved")
    assert in_short(cmcr.load(tmp_path / "saved")) == in_short(ridge)
