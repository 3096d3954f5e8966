"""Completing a finished memory: what is refused, what is left alone, what is told."""

import inputs
import numpy as np
import pytest
from inputs import encoded, files_of, half, reasons, write_lines
from test_embed import Stop, brought, stop_at

import cmcr
from cmcr.errors import ArtefactNotFoundError, ConfigError, DimensionError, FormatError, LockedError, ResumeError
from cmcr.memories.embed import embed
from cmcr.memories.writer import locked

unflushed = inputs.unflushed

GIVEN = ["one", "", "two", "three", "", "", "", "four"]
MENDED = ["one", "five", "two", "three", "", "six", "seven", "four"]


@pytest.fixture
def lines(tmp_path):
    """A list, embedded, and mended since but for one item."""
    path = write_lines(tmp_path / "in.txt", GIVEN)
    embed("mini-clip", "text", path, tmp_path / "out", shard_items=2)
    return write_lines(path, MENDED)


def retry(lines, out, **options):
    return embed("mini-clip", "text", lines, out, retry_quarantined=True, **options)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_rows_come_where_they_belong(tmp_path, lines, batch_size):
    memory = retry(lines, tmp_path / "out", batch_size=batch_size)
    good = [text for text in MENDED if text]
    np.testing.assert_allclose(memory[:], half(encoded("text", good)), rtol=0, atol=2.5e-4)
    assert memory.ids == [f"in.txt:{n}" for n, text in enumerate(MENDED, start=1) if text]
    assert list(reasons(memory)) == ["in.txt:5"]
    names = [shard.name for shard in memory.contents[0].shards]
    assert names == ["shard-00000.1", "shard-00001", "shard-00002.1", "shard-00003.1"]
    assert {name.split(".safetensors")[0] for name in files_of(tmp_path / "out") if "safetensors" in name} == set(names)
    write_lines(lines, [text or "eight" for text in MENDED])
    memory = retry(lines, tmp_path / "out")
    assert memory.ids == [f"in.txt:{n}" for n in range(1, 9)]
    assert [shard.name for shard in memory.contents[0].shards][2] == "shard-00002.2"
    assert retry(lines, tmp_path / "out").shape == (8, 128)


def test_nothing_mended_changes_nothing(tmp_path, lines):
    write_lines(lines, GIVEN)
    before, told = files_of(tmp_path / "out"), []
    retry(lines, tmp_path / "out", on_event=lambda *event: told.append(event))
    assert files_of(tmp_path / "out") == before
    assert told == [
        ("started", {"items": 4, "done": 0, "shards": 0}),
        ("items", {"count": 4}),
        ("finished", {"rows": 4, "quarantined": 4, "new": 0}),
    ]


def test_items_that_are_not_in_the_input_stay_in_quarantine(tmp_path, lines):
    other = write_lines(tmp_path / "other.txt", ["nine", "ten"])
    assert len(retry(other, tmp_path / "out")) == 4


def test_an_append_under_way_is_not_thrown_away(tmp_path, lines):
    more = write_lines(tmp_path / "more.txt", ["nine", "ten", "eleven"])
    options = {"append": True, "shard_items": 1}
    with pytest.raises(Stop):
        embed("mini-clip", "text", more, tmp_path / "out", on_event=stop_at("shard", 2), **options)
    with pytest.raises(ResumeError, match="something is being appended to it, and that is not finished"):
        retry(lines, tmp_path / "out")
    told = []
    embed("mini-clip", "text", more, tmp_path / "out", on_event=lambda *event: told.append(event), **options)
    assert told[0][1]["done"] == 2
    assert retry(lines, tmp_path / "out").shape == (10, 128)


def test_what_is_refused(tmp_path, lines):
    out = tmp_path / "out"
    with pytest.raises(ArtefactNotFoundError, match="there is no cmcr memory here"):
        retry(lines, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(Stop):
        embed("mini-clip", "text", lines, tmp_path / "begun", on_event=stop_at("started"))
    with pytest.raises(FormatError, match="was never finished"):
        retry(lines, tmp_path / "begun")
    for size in (0, -1, True):
        with pytest.raises(ConfigError, match="batch_size: expected a whole number of at least 1"):
            retry(lines, out, batch_size=size)
    with pytest.raises(ResumeError, match="of another kind: space was mini-clip, now mini-clap"):
        embed("mini-clap", "text", lines, out, retry_quarantined=True)
    with pytest.raises(ConfigError, match="unknown modality of mini-clip 'audio'"):
        embed("mini-clip", "audio", lines, out, retry_quarantined=True)
    for other in ({"append": True}, {"engine": "ray"}):
        with pytest.raises(ConfigError, match="leave --append and --engine out"):
            retry(lines, out, **other)
    with locked(out), pytest.raises(LockedError, match="another run is writing"):
        retry(lines, out)


def test_rows_of_another_width_are_refused(tmp_path, lines):
    write_lines(lines, GIVEN)
    embed(brought([2]), "text", lines, tmp_path / "mine", max_failures=8)
    contents = cmcr.Memory(tmp_path / "mine").contents
    assert contents[0].quarantined == 0  # a function of the user's may embed what is empty

    def fail(texts):
        if "" in texts:
            raise ValueError("empty")
        return np.ones((len(texts), 2))

    embed(cmcr.CustomSpace("b", text=fail, fingerprint="f"), "text", lines, tmp_path / "b")
    wider = cmcr.CustomSpace("b", text=lambda texts: np.ones((len(texts), 3)), fingerprint="f")
    with pytest.raises(DimensionError, match="the rows are 3 wide now, the memory's 2"):
        embed(wider, "text", lines, tmp_path / "b", retry_quarantined=True)
    assert cmcr.Memory(tmp_path / "b").shape == (4, 2)
