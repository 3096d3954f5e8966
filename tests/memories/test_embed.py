"""`embed`: the rows of `encode`, whatever the batches and shards; resumed, appended, and refused."""

import os
import threading

import numpy as np
import pytest
from helpers import SPACE_OF, Stop, assert_encoded, reasons, stop_at, tree_of, write_folder, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import cmcr
from cmcr.data.numbers import write_texts
from cmcr.errors import ConfigError, DimensionError, ReadError, ResumeError, TooManyFailuresError
from cmcr.memories import embed as embed_module
from cmcr.memories.embed import embed
from cmcr.memories.embed_shards import FailureLimit

TEXTS = write_texts(np.arange(200, 240), np.random.default_rng(1))


@pytest.fixture
def lines(tmp_path):
    return write_lines(tmp_path / "texts.txt", TEXTS)


@pytest.fixture
def events():
    return []


@pytest.fixture
def embedded(tmp_path, lines, events):
    """Embed the lines into `tmp_path / "out"`, noting the events."""

    def call(inputs=lines, out="out", space="mini-clip", **options):
        events.clear()
        noted = {"on_event": lambda *event: events.append(event), "shard_items": 10}
        return embed(space, "text", inputs, tmp_path / out, **{**noted, **options})

    return call


@pytest.mark.parametrize("modality", SPACE_OF)
def test_rows_are_those_of_encode(tmp_path, modality):
    items = write_folder(modality, tmp_path / "in", 7)
    space, options = cmcr.space(SPACE_OF[modality]), {"batch_size": 3, "shard_items": 5}
    for dtype in ("float16", "float32"):
        memory = cmcr.embed(SPACE_OF[modality], modality, tmp_path / "in", tmp_path / dtype, dtype=dtype, **options)
        assert_encoded(memory, modality, items)
    assert (memory.space, memory.modality, memory.fingerprint) == (space.name, modality, space.fingerprint)
    assert (memory.model, memory.revision, memory.dtype) == (None, None, "float32")
    assert memory.ids == sorted(path.name for path in (tmp_path / "in").iterdir())


def test_ids_open_from_any_folder(tmp_path, monkeypatch):
    write_folder("image", tmp_path / "in" / "deep", 3)
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / "in" / "deep" / f"{n}.png" for n in range(3)]
    for out, inputs, ids in (
        ("a", "in", "deep/{}.png"),
        ("b", "in/deep/*.png", "{}.png"),
        ("c", "in/deep/0.png", "{}.png"),
    ):
        memory = cmcr.embed("mini-clip", "image", inputs, out)
        assert memory.ids == [ids.format(n) for n in range(len(memory))]
        assert list(memory.paths()) == files[: len(memory)]
    monkeypatch.chdir("/")
    files[1].unlink()
    memory = cmcr.Memory(tmp_path / "b")
    assert list(memory.paths()) == [files[0], None, files[2]]
    (tmp_path / "moved").mkdir()
    for name in ("b", "in"):  # together
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert next(cmcr.Memory(tmp_path / "moved" / "b").paths()) == tmp_path / "moved" / "in" / "deep" / "0.png"


def test_a_moved_input_is_resumed_and_appended_to(tmp_path):
    write_folder("image", tmp_path / "in", 3)
    with pytest.raises(Stop):
        cmcr.embed("mini-clip", "image", tmp_path / "in", tmp_path / "out", shard_items=2, on_event=stop_at("shard"))
    (tmp_path / "in").rename(tmp_path / "moved")
    for _ in range(2):
        memory = cmcr.embed("mini-clip", "image", tmp_path / "moved", tmp_path / "out", shard_items=2)
        assert list(memory.paths()) == [tmp_path / "moved" / f"{n}.png" for n in range(3)]
    write_folder("image", tmp_path / "more", 4)
    memory = cmcr.embed("mini-clip", "image", tmp_path / "more", tmp_path / "out", append=True)
    assert list(memory.paths())[2:] == [tmp_path / "moved" / "2.png", tmp_path / "more" / "3.png"]


