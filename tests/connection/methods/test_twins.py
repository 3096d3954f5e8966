"""Closed forms, posteriors and concepts against their twins: from RAM, from disk, into a base, and after saving."""

from functools import partial

import numpy as np
import pytest
import torch

import cmcr
import reference.methods as twin
from cmcr.connection.connect import connect
from cmcr.connection.methods import METHODS, distilled, fitting, posterior
from cmcr.connection.methods.concepts import k_means, k_means_start
from cmcr.connection.methods.fitting import Parent, centring_of, gap_of
from cmcr.errors import ConfigError

WIDTHS = {"clip": 6, "clap": 5}
OUTER = {"clip": "image", "clap": "audio"}
CASES = [
    ("ridge", {"strength": 0.3}),
    ("procrustes", {}),
    ("cca", {"strength": 0.5, "power": 1.2}),
    ("posterior", {"items": 40, "width": None, "left_temperature": 0.05, "right_temperature": 0.03}),
    ("posterior", {"items": 40, "width": 7, "left_temperature": 0.05, "right_temperature": 0.03}),
    ("concepts", {"concepts": 9, "temperature": 0.05, "refinement": 0.7, "whitening": -0.3}),
    ("concepts", {"concepts": 9, "temperature": 0.05, "remove_gap": False}),
]
QUICK = {
    "c-mcr": {"epochs": 1},
    "c-mcr-published": {"epochs": 1},
    "c-mcr-published-ulip": {"epochs": 1},
    "c-mcr-residual": {"epochs": 1},
    "distilled": {"epochs": 1},
    "ex-mcr": {"epochs": 1},
    "clipclap": {"epochs": 1},
    "clipclap-text": {"epochs": 1},
    "concepts": {"concepts": 8},
}


def rows(seed, count, width, gap=0.7):
    """Unit rows around five centres, away from the origin."""
    rng = np.random.default_rng(seed)
    around = np.random.default_rng(width).normal(size=(5, width))[np.arange(count) % 5]
    drawn = around + rng.normal(size=(count, width)) + gap * seed
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


ROWS = {"clip": (rows(1, 60, 6), rows(2, 40, 6)), "clap": (rows(3, 60, 5), rows(0, 30, 5))}


@pytest.fixture(scope="module")
def in_ram():
    return [cmcr.Memories(space, **{"text": text, OUTER[space]: outer}) for space, (text, outer) in ROWS.items()]


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    home = tmp_path_factory.mktemp("memories")
    return [
        cmcr.write_memory(home / f"{space}-{modality}", given, space=space, modality=modality, dtype="float32")
        for space, pair in ROWS.items()
        for modality, given in zip(("text", OUTER[space]), pair, strict=True)
    ]


def expected(method, settings, seed, base=None):
    """What each space's rows become, in the twin's numbers: functions by the space's name."""
    order = ("clap", "clip") if base == "clap" else ("clip", "clap")
    first, second = (ROWS[space] for space in order)
    if method in ("ridge", "procrustes"):
        maps = twin.linear(first, second, method, settings.get("strength"))
    elif method == "cca":
        maps = twin.canonical(first, second, settings["strength"], settings["power"])
    elif method == "posterior":
        kept = np.sort(np.random.default_rng(seed).choice(60, 40, replace=False))
        tau = {"clip": settings["left_temperature"], "clap": settings["right_temperature"]}
        maps = [posterior_of(space, kept, tau[space]) for space in order]
        if base:
            return {order[0]: twin.np.asarray, order[1]: twin.into(maps[1], first[0][kept])}
        if settings["width"]:
            maps = twin.compact(maps, [first[1], second[1]], settings["width"])
    else:
        joint = [
            torch.nn.functional.normalize(torch.from_numpy(t - t.mean(axis=0)), dim=1) for t in (first[0], second[0])
        ]
        start = k_means_start(torch.cat(joint, dim=1), settings["concepts"], seed).numpy()
        given = settings["temperature"], settings.get("refinement", 1.0), settings.get("whitening", -0.25)
        free = twin.ungapped if settings.get("remove_gap", True) else lambda *rows: np.float64
        (shares, places, whitening), (leaf, _, _) = twin.concepts(first, second, start, *given, free)
        if base:
            undone = twin.normalize(places @ np.linalg.inv(whitening))
            return {order[0]: twin.np.asarray, order[1]: twin.into(leaf, undone)}
        maps = shares, leaf
    return dict(zip(order, (twin.np.asarray, maps[1]) if base else maps, strict=True))


def posterior_of(space, kept, temperature):
    free, shares = twin.ungapped(*ROWS[space]), twin.posterior(ROWS[space][0][kept], temperature)
    return lambda x: shares(free(x))


@pytest.mark.parametrize("kept", ["in_ram", "on_disk"])
@pytest.mark.parametrize(
    ("method", "settings", "base"),
    [(*case, base) for case in CASES for base in (None, "clip", "clap") if not base or METHODS[case[0]].into],
)
def test_every_row_equals_the_twin(method, settings, base, kept, request, tmp_path):
    found = connect(*request.getfixturevalue(kept), method=method, base=base, seed=3, device="cpu", **settings)
    found.save(tmp_path / "saved")
    again = cmcr.load(tmp_path / "saved")
    ours, theirs = [], []
    for space, its in expected(method, settings, 3, base).items():
        asked = rows(8, 20, WIDTHS[space])
        ours.append(found.common(asked, space)[:, : found.projectors[space].width])
        theirs.append(its(asked))
        assert np.array_equal(again.project(asked, space), found.project(asked, space))
    if (settings.get("width") or method == "cca") and base is None:  # axes are known up to a rotation
        ours, theirs = ([a @ b.T for a in sides for b in sides] for sides in (ours, theirs))
    for mine, its in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-5)


