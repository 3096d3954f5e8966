"""Queries to an index against numpy, in a small world of two spaces whose rows are known."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load

import cmcr
from cmcr.errors import ConfigError, DimensionError, NonFiniteError, ZeroRowError
from cmcr.search.building import index
from cmcr.search.engine import NEAR_DUPLICATE, SearchIndex
from cmcr.search.query import Part, Query
from cmcr.spaces import registry
from reference import search_hubs

WIDTHS = {"see": 12, "hear": 10}
MODALITIES = {"see": ("text", "image"), "hear": ("text", "audio")}
ITEMS = 60


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Items are points in a latent space; a modality of a space sees them by a matrix, some noise, and apart from others."""

    def __init__(self):
        rng = np.random.default_rng(5)
        self.maps = {kind: rng.normal(size=(8, WIDTHS[kind[0]])) for kind in self.kinds}
        self.means = {kind: 3 * rng.normal(size=WIDTHS[kind[0]]) for kind in self.kinds}
        self.latents = {modality: rng.normal(size=(ITEMS, 8)) for modality in ("text", "image", "audio")}
        self.latents["image"][40:43] = self.latents["image"][3] + 0.05 * rng.normal(size=(3, 8))  # near-duplicates

    @property
    def kinds(self):
        return [(space, modality) for space, modalities in MODALITIES.items() for modality in modalities]

    def rows(self, space, modality, latents):
        return unit(np.atleast_2d(latents) @ self.maps[space, modality] + self.means[space, modality])


class Encoder:
    """Reads the latents of an item, written as words."""

    def __init__(self, world, name):
        self.name, self.fingerprint, self._world = name, "f" * 16, world
        self.widths = dict.fromkeys(MODALITIES[name], WIDTHS[name])

    def encode(self, inputs, modality, **options):
        return self._world.rows(self.name, modality, [[float(word) for word in each.split()] for each in inputs])


def written(latents):
    return " ".join(map(repr, latents.tolist()))


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def connected(world):
    """Connect the spaces, by options of `cmcr.connect`."""
    texts, outer = (np.random.default_rng(seed).normal(size=(400, 8)) for seed in (1, 2))

    def connect(**options):
        memories = [
            cmcr.Memories(space, text=world.rows(space, "text", texts), **{own: world.rows(space, own, outer)})
            for space, (_, own) in MODALITIES.items()
        ]
        return cmcr.connect(*memories, seed=0, **options)

    return connect


@pytest.fixture(scope="module")
def memories(world, tmp_path_factory):
    """Pictures, texts as `see` knows them, and sounds: items 0 to 59, 60 to 119, 120 to 179."""
    root, written_to = tmp_path_factory.mktemp("memories"), []
    for space, modality in (("see", "image"), ("see", "text"), ("hear", "audio")):
        written_to.append(root / modality)
        rows = world.rows(space, modality, world.latents[modality])
        ids = [f"{modality}-{number:02d}" for number in range(ITEMS)]
        cmcr.write_memory(written_to[-1], rows, ids, space=space, modality=modality, model="m.pt", dtype="float32")
    return written_to


@pytest.fixture(scope="module")
def folder(connected, memories, tmp_path_factory):
    root = tmp_path_factory.mktemp("index")
    index(connected(method="cca"), memories, root)
    return root


@pytest.fixture(scope="module")
def opened(world, folder):
    return SearchIndex(folder, encoders=[Encoder(world, "see"), Encoder(world, "hear")])


@pytest.fixture
def latent(rng):
    return rng.normal(size=8)


def block(opened, modality, scale):
    corpus = next(corpus for corpus in opened.opened.corpora if corpus.modality == modality)
    return corpus.common[:] if scale == "connection" else corpus.own[:]


def in_block(opened, world, modality, latent, space, scale):
    row = world.rows(space, modality, latent)
    return (opened.opened.connection.common(row, space) if scale == "connection" else row)[0]


