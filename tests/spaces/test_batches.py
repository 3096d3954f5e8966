"""`encode_batches`, of every kind of space and of spaces that have only `encode`: the rows of `encode`, failures in place."""

import gc
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_spaces import KINDS, items
from test_contract import CASES, UNREADABLE, Opened

from cmcr.data.paths import NamedBytes
from cmcr.errors import ConfigError, MissingDependencyError, SampleError
from cmcr.spaces.protocol import BatchEncoder, EncodedBatch
from cmcr.spaces.tower import Tower, TowerSpace, encode_batches_of, listed

DECODED = [case for case in CASES if KINDS[case[0]].decodes]


@pytest.fixture(scope="module")
def spaces(tmp_path_factory):
    return Opened(tmp_path_factory.mktemp("spaces"))


@pytest.fixture(scope="module")
def whole(spaces):
    known = {}

    def rows_of(kind, modality):
        if (kind, modality) not in known:
            known[kind, modality] = spaces[kind].encode(items(modality), modality)
        return known[kind, modality]

    return rows_of


class OnlyEncode:
    """A space as a user may write one: `encode` and nothing else."""

    name, widths, fingerprint = "only", {"text": 3}, "f"

    def __init__(self, embed=None):
        self.embed = embed or (lambda items: [[len(item), item.count("e") + 1, 1] for item in items])
        self.calls = []

    def encode(self, inputs, modality, batch_size=32, show_progress_bar=None, convert_to_numpy=True,
               convert_to_tensor=False, device=None, normalize_embeddings=True):  # fmt: skip
        if modality not in self.widths:
            raise ConfigError(f"unknown modality {modality!r}")
        self.calls.append((list(inputs), batch_size, device))
        rows = torch.tensor(self.embed(inputs), dtype=torch.float32)
        rows = torch.nn.functional.normalize(rows) if normalize_embeddings else rows
        return rows if convert_to_tensor else rows.numpy()


class Broken(TowerSpace):
    """Embeds numbers; the network fails on those that it is told to, decoding on others."""

    name, widths, fingerprint = "broken", {"text": 2}, "f"

    def __init__(self, fails=(), raises=RuntimeError, special=None):
        self.fails, self.raises, self.special = set(fails), raises, special or {}
        self.batches = []

    def _place(self, device):
        self.placed = device

    def _opened_towers(self):
        from contextlib import nullcontext

        return nullcontext({"text": Tower(2, self._decode, self._embed)})

    def _decode(self, item):
        if isinstance(item, Exception):
            raise item
        return item

    def _embed(self, numbers):
        self.batches.append(list(numbers))
        if self.fails & set(numbers):
            raise self.raises("the network fails")
        return torch.tensor([self.special.get(number, [1.0, number]) for number in numbers])


def run(space, batches, modality="text"):
    return list(encode_batches_of(space, batches, modality))


def direction(number):
    return torch.nn.functional.normalize(torch.tensor([[1.0, number]]))[0]