def test_the_centring_of_a_row_equals_the_twin():
    for text, outer in ROWS.values():
        parent = Parent(torch.from_numpy(text), torch.from_numpy(outer))
        np.testing.assert_allclose(centring_of(parent)(parent.outer), twin.centring(text, outer)(outer), atol=1e-5)


def test_the_gap_of_some_rows_equals_the_twin(monkeypatch):
    monkeypatch.setattr(fitting, "_TEXTS", 50)
    monkeypatch.setattr(fitting, "_ITEMS", 33)
    for text, outer in ROWS.values():
        texts, items = (
            rows[np.sort(np.random.default_rng(3).choice(len(rows), few, replace=False))] if few < len(rows) else rows
            for rows, few in ((text, 50), (outer, 33))
        )
        found = gap_of(Parent(torch.from_numpy(text), torch.from_numpy(outer)), 3)
        np.testing.assert_allclose(found, twin.gap_of(texts, items), atol=1e-5)
        assert found.abs().max() > 0.05


def test_the_compact_form_looks_at_some_rows_of_each_memory_at_equal_weight(monkeypatch, in_ram):
    monkeypatch.setattr(posterior, "_SEEN", 35)
    found = connect(*in_ram, method="posterior", items=50, width=5, own_share=0.0, seed=2, device="cpu")
    draw = [np.sort(np.random.default_rng(2).choice(many, few, replace=False)) for many, few in ((60, 50), (40, 35))]
    maps = [posterior_of(space, draw[0], 0.02) for space in ROWS]
    z = twin.compact(maps, [ROWS["clip"][1][draw[1]], ROWS["clap"][1]], 5)
    asked = {space: rows(8, 20, width) for space, width in WIDTHS.items()}
    ours = found.project(asked["clip"], "clip") @ found.project(asked["clap"], "clap").T
    np.testing.assert_allclose(ours, z[0](asked["clip"]) @ z[1](asked["clap"]).T, atol=1e-5)


def test_the_compact_form_is_no_wider_than_what_the_memories_show(in_ram):
    assert connect(*in_ram, method="posterior", device="cpu").common_width <= 40 + 30


# ------------------------------------------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_and_the_callers_torch_changes_nothing(method, in_ram, monkeypatch):
    monkeypatch.setattr(distilled, "DistilledSettings", partial(distilled.DistilledSettings, epochs=1))  # of mixed

    def fitted(**how):
        return connect(*in_ram, method=method, device="cpu", **QUICK.get(method, {}), **how)

    def same(one, two):
        asked = {space: rows(8, 9, width) for space, width in WIDTHS.items()}
        return all(np.array_equal(one.project(x, space), two.project(x, space)) for space, x in asked.items())

    before = torch.get_rng_state()
    plain = fitted(seed=4)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            again = fitted(seed=4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(plain, again)
    assert torch.equal(torch.get_rng_state(), before)
    # The overlap has no more items than posterior takes, and too few for a choice.
    assert same(plain, fitted(seed=5)) == (method in ("ridge", "procrustes", "cca", "posterior", "auto"))
    if METHODS[method].into is None:
        with pytest.raises(ConfigError, match="leaves no space as it is"):
            fitted(base="clip")


def test_more_concepts_than_items_are_refused(in_ram):
    with pytest.raises(ConfigError, match="concepts: 61 are more than the 60 items"):
        connect(*in_ram, method="concepts", concepts=61, device="cpu")
    connect(*in_ram, method="concepts", concepts=60, device="cpu")


@pytest.mark.parametrize(
    ("method", "settings"),
    [("posterior", {"items": 0}), ("posterior", {"left_temperature": 0.0}), ("clipclap", {"batch_size": 1})],
)
def test_settings_out_of_range_are_refused(method, settings, in_ram):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        connect(*in_ram, method=method, device="cpu", **settings)


# ------------------------------------------------------------------------------------------------------------ k-means


def test_k_means_starts_from_rows_drawn_by_their_squared_distance():
    places = np.array([0.0, 1.0, 3.0, 7.0])
    squares = (places[:, None] - places) ** 2
    chances = {}
    for a in range(4):
        for b in set(range(4)) - {a}:
            nearest = np.minimum(squares[a], squares[b])
            for c in set(range(4)) - {a, b}:
                chances[a, b, c] = squares[a, b] / squares[a].sum() * nearest[c] / nearest.sum() / 4
    assert sum(chances.values()) == pytest.approx(1)
    lines, tries = torch.from_numpy(places).float()[:, None], 1500
    drawn = [tuple(k_means_start(lines, 3, seed).tolist()) for seed in range(tries)]
    for order, chance in chances.items():
        deviation = (chance * (1 - chance) / tries) ** 0.5
        assert abs(drawn.count(order) / tries - chance) < 4 * deviation, order


def test_k_means_of_equal_rows_ends():
    labels = k_means(torch.ones(70, 3), 65, 0)
    assert labels.shape == (70,)
