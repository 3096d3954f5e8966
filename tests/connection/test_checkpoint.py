import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import cmcr
from cmcr.connection import checkpoint as checkpoint_module
from cmcr.connection import consistency, training
from cmcr.connection.checkpoint import (
    LOCK,
    Checkpoint,
    digest_of,
    forget_training,
    open_checkpoint,
    remove_checkpoint,
    unfinished,
)
from cmcr.connection.connect import connect
from cmcr.connection.consistency import SoftmaxMean
from cmcr.connection.peers import Peers
from cmcr.connection.softmax_mean import Tiling
from cmcr.errors import FormatError, IntegrityError, LockedError, ResumeError, TrainingError, WriteError

ROWS, TRAINING = {"embeddings": "a" * 64, "device": "cpu"}, {"epochs": 3, "seed": 0}


def unit(rows, width, seed):
    made = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def memories(seed=0):
    a = cmcr.Memories("a", text=unit(90, 6, seed), image=unit(110, 6, seed + 1))
    return a, cmcr.Memories("b", text=unit(90, 4, seed + 2), audio=unit(70, 4, seed + 3))


def connected(folder=None, given=None, **changes):
    options = {"epochs": 3, "batch_size": 10, "device": "cpu", "method": "c-mcr"} | changes
    return connect(*(given or memories()), checkpoint=folder, **options)


def weights(connection):
    return {
        f"{space}.{name}": value
        for space, projector in connection.projectors.items()
        for name, value in projector.state_dict().items()
    }


def assert_same(one, other):
    assert weights(one).keys() == weights(other).keys()
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name
    assert one.history == other.history


class Killed(BaseException):
    """What nothing on the way handles, as a kill is handled by nothing."""


@pytest.fixture
def often(monkeypatch):
    """The state is written after every step."""
    monkeypatch.setattr(checkpoint_module, "SECONDS_BETWEEN", 0.0)


@pytest.fixture
def killed_at(monkeypatch):
    """Arrange for the death at the n-th call of a function."""

    def arrange(module, name, number):
        original, calls = getattr(module, name), []

        def dying(*given, **named):
            calls.append(name)
            if len(calls) == number:
                raise Killed
            return original(*given, **named)

        monkeypatch.setattr(module, name, dying)

    return arrange


def stopped(tmp_path, killed_at, monkeypatch, step=12, **changes):
    """A run that died at a step."""
    with monkeypatch.context() as patch:
        loss, calls = training._loss, []

        def dying(*given):
            calls.append(given)
            if len(calls) == step:
                raise Killed
            return loss(*given)

        patch.setattr(training, "_loss", dying)
        with pytest.raises(Killed):
            connected(tmp_path / "kept", **changes)
    return tmp_path / "kept"


# ------------------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize(
    "settings", [{}, {"batch_norm": "apart", "semantic_consistency": False, "noise_variance": 0.0}]
)
@pytest.mark.parametrize("step", [1, 2, 9, 10, 27])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, often, killed_at, monkeypatch, step, settings):
    folder = stopped(tmp_path, killed_at, monkeypatch, step, **settings)
    told = []
    resumed = connected(folder, progress=lambda stage, share: told.append(share), **settings)
    assert_same(resumed, connected(**settings))
    assert told[-1] == 1.0


@pytest.mark.parametrize(
    ("module", "name", "number"),
    [
        (checkpoint_module, "write_manifest", 1),
        (checkpoint_module, "write_manifest", 2),
        (checkpoint_module, "write_manifest", 9),
        (checkpoint_module, "write_bytes_whole", 1),
        (checkpoint_module, "write_bytes_whole", 3),
        (checkpoint_module, "write_bytes_whole", 8),
        (SoftmaxMean, "_means", 2),
    ],
)
def test_death_while_something_is_written(tmp_path, often, killed_at, module, name, number, monkeypatch):
    with monkeypatch.context():
        killed_at(module, name, number)
        with pytest.raises(Killed):
            connected(tmp_path / "kept")
    monkeypatch.undo()
    assert_same(connected(tmp_path / "kept"), connected())


SCRIPT = """
import os, signal, sys
from cmcr.connection import checkpoint, training
from test_checkpoint import connected

checkpoint.SECONDS_BETWEEN = 0.0
module, name, number = {"loss": (training, "_loss", 7), "file": (checkpoint, "write_manifest", 4)}[sys.argv[2]]
original, calls = getattr(module, name), []
def dying(*given, **named):
    calls.append(1)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given, **named)
setattr(module, name, dying)
connected(sys.argv[1])
"""


