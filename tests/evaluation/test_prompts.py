"""Prompts: our templates, and those of a file."""

import json
from pathlib import Path

import pytest

from cmcr.errors import ConfigError, FormatError, ReadError
from cmcr.evaluation.prompts import TEMPLATES, prompts_of, read_prompts

PUBLISHED = next(
    (folder for up in Path(__file__).resolve().parents if (folder := up / "shared/data/ulip_prompts").is_dir()), None
)


@pytest.mark.parametrize("modality", ["image", "audio", "point_cloud"])
def test_templates_hold_the_name_once_and_differ(modality):
    templates = TEMPLATES[modality]
    assert 10 <= len(templates) <= 20
    assert len(set(templates)) == len(templates)
    prompts = prompts_of("night stand", templates)
    assert [prompt.count("night stand") for prompt in prompts] == [1] * len(templates)
    assert prompts_of("bow {} {0}", ["a {}."]) == ["a bow {} {0}."]


@pytest.mark.parametrize(
    ("name", "templates", "message"),
    [
        ("cat", [], "expected at least one, got none"),
        ("cat", ["a {}.", "a cat."], r"expected \{\} once, .*got 'a cat\.'"),
        ("cat", ["{} and {}"], r"expected \{\} once"),
        (" ", ["a {}."], "expected words, got ' '"),
    ],
)
def test_prompts_that_cannot_be_made_are_refused(name, templates, message):
    with pytest.raises(ConfigError, match=message):
        prompts_of(name, templates)


def test_files_of_prompts(tmp_path):
    path = tmp_path / "templates.json"
    path.write_text(json.dumps({"one": ["a {}."]}), encoding="utf-8")
    assert read_prompts(path) == read_prompts(str(path), "one") == ["a {}."]
    with pytest.raises(ConfigError, match="Did you mean 'one'"):
        read_prompts(path, "on")
    path.write_text(json.dumps({"one": ["a {}."], "two": ["b {}."]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="one, two"):
        read_prompts(path)
    for wrong in ({"one": [3]}, {"one": []}, {"one": [" "]}, ["a {}."]):
        path.write_text(json.dumps(wrong), encoding="utf-8")
        with pytest.raises(FormatError, match=r"templates\.json"):
            read_prompts(path)
    with pytest.raises(ReadError, match=r"nothing\.json"):
        read_prompts(tmp_path / "nothing.json")


@pytest.mark.skipif(PUBLISHED is None, reason="ULIP's prompts (shared/data/ulip_prompts) are not here")
def test_ulip_prompts_are_read_in_place():
    templates = read_prompts(PUBLISHED / "templates.json", "modelnet40_64")
    labels = read_prompts(PUBLISHED / "labels.json")
    assert (len(templates), templates[0]) == (64, "a point cloud model of {}.")
    assert (len(labels), labels[23]) == (40, "night stand")
    assert prompts_of(labels[23], templates)[0] == "a point cloud model of night stand."
    assert all(len(prompts_of(label, templates)) == 64 for label in labels)
