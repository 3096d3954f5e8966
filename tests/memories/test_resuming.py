"""A run is gone on with only as it was begun; else the message says what differs."""

import pytest
from extractions import SHARD_ITEMS, text_of

import cmcr
import cmcr.memories.writer
from cmcr.errors import ResumeError, WriteError


@pytest.fixture(scope="module")
def space():
    return cmcr.space("mini-clip")


@pytest.fixture
def begun(space, tmp_path, monkeypatch):
    """A list, and a memory of it of which two of three shards are finished."""
    source = tmp_path / "texts.csv"
    _write(source, _lines())
    real = cmcr.memories.writer.write_shard

    def full(folder, name, *rest, **others):
        if name == "shard-00002":
            raise OSError(28, "No space left on device")
        return real(folder, name, *rest, **others)

    with monkeypatch.context() as context:
        context.setattr(cmcr.memories.writer, "write_shard", full)
        with pytest.raises(WriteError, match="free space and run it again"):
            embed(space, source, tmp_path / "memory")
    return source, tmp_path / "memory"


def _lines():
    return [(f"item-{number}", text_of(number).replace("\0", "")) for number in range(130)]


def _write(source, lines):
    source.write_text("id,text\n" + "".join(f"{id_},{text}\n" for id_, text in lines), encoding="utf-8")


def embed(space, source, folder, **options):
    given = {"shard_items": SHARD_ITEMS, "id_column": "id", **options}
    return cmcr.embed(space, "text", source, folder, **given)


def test_the_same_run_is_gone_on_with(space, begun):
    assert embed(space, *begun).ids == [id_ for id_, _ in _lines()]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "float32"}, "begun with something else: dtype was float16, now float32. Run it as it was begun"),
        ({"shard_items": 40}, "items a shard (shard_items) was 50, now 40."),
    ],
)
def test_another_setting(space, begun, options, said):
    with pytest.raises(ResumeError) as caught:
        embed(space, *begun, **options)
    assert said in str(caught.value)
    assert str(begun[1]) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [*lines, ("new", "one")], "101 to 150"),
        (lambda lines: lines[:3] + lines[4:], "1 to 50"),
        (lambda lines: [*lines[:60], ("other", "one"), *lines[61:]], "51 to 100"),
        (lambda lines: [*lines[:60], (lines[60][0], "nine"), *lines[61:]], "51 to 100"),
        (lambda lines: lines[:70], "51 to 100"),
    ],
    ids=["added", "removed", "renamed", "edited", "cut short"],
)
def test_another_list(space, begun, change, said):
    source, folder = begun
    _write(source, change(_lines()))
    with pytest.raises(ResumeError) as caught:
        embed(space, source, folder)
    assert "list of items (their ids, texts and sizes) was " in str(caught.value)
    assert f"the first item that differs is among {said}." in str(caught.value)


def test_another_model_and_preprocessing(space, begun, monkeypatch):
    monkeypatch.setattr(space, "fingerprint", "0123456789abcdef" * 4)
    monkeypatch.setattr(space, "name", "other-clip")
    with pytest.raises(ResumeError) as caught:
        embed(space, *begun)
    assert "space was mini-clip, now other-clip; fingerprint (of weights and preprocessing) was " in str(caught.value)
    assert ", now 0123456789ab…." in str(caught.value)


def test_other_versions(space, begun, monkeypatch):
    here = cmcr.memories.writer.versions_here()
    monkeypatch.setattr(cmcr.memories.writer, "versions_here", lambda: {**here, "torch": "9.9"})
    with pytest.raises(ResumeError) as caught:
        embed(space, *begun)
    assert f"versions: torch was {here['torch']}, now 9.9." in str(caught.value)


def test_a_finished_memory_of_something_else(space, begun):
    source, folder = begun
    embed(space, source, folder)
    with pytest.raises(ResumeError) as caught:
        embed(space, source, folder, dtype="float32")
    assert (
        "made with something else: dtype was float16, now float32. Run it as it was made, or choose another folder."
        in str(caught.value)
    )
    _write(source, [*_lines(), ("new", "one")])
    with pytest.raises(ResumeError, match="or add what is new with --append"):
        embed(space, source, folder)
    assert embed(space, source, folder, append=True).ids[-1] == "new"
