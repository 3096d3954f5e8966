"""What every space promises (`cmcr.spaces.protocol`), kept by each kind of space with a small random model."""

import pickle
import random
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from small_dual_encoders import DUAL_ENCODERS
from small_models import CASES, KINDS, MARK, UNREADABLE, change_a_weight, found_backwards, items

from cmcr.errors import ConfigError, SampleError
from cmcr.spaces.mini import space as mini
from cmcr.spaces.protocol import EncodedBatch, Space
from cmcr.spaces.tower import encode_batches_of

OF_A_CLASS = [case for case in CASES if case[0] not in DUAL_ENCODERS]  # which are of the class of "clip" and "siglip"
DECODED = [case for case in OF_A_CLASS if KINDS[case[0]].decodes]


@pytest.fixture(scope="module")
def elsewhere(spaces, files):
    """What another process, with another hash seed, finds in the same files."""
    for kind in KINDS:
        assert isinstance(spaces[kind], Space)  # its files are written
    with pytest.MonkeyPatch.context() as patched, ProcessPoolExecutor(1, get_context("spawn")) as another:
        patched.setenv("PYTHONHASHSEED", "7")
        return another.submit(found_backwards, spaces.root, files).result()


@contextmanager
def random_states_stay():
    def now():
        return pickle.dumps((torch.get_rng_state().tolist(), np.random.get_state(), random.getstate()))

    before = now()
    yield
    assert now() == before


@pytest.mark.parametrize("kind", KINDS)
class TestSpaces:
    def test_has_a_name_widths_and_a_fingerprint(self, spaces, alone, kind):
        space, made = spaces[kind], KINDS[kind]
        assert isinstance(space, Space)
        assert space.name == made.name
        for modality in made.widths:
            alone(kind, modality)  # before that a function's width is not known
        assert dict(space.widths) == made.widths
        assert space.fingerprint == MARK if made.custom else len(space.fingerprint) == 16
        published = not made.custom and kind not in mini.MINI_SPACES
        assert (space.temperature > 0) if published else (space.temperature is None)

    def test_opening_again_finds_the_fingerprint_and_leaves_random_states_alone(self, spaces, kind):
        first = spaces[kind].fingerprint
        with random_states_stay():
            again = KINDS[kind].open(spaces.root / kind)
        assert again.fingerprint == first

    def test_the_fingerprint_changes_with_a_weight(self, spaces, copy_of, tmp_path, kind, monkeypatch):
        first, made = spaces[kind].fingerprint, KINDS[kind]
        if made.write:
            change_a_weight(copy_of(kind))
            assert made.open(tmp_path / kind).fingerprint != first
        elif kind in mini.MINI_SPACES:
            state = load(mini._weights(kind))
            next(tensor for tensor in state.values() if tensor.is_floating_point()).view(-1)[0] += 1e-2
            monkeypatch.setattr(mini, "_weights", lambda name: save(state))
            assert mini.MiniSpace(kind).fingerprint != first

    def test_two_threads_may_call_it_at_once(self, spaces, alone, kind):
        for modality in KINDS[kind].widths:
            expected = alone(kind, modality)
            with ThreadPoolExecutor(2) as threads:
                for rows in threads.map(lambda m: spaces[kind].encode(items(m), m, batch_size=2), [modality] * 2):
                    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)

    def test_an_unknown_modality_names_the_nearest(self, spaces, kind):
        for modality in KINDS[kind].widths:
            for call in (spaces[kind].encode, lambda *given: list(spaces[kind].encode_batches(*given))):
                with pytest.raises(ConfigError, match=rf"{modality}s'\. Did you mean '{modality}'"):
                    call([], modality + "s")