def check(ranking, cosines, first=0):
    """Make sure that a ranking is the order of these cosines `(N,)`, from one rank on."""
    order = np.argsort(-cosines, kind="stable")[first : first + len(ranking.hits)]
    assert [hit.id for hit in ranking.hits] == [f"{ranking.modality}-{position:02d}" for position in order]
    np.testing.assert_allclose([hit.cosine for hit in ranking.hits], cosines[order], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("modality", "space", "scales"),
    [
        ("image", "see", {"image": "see", "text": "see", "audio": "connection"}),
        ("audio", "hear", {"image": "connection", "text": "connection", "audio": "hear"}),
        ("text", None, {"image": "see", "text": "see", "audio": "hear"}),  # which both spaces read
    ],
)
def test_each_corpus_is_searched_where_its_space_reads_the_query(opened, world, latent, modality, space, scales):
    rankings = opened.search(**{modality: written(latent)})
    assert {ranking.modality: ranking.scale for ranking in rankings} == scales
    for ranking in rankings:
        asked = in_block(opened, world, modality, latent, space or ranking.space, ranking.scale)
        check(ranking, block(opened, ranking.modality, ranking.scale) @ asked)
        assert (ranking.items, len(ranking.hits), ranking.approximate) == (ITEMS, 10, False)


def test_parts_are_added_by_their_weights(opened, world, rng):
    wanted, unwanted = rng.normal(size=(2, 8))
    parts = (Part("image", written(wanted)), Part("text", written(unwanted), weight=-0.7, space="hear"))
    for ranking in opened.search(Query(parts)):
        assert ranking.scale == "connection"  # nothing reads both
        rows = [in_block(opened, world, "image", wanted, "see", "connection")]
        rows += [in_block(opened, world, "text", unwanted, "hear", "connection")]
        check(ranking, block(opened, ranking.modality, "connection") @ unit(rows[0] - 0.7 * rows[1]))
    assert [ranking.scale for ranking in opened.search(text=[written(wanted), written(unwanted)])] == [
        "see",
        "see",
        "hear",
    ]


def alike(found, expected):
    assert [hit.item for hit in found] == [hit.item for hit in expected]
    np.testing.assert_allclose([hit.cosine for hit in found], [hit.cosine for hit in expected], rtol=0, atol=1e-6)


def test_items_vectors_and_embedded_parts_ask_like_what_they_are_of(opened, latent):
    content = Part("text", written(latent))
    rows = opened.embed(content)
    assert set(rows) == {"see", "hear"}
    expected = opened.search(Query((content,)))
    for found, same in zip(opened.search(Query((Part("text", rows),))), expected, strict=True):
        assert found.scale == same.scale
        alike(found.hits, same.hits)
    alone = opened.search(Query((Part("text", 3 * rows["see"].astype(np.float64), space="see"),)))
    assert [ranking.scale for ranking in alone] == ["see", "see", "connection"]
    alike(alone[0].hits, expected[0].hits)
    like = opened.search(Query((Part("image", 7),)))
    by_row = opened.search(Query((Part("image", opened.opened.corpora[0].own[7], space="see"),), limit=11))
    assert by_row[0].hits[0].item == 7
    alike(like[0].hits, by_row[0].hits[1:])  # an item is not among what is like it
    assert like[0].items == ITEMS - 1
    alike(like[2].hits, by_row[2].hits[:10])


def test_vectors_of_parts(opened, latent):
    content = Part("text", written(latent))
    row = opened.embed(content)["see"]
    np.testing.assert_allclose(opened.vector_for([content], "see"), row, rtol=0, atol=1e-6)
    common = opened.opened.connection.common(row[None], "see")[0]
    np.testing.assert_allclose(opened.vector_for([content], "connection"), common, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="does not read all"):
        opened.vector_for([Part("image", 7)], "hear")


def test_pages_filters_and_targets(opened, latent):
    (whole,) = opened.search(text=written(latent), targets=("audio",), limit=30)
    pages = [opened.search(text=written(latent), targets=["audio"], limit=8, offset=start)[0] for start in (0, 8, 16)]
    assert sum((page.hits for page in pages), ()) == whole.hits[:24]
    assert opened.search(text=written(latent), targets="audio", limit=30) == [whole]
    (some,) = opened.search(text=written(latent), targets=("audio",), where=("id=audio-1*", "id!=audio-13"), limit=30)
    assert some.items == len(some.hits) == 9
    assert [hit.cosine for hit in some.hits] == sorted((hit.cosine for hit in some.hits), reverse=True)
    assert {hit.id for hit in some.hits} == {f"audio-1{last}" for last in range(10)} - {"audio-13"}
    (none,) = opened.search(text=written(latent), targets=("audio",), where=("id=dog",))
    assert (none.items, none.hits) == (0, ())


def test_items_that_are_gone_are_not_found(folder, world, latent, monkeypatch):
    def first_five(content):
        arrays = load(content)
        arrays["0.live"][5:] = False
        return arrays

    monkeypatch.setattr("cmcr.search.layout.deserialize", first_five)
    found = SearchIndex(folder, encoders=[Encoder(world, "see")]).search(image=written(latent), limit=ITEMS)
    assert {hit.item for hit in found[0].hits} == {0, 1, 2, 3, 4}
    assert [ranking.items for ranking in found] == [5, ITEMS, ITEMS]


