"""Evidence against its twin, the rule of the choice, and worlds that it is right in; benchmarks/choice.py has more."""

import numpy as np
import pytest
import torch

import reference.evidence as twin
from cmcr.connecting import connect_on_disk
from cmcr.connection.connect import connect
from cmcr.connection.methods import auto, cca, residual
from cmcr.connection.methods.auto import CLOSED, CONCEPTS, CONCEPTS_WITH_GAP, DISTILLED, TRAINED, chosen_of
from cmcr.connection.methods.concepts import k_means
from cmcr.connection.methods.evidence import HELD_OUT, Evidence
from cmcr.connection.methods.fitting import Parent, Run
from connection.methods.worlds import on_disk, world
from reference.enhancement import normalize


def worths(concepts, with_gap, trained):
    """What candidates are worth, beside the closed form."""
    worth = {CLOSED: 1.0, CONCEPTS: concepts, CONCEPTS_WITH_GAP: with_gap, TRAINED: trained}
    return {each.name: {"worth": value} for each, value in worth.items()}


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        (worths(1.1, 1.1, 1.0), CLOSED),
        (worths(1.1, 1.1, 1.07), CLOSED),
        (worths(1.1, 1.1, 1.09), DISTILLED),
        (worths(1.3, 0.9, 1.0), CONCEPTS),
        (worths(1.3, 1.1, 1.0), CONCEPTS_WITH_GAP),
        (worths(1.3, 1.1, 1.17), CONCEPTS_WITH_GAP),
        (worths(1.3, 1.1, 1.19), DISTILLED),
        (worths(1.1, 1.3, 1.0), CONCEPTS_WITH_GAP),
    ],
)
def test_the_closed_form_is_left_for_clear_evidence_only(found, chosen):
    assert chosen_of(found) == chosen.name


# ------------------------------------------------------------------------------------------------------------ evidence


@pytest.mark.parametrize("kind", ["continuous", "concepts"])
def test_evidence_equals_its_twin(kind):
    clip, clap, _ = world(kind, rows=300, outer=80)
    parents = [Parent(clip.rows["text"], clip.rows["image"]), Parent(clap.rows["text"], clap.rows["audio"])]
    evidence = Evidence(*parents, seed=3)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    held, kept = order[: int(HELD_OUT * 300)], order[int(HELD_OUT * 300) :]
    texts = [parent.overlap[held].double().numpy() for parent in parents]
    assert torch.equal(evidence.left.overlap, parents[0].overlap[kept])  # nothing is fitted on what is held out
    joint = np.hstack([normalize(rows - rows.mean(axis=0)) for rows in texts])
    labels = k_means(torch.from_numpy(np.float32(joint)), 7, 3).numpy()  # which has a twin of its own
    similar = [
        twin.nearest_held_out(rows, parent.overlap[kept].numpy(), parent.outer.numpy())
        for rows, parent in zip(texts, parents, strict=True)
    ]
    fitted = cca.fit(evidence.left, evidence.right, cca.CorrelationSettings(), Run())
    scores = fitted.left(parents[0].outer) @ fitted.right(parents[1].outer).T
    found = evidence.of(fitted.left, fitted.right)
    expected = twin.evidence(similar, labels, scores.double().numpy())
    np.testing.assert_allclose((found.classes, found.instances), expected, rtol=1e-4)
    assert found.classes > 15
    a, b = (m(parent.overlap[held]).numpy() for m, parent in zip((fitted.left, fitted.right), parents, strict=True))
    own = np.arange(60)
    hits = [(scores.argmax(axis=1) == own).mean() for scores in (a @ b.T, b @ a.T)]
    assert found.overlap == pytest.approx(100 * np.mean(hits))


# -------------------------------------------------------------------------------------------------------------- choice


@pytest.fixture
def quick(monkeypatch):
    """A training of next to no length."""
    trained = TRAINED._replace(settings=residual.ResidualSettings(epochs=2))
    monkeypatch.setattr(auto, "CANDIDATES", (CLOSED, CONCEPTS, CONCEPTS_WITH_GAP, trained))


@pytest.mark.parametrize(("kind", "right"), [("continuous", {"cca", "c-mcr-residual"}), ("concepts", {"concepts"})])
def test_the_kind_of_a_world_is_found_from_ram_and_disk_alike(kind, right, quick, tmp_path):
    clip, clap, pairs = world(kind)
    how = {"method": "auto", "device": "cpu", "own_width": 3}
    found, again, stored = (
        connect(clip, clap, **how),
        connect(clip, clap, **how),
        connect(*on_disk(tmp_path, clip, clap), **how),
    )
    choice = found.report["choice"]
    assert choice["chosen"] in right
    assert found.own_axes["clip"].shape == (8, 3)  # what is chosen gets what was asked for
    assert again.report == found.report
    assert stored.report["choice"]["chosen"] == choice["chosen"]
    for name, each in choice["candidates"].items():
        for key in ("classes", "instances", "worth"):
            assert stored.report["choice"]["candidates"][name][key] == pytest.approx(each[key], rel=0.05)
    for space, rows in pairs.items():
        assert np.array_equal(found.project(rows, space), again.project(rows, space))
        np.testing.assert_allclose(stored.project(rows, space), found.project(rows, space), atol=1e-4)
    kept = connect(clip, clap, choice=choice, **how)
    kept_on_disk = connect_on_disk(*on_disk(tmp_path / "again", clip, clap), out=tmp_path / "connection", **how)
    assert kept.report == found.report
    assert kept_on_disk.report == stored.report
    for space, projector in kept.projectors.items():
        assert all(map(torch.equal, projector.state_dict().values(), found.projectors[space].state_dict().values()))
        there = kept_on_disk.projectors[space].state_dict().values()
        assert all(map(torch.equal, there, stored.projectors[space].state_dict().values()))


def test_too_small_an_overlap_takes_the_closed_form():
    clip, clap, _ = world("concepts", rows=99)
    found = connect(clip, clap, method="auto", device="cpu")
    assert found.report["choice"] == {"chosen": "cca", "by": "cca", "candidates": {}}
    assert connect(clip, clap, method="auto", device="cpu", base="clip").base == "clip"
    smallest = connect(*(world("concepts", rows=2, outer=2)[:2]), method="auto", device="cpu")
    assert all(np.isfinite(p["value"]) for p in smallest.report["measured"])