def test_ids_that_are_no_files_have_none(tmp_path, lines):
    (tmp_path / "secret").write_text("x")
    assert list(cmcr.embed("mini-clip", "text", lines, tmp_path / "out").paths()) == [None] * 40
    ids = [str(tmp_path / "secret"), "a.png", "\0.png", str(lines)]
    memory = cmcr.write_memory(tmp_path / "rows", np.eye(4, dtype=np.float32), ids, space="mine", modality="image")
    assert list(memory.paths()) == [None] * 4  # a picture's id that names another kind of file opens nothing


@settings(max_examples=8)
@given(st.integers(1, 45), st.integers(1, 45))
def test_batches_and_shards_do_not_matter(tmp_path_factory, batch_size, shard_items):
    folder = tmp_path_factory.mktemp("any")
    lines = write_lines(folder / "texts.txt", TEXTS)
    memory = embed("mini-clip", "text", lines, folder / "out", batch_size=batch_size, shard_items=shard_items)
    assert_encoded(memory, "text", TEXTS)
    assert memory.ids == [f"texts.txt:{n}" for n in range(1, 41)]
    sizes = [min(shard_items, 40 - start) for start in range(0, 40, shard_items)]
    assert [shard.rows for shard in memory.contents[0].shards] == sizes


def test_events(embedded, events):
    embedded(batch_size=15, shard_items=20)
    assert events == [
        ("started", {"items": 40, "done": 0, "shards": 2}),
        ("items", {"count": 15}), ("items", {"count": 5}),
        ("shard", {"shard": "shard-00000", "rows": 20, "quarantined": 0}),
        ("items", {"count": 15}), ("items", {"count": 5}),
        ("shard", {"shard": "shard-00001", "rows": 20, "quarantined": 0}),
        ("finished", {"rows": 40, "quarantined": 0}),
    ]  # fmt: skip
    embedded(shard_items=20)
    assert events == [("finished", {"rows": 40, "quarantined": 0})]


@pytest.mark.parametrize(
    ("event", "count", "done"), [("items", 1, 0), ("shard", 1, 10), ("items", 8, 30), ("shard", 4, 40)]
)
def test_an_error_of_the_caller_stops_a_run_that_can_be_resumed(tmp_path, embedded, events, event, count, done):
    embedded(out="whole")
    with pytest.raises(Stop) as stopped:
        embedded(batch_size=5, on_event=stop_at(event, count))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cmcr-decode")], stopped
    embedded()
    assert events[0] == ("started", {"items": 40, "done": done, "shards": 4})
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda texts: [*texts, "one"], ResumeError, "list of items"),
        (lambda texts: texts[:3] + texts[4:], ResumeError, "list of items"),
        (lambda texts: [*texts[:19], "nine", *texts[20:]], ResumeError, "list of items"),
        (lambda texts: texts[:21], ResumeError, "list of items"),
        (None, (ConfigError, ReadError), "no such file"),
    ],
    ids=["added", "removed", "edited", "cut short", "gone"],
)
def test_a_run_is_resumed_with_the_same_list_only(tmp_path, lines, embedded, change, error, message):
    with pytest.raises(Stop):
        embedded(on_event=stop_at("shard", 2))
    before = tree_of(tmp_path / "out")
    lines.unlink() if change is None else write_lines(lines, change(TEXTS))
    with pytest.raises(error, match=message):
        embedded()
    assert tree_of(tmp_path / "out") == before
    write_lines(lines, TEXTS)
    assert len(embedded()) == 40


