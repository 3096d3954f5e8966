"""Where a connection cannot be written is told before any work, by the plan and by connecting alike."""

import os

import numpy as np
import pytest

import cmcr
from cmcr.connection.checkpoint import unfinished
from cmcr.errors import WriteError
from cmcr.recipes.target import LONGEST_NAME, check_place, in_the_way


def within_a_memory(home):
    cmcr.write_memory(home / "memory", np.eye(3), space="clip", modality="text")
    return home / "memory" / "inner" / "out"


def within_a_memory_that_is_being_written(home):
    (home / "memory" / ".run").mkdir(parents=True)
    (home / "memory" / ".run" / "plan.json").touch()
    return home / "memory" / "out"


def below_a_file(home):
    (home / "file.py").touch()
    return home / "file.py" / "x" / "out"


def below_a_broken_link(home):
    (home / "link").symlink_to(home / "gone")
    return home / "link" / "out"


def beside_a_broken_link(home):
    unfinished(home / "out").symlink_to(home / "gone")
    return home / "out"


def something_else(home):
    (home / "out").write_text("a letter")
    return home / "out"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (within_a_memory, "which is a cmcr memory. Choose a path outside."),
        (within_a_memory_that_is_being_written, "which is a cmcr memory"),
        (below_a_file, "is there and is no folder"),
        (below_a_broken_link, "is there and is no folder"),
        (beside_a_broken_link, "a link that leads nowhere is here. Remove it."),
        (something_else, "something that is not a cmcr connection is there already"),
        (lambda home: home / ("n" * (LONGEST_NAME + 1)), "its name is longer than 200 bytes"),
        (lambda home: home / ("\u00e4" * 101), "its name is longer than 200 bytes"),
    ],
)
def test_refused(place, said, tmp_path):
    out = place(tmp_path)
    (problem,) = in_the_way(out)
    assert said in problem
    with pytest.raises(WriteError):
        check_place(out)


def test_where_nothing_may_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path)
    (problem,) = in_the_way(tmp_path / "new" / "out")
    assert problem == f"{tmp_path}: nothing can be written here (no permission, or a read-only disk)."
    unfinished(tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != unfinished(tmp_path / "out"))
    assert str(unfinished(tmp_path / "out")) in in_the_way(tmp_path / "out")[0]


def test_where_nobody_may_look(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os.path, "lexists", refuse)
    assert in_the_way(tmp_path / "out") == [f"{tmp_path / 'out'}: could not look there (Permission denied)."]


@pytest.mark.parametrize("name", ["out", "new/folder/out", "n" * LONGEST_NAME, "."])
def test_allowed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert in_the_way(tmp_path / name) == []


def test_the_longest_name_can_be_saved(tmp_path):
    text, image, audio = (np.random.default_rng(seed).normal(size=(8, 4)) for seed in range(3))
    left, right = cmcr.Memories("clip", text=text, image=image), cmcr.Memories("clap", text=text, audio=audio)
    out = tmp_path / ("n" * LONGEST_NAME)
    cmcr.connect(left, right, epochs=1, device="cpu", checkpoint=unfinished(out)).save(out)
    assert cmcr.load(out).overlap_rows == 8
