"""Ablations: one list, each trained as `cmcr.connect` would, each figure paired by seed, nothing measured twice."""

import dataclasses
import json
from unittest.mock import ANY

import pytest
from scipy import stats

import cmcr
from cmcr.connection.methods import settings_of
from cmcr.errors import ConfigError, FormatError, ResumeError
from cmcr.evaluation import ablations as module
from cmcr.evaluation.ablations import ABLATIONS, FULL, ablate, over_seeds, summary, variants
from cmcr.evaluation.evaluate import evaluate
from cmcr.evaluation.miniature import mini_record
from evaluation.small_connections import write_memories

RUN = "retention/mini-image-text"  # pictures and texts are embedded fastest
SETTINGS = {"epochs": 1, "batch_size": 400}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Memories on disk, encoders, the run, and its data."""
    written = write_memories(tmp_path_factory.mktemp("memories"))
    spaces = [cmcr.space("mini-clip"), cmcr.space("mini-clap")]
    return [cmcr.Memory(folder) for folder in written.values()], spaces, RUN, mini_record(RUN, limit=60)


def measured(given, seeds=(0, 1), only=("only L_ttc",), settings=SETTINGS, **options):
    return ablate(*given, seeds=seeds, only=only, settings=settings, **options)


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablations") / "ablations.json"
    return out, measured(given, out=out)


def test_every_ablation_is_a_setting_of_its_own():
    settings = {repr(settings_of("c-mcr", **change)) for change in [{}, *ABLATIONS.values()]}
    assert len(settings) == 1 + len(ABLATIONS)
    assert list(variants()) == [FULL, *ABLATIONS]


def test_the_figures_are_those_of_connecting_and_evaluating_one_by_one(finished, given):
    out, found = finished
    memories, spaces, run, record = given
    assert {**found, "sha256_of_this_file": ANY} == json.loads(out.read_text(encoding="utf-8"))
    assert [(cell["ablation"], cell["seed"]) for cell in found["cells"]] == [
        (FULL, 0), ("only L_ttc", 0), (FULL, 1), ("only L_ttc", 1),
    ]  # fmt: skip
    for cell in found["cells"]:
        change = {**SETTINGS, **ABLATIONS.get(cell["ablation"], {})}
        connection = cmcr.connect(*memories, method="c-mcr", seed=cell["seed"], **change)
        connection = dataclasses.replace(connection, encoders={space.name: space for space in spaces})
        figures = evaluate(connection, run, record).result["figures"]["connection"]
        assert cell["figures"] == {key: figure["value"] for key, figure in figures.items()}


def test_the_summary_pairs_by_seed(finished):
    _, found = finished
    values = {(cell["ablation"], cell["seed"]): cell["figures"]["mean/mAP"] for cell in found["cells"]}
    assert list(found["summary"]) == [FULL, "only L_ttc"]
    assert found["summary"][FULL]["mean/mAP"] == {**over_seeds([values[FULL, 0], values[FULL, 1]]), "minus_full": None}
    gaps = [values["only L_ttc", seed] - values[FULL, seed] for seed in (0, 1)]
    assert found["summary"]["only L_ttc"]["mean/mAP"]["minus_full"] == over_seeds(gaps)
    # A seed without the full method counts for the mean and not for the difference.
    some = [cell for cell in found["cells"] if (cell["ablation"], cell["seed"]) != (FULL, 1)]
    partial = summary(some, (0, 1))["only L_ttc"]["mean/mAP"]
    assert (partial["seeds"], partial["minus_full"]["seeds"]) == (2, 1)


def test_stopped_it_resumes_and_finished_it_does_nothing(finished, given, tmp_path, monkeypatch):
    out, trained, real = tmp_path / "ablations.json", [], module.connect

    def stopping(*memories, **options):
        trained.append(options["seed"])
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(*memories, **options)

    monkeypatch.setattr(module, "connect", stopping)
    with pytest.raises(KeyboardInterrupt):
        measured(given, out=out)
    assert len(json.loads(out.read_text(encoding="utf-8"))["cells"]) == 2
    found = measured(given, out=out)
    assert trained == [0, 0, 1, 1, 1]
    assert found["summary"] == finished[1]["summary"]
    monkeypatch.setattr(module, "prepare", lambda *_, **__: pytest.fail("embedded although nothing is left to measure"))
    assert measured(given, out=out) == found
    assert len(trained) == 5


def test_the_data_set_is_embedded_once_and_each_semantic_consistency_too(given, monkeypatch):
    calls = []
    for name in ("prepare", "enhance"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, **k: calls.append(real.__name__) or real(*a, **k))
    measured(given, only=("only L_ttc", "consistent rows not made unit rows"))
    assert sorted(calls) == ["enhance"] * 4 + ["prepare"]  # two spaces, consistent rows as they are and made unit rows


def test_measurements_of_something_else_are_never_mixed(finished, given, tmp_path):
    out = tmp_path / "ablations.json"
    out.write_bytes(finished[0].read_bytes())
    with pytest.raises(ResumeError, match="settings"):
        measured(given, settings={**SETTINGS, "epochs": 2}, out=out)
    with pytest.raises(ResumeError, match="memories"):
        measured(([*given[0][:3], given[0][2]], *given[1:]), out=out)
    out.write_text("[]", encoding="utf-8")
    with pytest.raises(FormatError, match="expected a JSON object"):
        measured(given, out=out)


def test_wrong_calls(given):
    memories, spaces, run, record = given
    with pytest.raises(ConfigError, match="Did you mean 'only L_ttc'"):
        variants(["only L_tcc"])
    with pytest.raises(ConfigError, match="seeds"):
        measured(given, seeds=(1, 1))
    with pytest.raises(ConfigError, match="'mini-clap'"):
        measured((memories, spaces[:1], run, record))


def test_means_over_seeds_have_the_t_interval_of_scipy(rng):
    values = rng.normal(3.0, 2.0, 5)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert over_seeds(values.tolist()) == {
        "mean": pytest.approx(values.mean()), "low": pytest.approx(low), "high": pytest.approx(high), "seeds": 5,
    }  # fmt: skip
    assert over_seeds([0.25]) == {"mean": 0.25, "low": None, "high": None, "seeds": 1}
