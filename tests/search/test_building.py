"""`cmcr.index`: rows, items and coordinates of an index, its updates, and what a stop at any moment leaves."""

import dataclasses
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import cmcr
from cmcr.artefacts import describe, verify
from cmcr.data.numbers import draw_pictures, speak_sounds, write_texts
from cmcr.errors import ConfigError, DimensionError, FormatError, IntegrityError, LockedError, WriteError
from cmcr.files import locked
from cmcr.search import building, hubs, references, sources
from cmcr.search.building import index
from cmcr.search.faiss_index import FaissIndex
from cmcr.search.hubs import hub_coordinates
from cmcr.search.items import Condition
from cmcr.search.lance_index import LanceIndex
from cmcr.search.layout import open_folder

NUMBERS = np.arange(100, 124)


@pytest.fixture(scope="module", autouse=True)
def unflushed():
    """Spare the disk."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


@cache
def connection():
    rng = np.random.default_rng(3)
    texts = write_texts(NUMBERS, rng)
    clip, clap = cmcr.space("mini-clip"), cmcr.space("mini-clap")
    sounds = [{"array": heard, "sampling_rate": 8000} for heard in speak_sounds(NUMBERS, "train", rng)]
    pictures = list(draw_pictures(NUMBERS, "train", rng))
    left = cmcr.Memories(clip, text=clip.encode(texts, "text"), image=clip.encode(pictures, "image"))
    right = cmcr.Memories(clap, text=clap.encode(texts, "text"), audio=clap.encode(sounds, "audio"))
    made = cmcr.connect(left, right, method="ridge")
    return dataclasses.replace(made, encoders={"mini-clip": clip, "mini-clap": clap})


def write_pictures(folder, numbers, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in zip(
        numbers, draw_pictures(np.array(numbers), "test", np.random.default_rng(seed)), strict=True
    ):
        Image.fromarray(picture).save(folder / f"{number}.png")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Lay out files: pictures in two folders, sounds beside them, notes, and a table of texts."""
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("files/day"), [1, 2, 3])
    write_pictures(Path("files/night"), [4, 5])
    for number, heard in zip((7, 8), speak_sounds(np.array([7, 8]), "test", np.random.default_rng(1)), strict=True):
        soundfile.write(f"files/{number}.wav", heard, 8000, subtype="FLOAT")
    Path("files/notes.txt").write_text("no item")
    Path("texts.csv").write_text("name,text,year\nb,forty,2001\na,fifty,2002\n")
    return tmp_path


def build(*inputs, out="idx", of=None, **options):
    return index(of or connection(), inputs or ("files", "texts.csv"), out, **options).opened


def ids(opened, *conditions):
    """The ids of items that are there, by corpus."""
    masks = [opened.items.mask(number, list(map(Condition.parse, conditions))) for number in range(len(opened.corpora))]
    assert conditions or all((mask == c.live).all() for mask, c in zip(masks, opened.corpora, strict=True))
    return {
        f"{corpus.space}/{corpus.modality}": [
            item.id for item in opened.items.items(corpus.first + np.flatnonzero(mask))
        ]
        for corpus, mask in zip(opened.corpora, masks, strict=True)
    }


@pytest.fixture
def counted(monkeypatch):
    """Count the items that are embedded, and the rows that are projected."""
    counts = {"embedded": 0, "projected": 0}
    real, encode = type(connection()).common, sources.embed

    def common(self, rows, space, **options):
        counts["projected"] += len(rows) if "device" in options else 0  # not one row to learn the width
        return real(self, rows, space, **options)

    def embed(*arguments, on_event, **options):
        def on_each(event, facts):
            counts["embedded"] += facts["count"] if event == "items" else 0
            on_event(event, facts)

        return encode(*arguments, on_event=on_each, **options)

    monkeypatch.setattr(type(connection()), "common", common)
    monkeypatch.setattr(sources, "embed", embed)

    def since():
        found = (counts["embedded"], counts["projected"])
        counts.update(embedded=0, projected=0)
        return found

    return since


