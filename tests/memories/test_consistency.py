"""Memories grouped by space and matched by ids; semantically consistent rows as a memory."""

import warnings

import numpy as np
import pytest
import stored
from stored import unit

import cmcr
import reference.enhancement as twin
from cmcr.arrays import StoredRows
from cmcr.errors import ConfigError, DimensionError, ResumeError, TooFewRowsError
from cmcr.memories import consistency
from cmcr.memories.consistency import write_consistent
from cmcr.memories.memories import MatchedRows, by_space
from cmcr.memories.verification import verify

unflushed = stored.unflushed

IDS = [f"t{n}" for n in range(20)]


def written(folder, space, modality, *, seed=0, ids=IDS, width=6, **options):
    return cmcr.write_memory(
        folder / f"{space}-{modality}", unit(len(ids), width, seed), ids, space=space, modality=modality, **options
    )


@pytest.fixture
def four(tmp_path):
    """The overlap of the second space lacks three items, and lies in another order."""
    others = [id_ for id_ in reversed(IDS) if id_ not in ("t3", "t7", "t19")]
    return [
        written(tmp_path, "a", "text", seed=1),
        written(tmp_path, "b", "audio", seed=2, width=4, ids=[f"s{n}" for n in range(30)]),
        written(tmp_path, "a", "image", seed=3, ids=[f"p{n}" for n in range(40)]),
        written(tmp_path, "b", "text", seed=4, width=4, ids=others),
    ]


def test_by_space_matches_the_overlap_by_ids(four):
    with pytest.warns(UserWarning, match="17 items are in both 'a' and 'b'; 3 that only one of them has are left out"):
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
    four[3] = written(tmp_path / "whole", "b", "text", width=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left, right = by_space(four)
    assert (left.rows["text"], right.rows["text"]) == (four[0], four[3])


def test_by_space_matches_the_overlap_asked_for(four, tmp_path):
    memories = [*four, written(tmp_path, "b", "image", width=4, ids=[f"p{n}" for n in range(1, 41)])]
    left, _ = by_space(memories)
    assert left.rows["text"] is four[0]  # text or image: `connect` asks which
    with pytest.warns(UserWarning, match="39 items"):
        left, right = by_space(memories, "image")
    assert left.rows["image"].ids == right.rows["image"].ids
    assert left.rows["text"] is four[0]


def test_by_space_refuses(four, tmp_path):
    text_a, audio_b, image_a, _ = four
    for memories, message in [
        ([text_a, image_a], "memories of two spaces, got 1"),
        ([*four, text_a], "a modality was given twice"),
        ([written(tmp_path / "f", "a", "text", fingerprint="f"), image_a, audio_b], "of the encoders f"),
        ([text_a, image_a, audio_b, cmcr.Memory(four[3].folders[0], four[3].folders[0])], "'t18' occurs twice"),
    ]:
        with pytest.raises(ConfigError, match=message):
            by_space(memories)
    with pytest.raises(DimensionError, match="wide"):
        by_space([written(tmp_path / "wide", "a", "text", width=5), image_a, audio_b])
    with pytest.raises(TooFewRowsError, match="1 ids are in both"):
        by_space([*four[:3], written(tmp_path / "few", "b", "text", width=4, ids=["t1", "u"])])


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(consistency, "shard_items_for", lambda width, dtype: 6)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("normalize", [False, True])
def test_write_consistent_is_semantic_consistency(four, tmp_path, normalize):
    shares = []
    with pytest.warns(UserWarning, match="left out"):
        left, _ = by_space(four)
    queries = left.rows["text"]
    made = write_consistent(
        queries, four[2], tmp_path / "out", temperature=0.2, normalize=normalize, on_progress=shares.append
    )
    rows = left.loaded("text").numpy()
    expected = twin.semantic_consistency(rows.astype(np.float64), four[2][:].astype(np.float64), 0.2)
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(made[:], expected, atol=1e-6)
    assert (made.space, made.modality, made.dtype, made.ids) == ("a", "image", "float32", queries.ids)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert verify(tmp_path / "out").rows == 17


@pytest.mark.usefixtures("small_shards")
def test_write_consistent_is_resumed_under_the_same_settings_only(four, tmp_path, monkeypatch):
    queries, memory = four[0], four[2]
    real, calls = consistency.semantic_consistency, []

    def stopping(rows, *arguments, **options):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(rows, *arguments, **options)

    monkeypatch.setattr(consistency, "semantic_consistency", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_consistent(queries, memory, tmp_path / "out", temperature=0.2)
    with pytest.raises(ResumeError, match=r"temperature was 0\.2, now 0\.3"):
        write_consistent(queries, memory, tmp_path / "out", temperature=0.3)
    other = written(tmp_path / "other", "a", "image", seed=9, ids=[f"p{n}" for n in range(40)])
    with pytest.raises(ResumeError, match=r"memory was .*…, now"):
        write_consistent(queries, other, tmp_path / "out", temperature=0.2)
    made = write_consistent(queries, memory, tmp_path / "out", temperature=0.2)
    assert calls == [6, 6, 6, 6, 2]
    whole = write_consistent(queries, memory, tmp_path / "whole", temperature=0.2)
    assert made.digest() == whole.digest()
    write_consistent(queries, memory, tmp_path / "whole", temperature=0.2)
    assert len(calls) == 9  # nothing is computed again


def test_write_consistent_refuses_other_widths_and_devices(four, tmp_path):
    with pytest.raises(DimensionError, match="6 wide, the memory 4"):
        write_consistent(four[0], four[1], tmp_path / "out")
    with pytest.raises(cmcr.CmcrError, match="unknown device"):
        write_consistent(four[0], four[2], tmp_path / "out", device="tpu")
    assert not (tmp_path / "out").exists()
