"""The harness on the miniature world: every task whole, what stands beside a figure, and what is refused."""

import dataclasses
import json
import re

import numpy as np
import pytest

from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.evaluate import DATASETS, FORMAT, READERS, RUNS, VERSION, evaluate, evaluate_miniature, facts_of
from cmcr.evaluation.intervals import paired_difference
from cmcr.evaluation.metrics import PerQuery
from cmcr.evaluation.miniature import MINI_RECORDS, mini_record
from cmcr.evaluation.published import PUBLISHED
from cmcr.evaluation.tasks.embedding import NotConnectedError
from cmcr.evaluation.tasks.ways import OwnSpace, ThroughConnection
from evaluation.small_connections import audio_image, cloud_text

METRICS = (*(f"{kind}@{k}" for kind in ("R", "true_recall") for k in (1, 5, 10)), "mAP", "MRR", "nDCG@10")
LOCALIZATION = {
    *(f"{kind}/{key}" for kind in ("proposals", "dense") for key in ("cIoU@0.5", "AUC")),
    *(f"{name}/AP" for name in ("silence", "noise", "other_sound")),
}


def both_ways(first, second):
    names = f"{first}_to_{second}", f"{second}_to_{first}", "mean"
    return {f"{name}/{metric}" for name in names for metric in METRICS}


def tops(modality):
    return {f"{modality}/{key}" for key in ("top-1", "top-3", "top-5", "class_mean_top-1")}


# run, which connection, items, keys, key to look at, at least, chance at most
CASES = [
    ("retrieval/mini-audio-image", audio_image, 60, both_ways("audio", "image"), "mean/R@1", 0.4, 0.1),
    ("retrieval/mini-point_cloud-text", cloud_text, 60, both_ways("point_cloud", "text"), "mean/R@1", 0.7, 0.1),
    ("localization/mini", audio_image, 12, LOCALIZATION, "proposals/cIoU@0.5", 0.7, 0.2),
    ("counterfactual/mini", audio_image, 40, {"present/AP", "present/max_F1"}, "present/AP", 0.85, 0.7),
    ("classification/mini-point_cloud", cloud_text, 60, tops("point_cloud"), "point_cloud/top-1", 0.8, 0.1),
    ("classification/mini-image", audio_image, 60, tops("image"), "image/top-1", 0.7, 0.1),
    ("classification/mini-audio", audio_image, 60, tops("audio"), "audio/top-1", 0.7, 0.1),
    ("retention/mini-image-text", audio_image, 60, both_ways("image", "text"), "mean/R@1", 0.6, 0.1),
    ("retention/mini-audio-text", audio_image, 60, both_ways("audio", "text"), "mean/R@1", 0.7, 0.1),
    ("retention/mini-point_cloud-image", cloud_text, 60, both_ways("point_cloud", "image"), "mean/R@1", 0.6, 0.1),
]


def test_all_miniature_runs_are_tried_here():
    assert [case[0] for case in CASES] == list(MINI_RECORDS)


