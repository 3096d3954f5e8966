"""`embed`: the rows of `encode`, whatever the batches and shards, and what is told and refused on the way."""

import threading

import inputs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import SPACE_OF, encoded, files_of, half, reasons, tables_of, write_folder, write_lines

import cmcr
from cmcr.data.numbers import write_texts
from cmcr.errors import ConfigError, DimensionError, ResumeError, TooManyFailuresError
from cmcr.memories import embed as embed_module
from cmcr.memories.embed import embed
from cmcr.memories.embed_shards import FailureLimit

unflushed = inputs.unflushed

TEXTS = write_texts(np.arange(200, 240), np.random.default_rng(1))


@pytest.fixture
def lines(tmp_path):
    return write_lines(tmp_path / "texts.txt", TEXTS)


class Stop(Exception):  # noqa: N818 - no error: whoever runs it has had enough
    pass


def stop_at(event, count=1):
    seen = []

    def tell(name, facts):
        seen.append(name)
        if seen.count(event) == count:
            raise Stop

    return tell


@pytest.mark.parametrize("modality", SPACE_OF)
def test_rows_are_those_of_encode(tmp_path, modality):
    items = write_folder(modality, tmp_path / "in", 7)
    for dtype in ("float16", "float32"):
        memory = embed(
            SPACE_OF[modality], modality, tmp_path / "in", tmp_path / dtype, batch_size=3, shard_items=5, dtype=dtype
        )
        expected = encoded(modality, items)
        np.testing.assert_allclose(memory[:], half(expected) if dtype == "float16" else expected, rtol=0, atol=6e-4)
        if dtype == "float32":
            np.testing.assert_allclose(memory[:], expected, rtol=0, atol=1e-6)
    space = cmcr.space(SPACE_OF[modality])
    assert (memory.space, memory.modality, memory.fingerprint) == (space.name, modality, space.fingerprint)
    assert (memory.model, memory.revision, memory.dtype) == (None, None, "float32")
    ending = {"image": "png", "text": "txt", "audio": "wav", "point_cloud": "npy"}[modality]
    assert memory.ids == [f"good{n}.{ending}" for n in range(7)]
    assert memory.contents[0].quarantined == 0
    assert cmcr.embed is embed


@settings(max_examples=12)
@given(st.integers(1, 45), st.integers(1, 45))
def test_batches_and_shards_do_not_matter(tmp_path_factory, batch_size, shard_items):
    folder = tmp_path_factory.mktemp("any")
    lines = write_lines(folder / "texts.txt", TEXTS)
    memory = embed("mini-clip", "text", lines, folder / "out", batch_size=batch_size, shard_items=shard_items)
    expected = half(encoded("text", TEXTS))
    np.testing.assert_allclose(memory[:], expected, rtol=0, atol=2.5e-4)  # a step of float16 between 0.25 and 0.5
    assert memory.ids == [f"texts.txt:{n}" for n in range(1, 41)]
    assert [shard.rows for shard in memory.contents[0].shards] == [
        min(shard_items, 40 - start) for start in range(0, 40, shard_items)
    ]


def test_what_is_told(tmp_path, lines):
    told = []
    embed(
        "mini-clip", "text", lines, tmp_path / "out", batch_size=15, shard_items=20, on_event=lambda *e: told.append(e)
    )
    assert told == [
        ("started", {"items": 40, "done": 0, "shards": 2}),
        ("items", {"count": 15}), ("items", {"count": 5}),
        ("shard", {"shard": "shard-00000", "rows": 20, "quarantined": 0}),
        ("items", {"count": 15}), ("items", {"count": 5}),
        ("shard", {"shard": "shard-00001", "rows": 20, "quarantined": 0}),
        ("finished", {"rows": 40, "quarantined": 0}),
    ]  # fmt: skip
    told.clear()
    embed("mini-clip", "text", lines, tmp_path / "out", shard_items=20, on_event=lambda *e: told.append(e))
    assert told == [("finished", {"rows": 40, "quarantined": 0})]