@pytest.mark.parametrize(("kind", "modality"), CASES)
def test_rows_are_those_of_encode(spaces, whole, kind, modality):
    space, given_items = spaces[kind], items(modality)
    assert isinstance(space, BatchEncoder)
    expected = whole(kind, modality)
    for sizes in ((6,), (2, 0, 3, 1), (1,) * 6):
        ends = np.cumsum(sizes)
        batches = [given_items[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        results = run(space, batches, modality)
        assert [len(result.rows) for result in results] == list(sizes)
        assert all(isinstance(result, EncodedBatch) and result.failures == {} for result in results)
        rows = torch.cat([result.rows for result in results if len(result.rows)])
        assert rows.dtype == torch.float32
        assert not rows.requires_grad
        # The same batch as `encode` has; in others sums are taken in another order.
        np.testing.assert_allclose(rows.numpy(), expected, rtol=0, atol=1e-6 if sizes == (6,) else 1e-5)


@pytest.mark.parametrize(("kind", "modality"), DECODED)
@settings(max_examples=4)
@given(st.integers(0, 6), st.integers(1, 7), st.booleans())
def test_a_bad_item_anywhere_costs_only_itself(spaces, whole, kind, modality, place, size, told):
    bad = SampleError("torn page") if told else UNREADABLE[modality]
    mixed = items(modality)
    mixed.insert(place, bad)
    results = run(spaces[kind], [mixed[start : start + size] for start in range(0, 7, size)], modality)
    failures = {start * size + at: e for start, result in enumerate(results) for at, e in result.failures.items()}
    assert list(failures) == [place]
    assert isinstance(failures[place], SampleError)
    if told:
        assert str(failures[place]) == "torn page"
    rows = torch.cat([result.rows for result in results if len(result.rows)])
    np.testing.assert_allclose(rows.numpy(), whole(kind, modality), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "modality"), CASES)
def test_the_modality_is_checked(spaces, kind, modality):
    with pytest.raises(ConfigError, match=rf"unknown modality of {KINDS[kind].name} '{modality}s'"):
        run(spaces[kind], [[]], modality + "s")


def test_no_batches_and_empty_ones():
    for space in (Broken(), OnlyEncode()):
        assert run(space, []) == []
        (result,) = run(space, [[]])
        assert len(result.rows) == len(result.failures) == 0
        assert getattr(space, "batches", []) == []


@given(st.sets(st.integers(0, 12)), st.integers(1, 13))
def test_items_on_which_the_network_fails_are_found_by_halves(fails, size):
    space = Broken(fails)
    results = run(space, [range(start, min(start + size, 13)) for start in range(0, 13, size)])
    for number, result in enumerate(results):
        batch = range(number * size, min((number + 1) * size, 13))
        assert set(result.failures) == {n - batch.start for n in fails & set(batch)}
        good = [direction(n) for n in batch if n not in fails]
        torch.testing.assert_close(result.rows, torch.stack(good) if good else torch.empty(0, 2))
        for error in result.failures.values():
            assert str(error) == "cannot be embedded (RuntimeError: the network fails)"


def test_a_batch_without_failures_is_embedded_once():
    space = Broken()
    run(space, [[1, 2, 3], [4]])
    assert space.batches == [[1, 2, 3], [4]]


def test_rows_that_are_nan_infinite_or_zero():
    nan, inf = float("nan"), float("inf")
    space = Broken(special={1: [nan, 1.0], 3: [inf, 1.0], 4: [0.0, 0.0], 5: [1e-30, 0.0]})
    (result,) = run(space, [[0, 1, 2, 3, 4, 5]])
    assert {place: str(error) for place, error in result.failures.items()} == dict.fromkeys(
        (1, 3, 4), "its embedding is NaN, infinite or zero."
    )
    torch.testing.assert_close(result.rows, torch.stack([direction(0), direction(2), torch.tensor([1.0, 0.0])]))


def test_an_error_of_one_item_keeps_its_words():
    (result,) = run(Broken(fails={2}, raises=SampleError), [[1, 2]])
    assert str(result.failures[1]) == "the network fails"


@pytest.mark.parametrize("error", [MissingDependencyError("av is missing"), ConfigError("no such option")])
def test_what_all_items_share_passes_through(error):
    with pytest.raises(type(error), match=str(error)):
        run(Broken(), [[1, error, 2]])
    with pytest.raises(type(error), match=str(error)):
        run(Broken(fails={1}, raises=lambda _: error), [[1, 2]])

    def embed(items):
        raise error

    with pytest.raises(type(error), match=str(error)):
        run(OnlyEncode(embed), [["a"]])


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("cuda")])
def test_too_little_memory_is_no_fault_of_an_item(error):
    with pytest.raises(type(error)):
        run(Broken(fails={1}, raises=lambda _: error), [[1, 2]])


def test_a_reader_that_fails_in_ways_nobody_foresaw():
    (result,) = run(Broken(), [[1, ZeroDivisionError("odd"), 2]])
    assert str(result.failures[1]) == "cannot be decoded (ZeroDivisionError: odd)."
    torch.testing.assert_close(result.rows, torch.stack([direction(1), direction(2)]))


def test_the_device_is_chosen_once():
    space = Broken()
    assert len(list(space.encode_batches([[1], [2]], "text", "cpu"))) == 2
    assert space.placed == torch.device("cpu")


