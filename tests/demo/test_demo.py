"""The demonstration on few items and epochs, as a newcomer runs it: good figures, the same again, a page that stands alone."""

import contextlib
import dataclasses
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import cmcr
from cmcr.cli import main
from cmcr.connection.methods import auto, residual
from cmcr.data.numbers import UNSEEN_NUMBERS, class_texts, handwriting
from cmcr.demo import measure as measure_module
from cmcr.demo import run
from cmcr.demo import world as world_module
from cmcr.demo.measure import DemoOptions, connect_all, jobs_of, measure, retention_of, true_pairs
from cmcr.demo.run import QUICK, run_demo
from cmcr.demo.world import draw_world, embed_world, gap_of, gap_step, with_gap
from cmcr.errors import ConfigError, MissingDependencyError, WriteError
from cmcr.evaluation.ablations import ABLATIONS
from cmcr.evaluation.baselines import through

OPTIONS = DemoOptions(seed=1, **QUICK)


PASSES = {"c-mcr": {"epochs": 12}, "paired_oracle": {"epochs": 5}}


def few_passes(data, options):
    return {name: (data, {**how, **PASSES.get(name, {})}) for name, (data, how) in jobs_of(data, options).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The verb in a new folder and the cases that it embedded: trainings are short, tasks small, a class is six phrasings."""
    embedded, shown = [], io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.chdir(tmp_path_factory.mktemp("newcomer"))
        patch.setattr(run, "jobs_of", few_passes)
        trained = auto.TRAINED._replace(settings=residual.ResidualSettings(epochs=5))
        patch.setattr(auto, "CANDIDATES", (*auto.CANDIDATES[:3], trained))
        patch.setattr(world_module, "class_texts", lambda number: class_texts(number)[:6])
        patch.setattr(measure_module, "_quarter_of_passes", lambda name: {} if name == "cca" else {"epochs": 5})
        patch.setattr(measure_module, "ABLATIONS", {"only L_ttc": {**ABLATIONS["only L_ttc"], "epochs": 2}})
        patch.setattr(measure_module, "_ITEMS", {})
        patch.setattr(measure_module, "_OTHER_ITEMS", 16)
        patch.setattr(run, "embed_world", lambda *given: embedded.extend(embed_world(*given)) or embedded)
        assert main(["demo", "--quick", "--ablations", "--seed", "1"]) == 0
        out = Path("cmcr-demo").resolve()
    assert str(out / "report.html") in shown.getvalue()
    return out, json.loads((out / "results.json").read_text()), embedded


@pytest.fixture(scope="module")
def demo(whole):
    return whole[:2]


@pytest.fixture(scope="module")
def cases(whole):
    return whole[2]


@pytest.fixture(scope="module")
def world():
    return draw_world(OPTIONS.seed, OPTIONS.per_number)


def test_spaces_that_never_met_are_connected(demo):
    for case in demo[1]["connections"].values():
        for task in case["tasks"]:
            r1 = {method: figures[f"{task}/R@1"] for method, figures in case["methods"].items()}
            assert min(r1["auto"], r1["c-mcr"]) > 400 * r1["chance"], (task, r1)
            assert case["methods"]["auto"][f"{task}/unseen/R@1"] > 400 * r1["chance"], task
            assert r1["auto"] > max(r1["centred ridge"], r1["centred procrustes"], r1["c-mcr"]) - 2, (task, r1)
        assert min(space["kept"] for space in case["retention"].values()) >= 0.99
        assert case["choice"]["chosen"] in case["choice"]["candidates"]
        assert case["diagnosis"]
        assert all(finding["ok"] for finding in case["diagnosis"])


def test_the_same_seed_gives_the_same_connection_and_figures_bit_for_bit(demo, cases, world, tmp_path):
    data = cases[1]  # for which the closed form is chosen, which is quick
    assert all((data.numbers[modality] == numbers).all() for modality, numbers in world.numbers.items())
    figures = demo[1]["connections"][data.case.name]
    jobs = [(data, {"method": figures["choice"]["chosen"]}), (data, {"method": "c-mcr", **PASSES["c-mcr"]})]
    connection, trained = connect_all(jobs, OPTIONS, lambda share: None)
    connection.save(tmp_path / "again")
    saved = [folder / "model.safetensors" for folder in (tmp_path / "again", demo[0] / "connections" / data.case.name)]
    assert saved[0].read_bytes() == saved[1].read_bytes()
    assert measure(data, through(connection)) == figures["methods"]["auto"]
    assert measure(data, through(trained)) == figures["methods"]["c-mcr"]
    assert retention_of(data, connection) == figures["retention"]


def test_without_quick_it_is_whole(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "run_demo", lambda out, options, progress: asked.append(options) or {})
    for arguments in ([], ["--quick"]):
        assert main(["demo", "--out", str(tmp_path), "--json", *arguments]) == 0
    assert asked == [DemoOptions(), DemoOptions(per_number=1)]


def test_memories_hold_no_unseen_number_and_are_not_paired(world):
    for modality, numbers in world.numbers.items():
        assert not set(numbers.tolist()) & set(UNSEEN_NUMBERS.tolist()), modality
        assert len(world.memory[modality]) == len(numbers) == 800
        assert len(world.test[modality]) == 1000
    orders = list(world.numbers.values())
    assert all((a == b).mean() < 0.02 for i, a in enumerate(orders) for b in orders[:i])


def test_the_oracle_pairs_true_numbers(cases):
    for data in cases:
        pairs = true_pairs(data, seed=0)
        for memories, outer in zip(data.memories, data.case.outer, strict=True):
            for i in range(0, 800, 97):
                source = int((memories.rows[outer] == pairs[memories.space][i]).all(dim=1).nonzero()[0, 0])
                assert data.numbers[outer][source] == data.numbers[data.case.overlap][i]


def test_modalities_are_moved_as_far_apart_as_asked_and_each_space_finds_its_own_as_before(cases):
    gap = 1.1
    for data in cases:
        moved = with_gap(data, gap)
        for before, after, items, own in zip(data.memories, moved.memories, moved.outer, moved.own, strict=True):
            first, second = (after.rows[modality].numpy() for modality in (data.case.overlap, items.modality))
            assert np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)) == pytest.approx(gap, abs=1e-5)
            assert gap_of(own[0].rows, own[1].rows) == pytest.approx(gap, abs=0.02)
            np.testing.assert_allclose(np.linalg.norm(items.rows, axis=1), 1, atol=1e-6)
            # A step across all that the items show: every cosine becomes (c - h^2) / (1 + h^2).
            length = np.linalg.norm(
                gap_step(*(before.rows[m].numpy() for m in (data.case.overlap, items.modality)), gap)
            )
            cosines = [a.rows @ b.rows.T for pair in (data.own, moved.own) for a, b in pair if a.space == items.space]
            np.testing.assert_allclose(cosines[1], (cosines[0] - length**2) / (1 + length**2), atol=0.06)
            found = [(each.argmax(axis=1) == np.arange(1000)).mean() for each in cosines]
            assert found[1] == pytest.approx(found[0], abs=0.01)


def test_a_wide_gap_costs_the_papers_form_what_centring_saves(demo):
    assert "wide_gap" not in demo[1]["connections"]["3d-text"]
    wide = demo[1]["connections"]["audio-image"]["wide_gap"]
    assert all(gap["before"] < 0.3 < 0.98 < gap["wide"] < 1.02 for gap in wide["gaps"].values())
    assert list(wide["methods"])[:3] == ["c-mcr without centring", "c-mcr", "cca"]
    assert wide["method"] in wide["methods"]
    r1 = {
        (name, gap): np.mean([figures[f"{task}/R@1"] for task in ("audio_to_image", "image_to_audio")])
        for name, both in wide["methods"].items()
        for gap, figures in both.items()
    }
    left = {name: both["wide"]["gap_left"] for name, both in wide["methods"].items()}
    assert left.pop("c-mcr without centring") > 1 > 0.2 > max(left.values())
    assert r1["c-mcr without centring", "wide"] < r1["c-mcr", "wide"] - 2
    assert wide["methods"]["c-mcr without centring"]["wide"]["kept"] < wide["methods"]["c-mcr"]["wide"]["kept"] - 0.2
    for name in ("c-mcr", "cca", wide["method"]):
        assert r1[name, "wide"] == pytest.approx(r1[name, "before"], abs=3)


def test_results_hold_every_figure_that_must_stand_beside_ours(demo):
    results = demo[1]
    assert results["finished"] is True
    assert {name: case["tasks"] for name, case in results["connections"].items()} == {
        "audio-image": ["audio_to_image", "image_to_audio"],
        "3d-text": ["point_cloud_to_text", "text_to_point_cloud"],
    }
    for case in results["connections"].values():
        assert list(case["methods"]) == [
            "chance", "centred ridge", "centred procrustes", "cca", "posterior", "c-mcr", "auto", "paired_oracle",
        ]  # fmt: skip
        assert list(case["ablations"]) == ["only L_ttc"]
        assert set(case["retention"]) == set(case["spaces"])
        measured = {**case["methods"], **case["ablations"]}
        chance = measured.pop("chance")
        assert chance == {
            f"{task}{of}/R@{k}": k / 10 for task in case["tasks"] for of in ("", "/unseen") for k in (1, 5, 10)
        }
        for figures in measured.values():
            for task in case["tasks"]:
                low, high = figures[f"{task}/R@5/interval"]
                assert 0 <= low <= figures[f"{task}/R@5"] <= high <= 100
                assert figures[f"{task}/R@1"] <= figures[f"{task}/R@5"] <= figures[f"{task}/R@10"]
                assert 0 <= figures[f"{task}/unseen/R@1"] <= 100


def test_the_page_stands_alone_and_lets_people_look_and_listen(demo):
    page = (demo[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)|https?://""", page)
    links = re.findall(r'href="#(\w+)"', page)
    assert links == re.findall(r'<h2 id="(\w+)"', page)
    assert len(links) == 9
    rows = page.split('class="example"')[1:]
    assert len(rows) == 4 * 5
    assert page.count("<audio ") == 5 + 5 * 3 + 3  # queries, answers, and what is played to the heat maps
    assert page.count("<canvas ") == 5 + 5 * 4
    assert page.count("unseen number</span>") >= 4  # what fails may be one too
    losses = page.count('alt="Loss terms')
    assert page.count('class="plot"') == 2 * 3 + 3 + losses  # gaps, heat maps
    assert losses >= 2
    assert "<b>picture–sound</b>" in page
    assert "<b>text–3D</b>" in page
    assert "C-MCR: only L_ttc" in page
    assert page.count("checks passed") == 2
    assert page.count("What if it were wide?") == page.count("C-MCR, rows centred") == 1
    assert "undefined" not in page.lower()


