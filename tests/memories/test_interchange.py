"""Memories from numpy arrays, clip-retrieval's folders and Parquet: the same rows, ids and sources."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import unit
from hypothesis import given, settings
from hypothesis import strategies as st

from cmcr.errors import (
    ArtefactNotFoundError,
    ConfigError,
    DimensionError,
    FormatError,
    MissingDependencyError,
    NonFiniteError,
    ReadError,
    TooFewRowsError,
)
from cmcr.memories.interchange import import_memory
from cmcr.memories.layout import items_in

ROWS = unit(11)


def imported(path, out, layout="npy", **options):
    return import_memory(path, out, layout=layout, **{"space": "clip", "modality": "image", **options})


def clip_retrieval_folder(folder, arrays, tables, part="img_emb", name="{}"):
    (folder / part).mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, (array, table) in enumerate(zip(arrays, tables, strict=True)):
        np.save(folder / part / f"{part}_{name.format(number)}.npy", array)
        pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{name.format(number)}.parquet")
    return folder


@settings(max_examples=10)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=6, unique=True), st.integers(1, 4)
)
def test_any_ids_and_shapes_come_back(tmp_path_factory, ids, width):
    folder, rows = tmp_path_factory.mktemp("any"), unit(len(ids), width)
    np.save(folder / "x.npy", rows)
    (folder / "x.jsonl").write_text("".join(json.dumps({"id": id_}) + "\n" for id_ in ids))
    pq.write_table(pa.table({"id": ids, "embedding": rows.tolist()}), folder / "x.parquet")
    clip_retrieval_folder(folder / "there", [rows], [{"image_path": ids}])
    for path, layout, options in [
        ("x.npy", "npy", {"ids": folder / "x.jsonl"}),
        ("x.parquet", "parquet", {}),
        ("there", "clip-retrieval", {}),
    ]:
        memory = imported(folder / path, folder / layout, layout, dtype="float32", **options)
        assert memory.ids == ids
        np.testing.assert_allclose(memory[:], rows, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_arrays_of_any_order_and_precision(tmp_path, order, dtype):
    np.save(tmp_path / "rows.npy", np.asarray(ROWS * 9, dtype=dtype, order=order))
    memory = imported(tmp_path / "rows.npy", tmp_path / "m", shard_items=4)
    np.testing.assert_allclose(memory[:], ROWS, atol=1e-3)
    assert memory.ids[3] == "rows.npy:3"


def test_ids_may_be_lines_of_any_system(tmp_path):
    ids = [f"bild ü{row}" for row in range(11)]
    (tmp_path / "ids.txt").write_bytes(("\r\n".join(ids) + "\r\n").encode())
    np.save(tmp_path / "rows.npy", ROWS.astype(np.float16))
    memory = imported(tmp_path / "rows.npy", tmp_path / "m", ids=tmp_path / "ids.txt")
    assert memory.ids == ids
    np.testing.assert_array_equal(memory[:], ROWS.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("content", "ids", "kind", "message"),
    [
        (np.array([[object()]]), None, FormatError, "never unpickles"),
        (b"\x80\x04pickle", None, FormatError, "never unpickles"),
        (np.full((2, 2), np.nan), None, NonFiniteError, "x.npy:0"),
        (None, None, ReadError, "No such file"),
        (b"", None, FormatError, "not a whole"),
        ("cut", None, FormatError, "not a whole"),
        (ROWS, ("few.txt", "a\nb\n"), DimensionError, "11 rows, got 2"),
        (ROWS, ("ids.jsonl", '{"a": 1}'), FormatError, "list of ids"),
        (ROWS, ("ids.jsonl", "[" * 10**5), FormatError, "list of ids"),
        (ROWS, ("no.txt", None), ReadError, "No such file"),
    ],
)
def test_arrays_and_ids_that_cannot_be_used(tmp_path, content, ids, kind, message):
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, ROWS if isinstance(content, str) else content, allow_pickle=True)
        path.write_bytes(path.read_bytes()[: -8 if isinstance(content, str) else None])
    if ids and ids[1]:
        (tmp_path / ids[0]).write_text(ids[1])
    with pytest.raises(kind, match=message):
        imported(path, tmp_path / "m", ids=ids and tmp_path / ids[0])


@pytest.mark.parametrize("name", ["{}", "{:03}"])
def test_clip_retrieval_partitions_come_in_the_order_of_their_numbers(tmp_path, name):
    arrays = [unit(2, 4, seed).astype(np.float16) for seed in range(11)]
    tables = [{"image_path": [f"{n}/a", f"{n}/b"], "caption": ["x", "y"]} for n in range(11)]
    folder = clip_retrieval_folder(tmp_path / "there", arrays, tables, name=name)
    memory = imported(folder, tmp_path / "m", "clip-retrieval", shard_items=3)
    assert memory.ids == [f"{n}/{letter}" for n in range(11) for letter in "ab"]
    np.testing.assert_allclose(memory[:], np.concatenate(arrays), atol=1e-3)


@pytest.mark.parametrize("table", [{"caption": ["x", "y"]}, {"image_path": ["a", "a"]}, {"image_path": ["a", None]}])
def test_clip_retrieval_without_paths_of_their_own_is_numbered(tmp_path, table):
    folder = clip_retrieval_folder(tmp_path / "there", [ROWS[:2]] * 2, [table, table], part="text_emb")
    assert imported(folder, tmp_path / "m", "clip-retrieval", modality="text").ids == ["0:0", "0:1", "1:0", "1:1"]


def test_clip_retrieval_folders_that_are_not_whole(tmp_path):
    tables = [{"image_path": [f"{n}/{row}" for row in range(11)]} for n in range(2)]
    folder = clip_retrieval_folder(tmp_path / "there", [ROWS, ROWS[:, :3]], tables)

    def refused(kind, message, **options):
        with pytest.raises(kind, match=message):
            imported(folder, tmp_path / "m", "clip-retrieval", **options)

    refused(DimensionError, "5 wide")
    refused(ArtefactNotFoundError, r"text_emb_0\.npy", modality="text")
    refused(ConfigError, "'audio'", modality="audio")
    np.save(folder / "img_emb" / "img_emb_0.npy", ROWS[:4])
    refused(DimensionError, r"img_emb_0\.npy: 4 rows, its metadata has 11")
    (folder / "metadata" / "metadata_0.parquet").unlink()
    refused(ReadError, "metadata_0")


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 5), pa.large_list(pa.float64())])
def test_parquet_of_any_lists_ids_and_sources(tmp_path, kind):
    folder = tmp_path / "there"
    folder.mkdir()
    for number, part in enumerate((ROWS[:6], ROWS[6:])):
        keys = [10 * number + row for row in range(len(part))]
        table = pa.table(
            {"vector": pa.array(part.tolist(), kind), "key": keys, "source": [7, *[None] * (len(part) - 1)]}
        )
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=2)
    memory = imported(folder, tmp_path / "m", "parquet", id_column="key", dtype="float32", shard_items=4)
    assert memory.ids == ["0", "1", "2", "3", "4", "5", "10", "11", "12", "13", "14"]
    assert items_in(tmp_path / "m", memory.contents[0].shards[0])[:2] == [("0", "7"), ("1", "1")]
    np.testing.assert_allclose(memory[:], ROWS, atol=1e-6)
    numbered = imported(folder, tmp_path / "n", "parquet", column="vector")
    assert numbered.ids[5:7] == ["0.parquet:5", "1.parquet:0"]


@pytest.mark.parametrize(
    ("columns", "options", "kind", "message"),
    [
        ({"v": [[1.0, 2.0], [1.0]]}, {}, DimensionError, "expected 2 values .* got 1 in row 1"),
        ({"v": [[1.0, 2.0], None]}, {}, DimensionError, "got 0 in row 1"),
        ({"v": [[1.0, 2.0], [1.0, None]]}, {}, NonFiniteError, "row 1"),
        ({"v": [[1.0]], "w": [[1.0]]}, {}, ConfigError, "v, w"),
        ({"v": ["text"]}, {}, ConfigError, "none"),
        ({"v": [[1.0]]}, {"column": "w"}, ConfigError, "'w'"),
        ({"v": [[1.0]]}, {"id_column": "w"}, ConfigError, "'w', its columns are v"),
        ({"v": [[1.0], [2.0]], "id": ["a", None]}, {}, FormatError, "no value in row 1"),
        ({"v": [[1.0], [2.0]], "id": ["a", "a"]}, {}, ConfigError, "'a' occurs twice"),
        ({"v": pa.array([], pa.list_(pa.float32()))}, {}, TooFewRowsError, "got none"),
        (b"no", {}, FormatError, "Parquet"),
        (None, {}, ArtefactNotFoundError, "x.parquet"),
    ],
)
def test_parquet_that_cannot_be_used(tmp_path, columns, options, kind, message):
    path = tmp_path / "x.parquet"
    if columns is None:
        path.mkdir()
    elif isinstance(columns, bytes):
        path.write_bytes(columns)
    else:
        pq.write_table(pa.table(columns), path)
    with pytest.raises(kind, match=message):
        imported(path, tmp_path / "m", "parquet", **options)


def test_parquet_needs_the_extra(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"cmcr\[parquet\]"):
        imported(tmp_path / "x.parquet", tmp_path / "m", "parquet")


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("parquet", {"ids": "x"}, "--ids"),
        ("npy", {"column": "v"}, "--column"),
        ("clip-retrieval", {"id_column": "v"}, "--id"),
        ("parket", {}, "Did you mean 'parquet'"),
    ],
)
def test_options_of_other_layouts_are_refused(tmp_path, layout, options, message):
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path / "x", tmp_path / "m", layout, **options)