def test_real_kills_one_after_another(tmp_path):
    source = str(Path(cmcr.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, source])}

    folder = str(tmp_path / "kept")
    for point in ("loss", "file"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, folder, point], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert_same(connected(folder), connected())


def test_ctrl_c_keeps_every_step(tmp_path, monkeypatch):
    loss, calls = training._loss, []

    def pressing(*given):
        calls.append(1)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return loss(*given)

    monkeypatch.setattr(training, "_loss", pressing)
    with pytest.raises(KeyboardInterrupt):
        connected(tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["step"] == 5  # the step was finished
    resumed = connected(tmp_path / "kept")
    assert len(calls) == 27
    assert_same(resumed, connected())


def test_counterparts_are_not_computed_twice(tmp_path, often, killed_at, monkeypatch):
    monkeypatch.setattr(consistency, "tiling_for", lambda *dtypes: Tiling(32, 32, torch.float32, torch.float32))
    folder = stopped(tmp_path, killed_at, monkeypatch)
    assert len(list(folder.glob("*-consistent-*"))) == 2 * 3
    expected = connected()
    monkeypatch.setattr(SoftmaxMean, "_means", None)
    assert_same(connected(folder), expected)


def test_at_most_one_state_is_kept(tmp_path, often, killed_at, monkeypatch):
    folder = stopped(tmp_path, killed_at, monkeypatch)
    assert [path.name for path in folder.glob("step-*")] == ["step-000000011.safetensors"]


def test_a_state_is_written_once_a_minute(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now[0])
    made = Checkpoint(tmp_path, Peers())
    assert not made.due
    now[0] += 59.9
    assert not made.due
    now[0] += 0.2
    assert made.due
    made.begin(ROWS, TRAINING)
    made.write(3, {"x": torch.ones(2)})
    assert not made.due


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    connected()
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 4}, "epochs was 3, now 4. Run it as it was begun; or train anew from the rows that are kept: "),
        ({"seed": 5}, "seed was 0, now 5. Run it as it was begun; or "),
        ({"hidden": (7,), "learning_rate": 0.1}, "hidden was none, now [7]; learning_rate was 0.001, now 0.1. Run"),
        (
            {"consistency_temperature": 0.5, "seed": 5},
            "consistency_temperature was 0.01, now 0.5. Run it as it was begun, remove this folder to begin",
        ),
    ],
)
def test_another_run_is_refused(tmp_path, often, killed_at, monkeypatch, changes, said):
    folder = stopped(tmp_path, killed_at, monkeypatch)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ResumeError) as caught:
        connected(folder, **changes)
    assert str(caught.value).startswith(f"{folder}: something else was begun here: ")
    assert said in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_embeddings_are_refused(tmp_path, often, killed_at, monkeypatch):
    folder = stopped(tmp_path, killed_at, monkeypatch)
    a, b = memories()
    changed = unit(110, 6, 1)
    changed[109, 5] += 1e-6
    other = cmcr.Memories("a", text=unit(90, 6, 0), image=changed)
    with pytest.raises(ResumeError, match=r"embeddings of image in a was [0-9a-f]{12}…, now [0-9a-f]{12}…\. Run"):
        connected(folder, (other, b))
    with pytest.raises(ResumeError, match="embeddings of text in a was"):
        connected(folder, memories(9))
    assert_same(connected(folder, (a, b)), connected())


def test_memories_in_another_order_are_refused(tmp_path, often, killed_at, monkeypatch):
    folder = stopped(tmp_path, killed_at, monkeypatch, step=1)  # rows are kept, and no state yet
    a, b = memories()
    with pytest.raises(ResumeError, match=r"order of the spaces was \['a', 'b'\], now \['b', 'a'\]\. Run it as"):
        connected(folder, (b, a))
    assert_same(connected(folder, (a, b)), connected())


