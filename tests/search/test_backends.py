"""One contract for all back-ends: what the numpy twin finds, in its order, whatever the blocks, filters and changes."""

import shutil
import sys

import numpy as np
import pytest

import cmcr
from cmcr.errors import (
    ConfigError,
    DimensionError,
    DtypeError,
    IntegrityError,
    MissingDependencyError,
    NonFiniteError,
)
from cmcr.search import exact as exact_module
from cmcr.search import lance_index
from cmcr.search.backends import KINDS, build_backend, choose_backend, open_backend
from cmcr.search.exact import ExactIndex
from cmcr.search.index import Index
from reference import search as twin

ROWS, WIDTH = 300, 16
MASKS = {"none": 0.0, "one in fifty": 0.02, "a third": 0.33, "most": 0.9, "all": 1.0}


def write_rows(folder, rows, dtype="float32", shard_items=70):
    return cmcr.write_memory(folder, rows, space="x", modality="text", dtype=dtype, shard_items=shard_items)


def clustered(count=ROWS, seed=0):
    """Unit rows around 8 centres, one of them 40 times over, at both ends and in between."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(8, WIDTH))[rng.integers(8, size=count)] + 0.5 * rng.normal(size=(count, WIDTH))
    rows[[0, *range(60, 90), *range(count - 9, count)]] = rows[5]
    return twin.unit(rows).astype(np.float32)


def as_numbers(memory, extras=None):
    rows = memory[:].astype(np.float64) if memory.dtype == "float32" else twin.unit(memory[:])
    return rows if extras is None else np.concatenate([rows, extras], axis=1)


def queries_for(rows, count=5, seed=1):
    """Some of the rows themselves, the one that is there 40 times first, and others."""
    drawn = np.random.default_rng(seed).normal(size=(count, rows.shape[1]))
    drawn[0], drawn[1] = rows[5], rows[17]
    return twin.unit(drawn).astype(np.float32)


def assert_found(found, expected):
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows") / "m", clustered())


@pytest.fixture(scope="module")
def extras():
    extras = np.random.default_rng(3).normal(size=(ROWS, 2)).astype(np.float32)
    extras[60:90] = extras[5]
    return extras


@pytest.fixture(scope="module")
def order():
    return np.random.default_rng(4).permutation(ROWS).astype(np.int32)


@pytest.mark.parametrize("block", [7, 64, 2048])
@pytest.mark.parametrize("k", [1, 10, 45, ROWS, 2 * ROWS])
def test_exact_is_the_definition(memory, extras, order, block, k, monkeypatch):
    monkeypatch.setattr(exact_module, "_BLOCK_ROWS", block)
    monkeypatch.setattr(exact_module, "_PAIRS", 50)
    rows = as_numbers(memory, extras)
    queries = queries_for(rows)
    index = ExactIndex(memory, extras, order)
    assert isinstance(index, Index)
    assert (index.kind, index.exact, index.width, len(index)) == ("exact", True, WIDTH + 2, ROWS)
    assert_found(index.search(queries, k), twin.best(rows, queries, k, order=order))
    allowed = np.random.default_rng(5).random(ROWS) < 0.4
    found = index.search(queries, k, allowed=allowed)
    assert_found(found, twin.best(rows, queries, k, order=order, allowed=allowed))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounded_rows_are_scaled_to_length_one(tmp_path, dtype):
    memory = write_rows(tmp_path / "m", clustered(), dtype)
    rows = as_numbers(memory)
    scores, positions = ExactIndex(memory).search(rows[[5, 9]].astype(np.float32), 50)
    assert_found((scores, positions), twin.best(rows, rows[[5, 9]].astype(np.float32), 50))
    np.testing.assert_allclose(scores[:, 0], 1, atol=3e-7)


def test_rows_as_they_were_written_are_not_scaled(tmp_path):
    memory = write_rows(tmp_path / "m", clustered(), "float16")
    memory.as_written = True
    rows, queries = memory[:].astype(np.float64), queries_for(clustered())
    assert_found(ExactIndex(memory).search(queries, 50), twin.best(rows, queries, 50))


def test_many_queries_are_compared_in_turns(memory, monkeypatch):
    monkeypatch.setattr(exact_module, "_QUERIES", 3)
    rows = as_numbers(memory)
    queries = queries_for(rows, 8)
    assert_found(ExactIndex(memory).search(queries, 4), twin.best(rows, queries, 4))


def test_filtered_rows_are_copied_or_passed_over(memory, monkeypatch):
    rows = as_numbers(memory)
    queries, allowed = queries_for(rows), np.random.default_rng(5).random(ROWS) < 0.5
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(exact_module, "_DENSE", share)
        found.append(ExactIndex(memory).search(queries, 30, allowed=allowed))
    assert_found(found[0], found[1])


def made(kind, folder, *given, older=None):
    """Build a back-end, and open it by its card."""
    card = None if kind == "exact" else build_backend(kind, folder, ExactIndex(*given), older)
    return open_backend(card, folder, *given, *[None] * (3 - len(given)))


@pytest.fixture(scope="module", params=KINDS)
def index(request, memory, extras, order, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp(request.param) / "index", memory, extras, order)


@pytest.mark.parametrize("share", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_filter_first_then_the_best_exactly(index, memory, extras, order, share, k):
    allowed = np.random.default_rng(7).random(ROWS) < share
    rows = as_numbers(memory, extras)
    queries = queries_for(rows)
    found = index.search(queries, k, allowed=allowed)
    assert_found(found, twin.best(rows, queries, k, order=order, allowed=allowed))
    assert found[0].shape == (5, min(k, allowed.sum()))
    assert (found[0].dtype, found[1].dtype) == (np.float32, np.int64)


def test_all_rows_equal(tmp_path):
    memory = write_rows(tmp_path / "m", np.tile(clustered()[:1], (ROWS, 1)))
    scores, positions = ExactIndex(memory, None, np.arange(ROWS)[::-1]).search(memory[:2], 7)
    np.testing.assert_array_equal(positions, np.tile(np.arange(ROWS)[: -7 - 1 : -1], (2, 1)))
    np.testing.assert_allclose(scores, 1, atol=3e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_one_row(kind, tmp_path):
    memory = write_rows(tmp_path / "m", clustered()[:1])
    scores, positions = made(kind, tmp_path / "one", memory).search(-memory[:1], 3)
    assert positions.tolist() == [[0]]
    assert scores[0, 0] == pytest.approx(-1, abs=1e-6)
    index = made(kind, tmp_path / "none", memory, None, None, np.zeros(1, bool))
    assert [part.shape for part in index.search(memory[:1], 3)] == [(1, 0), (1, 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_live_are_not_found(kind, memory, extras, order, tmp_path):
    rows = as_numbers(memory, extras)
    queries, live = queries_for(rows), np.ones(ROWS, dtype=bool)
    live[[5, 17, *range(70, 200)]] = False
    index = made(kind, tmp_path / "index", memory, extras, order, live)
    allowed = np.arange(ROWS) % 2 == 0
    found = index.search(queries, 40, allowed=allowed)
    assert_found(found, twin.best(rows, queries, 40, order=order, allowed=allowed & live))
    scores, positions = index.search(queries, 40)
    assert live[positions].all()
    if index.exact:
        assert_found((scores, positions), twin.best(rows, queries, 40, order=order, allowed=live))


@pytest.mark.parametrize(
    ("queries", "k", "allowed", "error"),
    [
        (np.zeros((1, WIDTH), np.float32), 1, None, DimensionError),
        (np.zeros(WIDTH + 2, np.float32), 1, None, DimensionError),
        (np.full((1, WIDTH + 2), np.nan, np.float32), 1, None, NonFiniteError),
        (np.full((1, WIDTH + 2), np.inf, np.float32), 1, None, NonFiniteError),
        (np.zeros((1, WIDTH + 2), np.int64), 1, None, DtypeError),
        ([[0.0] * (WIDTH + 2)], 1, None, DtypeError),
        (np.zeros((1, WIDTH + 2), np.float32), 0, None, ConfigError),
        (np.zeros((1, WIDTH + 2), np.float32), 1, np.ones(ROWS - 1, bool), ConfigError),
        (np.zeros((1, WIDTH + 2), np.float32), 1, np.arange(ROWS), ConfigError),
    ],
)
def test_queries_that_cannot_be_compared(index, queries, k, allowed, error):
    with pytest.raises(error):
        index.search(queries, k, allowed=allowed)


MANY = 3000


@pytest.fixture(scope="module", params=["faiss", "lancedb"])
def kind(request):
    return request.param


@pytest.fixture(scope="module", autouse=True)
def few_are_clustered():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lance_index, "_CLUSTERED", 1000)
        yield


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("many") / "m", clustered(MANY), shard_items=1000)


@pytest.fixture(scope="module")
def built(kind, many, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind) / "index"
    return folder, build_backend(kind, folder, ExactIndex(many))


def test_card_says_how_many_of_the_best_are_found(kind, many, built):
    folder, card = built
    index = open_backend(card, folder, many, None, None)
    assert (card.kind, card.rows, card.queries) == (kind, MANY, 128)
    assert 1 <= card.probes < card.lists
    assert 0.98 <= card.recall_at_10 <= 1
    assert not index.exact
    rows = as_numbers(many)
    queries = twin.unit(rows[100:400] + 0.05 * np.random.default_rng(2).normal(size=(300, WIDTH))).astype(np.float32)
    scores, positions = index.search(queries, 10)
    expected = twin.best(rows, queries, 10)[1]
    found = [len(set(ours) & set(theirs)) / 10 for ours, theirs in zip(positions, expected, strict=True)]
    assert np.mean(found) >= card.recall_at_10 - 0.02
    np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", rows[positions], queries), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_memory_that_has_grown(kind, tmp_path):
    rows = clustered(MANY)
    write_rows(tmp_path / "a", rows[:2000], shard_items=500)
    write_rows(tmp_path / "b", rows[2000:])
    grown = cmcr.Memory(tmp_path / "a", tmp_path / "b")
    older, live = tmp_path / "0", np.ones(MANY, bool)
    live[[5, 2005]] = False
    card = build_backend(kind, older, ExactIndex(cmcr.Memory(tmp_path / "a"), live=live[:2000]))
    assert card.rows == 2000
    for turn, gone in enumerate(([2005, 7], [])):  # an item goes, and all come back
        live[[5, 7, 2005]] = True
        live[gone] = False
        folder = tmp_path / str(turn + 1)
        card = build_backend(kind, folder, ExactIndex(grown, live=live), (older, card))
        assert (card.rows, card.built_rows) == (MANY, 2000)
        index, older = open_backend(card, folder, grown, None, None, live), folder
        np.testing.assert_array_equal(index.search(rows[2100:2110], 1)[1][:, 0], np.arange(2100, 2110))
        for row in (5, 7, 2005):
            assert (row in index.search(rows[row : row + 1], 60)[1]) == live[row]
    other = (older, card.model_copy(update={"content": "of other rows"}))
    assert build_backend(kind, tmp_path / "anew", ExactIndex(grown), other).built_rows == MANY


def test_other_rows_or_extras_than_it_was_made_of(many, built, tmp_path):
    folder, card = built
    other = write_rows(tmp_path / "m", clustered(MANY, seed=9), shard_items=1000)
    for rows, extras in ((other, None), (many, np.ones((MANY, 1), np.float32))):
        with pytest.raises(IntegrityError, match="cmcr index"):
            open_backend(card, folder, rows, extras, None)


@pytest.mark.parametrize("fault", ["cut short", "removed"])
def test_damaged_files(kind, fault, many, built, tmp_path):
    shutil.copytree(built[0], tmp_path / "index")
    pattern = {"faiss": "index.faiss", "lancedb": "rows.lance/_indices/*/*.idx"}[kind]
    for file in (tmp_path / "index").glob(pattern):
        file.write_bytes(file.read_bytes()[:100])
        if fault == "removed":
            file.unlink()
    with pytest.raises(IntegrityError, match="cmcr index"):
        open_backend(built[1], tmp_path / "index", many, None, None).search(many[:1], 5)


def test_library_that_is_missing(kind, many, built, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(MissingDependencyError, match=rf"cmcr\[{kind}\]"):
        open_backend(built[1], built[0], many, None, None)
    monkeypatch.setattr("cmcr.search.backends.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=rf"cmcr\[{kind}\]"):  # before the connection is looked at
        cmcr.index("nowhere", "nothing", "index", backend=kind)


def test_table_holds_ids_and_nothing_of_media(many, tmp_path):
    build_backend("lancedb", tmp_path / "index", ExactIndex(many))
    table = pytest.importorskip("lancedb").connect(str(tmp_path / "index")).open_table("rows")
    assert table.schema.names == ["position", "id", "vector"]
    line = table.search().where("position = 7").to_arrow().to_pylist()[0]
    assert line["id"] == "7"
    np.testing.assert_allclose(line["vector"], many[7], atol=1e-7)


def test_extras_and_order_are_one_a_row(memory):
    with pytest.raises(DimensionError, match="300 rows"):
        ExactIndex(memory, np.zeros((ROWS - 1, 1), np.float32))
    with pytest.raises(DimensionError, match="300 rows"):
        ExactIndex(memory, None, np.arange(3))
    with pytest.raises(NonFiniteError):
        ExactIndex(memory, np.full((ROWS, 1), np.nan, np.float32))


def test_back_end_is_chosen_by_rows():
    assert choose_backend(1000) == "exact"
    assert choose_backend(100_000_000) == "faiss"
