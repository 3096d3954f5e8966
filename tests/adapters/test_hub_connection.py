"""A connection on the hub: what is pushed, what its card says, and that it loads again. The hub is a folder here."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cmcr
from cmcr.adapters.model_card import card_of
from cmcr.connection import artefact
from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, IntegrityError, WriteError
from cmcr.evaluation.evaluate import facts_of
from cmcr.evaluation.results import EVALUATION
from cmcr.files import write_signed

hub = pytest.importorskip("huggingface_hub", reason="the extra encoders is not installed")
constants = pytest.importorskip("huggingface_hub.constants")
errors = pytest.importorskip("huggingface_hub.errors")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/clip-clap"


class Parent:
    """An encoder as far as a card asks for it."""

    def __init__(self, name, source):
        self.name, self.source, self.revision, self.fingerprint = name, source, COMMIT, None
        self.widths = {}


@pytest.fixture(scope="module")
def connection():
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(60, width)) for width in (12, 12, 10, 10)]
    left = cmcr.Memories("clip", text=sets[0], image=sets[1])
    right = cmcr.Memories("clap", text=sets[2], audio=sets[3])
    made = cmcr.connect(left, right, method="cca")
    return replace(made, encoders={"clip": Parent("clip", "openai/clip"), "clap": Parent("clap", "laion/clap")})


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The hub out of reach, its cache empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture
def asked(monkeypatch, cache):
    """A hub whose repositories appear in the cache at once; the list of what it was asked for."""
    calls = []

    def create_repo(api, repo_id, **options):
        calls.append((repo_id, options["private"], api.token))
        return hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(api, repo_id, folder_path, **_):
        stored = cache / f"models--{repo_id.replace('/', '--')}"
        shutil.copytree(folder_path, stored / "snapshots" / COMMIT)
        (stored / "refs").mkdir()
        (stored / "refs" / "main").write_text(COMMIT)
        return f"https://huggingface.co/{repo_id}/commit/{COMMIT}"

    def model_info(api, model, **_):
        if model != "openai/clip":  # what a snapshot asks too, before it looks into the cache
            raise errors.OfflineModeIsEnabled("out of reach")
        return hub.ModelInfo(id=model, cardData={"license": "mit"})

    for name, method in {"create_repo": create_repo, "upload_folder": upload_folder, "model_info": model_info}.items():
        monkeypatch.setattr(hub.HfApi, name, method)
    return calls


def test_what_is_pushed_loads_by_its_name(connection, asked, cache):
    assert connection.push_to_hub(NAME, private=True, token="t").endswith(COMMIT)
    assert asked == [(NAME, True, "t")]
    (stored,) = cache.rglob(COMMIT)
    assert {path.name for path in stored.iterdir()} == set(artefact.FILES)
    rows = np.random.default_rng(1).normal(size=(3, 10))
    for revision in (None, COMMIT):
        loaded = cmcr.load(NAME, revision=revision)
        assert np.array_equal(loaded.project(rows, "clap"), connection.project(rows, "clap"))


def test_the_card_names_parents_licences_and_figures(connection, asked, cache, tmp_path):
    result = written_result(tmp_path / "result.json", connection)
    connection.push_to_hub(NAME, results=str(result), license="apache-2.0", parent_licenses={"clap": "cc0-1.0"})
    card = hub.ModelCard.load(next(cache.rglob("README.md")))
    data = card.data.to_dict()
    assert data["base_model"] == ["openai/clip", "laion/clap"]
    assert (data["license"], data["library_name"]) == ("apache-2.0", "cmcr")
    assert "model_hub_mixin" in data["tags"]
    assert f"| [openai/clip](https://huggingface.co/openai/clip) | `{COMMIT[:12]}` | mit |" in card.text
    assert "cc0-1.0" in card.text
    assert "| audio_to_image/R@1 | 48.2 [45.1, 51.3] | 1.0 | 98.7 |" in card.text
    assert f"{len(connection.diagnose())} checks" in card.text


def test_the_four_lines_of_the_card_are_python_and_name_the_revisions(connection):
    code = re.search("```python\n(.*?)```", card_of(connection, NAME), re.DOTALL)[1]
    compile(code, "card", "exec")
    assert len(code.splitlines()) == 6  # four, after the import
    assert f'clap = cmcr.space("clap", model="laion/clap", revision="{COMMIT}")' in code


def test_the_lines_of_the_card_are_python_whatever_the_spaces_are_called(connection):
    known = [replace(space, name=name) for space, name in zip(connection.spaces, ("4m.b", "4m b"), strict=True)]
    encoders = {space.name: Parent(space.name, f"someone/{space.name[-1]}") for space in known}
    maps = dict(zip(encoders, connection.projectors.values(), strict=True))
    named = replace(connection, spaces=tuple(known), encoders=encoders, projectors=maps, own_share=0)
    code = re.search("```python\n(.*?)```", card_of(named, NAME), re.DOTALL)[1]
    compile(code, "card", "exec")
    assert "encoders=[_4m_b, _4m_b_]" in code


def test_the_card_of_a_connection_of_arrays_says_what_it_does_not_know(connection):
    card = card_of(replace(connection, encoders={}), NAME)
    assert "unknown" in card
    assert 'connection.project(embeddings, space="clap")' in card


def test_the_card_names_no_path_of_the_machine_that_pushed(connection, tmp_path):
    (folder := tmp_path / COMMIT).mkdir()  # as a snapshot in the cache is named
    card = card_of(replace(connection, encoders={name: Parent(name, str(folder)) for name in ("clip", "clap")}), NAME)
    assert str(tmp_path) not in card
    assert "huggingface.co" not in card


def test_results_of_another_connection_are_refused_before_anything_is_pushed(connection, asked, tmp_path):
    other = written_result(
        tmp_path / "other.json", replace(connection, projectors=connection.projectors), weights="0" * 64
    )
    with pytest.raises(ConfigError, match="another connection"):
        connection.push_to_hub(NAME, results=[other])
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(FormatError, match="expected a JSON object"):
        connection.push_to_hub(NAME, results=[tmp_path / "none.json"])
    assert asked == []


def test_a_hub_out_of_reach_and_a_wrong_name_are_told_in_one_message(connection, cache):
    with pytest.raises(WriteError, match="hf auth login"):
        connection.push_to_hub(NAME)
    with pytest.raises(ConfigError, match="owner/name"):
        connection.push_to_hub("a/b/c")


def test_a_folder_wins_over_the_hub(connection, asked, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    connection.save("someone/clip-clap")
    assert cmcr.load(NAME).method == "cca"
    for folder in (NAME, Path(NAME)):
        with pytest.raises(ConfigError, match="has none"):
            cmcr.load(folder, revision=COMMIT)


def test_a_repository_that_is_not_there_or_half_downloaded_is_told(connection, asked, cache):
    with pytest.raises(ArtefactNotFoundError, match="hf download someone/nothing"):
        cmcr.load("someone/nothing")
    connection.push_to_hub(NAME)
    next(cache.rglob("model.safetensors")).unlink()
    with pytest.raises(IntegrityError, match=r"model.safetensors is missing"):
        cmcr.load(NAME)


def test_nothing_but_the_manifest_is_fetched_of_a_repository_of_something_else(cache, monkeypatch):
    folder = cache / "models--openai--clip" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    asked = []
    monkeypatch.setattr(
        hub, "snapshot_download", lambda name, **options: asked.append(options["allow_patterns"]) or folder
    )
    with pytest.raises(FormatError, match="expected the repository of a cmcr connection"):
        cmcr.load("openai/clip")
    assert asked == [["config.json"]]


def written_result(path, connection, weights=None):
    figure = {"value": 0.482, "low": 0.451, "high": 0.513, "n": 900}
    chance = {"value": 0.01, "low": None, "high": None, "n": 900}
    result = {
        "format": EVALUATION,
        "version": 1,
        "run": "retrieval/ave",
        "connection": facts_of(connection) | ({"weights_sha256": weights} if weights else {}),
        "data": {"name": "AVE", "sha256": "0" * 64},
        "seed": 0,
        "connection_minus": {},
        "published_in_percent": [],
        "versions": {},
        "figures": {"connection": {"audio_to_image/R@1": figure}, "chance": {"audio_to_image/R@1": chance}},
        "kept": {"audio_to_image/R@1": 0.987},
    }
    write_signed(path, result)
    return path
