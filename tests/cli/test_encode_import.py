"""`cmcr encode` and `cmcr import`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import cmcr
from cmcr.cli import main
from cmcr.data.numbers import draw_pictures


@pytest.fixture
def pictures(tmp_path):
    drawn = draw_pictures(np.array([407, 123]), "test", np.random.default_rng(0))
    paths = [tmp_path / "407.png", tmp_path / "123.png"]
    for path, picture in zip(paths, drawn, strict=True):
        Image.fromarray(picture).save(path)
    return [str(path) for path in paths]


def test_a_table_of_cosines(pictures, capsys):
    call = ["encode", "mini-clip", "--image", *pictures, "--text", "four hundred and seven", "123", "--json"]
    assert main(call) == 0
    out = json.loads(capsys.readouterr().out)
    table = np.array(out["cosines"])
    assert out["items"] == [*pictures, "four hundred and seven", "123"]
    np.testing.assert_allclose(table, table.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(table), 1.0, atol=1e-5)
    assert table[0, 2] > table[0, 3]
    assert table[1, 3] > table[1, 2]
    assert main(call[:-1]) == 0
    assert "407.png" in capsys.readouterr().out


def test_through_a_connection(pictures, tmp_path, capsys):
    rng = np.random.default_rng(0)
    clip, clap = cmcr.space("mini-clip"), cmcr.space("mini-clap")
    texts = [str(number) for number in range(100, 164)]
    left = cmcr.Memories(clip, text=clip.encode(texts, "text"), image=rng.normal(size=(9, 128)))
    right = cmcr.Memories(clap, text=clap.encode(texts, "text"), audio=rng.normal(size=(9, 96)))
    cmcr.connect(left, right, epochs=1, device="cpu").save(tmp_path / "connection")
    where = str(tmp_path / "connection")
    assert main(["encode", where, "--image", *pictures, "--text", "407", "--json"]) == 2
    assert "both spaces embed text" in json.loads(capsys.readouterr().err)["message"]
    assert main(["encode", where, "--image", *pictures, "--text", "407", "--via", "mini-clap", "--json"]) == 0
    assert np.array(json.loads(capsys.readouterr().out)["cosines"]).shape == (3, 3)


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (["encode", "mini-clip"], 2, "nothing to embed"),
        (["encode", "mini-clop", "--text", "a"], 2, "neither a space"),
        (["encode", "mini-clip", "--audio", "a.wav"], 2, "unknown modality of mini-clip 'audio'"),
        (["encode", "mini-clip", "--text", "a", "--model", "mini-clip"], 2, "expected SPACE=MODEL"),
        (["encode", "ulip", "--text", "a"], 2, "space 'ulip' needs model=..."),
        (["encode", "ulip", "--text", "a", "--model", "ulip=nowhere.pt"], 1, "nowhere.pt"),
        (["encode", "mini-clip", "--image", "nowhere.png"], 1, "no such picture"),
        (["import", "nowhere.pt", "--out", "x"], 1, "there is no projector file here"),
    ],
)
def test_wrong_calls_and_failures(call, code, message, capsys):
    assert main(call) == code
    assert message in capsys.readouterr().err


def test_import_writes_a_connection(tmp_path, capsys):
    from cmcr.connection.projectors import ULIP_CLIP_SHAPE, Projector

    state = {}
    for head in ("Head_A", "Head_B"):
        for key, value in Projector(512, ULIP_CLIP_SHAPE).state_dict().items():
            part, _, rest = key.split(".")
            state[f"{head}.net.{0 if part == 'linears' else 1}.{rest}"] = value
    torch.save(state, tmp_path / "a.pt")
    assert main(["import", str(tmp_path / "a.pt"), "--out", str(tmp_path / "a")]) == 0
    assert "clip + ulip, connected through image" in capsys.readouterr().out
    assert cmcr.load(tmp_path / "a").spaces[1].modalities == ("image", "point_cloud", "text")
    assert main(["import", str(tmp_path / "a.pt"), "--out", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spaces"] == ["clip", "ulip"]