def test_an_index_of_raw_items(world):
    shares = []
    opened = build(progress=lambda stage, share: shares.append((stage.split()[0], share)))
    assert {stage for stage, _ in shares} >= {"embedding", "projecting", "hub"}
    assert ids(opened) == {
        "mini-clip/image": ["day/1.png", "day/2.png", "day/3.png", "night/4.png", "night/5.png"],
        "mini-clap/audio": ["7.wav", "8.wav"],
        "mini-clip/text": ["texts.csv:1", "texts.csv:2"],
    }
    clip = connection().encoders["mini-clip"]
    for corpus, first in zip(opened.corpora, (0, 5, 7), strict=True):
        common = connection().common(corpus.own[:], corpus.space)
        np.testing.assert_allclose(corpus.common[:], common, atol=1e-6)
        np.testing.assert_allclose(corpus.mean_common, common.mean(axis=0), atol=1e-6)
        assert corpus.first == first
    image, audio, text = opened.corpora
    paths = [item.path for item in opened.items.items(range(5))]
    assert paths == [world / "files" / id_ for id_ in image.own.ids]
    np.testing.assert_allclose(image.own[:], clip.encode(list(paths), "image"), atol=6e-4)  # kept in float16
    assert [(item.text, item.path, item.columns) for item in opened.items.items([7, 8])] == [
        ("forty", None, {"name": "b", "year": 2001}),
        ("fifty", None, {"name": "a", "year": 2002}),
    ]
    assert ids(opened, "folder=night")["mini-clip/image"] == ["night/4.png", "night/5.png"]
    scores, found = text.own_index.search(np.pad(text.own[1:2], ((0, 0), (0, len(text.own_hubs)))), 1)
    np.testing.assert_allclose(scores, 1, atol=1e-3)
    assert found.tolist() == [[1]]
    assert audio.own_hubs == ("audio",)
    assert image.common_hubs == ("text", "image", "audio")
    facts = describe(Path("idx"))
    assert facts["items"] == 9
    assert facts["corpora"]["image of mini-clip"]["embedded_from"] == [str(world / "files")]
    assert verify(Path("idx"))["rows"] == 9


def test_hub_coordinates_and_the_map_are_those_of_the_rows(world):
    opened = build()
    image, audio, text = opened.corpora
    extras = np.stack([hub_coordinates(image.own, rows.own[:]) for rows in (text, image)], axis=1)
    queries = np.hstack([np.zeros((2, 128)), -np.eye(2)]).astype(np.float32)
    scores, positions = image.own_index.search(queries, 5)
    np.testing.assert_allclose(scores, np.take_along_axis(-extras.T, positions, axis=1), atol=1e-6)
    # Queries of another space come from there where they can: texts are mini-clip's alone here, sounds mini-clap's.
    expected = hub_coordinates(image.common, connection().common(audio.own[:], "mini-clap"))
    query = np.pad(np.zeros((1, 128), np.float32), ((0, 0), (0, 3)))
    query[0, 128 + image.common_hubs.index("audio")] = -1
    scores, positions = image.common_index.search(query, 5)
    np.testing.assert_allclose(scores[0], -expected[positions[0]], atol=1e-6)

    centred = np.concatenate([corpus.common[:] - corpus.mean_common for corpus in opened.corpora])
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    shown = np.concatenate(opened.map.points)
    np.testing.assert_allclose(np.abs(shown), np.abs(centred @ axes[:2].T), atol=1e-4)
    placed = opened.map.place(audio.common[:], audio.mean_common)
    np.testing.assert_allclose(placed, opened.map.points[1], atol=1e-6)


def extras_of(corpus, queries):
    """What the own index has beside the rows, in their order."""
    width = corpus.own.shape[1]
    asked = np.hstack([np.zeros((queries, width)), np.eye(queries)]).astype(np.float32)
    scores, positions = corpus.own_index.search(asked, len(corpus))
    return np.take_along_axis(scores, positions.argsort(axis=1), axis=1).T


def test_an_update_keeps_hub_coordinates_while_the_references_are_the_same(world, monkeypatch):
    monkeypatch.setattr(hubs, "MOST_REFERENCES", 2)
    before, computed, real = build(), [], hub_coordinates
    rows = before.corpora[0].own[:]
    extras = extras_of(before.corpora[0], 2)
    monkeypatch.setattr(
        references, "hub_coordinates", lambda rows, given: computed.append(len(rows)) or real(rows, given)
    )
    build()
    assert computed == []
    write_pictures(Path("files/night"), [6])
    image = build().corpora[0]
    assert computed == [1] * 5  # two modalities in the space, three through the connection
    np.testing.assert_array_equal(extras_of(image, 2)[:5], extras)
    np.testing.assert_allclose(extras_of(image, 2)[5, 1], real(image.own, rows[[0, 2]])[5], atol=1e-6)
    write_pictures(Path("files/night"), range(10, 20))
    image = build().corpora[0]
    assert sum(computed[5:]) == 16 * 5 + 2 * 4 + 2 * 5  # more than twice as many items: drawn anew
    np.testing.assert_allclose(extras_of(image, 2)[:, 1], real(image.own, image.own[[0, 8]]), atol=1e-6)
    other = build("files", references=["idx/memories/" + Path(before.corpora[2].own.folders[0]).name], out="other")
    assert [corpus.own_hubs for corpus in other.corpora] == [("text",), ()]


