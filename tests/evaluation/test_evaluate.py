"""The harness: every task whole on the miniature world, what stands beside a figure, which runs are made, what is refused."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import cmcr
from cmcr.errors import ArtefactNotFoundError, ConfigError
from cmcr.evaluation.baselines import BASELINES, baselines_of
from cmcr.evaluation.datasets import LAYOUTS
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.evaluate import evaluate, facts_of, prepare
from cmcr.evaluation.intervals import paired_difference
from cmcr.evaluation.localization import consensus_iou, consensus_map
from cmcr.evaluation.metrics import PerQuery
from cmcr.evaluation.miniature import MINI_RUNS, mini_record
from cmcr.evaluation.prompts import TEMPLATES
from cmcr.evaluation.published import PUBLISHED
from cmcr.evaluation.runs import DATASETS, READERS, RUNS, IncompleteDataError, evaluate_runs
from cmcr.evaluation.tasks.embedding import NotConnectedError
from evaluation.datasets import tiny_sets
from evaluation.small_connections import audio_image, cloud_text, write_memories

# run, which connection, items, key to look at, at least, chance at most
CASES = [
    ("retrieval/mini-audio-image", audio_image, 60, "mean/R@1", 0.4, 0.1),
    ("retrieval/mini-point_cloud-text", cloud_text, 60, "mean/R@1", 0.7, 0.1),
    ("localization/mini", audio_image, 24, "proposals/cIoU@0.5", 0.6, 0.2),
    ("counterfactual/mini", audio_image, 40, "present/AP", 0.85, 0.7),
    ("classification/mini-point_cloud", cloud_text, 60, "point_cloud/top-1", 0.8, 0.1),
    ("classification/mini-image", audio_image, 60, "image/top-1", 0.7, 0.1),
    ("classification/mini-audio", audio_image, 60, "audio/top-1", 0.7, 0.1),
    ("retention/mini-image-text", audio_image, 60, "mean/R@1", 0.6, 0.1),
    ("retention/mini-audio-text", audio_image, 60, "mean/R@1", 0.7, 0.1),
    ("retention/mini-point_cloud-image", cloud_text, 60, "mean/R@1", 0.6, 0.1),
]


def measured(connection, run, items, **options):
    return next(evaluate_runs(connection, run, limit=items, **options))


def results_of(connection, run=None, **options):
    return [found.result for found in evaluate_runs(connection, run, **options)]


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    return {name: cmcr.Memory(path) for name, path in write_memories(tmp_path_factory.mktemp("memories")).items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name in ("coco", "esc-50", "modelnet40", "vgg-ss"):
        tiny_sets.write(name, root / name)
    return root


def test_all_miniature_runs_are_tried_here_and_readers_of_all_others_exist():
    assert [case[0] for case in CASES] == list(MINI_RUNS)
    assert len(set(RUNS)) == len(RUNS)
    assert {run.split("/")[0] for run in RUNS} == set(DATASETS)
    assert all(run in MINI_RUNS or READERS.get(run, run.split("/")[1]) in LAYOUTS for run in RUNS)


@pytest.mark.parametrize(("run", "connect", "items", "key", "least", "chance"), CASES, ids=[c[0] for c in CASES])
def test_miniature_runs_are_far_above_chance(run, connect, items, key, least, chance):
    result = measured(connect(), run, items=items).result
    figures = result["figures"]
    retention = run.startswith("retention/")
    assert list(figures) == ["connection", "chance", *(["own space"] if retention else [])]
    for name, of_method in figures.items():
        assert set(of_method) == set(figures["connection"])
        for key_of, figure in of_method.items():
            if name == "chance" and figure["low"] is None:  # computed
                assert 0 < figure["value"] <= 1
            else:
                assert 0 <= figure["low"] < figure["high"] <= 1
                assert "max_F1" in key_of or figure["low"] <= figure["value"] <= figure["high"]
            assert figure["n"] in (items, 2 * items)  # twice where true sounds and distractors are counted
    assert figures["connection"][key]["value"] >= least
    assert figures["chance"][key]["value"] <= chance
    assert figures["connection"][key]["low"] > (figures["chance"][key]["high"] or figures["chance"][key]["value"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    record = mini_record(run, limit=items)
    data = {"name": record.name, "sha256": record.content_hash, "left_out": 0, "failed": 0}
    prompts = {"prompts": "the miniature world's, 24 to 30 a class"} if run.startswith("classification/") else {}
    assert result["data"] == {**data, **prompts}
    own = figures.get("own space", {})
    assert result["kept"] == {name: figures["connection"][name]["value"] / own[name]["value"] for name in own}
    assert not retention or 0.7 < result["kept"][key] <= 1


def test_the_same_seed_gives_the_same_result_and_another_one_other_data():
    results = [measured(cloud_text(), "retention/mini-image-text", seed=seed, items=8).result for seed in (3, 3, 4)]
    assert results[0] == results[1]
    assert results[0]["data"]["sha256"] != results[2]["data"]["sha256"]
    # A random order's figures are computed, and do not depend on a seed.
    assert results[0]["figures"]["chance"] == results[2]["figures"]["chance"]
    assert results[0]["figures"]["chance"]["mean/R@1"] == {"value": 1 / 8, "low": None, "high": None, "n": 8}


def test_a_record_of_ones_own_needs_only_a_known_task():
    record = mini_record("classification/mini-audio", limit=10)
    prompts = [[f"{int(name)}"] for name in record.classes]
    result = evaluate(audio_image(), "classification/mine", record, prompts=prompts).result
    assert result["figures"]["connection"]["audio/top-1"]["value"] > 0.5
    with pytest.raises(ConfigError, match="Did you mean 'classification'"):
        evaluate(audio_image(), "clasification/mine", record)
    with pytest.raises(ConfigError, match="expected a LocalizationRecord"):
        evaluate(audio_image(), "localization/mine", record)
    with pytest.raises(ConfigError, match="seed"):
        evaluate(audio_image(), "classification/mine", record, seed=-1)


def test_another_connection_is_compared_on_the_same_items():
    ours, theirs = audio_image(), audio_image(seed=1, epochs=1)
    evaluation = measured(ours, "retrieval/mini-audio-image", items=40, against={"short": theirs})
    result = evaluation.result
    assert list(result["figures"]) == ["connection", "chance", "short"]
    alone = measured(theirs, "retrieval/mini-audio-image", items=40)
    assert result["figures"]["short"] == alone.result["figures"]["connection"]
    differences = result["connection_minus"]["short"]
    assert set(differences) == set(result["figures"]["connection"])
    for key, difference in differences.items():
        assert difference == paired_difference(evaluation.scores[key].values, alone.scores[key].values)._asdict()
    assert differences["mean/R@1"]["difference"] > 0.1


def test_connections_that_cannot_be_compared_are_refused_by_name():
    run, ours = "retention/mini-image-text", audio_image()
    renewed = [dataclasses.replace(known, fingerprint="f" * 16) for known in ours.spaces]
    for other in (cloud_text(), dataclasses.replace(ours, spaces=tuple(renewed))):
        with pytest.raises(ConfigError, match="theirs: expected a connection of the same encoders"):
            measured(ours, run, items=8, against={"theirs": other})
    for name in ("connection", "chance", "own space"):
        with pytest.raises(ConfigError, match=f"'{name}' is taken"):
            measured(ours, run, items=8, against={name: ours})


def test_published_rows_stand_only_beside_their_own_data_set_and_are_marked():
    record = mini_record("retention/mini-image-text", limit=8)
    rows = evaluate(audio_image(), "retention/coco", record).result["published_in_percent"]
    assert [row["source"] for row in rows] == [row["source"] for row in PUBLISHED["retention/coco"]]
    assert all(row["quoted"] is True for row in rows)
    assert evaluate(audio_image(), "retention/mine", record).result["published_in_percent"] == []


# Written from the papers' tables once more, apart from the code: run, who, first two figures, read in another's table.
QUOTED = """
retrieval/vgg-ss          C-MCR      1.94  7.69   other
retrieval/vgg-ss          Ex-MCR     2.13  8.13   own
retrieval/vgg-ss          ImageBind  14.82 35.67  other
retrieval/flickr-soundnet C-MCR      1.39  5.97   other
retrieval/flickr-soundnet Ex-MCR     1.57  5.94   own
retrieval/flickr-soundnet ImageBind  7.68  20.79  other
retention/audiocaps       CLAP,      40.25 76.21  other
retention/audiocaps       C-MCR      15.76 41.37  other
retention/clotho          CLAP,      18.46 41.70  other
retention/clotho          C-MCR      8.37  24.86  other
retention/coco            CLIP       40.24 64.78  other
retention/coco            C-MCR      16.67 37.04  other
retention/flickr30k       CLIP       71.89 90.55  other
retention/flickr30k       C-MCR      34.16 63.64  other
classification/modelnet40 Ex-MCR     66.53 93.60  own
classification/modelnet40 ULIP-2     84.7  -      own
classification/esc-50     ImageBind  66.9  -      own
classification/esc-50     AudioCLIP  69.40 -      own
classification/imagenet   CLIP       60.58 -      other
classification/imagenet   ImageBind  77.7  -      own
"""


def test_published_rows_are_those_of_the_papers():
    expected = [line.split() for line in QUOTED.strip().splitlines()]
    found = []
    for run, rows in PUBLISHED.items():
        assert run in RUNS
        for row in rows:
            figures = list(row["figures"].items())
            keys = {
                "retrieval": ["mean/R@1", "mean/R@5"],
                "retention": ["mean/R@1", "mean/R@5"],
                "classification": [f"{LAYOUTS[run.split('/')[1]].modalities[0]}/top-{k}" for k in (1, 5)],
            }[run.split("/")[0]]
            assert [key for key, _ in figures] == keys[: len(figures)]
            second = f"{figures[1][1]:.2f}" if len(figures) > 1 else "-"
            hand = "other" if row["second_hand"] else "own"
            found.append((run, row["source"].split()[0], figures[0][1], second, hand))
    assert found == [(run, who, float(first), second, hand) for run, who, first, second, hand in expected]


def test_the_result_identifies_the_connection_and_its_encoders(tmp_path):
    connection = audio_image()
    facts = facts_of(connection)
    assert (facts["method"], facts["seed"], facts["overlap"], facts["overlap_rows"]) == ("c-mcr", 0, "text", 800)
    for known in facts["spaces"]:
        assert known["fingerprint"] == connection.encoders[known["name"]].fingerprint
        assert known["model"] is known["revision"] is None
    assert facts_of(audio_image(seed=1, epochs=1))["weights_sha256"] != facts["weights_sha256"]
    fetched = SimpleNamespace(fingerprint="a" * 16, source="someone/model", revision="0123abc")
    local = SimpleNamespace(fingerprint="b" * 16, source=str(tmp_path), revision=None)
    with_models = dataclasses.replace(connection, encoders={"mini-clip": fetched, "mini-clap": local})
    assert facts_of(with_models)["spaces"] == [
        {"name": "mini-clip", "fingerprint": "a" * 16, "model": "someone/model", "revision": "0123abc"},
        {"name": "mini-clap", "fingerprint": "b" * 16, "model": tmp_path.name, "revision": None},
    ]


def test_items_that_fail_are_counted_and_several_captions_have_no_paired_mean():
    drawn = mini_record("retention/mini-image-text", limit=9)
    pictures = [*drawn.first[:4], "nowhere.png", *drawn.first[5:]]
    texts = [text for text in drawn.second for _ in range(2)]
    lists = PerQuery.several([[2 * row, 2 * row + 1] for row in range(9)])
    ids = [str(row) for row in range(18)]
    record = RetrievalRecord("holes", drawn.modalities, pictures, texts, drawn.first_ids, ids, lists, 2)
    result = evaluate(audio_image(), "retention/holes", record, against={"same": audio_image()}).result
    assert (result["data"]["failed"], result["data"]["left_out"]) == (1, 2)
    assert result["figures"]["connection"]["image_to_text/R@1"]["n"] == 8
    assert result["figures"]["connection"]["text_to_image/R@1"]["n"] == 16
    differences = result["connection_minus"]["same"]
    assert set(differences) == set(result["figures"]["connection"])
    # Both captions of a picture are one cluster: no more is known than of eight pictures.
    same = differences["text_to_image/R@1"]
    assert (same["difference"], same["sign_flip_p"]) == (0.0, 1.0)
    assert same["high"] == pytest.approx(2.36 / 10, abs=0.01)
    assert differences["mean/R@1"]["sign_flip_p"] is None


def test_miniature_runs_are_those_that_the_modalities_allow_and_hold_the_limit():
    results = results_of(cloud_text(), limit=8)
    assert [result["run"] for result in results] == [
        "retrieval/mini-point_cloud-text",
        "classification/mini-point_cloud",
        "classification/mini-image",
        "retention/mini-image-text",
        "retention/mini-point_cloud-image",
    ]
    assert {figure["n"] for result in results for figure in result["figures"]["connection"].values()} == {8}
    assert len(mini_record("counterfactual/mini", limit=5000).ids) == 400


@pytest.mark.parametrize(
    ("run", "options", "fact"),
    [
        ("classification/mini-image", {"data": ".", "split": "train"}, "leave --data and --split out"),
        (None, {"prompts": "templates.json"}, "leave --prompts out"),
        ("classification/mini-image", {"limit": 3}, "at least 8 items, got 3"),
        ("retrieval/mini-image", {}, "Did you mean 'retrieval/mini-audio-image'"),
    ],
)
def test_wrong_runs_are_refused(run, options, fact):
    with pytest.raises(ConfigError, match=fact):
        results_of(cloud_text(), run, **options)


def test_runs_of_other_modalities_are_refused_before_anything_is_embedded():
    stages = []
    for run in ("localization/mini", "retention/mini-audio-text"):
        with pytest.raises(NotConnectedError, match="audio"):
            results_of(cloud_text(), run, limit=8, progress=lambda what, share: stages.append(what))
    assert stages == []
    results_of(cloud_text(), "retention/mini-image-text", limit=8, progress=lambda what, share: stages.append(what))
    assert stages == ["image in mini-clip", "text in mini-clip", "scoring own space"]


def test_the_folder_may_be_that_of_the_data_set_or_of_all(data, tmp_path):
    inside, outside = (
        results_of(audio_image(), "classification/esc-50", data=folder) for folder in (data / "esc-50", data)
    )
    assert inside == outside
    assert inside[0]["figures"]["connection"]["audio/top-1"]["n"] == 3
    with pytest.raises(ArtefactNotFoundError, match=r"testSet\.txt"):
        results_of(audio_image(), "retrieval/ave", data=tmp_path)


def test_all_takes_what_is_there_and_connected_and_names_what_is_incomplete(data, tmp_path):
    assert [result["run"] for result in results_of(cloud_text(), data=data)] == [
        "classification/modelnet40",
        "retention/coco",
    ]
    root = shutil.copytree(data, tmp_path / "data")
    (root / "ave").mkdir()
    (root / "scanobjectnn").mkdir()  # nothing that this connection can be measured on
    (root / "vgg-ss" / "vggss.json").unlink()
    found, evaluations = [], evaluate_runs(audio_image(), data=root)
    with pytest.raises(IncompleteDataError) as caught:
        found.extend(evaluation.result["run"] for evaluation in evaluations)
    assert found == ["classification/esc-50", "retention/coco"]
    named = [line.split(":")[0] for line in str(caught.value).splitlines() if line.startswith("- ")]
    assert named == ["- retrieval/ave", "- retrieval/vgg-ss", "- localization/vgg-ss"]
    with pytest.raises(ConfigError, match="nonsense"):
        results_of(audio_image(), data=data, split="nonsense")


def test_nothing_there_or_nothing_connected(data, tmp_path):
    with pytest.raises(ConfigError, match="expected a folder for each data set"):
        results_of(audio_image(), data=tmp_path)
    tiny_sets.write("esc-50", tmp_path / "esc-50")
    with pytest.raises(ConfigError, match="fit no run"):
        results_of(cloud_text(), data=tmp_path)


@pytest.mark.parametrize(("key", "counts"), [("short", [1, 1]), ("long", [2, 2])])
def test_prompts_of_a_file_replace_the_own_ensemble(data, tmp_path, key, counts):
    file = tmp_path / "templates.json"
    file.write_text(json.dumps({"short": ["{}."], "long": ["a cloud of {}.", "the {}."]}))
    (found,) = evaluate_runs(cloud_text(), "classification/modelnet40", data=data, prompts=file, prompts_key=key)
    assert found.prepared.counts.tolist() == counts


def test_baselines_stand_beside_a_run_fitted_on_what_the_memories_hold_in_any_order(memories, tmp_path):
    """The overlap is matched by ids: in another order of its items, or of the memories, the fit is the same."""
    texts = memories["clap-text"]
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = cmcr.write_memory(
        tmp_path / "shuffled", np.asarray(texts)[order], [texts.ids[row] for row in order], space="mini-clap",
        modality="text", fingerprint=texts.fingerprint, dtype="float32",
    )  # fmt: skip
    found = []
    for given in (memories, {**memories, "clap-text": shuffled}):
        found += evaluate_runs(audio_image(), "retrieval/mini-audio-image", limit=40, memories=list(given.values()))
    figures = found[0].result["figures"]
    assert list(figures) == ["connection", "chance", *BASELINES]
    assert figures["centred ridge"]["mean/R@1"]["value"] > figures["chance"]["mean/R@1"]["value"] + 0.1
    for name, method in baselines_of(audio_image(), list(memories.values())[::-1]).items():
        turned = found[0].prepared.score(method)
        for key, figure in figures[name].items():
            assert found[1].result["figures"][name][key]["value"] == pytest.approx(figure["value"], abs=1e-6)
            assert turned[key].value == pytest.approx(figure["value"], abs=1e-6)


def test_memories_that_do_not_fit_the_connection_are_refused(memories):
    def refused(connection, fact, *without):
        with pytest.raises(ConfigError, match=fact):
            baselines_of(connection, [memory for name, memory in memories.items() if name not in without])

    refused(audio_image(), "they share no modality", "clap-text")
    refused(cloud_text(), "memories of mini-clip and mini-ulip")
    renewed = [dataclasses.replace(known, fingerprint="f" * 16) for known in audio_image().spaces]
    refused(dataclasses.replace(audio_image(), spaces=tuple(renewed)), "f{16}")
    without_sounds = [memory for name, memory in memories.items() if name != "clap-audio"]
    with pytest.raises(ConfigError, match="mini-clap"):
        results_of(audio_image(), "retrieval/mini-audio-image", limit=8, memories=without_sounds)


def test_two_annotators_must_agree_on_flickr_soundnet_and_one_is_enough_elsewhere():
    """Senocak et al. (2018): a pixel counts in full where two of three people drew, by half where one did."""
    left, both = [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]
    record = mini_record("localization/mini", limit=8)
    record = dataclasses.replace(record, boxes=[np.array([left, left, both])] * 8)
    found = {}
    for run in ("localization/flickr-soundnet", "localization/vgg-ss"):
        prepared = prepare(audio_image(), run, record)
        answer = next(prepared.answers(lambda embedded: np.ones((len(embedded.rows), 1), dtype=np.float32)))
        found[run] = prepared.agreement, answer.box_ious[0]  # of the whole picture
    # Half of the pixels count 1, half of them 1/2: all of the map is claimed, and none of what counts 0.
    assert found == {"localization/flickr-soundnet": (2, 1.0), "localization/vgg-ss": (1, 1.0)}
    maps = [consensus_map(record.boxes[0], (4, 4), agreement=n) for n in (2, 1)]
    assert [sorted(set(drawn.ravel().tolist())) for drawn in maps] == [[0.5, 1.0], [1.0]]
    half = np.zeros((4, 4), dtype=bool)
    half[:, :2] = True
    assert [consensus_iou(half, drawn) for drawn in maps] == pytest.approx([8 / 12, 8 / 16])


def test_results_name_the_prompts_that_they_were_reached_with(data, tmp_path):
    (tmp_path / "prompts.json").write_text(json.dumps({"mine": ["a {}.", "the {}."], "other": ["{}"]}))
    run = "classification/esc-50"
    own, given = (
        results_of(audio_image(), run, data=data, **options)[0]["data"]["prompts"]
        for options in ({}, {"prompts": tmp_path / "prompts.json", "prompts_key": "mine"})
    )
    assert own == f"cmcr's own, {len(TEMPLATES['audio'])} a class"
    assert given == "mine of prompts.json, 2 a class"
