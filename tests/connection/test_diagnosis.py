"""The diagnosis: silent on connections that work, and right about each that was spoiled on purpose."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch

import cmcr
from cmcr import artefacts
from cmcr.cli import main
from cmcr.connection.connect import connect
from cmcr.connection.diagnosis import measure
from cmcr.connection.maps import Map
from cmcr.connection.methods.fitting import Parent
from cmcr.errors import PoorInputWarning, TooFewRowsError

METHODS = {"ridge": {}, "concepts": {}, "c-mcr": {"epochs": 3, "hidden": ()}}


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def synthetic(gap=0.4, seed=0):
    """Rows of 80 classes with a latent of their own, seen by two spaces with noise; modalities lie `gap` apart."""
    rng = np.random.default_rng(seed)
    centres, widths = rng.normal(size=(80, 12)), {"clip": 64, "clap": 48}
    share = np.sqrt(gap**2 / 2 / (1 - gap**2 / 2) * 1.6)
    latents = {m: centres[rng.integers(0, 80, n)] + 0.6 * rng.normal(size=(n, 12)) for m, n in SIZES.items()}

    def seen(modality, width, towers):
        mean = rng.normal(size=width)
        noise = rng.normal(size=(SIZES[modality], width)) * 0.5 / np.sqrt(width)
        return unit(latents[modality] @ towers + noise + share * mean / np.linalg.norm(mean))

    rows = {}
    for (space, width), outer in zip(widths.items(), ("image", "audio"), strict=True):
        towers = rng.normal(size=(12, width)) / np.sqrt(12 * width)
        rows[space] = {m: seen(m, width, towers) for m in ("text", outer)}
    return rows


SIZES = {"text": 1500, "image": 700, "audio": 600}


def connected(rows, method="ridge", **settings):
    memories = [cmcr.Memories(space, **arrays) for space, arrays in rows.items()]
    return connect(*memories, overlap="text", method=method, device="cpu", **settings)


def parents_of(rows):
    return Parent(rows["clip"]["text"], rows["clip"]["image"]), Parent(rows["clap"]["text"], rows["clap"]["audio"])


def failed(connection):
    return {finding.name for finding in connection.diagnose() if not finding.ok}


def told(connection):
    return [f"{f.name}, {f.where}: {f.value} ({f.threshold})" for f in connection.diagnose() if not f.ok]


# ------------------------------------------------------------------------------------------------------- what works


@pytest.mark.parametrize("method", ["ridge", "procrustes", "c-mcr"])
@pytest.mark.parametrize("gap", [0.0, 0.4, 1.0])
def test_it_is_silent_on_synthetic_spaces_with_any_gap_if_the_method_centres(gap, method):
    settings = METHODS["c-mcr"] if method == "c-mcr" else {}
    found = connected(synthetic(gap), method, **settings)
    assert told(found) == []
    gaps = [finding.value for finding in found.diagnose() if finding.name == "modality gap"]
    assert gaps == pytest.approx([gap, gap], abs=0.12)


# ---------------------------------------------------------------------------------------------------- what was spoiled


def around_one_vector(rows, noise):
    rng = np.random.default_rng(1)
    return unit(rows[:1] + noise * unit(rng.normal(size=rows.shape)))


def in_a_plane(rows):
    return unit(rows[:, :2] @ np.eye(2, rows.shape[1], dtype=np.float32))


def rotated(rows):
    axes = np.linalg.qr(np.random.default_rng(2).normal(size=(rows.shape[1],) * 2))[0]
    return unit(rows @ axes)


SPOILED = {
    "overlap of 50 rows": ({"text": lambda x: x[:50]}, {"overlap size", "queries that the overlap names"}),
    "overlap in another order": ({"clap text": lambda x: x[::-1].copy()}, {"overlap agreement"}),
    "overlap about little": (
        {"text": lambda x: np.repeat(x[:30], 50, axis=0)},
        {"overlap size", "queries that the overlap names"},
    ),
    "tower that gives one vector": (
        {"image": lambda x: around_one_vector(x, 0.1)},
        {"constant tower", "shared component", "queries that the overlap names", "overlap that the memory covers"},
    ),
    "overlap tower that gives one vector": (
        {"clip text": lambda x: around_one_vector(x, 0.1)},
        {"constant tower", "shared component", "overlap agreement", "queries that the overlap names"},
    ),
    "tower that gives exactly one vector": (
        {"image": lambda x: np.repeat(x[:1], len(x), axis=0)},
        {"constant tower", "directions in use", "shared component", "hubs", "band of scores"},
    ),
    "memory that is half one item": ({"image": lambda x: np.concatenate([x[:350], x[:1].repeat(350, 0)])}, {"hubs"}),
    "overlap of another domain": (
        {
            "clip text": lambda x: synthetic(seed=7)["clip"]["text"],
            "clap text": lambda x: synthetic(seed=7)["clap"]["text"],
        },
        {"queries that the overlap names", "overlap that the memory covers"},
    ),
    "tower of rank two": ({"image": in_a_plane}, {"directions in use"}),
    "memory of another encoder": (
        {"image": rotated},
        {"queries that the overlap names", "overlap that the memory covers"},
    ),
    "memory of few items": ({"image": lambda x: x[:30]}, {"overlap that the memory covers"}),
    "large common component": ({"image": lambda x: unit(x + 6 * x[:1])}, {"shared component"}),
}


def spoiled(changes):
    rows = synthetic()
    for where, change in changes.items():
        for space, arrays in rows.items():
            modality = where.split()[-1]
            if modality in arrays and where in (modality, f"{space} {modality}"):
                arrays[modality] = change(arrays[modality])
    return rows


@pytest.mark.parametrize("label", SPOILED)
def test_spoiled_rows_are_named(label):
    changes, expected = SPOILED[label]
    found = connected(spoiled(changes))
    assert expected <= failed(found), told(found)
    assert all(finding.advice for finding in found.diagnose() if not finding.ok)


@pytest.mark.parametrize(
    ("gap", "method", "settings", "expected"),
    [
        (1.0, "concepts", {"remove_gap": False}, {"modality gap", "hubs"}),
        (1.0, "c-mcr", {**METHODS["c-mcr"], "centring": False}, {"modality gap"}),
        (0.4, "concepts", {"temperature": 5.0}, {"flat posteriors", "shared component", "band of scores"}),
        (0.4, "c-mcr", {**METHODS["c-mcr"], "consistency_temperature": 5.0}, {"flat consistency"}),
        (0.4, "concepts", {"own_share": 0.0, "concepts": 40}, {"alignment that the parent keeps"}),
    ],
)
def test_methods_and_settings_that_do_not_fit_are_named(gap, method, settings, expected):
    found = connected(synthetic(gap), method, **settings)
    assert expected <= failed(found), told(found)


class _Clipclap(Map):
    """Adds a common component to whatever a map gives."""

    kind = "test of a common component"

    def __init__(self, inner):
        super().__init__()
        self.inner, self.width_in, self.width = inner, inner.width_in, inner.width

    def forward(self, rows):
        return torch.nn.functional.normalize(self.inner(rows) + 4 * torch.eye(self.width)[0], dim=1)


def test_a_common_component_of_what_comes_out_is_named():
    found = connected(synthetic())
    spoiled = dataclasses.replace(found, projectors={name: _Clipclap(each) for name, each in found.projectors.items()})
    rows = {space: {m: torch.from_numpy(x) for m, x in arrays.items()} for space, arrays in synthetic().items()}
    measured = measure(spoiled, ("clip", "clap"), "text", parents_of(rows))
    assert {"shared component", "band of scores"} <= failed(dataclasses.replace(spoiled, report={"measured": measured}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text": lambda x: x[:100]}, "overlap size"),
        ({"clap text": lambda x: np.concatenate([x[:1000], x[:999:-1]])}, "overlap agreement"),  # a third is shuffled
        ({"clap text": lambda x: x[::-1].copy()}, "overlap agreement"),
        ({"audio": lambda x: x[:5]}, "overlap that the memory covers"),
    ],
)
def test_what_is_poor_is_warned_of_before_anything_is_fitted(change, named, monkeypatch):
    monkeypatch.setattr("cmcr.connection.connect.join", lambda *given: pytest.fail("fitted"))
    with pytest.warns(PoorInputWarning, match=named), pytest.raises(pytest.fail.Exception):
        connected(spoiled(change))


def test_what_is_good_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connected(synthetic())


def test_one_row_is_no_modality():
    with pytest.raises(TooFewRowsError, match="audio of 'clap': 1 row"):
        connected(spoiled({"audio": lambda x: x[:1]}))


# -------------------------------------------------------------------------------------------------------------- its form


def test_the_numbers_are_right():
    rows = synthetic()
    found = connected(rows)
    values = {(each["check"], each["where"]): each["value"] for each in found.report["measured"]}
    image = rows["clip"]["image"].astype(np.float64)
    covariance = np.cov(image.T, bias=True)
    assert values["shared", "image of clip"] == pytest.approx(np.linalg.norm(image.mean(0)), abs=1e-4)
    assert values["variance", "image of clip"] == pytest.approx(np.trace(covariance), abs=1e-4)
    participation = np.trace(covariance) ** 2 / np.square(covariance).sum()
    assert values["directions", "image of clip"] == pytest.approx(participation, rel=1e-3)
    logits = image @ rows["clip"]["text"].astype(np.float64).T / 0.02
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    width = np.exp(-(p * np.log(p + 1e-300)).sum(1)) / 1500
    assert values["names", "image and text of clip"] == pytest.approx(np.median(width), abs=2e-5)
    scores = found.common(rows["clip"]["image"], "clip") @ found.common(rows["clap"]["audio"], "clap").T
    counts = np.bincount(np.argsort(-scores, axis=1)[:, :6].ravel(), minlength=600)
    assert values["hubs", "clip to clap"] == pytest.approx(np.sort(counts)[-6:].sum() / counts.sum(), abs=1e-3)


def test_findings_survive_saving_and_are_shown(tmp_path, capsys):
    rows = synthetic()
    rows["clip"]["text"], rows["clap"]["text"] = rows["clip"]["text"][:60], rows["clap"]["text"][:60]
    found = connected(rows)
    found.save(tmp_path / "saved")
    again = cmcr.load(tmp_path / "saved")
    assert again.diagnose() == found.diagnose()
    assert [finding.ok for finding in found.diagnose()] == sorted(finding.ok for finding in found.diagnose())
    facts = artefacts.describe(tmp_path / "saved")["diagnosis"]
    assert json.loads(json.dumps(facts)) == [dataclasses.asdict(finding) for finding in found.diagnose()]
    assert main(["info", str(tmp_path / "saved")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "overlap size" in shown
    assert "FAILED" in shown


@pytest.mark.parametrize("overlap_rows", [2, 5, 25])
def test_too_few_rows_are_no_reason_to_fail(overlap_rows):
    rows = {space: {m: x[:overlap_rows] for m, x in arrays.items()} for space, arrays in synthetic().items()}
    assert "overlap size" in failed(connected(rows))


def test_what_was_not_measured_has_no_findings():
    found = connected(synthetic())
    assert dataclasses.replace(found, report={}).diagnose() == ()
    assert connected(synthetic()).report == found.report


@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_what_the_caller_has_set_in_torch_changes_nothing(mode):
    found = connected(synthetic())
    rows = {space: {m: torch.from_numpy(x) for m, x in arrays.items()} for space, arrays in synthetic().items()}
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with mode():
            again = measure(found, ("clip", "clap"), "text", parents_of(rows))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    for ours, theirs in zip(again, found.report["measured"][-len(again) :], strict=True):
        assert ours == pytest.approx(theirs, abs=2e-5)
