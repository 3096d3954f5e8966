"""Rows of a space by modality: of arrays, or of memories on disk whose overlap is matched by ids."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import unit

import cmcr
from cmcr.arrays import StoredRows
from cmcr.errors import ConfigError, DimensionError, DtypeError, NonFiniteError, TooFewRowsError, ZeroRowError
from cmcr.memories.memories import MatchedRows, by_space
from reference.enhancement import normalize

IDS = [f"t{n}" for n in range(20)]


def raw(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def spoilt(value, row=3):
    array = raw(40, 3)
    array[row] = value
    return array


def test_arrays_become_unit_rows_by_modality():
    memories = cmcr.Memories("clip", text=raw(40, 3), image=torch.from_numpy(raw(9, 3, 1)))
    assert (memories.space, list(memories.rows), memories.width) == ("clip", ["text", "image"], 3)
    np.testing.assert_allclose(memories.loaded("text").numpy(), normalize(raw(40, 3)), atol=1e-6)
    assert "image: 9 x 3" in repr(memories)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (spoilt(np.nan), NonFiniteError, "row 3"),
        (spoilt(-np.inf, 39), NonFiniteError, "row 39"),
        (spoilt(0.0), ZeroRowError, "row 3"),
        (np.ones((0, 3)), TooFewRowsError, "got 0"),
        (np.ones((4, 3), dtype=np.int32), DtypeError, "got int32"),
        (torch.ones(4, 3, dtype=torch.int64), DtypeError, "got torch.int64"),
        (np.ones(3), DimensionError, r"embedding\[None\]"),
        (raw(40, 4), DimensionError, "got text 4, image 3"),
    ],
)
def test_unusable_arrays_are_refused_by_space(array, error, message):
    with pytest.raises(error, match=rf"space 'clip': .*{message}"):
        cmcr.Memories("clip", text=array, image=raw(9, 3))


@pytest.mark.parametrize(
    ("space", "arrays", "error", "message"),
    [
        ("clip", {"txt": raw(4, 3)}, ConfigError, "Did you mean 'text'"),
        ("clip", {"pointcloud": raw(4, 3)}, ConfigError, "Did you mean 'point_cloud'"),
        ("clip", {}, ConfigError, "at least one array"),
        ("  ", {"text": raw(1, 3)}, ConfigError, "space's name"),
        (None, {"text": raw(1, 3)}, ConfigError, "space's name"),
        (SimpleNamespace(name=3), {"text": raw(1, 3)}, ConfigError, "space's name"),
        (SimpleNamespace(name="a", fingerprint="f", widths={"text": 3}), {"text": raw(4, 4)}, DimensionError, "3 wide, got 4"),
        (SimpleNamespace(name="a", fingerprint="f", widths={"text": 3}), {"audio": raw(4, 3)}, ConfigError, "modality of a"),
    ],
)  # fmt: skip
def test_what_is_not_a_space_with_rows_is_refused(space, arrays, error, message):
    with pytest.raises(error, match=message):
        cmcr.Memories(space, **arrays)


def test_the_fingerprint_is_that_of_the_attached_encoders():
    space = SimpleNamespace(name="clip", fingerprint="abc", widths={"text": 3, "image": 0})
    assert cmcr.Memories(space, text=raw(4, 3), image=raw(4, 3)).fingerprint == "abc"


def on_disk(folder, space, modality, *, seed=0, ids=IDS, width=6, **options):
    folder = folder / f"{space}-{modality}"
    return cmcr.write_memory(folder, unit(len(ids), width, seed), ids, space=space, modality=modality, **options)


@pytest.fixture
def four(tmp_path):
    """The overlap of the second space lacks three items, and lies in another order."""
    others = [id_ for id_ in reversed(IDS) if id_ not in ("t3", "t7", "t19")]
    return [
        on_disk(tmp_path, "a", "text", seed=1),
        on_disk(tmp_path, "b", "audio", seed=2, width=4, ids=[f"s{n}" for n in range(30)]),
        on_disk(tmp_path, "a", "image", seed=3, ids=[f"p{n}" for n in range(40)]),
        on_disk(tmp_path, "b", "text", seed=4, width=4, ids=others),
    ]


def test_by_space_matches_the_overlap_by_ids(four):
    with pytest.warns(UserWarning, match="17 items .* 3 that"):
        left, right = cmcr.Memory.by_space(four)
    assert (left.space, right.space) == ("a", "b")
    mine, theirs = left.rows["text"], right.rows["text"]
    assert mine.ids == theirs.ids == [id_ for id_ in IDS if id_ not in ("t3", "t7", "t19")]
    np.testing.assert_array_equal(mine[:], four[0][[four[0].ids.index(id_) for id_ in mine.ids]])
    np.testing.assert_array_equal(np.concatenate(list(theirs.blocks(5))), theirs[:])
    np.testing.assert_array_equal(theirs[np.array([2, 0])], four[3][[four[3].ids.index(id_) for id_ in ("t2", "t0")]])
    assert isinstance(mine, StoredRows)
    assert (len(mine), mine.shape, mine.space, mine.modality) == (17, (17, 6), "a", "text")
    np.testing.assert_allclose(np.linalg.norm(left.loaded("text"), axis=1), 1, atol=1e-6)
    assert left.rows["image"] is four[2]
    digests = {MatchedRows(memory, np.array(rows)).digest() for memory in four[:2] for rows in ([0, 1], [1, 0], [0])}
    assert len(digests) == 6


def test_by_space_leaves_equal_lists_as_they_are(four, tmp_path):
    four[3] = on_disk(tmp_path / "whole", "b", "text", width=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left, right = by_space(four)
    assert (left.rows["text"], right.rows["text"]) == (four[0], four[3])


def test_by_space_matches_the_overlap_asked_for(four, tmp_path):
    memories = [*four, on_disk(tmp_path, "b", "image", width=4, ids=[f"p{n}" for n in range(1, 41)])]
    left, _ = by_space(memories)
    assert left.rows["text"] is four[0]  # text or image: `connect` asks which
    with pytest.warns(UserWarning, match="39 items"):
        left, right = by_space(memories, "image")
    assert left.rows["image"].ids == right.rows["image"].ids
    assert left.rows["text"] is four[0]


def test_by_space_matches_the_overlaps_of_three_spaces(four, tmp_path):
    pictures = [f"p{n}" for n in range(5, 40)]
    more = [
        on_disk(tmp_path, "c", "image", seed=5, width=3, ids=pictures),
        on_disk(tmp_path, "c", "audio", seed=6, width=3, ids=["s1", "u"]),
    ]
    named = {("a", "b"): "text", ("c", "a"): "image"}
    with pytest.warns(UserWarning, match="17 items .* 3 that"), pytest.warns(UserWarning, match="35 items .* 5 that"):
        a, b, c = by_space([*four, *more], named)
    assert [known.space for known in (a, b, c)] == ["a", "b", "c"]
    assert a.rows["text"].ids == b.rows["text"].ids
    assert a.rows["image"].ids == c.rows["image"].ids == pictures
    assert (b.rows["audio"], c.rows["audio"]) == (four[1], more[1])  # shared, but not by a link that was named
    with pytest.warns(UserWarning, match="17 items"), pytest.raises(TooFewRowsError, match="1 ids are in all"):
        by_space([*four, *more])


def test_by_space_refuses(four, tmp_path):
    text_a, audio_b, image_a, _ = four
    few = on_disk(tmp_path / "few", "b", "text", width=4, ids=["t1", "u"])
    twice = cmcr.Memory(four[3].folders[0], four[3].folders[0])
    for memories, error, message in [
        ([text_a, image_a], ConfigError, "two spaces, got 1"),
        ([*four, text_a], ConfigError, "given twice"),
        ([on_disk(tmp_path / "f", "a", "text", fingerprint="f"), image_a, audio_b], ConfigError, "encoders f"),
        ([text_a, image_a, audio_b, twice], ConfigError, "'t18' occurs twice"),
        ([on_disk(tmp_path / "wide", "a", "text", width=5), image_a, audio_b], DimensionError, "one width"),
        ([text_a, image_a, audio_b, few], TooFewRowsError, "1 ids are in all"),
    ]:
        with pytest.raises(error, match=message):
            by_space(memories)
