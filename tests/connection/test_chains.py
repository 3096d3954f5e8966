"""More than two spaces: against the twin and the connections of two, with a base, saved, encoded; what is refused."""

import numpy as np
import pytest
import torch

import cmcr
import reference.chains as twin
from cmcr.connection.connect import connect
from cmcr.errors import ConfigError, DimensionError
from reference.connection import recall_at_one
from reference.enhancement import normalize

WIDTHS = {"clip": 6, "clap": 5, "ulip": 4}
MODALITIES = {"clip": ("text", "image"), "clap": ("text", "audio"), "ulip": ("image", "point_cloud")}
ROWS = {"text": 60, "image": 50, "audio": 40, "point_cloud": 30}
METHODS = [("ridge", {}), ("concepts", {"concepts": 7, "temperature": 0.2}), ("c-mcr", {"epochs": 1, "centring": True})]


def unit(seed, rows, width):
    return normalize(np.random.default_rng(seed).normal(size=(rows, width)) + 0.3).astype(np.float32)


def given(space, modalities=None, width=None, **options):
    seed = sum(map(ord, space))
    return cmcr.Memories(
        space,
        **{
            modality: unit(seed + number, ROWS[modality], width or WIDTHS[space])
            for number, modality in enumerate(modalities or MODALITIES[space])
        },
        **options,
    )


def three():
    return given("clip"), given("clap"), given("ulip")


def pair(memories, overlap):
    """Of one space, its rows of the overlap and of its other modality."""
    (other,) = set(memories.rows) - {overlap}
    return np.float64(memories.rows[overlap]), np.float64(memories.rows[other])


def mapped(connection, space, rows):
    return connection.projectors[space](torch.from_numpy(np.float32(rows))).numpy()


@pytest.fixture(scope="module", params=METHODS, ids=[name for name, _ in METHODS])
def joined(request):
    method, settings = request.param
    how = {"method": method, "device": "cpu", **settings}
    clip, clap, ulip = three()
    return connect(clip, clap, ulip, **how), connect(clip, clap, **how), connect(clip, ulip, **how)


def test_common_rows_equal_the_twin(joined):
    whole, text, image = joined
    clip, clap, ulip = three()
    x = {space: unit(9, 20, width) for space, width in WIDTHS.items()}
    sound = twin.carry(x["clap"], pair(clap, "text"), pair(clip, "text"))
    cloud = twin.carry(x["ulip"], pair(ulip, "image"), pair(clip, "image"))
    # Both meet in either link: the sound as itself beside the cloud carried into clip, and the other way round.
    sides = (
        [mapped(text, "clap", x["clap"]), mapped(image, "clip", sound)],
        [mapped(text, "clip", cloud), mapped(image, "ulip", x["ulip"])],
    )
    met = [np.concatenate(side, axis=1) / np.sqrt(2) for side in sides]
    widths = [text.projectors["clip"].width, image.projectors["clip"].width]
    expected = {
        "clip": [mapped(text, "clip", x["clip"]), mapped(image, "clip", x["clip"]), sum(widths)],
        "clap": [mapped(text, "clap", x["clap"]), widths[1], met[0]],
        "ulip": [widths[0], mapped(image, "ulip", x["ulip"]), met[1]],
    }
    for number, (space, blocks) in enumerate(expected.items()):
        found = whole.common(x[space], space)
        np.testing.assert_allclose(found, twin.common(number, 3, blocks), atol=5e-5)
        assert found.shape == (20, whole.common_width)


def test_linked_spaces_rank_as_in_a_connection_of_two(joined):
    whole, *twos = joined
    for two in twos:
        left, right = ((space.name, np.float64(unit(8, 15, space.width))) for space in two.spaces)
        cosines = [c.similarity(c.project(left[1], left[0]), c.project(right[1], right[0])) for c in (whole, two)]
        np.testing.assert_allclose(cosines[0], cosines[1] / 2, atol=1e-7)


def test_own_retrieval_is_kept_and_the_connection_survives_saving(joined, tmp_path):
    whole = joined[0]
    whole.save(tmp_path / "saved")
    again = cmcr.load(tmp_path / "saved")
    assert (again.overlap, again.overlap_rows, again.spaces) == ("text, image", 110, whole.spaces)
    assert dict(again.history) == {name: list(terms) for name, terms in whole.history.items()}
    for space, width in WIDTHS.items():
        rows = unit(7, 10, width)
        projected = whole.project(rows, space)
        assert np.array_equal(again.project(rows, space), projected)
        np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-6)
        assert projected.shape[1] == whole.width
        assert np.abs(projected @ projected.T - 0.98 * rows @ rows.T).max() <= 0.02 + 1e-6
    if whole.method == "c-mcr":
        assert {name.split(": ")[0] for name in whole.history} == {"clip + clap", "clip + ulip"}


