"""What is trained, beside c-mcr, against its twins, step by step; a space that stays as it is; resuming."""

from functools import partial

import numpy as np
import pytest
import torch

import cmcr
import reference.methods as twin
import reference.training as training_twin
from cmcr.connection.connect import connect
from cmcr.connection.methods import distilled
from cmcr.connection.methods.concepts import ConceptSettings, k_means_start
from cmcr.connection.settings import Settings
from cmcr.engine.batches import Batches
from cmcr.errors import ConfigError
from connection.trained import completed_batches, initial_layers, layers_of
from reference.enhancement import normalize, semantic_consistency
from reference.losses import info_nce
from reference.projectors import project

WIDTHS = {"clip": 3, "clap": 4}
STEPS = {"epochs": 1, "batch_size": 5, "learning_rate": 0.02}


def rows(seed, count, width):
    return normalize(np.random.default_rng(seed).normal(size=(count, width)) + 0.3 * seed).astype(np.float32)


ROWS = {"clip": (rows(1, 40, 3), rows(2, 12, 3)), "clap": (rows(3, 40, 4), rows(0, 9, 4))}


def connected(method, **how):
    memories = (
        cmcr.Memories("clip", text=ROWS["clip"][0], image=ROWS["clip"][1]),
        cmcr.Memories("clap", text=ROWS["clap"][0], audio=ROWS["clap"][1]),
    )
    return connect(*memories, method=method, device="cpu", seed=5, **how)


def consistent(space, temperature):
    text, outer = ROWS[space]
    return normalize(semantic_consistency(text, outer, temperature)).astype(np.float32)


def single(found):
    return torch.from_numpy(np.asarray(found, dtype=np.float32))


@pytest.mark.parametrize("base", [None, "clip", "clap"])
@pytest.mark.parametrize("centring", [False, True])
def test_every_step_of_ex_mcr_equals_the_twin(base, centring):
    kept, leaf = ("clap", "clip") if base == "clap" else ("clip", "clap")
    losses = {"ttc_temperature": 0.2, "avc_temperature": 0.3}
    changes = {**STEPS, **losses, "hidden": (4,), "centring": centring, "consistency_temperature": 0.3}
    start = connected("ex-mcr", base=base, **{**changes, "learning_rate": 1e-30, "weight_decay": 0.0})
    found = connected("ex-mcr", base=base, **changes)
    centred = {space: twin.centring(*ROWS[space]) if centring else np.asarray for space in ROWS}
    if base:
        centred[base] = np.asarray
    sets = [
        single(centred[space](given)) for space in (kept, leaf) for given in (ROWS[space][0], consistent(space, 0.3))
    ]
    batches = list(completed_batches(sets, Settings(**{**changes, "width": WIDTHS[kept]}), 5))
    ours, first = (list(one.projectors[leaf].modules()) for one in (found, start))
    ours, first = (next(part for part in parts if hasattr(part, "linears")) for parts in (ours, first))
    # A space without layers stays as it is.
    (_, expected), history = training_twin.train(([], initial_layers(first)), batches, "together", 0.02, 0.01, **losses)
    if base is None:
        np.testing.assert_allclose(found.history["total"], [step[0] for step in history], rtol=1e-5)
    assert np.abs(expected[0]["weight"] - layers_of(first)[0]["weight"]).max() > 0.02  # the steps are far from nothing
    for mine, its in zip(layers_of(ours), expected, strict=True):
        for part in ("weight", "gain", "shift", "mean", "variance"):
            np.testing.assert_allclose(mine[part], its[part], rtol=0, atol=2e-5, err_msg=part)
    asked = rows(7, 6, WIDTHS[kept])
    np.testing.assert_allclose(found.common(asked, kept), centred[kept](asked), atol=1e-5)


@pytest.mark.parametrize("base", [None, "clap"])
@pytest.mark.parametrize("method", ["clipclap-text", "clipclap"])
def test_every_step_of_clipclap_equals_the_twin(method, base):
    kept, leaf = ("clap", "clip") if base == "clap" else ("clip", "clap")
    pairs = {"temperature": 0.2, "consistency_temperature": 0.3} if method == "clipclap" else {}
    given = {} if base is None or not pairs else {"consistent": {leaf: consistent(leaf, 0.3)}}
    start, found = (
        connected(method, base=base, **{**STEPS, **pairs, **given, **how}) for how in ({"learning_rate": 1e-30}, {})
    )
    sets = [single(consistent(leaf, 0.3) if pairs else ROWS[leaf][0]), single(ROWS[kept][0])]
    batches = Batches(sets, 5, 5, torch.device("cpu"))
    drawn = [[part.double().numpy() for part in batches.rows(step)] for step in range(8)]
    loss = partial(info_nce, temperature=0.2) if pairs else twin.cosine_loss
    first, ours = (one.projectors[leaf].weight.double().numpy().T for one in (start, found))
    expected, history = twin.clipclap(first, drawn, loss, 0.02)
    if base is None:
        np.testing.assert_allclose(found.history["total"], history, rtol=1e-5)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.abs(ours - first).max() > 0.02  # the steps are far from nothing