@pytest.mark.parametrize(("name", "content"), [("39.txt", "another\n"), ("30.txt", ""), ("39.txt", "one\ntwo\n")])
def test_a_list_that_changes_during_the_run_is_noticed(tmp_path, embedded, events, name, content):
    (tmp_path / "lists").mkdir()
    for n, text in enumerate(TEXTS):
        write_lines(tmp_path / "lists" / f"{n:02d}.txt", [text])
    lists, changed = f"{tmp_path}/lists/*.txt", tmp_path / "lists" / name
    original = changed.read_text()

    def change(event, facts):
        if event == "shard":
            changed.write_text(content)

    with pytest.raises(ResumeError, match="has changed since the run began"):
        embedded(lists, batch_size=4, on_event=change)
    changed.write_text(original)
    embedded(lists)
    assert events[0][1]["done"] >= 10
    assert events[-1] == ("finished", {"rows": 40, "quarantined": 0})


def test_append_adds_what_is_new(tmp_path, embedded, events):
    folder = tmp_path / "in"
    items = write_folder("text", folder, 3)
    (folder / "3.txt").write_bytes(b"\xff")
    embedded(folder)
    more = {"4.txt": "four hundred", "0a.txt": "seven"}
    for name, text in more.items():
        (folder / name).write_text(text)
    memory = embedded(folder, append=True)
    assert memory.ids == ["0.txt", "1.txt", "2.txt", "0a.txt", "4.txt"]
    assert_encoded(memory, "text", [*items, "seven", "four hundred"])
    assert list(reasons(memory)) == ["3.txt"]
    assert events[0] == ("started", {"items": 2, "done": 0, "shards": 1})
    assert events[-1] == ("finished", {"rows": 5, "quarantined": 1, "new": 2})
    before = tree_of(tmp_path / "out")
    embedded(folder, append=True)
    assert events == [("finished", {"rows": 5, "quarantined": 1, "new": 0})]
    assert tree_of(tmp_path / "out") == before


def test_append_notices_another_append_meanwhile(tmp_path, embedded, monkeypatch):
    more = write_lines(tmp_path / "more.txt", ["one", "two"])
    embedded()
    known_ids = embed_module.known_ids

    def meanwhile(memory, retry_quarantined):
        known = known_ids(memory, retry_quarantined)
        monkeypatch.undo()
        embedded(more, append=True)
        return known

    monkeypatch.setattr(embed_module, "known_ids", meanwhile)
    with pytest.raises(ResumeError, match="meanwhile"):
        embedded(more, append=True)
    write_lines(more, ["one", "two", "three"])
    assert embedded(more, append=True).ids[40:] == ["more.txt:1", "more.txt:2", "more.txt:3"]


@pytest.mark.parametrize("allowed", [4, 0, 0.004])
def test_too_many_failures_stop_a_run(embedded, lines, allowed):
    write_lines(lines, ["one", "", "two", "", "three", "", "four", "", "five", ""])
    options = {"shard_items": 2, "batch_size": 2}
    with pytest.raises(TooManyFailuresError, match=f"more than the {allowed} allowed .*: empty"):
        embedded(max_failures=allowed, **options)
    memory = embedded(max_failures=5, **options)
    assert (len(memory), memory.contents[0].quarantined) == (5, 5)


def test_failures_of_finished_shards_count_and_a_memory_needs_a_row(tmp_path, embedded, lines):
    write_lines(lines, ["", "", "one", ""])
    with pytest.raises(Stop):
        embedded(shard_items=2, on_event=stop_at("shard"))
    with pytest.raises(TooManyFailuresError, match="2 of 2 items failed"):
        embedded(shard_items=2, max_failures=1)
    memory = embedded(shard_items=2)
    assert memory.ids == ["texts.txt:3"]
    assert [item.position for item in memory.quarantine()] == [0, 1, 3]
    write_lines(lines, ["", " "])
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"none of the 2 items has a usable row; the last one: .*white space"):
            embedded(out="none")
    write_lines(lines, ["one", "two"])
    assert len(embedded(out="none")) == 2  # nothing stands in the way


