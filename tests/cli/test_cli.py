"""The command line: exit codes and messages."""

import json
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

import cmcr
from cmcr import cli
from cmcr.cli import main
from cmcr.cli.console import print_table


@pytest.fixture
def saved(tmp_path):
    rng = np.random.default_rng(0)
    left = cmcr.Memories("clip", text=rng.normal(size=(40, 6)), image=rng.normal(size=(9, 6)))
    right = cmcr.Memories("clap", text=rng.normal(size=(40, 4)), audio=rng.normal(size=(8, 4)))
    cmcr.connect(left, right, epochs=1, device="cpu").save(tmp_path / "saved")
    return tmp_path / "saved"


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == cmcr.__version__
    for verb in ("demo", "info", "verify"):
        assert main([verb, "--help"]) == 0
        out = capsys.readouterr().out
        assert f"Example: cmcr {verb}" in " ".join(out.split())
        assert "--json" in out


def test_info_and_verify(saved, capsys):
    assert main(["info", str(saved)]) == 0
    out = capsys.readouterr().out
    assert "text, image; 6 wide; given as arrays" in out
    assert main(["info", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spaces"]["clap"] == {
        "modalities": ["text", "audio"],
        "width": 4,
        "fingerprint": None,
    }
    assert main(["verify", str(saved)]) == 0
    assert "whole and unchanged" in capsys.readouterr().out
    assert main(["verify", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(saved), "whole": True}


def test_failures_end_with_1_and_a_message_on_standard_error(saved, tmp_path, capsys):
    assert main(["verify", str(tmp_path / "nothing")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is nothing here" in captured.err
    assert "Traceback" not in captured.err
    weights = saved / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(bytes(changed))
    assert main(["verify", str(saved), "--json"]) == 1
    error = json.loads(capsys.readouterr().err)
    assert error["error"] == "IntegrityError"
    assert "its bytes have changed" in error["message"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["dmo"], 'Did you mean "demo"?'),
        (["demo", "--sed", "1"], "Did you mean --seed?"),
        (["demo", "--seed", "one"], "--seed"),
        (["verify"], "path"),
        (["demo", "--method", "c-mrc"], "Did you mean 'c-mcr'?"),
        (["demo", "--seed", "-1"], "seed: expected a whole number, 0 or more, got -1"),
    ],
)
def test_wrong_calls_end_with_2(call, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(call) == 2
    captured = capsys.readouterr()
    assert message.lower() in captured.err.lower()
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_130_and_leaves_nothing_that_looks_finished(capsys, tmp_path, monkeypatch):
    import cmcr.demo.run

    def interrupted(seed, per_number):
        raise KeyboardInterrupt

    monkeypatch.setattr(cmcr.demo.run, "draw_world", interrupted)
    assert main(["demo", "--out", str(tmp_path / "out")]) == 130
    assert "stopped" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["connections", "results.json"]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == {"finished": False}


def stopped(call, module, number, monkeypatch):
    """Begin a command, and send a signal as soon as a module is imported."""

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == module:
                os.kill(os.getpid(), number)

    for name in ("cmcr.cli.verbs", "cmcr.cli.demo"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    return main(call)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["cmcr.cli.verbs", "cmcr.cli.demo"])
def test_a_signal_before_a_verb_has_begun(module, number, capsys, monkeypatch):
    before = signal.getsignal(number)
    assert stopped(["verify", "nothing"], module, number, monkeypatch) == 130
    assert capsys.readouterr().err == "cmcr: stopped; nothing half-written was left. Run it again.\n"
    assert signal.getsignal(number) is before
    assert {"cmcr.cli.verbs", "cmcr.cli.demo"} <= set(sys.modules)  # it waited


def test_stopped_within_an_exec_the_process_ends_with_130():
    program = (
        "import sys, cmcr.cli as cli; cli._carry_out = lambda tokens: exec('raise KeyboardInterrupt'); "
        "sys.exit(cli.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "cmcr: stopped; nothing half-written was left. Run it again.\n")


def test_a_file_where_a_folder_should_be(saved, capsys):
    for verb in ("info", "verify"):
        assert main([verb, str(saved / "config.json")]) == 1
        assert capsys.readouterr().err == (
            f"cmcr: {saved / 'config.json'}: expected the folder of a cmcr artefact, got a file.\n"
        )


def test_a_closed_pipe_is_met_in_silence(saved):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cmcr", "info", str(saved), "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_warnings_are_sentences():
    with cli._plain_warnings():
        assert warnings.formatwarning("Three items are left out.", UserWarning, "a.py", 3) == (
            "cmcr: Three items are left out.\n"
        )
        assert "a.py:3: DeprecationWarning" in warnings.formatwarning("old", DeprecationWarning, "a.py", 3)
    assert "a.py:3: UserWarning" in warnings.formatwarning("x", UserWarning, "a.py", 3)


def test_a_table_shows_names_as_they_are(capsys):
    print_table("[b]t", ["", ""], [["[bold] a.png", "[/x]"]])
    out = capsys.readouterr().out
    assert "[bold] a.png" in out
    assert "[/x]" in out


def test_texts_are_shown_whole_and_files_by_their_names(capsys, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "[b].png")
    assert main(["encode", "mini-clip", "--text", "either/or", "--image", str(tmp_path / "[b].png")]) == 0
    out = capsys.readouterr().out
    assert "│ either/or │" in out
    assert "│ [b].png   │" in out
