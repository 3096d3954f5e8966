"""Memories on disk, taken directly by semantic consistency and by connect."""

import tempfile
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cmcr
from cmcr.connection import residence
from cmcr.connection.checkpoint import digest_of
from cmcr.connection.counterparts import Work, consistent_rows
from cmcr.connection.peers import Peers
from cmcr.connection.settings import Settings
from cmcr.connection.stored import RowsBetween
from cmcr.errors import ConfigError, DimensionError, NonFiniteError, ResumeError, TooFewRowsError
from cmcr.memories.layout import Origin
from cmcr.memories.writer import open_writer
from connection.together import together

QUICK = {"epochs": 2, "batch_size": 16}


def unit(rows, width, seed):
    made = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def stored(folder, rows, space, modality, ids=None, dtype="float32", shard_items=37, fingerprint="f"):
    ids = ids or [f"{modality}:{i}" for i in range(len(rows))]
    origin = Origin(space, modality, fingerprint and f"{space}-{fingerprint}", None, None, dtype)
    with open_writer(folder, origin, len(rows), "digest", shard_items=shard_items) as writer:
        for number in writer.missing:
            span = writer.items_of(number)
            items = [(ids[i], ids[i]) for i in span]
            writer.write(number, torch.from_numpy(rows[span.start : span.stop]), items)
        writer.finish()
    return cmcr.Memory(folder)


@pytest.fixture
def arrays():
    return {
        ("a", "text"): unit(90, 12, 0),
        ("a", "image"): unit(110, 12, 1),
        ("b", "text"): unit(90, 8, 2),
        ("b", "audio"): unit(70, 8, 3),
    }


@pytest.fixture
def memories(arrays, tmp_path):
    return {key: stored(tmp_path / "-".join(key), rows, *key) for key, rows in arrays.items()}


@pytest.mark.parametrize("queries", [1, 50, 5000])
def test_semantic_consistency_of_a_memory_on_disk_is_that_of_its_rows(tmp_path, queries):
    rows, asked = unit(300, 16, 4), unit(queries, 16, 5)
    memory = stored(tmp_path / "m", rows, "a", "image")
    expected = cmcr.semantic_consistency(asked, rows, 0.05)
    np.testing.assert_allclose(cmcr.semantic_consistency(asked, memory, 0.05), expected, atol=5e-6)
    given = cmcr.semantic_consistency(torch.from_numpy(asked).double(), memory, 0.05)
    assert given.dtype == torch.float64
    np.testing.assert_allclose(given.numpy(), expected, atol=5e-6)  # the expected ones are of float32


def test_semantic_consistency_of_several_memories_as_one(tmp_path):
    rows, asked = unit(100, 16, 4), unit(20, 16, 5)
    first = stored(tmp_path / "x", rows[:40], "a", "image")
    second = stored(tmp_path / "y", rows[40:], "a", "image")
    both = cmcr.Memory(*first.folders, *second.folders)
    expected = cmcr.semantic_consistency(asked, rows, 0.05)
    np.testing.assert_allclose(cmcr.semantic_consistency(asked, both, 0.05), expected, atol=1e-6)


def test_semantic_consistency_refuses_a_memory_of_another_width(memories):
    with pytest.raises(cmcr.CmcrError, match="queries are 12 wide and the memory 8"):
        cmcr.semantic_consistency(unit(3, 12, 0), memories["b", "audio"])


def connected_from_arrays(arrays):
    a = cmcr.Memories("a", text=arrays["a", "text"], image=arrays["a", "image"])
    b = cmcr.Memories("b", text=arrays["b", "text"], audio=arrays["b", "audio"])
    return cmcr.connect(a, b, **QUICK)


def assert_same(one, other):
    for space, width in (("a", 12), ("b", 8)):
        asked = unit(5, width, 9)
        np.testing.assert_allclose(one.project(asked, space=space), other.project(asked, space=space), atol=2e-4)


def test_connect_takes_memories_on_disk_in_any_order(arrays, memories):
    expected = connected_from_arrays(arrays)
    order = [("a", "image"), ("b", "text"), ("a", "text"), ("b", "audio")]
    made = cmcr.connect(*(memories[key] for key in order), **QUICK)
    assert_same(made, expected)
    assert [(s.name, s.modalities, s.fingerprint, s.outer_rows) for s in made.spaces] == [
        ("a", ("text", "image"), "a-f", 110),
        ("b", ("text", "audio"), "b-f", 70),
    ]