class TestASpaceWithOnlyEncode:
    def test_is_asked_batch_after_batch(self):
        space = OnlyEncode()
        assert not isinstance(space, BatchEncoder)
        texts = ["one", "three", "seven", "o"]
        results = list(encode_batches_of(space, [texts[:3], texts[3:]], "text", "cpu"))
        np.testing.assert_allclose(
            torch.cat([r.rows for r in results]).numpy(), space.encode(texts, "text"), rtol=0, atol=1e-6
        )
        assert space.calls[:2] == [(texts[:3], 3, "cpu"), (texts[3:], 1, "cpu")]

    def test_bad_items_cost_only_themselves(self):
        def embed(items):
            for place, item in enumerate(items):
                if item == "bad":
                    raise SampleError(f"item {place}: a bad word")
            return [[len(item), 1, 1] for item in items]

        space = OnlyEncode(embed)
        (result,) = run(space, [["a", "bad", SampleError("torn"), "bcd", "ef"]])
        assert {place: str(error) for place, error in result.failures.items()} == {1: "a bad word", 2: "torn"}
        np.testing.assert_allclose(result.rows.numpy(), space.encode(["a", "bcd", "ef"], "text"), atol=1e-6)

    def test_rows_of_another_number_are_no_rows_of_these_items(self):
        space = OnlyEncode(lambda items: [[1, 2, 3]] * (len(items) + 1))
        (result,) = run(space, [["a", "b"]])
        assert len(result.rows) == 0
        told = "cannot be embedded (DimensionError: space 'only' gave rows of shape (2, 3) for 1 items.)"
        assert [str(error) for error in result.failures.values()] == [told, told]

    def test_an_unknown_modality_passes_through(self):
        with pytest.raises(ConfigError, match="unknown modality 'image'"):
            run(OnlyEncode(), [["a"]], "image")


def decoding():
    return [thread for thread in threading.enumerate() if thread.name.startswith("cmcr-decode")]


@pytest.mark.parametrize("space", [Broken(), OnlyEncode(lambda items: [[1, 2, 3]] * len(items))])
def test_closed_early_it_stops_its_threads_and_draws_no_more(space):
    gc.collect()
    drawn = []

    def endless():
        while True:
            drawn.append(0)
            yield [1, 2, 3]

    results = encode_batches_of(space, endless(), "text")
    next(results)
    assert decoding()
    results.close()
    assert not decoding()
    assert len(drawn) <= 4


def test_batches_are_decoded_ahead():
    lock, started = threading.Lock(), []

    class Slow(Broken):
        def _decode(self, item):
            with lock:
                started.append(item)
            return item

    results = Slow().encode_batches(([n] for n in range(100)), "text")
    next(results)
    deadline = time.monotonic() + 5
    while len(started) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sorted(started) == [0, 1, 2]
    results.close()


LONG = {"clip": "cat " * 200, "siglip": "cat " * 200, "clap-fused": "dog " * 200}


@pytest.mark.parametrize("kind", LONG)
def test_of_texts_that_are_cut_one_warning_speaks(spaces, kind):
    texts = [LONG[kind], "short", LONG[kind] + "more"]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        results = run(spaces[kind], [[text] for text in texts])
    assert sum(len(result.rows) for result in results) == 3
    assert len(heard) == 1
    assert "2" in str(heard[0].message)
    with pytest.warns(UserWarning, match="longer"):
        expected = spaces[kind].encode(texts, "text")
    np.testing.assert_allclose(torch.cat([r.rows for r in results]).numpy(), expected, rtol=0, atol=1e-5)


def test_of_texts_that_are_cut_the_first_alone_is_kept(spaces):
    """A million of them must not fill the RAM until the end."""

    class Long(str):
        kept = 0

        def __new__(cls, text):  # not __init__, which str() of one calls again until Python has sped that up
            Long.kept += 1
            return super().__new__(cls, text)

        def __del__(self):
            Long.kept -= 1

        def __str__(self):
            return self

    def embed_three():
        with spaces["clap-fused"]._opened_towers() as towers:
            tokens = [towers["text"].decode(Long(f"dog {n} " * 100)) for n in range(3)]
            towers["text"].embed(tokens)
            assert Long.kept == 3
            del tokens
            assert Long.kept == 0

    with pytest.warns(UserWarning, match=r"3 text\(s\) are longer .* begins with 'dog 0 dog 0"):
        embed_three()


@pytest.mark.parametrize("item", [b"\x89PNG", NamedBytes("a.ply", b"ply"), "a.png", Path("a.png"), {"points": [0]}])
def test_one_item_is_no_list(item):
    assert listed(item) == ([item], True)
    assert listed([item, item]) == ([item, item], False)
