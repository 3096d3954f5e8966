"""Which runs are made, on which data, beside which baselines."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import cmcr
from cmcr.errors import ArtefactNotFoundError, ConfigError
from cmcr.evaluation.runs import IncompleteDataError, Options, runs_of
from cmcr.evaluation.tasks.embedding import NotConnectedError
from cmcr.evaluation.tasks.ways import SpaceRows, baselines
from evaluation.datasets import tiny_sets
from evaluation.small_connections import audio_image, cloud_text, write_memories

BASELINES = ["centred ridge", "centred procrustes", "posterior"]


def made(connection, run=None, **options):
    return [found.result for found in runs_of(connection, run, Options(**options), {}, lambda what, share: None)]


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    return write_memories(tmp_path_factory.mktemp("memories"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name in ("coco", "esc-50", "modelnet40", "vgg-ss"):
        tiny_sets.write(name, root / name)
    return root


def test_all_miniature_runs_that_the_modalities_allow():
    assert [result["run"] for result in made(cloud_text(), limit=8)] == [
        "retrieval/mini-point_cloud-text",
        "classification/mini-point_cloud",
        "classification/mini-image",
        "retention/mini-image-text",
        "retention/mini-point_cloud-image",
    ]


@pytest.mark.parametrize(("limit", "n"), [(8, 8), (30, 30), (5000, 1000)])
def test_the_limit_holds_for_drawn_data_too(limit, n):
    (result,) = made(cloud_text(), "classification/mini-image", limit=limit)
    assert result["figures"]["connection"]["image/top-1"]["n"] == n


def test_drawn_data_takes_no_options_of_data_on_disk(tmp_path):
    with pytest.raises(
        ConfigError, match=r"classification/mini-image: is drawn, not read: leave --data and --split out"
    ):
        made(cloud_text(), "classification/mini-image", data=tmp_path, split="train")
    with pytest.raises(ConfigError, match=r"is drawn, not read: leave --prompts out"):
        made(cloud_text(), prompts=tmp_path / "templates.json")
    with pytest.raises(ConfigError, match=r"expected 8 to 1000 items, got 3"):
        made(cloud_text(), "classification/mini-image", limit=3)


def test_the_folder_may_be_that_of_the_data_set_or_of_all(data):
    inside, outside = (
        made(audio_image(), "classification/esc-50", data=folder)[0] for folder in (data / "esc-50", data)
    )
    assert inside == outside
    assert inside["data"]["name"] == "esc-50/all"
    assert inside["figures"]["connection"]["audio/top-1"]["n"] == 3


def test_all_takes_what_is_there_and_what_is_connected(data):
    assert [result["run"] for result in made(audio_image(), data=data)] == [
        "retrieval/vgg-ss",
        "localization/vgg-ss",
        "classification/esc-50",
        "retention/coco",
    ]
    assert [result["run"] for result in made(cloud_text(), data=data)] == [
        "classification/modelnet40",
        "retention/coco",
    ]


def test_all_passes_over_incomplete_data_that_is_not_connected(tmp_path):
    tiny_sets.write("esc-50", tmp_path / "esc-50")
    for name in ("modelnet40", "scanobjectnn", "objaverse-lvis"):
        (tmp_path / name).mkdir()
    assert [result["run"] for result in made(audio_image(), data=tmp_path)] == ["classification/esc-50"]


def test_all_measures_what_is_whole_and_names_what_is_not(data, tmp_path):
    root = shutil.copytree(data, tmp_path / "data")
    (root / "ave").mkdir()
    (root / "coco" / "dataset_coco.json").write_text("[]")
    (root / "vgg-ss" / "vggss.json").unlink()
    found, evaluations = [], runs_of(audio_image(), None, Options(data=root), {}, lambda what, share: None)
    with pytest.raises(IncompleteDataError) as caught:
        found.extend(evaluation.result["run"] for evaluation in evaluations)
    assert found == ["classification/esc-50"]
    said = str(caught.value)
    assert said.startswith("4 of 5 runs were not made, for their data sets are incomplete:\n- retrieval/ave: ")
    assert f"\n- retrieval/vgg-ss: {root / 'vgg-ss'}: vggss.json or metadata/vggss.json is missing." in said
    assert "\n- localization/vgg-ss: " in said
    assert f"\n- retention/coco: {root / 'coco' / 'dataset_coco.json'}: " in said
    assert "modelnet40" not in said


def test_all_stops_at_a_wrong_call(data):
    with pytest.raises(ConfigError, match="unknown split of vgg-ss 'nonsense'"):
        made(audio_image(), data=data, split="nonsense")


def test_nothing_there_or_nothing_connected(data, tmp_path):
    with pytest.raises(
        ConfigError, match=r"expected a folder for each data set, called ave, clotho|audiocaps, ave, .* none"
    ):
        made(audio_image(), data=tmp_path)
    tiny_sets.write("esc-50", tmp_path / "esc-50")
    with pytest.raises(
        ConfigError, match=r"nothing that this connection can be measured on: its modalities fit no run"
    ):
        made(cloud_text(), data=tmp_path)
    with pytest.raises(NotConnectedError, match=r"does not connect audio and text"):
        made(cloud_text(), "classification/esc-50", data=tmp_path)


def test_wrong_runs(data, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown run 'retrieval/vggss'. Did you mean 'retrieval/vgg-ss'\?"):
        made(audio_image(), "retrieval/vggss", data=data)
    with pytest.raises(ConfigError, match=r"retrieval/ave: say where the data set is, --data FOLDER; docs/datasets.md"):
        made(audio_image(), "retrieval/ave")
    with pytest.raises(ArtefactNotFoundError, match=r"Annotations.txt|testSet.txt"):
        made(audio_image(), "retrieval/ave", data=tmp_path)


def test_baselines_stand_beside_every_run(memories):
    (result,) = made(audio_image(), "retrieval/mini-audio-image", limit=40, memories=list(memories.values()))
    assert list(result["figures"]) == ["connection", "chance", *BASELINES]
    values = {way: figures["mean/R@1"]["value"] for way, figures in result["figures"].items()}
    assert values["centred ridge"] > values["chance"] + 0.1
    (retention,) = made(audio_image(), "retention/mini-audio-text", limit=8, memories=list(memories.values()))
    assert list(retention["figures"]) == ["connection", "chance", "own space", *BASELINES]


def test_baselines_are_fitted_on_what_the_memories_hold(memories):
    rows = {name: torch.tensor(np.asarray(cmcr.Memory(folder))) for name, folder in memories.items()}
    spaces = {
        "mini-clip": SpaceRows({"text": rows["clip-text"], "image": rows["clip-image"]}),
        "mini-clap": SpaceRows({"text": rows["clap-text"], "audio": rows["clap-audio"]}),
    }
    found = next(runs_of(audio_image(), "retrieval/mini-audio-image", Options(limit=20, memories=list(memories.values())),
                         {}, lambda what, share: None))  # fmt: skip
    for way in baselines("mini-clip", spaces, "text"):
        scores = found.prepared.score(way)
        figures = found.result["figures"][way.name]
        assert figures["mean/MRR"]["value"] == pytest.approx(scores["mean/MRR"].values.mean())


def test_baselines_match_the_overlap_by_the_ids_of_its_items(memories, tmp_path):
    """In another order and with items that the other space lacks, the fit must be the same."""
    texts = cmcr.Memory(memories["clap-text"])
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = tmp_path / "shuffled"
    cmcr.write_memory(
        shuffled, np.asarray(texts)[order], [texts.ids[row] for row in order], space="mini-clap", modality="text",
        fingerprint=texts.fingerprint,
    )  # fmt: skip
    given = dict(memories)
    (whole,) = made(audio_image(), "retrieval/mini-audio-image", limit=20, memories=list(given.values()))
    (again,) = made(
        audio_image(), "retrieval/mini-audio-image", limit=20, memories=list({**given, "clap-text": shuffled}.values())
    )
    for way in BASELINES:
        for key, figure in whole["figures"][way].items():
            assert again["figures"][way][key]["value"] == pytest.approx(figure["value"], abs=0.03)


def test_memories_of_one_kind_are_taken_together(memories, tmp_path):
    audio = cmcr.Memory(memories["clap-audio"])
    halves = []
    for part, rows in (("one", slice(0, 300)), ("other", slice(300, None))):
        halves.append(tmp_path / part)
        cmcr.write_memory(halves[-1], audio[rows], list(audio.ids[rows]), space="mini-clap", modality="audio",
                          fingerprint=audio.fingerprint)  # fmt: skip
    rest = [folder for name, folder in memories.items() if name != "clap-audio"]
    (whole,) = made(audio_image(), "retrieval/mini-audio-image", limit=20, memories=list(memories.values()))
    (split,) = made(audio_image(), "retrieval/mini-audio-image", limit=20, memories=[*halves, *rest])
    assert split["figures"] == whole["figures"]


def test_memories_that_do_not_fit(memories, tmp_path):
    run = "retrieval/mini-audio-image"
    without = [folder for name, folder in memories.items() if name != "clap-text"]
    with pytest.raises(ConfigError, match=r"the baselines need a memory of text in mini-clap; given are audio\."):
        made(audio_image(), run, limit=8, memories=without)
    with pytest.raises(
        ConfigError, match=r"the baselines need memories of mini-clip and mini-ulip, got mini-clip, mini-cla"
    ):
        made(cloud_text(), "classification/mini-image", limit=8, memories=list(memories.values()))
    no_sounds = [folder for name, folder in memories.items() if name != "clap-audio"]
    with pytest.raises(ConfigError, match=r"the baselines need a memory of audio; given are text\."):
        made(audio_image(), run, limit=8, memories=no_sounds)
    spaces = [dataclasses.replace(known, fingerprint="f" * 16) for known in audio_image().spaces]
    other = dataclasses.replace(audio_image(), spaces=tuple(spaces))
    with pytest.raises(ConfigError, match=r"those of mini-clip are of \w{16}, the connection was trained with f{16}\."):
        made(other, run, limit=8, memories=list(memories.values()))


def test_prompts_of_a_file_replace_the_own_ensemble(data, tmp_path):
    (tmp_path / "templates.json").write_text(json.dumps({"short": ["{}."], "long": ["a cloud of {}.", "the {}."]}))
    options = {"data": data, "prompts": tmp_path / "templates.json"}
    found = [
        next(
            runs_of(cloud_text(), "classification/modelnet40", Options(**options, prompts_key=key), {}, lambda *_: None)
        )
        for key in ("short", "long")
    ]
    assert [evaluation.prepared.counts.tolist() for evaluation in found] == [[1, 1], [2, 2]]
    with pytest.raises(ConfigError, match=r"templates.json: holds 2 lists; say which: long, short"):
        made(cloud_text(), "classification/modelnet40", **options)
    with pytest.raises(ConfigError, match=r"unknown list of prompts in .*'lnog'. Did you mean 'long'"):
        made(cloud_text(), "classification/modelnet40", **options, prompts_key="lnog")
    (retention,) = made(cloud_text(), "retention/coco", **options, prompts_key="short")
    assert retention["run"] == "retention/coco"


def test_splits_are_passed_on(data):
    with pytest.raises(ConfigError, match=r"split"):
        made(audio_image(), "retention/coco", data=data, split="nonsense")
