"""`cmcr search`: what is asked, what is printed. What is found is tested in tests/search."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile
from PIL import Image

import cmcr
from cmcr.cli import main, thumbnails
from cmcr.data.numbers import SAMPLE_RATE_HZ, draw_pictures, speak_sounds, write_texts

NUMBERS = np.array([407, 123, 812, 555, 90, 678])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index of pictures and sounds of a few numbers, and the folders of both."""
    root, rng = tmp_path_factory.mktemp("search"), np.random.default_rng(0)
    (root / "pictures").mkdir()
    (root / "sounds").mkdir()
    for number, picture in zip(NUMBERS, draw_pictures(NUMBERS, "test", rng), strict=True):
        Image.fromarray(picture).save(root / "pictures" / f"{number}.png")
    for number, samples in zip(NUMBERS[:3], speak_sounds(NUMBERS[:3], "test", rng), strict=True):
        soundfile.write(root / "sounds" / f"{number}.wav", samples, SAMPLE_RATE_HZ)
    texts = write_texts(np.arange(1000)[::5], rng)
    memories = [
        cmcr.Memories(space, text=space.encode(texts, "text"), **{own: rng.normal(size=(20, space.widths["text"]))})
        for space, own in ((cmcr.space("mini-clip"), "image"), (cmcr.space("mini-clap"), "audio"))
    ]
    cmcr.connect(*memories, method="cca", seed=0).save(root / "connection")
    cmcr.index(root / "connection", [root / "pictures", root / "sounds"], root / "index", device="cpu")
    return root


def call(folder, *more):
    return main(["search", str(folder / "index"), *more])


def asked(folder, capsys, *more):
    assert call(folder, *more, "--json") == 0
    return json.loads(capsys.readouterr().out)["rankings"]


def test_a_table_for_each_modality(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert call(folder, "--image", "pictures/407.png", "--limit", "2") == 0
    said = capsys.readouterr().out
    assert "image: cosine, mini-clip (6 items)" in said
    assert "audio: cosine through the connection (3 items)" in said
    first = next(line for line in said.splitlines() if line.startswith("│ 1"))
    assert first.split()[1:] == ["1", "│", "1.000", "│", "407.png", "│", "pictures/407.png", "│"]
    assert "\x1b" not in said


def test_json_is_what_python_finds(folder, capsys):
    (found,) = asked(
        folder, capsys, "--audio", str(folder / "sounds" / "123.wav"), "--targets", "image", "--limit", "3"
    )
    (expected,) = cmcr.SearchIndex(folder / "index").search(
        audio=folder / "sounds" / "123.wav", targets=("image",), limit=3
    )
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in expected.hits]
    assert found["hits"][0]["cosine"] == pytest.approx(expected.hits[0].cosine, abs=1e-6)
    assert found["hits"][0]["path"] == str(expected.hits[0].path)
    assert (found["scale"], found["items"]) == ("connection", 6)


def test_options_reach_the_query(folder, capsys):
    text = ("--text", "four hundred and seven", "--targets", "image")
    (whole,) = asked(folder, capsys, *text)
    (page,) = asked(folder, capsys, *text, "--limit", "2", "--offset", "3")
    assert page["hits"] == whole["hits"][3:5]
    (some,) = asked(folder, capsys, *text, "--where", "id=4*")
    assert [hit["id"] for hit in some["hits"]] == ["407.png"]
    (away,) = asked(folder, capsys, "--text", "four hundred and seven@-1", "--targets", "image")
    assert [hit["id"] for hit in away["hits"]] == [hit["id"] for hit in reversed(whole["hits"])]
    (mixed,) = asked(folder, capsys, "--image", str(folder / "pictures" / "407.png"), "--mixed")
    assert {hit["modality"] for hit in mixed["hits"]} == {"image", "audio"}
    like = asked(folder, capsys, "--like", "407.png", "812.png@0.5", "--group-duplicates", "--hub-correction")
    assert "407.png" not in [hit["id"] for hit in like[0]["hits"]]
    assert like[0]["hub_corrected"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "nothing to search for"),
        (("--like", "408.png"), "has no item '408.png'"),
        (("--text", "x", "--targets", "images"), "Did you mean 'image'"),
        (("--text", "x@0"), "weight"),
        (("--image", "no.png"), "no.png"),
        (("--text", "x", "--model", "clop=x"), "clop"),
    ],
)
def test_what_cannot_be_asked_is_said(folder, capsys, more, message):
    assert call(folder, *more) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "screen", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
    ],
)
def test_only_terminals_that_say_so_get_pictures(environment, protocol):
    assert thumbnails.protocol_of(environment) == protocol


def test_thumbnails_are_a_picture_of_the_pictures(folder, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm-kitty")
    assert call(folder, "--like", "407.png") == 0
    assert "\x1b" not in capsys.readouterr().out  # no terminal
    paths = [folder / "pictures" / "407.png", folder / "missing.png", folder / "pictures" / "123.png"]
    kitty, iterm2 = (thumbnails.strip_of(paths, protocol) for protocol in ("kitty", "iterm2"))
    chunks = [part.split(";", 1) for part in kitty.strip().removesuffix("\x1b\\").split("\x1b\\")]
    heads = [head for head, _ in chunks]
    assert heads == ["\x1b_Ga=T,f=100,m=1", *["\x1b_Gm=1"] * (len(heads) - 2), "\x1b_Gm=0"]
    assert max(len(chunk) for _, chunk in chunks) == 4096  # the most that kitty takes
    data = "".join(chunk for _, chunk in chunks)
    assert iterm2.endswith(f":{data}\a\n")
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        columns = np.asarray(shown.convert("L")).min(axis=0).reshape(3, -1).min(axis=1)
    assert (columns < 128).tolist() == [True, False, True]
