"""A recipe is read strictly: everything wrong is told at once, with the nearest valid name."""

from pathlib import Path

import pytest

from cmcr.errors import ArtefactNotFoundError, ConfigError
from cmcr.evaluation.evaluate import RUNS
from cmcr.recipes.encoders import space_options
from cmcr.recipes.reading import read_recipe
from cmcr.recipes.stages import stages_of

ROOT = Path(__file__).parents[2]
GOOD = """
[spaces.mini-clip]
[spaces.voice]
kind = "mini-clap"
[[memories]]
space = "mini-clip"
modality = "text"
input = "captions.txt"
out = "a"
[[memories]]
space = "mini-clip"
modality = "image"
input = "pictures"
out = "b"
[[memories]]
space = "voice"
modality = "text"
input = "captions.txt"
out = "c"
[[memories]]
space = "voice"
modality = "audio"
input = "sounds"
out = "d"
[connection]
out = "connection"
settings = { epochs = 2, hidden = [16, 8] }
[[evaluations]]
run = "retrieval/mini-audio-image"
"""


def read(tmp_path, text, **options):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, **options)


def problems(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return str(caught.value)


def test_a_recipe_in_full(tmp_path):
    recipe = read(tmp_path, GOOD, root=tmp_path / "data")
    assert (recipe.name, recipe.results, recipe.overlap) == ("recipe", "results", "text")
    assert recipe.path("a") == tmp_path / "data" / "a"
    assert recipe.path("/elsewhere") == Path("/elsewhere")
    assert recipe.memories[2].batch_size == 32
    assert recipe.connection.method == "c-mcr"
    assert recipe.result_file(recipe.evaluations[0]) == tmp_path / "data/results/retrieval-mini-audio-image.json"
    assert [memory.out for memory in recipe.overlap_memories] == ["a", "c"]
    assert space_options(recipe, "voice") == ("mini-clap", {})
    names = ["embed a", "embed b", "embed c", "embed d", "connect", "evaluate retrieval/mini-audio-image"]
    assert [stage.name for stage in stages_of(recipe)] == names
    assert [stage.name for stage in stages_of(recipe, ["connect", "embed b"])] == ["embed b", "connect"]
    with pytest.raises(ConfigError, match=r"unknown stage 'conect'. Did you mean 'connect'"):
        stages_of(recipe, ["conect"])


def test_paths_begin_from_the_folder_of_the_recipe(tmp_path):
    assert read(tmp_path, GOOD).path("a") == tmp_path / "a"


def test_a_model_that_is_a_path_begins_from_the_root_and_a_repository_does_not(tmp_path):
    (tmp_path / "weights").mkdir()
    for model, expected in (
        ("weights", str(tmp_path / "weights")),
        ("./gone", str(tmp_path / "gone")),
        ("gone.pt", str(tmp_path / "gone.pt")),
        ("openai/clip", "openai/clip"),
    ):
        table = f'[spaces.mini-clip]\nmodel = "{model}"\nrevision = "main"'
        recipe = read(tmp_path, GOOD.replace("[spaces.mini-clip]", table))
        assert space_options(recipe, "mini-clip") == ("mini-clip", {"model": expected, "revision": "main"})


def test_everything_wrong_with_keys_and_types_is_told_at_once(tmp_path):
    text = (
        GOOD.replace('out = "a"', 'out = "a"\nbatch_sise = 3\nbatch_size = "many"')
        .replace('kind = "mini-clap"', 'kind = 3\nrevison = "main"')
        .replace('run = "retrieval/mini-audio-image"', "limit = true")
        .replace('out = "connection"', "")
    )
    said = problems(tmp_path, "titel = 1\n" + text)
    for part in (
        "no key 'titel' is known",
        "[spaces.voice] has no key 'revison' (did you mean 'revision'?)",
        "[spaces.voice] kind: expected a text that is not empty, got 3",
        "[[memories]] 1 has no key 'batch_sise' (did you mean 'batch_size'?)",
        "[[memories]] 1 batch_size: expected a whole number, got 'many'",
        "[connection] lacks out",
        "[[evaluations]] 1 lacks run",
        "[[evaluations]] 1 limit: expected a whole number, got True",
        "See docs/recipes.md.",
    ):
        assert part in said


def test_everything_wrong_between_parts_is_told_at_once(tmp_path):
    text = (
        GOOD.replace('kind = "mini-clap"', 'kind = "mini-clapp"')
        .replace('out = "b"', 'out = "a"\ndtype = "float61"\nmax_failures = "some"\nshard_items = 0')
        .replace("epochs = 2", "epoch = 2")
        .replace('run = "retrieval/mini-audio-image"', 'run = "x/y"\nlimit = 0')
    )
    said = problems(tmp_path, text)
    for part in (
        "[spaces.voice]: unknown kind 'mini-clapp' (did you mean 'mini-clap'?)",
        "[[memories]] 2: unknown dtype 'float61' (did you mean 'float16'?)",
        "[[memories]] 2 max_failures: --max-failures: expected a number or a share, such as 100 or 5%, got 'some'",
        "[[memories]] 2 shard_items: expected at least 1, got 0",
        "[connection]: unknown settings: 'epoch' (did you mean 'epochs'?)",
        "two parts write to 'a'",
        "x/y limit: expected at least 1, got 0",
        "unknown run 'x/y'",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('modality = "audio"', 'modality = "text"', "expected one modality besides the overlap 'text', got none"),
        ('space = "voice"', 'space = "mini-clip"', "expected memories of two spaces, got 1 (mini-clip)"),
        ('space = "voice"', 'space = "voise"', "unknown space 'voise' (did you mean 'voice'?)"),
        ('modality = "audio"', 'modality = "image"', "the memories share text, image: choose one by overlap"),
        ('out = "connection"', 'out = "connection"\noverlap = "audio"', "unknown overlap 'audio'"),
    ],
)
def test_memories_that_cannot_be_connected(tmp_path, old, new, said):
    assert said in problems(tmp_path, GOOD.replace(old, new))


def test_what_is_no_recipe(tmp_path):
    assert "not a TOML file" in problems(tmp_path, "spaces = [")
    said = problems(tmp_path, "")
    assert "expected a table [spaces.NAME], got None" in said
    assert "expected tables [[memories]], got []" in said
    assert "expected a table [connection], got None" in said
    with pytest.raises(ArtefactNotFoundError, match="there is no recipe here"):
        read_recipe(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("recipes/*/*.toml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_the_shipped_recipes_are_whole(path):
    recipe = read_recipe(path)
    assert recipe.description
    assert {run.run for run in recipe.evaluations} <= set(RUNS)
    inputs = {(memory.input, memory.column, memory.id_column) for memory in recipe.overlap_memories}
    assert len(inputs) == 1