@pytest.mark.parametrize(("kind", "modality"), CASES)
class TestEncode:
    def test_rows_are_unit_rows_in_the_order_of_the_items(self, spaces, alone, kind, modality):
        inputs, space = items(modality), spaces[kind]  # which is built, at its first use, with random weights
        with random_states_stay():
            rows = space.encode(inputs, modality)
        for item, fresh in zip(inputs, items(modality), strict=True):  # the items stay as they were
            item, fresh = (x["array"] if isinstance(x, dict) else x for x in (item, fresh))
            np.testing.assert_array_equal(np.asarray(item), np.asarray(fresh))
        assert type(rows) is np.ndarray
        assert rows.dtype == np.float32
        assert rows.shape == (6, KINDS[kind].widths[modality])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.ones(6), atol=1e-6)
        np.testing.assert_allclose(rows, alone(kind, modality), atol=1e-5)
        apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)[np.triu_indices(6, 1)]
        assert apart.min() > 1e-4, "items that embed alike prove nothing about order"

    def test_a_single_item_is_a_row_and_none_are_no_rows(self, spaces, alone, files, kind, modality):
        expected = alone(kind, modality)
        for item in (files[modality][0], str(files[modality][0])):
            np.testing.assert_allclose(spaces[kind].encode(item, modality), expected[0], atol=1e-5)
        rows = spaces[kind].encode([], modality)
        assert rows.shape == (0, KINDS[kind].widths[modality])
        assert rows.dtype == np.float32

    def test_tensors_and_raw_rows_where_they_are_asked_for(self, spaces, kind, modality):
        space, inputs = spaces[kind], items(modality)[:3]
        rows = space.encode(inputs, modality)
        for options in ({"convert_to_tensor": True}, {"convert_to_numpy": False}):
            tensor = space.encode(inputs, modality, **options)
            assert isinstance(tensor, torch.Tensor)
            assert not tensor.requires_grad
            np.testing.assert_allclose(tensor.numpy(), rows, atol=1e-6)
        raw = space.encode(inputs, modality, normalize_embeddings=False)
        assert raw.dtype == np.float32
        np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), rows, atol=1e-6)

    def test_the_device_is_chosen_or_refused(self, spaces, alone, kind, modality):
        if KINDS[kind].custom:
            with pytest.raises(ConfigError, match="'cpu'"):
                spaces[kind].encode(items(modality)[:2], modality, device="cpu")
        else:
            rows = spaces[kind].encode(items(modality)[:2], modality, device="cpu")
            np.testing.assert_allclose(rows, alone(kind, modality)[:2], atol=1e-5)

    def test_wrong_batch_sizes_and_inputs_that_are_no_list(self, spaces, kind, modality):
        for batch_size in (0, -1, 2.0, "2", True, None):
            with pytest.raises(ConfigError, match="batch_size"):
                spaces[kind].encode([], modality, batch_size=batch_size)
        for wrong in (None, 5, {1, 2}, (item for item in [])):
            with pytest.raises(ConfigError, match="inputs"):
                spaces[kind].encode(wrong, modality)

    def test_an_item_that_cannot_be_decoded_is_named_by_its_position(self, spaces, kind, modality):
        if KINDS[kind].decodes:
            for unreadable, batch_size in [(UNREADABLE[modality], 2), (" " if modality == "text" else None, 32)]:
                with pytest.raises(SampleError, match=r"^item 4: \S"):
                    spaces[kind].encode([*items(modality)[:4], unreadable], modality, batch_size=batch_size)

    @settings(max_examples=3)
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 9))
    def test_batch_order_and_neighbours_do_not_matter(self, spaces, alone, kind, modality, chosen, batch_size):
        inputs = items(modality)
        rows = spaces[kind].encode([inputs[i] for i in chosen], modality, batch_size=batch_size)
        np.testing.assert_allclose(rows, alone(kind, modality)[chosen], rtol=0, atol=1e-5)

    def test_another_process_with_another_random_state_finds_the_same(self, spaces, alone, elsewhere, kind, modality):
        fingerprint, rows = elsewhere[kind, modality]
        assert fingerprint == spaces[kind].fingerprint
        np.testing.assert_allclose(rows, alone(kind, modality), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind, modality in CASES if modality == "image"])
def test_what_is_transparent_shows_white(spaces, kind):
    clear, white = np.zeros((40, 40, 4), dtype=np.uint8), np.full((40, 40, 3), 255, dtype=np.uint8)
    rows = spaces[kind].encode([clear, white], "image")
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


class TestEncodeBatches:
    @pytest.mark.parametrize(("kind", "modality"), CASES)
    def test_rows_are_those_of_encode(self, spaces, alone, kind, modality):
        inputs = items(modality)
        for sizes in ((6,), (2, 0, 3, 1)):
            ends = np.cumsum(sizes)
            batches = [inputs[end - size : end] for end, size in zip(ends, sizes, strict=True)]
            results = list(encode_batches_of(spaces[kind], batches, modality))
            assert [len(result.rows) for result in results] == list(sizes)
            assert all(isinstance(result, EncodedBatch) and result.failures == {} for result in results)
            rows = torch.cat([result.rows for result in results if len(result.rows)])
            assert rows.dtype == torch.float32
            assert not rows.requires_grad
            np.testing.assert_allclose(rows.numpy(), alone(kind, modality), rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("kind", "modality"), DECODED)
    @settings(max_examples=3)
    @given(st.integers(0, 6), st.integers(1, 7), st.booleans())
    def test_a_bad_item_anywhere_costs_only_itself(self, spaces, alone, kind, modality, position, size, known):
        bad = SampleError("torn page") if known else UNREADABLE[modality]
        mixed = items(modality)
        mixed.insert(position, bad)
        batches = [mixed[start : start + size] for start in range(0, 7, size)]
        results = list(encode_batches_of(spaces[kind], batches, modality))
        failures = {start * size + at: e for start, result in enumerate(results) for at, e in result.failures.items()}
        assert list(failures) == [position]
        assert isinstance(failures[position], SampleError)
        if known:
            assert str(failures[position]) == "torn page"
        rows = torch.cat([result.rows for result in results if len(result.rows)])
        np.testing.assert_allclose(rows.numpy(), alone(kind, modality), rtol=0, atol=1e-5)