# -------------------------------------------------------------------------------------------- from the closed form on


def residual_of(found, space):
    return next(part for part in found.projectors[space].modules() if hasattr(part, "straight"))


def test_c_mcr_starts_at_canonical_correlations():
    start = connected("c-mcr-residual", **STEPS, trained_share=0.0)
    maps = dict(zip(ROWS, twin.canonical(*ROWS.values(), 1.0, 1.5), strict=True))
    asked = {space: rows(7, 6, width) for space, width in WIDTHS.items()}
    ours, theirs = (
        [of(space) for space in ROWS] for of in (lambda s: start.common(asked[s], s), lambda s: maps[s](asked[s]))
    )
    for a in (0, 1):
        for b in (0, 1):  # axes are known up to their signs
            np.testing.assert_allclose(ours[a] @ ours[b].T, theirs[a] @ theirs[b].T, atol=1e-5)
    lengths = [
        np.square(twin.centring(*ROWS[space])(ROWS[space][0]) @ layers_of(residual_of(start, space))[0]["straight"].T)
        for space in ROWS
    ]
    assert np.mean([each.sum(axis=1) for each in lengths]) == pytest.approx(1, abs=1e-5)


def test_every_step_of_the_residual_training_equals_the_twin_and_some_of_it_is_kept():
    losses = {"ttc_temperature": 0.2, "avc_temperature": 0.3}
    changes = {**STEPS, **losses, "hidden": (4,), "consistency_temperature": 0.3, "weight_decay": 0.5}
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "trained_share": 1.0}
    start, whole, found = (
        connected("c-mcr-residual", **{**changes, **how})
        for how in (still, {"trained_share": 1.0}, {"trained_share": 0.3})
    )
    centred = {space: twin.centring(*ROWS[space]) for space in ROWS}
    sets = [single(centred[space](given)) for space in ROWS for given in (ROWS[space][0], consistent(space, 0.3))]
    batches = list(completed_batches(sets, Settings(**changes), 5))
    first = [initial_layers(residual_of(start, space)) for space in ROWS]
    assert max(np.abs(layers[0]["outer"]).max() for layers in first) < 1e-20
    expected, history = training_twin.train(first, batches, "together", 0.02, 0.5, **losses)
    np.testing.assert_allclose(whole.history["total"], [step[0] for step in history], rtol=1e-5)
    for space, [before], [its] in zip(ROWS, first, expected, strict=True):
        [ours], [kept] = (layers_of(residual_of(one, space)) for one in (whole, found))
        assert np.abs(its["outer"]).max() > 0.02  # the steps are far from nothing
        for part in ("weight", "gain", "shift", "mean", "variance", "straight", "outer"):
            np.testing.assert_allclose(ours[part], its[part], rtol=0, atol=2e-5, err_msg=part)
            share = 0.3 if part in ("straight", "outer") else 1.0
            goal = before[part] + share * (its[part] - before[part])
            np.testing.assert_allclose(kept[part], goal, rtol=0, atol=2e-5, err_msg=part)
        asked = rows(7, 6, WIDTHS[space])
        np.testing.assert_allclose(found.common(asked, space), project(centred[space](asked), [kept]), atol=1e-5)