@pytest.mark.parametrize(
    ("run", "connect", "items", "keys", "key", "least", "chance"), CASES, ids=[c[0] for c in CASES]
)
def test_miniature_runs_are_far_above_chance(run, connect, items, keys, key, least, chance):
    result = evaluate_miniature(connect(), run, items=items).result
    figures = result["figures"]
    retention = run.startswith("retention/")
    assert list(figures) == ["connection", "chance", *(["own space"] if retention else [])]
    for way in figures:
        assert set(figures[way]) == keys
        for figure in figures[way].values():
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
            assert figure["n"] == (2 * items if key.startswith("proposals") and figure["n"] != items else items)
    assert figures["connection"][key]["value"] >= least
    assert figures["chance"][key]["value"] <= chance
    assert figures["connection"][key]["low"] > figures["chance"][key]["high"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["data"] == {
        "name": mini_record(run, items=8).name,
        "sha256": mini_record(run, 0, items).content_hash,
        "left_out": 0,
        "failed": 0,
    }
    assert (result["run"], result["format"], result["version"], result["seed"]) == (run, FORMAT, VERSION, 0)
    assert result["published_in_percent"] == []
    assert result["connection_minus"] == {}
    kept = {
        name: figures["connection"][name]["value"] / own["value"] for name, own in figures.get("own space", {}).items()
    }
    assert result["kept"] == kept
    assert not retention or 0.7 < kept[key] <= 1


def test_the_same_seed_gives_the_same_result_and_another_one_other_data():
    results = [
        evaluate_miniature(cloud_text(), "retention/mini-image-text", seed=seed, items=20).result for seed in (3, 3, 4)
    ]
    assert json.dumps(results[0]) == json.dumps(results[1])
    assert results[0]["seed"] == 3
    assert results[0]["data"]["sha256"] != results[2]["data"]["sha256"]
    assert results[0]["figures"]["chance"] != results[2]["figures"]["chance"]


@pytest.mark.parametrize(
    ("connect", "run", "said"),
    [
        (
            audio_image,
            "retrieval/mini-point_cloud-text",
            "mini-clap does not connect point_cloud and text: it has mini-c",
        ),
        (audio_image, "classification/mini-point_cloud", "does not connect point_cloud and text"),
        (
            audio_image,
            "retention/mini-point_cloud-image",
            "no space of the connection embeds both point_cloud and image",
        ),
        (cloud_text, "localization/mini", "does not connect image and audio"),
        (cloud_text, "counterfactual/mini", "does not connect image and audio"),
        (cloud_text, "classification/mini-audio", "does not connect audio and text"),
        (cloud_text, "retention/mini-audio-text", "no space of the connection embeds both audio and text"),
    ],
)
def test_runs_of_other_modalities_are_refused_before_anything_is_embedded(connect, run, said):
    told = []
    with pytest.raises(NotConnectedError, match=said):
        evaluate_miniature(connect(), run, items=8, progress=lambda what, share: told.append(what))
    assert told == []


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"unknown run 'retrieval/mini-audio-imgae'. Did you mean 'retrieval/mini-audi"
    ):
        evaluate_miniature(audio_image(), "retrieval/mini-audio-imgae")
    with pytest.raises(ConfigError, match=r"unknown task 'retreival'. Did you mean 'retrieval'"):
        evaluate(audio_image(), "retreival/mine", mini_record("retrieval/mini-audio-image", items=8))


def test_a_record_of_ones_own_needs_only_a_known_task():
    record = mini_record("classification/mini-audio", items=10)
    words = [f"{int(name)}" for name in record.classes]
    result = evaluate(audio_image(), "classification/mine", record, prompts=[[word] for word in words]).result
    assert result["run"] == "classification/mine"
    assert result["figures"]["connection"]["audio/top-1"]["value"] > 0.5
    with pytest.raises(ConfigError, match=r"miniature audio: expected prompts of 10 classes, got those of 9"):
        evaluate(audio_image(), "classification/mine", record, prompts=[[word] for word in words[:9]])


