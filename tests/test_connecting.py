"""`connect_on_disk`: stopped at any moment and called again, it gives the connection of a run that nobody stopped."""

import json
import os
import shutil
import signal
import warnings

import numpy as np
import pytest
import torch

import cmcr
from cmcr import artefacts, connecting
from cmcr.connecting import connect_on_disk
from cmcr.connection.methods import auto, residual
from cmcr.errors import (
    FormatError,
    IntegrityError,
    LockedError,
    PoorInputWarning,
    ResumeError,
    TrainingError,
    WriteError,
)
from cmcr.files import locked
from engine.rows import random_rows
from memories.moments import Moments

SETTINGS = {"method": "c-mcr", "epochs": 2, "batch_size": 10, "hidden": (5,), "device": "cpu"}
SHAPES = {"clip-text": (30, 4, 1), "clip-image": (25, 4, 2), "clap-text": (30, 6, 3), "clap-audio": (20, 6, 4)}


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    """Four memories; the texts of the second space are in another order."""
    home = tmp_path_factory.mktemp("memories")
    written = []
    for name, (rows, width, seed) in SHAPES.items():
        space, modality = name.split("-")
        step = 7 if space == "clap" else 1
        ids = [f"item-{step * row % rows}" for row in range(rows)]
        made = random_rows(rows, width, seed).numpy().astype(np.float32)
        written.append(cmcr.write_memory(home / name, made, ids, space=space, modality=modality, dtype="float32"))
    return written


@pytest.fixture
def out(tmp_path):
    return tmp_path / "home" / "connection"


@pytest.fixture
def often(monkeypatch):
    """The state of the training is kept after every step."""
    monkeypatch.setattr(connecting, "SECONDS_BETWEEN", 0.0)


def connected(memories, out, **changes):
    settings = {"device": "cpu"} if changes.get("method") == "auto" else SETTINGS
    return connect_on_disk(*memories, out=out, **{**settings, **changes})


def same(one, other):
    states = [[p.state_dict() for p in each.projectors.values()] for each in (one, other)]
    return all(torch.equal(a[key], b[key]) for a, b in zip(*states, strict=True) for key in a)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def work_of(out):
    return out.with_name("connection.unfinished")


@pytest.fixture(scope="module")
def expected(memories, tmp_path_factory):
    """The files of a connection that was made without being stopped, by the settings that differ."""
    made = {}

    def files(**changes):
        key = json.dumps(changes)
        if key not in made:
            folder = tmp_path_factory.mktemp("whole") / "connection"
            connected(memories, folder, **changes)
            made[key] = files_of(folder)
        return made[key]

    return files


def test_it_is_the_connection_that_connect_makes_and_nothing_else_is_left(memories, out):
    reported = []
    made = connected(memories, out, progress=lambda stage, done: reported.append((stage, done)))
    plain, loaded = cmcr.connect(*memories, **SETTINGS), cmcr.load(out)
    assert same(made, plain)
    assert same(made, loaded)
    assert loaded.overlap_rows == 30
    assert [path.name for path in out.parent.iterdir()] == ["connection"]
    assert reported[-1] == ("training", 1.0)
    assert {stage for stage, _ in reported} == {"checking the memories", "semantic consistency", "training"}


def test_consistent_rows_that_are_no_unit_rows_stay_so(memories, out):
    how = {"normalize_consistency": False, "epochs": 1}
    assert same(connected(memories, out, **how), cmcr.connect(*memories, **{**SETTINGS, **how}))


@pytest.mark.parametrize("spaces", [2, 3])
def test_what_is_not_resumed_is_connected_and_saved_at_once(memories, out, tmp_path, spaces):
    given = list(memories)
    for modality, rows, seed in (("image", 25, 5), ("point_cloud", 15, 6))[: 2 * (spaces - 2)]:
        made, ids = random_rows(rows, 5, seed).numpy().astype(np.float32), [f"item-{row}" for row in range(rows)]
        given.append(cmcr.write_memory(tmp_path / modality, made, ids, space="ulip", modality=modality))
    made = connect_on_disk(*given, out=out, method="ridge", device="cpu")
    assert (len(made.spaces), made.overlap) == (spaces, "text" if spaces == 2 else "text, image")
    rows = random_rows(3, 6, 9).numpy()
    assert np.array_equal(cmcr.load(out).project(rows, "clap"), made.project(rows, "clap"))
    assert [path.name for path in out.parent.iterdir()] == ["connection"]
    with pytest.raises(WriteError, match="replace"):
        connect_on_disk(*given, out=out, method="ridge", device="cpu")


# ------------------------------------------------------------------------------------------------------------- stopped


class DiedError(BaseException):
    """What nothing on the way handles, as nothing handles a kill."""