@pytest.mark.parametrize(("event", "count"), [("started", 1), ("items", 1), ("shard", 1), ("items", 4), ("shard", 2)])
def test_stopped_anywhere_it_goes_on(tmp_path, lines, event, count):
    embed("mini-clip", "text", lines, tmp_path / "whole", batch_size=10, shard_items=20)
    options = {"batch_size": 10, "shard_items": 20}
    with pytest.raises(Stop) as stopped:
        embed("mini-clip", "text", lines, tmp_path / "out", on_event=stop_at(event, count), **options)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cmcr-decode")], stopped
    told = []
    embed("mini-clip", "text", lines, tmp_path / "out", on_event=lambda *e: told.append(e), **options)
    done = {("shard", 1): 20, ("items", 4): 20, ("shard", 2): 40}.get((event, count), 0)
    assert told[0] == ("started", {"items": 40, "done": done, "shards": 2})
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines, "one"],
        lambda lines: lines[:3] + lines[4:],
        lambda lines: [*lines[:19], "nine", *lines[20:]],
        lambda lines: lines[:21],
    ],
    ids=["added", "removed", "edited", "cut short"],
)
def test_another_list_is_refused(tmp_path, change):
    lines = write_lines(tmp_path / "texts.txt", TEXTS[:35])
    with pytest.raises(Stop):
        embed("mini-clip", "text", lines, tmp_path / "out", shard_items=10, on_event=stop_at("shard", 2))
    write_lines(lines, change(TEXTS[:35]))
    with pytest.raises(ResumeError, match=r"list of items .* was "):
        embed("mini-clip", "text", lines, tmp_path / "out", shard_items=10)
    write_lines(lines, TEXTS[:35])
    assert len(embed("mini-clip", "text", lines, tmp_path / "out", shard_items=10)) == 35


class TestAppend:
    def test_what_is_new_is_added(self, tmp_path):
        folder = tmp_path / "in"
        items = write_folder("text", folder, 3)
        (folder / "bad.txt").write_bytes(b"\xff")
        embed("mini-clip", "text", folder, tmp_path / "out")
        more = {"a.txt": "four hundred", "zz.txt": "seven"}
        for name, text in more.items():
            (folder / name).write_text(text)
        told = []
        memory = embed("mini-clip", "text", folder, tmp_path / "out", append=True, on_event=lambda *e: told.append(e))
        assert memory.ids == ["good0.txt", "good1.txt", "good2.txt", "a.txt", "zz.txt"]
        expected = half(encoded("text", [*items, *more.values()]))
        np.testing.assert_allclose(memory[:], expected, rtol=0, atol=2.5e-4)
        assert list(reasons(memory)) == ["bad.txt"]
        assert told[0] == ("started", {"items": 2, "done": 0, "shards": 1})
        assert told[-1] == ("finished", {"rows": 5, "quarantined": 1, "new": 2})

    def test_nothing_new_changes_nothing(self, tmp_path, lines):
        embed("mini-clip", "text", lines, tmp_path / "out")
        before, told = files_of(tmp_path / "out"), []
        memory = embed("mini-clip", "text", lines, tmp_path / "out", append=True, on_event=lambda *e: told.append(e))
        assert len(memory) == 40
        assert files_of(tmp_path / "out") == before
        assert told == [("finished", {"rows": 40, "quarantined": 0, "new": 0})]

    def test_to_nothing_is_refused(self, tmp_path, lines):
        with pytest.raises(ConfigError, match=r"out: there is no finished memory to append to\. Leave --append out"):
            embed("mini-clip", "text", lines, tmp_path / "out", append=True)
        assert not (tmp_path / "out").exists()

    def test_another_append_in_between_is_noticed(self, tmp_path, lines, monkeypatch):
        more = write_lines(tmp_path / "more.txt", ["one", "two"])
        embed("mini-clip", "text", lines, tmp_path / "out")
        real = embed_module.known_ids

        def meanwhile(memory):
            known = real(memory)
            monkeypatch.setattr(embed_module, "known_ids", real)
            embed("mini-clip", "text", more, tmp_path / "out", append=True)
            return known

        monkeypatch.setattr(embed_module, "known_ids", meanwhile)
        with pytest.raises(ResumeError, match=r"another run has changed the memory meanwhile. Run it again"):
            embed("mini-clip", "text", more, tmp_path / "out", append=True)
        write_lines(more, ["one", "two", "three"])
        memory = embed("mini-clip", "text", more, tmp_path / "out", append=True)
        assert memory.ids[40:] == ["more.txt:1", "more.txt:2", "more.txt:3"]