@pytest.mark.parametrize("backend", ["faiss", "lancedb"])
def test_other_back_ends_take_what_is_new(world, backend, monkeypatch):
    pytest.importorskip(backend)
    monkeypatch.setattr(hubs, "MOST_REFERENCES", 2)
    build(backend=backend)
    built, made = [], LanceIndex if backend == "lancedb" else FaissIndex
    real = made.create
    monkeypatch.setattr(made, "create", lambda *given: built.append(given[0].name) or real(*given))
    write_pictures(Path("files/night"), [6])
    opened = build(backend=backend)
    assert built == []
    image = opened.corpora[0]
    assert (image.own_index.kind, len(image.own_index), image.common_index.kind) == (backend, 6, backend)
    assert opened.manifest.corpora[0].cards["own"].recall_at_10 == 1
    query = np.pad(image.own[5:6], ((0, 0), (0, 2)))
    assert image.own_index.search(query, 1)[1].tolist() == [[5]]
    assert verify(Path("idx"))["rows"] == 10
    write_pictures(Path("files/night"), range(10, 20))
    build(backend=backend)
    assert len(built) == 5  # all but sounds in their own space, for which nothing has changed
    (image, *_) = build().corpora
    assert image.own_index.kind == "exact"
    assert not build().manifest.corpora[0].folders


def test_tables_may_lie_in_a_store_of_their_own(world):
    pytest.importorskip("lancedb")
    store = (Path.cwd() / "store").as_uri()
    opened = build(backend=f"lancedb:{store}")
    assert all(place.startswith(f"{store}/lancedb-") for place in opened.manifest.corpora[0].folders.values())
    assert not Path("idx/backends").exists()
    for _ in range(2):  # as it was made, and with a picture more
        image = open_folder("idx").corpora[0]
        query = np.pad(image.own[-1:], ((0, 0), (0, image.own_index.width - image.own.width)))
        assert (image.own_index.kind, image.own_index.search(query, 1)[1].tolist()) == ("lancedb", [[len(image) - 1]])
        write_pictures(Path("files/night"), [6])
        build(backend=f"lancedb:{store}")
    with pytest.raises(ConfigError, match="faiss:"):
        build(backend=f"faiss:{store}")


def test_memories_stay_where_they_are_and_lists_give_files_and_columns(world):
    clip = connection().encoders["mini-clip"]
    Path("pictures.csv").write_text(
        "key,path,year,text\nx,files/day/1.png,1,one\ny,files/night/4.png,2,\nz,gone.png,3,three\n"
    )
    shutil.copy("files/day/2.png", "gone.png")
    for out, given, options in (("all", "files", {}), ("some", "pictures.csv", {"id_column": "key"})):
        cmcr.embed(clip, "image", given, out, **options)
    Path("gone.png").unlink()
    cmcr.write_memory("loose", clip.encode(["a", "b"], "text"), ["b", "a"], space="mini-clip", modality="text")
    opened = build("some", "all", "loose", items=["pictures.csv", "files"], id_column="key")
    image, text = opened.corpora
    assert image.own.folders == (world / "some", world / "all")
    assert ids(opened)["mini-clip/image"] == ["x", "y", *image.own.ids[3:]]
    items = opened.items.items(range(10))
    assert [(i.id, i.text, i.folder, i.columns["year"], i.live) for i in items[:3]] == [
        ("x", "one", "files/day", 1, True),
        ("y", "", "files/night", 2, True),
        ("z", "three", "", 3, False),
    ]
    assert [item.path for item in items[3:8]] == [world / "files" / id_ for id_ in image.own.ids[3:]]
    assert [(item.id, item.path, item.live) for item in items[8:]] == [("b", None, True), ("a", None, True)]
    hits = text.own_index.search(np.zeros((1, text.own_index.width), np.float32), 2)[1]
    assert hits.tolist() == [[1, 0]]  # of equal scores the smaller id first
    with pytest.raises(ConfigError, match=r"texts\.csv.*by id"):
        build("loose", items=["texts.csv"], out="other")
    assert not Path("other/config.json").exists()


def test_a_memory_finds_its_files_without_a_list(world):
    cmcr.embed(connection().encoders["mini-clip"], "image", "files", "all")
    items = build("all").items.items(range(2))
    assert [item.path for item in items] == [world / "files" / item.id for item in items]


