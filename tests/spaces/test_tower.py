"""The loop that embeds items: failures in place, decoding ahead, spaces that have only `encode`, texts that are cut."""

import threading
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cmcr.data.paths import NamedBytes
from cmcr.errors import MissingDependencyError, SampleError
from cmcr.spaces.tower import Tower, TowerSpace, encode_batches_of, listed


class OnlyEncode:
    """A space as a user may write one: `encode` and nothing else."""

    name, widths, fingerprint = "only", {"text": 3}, "f"

    def __init__(self, embed=None):
        self.embed = embed or (lambda items: [[len(item), item.count("e") + 1, 1] for item in items])
        self.calls = []

    def encode(self, inputs, modality, batch_size=32, show_progress_bar=None, convert_to_numpy=True,
               convert_to_tensor=False, device=None, normalize_embeddings=True):  # fmt: skip
        self.calls.append((list(inputs), batch_size, device))
        return torch.nn.functional.normalize(torch.tensor(self.embed(inputs), dtype=torch.float32))


class Broken(TowerSpace):
    """Embeds numbers; the network fails on those that it is given, decoding on exceptions."""

    name, widths, fingerprint = "broken", {"text": 2}, "f"

    def __init__(self, fails=(), raises=RuntimeError, special=None):
        self.fails, self.raises, self.special = set(fails), raises, special or {}
        self.batches = []

    def _move_to(self, device):
        self.moved_to = device

    def _tower(self, modality):
        return Tower(2, self.decode, self.embed)

    def decode(self, item):
        if isinstance(item, Exception):
            raise item
        return item

    def embed(self, numbers):
        self.batches.append(list(numbers))
        if self.fails & set(numbers):
            raise self.raises("the network fails")
        return torch.tensor([self.special.get(number, [1.0, number]) for number in numbers])


def run(space, batches, modality="text"):
    return list(encode_batches_of(space, batches, modality))


def direction(number):
    return torch.nn.functional.normalize(torch.tensor([[1.0, number]]))[0]


@given(st.sets(st.integers(0, 12)), st.integers(1, 13))
def test_items_on_which_the_network_fails_are_found(fails, size):
    space = Broken(fails)
    results = run(space, [range(start, min(start + size, 13)) for start in range(0, 13, size)])
    for number, result in enumerate(results):
        batch = range(number * size, min((number + 1) * size, 13))
        assert set(result.failures) == {n - batch.start for n in fails & set(batch)}
        good = [direction(n) for n in batch if n not in fails]
        torch.testing.assert_close(result.rows, torch.stack(good) if good else torch.empty(0, 2))
        assert all("the network fails" in str(error) for error in result.failures.values())
    if not fails:
        assert [len(batch) for batch in space.batches] == [len(result.rows) for result in results]


def test_rows_that_are_nan_infinite_or_zero():
    nan, inf = float("nan"), float("inf")
    space = Broken(special={1: [nan, 1.0], 3: [inf, 1.0], 4: [0.0, 0.0], 5: [1e-30, 0.0]})
    (result,) = run(space, [[0, 1, 2, 3, 4, 5]])
    assert sorted(result.failures) == [1, 3, 4]
    torch.testing.assert_close(result.rows, torch.stack([direction(0), direction(2), torch.tensor([1.0, 0.0])]))


@pytest.mark.parametrize(
    "error", [MissingDependencyError("av is missing"), MemoryError("full"), torch.OutOfMemoryError("cuda")]
)
def test_what_all_items_share_passes_through(error):
    def embed(items):
        raise error

    for space, batch in [
        (Broken(fails={1}, raises=lambda _: error), [1, 2]),
        (OnlyEncode(embed), ["a"]),
    ]:
        with pytest.raises(type(error), match=str(error)):
            run(space, [batch])


def test_an_item_that_needs_a_library_costs_only_itself():
    missing = MissingDependencyError("av is missing")
    (result,) = run(Broken(), [[1, missing, 2]])
    assert (str(result.failures[1]), len(result.rows)) == ("av is missing", 2)
    with pytest.raises(MissingDependencyError, match="av"):  # who asks for it is told
        Broken().encode([1, missing], "text")


def test_a_reader_that_fails_in_ways_nobody_foresaw():
    space = Broken()
    (result,) = run(space, [[1, ZeroDivisionError("odd"), 2]])
    assert "ZeroDivisionError: odd" in str(result.failures[1])
    torch.testing.assert_close(result.rows, torch.stack([direction(1), direction(2)]))
    with pytest.raises(SampleError, match=r"item 1: .*ZeroDivisionError"):
        space.encode([1, ZeroDivisionError("odd")], "text")