def test_another_training_begins_from_the_rows_that_are_kept(tmp_path, often, killed_at, monkeypatch):
    expected = connected(seed=5)
    folder = stopped(tmp_path, killed_at, monkeypatch)
    forget_training(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "left-consistent-00000.safetensors",
        LOCK,
        "right-consistent-00000.safetensors",
    ]
    monkeypatch.setattr(SoftmaxMean, "_means", None)
    assert_same(connected(folder, seed=5), expected)
    forget_training(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_counterparts_of_the_caller_are_not_kept(tmp_path):
    given = {("a", 0.01, True, "float32"): torch.zeros(90, 6)}
    found = connect(*memories(), epochs=3, batch_size=10, device="cpu", counterparts=given, checkpoint=tmp_path / "c")
    assert_same(found, connected())
    assert torch.any(given["a", 0.01, True, "float32"] != 0)


def test_another_version_is_refused(tmp_path, often, killed_at, monkeypatch):
    folder = stopped(tmp_path, killed_at, monkeypatch)
    monkeypatch.setattr(torch, "__version__", "9.9")
    with pytest.raises(ResumeError, match=r"version of torch was \S+, now 9\.9\."):
        connected(folder)


def test_a_training_that_failed_leaves_the_counterparts_to_another(tmp_path, often, monkeypatch):
    with pytest.raises(TrainingError):
        connected(tmp_path / "kept", ttc_temperature=1e-40)
    expected = connected()
    monkeypatch.setattr(SoftmaxMean, "_means", None)
    assert_same(connected(tmp_path / "kept"), expected)


@pytest.mark.parametrize("file", ["step-000000011.safetensors", "config.json", "left-consistent-00000.safetensors"])
def test_a_flipped_byte_is_found(tmp_path, often, killed_at, monkeypatch, file):
    folder = stopped(tmp_path, killed_at, monkeypatch)
    content = bytearray((folder / file).read_bytes())
    content[-9] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises((IntegrityError, FormatError)) as caught:
        connected(folder)
    assert str(folder) in str(caught.value)
    assert advice_for(file) in str(caught.value)


def advice_for(file):
    if "consistent" in file:
        return "Restore it from a copy. Or remove this file alone, and its rows are computed again."
    return "Or train anew from the rows that are kept: `cmcr connect --anew`, in Python cmcr.forget_training with this folder."


@pytest.mark.parametrize("file", ["step-000000011.safetensors", "config.json", "left-consistent-00000.safetensors"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_what_is_advised_after_damage_costs_no_more_than_what_is_damaged(
    tmp_path, often, killed_at, monkeypatch, file, damage
):
    expected = connected()
    folder = stopped(tmp_path, killed_at, monkeypatch)
    content = (folder / file).read_bytes()
    changed = {"flipped": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "cut": content[:40], "missing": None}
    (folder / file).unlink()
    if changed[damage] is not None:
        (folder / file).write_bytes(changed[damage])
    computed, means = [], SoftmaxMean._means

    def counting(mean, *given):
        computed.append(1)
        return means(mean, *given)

    monkeypatch.setattr(SoftmaxMean, "_means", counting)
    if (file, damage) != ("left-consistent-00000.safetensors", "missing"):
        with pytest.raises((IntegrityError, FormatError)) as caught:
            connected(folder)
        assert advice_for(file) in str(caught.value)
    if "consistent" in file:
        (folder / file).unlink(missing_ok=True)
    else:
        forget_training(str(folder))
    assert_same(connected(folder), expected)
    assert len(computed) == ("consistent" in file)


def test_a_state_that_was_cut_short_is_found(tmp_path, often, killed_at, monkeypatch):
    folder = stopped(tmp_path, killed_at, monkeypatch)
    for path in (*folder.glob("step-*"), *folder.glob("left-*")):
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises((IntegrityError, FormatError), match=re.escape(advice_for(path.name))):
            connected(folder)


def test_two_at_once_are_refused(tmp_path):
    with (
        open_checkpoint(tmp_path / "kept", Peers()),
        pytest.raises(
            LockedError, match=r"another run is at work there\. Wait until it ends, or choose another --out \(in Python"
        ),
    ):
        connected(tmp_path / "kept")
    connected(tmp_path / "kept")


def test_other_things_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FormatError, match=r"expected a checkpoint, got other things \(mine\.txt, \.\.\.\)"):
        connected(tmp_path)
    with pytest.raises(FormatError, match=r"expected a folder for a checkpoint, there is a file\..* another --out"):
        connected(tmp_path / "mine.txt")
    (tmp_path / "nameless").mkdir()
    (tmp_path / "nameless" / "config.json").write_text("{}")
    with pytest.raises(FormatError, match=r"got a folder whose config\.json names no format\. Move it away, or choose"):
        connected(tmp_path / "nameless")
    remove_checkpoint(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "nameless"]


def test_a_full_disk_is_said(tmp_path, often, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_bytes_whole", full)
    with pytest.raises(
        WriteError,
        match=r"could not write \(No space left on device\); what was there before is whole\. Make room for \d,\d\d\d ",
    ):
        connected(tmp_path / "kept")
    kept = Checkpoint(tmp_path, Peers())
    with pytest.raises(WriteError, match=r"whole\. Make room for 4,\d\d\d bytes there, and the same command goes on"):
        kept.keep("rows", torch.ones(10, 100))


def test_a_name_that_is_too_long_is_said_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(SoftmaxMean, "_means", None)
    folder = unfinished(tmp_path / ("x" * 250))
    for call in (lambda: connected(folder), lambda: forget_training(folder)):
        with pytest.raises(WriteError, match=r"could not write \(File name too long\).*Choose a shorter --out"):
            call()


def test_a_command_that_was_wrong_does_not_stand_in_the_way(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SoftmaxMean, "_means", None)
        with pytest.raises(TypeError):
            connected(tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["config.json", LOCK]
    corrected = {"consistency_temperature": 0.5, "seed": 5, "given": memories(9)}
    assert_same(connected(tmp_path / "kept", **corrected), connected(**corrected))


# ------------------------------------------------------------------------------------------ rows without a manifest


def test_rows_without_their_manifest_are_taken_by_their_own_run_only(tmp_path, often, killed_at, monkeypatch):
    expected = connected()
    folder = stopped(tmp_path, killed_at, monkeypatch, step=1)
    (folder / "config.json").unlink()
    a, b = memories()
    wrong = [
        {"consistency_temperature": 0.5},
        {"given": (cmcr.Memories("a", text=unit(80, 6, 0), image=unit(110, 6, 1)), memories(9)[1])},
    ]
    wrong[1]["given"] = (wrong[1]["given"][0], cmcr.Memories("b", text=unit(80, 4, 2), audio=unit(70, 4, 3)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for changes in wrong:
        with pytest.raises(
            ResumeError, match=r"left-consistent-00000\.safetensors is of other memories or settings, and"
        ):
            connected(folder, **changes)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.setattr(SoftmaxMean, "_means", None)
    assert_same(connected(folder, (a, b)), expected)


def test_a_state_without_its_manifest_is_refused(tmp_path, often, killed_at, monkeypatch):
    folder = stopped(tmp_path, killed_at, monkeypatch)
    (folder / "config.json").unlink()
    (folder / LOCK).unlink()
    with pytest.raises(
        FormatError, match=r"config\.json is missing, so nobody can tell which training the state here is"
    ):
        connected(folder)
    forget_training(folder)
    assert not list(folder.glob("step-*"))
    assert_same(connected(folder, epochs=2), connected(epochs=2))


def test_rows_say_what_they_are_of_and_their_shape_is_checked(tmp_path):
    one, other = Checkpoint(tmp_path, Peers()), Checkpoint(tmp_path, Peers())
    one.begin(ROWS, TRAINING)
    one.keep("left-consistent-00000", torch.ones(3, 2))
    assert torch.equal(one.kept("left-consistent-00000", (3, 2)), torch.ones(3, 2))
    assert one.kept("left-consistent-00001", (3, 2)) is None
    with pytest.raises(
        ResumeError, match=r"expected \(4, 2\) numbers of this run, got \(3, 2\) .* Remove this file alone, and"
    ):
        one.kept("left-consistent-00000", (4, 2))
    (tmp_path / "config.json").unlink()
    (tmp_path / "left-consistent-00000.safetensors").rename(tmp_path / "aside")
    other.begin({"embeddings": "b" * 64}, TRAINING)
    (tmp_path / "aside").rename(tmp_path / "left-consistent-00000.safetensors")
    with pytest.raises(
        ResumeError, match=r"expected \(3, 2\) numbers of this run, got \(3, 2\) of other memories or settings"
    ):
        other.kept("left-consistent-00000", (3, 2))


# -------------------------------------------------------------------------------------------------- one of several, and after


def test_only_the_first_process_writes_and_all_read(tmp_path):
    first, second = Checkpoint(tmp_path, Peers(0, 2)), Checkpoint(tmp_path, Peers(1, 2))
    second.begin(ROWS, TRAINING)
    second.write(3, {"x": torch.ones(2)})
    second.keep("rows", torch.ones(2, 2))
    assert list(tmp_path.iterdir()) == []
    first.begin(ROWS, TRAINING)
    first.write(3, {"x": torch.ones(2)})
    first.keep("rows", torch.ones(2, 2))
    again = Checkpoint(tmp_path, Peers(1, 2))
    again.begin(ROWS, TRAINING)
    assert torch.equal(again.read()["x"], torch.ones(2))
    assert torch.equal(again.kept("rows", (2, 2)), torch.ones(2, 2))


def test_a_checkpoint_is_removed_but_not_under_a_run(tmp_path, often, killed_at, monkeypatch):
    folder = stopped(tmp_path, killed_at, monkeypatch)
    with open_checkpoint(folder, Peers()):
        remove_checkpoint(folder)
        assert (folder / LOCK).exists()
        assert list(folder.glob("step-*"))
    remove_checkpoint(str(folder))
    assert not folder.exists()
    remove_checkpoint(folder)


def test_a_run_that_begins_while_a_checkpoint_is_removed_keeps_its_folder(tmp_path, monkeypatch):
    with open_checkpoint(tmp_path / "kept", Peers()) as kept:
        kept.begin(ROWS, TRAINING)
    begun, locked = ExitStack(), checkpoint_module.locked

    @contextmanager
    def begun_right_after(file, said):
        with locked(file, said):
            yield
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_module, "locked", locked)
            begun.enter_context(open_checkpoint(tmp_path / "kept", Peers())).begin(ROWS, TRAINING)

    monkeypatch.setattr(checkpoint_module, "locked", begun_right_after)
    with begun:
        remove_checkpoint(tmp_path / "kept")
        assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["config.json", LOCK]
        with pytest.raises(LockedError), locked(tmp_path / "kept" / LOCK, "held"):
            pass


def test_a_checkpoint_whose_lock_is_gone_is_removed_and_nothing_else(tmp_path):
    with open_checkpoint(tmp_path / "kept", Peers()) as kept:
        kept.begin(ROWS, TRAINING)
    (tmp_path / "kept" / LOCK).unlink()  # as on Windows, where it is there only while it is held
    remove_checkpoint(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    connected().save(tmp_path / "connection")
    remove_checkpoint(tmp_path / "connection")
    with pytest.raises(
        FormatError, match=r"expected a cmcr checkpoint, got a cmcr connection\. Move it away, or choose"
    ):
        connected(tmp_path / "connection")
    assert cmcr.load(tmp_path / "connection")
    assert not (tmp_path / "connection" / LOCK).exists()


def test_rows_in_files_that_a_kill_has_left_are_removed(tmp_path):
    (tmp_path / "rows-abc").mkdir()
    (tmp_path / "rows-abc" / "0").write_bytes(b"x")
    (tmp_path / "rows-consistent-00000.safetensors").write_bytes(b"x")
    (tmp_path / LOCK).touch()
    with open_checkpoint(tmp_path, Peers()):
        assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "rows-consistent-00000.safetensors"]


def test_its_name(tmp_path, monkeypatch):
    assert unfinished(tmp_path / "my.connection") == tmp_path / "my.connection.unfinished"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert unfinished(Path()) == tmp_path / "here.unfinished"
    assert unfinished(Path("..") / "my.connection") == tmp_path / "my.connection.unfinished"


def test_the_digest_is_of_values_and_shape(rng, monkeypatch):
    rows = torch.from_numpy(rng.normal(size=(50, 4))).float()
    whole = digest_of(rows)
    monkeypatch.setattr(checkpoint_module, "_HASHED_ROWS", 7)
    assert digest_of(rows) == whole
    assert digest_of(rows.clone().as_strided((50, 4), (4, 1))) == whole
    assert digest_of(rows.view(25, 8)) != whole
    changed = rows.clone()
    changed[49, 3] += 1e-6
    assert digest_of(changed) != whole
    assert digest_of(rows.double()) != whole
    wide = rows.double() * 1e200
    assert digest_of(wide) == digest_of(wide.clone()) != digest_of(wide * 2)
    assert digest_of(rows.bfloat16()) != digest_of(rows.half())
