"""Ablations: one list, each trained as `cmcr.connect` would, each figure paired by seed, nothing measured twice."""

import dataclasses
import json

import numpy as np
import pytest
from cmcr.connection.consistency import SoftmaxMean

import cmcr
from cmcr.cli import main
from cmcr.connection.ablations import ABLATIONS, FULL
from cmcr.connection.settings import settings_of
from cmcr.data.numbers import SAMPLE_RATE_HZ, draw_pictures, speak_sounds, write_texts
from cmcr.errors import ConfigError, FormatError, ResumeError
from cmcr.evaluation import ablations as module
from cmcr.evaluation.ablations import AblationPlan, ablate, summary
from cmcr.evaluation.evaluate import evaluate
from cmcr.evaluation.miniature import mini_record
from cmcr.evaluation.over_seeds import over_seeds
from cmcr.evaluation.tasks.pairs import PairsTask

RUN = "retrieval/mini-audio-image"
PLAN = AblationPlan(RUN, seeds=(0, 1), only=("only L_ttc",), settings={"epochs": 2, "batch_size": 30})


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    """Four memories on disk of 60 items each."""
    folder = tmp_path_factory.mktemp("memories")
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 1000, 60)
    (folder / "captions.txt").write_text("\n".join(write_texts(numbers, rng)), encoding="utf-8")
    for name in ("pictures", "sounds"):
        (folder / name).mkdir()
    import soundfile
    from PIL import Image

    for i, picture in enumerate(draw_pictures(numbers, "train", rng)):
        Image.fromarray(picture).save(folder / "pictures" / f"{i:02d}.png")
    for i, sound in enumerate(speak_sounds(numbers, "train", rng)):
        soundfile.write(folder / "sounds" / f"{i:02d}.wav", sound, SAMPLE_RATE_HZ)
    given = (("mini-clip", "text"), ("mini-clip", "image"), ("mini-clap", "text"), ("mini-clap", "audio"))
    inputs = {"text": "captions.txt", "image": "pictures", "audio": "sounds"}
    for space, modality in given:
        code = main(
            ["embed", space, modality, str(folder / inputs[modality]), "--out", str(folder / f"{space}-{modality}")]
        )
        assert code == 0
    return [cmcr.Memory(folder / f"{space}-{modality}") for space, modality in given]


@pytest.fixture(scope="module")
def record():
    """A hundred pairs of the miniature world."""
    whole = mini_record(RUN)
    keep = slice(0, 100)
    positives = type(whole.positives).one(np.arange(100))
    return dataclasses.replace(
        whole,
        first=whole.first[keep],
        second=whole.second[keep],
        first_ids=whole.first_ids[keep],
        second_ids=whole.second_ids[keep],
        positives=positives,
    )


@pytest.fixture(scope="module")
def spaces():
    return [cmcr.space("mini-clip"), cmcr.space("mini-clap")]