def test_failure_limit_counts_items_or_a_share_of_a_thousand_at_least():
    limit = FailureLimit(2)
    limit.count(20, 2, "a")
    with pytest.raises(TooManyFailuresError, match=r"3 of 21 items .*: torn\."):
        limit.count(1, 1, "torn.")
    limit.count(1, 0)  # what was reported once is not reported again by a good item
    assert (limit.tried, limit.failed) == (22, 3)
    limit = FailureLimit(0.1)
    limit.count(100, 100)
    limit.count(1000, 10)
    with pytest.raises(TooManyFailuresError, match="111 of 1101 items"):
        limit.count(1, 1)


@pytest.mark.parametrize(
    "allowed",
    [-1, 1.5, True, None, float("nan"), "5"],
)
def test_failure_limits_out_of_range(allowed):
    with pytest.raises(ConfigError, match="max_failures"):
        FailureLimit(allowed)


def custom(widths):
    """A space whose rows have the width that is next in the list."""

    def encode(texts):
        width = widths.pop(0) if len(widths) > 1 else widths[0]
        return np.array([[len(text) + n for n in range(width)] for text in texts], dtype=np.float64)

    return cmcr.CustomSpace("mine", text=encode, fingerprint="custom")


def test_a_custom_space_whose_width_is_not_known_yet(tmp_path, embedded, lines):
    write_lines(lines, ["", "", "ab", "c"])
    space = custom([3])
    assert space.widths == {"text": 0}
    with pytest.raises(Stop):
        embedded(space=space, shard_items=2, on_event=stop_at("shard", 2))
    memory = embedded(space=space, shard_items=2)
    embedded(space=custom([3]), shard_items=2, out="whole")
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "whole")
    assert (memory.space, memory.shape) == ("mine", (4, 3))


@pytest.mark.parametrize("batch_size", [4, 8])
def test_rows_that_change_their_width_are_refused(embedded, batch_size):
    with pytest.raises(DimensionError, match=r"wide|widths of"):
        embedded(space=custom([2, 3]), batch_size=batch_size, shard_items=8)


def test_a_folder_of_pictures_may_hold_its_memory(tmp_path):
    write_folder("image", tmp_path / "in", 3)
    for inputs in (tmp_path / "in", f"{tmp_path}/in/**/*.png"):
        for _ in range(2):
            memory = embed("mini-clip", "image", inputs, tmp_path / "in" / ("folder", "pattern")["*" in str(inputs)])
            assert memory.ids == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"shard_items": 0}, "shard_items"),
        ({"dtype": "half"}, "dtype 'half'"),
        ({"max_failures": 1.5}, "max_failures"),
        ({"space": "mini-clop"}, "Did you mean 'mini-clap' or 'mini-clip'"),
        ({"space": 5}, "got int"),
        ({"modality": "texts"}, "Did you mean 'text'"),
        ({"inputs": "nowhere.txt"}, "no such file or folder"),
        ({"inputs": ["one", "two"]}, r"\['one'"),
        ({"column": "a"}, "unknown column"),
        ({"append": True}, "no finished memory to append to"),
    ],
)
def test_settings_out_of_range_write_nothing(tmp_path, lines, options, message):
    call = {"space": "mini-clip", "modality": "text", "inputs": lines, "out": tmp_path / "out", **options}
    with pytest.raises(ConfigError, match=message):
        embed(**call)
    assert not (tmp_path / "out").exists()


def test_memories_made_elsewhere_on_another_day_are_equal(tmp_path, monkeypatch):
    trees = []
    for name, day in (("here", 0.0), ("there", 1e9)):
        monkeypatch.setattr("time.time", lambda day=day: day)
        folder = tmp_path / name
        write_folder("image", folder / "in", 4)
        (folder / "in" / "bad.png").write_bytes(b"not a picture")
        os.utime(folder / "in" / "0.png", (day, day))
        embed("mini-clip", "image", folder / "in", folder / "memory", shard_items=2)
        trees.append(tree_of(folder / "memory"))
        for path in (folder / "memory").iterdir():
            assert str(tmp_path).encode() not in path.read_bytes()
    assert trees[0] == trees[1]
