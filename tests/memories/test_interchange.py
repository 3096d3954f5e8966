"""Memories from and to numpy arrays, clip-retrieval's folders and Parquet: the same rows, ids and sources come back."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmcr.errors import (
    ArtefactNotFoundError,
    ConfigError,
    DimensionError,
    DtypeError,
    FormatError,
    MissingDependencyError,
    NonFiniteError,
    ReadError,
    TooFewRowsError,
)
from cmcr.memories.interchange import import_memory

CLIP = {"space": "clip", "modality": "image"}


@pytest.fixture
def rows(rng):
    rows = rng.normal(size=(11, 5)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def items_of(memory):
    return [memory.item(row) for row in range(len(memory))]


def imported(path, out, layout="npy", **options):
    return import_memory(path, out, layout=layout, **{**CLIP, **options})


def clip_retrieval_folder(folder, arrays, tables, part="img_emb", name="{}"):
    (folder / part).mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, (array, table) in enumerate(zip(arrays, tables, strict=True)):
        np.save(folder / part / f"{part}_{name.format(number)}.npy", array)
        pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{name.format(number)}.parquet")
    return folder


@pytest.mark.parametrize("ending", ["txt", "jsonl"])
def test_ids_of_arrays_come_as_lines_or_json_lines(tmp_path, rows, ending):
    ids = [f"bild ü{row}" for row in range(11)]
    path = tmp_path / f"ids.{ending}"
    text = "\r\n".join(ids) + "\r\n"
    if ending == "jsonl":
        text = "".join(json.dumps({"id": id_}) + "\n" for id_ in ids)
    path.write_bytes(text.encode())
    np.save(tmp_path / "rows.npy", rows.astype(np.float16))
    memory = imported(tmp_path / "rows.npy", tmp_path / "m", ids=path)
    assert memory.ids == ids
    np.testing.assert_array_equal(memory[:], rows.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_arrays_of_any_order_and_precision(tmp_path, rows, order, dtype):
    np.save(tmp_path / "rows.npy", np.asarray(rows * 9, dtype=dtype, order=order))
    memory = imported(tmp_path / "rows.npy", tmp_path / "m", shard_items=4)
    np.testing.assert_allclose(memory[:], rows, atol=1e-3)
    assert memory.ids[3] == "rows.npy:3"


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (np.array([[object()]]), FormatError, "never unpickles"),
        (np.ones(5), DimensionError, "shape"),
        (np.ones((2, 2), dtype=int), DtypeError, "got int64"),
        (np.empty((0, 3)), TooFewRowsError, "got none"),
        (np.full((2, 2), np.nan), NonFiniteError, r"row 0 \(id 'x.npy:0'\)"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, array, kind, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(kind, match=message):
        imported(tmp_path / "x.npy", tmp_path / "m")


def test_ids_and_files_that_cannot_be_used(tmp_path, rows):
    np.save(tmp_path / "x.npy", rows)
    (tmp_path / "few.txt").write_text("a\nb\n")
    (tmp_path / "ids.jsonl").write_text('{"a": 1}')
    whole = (tmp_path / "x.npy").read_bytes()
    for name, content in (("cut", whole[:-8]), ("pickled", b"\x80\x04pickle"), ("empty", b"")):
        (tmp_path / f"{name}.npy").write_bytes(content)
    for name, ids, kind, message in [
        ("x", "few.txt", DimensionError, "for each of 11 rows, got 2"),
        ("x", "ids.jsonl", FormatError, "not a whole list of ids"),
        ("x", "no.txt", ReadError, "No such file"),
        ("no", None, ReadError, "No such file"),
        ("cut", None, FormatError, "not a whole"),
        ("pickled", None, FormatError, "never unpickles"),
        ("empty", None, FormatError, "not a whole"),
    ]:
        with pytest.raises(kind, match=message):
            imported(tmp_path / f"{name}.npy", tmp_path / "m", ids=ids and tmp_path / ids)


@pytest.mark.parametrize("name", ["{}", "{:03}"])
def test_clip_retrieval_partitions_come_in_the_order_of_their_numbers(tmp_path, rng, name):
    arrays = [rng.normal(size=(2, 4)).astype(np.float16) for _ in range(11)]
    tables = [{"image_path": [f"{n}/a", f"{n}/b"], "caption": ["x", "y"]} for n in range(11)]
    folder = clip_retrieval_folder(tmp_path / "there", arrays, tables, name=name)
    memory = imported(folder, tmp_path / "m", "clip-retrieval", shard_items=3)
    assert memory.ids == [f"{n}/{letter}" for n in range(11) for letter in "ab"]
    expected = np.concatenate(arrays).astype(np.float32)
    np.testing.assert_allclose(memory[:], expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("table", [{"caption": ["x", "y"]}, {"image_path": ["a", "a"]}, {"image_path": ["a", None]}])
def test_clip_retrieval_without_paths_of_their_own_is_numbered(tmp_path, rng, table):
    arrays = [rng.normal(size=(2, 4)).astype(np.float16)] * 2
    folder = clip_retrieval_folder(tmp_path / "there", arrays, [table, table], part="text_emb")
    memory = imported(folder, tmp_path / "m", "clip-retrieval", modality="text")
    assert memory.ids == ["0:0", "0:1", "1:0", "1:1"]


def test_columns_of_sources_may_be_anything(tmp_path):
    pq.write_table(pa.table({"v": [[1.0], [2.0]], "id": ["a", "b"], "source": [7, None]}), tmp_path / "x.parquet")
    assert items_of(imported(tmp_path / "x.parquet", tmp_path / "p", "parquet")) == [("a", "7"), ("b", "b")]


def test_clip_retrieval_folders_that_are_not_whole(tmp_path, rows):
    tables = [{"image_path": [f"{n}/{row}" for row in range(11)]} for n in range(2)]
    folder = clip_retrieval_folder(tmp_path / "there", [rows, rows[:, :3]], tables)
    with pytest.raises(DimensionError, match="the first are 5 wide"):
        imported(folder, tmp_path / "m", "clip-retrieval")
    (folder / "img_emb" / "img_emb_1.npy").unlink()
    with pytest.raises(ArtefactNotFoundError, match=r"there are no text_emb_0.npy"):
        imported(folder, tmp_path / "n", "clip-retrieval", modality="text")
    with pytest.raises(ConfigError, match="clip-retrieval keeps image and text, got 'audio'"):
        imported(folder, tmp_path / "n", "clip-retrieval", modality="audio")
    np.save(folder / "img_emb" / "img_emb_0.npy", rows[:4])
    with pytest.raises(DimensionError, match=r"img_emb_0\.npy: 4 rows, its metadata has 11"):
        imported(folder, tmp_path / "n", "clip-retrieval")
    (folder / "metadata" / "metadata_0.parquet").unlink()
    with pytest.raises(ReadError, match="metadata_0"):
        imported(folder, tmp_path / "n", "clip-retrieval")


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 5), pa.large_list(pa.float64())])
def test_parquet_of_any_lists_and_ids(tmp_path, rows, kind):
    folder = tmp_path / "there"
    folder.mkdir()
    for number, part in enumerate((rows[:6], rows[6:])):
        table = pa.table(
            {"vector": pa.array(part.tolist(), kind), "key": [10 * number + row for row in range(len(part))]}
        )
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=2)
    memory = imported(folder, tmp_path / "m", "parquet", id_column="key", dtype="float32", shard_items=4)
    assert memory.ids == ["0", "1", "2", "3", "4", "5", "10", "11", "12", "13", "14"]
    np.testing.assert_allclose(memory[:], rows, atol=1e-6)
    numbered = imported(folder, tmp_path / "n", "parquet", column="vector")
    assert numbered.ids[5:7] == ["0.parquet:5", "1.parquet:0"]


@pytest.mark.parametrize(
    ("columns", "options", "kind", "message"),
    [
        ({"v": [[1.0, 2.0], [1.0]]}, {}, DimensionError, "expected 2 values in each row of 'v', got 1 in row 1"),
        ({"v": [[1.0, 2.0], None]}, {}, DimensionError, "got 0 in row 1"),
        ({"v": [[1.0, 2.0], [1.0, None]]}, {}, NonFiniteError, "row 1"),
        ({"v": [[1.0]], "w": [[1.0]]}, {}, ConfigError, "columns of that kind: v, w. Name one with --column"),
        ({"v": ["text"]}, {}, ConfigError, "columns of that kind: none"),
        ({"v": [[1.0]]}, {"column": "w"}, ConfigError, "lists of floats in the column 'w'"),
        ({"v": [[1.0]]}, {"id_column": "w"}, ConfigError, "has no column 'w', its columns are v"),
        ({"v": [[1.0], [2.0]], "id": ["a", None]}, {}, FormatError, "the column 'id' has no value in row 1"),
        ({"v": [[1.0], [2.0]], "id": ["a", "a"]}, {}, ConfigError, "the id 'a' occurs twice"),
    ],
)
def test_parquet_that_cannot_be_used(tmp_path, columns, options, kind, message):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(kind, match=message):
        imported(tmp_path / "x.parquet", tmp_path / "m", "parquet", **options)


def test_no_parquet(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(FormatError, match="not a whole Parquet file"):
        imported(tmp_path / "x.parquet", tmp_path / "m", "parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactNotFoundError, match=r"no \*.parquet files"):
        imported(tmp_path / "empty", tmp_path / "m", "parquet")
    pq.write_table(pa.table({"v": pa.array([], pa.list_(pa.float32()))}), tmp_path / "none.parquet")
    with pytest.raises(TooFewRowsError, match="got none"):
        imported(tmp_path / "none.parquet", tmp_path / "m", "parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'cmcr\[parquet\]'"):
        imported(tmp_path / "none.parquet", tmp_path / "m", "parquet")


def test_options_of_other_layouts_are_refused(tmp_path):
    for layout, options in (
        ("parquet", {"ids": "x"}),
        ("npy", {"column": "v"}),
        ("clip-retrieval", {"id_column": "v"}),
    ):
        with pytest.raises(ConfigError, match=f"--{next(iter(options)).partition('_')[0]}"):
            imported(tmp_path / "x", tmp_path / "m", layout, **options)
    with pytest.raises(ConfigError, match="Did you mean 'parquet'"):
        imported(tmp_path / "x", tmp_path / "m", "parket")