class TestListsThatChange:
    """What is walked is compared shard by shard with what was surveyed; what is listed already is not seen to change."""

    @pytest.fixture
    def lists(self, tmp_path):
        folder = tmp_path / "lists"
        folder.mkdir()
        for n, text in enumerate(TEXTS):
            (folder / f"{n:02d}.txt").write_text(text + "\n")
        return folder

    @pytest.mark.parametrize(("name", "content"), [("39.txt", "another\n"), ("30.txt", ""), ("39.txt", "one\ntwo\n")])
    def test_during_the_run(self, tmp_path, lists, name, content):
        was = (lists / name).read_text()

        def report(event, facts):
            if event == "shard":
                (lists / name).write_text(content)

        with pytest.raises(ResumeError, match="the list of items has changed since the run began"):
            embed(
                "mini-clip", "text", f"{lists}/*.txt", tmp_path / "out", batch_size=4, shard_items=10, on_event=report
            )
        with pytest.raises(ResumeError, match="begun with something else"):
            embed("mini-clip", "text", f"{lists}/*.txt", tmp_path / "out", shard_items=10)
        (lists / name).write_text(was)
        told = []
        embed(
            "mini-clip", "text", f"{lists}/*.txt", tmp_path / "out", shard_items=10, on_event=lambda *e: told.append(e)
        )
        assert told[0][1]["done"] >= 10
        assert told[-1] == ("finished", {"rows": 40, "quarantined": 0})


class TestFailures:
    def test_all_items(self, tmp_path):
        lines = write_lines(tmp_path / "in.txt", ["", "  "])
        told = r"none of the 2 items has a usable row, see \S+quarantine.jsonl\. Remove the folder"
        for _ in range(2):
            with pytest.raises(ConfigError, match=told):
                embed("mini-clip", "text", lines, tmp_path / "out")
        assert len(tables_of(tmp_path / "out")["quarantine"]) == 2

    @pytest.mark.parametrize("allowed", [4, 0, 0.0, 0.004])
    def test_too_many(self, tmp_path, allowed):
        lines = write_lines(tmp_path / "in.txt", ["one", "", "two", "", "three", "", "four", "", "five", ""])
        with pytest.raises(
            TooManyFailuresError, match=rf"items failed, more than the {allowed} allowed .*: empty; there"
        ):
            embed("mini-clip", "text", lines, tmp_path / "out", max_failures=allowed, shard_items=2, batch_size=2)
        memory = embed("mini-clip", "text", lines, tmp_path / "out", max_failures=5, shard_items=2, batch_size=2)
        assert (len(memory), memory.contents[0].quarantined) == (5, 5)

    def test_too_many_in_shards_that_are_done(self, tmp_path):
        lines = write_lines(tmp_path / "in.txt", ["", "", "one", "two"])
        with pytest.raises(Stop):
            embed("mini-clip", "text", lines, tmp_path / "out", shard_items=2, on_event=stop_at("shard"))
        with pytest.raises(TooManyFailuresError, match=r"2 of 2 items failed, .* see the quarantine table"):
            embed("mini-clip", "text", lines, tmp_path / "out", shard_items=2, max_failures=1)

    def test_a_shard_without_rows(self, tmp_path):
        lines = write_lines(tmp_path / "in.txt", ["", "", "one", ""])
        memory = embed("mini-clip", "text", lines, tmp_path / "out", shard_items=2)
        assert memory.ids == ["in.txt:3"]
        np.testing.assert_allclose(memory[:], half(encoded("text", ["one"])), atol=2.5e-4)
        assert [item.position for item in memory.quarantine()] == [0, 1, 3]


class TestFailureLimit:
    def test_a_number_of_items(self):
        limit = FailureLimit(2)
        limit.count(10, 1, "a")
        limit.count(10, 1, "b")
        with pytest.raises(TooManyFailuresError, match=r"^3 of 21 items failed, more than the 2 allowed .*: torn\."):
            limit.count(1, 1, "torn.")
        limit.count(1, 0)  # what was reported once is not reported again by a good item
        assert (limit.tried, limit.failed) == (22, 3)

    def test_a_share_is_taken_of_a_thousand_at_least(self):
        limit = FailureLimit("10%")
        limit.count(100, 100)
        limit.count(1000, 10)
        with pytest.raises(TooManyFailuresError, match="111 of 1101 items failed"):
            limit.count(1, 1)

    @pytest.mark.parametrize(
        ("text", "allowed"), [("100", 100), ("0", 0), ("0.05", 0.05), ("5%", 0.05), ("0.5%", 0.005), ("50 %", 0.5)]
    )
    def test_limits_as_people_write_them(self, text, allowed):
        assert FailureLimit(text).allowed == allowed
        assert type(FailureLimit(text).allowed) is type(allowed)

    @pytest.mark.parametrize(
        "allowed",
        [
            -1,
            1.0,
            1.5,
            True,
            None,
            float("nan"),
            np.float64(2),
            "",
            "%",
            "many",
            "5%%",
            "²",
            "1,5",
            "-5",
            "100%",
            "1e3",
        ],
    )
    def test_limits_out_of_range(self, allowed):
        with pytest.raises(ConfigError, match="max_failures: expected a number of items or a share below 1"):
            FailureLimit(allowed)