def test_near_duplicates_stand_behind_the_first(opened, world):
    asked = written(world.latents["image"][3])
    (plain,) = opened.search(image=asked, targets=("image",), limit=ITEMS)
    rows = block(opened, "image", "see")
    expected = []  # by the definition: one item after the other
    for hit in plain.hits:
        first = next((group for group in expected if rows[group[0]] @ rows[hit.item] >= NEAR_DUPLICATE), None)
        if first is None:
            expected.append([hit.item])
        else:
            first.append(hit.item)
    assert {3, 40, 41, 42} in map(set, expected)
    (grouped,) = opened.search(image=asked, targets=("image",), limit=ITEMS, group_duplicates=True)
    assert [[hit.item, *hit.duplicates] for hit in grouped.hits] == expected
    pages = [
        opened.search(image=asked, targets=("image",), limit=2, offset=start, group_duplicates=True)[0].hits
        for start in (0, 2, 4)
    ]
    assert [hit.item for page in pages for hit in page] == [group[0] for group in expected[:6]]


def test_mixed_takes_off_the_gap_between_modalities(connected, memories, world, latent, tmp_path):
    """In a base, rows stay where their modality lies: a text is nearer to any text than to a picture that it describes."""
    index(connected(method="ridge", base="see"), memories, tmp_path)
    opened, asked = SearchIndex(tmp_path, encoders=[Encoder(world, "see")]), written(latent)
    (found,) = opened.search(text=asked, mixed=True, limit=40)
    assert (found.modality, found.space, found.scale) == ("all", "all", "connection, centred")
    assert found.items == 3 * ITEMS
    query = in_block(opened, world, "text", latent, "see", "connection")
    blocks = [block(opened, modality, "connection") for modality in ("image", "text", "audio")]
    plain = np.concatenate([rows @ query for rows in blocks])
    centred = np.concatenate([unit(r - r.mean(axis=0)) @ unit(query - blocks[1].mean(axis=0)) for r in blocks])
    order = np.argsort(-centred, kind="stable")[:40]
    assert [hit.item for hit in found.hits] == order.tolist()
    np.testing.assert_allclose([hit.cosine for hit in found.hits], centred[order], rtol=0, atol=2e-6)
    kinds = np.repeat([0, 1, 2], ITEMS)
    assert np.bincount(kinds[np.argsort(-plain)[:10]]).max() >= 9
    assert np.bincount(kinds[order[:10]], minlength=3).max() <= 5
    (page,) = opened.search(text=asked, mixed=True, limit=5, offset=5)
    assert page.hits == found.hits[5:10]