def test_an_update_embeds_and_projects_what_is_new_alone(world, counted):
    before = build()
    assert counted() == (9, 9)
    write_pictures(Path("files/night"), [6])
    Path("files/day/2.png").rename("away.png")
    with Path("texts.csv").open("a") as file:
        file.write("c,sixty,2003\n")
    opened = build()
    assert counted() == (2, 2)
    assert ids(opened) == {
        "mini-clip/image": ["day/1.png", "day/3.png", "night/4.png", "night/5.png", "night/6.png"],
        "mini-clap/audio": ["7.wav", "8.wav"],
        "mini-clip/text": ["texts.csv:1", "texts.csv:2", "texts.csv:3"],
    }
    assert [len(corpus) for corpus in opened.corpora] == [6, 2, 3]
    # Who has the older index open is not disturbed.
    assert [len(corpus) for corpus in before.corpora] == [5, 2, 2]
    assert ids(before)["mini-clip/image"][1] == "day/2.png"
    np.testing.assert_array_equal(before.corpora[0].common[:], opened.corpora[0].common[:5])
    Path("away.png").rename("files/day/2.png")
    again = build()
    assert "day/2.png" in ids(again)["mini-clip/image"]
    assert counted() == (0, 0)
    left = build("files")
    assert set(ids(left)) == {"mini-clip/image", "mini-clap/audio"}
    assert counted() == (0, 0)
    build("files")
    assert len(list(Path("idx/common").iterdir())) == 2  # what the last index but one had is gone
    assert len(list(Path("idx").glob("items-*"))) == len(list(Path("idx").glob("arrays-*"))) == 1


def test_grown_and_replaced_memories(world, counted):
    clip = connection().encoders["mini-clip"]

    def write(rows):
        shutil.rmtree("mem", ignore_errors=True)
        facts = {"space": "mini-clip", "modality": "text", "fingerprint": clip.fingerprint}
        cmcr.write_memory("mem", clip.encode(rows, "text"), **facts)

    Path("lines.txt").write_text("one\ntwo\n")
    cmcr.embed(clip, "text", "lines.txt", "grows")
    write(["three"])
    opened = build("grows", "mem")
    Path("lines.txt").write_text("one\ntwo\nfour\n")
    cmcr.embed(clip, "text", "lines.txt", "grows", append=True)
    assert len(open_folder("idx").corpora[0]) == 3  # usable before it is updated
    counted()
    opened = build("grows", "mem")
    assert counted() == (0, 1)
    assert (
        opened.corpora[0].own.ids == opened.corpora[0].common.ids == ["lines.txt:1", "lines.txt:2", "lines.txt:3", "0"]
    )
    write(["five", "six"])
    with pytest.raises(IntegrityError, match=r"mem: not as it was indexed.*cmcr index again"):
        open_folder("idx")
    opened = build("grows", "mem")
    assert counted() == (0, 2)
    np.testing.assert_allclose(
        opened.corpora[0].common[:], connection().common(opened.corpora[0].own[:], "mini-clip"), atol=1e-6
    )
    other = dataclasses.replace(cmcr.connect(*_arrays(), method="cca"), encoders=connection().encoders)
    assert build("grows", "mem", of=other).connection.method == "cca"
    assert counted() == (0, 5)


def _arrays():
    rng = np.random.default_rng(0)
    rows = {(name, kind): rng.normal(size=(60, width)) for name, width in (("l", 128), ("r", 96)) for kind in "to"}
    left = cmcr.Memories(cmcr.space("mini-clip"), text=rows["l", "t"], image=rows["l", "o"])
    return left, cmcr.Memories(cmcr.space("mini-clap"), text=rows["r", "t"], audio=rows["r", "o"])


