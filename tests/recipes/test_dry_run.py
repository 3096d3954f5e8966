"""A dry run says what would be done, what it takes and what stands in the way; and it writes nothing."""

import json
import shutil
from types import SimpleNamespace

import pytest
from small_recipe import stopped_after_a_shard, write_recipe

from cmcr.cli import main
from cmcr.connection.settings import settings_of
from cmcr.errors import ArtefactNotFoundError
from cmcr.recipes import costs, disk, estimates
from cmcr.recipes import dry_run as module
from cmcr.recipes.dry_run import dry_run
from cmcr.recipes.readable import readable_bytes, readable_seconds
from cmcr.recipes.reading import read_recipe


def test_what_would_be_done(folder, capsys):
    path = write_recipe(folder)
    before = sorted(folder.rglob("*"))
    assert main(["run", str(path), "--dry-run", "--json"]) == 0
    assert sorted(folder.rglob("*")) == before
    found = json.loads(capsys.readouterr().out)
    assert found["can_run"] is True
    assert [stage["items"] for stage in found["stages"]] == [40, 40, 40, 40, 40, 400]
    assert {stage["state"] for stage in found["stages"]} == {"to do"}
    assert all(stage["seconds"] > 0 for stage in found["stages"])
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"]))
    assert list(found["rates"]) == [
        "audio in mini-clap, items/s",
        "image in mini-clip, items/s",
        "semantic consistency in mini-clap, GFLOP/s",
        "semantic consistency in mini-clip, GFLOP/s",
        "text in mini-clap, items/s",
        "text in mini-clip, items/s",
        "training, GFLOP/s",
    ]
    assert main(["run", str(path), "--dry-run", "--only", "embed"]) == 0
    shown = capsys.readouterr().out
    assert "embed clip-clap/sounds-in-clap" in shown
    assert "connect " not in shown
    assert "It can be run:" in shown


def test_the_bytes_are_those_that_are_written(folder):
    recipe = read_recipe(write_recipe(folder))
    expected = dry_run(recipe, only=["embed"]).stages
    assert main(["run", str(folder / "recipe.toml"), "--only", "embed", "--json"]) == 0
    for memory, stage in zip(recipe.memories, expected, strict=True):
        written = sum(path.stat().st_size for path in recipe.path(memory.out).iterdir())
        assert stage.bytes == pytest.approx(written, rel=0.25)
    assert [stage.bytes for stage in dry_run(recipe, only=["embed"]).stages] == [0] * 4


def test_everything_that_stands_in_the_way_is_told(folder, capsys, monkeypatch):
    shutil.rmtree(folder / "sounds")
    path = write_recipe(
        folder,
        **{
            "[spaces.mini-clap]": '[spaces.mini-clap]\nkind = "clap"\nmodel = "laion/clap-htsat-fused"',
            'run = "counterfactual/mini"': 'run = "retrieval/vgg-ss"\ndata = "vgg-ss"',
        },
    )

    def missing(recipe, part):
        if part.data is None:
            return read(recipe, part)
        raise ArtefactNotFoundError(
            2, "3 of the 9 items that the annotations of vgg-ss name are not there: a.jpg", "vgg-ss"
        )

    read = module.read_data
    monkeypatch.setattr(module, "read_data", missing)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["run", str(path), "--dry-run"]) == 1
    shown = capsys.readouterr()
    assert "thing(s) to mend first:" in shown.err
    assert "hf download laion/clap-htsat-fused" in shown.err
    assert "embed clip-clap/sounds-in-clap: " in shown.err
    assert "space 'mini-clap' cannot be opened, as said above" in shown.err
    assert "3 of the 9 items that the annotations of vgg-ss name are not there: a.jpg" in shown.err
    assert "missing" in shown.out
    assert "It can be run" not in shown.out
    assert main(["run", str(path), "--dry-run", "--only", "evaluate", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["can_run"] is False
    assert json.loads(shown.err)["error"] == "CannotRunError"


def test_too_little_disk(folder, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
    found = dry_run(read_recipe(write_recipe(folder)))
    assert not found.can_run
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"disk: {readable_bytes(found.bytes)} are needed below {folder}")
    assert "20.0 kB are free. Free some" in found.problems[0]


def test_overlaps_of_different_lists(folder):
    (folder / "fewer.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    text = write_recipe(folder).read_text(encoding="utf-8")
    head, tail = text.rsplit('input = "captions.txt"', 1)
    (folder / "recipe.toml").write_text(f'{head}input = "fewer.txt"{tail}', encoding="utf-8")
    found = dry_run(read_recipe(folder / "recipe.toml"))
    assert found.problems == [
        "connect: the overlap, text, is not the same list in both spaces (40 in mini-clip and 3 in mini-clap). Give both "
        "memories the same input and columns."
    ]


def test_a_memory_that_was_stopped_counts_what_is_left(folder):
    recipe = stopped_after_a_shard(folder)
    stage = dry_run(recipe, only=["embed clip-clap/images-in-clip"]).stages[0]
    assert (stage.state, stage.items) == ("begun", 40)
    expected = costs.memory_bytes(10, 128, "float16", [("00000.png", "00000.png")], 30)
    assert stage.bytes == expected


def test_items_that_cannot_be_embedded_are_notes_until_none_can(folder):
    path = write_recipe(folder)
    pictures = sorted((folder / "pictures").iterdir())
    pictures[0].write_bytes(b"no picture")
    check = dry_run(read_recipe(path), only=["embed clip-clap/images-in-clip"])
    assert check.can_run
    assert check.stages[0].notes[0].startswith("cannot be embedded: ")
    for picture in pictures:
        picture.write_bytes(b"no picture")
    check = dry_run(read_recipe(path), only=["embed clip-clap/images-in-clip"])
    assert "none of the first 16 items could be embedded" in check.problems[0]


def test_the_rates_of_small_operations():
    assert estimates.consistency_rate(8, "cpu") > 0
    assert estimates.training_rate(4, 4, settings_of("c-mcr", width=4, hidden=()), "cpu") > 0


def test_numbers_for_people():
    assert [readable_bytes(n) for n in (7, 1_234, 1_900_000_000, 3 * 10**12)] == [
        "7 bytes",
        "1.2 kB",
        "1.9 GB",
        "3.0 TB",
    ]
    assert [readable_seconds(s) for s in (None, 5.2, 600, 36_000)] == ["?", "5 s", "10 min", "10.0 h"]