def test_memories_hold_what_is_on_disk_beside_arrays(arrays, memories):
    a = cmcr.Memories("a", text=arrays["a", "text"], image=memories["a", "image"])
    b = cmcr.Memories("b", text=memories["b", "text"], audio=memories["b", "audio"])
    assert (a.fingerprint, b.fingerprint, a.width) == ("a-f", "b-f", 12)
    assert repr(b) == "Memories('b', text: 90 x 8, audio: 70 x 8)"
    np.testing.assert_allclose(b.loaded("audio").numpy(), arrays["b", "audio"], atol=1e-6)
    assert_same(cmcr.connect(a, b, **QUICK), connected_from_arrays(arrays))


def test_the_overlap_is_matched_by_ids(arrays, tmp_path):
    keep_left = np.delete(np.arange(90), [3, 50])
    keep_right = np.random.default_rng(0).permutation(np.delete(np.arange(90), [7]))
    both = [i for i in keep_left if i != 7]
    given = [
        stored(tmp_path / "at", arrays["a", "text"][keep_left], "a", "text", [f"t{i}" for i in keep_left]),
        stored(tmp_path / "ai", arrays["a", "image"], "a", "image"),
        stored(tmp_path / "bt", arrays["b", "text"][keep_right], "b", "text", [f"t{i}" for i in keep_right]),
        stored(tmp_path / "ba", arrays["b", "audio"], "b", "audio"),
    ]
    with pytest.warns(UserWarning, match="87 items are in both 'a' and 'b'; 3 that only one of them has") as said:
        made = cmcr.connect(*given, **QUICK)
    assert said[0].filename == __file__
    matched = {**arrays, ("a", "text"): arrays["a", "text"][both], ("b", "text"): arrays["b", "text"][both]}
    assert made.overlap_rows == 87
    assert_same(made, connected_from_arrays(matched))


def test_an_overlap_without_common_ids(arrays, memories, tmp_path):
    other = stored(tmp_path / "other", arrays["b", "text"], "b", "text", [f"x{i}" for i in range(90)])
    given = [memories["a", "text"], memories["a", "image"], other, memories["b", "audio"]]
    with pytest.raises(
        TooFewRowsError, match=r"90 items and 'b' 90, and 0 ids are in both \(such as 'text:0' and 'x0'\)"
    ):
        cmcr.connect(*given, **QUICK)


def test_an_overlap_in_which_an_id_occurs_twice(arrays, memories, tmp_path):
    ids = [f"captions.txt:{i % 45}" for i in range(90)]  # two files of one name, put together
    left = stored(tmp_path / "left", arrays["a", "text"], "a", "text", ids)
    right = stored(tmp_path / "right", arrays["b", "text"], "b", "text", ids)
    with pytest.raises(ConfigError, match=r"the overlap of 'a': the id 'captions\.txt:0' occurs twice"):
        cmcr.connect(left, memories["a", "image"], right, memories["b", "audio"], **QUICK)


def test_memories_that_do_not_belong_together(arrays, memories, tmp_path):
    a_text, a_image = memories["a", "text"], memories["a", "image"]
    with pytest.raises(ConfigError, match="expected memories of two spaces, got 1: 'a'"):
        cmcr.connect(a_text, a_image)
    with pytest.raises(ConfigError, match=r"a modality was given twice\. Make one of several memories"):
        cmcr.connect(a_text, a_text, memories["b", "text"], memories["b", "audio"])
    other = stored(tmp_path / "other", arrays["a", "image"], "a", "image", fingerprint="g")
    with pytest.raises(ConfigError, match="its text memory is of the encoders a-f, its image memory of a-g"):
        cmcr.connect(a_text, other, memories["b", "text"], memories["b", "audio"])
    with pytest.raises(
        ConfigError, match=r"image of space 'a': the memory on disk is of the encoders a-g, the rest of a-f"
    ):
        cmcr.Memories("a", text=a_text, image=other)
    with pytest.raises(ConfigError, match="audio of space 'a': the memory on disk is text of 'a'"):
        cmcr.Memories("a", audio=a_text)
    with pytest.raises(ConfigError, match=r"expected two cmcr\.Memories, got Memory"):
        cmcr.connect(cmcr.Memories("b", text=arrays["b", "text"], audio=arrays["b", "audio"]), a_text)
    with pytest.raises(ConfigError, match=r"expected two cmcr\.Memories, or four cmcr.Memory on disk, got 0"):
        cmcr.connect()


def weights(connection):
    return [
        value
        for space in connection.spaces
        for value in connection.projectors[space.name].state_dict().values()
        if value.is_floating_point()
    ]