class Death(Moments):
    """From the fatal moment on, nothing that this process does reaches the disk."""

    def reach(self, label, creates, half=None):
        self.labels.append(label)
        if self.fatal is not None and len(self.labels) >= self.fatal:
            if half is not None and len(self.labels) == self.fatal:
                half()
            raise DiedError


def dies_at(moment, memories, out, **changes):
    """Whether a run dies at a moment, or is finished before (the moments of memories have tests of their own)."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "open", "mkdir", "rename", "replace", "unlink", "remove", "rmdir"):
            patch.setattr(os, name, getattr(os, name))  # is put back
        patch.setattr("io.open", open)
        Death(out.parent, moment).install()
        try:
            connected(memories, out, **changes)
        except DiedError:
            return True
    return False


@pytest.mark.parametrize(
    ("changes", "first", "stride"),
    [({"semantic_consistency": False, "epochs": 1, "batch_size": 15}, 1, 2), ({"epochs": 1}, 2, 11)],
)
def test_killed_at_any_moment_and_called_again(memories, out, often, expected, changes, first, stride):
    moment = first
    while dies_at(moment, memories, out, **changes):
        if out.exists():  # after the rename it is whole
            cmcr.load(out)
            connected(memories, out, replace=True, **changes)
        else:
            connected(memories, out, **changes)
        assert files_of(out) == expected(**changes), moment
        assert not work_of(out).exists()
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
        moment += stride
    assert moment > 50


@pytest.mark.parametrize(
    ("number", "method"), [(signal.SIGINT, "c-mcr"), (signal.SIGTERM, "c-mcr"), (signal.SIGINT, "c-mcr-residual")]
)
def test_a_signal_keeps_every_step_and_rows_are_not_computed_again(memories, out, expected, number, method):
    def press(stage, done):
        if stage == "training" and done < 1:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        connected(memories, out, method=method, epochs=9, progress=press)  # 27 steps, reported after 20
    (state,) = (work_of(out) / "training").glob("*.safetensors")
    assert state.name == "step-000000020.safetensors"
    rows = {path: path.stat().st_mtime_ns for path in work_of(out).glob("*-consistent/*")}
    told = []

    def look(stage, done):
        if stage == "training":
            told.append(done)
            assert rows == {path: path.stat().st_mtime_ns for path in work_of(out).glob("*-consistent/*")}

    connected(memories, out, method=method, epochs=9, progress=look)
    assert (len(rows) > 4, told) == (True, [1.0])
    assert files_of(out) == expected(method=method, epochs=9)


@pytest.fixture
def chosen(monkeypatch):
    """The choice is of a short training; every time that it is made, it is noted."""
    settings, made = residual.ResidualSettings(epochs=1, batch_size=15), []
    monkeypatch.setattr(auto, "CANDIDATES", (auto.TRAINED._replace(settings=settings),))

    def choose(left, right, settings, run):
        if run.choice is None:
            made.append(run.seed)
        return dict(run.choice or {"chosen": "c-mcr-residual", "candidates": {"cca": {"worth": 1.0}}})

    for module in (auto, connecting):
        monkeypatch.setattr(module, "choose", choose)
    return made


def test_a_choice_and_what_was_chosen_survive_a_kill(memories, out, often, chosen):
    plain = cmcr.connect(*memories, method="auto", device="cpu")
    connected(memories, out.with_name("whole"), method="auto")
    expected, moment = files_of(out.with_name("whole")), 1
    assert json.loads(expected["config.json"])["report"] == plain.report
    assert same(cmcr.load(out.with_name("whole")), plain)
    while dies_at(moment, memories, out, method="auto"):
        kept = (work_of(out) / "choice" / "config.json").exists()
        chosen.clear()
        connected(memories, out, method="auto", replace=True)
        assert files_of(out) == expected, moment
        assert chosen == [0] * (not kept)
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
        moment += 17
    assert moment > 50


def test_a_choice_for_something_else_is_refused_unless_it_is_to_restart(memories, out, often, chosen):
    def stop(stage, done):
        if stage != "checking the memories":
            raise DiedError

    with pytest.raises(DiedError):
        connected(memories, out, method="auto", progress=stop)
    with pytest.raises(ResumeError, match="seed was 0, now 1"):
        connected(memories, out, method="auto", seed=1)
    connected(memories, out, method="auto", seed=1, restart=True)
    assert (chosen, cmcr.load(out).seed) == ([0, 1], 1)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_damaged_memory_is_found_before_anything_is_computed(memories, out, tmp_path):
    shutil.copytree(memories[1].folders[0], tmp_path / "damaged")
    (shard,) = (tmp_path / "damaged").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    given = [memories[0], cmcr.Memory(tmp_path / "damaged"), *memories[2:]]
    for call in (lambda: connected(given, out), lambda: cmcr.connect(*given, **SETTINGS)):
        with pytest.raises(IntegrityError, match=r"damaged: 1 of 2 files .*\n  shard-00000\.safetensors"):
            call()
    assert not out.exists()


def test_poor_rows_are_told_once_and_before_consistent_rows_are_computed(memories, out, monkeypatch):
    real, told = connecting._consistent_memories, []
    monkeypatch.setattr(connecting, "_consistent_memories", lambda *given: told.append(len(heard)) or real(*given))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        connected(memories, out)
    poor = [each for each in heard if each.category is PoorInputWarning]
    assert poor
    assert told == [len(heard)]


@pytest.fixture
def stopped(memories, out, often):
    """The folder of the work of a run that was stopped in its sixth and last step, of which nothing is kept."""

    def stop(stage, done):
        if stage == "training":
            raise DiedError

    with pytest.raises(DiedError):
        connected(memories, out, progress=stop)
    return work_of(out)


def test_what_was_stopped_is_described(memories, out, stopped):
    for path in (out, stopped):
        facts = artefacts.describe(path)
        assert (facts["kind"], facts["finished"], facts["being_written"]) == ("connection", False, False)
        assert (facts["consistent rows, left"], facts["consistent rows, right"]) == ("30 rows", "30 rows")
        assert facts["training"] == artefacts.describe(stopped / "training")
        assert (facts["training"]["step"], facts["training"]["epochs"]) == (5, 2)
        assert "cmcr connect" in facts["to_resume"]
    assert artefacts.describe(stopped / "left-consistent")["kind"] == "memory"
    with locked(stopped / ".lock", ""):
        assert artefacts.describe(out)["being_written"]


@pytest.mark.parametrize("changes", [{"epochs": 4}, {"seed": 5}, {"method": "ex-mcr"}, {"batch_norm": "apart"}])
def test_another_training_is_refused_unless_it_is_to_restart(memories, out, stopped, expected, changes):
    before = files_of(stopped / "training")
    with pytest.raises(ResumeError, match=f"{next(iter(changes))} was"):
        connected(memories, out, **changes)
    assert files_of(stopped / "training") == before
    connected(memories, out, restart=True, **changes)
    assert files_of(out) == expected(**changes)


def test_other_rows_are_refused_unless_it_is_to_restart(memories, out, stopped, tmp_path):
    rows = memories[1][:]
    rows[3] = -rows[3]
    other = cmcr.write_memory(
        tmp_path / "other", rows, list(memories[1].ids), space="clip", modality="image", dtype="float32"
    )
    with pytest.raises(ResumeError, match="--restart"):
        connected([memories[0], other, *memories[2:]], out)
    with pytest.raises(ResumeError, match=r"image \(left\) was"):  # which says where the centring lies
        connected([memories[0], other, *memories[2:]], out, semantic_consistency=False)
    with pytest.raises(ResumeError, match=r"temperature was 0\.01, now 0\.1"):
        connected(memories, out, consistency_temperature=0.1)
    connected(memories, out, restart=True, consistency_temperature=0.1)
    assert cmcr.load(out).settings.consistency_temperature == 0.1


@pytest.mark.parametrize("file", ["config.json", "*.safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:], lambda b: b[:40]])
def test_a_damaged_state_is_found_and_dropped_on_request(memories, out, stopped, expected, file, damage):
    (path,) = (stopped / "training").glob(file)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((IntegrityError, FormatError)):
        connected(memories, out)
    connected(memories, out, restart=True)
    assert files_of(out) == expected()


def test_a_training_that_diverged_leaves_no_state(memories, out):
    with pytest.raises(TrainingError):
        connected(memories, out, ttc_temperature=1e-40)
    assert not (work_of(out) / "training").exists()
    connected(memories, out)


def test_two_at_once_and_strangers_folders_are_refused(memories, out):
    work_of(out).mkdir(parents=True)
    with locked(work_of(out) / ".lock", "mine"), pytest.raises(LockedError, match="another run"):
        connected(memories, out)
    (work_of(out) / ".lock").unlink(missing_ok=True)
    (work_of(out) / "mine.txt").write_text("mine")
    with pytest.raises(FormatError, match="holds other things"):
        connected(memories, out)
    assert [path.name for path in work_of(out).iterdir()] == ["mine.txt"]


def test_a_finished_connection_is_replaced_only_on_request_and_before_any_work(memories, out):
    connected(memories, out)
    reported = []
    with pytest.raises(WriteError, match="is there already"):
        connected(memories, out, epochs=1, progress=lambda *given: reported.append(given))
    assert reported == []
    connected(memories, out, epochs=1, replace=True)
    assert cmcr.load(out).settings.epochs == 1


def test_a_full_disk_keeps_what_is_finished(memories, out, often, monkeypatch, expected):
    with monkeypatch.context() as patch:
        patch.setattr(
            connecting, "write_bytes_whole", lambda *given: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(WriteError, match="No space left"):
            connected(memories, out)
    assert len(list(work_of(out).glob("*-consistent"))) == 2
    connected(memories, out)
    assert files_of(out) == expected()