@pytest.mark.parametrize("stopped", ["embed", "write_projected", "_item_table", "hubs_of", "write_manifest"])
def test_a_stop_at_any_step_leaves_the_older_index_and_resumes(world, monkeypatch, stopped):
    if stopped != "embed":
        build("texts.csv")
    whole = ids(build(out="whole"))
    where = sources if stopped == "embed" else building
    real = getattr(where, stopped)

    def stop(*arguments, **options):
        if stopped == "write_manifest":
            raise OSError(28, "No space left on device")
        if stopped in ("embed", "write_projected"):
            real(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(where, stopped, stop)
        with pytest.raises(WriteError if stopped == "write_manifest" else KeyboardInterrupt):
            build()
    if stopped == "embed":
        with pytest.raises(FormatError, match="never finished"):
            open_folder("idx")
    else:
        assert list(ids(open_folder("idx"))) == ["mini-clip/text"]
        assert verify(Path("idx"))["rows"] == 2
    assert ids(build()) == whole
    assert not list(Path("idx").glob(".*.part"))


@pytest.mark.parametrize(
    ("inputs", "options", "error", "said"),
    [
        (["nothing"], {}, ConfigError, "nothing"),
        ([], {}, ConfigError, "expected memories"),
        (["notes.md"], {}, ConfigError, r"\.md"),
        (["files"], {"modality": "point_cloud"}, ConfigError, "point_cloud"),
        (["files"], {"via": "mini-ulip"}, ConfigError, "mini-ulip"),
        (["files"], {"of": "bare"}, ConfigError, "--model mini-clip="),
        (["saved"], {}, ConfigError, "got a cmcr connection"),
        (["foreign"], {}, ConfigError, "of the space 'clip'"),
        (["older"], {}, ConfigError, "embedded by the encoders"),
        (["wide"], {}, DimensionError, "got 64"),
        (["cloud"], {}, ConfigError, "point_cloud"),
        (["texts.csv"], {"backend": "exakt"}, ConfigError, "exact"),
    ],
)
def test_wrong_inputs(world, inputs, options, error, said):
    Path("notes.md").write_text("x")
    if inputs == ["saved"]:
        connection().save("saved")
    rows = np.eye(4, 128 if inputs != ["wide"] else 64, dtype=np.float32)
    made = {
        "foreign": {"space": "clip"},
        "older": {"fingerprint": "0123"},
        "wide": {},
        "cloud": {"modality": "point_cloud"},
    }
    for name in {*made} & {*inputs}:
        cmcr.write_memory(name, rows, **{"space": "mini-clip", "modality": "text", **made[name]})
    if options.get("of") == "bare":
        options = {"of": dataclasses.replace(connection(), encoders={})}
    with pytest.raises(error, match=said):
        index(options.pop("of", connection()), inputs, "idx", **options)
    assert not Path("idx/config.json").exists()


def test_modalities_of_tables_and_of_txt_files(world):
    Path("both.csv").write_text("path,text\nfiles/day/1.png,one\n")
    Path("names.txt").write_text("files/day/1.png\n")
    Path("only").mkdir()
    Path("only/a.txt").write_text("seven")
    assert list(ids(build("both.csv", out="a"))) == ["mini-clip/text", "mini-clip/image"]
    assert list(ids(build("names.txt", out="b"))) == ["mini-clip/text"]
    assert list(ids(build("names.txt", out="c", modality="image"))) == ["mini-clip/image"]
    with pytest.raises(ConfigError, match="--modality text"):
        build("only", out="d")
    assert ids(build("only", out="d", via="mini-clap", modality="text")) == {"mini-clap/text": ["a.txt"]}


def test_others_are_not_disturbed(world):
    Path("full").mkdir()
    Path("full/mine").write_text("x")
    with pytest.raises(WriteError, match="is not a cmcr index"):
        build("texts.csv", out="full")
    cmcr.write_memory("mem", np.eye(3, dtype=np.float32), space="mini-clip", modality="text")
    with pytest.raises(WriteError, match="is not a cmcr index"):
        build("texts.csv", out="mem")
    with pytest.raises(WriteError, match="is not a cmcr index"):
        build("texts.csv", out="texts.csv")
    build("texts.csv")
    with locked(Path("idx/.index.lock"), ""), pytest.raises(LockedError, match="another run"):
        build("texts.csv")


def test_damage_is_found(world):
    build("texts.csv")
    shutil.move("idx", "moved")  # an index may be moved
    assert ids(open_folder("moved")) == {"mini-clip/text": ["texts.csv:1", "texts.csv:2"]}
    table = next(Path("moved").glob("items-*"))
    content = table.read_bytes()
    table.write_bytes(content[:-1] + b"x")
    open_folder("moved")
    with pytest.raises(IntegrityError, match="bytes have changed"):
        verify(Path("moved"))
    table.write_bytes(content[:-1])
    with pytest.raises(IntegrityError, match=f"{len(content) - 1} bytes"):
        open_folder("moved")
    build("texts.csv", out="moved")  # all of it can be made again
    assert verify(Path("moved"))["rows"] == 2
    table.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        open_folder("moved")
    next(Path("moved").glob("connection-*/model.safetensors")).write_bytes(b"x")
    build("texts.csv", out="moved")
    assert verify(Path("moved"))["rows"] == 2
    shutil.rmtree(next(Path("moved/common").iterdir()))
    with pytest.raises(IntegrityError, match="cmcr index again"):
        open_folder("moved")
