"""Pairs of one's own: from a table to a record, and to figures on the command line."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from cmcr.cli import main
from cmcr.data.numbers import draw_pictures, speak_sounds
from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.pairs import read_pairs
from evaluation.small_connections import audio_image

MODALITIES = ("text", "image", "audio")


def test_equal_cells_are_one_item_with_several_partners(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("note,text,image\n1,a cat,x.png\n2,a pet,x.png\n3,a cat,y.png\n")
    record = read_pairs(table, MODALITIES)
    assert record.modalities == ("text", "image")
    assert record.first == ["a cat", "a pet"]
    assert record.second == [tmp_path / "x.png", tmp_path / "y.png"]
    assert np.split(record.positives.values, record.positives.starts[1:-1])[0].tolist() == [0, 1]
    assert len(read_pairs(table, MODALITIES, limit=2).second) == 1


@pytest.mark.parametrize(
    ("content", "fact"),
    [("text,note\na,b\n", "got text"), ("a,b\n1,2\n", "got none"), ("text,image\na,\n", "blank"), ("", "empty")],
)
def test_wrong_tables_are_refused(tmp_path, content, fact):
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(ConfigError, match=fact):
        read_pairs(tmp_path / "pairs.csv", MODALITIES)


def test_the_verb_measures_pairs(tmp_path, capsys):
    rng, numbers = np.random.default_rng(3), np.arange(0, 1000, 100)
    for number, picture in zip(numbers, draw_pictures(numbers, "test", rng), strict=True):
        Image.fromarray(picture).save(tmp_path / f"{number:03d}.png")
    for number, sound in zip(numbers, speak_sounds(numbers, "test", rng), strict=True):
        soundfile.write(tmp_path / f"{number:03d}.wav", sound, 8000)
    table = tmp_path / "pairs.csv"
    table.write_text("audio,image\n" + "".join(f"{n:03d}.wav,{n:03d}.png\n" for n in numbers))
    audio_image().save(tmp_path / "saved")
    assert main(["evaluate", str(tmp_path / "saved"), "--pairs", str(table), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["run"], result["data"]["name"]) == ("retrieval/pairs", "pairs.csv")
    found = result["figures"]["connection"]["audio_to_image/R@1"]
    assert found["n"] == 10
    assert found["value"] > 0.5
    assert result["figures"]["chance"]["audio_to_image/R@1"]["value"] == 0.1
    assert main(["evaluate", str(tmp_path / "saved"), "--pairs", str(table), "--all"]) == 2