@pytest.mark.parametrize(
    ("run", "record", "said"),
    [
        (
            "retrieval/x",
            "localization/mini",
            "retrieval/x: expected a record of kind RetrievalRecord",
        ),
        (
            "retention/x",
            "counterfactual/mini",
            "retention/x: expected a record of kind RetrievalRecord",
        ),
        (
            "classification/x",
            "retention/mini-audio-text",
            "classification/x: expected a record of kind ClassificationRecord",
        ),
        (
            "localization/x",
            "counterfactual/mini",
            "localization/x: expected a record of kind LocalizationRecord",
        ),
        (
            "counterfactual/x",
            "localization/mini",
            "counterfactual/x: expected a record of kind CounterfactualRecord",
        ),
    ],
)
def test_records_of_another_kind_are_refused(run, record, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        evaluate(audio_image(), run, mini_record(record, items=8))


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
def test_seeds_that_are_none_are_refused(seed):
    said = rf"seed: expected a whole number, 0 or more, got {seed!r}"
    with pytest.raises(ConfigError, match=said):
        evaluate_miniature(audio_image(), "retention/mini-image-text", seed=seed, items=8)
    with pytest.raises(ConfigError, match=said):
        evaluate(audio_image(), "retention/x", mini_record("retention/mini-image-text", items=8), seed=seed)


def test_another_connection_is_compared_on_the_same_items():
    ours, theirs = audio_image(), audio_image(seed=1, epochs=1)
    evaluation = evaluate_miniature(ours, "retrieval/mini-audio-image", items=40, against={"short": theirs})
    result = evaluation.result
    assert list(result["figures"]) == ["connection", "chance", "short"]
    alone = evaluate_miniature(theirs, "retrieval/mini-audio-image", items=40)
    assert result["figures"]["short"] == alone.result["figures"]["connection"]
    differences = result["connection_minus"]["short"]
    assert set(differences) == both_ways("audio", "image")
    for key, difference in differences.items():
        expected = paired_difference(evaluation.scores[key].values, alone.scores[key].values)
        assert difference == expected._asdict()
        gap = result["figures"]["connection"][key]["value"] - result["figures"]["short"][key]["value"]
        assert difference["difference"] == pytest.approx(gap)
    assert differences["mean/R@1"]["difference"] > 0.1
    assert differences["mean/R@1"]["sign_flip_p"] < 0.05
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    itself = evaluate_miniature(ours, "retrieval/mini-audio-image", items=40, against={"same": ours}).result
    assert all(row["difference"] == 0 for row in itself["connection_minus"]["same"].values())


def test_a_connection_of_other_encoders_is_not_compared():
    said = r"other: connects other encoders \(mini-clip, mini-ulip\) than .*\(mini-clip, mini-clap\): items cannot"
    with pytest.raises(ConfigError, match=said):
        evaluate_miniature(audio_image(), "retention/mini-image-text", items=8, against={"other": cloud_text()})
    renewed = [dataclasses.replace(known, fingerprint="f" * 16) for known in audio_image().spaces]
    trained_elsewhere = dataclasses.replace(audio_image(), spaces=tuple(renewed))
    with pytest.raises(ConfigError, match=r"other: connects other encoders"):
        evaluate_miniature(audio_image(), "retention/mini-image-text", items=8, against={"other": trained_elsewhere})


@pytest.mark.parametrize("name", ["connection", "chance", "own space"])
def test_another_connection_cannot_take_the_place_of_a_figure(name):
    with pytest.raises(ConfigError, match=rf"against: the name '{name}' is taken; call the other connection otherwise"):
        evaluate_miniature(audio_image(), "retention/mini-image-text", items=8, against={name: audio_image()})


def test_ways_of_ones_own_stand_beside():
    class Reversed(OwnSpace):
        def rows(self, embedded):
            return embedded.rows[::-1].copy()

    way = Reversed("reversed")
    result = evaluate_miniature(audio_image(), "retention/mini-audio-text", items=20, ways=[way]).result
    assert list(result["figures"]) == ["connection", "chance", "own space", "reversed"]
    assert result["figures"]["reversed"] != result["figures"]["chance"]


def test_published_rows_stand_only_beside_their_own_data_set_and_are_marked():
    record = mini_record("retention/mini-image-text", items=8)
    rows = evaluate(audio_image(), "retention/coco", record).result["published_in_percent"]
    assert [row["source"] for row in rows] == [row["source"] for row in PUBLISHED["retention/coco"]]
    assert all(row["quoted"] is True for row in rows)
    assert rows[1]["figures"] == {"mean/R@1": 16.67, "mean/R@5": 37.04}
    assert "quoted" not in PUBLISHED["retention/coco"][0]
    for run in ("retention/mine", "retrieval/coco"):
        crossing = mini_record("retrieval/mini-audio-image", items=8) if run.startswith("retrieval") else record
        assert evaluate(audio_image(), run, crossing).result["published_in_percent"] == []


def test_published_rows_belong_to_runs_that_exist_and_keys_that_are_measured():
    modalities = {"retention": ("image", "text"), "retrieval": ("audio", "image")}
    for run, rows in PUBLISHED.items():
        assert run in RUNS
        task = run.split("/")[0]
        keys = tops("point_cloud") if task == "classification" else both_ways(*modalities[task])
        for row in rows:
            assert set(row["figures"]) <= keys
            assert all(1 < value < 100 for value in row["figures"].values())  # percent, not shares


def test_runs_are_named_after_tasks_and_their_readers_exist():
    from cmcr.evaluation.datasets import LAYOUTS

    assert len(set(RUNS)) == len(RUNS)
    assert {run.split("/")[0] for run in RUNS} == set(DATASETS)
    for run in RUNS:
        assert run in MINI_RECORDS or READERS.get(run, run.split("/")[1]) in LAYOUTS


def test_the_result_says_which_connection_and_which_encoders():
    connection = audio_image()
    facts = evaluate_miniature(connection, "retention/mini-image-text", items=8).result["connection"]
    assert facts == facts_of(connection)
    assert {key: facts[key] for key in ("method", "seed", "overlap", "overlap_rows", "width")} == {
        "method": "c-mcr",
        "seed": 0,
        "overlap": "text",
        "overlap_rows": 800,
        "width": connection.width,
    }
    assert [known["name"] for known in facts["spaces"]] == ["mini-clip", "mini-clap"]
    for known in facts["spaces"]:
        assert known["fingerprint"] == connection.encoders[known["name"]].fingerprint
        assert known["model"] is known["revision"] is None
    assert re.fullmatch("[0-9a-f]{64}", facts["weights_sha256"])
    assert facts_of(audio_image(seed=1, epochs=1))["weights_sha256"] != facts["weights_sha256"]


def test_models_are_told_with_their_revision_and_folders_without_their_place(tmp_path):
    class Fetched:
        fingerprint, source, revision = "a" * 16, "someone/model", "0123abc"

    class Local:
        fingerprint, source, revision = "b" * 16, str(tmp_path), None

    connection = dataclasses.replace(audio_image(), encoders={"mini-clip": Fetched(), "mini-clap": Local()})
    fetched, local = facts_of(connection)["spaces"]
    assert fetched == {
        "name": "mini-clip", "fingerprint": "a" * 16, "model": "someone/model", "revision": "0123abc",
    }  # fmt: skip
    assert local == {"name": "mini-clap", "fingerprint": "b" * 16, "model": tmp_path.name, "revision": None}


def test_without_encoders_the_message_says_what_to_do():
    connection = dataclasses.replace(audio_image(), encoders={})
    with pytest.raises(
        ConfigError, match=r"space 'mini-clip' are not attached: name their model, such as --model mini-c"
    ):
        evaluate_miniature(connection, "retention/mini-image-text", items=8)
    assert [known["fingerprint"] for known in facts_of(connection)["spaces"]] == [
        known.fingerprint for known in audio_image().spaces
    ]


def test_items_that_fail_are_counted_in_the_result():
    whole = mini_record("retention/mini-image-text", items=9)
    first = [*whole.first[:4], "nowhere.png", *whole.first[5:]]
    record = RetrievalRecord(
        "holes", whole.modalities, first, whole.second, whole.first_ids, whole.second_ids, whole.positives, 2
    )
    result = evaluate(audio_image(), "retention/holes", record).result
    assert (result["data"]["failed"], result["data"]["left_out"]) == (1, 2)
    assert result["figures"]["connection"]["image_to_text/R@1"]["n"] == 8


def test_several_captions_a_picture_have_no_paired_mean():
    drawn = mini_record("retention/mini-image-text", items=8)
    texts = [text for text in drawn.second for _ in range(2)]
    ids = [str(row) for row in range(16)]
    lists = PerQuery.several([[2 * row, 2 * row + 1] for row in range(8)])
    record = RetrievalRecord("captions", drawn.modalities, drawn.first, texts, drawn.first_ids, ids, lists)
    result = evaluate(audio_image(), "retention/captions", record, against={"same": audio_image()}).result
    assert result["figures"]["connection"]["text_to_image/R@1"]["n"] == 16
    assert not any(key.startswith("mean/") for key in result["connection_minus"]["same"])
    assert "image_to_text/R@1" in result["connection_minus"]["same"]


@pytest.mark.parametrize("items", [7, 401])
def test_numbers_of_items_out_of_range(items):
    with pytest.raises(ConfigError, match=rf"localization/mini: expected 8 to 400 items, got {items}"):
        evaluate_miniature(audio_image(), "localization/mini", items=items)


def test_progress_says_what_is_done():
    told = []
    evaluate_miniature(
        audio_image(), "retention/mini-audio-text", items=8, progress=lambda what, share: told.append(what)
    )
    assert told == ["audio in mini-clap", "text in mini-clap", "scoring chance", "scoring own space"]


def test_prepared_data_can_be_scored_again():
    evaluation = evaluate_miniature(audio_image(), "counterfactual/mini", items=24)
    again = evaluation.prepared.score(ThroughConnection(audio_image()))
    assert again["present/AP"].of(np.arange(24)) == evaluation.result["figures"]["connection"]["present/AP"]["value"]


def test_localization_answers_with_the_boxes_it_is_given():
    class WholePicture:
        def boxes(self, picture):
            return np.array([[0.0, 0.0, 1.0, 1.0]])

    result = evaluate_miniature(audio_image(), "localization/mini", items=8, proposals=WholePicture()).result
    assert (
        result["figures"]["connection"]["proposals/cIoU@0.5"]["value"] == 0
    )  # a number fills a quarter of the picture