@pytest.mark.parametrize("reordered", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_embeddings_that_ram_does_not_hold_give_the_same_connection(arrays, tmp_path, monkeypatch, reordered, kept):
    order = np.random.default_rng(1).permutation(90) if reordered else np.arange(90)
    given = [
        stored(tmp_path / "at", arrays["a", "text"], "a", "text", [f"t{i}" for i in range(90)]),
        stored(tmp_path / "ai", arrays["a", "image"], "a", "image"),
        stored(tmp_path / "bt", arrays["b", "text"][order], "b", "text", [f"t{i}" for i in order]),
        stored(tmp_path / "ba", arrays["b", "audio"], "b", "audio"),
    ]
    expected = cmcr.connect(*given, **QUICK)
    made = []
    in_file = residence._in_file

    def counting(path, rows, width):
        made.append((rows, width))
        return in_file(path, rows, width)

    monkeypatch.setattr(residence, "_in_file", counting)
    monkeypatch.setattr(residence, "available_ram_bytes", lambda: 10_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(path.name for path in tmp_path.iterdir())
    found = cmcr.connect(*given, **QUICK, checkpoint=tmp_path / "kept" if kept else None)
    assert made == [(90, 12), (90, 8), (90, 12), (90, 8)]  # both overlaps, then their counterparts
    assert all(torch.equal(one, other) for one, other in zip(weights(found), weights(expected), strict=True))
    assert found.history == expected.history
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([*before, "kept"] if kept else before)
    assert not list(tmp_path.rglob("rows-*"))


def test_nothing_holds_rows_in_files_when_they_are_removed(memories, tmp_path, monkeypatch):
    made, held = [], []
    in_file, cleanup = residence._in_file, tempfile.TemporaryDirectory.cleanup

    def remembering(path, rows, width):
        tensor = in_file(path, rows, width)
        made.extend([weakref.ref(tensor), weakref.ref(tensor._base)])
        return tensor

    def looking(folder):
        held.append([one() is not None for one in made])
        cleanup(folder)

    monkeypatch.setattr(residence, "_in_file", remembering)
    monkeypatch.setattr(residence, "available_ram_bytes", lambda: 10_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", looking)
    cmcr.connect(*memories.values(), **QUICK)
    assert held == [[False] * 8]  # Windows removes no file that is still mapped


def test_a_stored_overlap_is_read_once_and_never_held_twice(arrays, memories, monkeypatch):
    blocks, read = [], cmcr.Memory.blocks

    def counting(memory, rows=4096):
        for block in read(memory, rows):
            blocks.append((memory.space, memory.modality, len(block)))
            yield block

    monkeypatch.setattr(cmcr.Memory, "blocks", counting)
    monkeypatch.setattr(cmcr.Memory, "__array__", None)
    cmcr.connect(*memories.values(), **QUICK, semantic_consistency=False)
    assert blocks == [(space, "text", rows) for space in "ab" for rows in (37, 37, 16)]  # a shard at a time


def test_consecutive_rows_of_a_memory_are_rows(arrays, memories):
    rows, memory = arrays["a", "image"], memories["a", "image"]
    part = RowsBetween(memory, slice(30, 101))
    assert isinstance(part, cmcr.arrays.StoredRows)
    assert (part.shape, len(part)) == ((71, 12), 71)
    blocks = list(part.blocks(20))
    assert [len(block) for block in blocks] == [20, 20, 20, 11]
    np.testing.assert_allclose(np.concatenate(blocks), rows[30:101], atol=1e-6)


def test_several_processes_share_memories_on_disk(arrays, memories):
    expected = counterparts_of(arrays["a", "text"], memories["a", "image"], Peers())

    def work(peers):
        return counterparts_of(arrays["a", "text"], memories["a", "image"], peers)

    for found in together(3, work):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture
def scans(monkeypatch):
    """Which memories were read from their beginning."""
    read, begun = cmcr.Memory.blocks, []

    def counting(memory, rows=4096):
        begun.append(f"{memory.modality} in {memory.space}")
        yield from read(memory, rows)

    monkeypatch.setattr(cmcr.Memory, "blocks", counting)
    return begun


def test_a_checkpoint_costs_no_more_reading(memories, tmp_path, scans):
    cmcr.connect(*memories.values(), **QUICK, checkpoint=tmp_path / "kept")
    assert scans == ["text in a", "text in b", "image in a", "audio in b"]


@pytest.mark.parametrize("changed", ["rows", "order"])
def test_a_stopped_connection_goes_on_with_the_same_memories_only(arrays, memories, tmp_path, changed, scans):
    del memories["b", "audio"]
    rows = arrays["b", "audio"]
    halves = [
        stored(tmp_path / f"half-{i}", half, "b", "audio").folders[0] for i, half in enumerate((rows[:40], rows[40:]))
    ]
    cmcr.connect(*memories.values(), cmcr.Memory(*halves), **QUICK, checkpoint=tmp_path / "kept")
    scans.clear()
    cmcr.connect(*memories.values(), cmcr.Memory(*halves), **QUICK, checkpoint=tmp_path / "kept")
    assert scans == ["text in a", "text in b"]  # all else is kept
    other = rows[40:].copy()
    other[-1] = -other[-1]
    others = {
        "rows": [halves[0], stored(tmp_path / "other", other, "b", "audio").folders[0]],
        "order": [halves[1], halves[0]],
    }
    with pytest.raises(ResumeError, match=r"something else was begun here: embeddings of audio in b was \w{12}"):
        cmcr.connect(*memories.values(), cmcr.Memory(*others[changed]), **QUICK, checkpoint=tmp_path / "kept")


def test_parts_of_a_memory_are_told_apart_without_reading_them(memories, scans):
    image, text = memories["a", "image"], memories["a", "text"]
    parts = [RowsBetween(image, slice(0, 50)), RowsBetween(image, slice(1, 51)), RowsBetween(text, slice(0, 50))]
    assert len({digest_of(part) for part in parts}) == 3
    assert digest_of(parts[0]) == digest_of(RowsBetween(cmcr.Memory(*image.folders), slice(0, 50)))
    assert digest_of(image) == image.digest()
    assert not scans


def test_rows_on_disk_that_nobody_has_hashed_are_hashed(arrays):
    class Rows:
        shape = (110, 12)

        def __len__(self):
            return 110

        def blocks(self, rows=4096):
            yield from np.array_split(arrays["a", "image"], 3)

    assert digest_of(Rows()) == digest_of(torch.from_numpy(arrays["a", "image"]))


def counterparts_of(items, memory, peers):
    work = Work(Settings(consistency_temperature=0.05), torch.device("cpu"), peers, torch.empty)
    return consistent_rows(torch.from_numpy(items), memory, work, "left")


def test_rows_that_cannot_be_shared_are_refused(arrays):
    class Rows:
        shape = (110, 12)

        def __len__(self):
            return 110

        def blocks(self, rows=4096):
            yield arrays["a", "image"]

    with pytest.raises(ConfigError, match=r"Rows: several processes can share a cmcr\.Memory, but not these rows"):
        counterparts_of(arrays["a", "text"], Rows(), Peers(0, 2))


def spoilt(rows, row):
    bad = rows.copy()
    bad[row, 3] = np.nan
    return bad


def overwritten(folder, rows):
    """Put other rows into the shards of a memory, as a failing disk would."""
    for number, path in enumerate(sorted(folder.glob("shard-*.safetensors"))):
        tensors = load_file(path)
        (name,) = tensors
        part = rows[37 * number : 37 * number + len(tensors[name])]
        save_file({name: torch.from_numpy(part.copy())}, path)


@pytest.mark.parametrize(
    ("kind", "row", "ids"),
    [(("a", "image"), 80, None), (("b", "text"), 41, None), (("b", "text"), 41, range(90, 0, -1))],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_not_a_number_on_disk_is_said_with_its_place(arrays, memories, tmp_path, kind, row, ids, precision):
    if ids is not None:  # matched by ids: the row is still that of the memory
        names = [f"text:{i}" for i in ids]
        memories[kind] = stored(tmp_path / "turned", arrays[kind], *kind, ids=[n.replace(":90", ":0") for n in names])
    (folder,) = memories[kind].folders
    overwritten(folder, spoilt(arrays[kind], row))
    with pytest.raises(NonFiniteError) as caught:
        cmcr.connect(*memories.values(), **QUICK, precision=precision, checkpoint=tmp_path / "kept")
    space, modality = kind
    assert str(caught.value) == (
        f"{modality} of space {space!r} ({folder}): NaN or infinity, first in row {row}. Look for damage with `cmcr verify`; "
        "if there is none, they were written so: embed those items again."
    )


def test_not_a_number_in_a_process_part_of_a_memory_has_its_row_there(arrays, memories):
    (folder,) = memories["a", "image"].folders
    overwritten(folder, spoilt(arrays["a", "image"], 80))
    with pytest.raises(NonFiniteError, match=r"^image of space 'a' \(.*\): NaN or infinity, first in row 80\."):
        cmcr.semantic_consistency(arrays["a", "text"], RowsBetween(memories["a", "image"], slice(70, 90)))


def test_widths_of_one_space_that_differ_are_said_before_any_work(arrays, memories, tmp_path):
    memories["a", "image"] = stored(tmp_path / "wide", unit(110, 13, 1), "a", "image")
    with pytest.raises(DimensionError) as caught:
        cmcr.connect(*memories.values(), **QUICK, checkpoint=tmp_path / "kept")
    assert str(caught.value) == (
        f"image of space 'a' ({tmp_path / 'wide'}) is 13 wide, text of space 'a' ({tmp_path / 'a-text'}) 12: both must be "
        "embeddings of one space. Embed both with the same model."
    )
    assert not (tmp_path / "kept").exists()