@pytest.mark.parametrize("error", [MemoryError("full"), RecursionError("deep")])
def test_an_item_on_which_memory_or_the_stack_runs_out_fails_alone(error):
    (result,) = run(Broken(), [[1, error, 2]])
    assert type(error).__name__ in str(result.failures[1])
    assert len(result.rows) == 2


def test_failures_do_not_hold_what_was_being_decoded():
    held = []

    class Large(Broken):
        def _tower(self, modality):
            return Tower(2, self.fail, lambda items: torch.ones(len(items), 2))

        def fail(self, item):
            content = np.zeros(9)
            held.append(weakref.ref(content))
            try:
                return content[item]
            except IndexError as error:
                raise SampleError("damaged") from error

    (result,) = run(Large(), [[9, 99]])
    assert len(result.failures) == len(held) == 2
    assert [content() for content in held] == [None, None]


def test_the_device_is_chosen_once():
    space = Broken()
    assert len(list(space.encode_batches([[1], [2]], "text", "cpu"))) == 2
    assert space.moved_to == torch.device("cpu")


class TestASpaceWithOnlyEncode:
    def test_is_asked_batch_after_batch(self):
        space, texts = OnlyEncode(), ["one", "three", "seven", "o"]
        results = list(encode_batches_of(space, [texts[:3], texts[3:]], "text", "cpu"))
        assert space.calls == [(texts[:3], 3, "cpu"), (texts[3:], 1, "cpu")]
        rows = torch.cat([result.rows for result in results]).numpy()
        np.testing.assert_allclose(rows, space.encode(texts, "text"), atol=1e-6)

    def test_bad_items_cost_only_themselves(self):
        def embed(items):
            for position, item in enumerate(items):
                if item == "bad":
                    raise SampleError(f"item {position}: a bad word")
            return [[len(item), 1, 1] for item in items]

        space = OnlyEncode(embed)
        (result,) = run(space, [["a", "bad", SampleError("torn"), "bcd", "ef"]])
        assert {position: str(error) for position, error in result.failures.items()} == {1: "a bad word", 2: "torn"}
        np.testing.assert_allclose(result.rows.numpy(), space.encode(["a", "bcd", "ef"], "text"), atol=1e-6)

    def test_rows_of_another_number_are_no_rows_of_these_items(self):
        (result,) = run(OnlyEncode(lambda items: [[1, 2, 3]] * (len(items) + 1)), [["a", "b"]])
        assert len(result.rows) == 0
        assert all("for 1 items" in str(result.failures[position]) for position in (0, 1))


def decoding():
    return [thread for thread in threading.enumerate() if thread.name.startswith("cmcr-decode")]


@pytest.mark.parametrize("space", [Broken(), OnlyEncode(lambda items: [[1, 2, 3]] * len(items))])
def test_closed_early_it_stops_its_threads_and_draws_no_more(space):
    drawn = []

    def endless():
        while True:
            drawn.append(0)
            yield [1, 2, 3]

    before = set(decoding())
    results = encode_batches_of(space, endless(), "text")
    next(results)
    assert set(decoding()) - before
    results.close()
    assert not set(decoding()) - before
    assert len(drawn) <= 4


def test_batches_are_decoded_ahead():
    started = []

    class Slow(Broken):
        def decode(self, item):
            started.append(item)
            return item

    results = Slow().encode_batches(([n] for n in range(100)), "text")
    next(results)
    deadline = time.monotonic() + 5
    while len(started) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sorted(started) == [0, 1, 2]
    results.close()


@pytest.mark.parametrize("kind", ["clip", "siglip", "clap-fused", "ulip-xyz"])
def test_cut_texts_are_warned_of(spaces, kind):
    space, texts = spaces[kind], ["short", "rain and dogs " * 60]
    with pytest.warns(UserWarning, match=f"^{space.name}: .* is cut"):
        space.encode(texts, "text")
    with pytest.warns(UserWarning, match="is cut") as heard, warnings.catch_warnings(action="default"):
        run(space, [texts, texts])
    assert len(heard) == 1
    with pytest.raises(UserWarning, match="is cut"):  # where a user makes warnings errors, no item is to blame
        run(space, [texts])


@pytest.mark.parametrize("item", [b"\x89PNG", NamedBytes("a.ply", b"ply"), "a.png", Path("a.png"), {"points": [0]}])
def test_one_item_is_no_list(item):
    assert listed(item) == ([item], True)
    assert listed([item, item]) == ([item, item], False)
