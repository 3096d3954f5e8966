"""The command line as a whole: help, exit codes, messages, signals; and `cmcr info`, `verify`, `encode`, `import`."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import cmcr
from cmcr.cli import main
from cmcr.cli.console import print_table, shown_stages
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import ULIP_CLIP_SHAPE
from cmcr.data.numbers import draw_pictures
from cmcr.errors import ConfigError

VERBS = (
    "ablate",
    "compare",
    "connect",
    "demo",
    "embed",
    "encode",
    "evaluate",
    "import",
    "index",
    "info",
    "project",
    "search",
    "serve",
    "verify",
)


@pytest.fixture
def saved(tmp_path):
    rng = np.random.default_rng(0)
    left = cmcr.Memories("clip", text=rng.normal(size=(40, 6)), image=rng.normal(size=(9, 6)))
    right = cmcr.Memories("clap", text=rng.normal(size=(40, 4)), audio=rng.normal(size=(8, 4)))
    cmcr.connect(left, right, method="c-mcr", epochs=1, device="cpu").save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def pictures(tmp_path):
    drawn = draw_pictures(np.array([407, 123]), "test", np.random.default_rng(0))
    paths = [tmp_path / "407.png", tmp_path / "[b].png"]
    for path, picture in zip(paths, drawn, strict=True):
        Image.fromarray(picture).save(path)
    return [str(path) for path in paths]


@pytest.mark.parametrize("verb", [[verb] for verb in VERBS] + [["memory", "import"]])
def test_every_verb_shows_an_example(verb, capsys):
    assert main([*verb, "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"Example: cmcr {' '.join(verb)}" in out
    assert "--json" in out
    assert "--no-" not in out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == cmcr.__version__


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["dmo"], 'Did you mean "demo"?'),
        (["demo", "--sed", "1"], "Did you mean --seed?"),
        (["demo", "--seed", "one"], "--seed"),
        (["verify"], "path"),
        (["demo", "--method", "c-mrc"], "Did you mean 'c-mcr'?"),
        (["demo", "--seed", "-1"], "got -1"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_calls_end_with_2_and_write_nothing(call, message, as_json, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*call, *["--json"] * as_json]) == 2
    captured = capsys.readouterr()
    assert message.lower() in (json.loads(captured.err)["message"] if as_json else captured.err).lower()
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_tab_completion_can_be_installed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--install-completion", "--shell", "bash"]) == 0
    assert "evaluate" in (tmp_path / ".local/share/bash-completion/completions/cmcr").read_text()


def test_ctrl_c_ends_with_130_and_leaves_nothing_that_looks_finished(capsys, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("cmcr.demo.run.draw_world", interrupted)
    assert main(["demo", "--out", str(tmp_path / "out")]) == 130
    assert "stopped" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == {"finished": False}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_verb_is_imported_waits(number, capsys, monkeypatch):
    class Finder:
        """Sends the signal when the verbs are imported."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "cmcr.cli.demo":
                signal.raise_signal(number)

    for name in ("cmcr.cli.verbs", "cmcr.cli.demo"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    before = signal.getsignal(number)
    assert main(["verify", "nothing"]) == 130
    assert capsys.readouterr().err.startswith("cmcr: stopped; ")
    assert signal.getsignal(number) is before
    assert {"cmcr.cli.verbs", "cmcr.cli.demo"} <= set(sys.modules)


def test_an_interrupt_within_an_exec_still_ends_with_130():
    program = "import sys, cmcr.cli as c; c._run = lambda tokens: exec('raise KeyboardInterrupt'); sys.exit(c.main([]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.startswith("cmcr: stopped; ")


def test_a_closed_pipe_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cmcr", "--version"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_warnings_for_users_are_sentences(monkeypatch):
    shown = []
    kinds = (UserWarning, DeprecationWarning)
    monkeypatch.setattr(
        "cmcr.cli._run", lambda tokens: shown.extend(warnings.formatwarning("x.", kind, "a.py", 3) for kind in kinds)
    )
    assert main([]) == 0
    assert shown[0] == "cmcr: x.\n"
    assert "a.py:3: DeprecationWarning" in shown[1]
    assert "a.py:3: UserWarning" in warnings.formatwarning("x.", UserWarning, "a.py", 3)


def test_a_table_shows_names_as_they_are(capsys):
    print_table("[b]t", ["", ""], [["[bold] a.png", "[/x]"]])
    out = capsys.readouterr().out
    assert "[b]t" in out
    assert "[bold] a.png" in out
    assert "[/x]" in out


def test_a_bar_shows_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with shown_stages() as progress:
        progress("training", 0.5)
        progress("training", 1.0)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert "100 % 0:00:00 left 0:00:00" in plain


def test_info_and_verify(saved, capsys):
    assert main(["info", str(saved)]) == 0
    assert "spaces: clip: modalities │ text, image" in " ".join(capsys.readouterr().out.split())
    assert main(["info", str(saved), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "items that it was fitted on" in facts["in_short"][0]
    assert facts["spaces"]["clap"] == {"modalities": ["text", "audio"], "width": 4, "fingerprint": None}
    assert main(["verify", str(saved)]) == 0
    assert "whole and unchanged" in capsys.readouterr().out
    assert main(["verify", str(saved), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"path": str(saved), "whole": True, "kind": "connection", "encoders_compared": []}


def test_failures_end_with_1_and_a_message(saved, capsys):
    assert main(["verify", str(saved / "nothing")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"cmcr: {saved / 'nothing'}: ")
    assert main(["info", str(saved / "config.json")]) == 1
    assert "expected cmcr evaluation" in capsys.readouterr().err
    (saved.parent / "other.json").write_text("{}")
    assert main(["info", str(saved.parent)]) == 1  # neither is a folder with other things
    assert "config.json" in capsys.readouterr().err
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x77")
    assert main(["verify", str(saved), "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["error"] == "IntegrityError"


def test_encode_prints_a_table_of_cosines(pictures, capsys):
    call = ["encode", "mini-clip", "--image", *pictures, "--text", "four hundred and seven", "either/or"]
    assert main([*call, "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    table = np.array(out["cosines"])
    assert out["items"] == [*pictures, "four hundred and seven", "either/or"]
    np.testing.assert_allclose(table, table.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(table), 1.0, atol=1e-5)
    assert table[0, 2] > table[1, 2]
    assert main(call) == 0
    shown = capsys.readouterr().out
    for name in ("407.png", "[b].png", "either/or"):  # files by their names, texts whole
        assert f"│ {name} " in shown


def test_encode_through_a_connection(pictures, tmp_path, capsys):
    rng = np.random.default_rng(0)
    clip, clap = cmcr.space("mini-clip"), cmcr.space("mini-clap")
    texts = [str(number) for number in range(100, 164)]
    left = cmcr.Memories(clip, text=clip.encode(texts, "text"), image=rng.normal(size=(9, 128)))
    right = cmcr.Memories(clap, text=clap.encode(texts, "text"), audio=rng.normal(size=(9, 96)))
    cmcr.connect(left, right, method="c-mcr", epochs=1, device="cpu").save(tmp_path / "connection")
    call = ["encode", str(tmp_path / "connection"), "--image", *pictures, "--text", "407", "--json"]
    assert main(call) == 2
    assert "several spaces embed text" in json.loads(capsys.readouterr().err)["message"]
    assert main([*call, "--via", "mini-clap"]) == 0
    assert np.array(json.loads(capsys.readouterr().out)["cosines"]).shape == (3, 3)


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (["encode", "mini-clip"], 2, "nothing to embed"),
        (["encode", "mini-clop", "--text", "a"], 2, "neither a space"),
        (["encode", "mini-clip", "--audio", "a.wav"], 2, "modality of mini-clip 'audio'"),
        (["encode", "mini-clip", "--text", "a", "--model", "mini-clip"], 2, "expected SPACE=MODEL"),
        (["encode", "ulip", "--text", "a"], 2, "model=..."),
        (["encode", "ulip", "--text", "a", "--model", "ulip=nowhere.pt"], 1, "nowhere.pt"),
        (["encode", "mini-clip", "--image", "nowhere.png"], 1, "nowhere.png"),
        (["import", "nowhere.pt", "--out", "x"], 1, "nowhere.pt"),
    ],
)
def test_wrong_calls_and_failures_of_encode_and_import(call, code, message, capsys):
    assert main(call) == code
    assert message in capsys.readouterr().err


def test_import_writes_a_connection(tmp_path, capsys):
    state = {}
    for head in ("Head_A", "Head_B"):
        for key, value in Projector(512, ULIP_CLIP_SHAPE).state_dict().items():
            part, _, rest = key.split(".")
            state[f"{head}.net.{0 if part == 'linears' else 1}.{rest}"] = value
    torch.save(state, tmp_path / "a.pt")
    assert main(["import", str(tmp_path / "a.pt"), "--out", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spaces"] == ["clip", "ulip"]
    assert cmcr.load(tmp_path / "a").spaces[1].modalities == ("image", "point_cloud", "text")


def test_words_too_many_are_counted_and_a_pattern_is_told_to_be_quoted(capsys):
    assert main(["embed", "mini-clip", "image", *(f"{n}.png" for n in range(80)), "--out", "x"]) == 2
    said = capsys.readouterr().err
    assert len(said) < 300
    for fact in ("79 word(s) too many", "'1.png'", "Quote a pattern", "See: cmcr embed --help"):
        assert fact in said


def test_names_that_are_equally_near_are_all_told():
    with pytest.raises(ConfigError, match="Did you mean 'mini-clip' or 'mini-ulip'"):
        cmcr.space("mini-klip")


def test_a_torch_that_cannot_be_imported_is_told(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["verify", "nothing"]) == 1
    assert "pip install torch" in capsys.readouterr().err