def test_columns(tmp_path):
    table = tmp_path / "in.csv"
    table.write_text("name,caption\nn1,one\nn2,two\n")
    memory = embed("mini-clip", "text", table, tmp_path / "out", column="caption", id_column="name")
    assert memory.ids == ["n1", "n2"]
    assert memory.item(1) == ("n2", "in.csv:2")
    np.testing.assert_allclose(memory[:], half(encoded("text", ["one", "two"])), rtol=0, atol=2.5e-4)
    with pytest.raises(ConfigError, match=r"unknown column 'captions'\. Did you mean 'caption'"):
        embed("mini-clip", "text", table, tmp_path / "other", column="captions")


def brought(widths):
    """A space whose rows have the width that is next in the list."""

    def embed(texts):
        width = widths.pop(0) if len(widths) > 1 else widths[0]
        return np.array([[len(text) + n for n in range(width)] for text in texts], dtype=np.float64)

    return cmcr.CustomSpace("mine", text=embed, fingerprint="of the user")


class TestSpacesOfTheUser:
    def test_a_brought_one_whose_width_is_not_known_yet(self, tmp_path):
        lines = write_lines(tmp_path / "in.txt", ["", "", "ab", "c"])
        space = brought([3])
        assert space.widths == {"text": 0}
        with pytest.raises(Stop):
            embed(space, "text", lines, tmp_path / "out", shard_items=2, on_event=stop_at("shard", 2))
        embed(space, "text", lines, tmp_path / "out", shard_items=2)
        embed(space, "text", lines, tmp_path / "again", shard_items=2)  # its width is known by now
        embed(brought([3]), "text", lines, tmp_path / "whole", shard_items=2)
        assert files_of(tmp_path / "out") == files_of(tmp_path / "whole") == files_of(tmp_path / "again")
        memory = cmcr.Memory(tmp_path / "out")
        assert (memory.space, memory.width, len(memory)) == ("mine", 3, 4)

    @pytest.mark.parametrize("batch_size", [4, 8])
    def test_rows_that_change_their_width_are_refused(self, tmp_path, lines, batch_size):
        with pytest.raises(DimensionError, match=r"wide|widths of"):
            embed(brought([2, 3]), "text", lines, tmp_path / "out", batch_size=batch_size, shard_items=8)

    def test_one_with_only_encode(self, tmp_path, lines):
        class Mine:
            name, widths, fingerprint = "mine", {"text": 2}, "f"

            def encode(self, inputs, modality, batch_size=32, show_progress_bar=None, convert_to_numpy=True,
                       convert_to_tensor=False, device=None, normalize_embeddings=True):  # fmt: skip
                rows = cmcr.space("mini-clip").encode(inputs, "text", convert_to_tensor=True)[:, :2]
                return rows / rows.norm(dim=1, keepdim=True)

        memory = embed(Mine(), "text", lines, tmp_path / "out", batch_size=7)
        assert memory.shape == (40, 2)


def test_a_folder_of_one_modality_may_hold_its_memory(tmp_path):
    write_folder("image", tmp_path, 3)
    for _ in range(2):
        assert embed("mini-clip", "image", tmp_path, tmp_path / "memory").ids == [f"good{n}.png" for n in range(3)]
    assert len(embed("mini-clip", "image", f"{tmp_path}/**/*.png", tmp_path / "of a pattern")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"shard_items": 0}, "shard_items: expected a whole number of at least 1, got 0"),
        ({"dtype": "half"}, "unknown dtype 'half'"),
        ({"max_failures": 1.5}, "max_failures: expected a number of items or a share below 1"),
        ({"space": "mini-clop"}, r"unknown space 'mini-clop'\. Did you mean 'mini-clip'"),
        ({"modality": "texts"}, r"unknown modality of mini-clip 'texts'\. Did you mean 'text'"),
        ({"inputs": "nowhere.txt"}, "no such file or folder"),
        ({"column": "a"}, r"a file of lines has no columns"),
    ],
)
def test_settings_out_of_range(tmp_path, lines, options, message):
    call = {"space": "mini-clip", "modality": "text", "inputs": lines, "out": tmp_path / "out", **options}
    with pytest.raises(ConfigError, match=message):
        embed(**call)
    assert not (tmp_path / "out").exists()


def test_what_is_neither_a_path_nor_a_space(tmp_path):
    with pytest.raises(ConfigError, match="inputs: expected a path or a pattern, got list"):
        embed("mini-clip", "text", ["one", "two"], tmp_path / "out")
    with pytest.raises(ConfigError, match="expected a space or the name of one, got int"):
        embed(5, "text", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