def test_hub_correction_ranks_by_the_corrected_score_and_says_the_cosine(opened, world, rng):
    wanted, unwanted = rng.normal(size=(2, 8))
    parts = (Part("image", written(wanted)), Part("text", written(unwanted), weight=-0.5))
    ranking = opened.search(Query(parts, targets=("image",), hub_correction=True, limit=ITEMS))[0]
    assert (ranking.scale, ranking.hub_corrected) == ("see", True)
    rows = block(opened, "image", "see")
    first, second = (world.rows("see", m, each)[0] for m, each in (("image", wanted), ("text", unwanted)))
    length = np.linalg.norm(first - 0.5 * second)
    scores = [
        (
            search_hubs.corrected(first, row, rows, 128, 0.75)
            - 0.5 * search_hubs.corrected(second, row, block(opened, "text", "see"), 128, 0.75)
        )
        / length
        for row in rows
    ]
    order = np.argsort(-np.array(scores), kind="stable")
    assert [hit.item for hit in ranking.hits] == order.tolist()
    np.testing.assert_allclose(
        [h.cosine for h in ranking.hits], rows[order] @ (first - 0.5 * second) / length, atol=2e-6
    )
    assert order.tolist() != [hit.item for hit in opened.search(Query(parts, targets=("image",), limit=ITEMS))[0].hits]


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ({}, ConfigError, "nothing to search for"),
        ({"parts": (Part("imgae", "x"),)}, ConfigError, "Did you mean 'image'"),
        ({"parts": (Part("point_cloud", "x"),)}, ConfigError, "no space of this index embeds point_cloud"),
        ({"parts": (Part("text", "1", space="sea"),)}, ConfigError, "Did you mean 'see'"),
        ({"parts": (Part("audio", "1", space="see"),)}, ConfigError, "'see' has no row of this audio"),
        ({"parts": (Part("text", "1", weight=0),)}, ConfigError, "weight"),
        ({"parts": (Part("text", "1", weight=float("nan")),)}, ConfigError, "weight"),
        ({"parts": (Part("text", np.full(12, np.nan), space="see"),)}, NonFiniteError, "text in space 'see'"),
        ({"parts": (Part("text", np.ones(3), space="see"),)}, DimensionError, "expected 12 numbers, got 3"),
        ({"parts": (Part("text", np.zeros(12), space="see"),)}, ZeroRowError, "text in space 'see'"),
        ({"parts": (Part("text", np.ones(12)),)}, ConfigError, "space="),
        ({"parts": (Part("image", 7), Part("image", 7, weight=-1))}, ConfigError, "cancel each other"),
        ({"parts": (Part("image", 999),)}, ConfigError, "items 0 to 179"),
        ({"parts": (Part("text", 7),)}, ConfigError, "item 7 is of modality image"),
        ({"targets": ("sound",)}, ConfigError, "unknown target 'sound'"),
        ({"targets": ("point_cloud",)}, ConfigError, "unknown target 'point_cloud'"),
        ({"limit": 0}, ConfigError, "limit"),
        ({"offset": -1}, ConfigError, "offset"),
        ({"offset": 995}, ConfigError, "1000 deep"),
        ({"where": ("yaer>3",)}, ConfigError, "yaer"),
        ({"mixed": True, "hub_correction": True}, ConfigError, "choose one"),
    ],
)
def test_what_makes_no_sense_is_refused(opened, query, error, message):
    parts = query.pop("parts", () if not query else (Part("image", 7),))
    with pytest.raises(error, match=message):
        opened.search(Query(parts, **query))


def test_keywords_are_those_of_a_query(opened, latent):
    with pytest.raises(ConfigError, match="Did you mean 'limit'"):
        opened.search(text=written(latent), limits=3)
    with pytest.raises(ConfigError, match="not both"):
        opened.search(Query((Part("image", 7),)), limit=3)


def test_encoders_are_attached_or_opened_by_their_model(folder, world, latent, monkeypatch):
    assert SearchIndex(folder).modalities == ()
    with pytest.raises(ConfigError, match="--model see=MODEL"):
        SearchIndex(folder).search(image=written(latent))
    with pytest.raises(ConfigError, match="Did you mean 'see'"):
        SearchIndex(folder, models={"sea": "x"})
    opened_by = []
    monkeypatch.setitem(registry._registered, "see", lambda model: opened_by.append(model) or Encoder(world, "see"))
    lazily = SearchIndex(folder, models={"see": "x.pt"})
    assert (lazily.modalities, opened_by) == (("text", "image"), [])
    for _ in range(2):
        assert lazily.search(image=written(latent))[0].scale == "see"
    assert opened_by == ["x.pt"]
    assert SearchIndex(folder).search(image=written(latent)) == lazily.search(image=written(latent))
    assert opened_by == ["x.pt", "m.pt"]  # which the memories say they were made with
    again = SearchIndex(folder, encoders=tuple(lazily.encoders.values()))
    assert again.search(image=written(latent)) == lazily.search(image=written(latent))


def test_an_approximate_index_says_so(connected, memories, opened, world, latent, tmp_path):
    index(connected(method="cca"), memories, tmp_path, backend="faiss")
    found = SearchIndex(tmp_path, encoders=[Encoder(world, "see"), Encoder(world, "hear")])
    for options, approximate in (({}, True), ({"where": "id=*-1*"}, False), ({"mixed": True}, True)):
        for ranking, exact in zip(
            found.search(text=written(latent), **options), opened.search(text=written(latent), **options), strict=True
        ):
            assert (ranking.approximate, exact.approximate) == (approximate, False)
            alike(ranking.hits, exact.hits)


def test_threads_find_the_same(opened, rng):
    asked = [written(each) for each in rng.normal(size=(12, 8))]
    expected = [opened.search(audio=each) for each in asked]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda each: opened.search(audio=each), asked)) == expected


def test_items_by_number_and_by_id(opened):
    assert opened.item(62).id == "text-02"
    assert opened.numbers_of("text-02") == [62]
    assert opened.numbers_of("text-02", "audio") == opened.numbers_of("text-0*") == []
    with pytest.raises(ConfigError, match="items 0 to 179"):
        opened.item(10**30)