def test_answers_are_named_only_where_they_are_revealed_and_a_query_that_fails_is_shown_as_such(demo):
    page = (demo[0] / "report.html").read_text(encoding="utf-8")
    rows = page.split('class="example"')[1:]
    for row in rows:
        before, revealed = row.split("<details>", 1)
        number, place = re.search(r"It is (\d{3}): the right answer is in place (\d+) of 1000", revealed).groups()
        assert number not in re.sub('src="[^"]*"|data-points="[^"]*"|“[0-9]{3}”', "", before)
        assert ('class="right"' in revealed) == (int(place) <= revealed.count("<figcaption>"))
    failing = [row for row in rows if "a query that fails" in row]
    assert failing == rows[4::5]
    assert not any('class="right"' in row for row in failing)
    assert ".answers figcaption { display:none; }" in page


@pytest.mark.parametrize("settings", [{"method": "ridge"}, {"method": "concepts"}, {"method": "c-mcr", "epochs": 3}])
def test_the_diagnosis_is_silent(cases, settings):
    for data in cases:
        found = cmcr.connect(*data.memories, overlap=data.case.overlap, device="cpu", **settings).diagnose()
        assert [finding for finding in found if not finding.ok] == []
        assert len(found) > 20


def test_saved_connections_open_with_their_encoders(demo, world):
    connection, sounds = cmcr.load(demo[0] / "connections" / "audio-image"), world.test["audio"][:2]
    z = connection.encode(sounds, modality="audio")
    rows = cmcr.space("mini-clap").encode(sounds, "audio")
    np.testing.assert_allclose(z, connection.project(rows, "mini-clap"), atol=1e-6)


def test_what_is_wrong_or_missing_is_found_out_before_the_work(tmp_path, monkeypatch):
    def refused(error, fact, out=tmp_path / "out", options=OPTIONS):
        with pytest.raises(error, match=fact):
            run_demo(out, options, lambda stage, share: pytest.fail(f"{stage} has begun"))

    (tmp_path / "file").write_text("in the way")
    refused(WriteError, "file", out=tmp_path / "file")
    refused(ConfigError, "unknown method 'cmcr'", options=dataclasses.replace(OPTIONS, method="cmcr"))
    for module, library in (("sklearn.datasets", "scikit-learn"), ("matplotlib.figure", "matplotlib"), ("jinja2",) * 2):
        handwriting.cache_clear()
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            refused(MissingDependencyError, rf"{library} .*cmcr\[demo\]")