def test_own_width_reduces_the_own_block_of_every_space():
    found = connect(*three(), method="ridge", own_width=2, device="cpu")
    assert found.width == found.common_width + 3 * 3


class Encoders:
    fingerprint = "abc"

    def __init__(self, name, width):
        self.name, self.width = name, width

    def encode(self, inputs, modality, *, batch_size, show_progress_bar):
        return unit(len(modality), len(inputs), self.width)


def test_every_modality_of_every_space_is_encoded():
    spaces = {name: Encoders(name, width) for name, width in WIDTHS.items()}
    memories = [cmcr.Memories(spaces[known.space], **known.rows) for known in three()]
    found = connect(*memories, method="ridge", device="cpu")
    assert set(found.modalities) == set(ROWS)
    assert [known.modalities for known in found.spaces] == [
        ("text", "image"),
        ("text", "audio"),
        ("image", "point_cloud"),
    ]
    for space, modalities in MODALITIES.items():
        for modality in modalities:
            expected = found.project(unit(len(modality), 3, WIDTHS[space]), space)
            assert np.array_equal(found.encode(["a", "b", "c"], modality, space=space), expected)
    with pytest.raises(ConfigError, match="several spaces embed text"):
        found.encode(["a"], "text")


def test_a_longer_chain_by_named_links():
    names = {("a", "b"): "text", ("c", "b"): "image", ("c", "d"): "point_cloud"}
    modalities = {"a": ("audio", "text"), "b": ("text", "image"), "c": ("image", "point_cloud")}
    memories = {name: given(name, own, width=4) for name, own in modalities.items()}
    memories["d"] = given("d", ("point_cloud", "audio"), width=5)  # audio too: not linked to a, as it is not named
    found = connect(*memories.values(), overlap=names, method="ridge", device="cpu")
    assert (found.overlap, found.width) == ("text, image, point_cloud", found.common_width + 17)
    x, y = unit(5, 20, 4), unit(6, 20, 5)
    links = [("a", "b", "text"), ("b", "c", "image"), ("c", "d", "point_cloud")]
    two = [connect(memories[one], memories[other], overlap=m, method="ridge", device="cpu") for one, other, m in links]

    def step(rows, leaf, kept, overlap):
        return twin.carry(rows, pair(memories[leaf], overlap), pair(memories[kept], overlap))

    at_b, from_c = step(x, "a", "b", "text"), step(y, "d", "c", "point_cloud")
    at_c, from_b = step(at_b, "b", "c", "image"), step(from_c, "c", "b", "image")
    expected = (
        mapped(two[0], "a", x) @ mapped(two[0], "b", from_b).T
        + mapped(two[1], "b", at_b) @ mapped(two[1], "c", from_c).T
        + mapped(two[2], "c", at_c) @ mapped(two[2], "d", y).T
    ) / 3
    np.testing.assert_allclose(found.common(x, "a") @ found.common(y, "d").T, expected / 3, atol=2e-5)


@pytest.mark.parametrize("base", ["clip", "clap"])
def test_a_base_keeps_its_rows_and_all_others_are_carried_to_it(base):
    clip, clap, ulip = three()
    found = connect(clip, clap, ulip, method="ridge", base=base, device="cpu")
    two = connect(clip, clap, method="ridge", base=base, device="cpu")
    for space in ("clip", "clap"):
        rows = unit(3, 9, WIDTHS[space])
        np.testing.assert_allclose(found.project(rows, space), two.project(rows, space), atol=1e-6)
    clouds = unit(4, 9, 4)
    if base == "clip":
        expected = connect(clip, ulip, method="ridge", base=base, device="cpu").project(clouds, "ulip")
    else:
        carried = twin.carry(clouds, pair(ulip, "image"), pair(clip, "image"))
        expected = two.project(carried, "clip")
    np.testing.assert_allclose(found.project(clouds, "ulip"), expected, atol=1e-5)
    assert found.width == WIDTHS[base]