def test_every_step_of_the_distilled_training_equals_the_twin(monkeypatch):
    monkeypatch.setattr(distilled, "_ROWS", 4)
    losses = {"ttc_temperature": 0.2, "avc_temperature": 0.3, "memory_weight": 1.7}
    changes = {**STEPS, **losses, "hidden": (4,), "consistency_temperature": 0.3, "weight_decay": 0.5}
    start, found = (
        connected("distilled", **{**changes, **how}) for how in ({"learning_rate": 1e-30, "weight_decay": 0.0}, {})
    )
    first = [initial_layers(residual_of(start, space)) for space in ROWS]
    drawn = [Batches((torch.from_numpy(ROWS[space][1]),), 4, 5, torch.device("cpu")) for space in ROWS]
    joint = [torch.from_numpy(text - text.mean(axis=0)) for text, _ in ROWS.values()]
    seeds = k_means_start(torch.cat([torch.nn.functional.normalize(x, dim=1) for x in joint], dim=1), 10, 5)
    counterparts = twin.counterparts(*ROWS.values(), seeds.numpy(), ConceptSettings().temperature)

    def memory(step):
        return [each.rows(step)[0].numpy() for each in drawn]

    centred = [twin.centring(*ROWS[space]) for space in ROWS]
    sets = [
        single(to(given))
        for to, space in zip(centred, ROWS, strict=True)
        for given in (ROWS[space][0], consistent(space, 0.3))
    ]
    settings = Settings(**{name: value for name, value in changes.items() if name != "memory_weight"})
    batches = completed_batches(
        sets, settings, 5, lambda step: [single(of(x)) for of, x in zip(counterparts, memory(step), strict=True)]
    )
    batches = [
        (*rows, centred[0](memory(step)[0]), left, right, centred[1](memory(step)[1]))
        for step, (*rows, right, left) in enumerate(batches)
    ]
    expected, history = training_twin.train(first, batches, "together", 0.02, 0.5, **losses)
    np.testing.assert_allclose(found.history["total"], [step[0] for step in history], rtol=1e-5)
    for space, [its] in zip(ROWS, expected, strict=True):
        [ours] = layers_of(residual_of(found, space))
        for part in ("weight", "gain", "shift", "mean", "variance", "straight", "outer"):
            np.testing.assert_allclose(ours[part], its[part], rtol=0, atol=2e-5, err_msg=part)


@pytest.mark.parametrize("changes", [{"width": 4}, {"hidden": ()}, {"hidden": (4, 4)}, {"final_relu": True}])
def test_another_shape_of_what_corrects_the_closed_form_is_refused(changes):
    with pytest.raises(ConfigError, match=r"only the width of one inner layer"):
        connected("c-mcr-residual", **changes)


# ------------------------------------------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("method", ["c-mcr-residual", "distilled", "ex-mcr", "clipclap"])
def test_a_training_that_was_stopped_is_resumed_bit_for_bit(method):
    kept = []

    def stop(state):
        if state.step == 5:
            kept.append({name: value.clone() for name, value in state.tensors().items()})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        connected(method, **STEPS, after_step=stop)
    whole, resumed = connected(method, **STEPS), connected(method, **STEPS, resume_from=kept[0])
    assert whole.history == resumed.history
    asked = rows(7, 6, 4)
    assert np.array_equal(whole.project(asked, "clap"), resumed.project(asked, "clap"))


def test_consistent_rows_that_are_given_belong_to_their_space_on_any_base():
    given = {space: consistent(space, 0.01) for space in ROWS}
    asked = rows(7, 6, 3)
    found = [
        connected("ex-mcr", base="clap", **STEPS, **how).project(asked, "clip") for how in ({}, {"consistent": given})
    ]
    np.testing.assert_allclose(*found, atol=1e-3)


def test_another_width_than_the_bases_is_refused():
    with pytest.raises(ConfigError, match=r"width: .* the base, 3 wide, got 7"):
        connected("ex-mcr", width=7)
    assert connected("ex-mcr", width=3, **STEPS).common_width == 3


def test_the_mixture_weighs_both_similarities_by_their_deviations(monkeypatch):
    monkeypatch.setattr(distilled, "DistilledSettings", partial(distilled.DistilledSettings, epochs=2))
    expected = 0.0
    items = [ROWS[space][1] for space in ("clip", "clap")]
    for method, weight, how in (("distilled", 1.0, {"epochs": 2}), ("concepts", 0.3, {})):
        part = connected(method, **how)
        left, right = (
            each(torch.from_numpy(rows)).numpy() for each, rows in zip(part.projectors.values(), items, strict=True)
        )
        similar = np.float64(left) @ np.float64(right).T
        expected = expected + weight * similar / similar.std(ddof=1)
    mixed = connected("mixed", concepts_weight=0.3)
    found = np.float64(mixed.common(items[0], "clip")) @ np.float64(mixed.common(items[1], "clap")).T
    np.testing.assert_allclose(found / found.std(), expected / expected.std(), atol=2e-4)