@pytest.fixture(scope="module")
def finished(memories, record, spaces, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablations") / "ablations.json"
    return out, ablate(memories, PLAN, record, spaces, out=out)


def test_every_ablation_is_a_setting_of_its_own():
    assert all(
        set(change) <= {field.name for field in dataclasses.fields(settings_of("c-mcr"))}
        for change in ABLATIONS.values()
    )
    settings = {repr(settings_of("c-mcr", **change)) for change in [{}, *ABLATIONS.values()]}
    assert len(settings) == 1 + len(ABLATIONS)
    assert FULL not in ABLATIONS
    assert list(AblationPlan(RUN).changes()) == [FULL, *ABLATIONS]


def test_the_figures_are_those_of_connecting_and_evaluating_one_by_one(finished, memories, record, spaces):
    out, found = finished
    assert found == json.loads(out.read_text(encoding="utf-8"))
    assert [(cell["ablation"], cell["seed"]) for cell in found["cells"]] == [
        (FULL, 0), ("only L_ttc", 0), (FULL, 1), ("only L_ttc", 1),
    ]  # fmt: skip
    for cell in found["cells"]:
        change = {**PLAN.settings, **ABLATIONS.get(cell["ablation"], {})}
        connection = cmcr.connect(*memories, seed=cell["seed"], **change)
        connection = dataclasses.replace(connection, encoders={space.name: space for space in spaces})
        figures = evaluate(connection, RUN, record).result["figures"]["connection"]
        assert cell["figures"] == {key: figure["value"] for key, figure in figures.items()}


def test_the_summary_pairs_by_seed(finished):
    _, found = finished
    values = {(cell["ablation"], cell["seed"]): cell["figures"]["mean/mAP"] for cell in found["cells"]}
    assert list(found["summary"]) == [FULL, "only L_ttc"]
    assert found["summary"][FULL]["mean/mAP"] == {**over_seeds([values[FULL, 0], values[FULL, 1]]), "minus_full": None}
    gaps = [values["only L_ttc", seed] - values[FULL, seed] for seed in (0, 1)]
    assert found["summary"]["only L_ttc"]["mean/mAP"]["minus_full"] == over_seeds(gaps)
    # A seed of which the full method is missing counts for the mean and not for the difference.
    some = [cell for cell in found["cells"] if (cell["ablation"], cell["seed"]) != (FULL, 1)]
    partial = summary(some, (0, 1))["only L_ttc"]["mean/mAP"]
    assert (partial["seeds"], partial["minus_full"]["seeds"]) == (2, 1)


def test_stopped_it_goes_on_and_finished_it_does_nothing(finished, memories, record, spaces, tmp_path, monkeypatch):
    out = tmp_path / "ablations.json"
    trained = []
    real = module.connect

    def stopping(*given, **options):
        trained.append(options["seed"])
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(module, "connect", stopping)
    with pytest.raises(KeyboardInterrupt):
        ablate(memories, PLAN, record, spaces, out=out)
    assert len(json.loads(out.read_text(encoding="utf-8"))["cells"]) == 2
    found = ablate(memories, PLAN, record, spaces, out=out)
    assert trained == [0, 0, 1, 1, 1]
    assert found["summary"] == finished[1]["summary"]
    monkeypatch.setattr(PairsTask, "prepare", lambda *given: pytest.fail("embedded although nothing is left to do"))
    assert ablate(memories, PLAN, record, spaces, out=out) == found
    assert len(trained) == 5


def test_semantic_consistency_and_embedding_are_done_once(memories, record, spaces, monkeypatch):
    calls = []
    fill = SoftmaxMean.fill
    monkeypatch.setattr(SoftmaxMean, "fill", lambda mean, *given: calls.append(mean.normalize) or fill(mean, *given))
    plan = dataclasses.replace(PLAN, only=("no semantic consistency", "consistent rows not made unit rows"))
    prepared = []
    prepare = PairsTask.prepare
    monkeypatch.setattr(PairsTask, "prepare", lambda *given: prepared.append(1) or prepare(*given))
    found = ablate(memories, plan, record, spaces)
    assert calls == [True, True, False, False]  # a pair of spaces each
    assert len(prepared) == 1
    assert len(found["cells"]) == 6


def test_measurements_of_something_else_are_never_mixed(finished, memories, record, spaces, tmp_path):
    out = tmp_path / "ablations.json"
    out.write_bytes(finished[0].read_bytes())
    with pytest.raises(ResumeError, match=r"measured with something else: settings. Choose another file"):
        ablate(memories, dataclasses.replace(PLAN, settings={"epochs": 3}), record, spaces, out=out)
    with pytest.raises(ResumeError, match="something else: memories"):
        ablate([*memories[:3], memories[2]], PLAN, record, spaces, out=out)
    out.write_text("[]", encoding="utf-8")
    with pytest.raises(FormatError, match="not cmcr ablations"):
        ablate(memories, PLAN, record, spaces, out=out)


def test_wrong_calls(memories, record, spaces):
    with pytest.raises(ConfigError, match=r"unknown ablation 'only L_tcc'. Did you mean 'only L_ttc'"):
        AblationPlan(RUN, only=("only L_tcc",)).changes()
    with pytest.raises(ConfigError, match=r"seeds: expected different whole numbers, at least one, got \[1, 1\]"):
        AblationPlan(RUN, seeds=(1, 1)).changes()
    with pytest.raises(ConfigError, match="the encoders of space 'mini-clap' are needed"):
        ablate(memories, PLAN, record, spaces[:1])