def test_spaces_that_share_one_modality_are_all_linked():
    found = connect(given("a", ("text", "image"), 4), given("b", ("text", "audio"), 3),
                    given("c", ("text", "point_cloud"), 5), method="ridge", device="cpu")  # fmt: skip
    assert (found.overlap, found.overlap_rows) == ("text", 60)
    assert found.common_width == 4 + 4 + 3  # each pair by its own link: the width of the earlier space


def test_several_outer_modalities_are_taken_together():
    both = given("clap", ("text", "audio", "point_cloud"))
    found = connect(given("clip"), both, method="ridge", device="cpu")
    assert found.spaces[1].modalities == ("text", "audio", "point_cloud")
    assert found.spaces[1].outer_rows == 70
    as_one = torch.cat([both.rows["audio"], both.rows["point_cloud"]])
    one = connect(
        given("clip"), cmcr.Memories("clap", text=both.rows["text"], audio=as_one), method="ridge", device="cpu"
    )
    rows = unit(2, 5, 5)
    np.testing.assert_allclose(found.project(rows, "clap"), one.project(rows, "clap"), atol=1e-6)


@pytest.mark.parametrize(("method", "settings"), [("ridge", {}), ("c-mcr", {"epochs": 12, "batch_size": 50})])
def test_modalities_that_no_space_ever_saw_together_find_each_other_across_wide_gaps(rng, method, settings):
    """Three spaces that see the same latent codes through different maps, each modality behind its own gap."""
    widths = {"clip": 64, "clap": 48, "ulip": 32}
    maps = {space: rng.normal(size=(6, width)) for space, width in widths.items()}
    gaps = {(s, m): 1.5 * rng.normal(size=widths[s]) for s, own in MODALITIES.items() for m in own}

    def embed(latent, space, modality):
        seen = latent @ maps[space] + gaps[space, modality]
        return normalize(seen + 0.05 * rng.normal(size=seen.shape)).astype(np.float32)

    items = {modality: rng.normal(size=(800, 6)) for modality in ROWS}
    memories = [
        cmcr.Memories(space, **{modality: embed(items[modality], space, modality) for modality in own})
        for space, own in MODALITIES.items()
    ]
    connection = connect(*memories, method=method, device="cpu", **settings)
    unseen = rng.normal(size=(100, 6))
    sounds = connection.project(embed(unseen, "clap", "audio"), "clap")
    clouds = connection.project(embed(unseen, "ulip", "point_cloud"), "ulip")
    assert recall_at_one(sounds, clouds) > 0.5  # chance is 1 in 100
    assert recall_at_one(clouds, sounds) > 0.5


@pytest.mark.parametrize(
    ("spaces", "options", "error", "message"),
    [
        ([given("clip"), given("clap"), given("x", ("audio", "point_cloud"), 3), given("y", ("image",), 3)], {},
         ConfigError, "besides the overlap 'image', got none"),
        ([given("clip"), given("clap"), given("x", ("point_cloud",), 3)], {}, ConfigError, "no chain .* 'x' to 'clip'"),
        (three(), {"overlap": "text"}, ConfigError, "no chain of overlaps joins 'ulip' to 'clip'"),
        (three(), {"overlap": {("clip", "clap"): "text"}}, ConfigError, "no chain of overlaps"),
        (three(), {"overlap": {("clip", "clop"): "text"}}, ConfigError, "Did you mean 'clap'|'clip'"),
        (three(), {"overlap": {"clip": "text"}}, ConfigError, "expected pairs of spaces"),
        (three(), {"overlap": {("clip", "clap"): "txt", ("clip", "ulip"): "image"}}, ConfigError, "mean 'text'"),
        ([*three(), given("x", ("text", "image"), 3)], {}, ConfigError, "share text, image"),
        ([given("clip"), given("clap"), cmcr.Memories("ulip", image=unit(1, 49, 4), point_cloud=unit(2, 9, 4))], {},
         DimensionError, "50 rows in 'clip' and 49 in 'ulip'.*name by overlap="),
        ([given("clip"), given("clap"), given("clap")], {}, ConfigError, "2 spaces are called 'clap'"),
        (three(), {"base": "clop"}, ConfigError, "Did you mean 'clap'|'clip'"),
        (three(), {"base": "clip", "method": "c-mcr"}, ConfigError, "leaves no space as it is"),
        (three(), {"consistent": {"clip": unit(1, 60, 6)}}, ConfigError, "for two spaces"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_refused(spaces, options, error, message):
    with pytest.raises(error, match=message):
        connect(*spaces, **{"method": "ridge", "device": "cpu", **options})
