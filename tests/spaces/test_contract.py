"""What every space promises (`cmcr.spaces.protocol`), kept by each kind of space with a small random model."""

import os
import pickle
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from small_spaces import KINDS, change_a_weight, items, write_items

from cmcr.errors import ConfigError, SampleError
from cmcr.spaces.mini import space as mini
from cmcr.spaces.protocol import Space

CASES = [(kind, modality) for kind, made in KINDS.items() for modality in made.widths]
UNREADABLE = {"text": 7, "image": "nowhere.png", "audio": "nowhere.wav", "point_cloud": "nowhere.npy"}


def installed(kind):
    try:
        for library in KINDS[kind].libraries:
            import_module(library)
    except ImportError:
        return False
    return True


class Opened(dict):
    """Folders and spaces by kind, each made when it is first asked for."""

    def __init__(self, root):
        super().__init__()
        self.root = root

    def __missing__(self, kind):
        if not installed(kind):
            pytest.skip(f"{kind} needs {', '.join(KINDS[kind].libraries)}")
        if KINDS[kind].write:
            KINDS[kind].write(self.root / kind)
        self[kind] = KINDS[kind].open(self.root / kind)
        return self[kind]


@pytest.fixture(scope="module")
def spaces(tmp_path_factory):
    return Opened(tmp_path_factory.mktemp("spaces"))


@pytest.fixture(scope="module")
def alone(spaces):
    """The rows of the items of each case, embedded one at a time."""
    known = {}

    def rows_of(kind, modality):
        if (kind, modality) not in known:
            rows = [spaces[kind].encode([item], modality) for item in items(modality)]
            known[kind, modality] = np.concatenate(rows)
        return known[kind, modality]

    return rows_of


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("items")
    for modality in UNREADABLE:
        (root / modality).mkdir()
    return {modality: write_items(modality, root / modality) for modality in UNREADABLE}


@pytest.fixture(scope="module")
def elsewhere(spaces, files, tmp_path_factory):
    """What another process, with other threads and another hash seed, finds in the same files, backwards."""
    script = (
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "root, kinds, files = pickle.load(sys.stdin.buffer)\n"
        "import torch\n"
        "from small_spaces import KINDS\n"
        "torch.set_num_threads(2)\n"
        "torch.manual_seed(99)\n"
        "found = {}\n"
        "for kind in kinds:\n"
        "    space = KINDS[kind].open(root / kind)\n"
        "    for m in KINDS[kind].widths:\n"
        "        found[kind, m] = space.fingerprint, space.encode(files[m][::-1], m, batch_size=4)[::-1]\n"
        "Path(sys.argv[1]).write_bytes(pickle.dumps(found))\n"
    )
    kinds = [kind for kind in KINDS if installed(kind)]
    for kind in kinds:
        assert isinstance(spaces[kind], Space)
    out = tmp_path_factory.mktemp("elsewhere") / "found"
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", script, str(out)]
    subprocess.run(command, input=pickle.dumps((spaces.root, kinds, files)), env=environment, check=True)
    return pickle.loads(out.read_bytes())


@pytest.mark.parametrize("kind", KINDS)
class TestSpaces:
    def test_has_a_name_widths_and_a_fingerprint(self, spaces, alone, kind):
        space, made = spaces[kind], KINDS[kind]
        assert isinstance(space, Space)
        assert space.name == made.name
        for modality in made.widths:
            alone(kind, modality)  # before that a function's width is not known
        assert dict(space.widths) == made.widths
        assert isinstance(space.fingerprint, str)
        assert len(space.fingerprint) == (16 if made.device else len("of the user"))

    def test_the_fingerprint_is_the_same_at_every_opening(self, spaces, kind):
        first = spaces[kind].fingerprint
        again = mini.MiniSpace(kind) if kind in mini.MINI_SPACES else KINDS[kind].open(spaces.root / kind)
        assert again.fingerprint == first

    def test_the_fingerprint_changes_with_a_weight(self, spaces, tmp_path, kind, monkeypatch):
        first, made = spaces[kind].fingerprint, KINDS[kind]
        if made.write:
            made.write(tmp_path / kind)
            assert made.open(tmp_path / kind).fingerprint == first
            change_a_weight(tmp_path / kind)
            assert made.open(tmp_path / kind).fingerprint != first
        elif kind in mini.MINI_SPACES:
            state = load(mini._weights(kind))
            next(tensor for tensor in state.values() if tensor.is_floating_point()).view(-1)[0] += 1e-2
            monkeypatch.setattr(mini, "_weights", lambda name: save(state))
            assert mini.MiniSpace(kind).fingerprint != first
        else:
            assert first == "of the user"  # who alone knows the model

    def test_opening_leaves_random_states_alone(self, spaces, kind):
        assert spaces[kind]
        with unmoved_random_states():
            if kind in mini.MINI_SPACES:
                mini.MiniSpace(kind)  # the registry would give the one that is open
            KINDS[kind].open(spaces.root / kind)

    def test_an_unknown_modality_names_the_nearest(self, spaces, kind):
        for modality in KINDS[kind].widths:
            told = rf"unknown modality of {KINDS[kind].name} '{modality}s'\. Did you mean '{modality}'\?"
            with pytest.raises(ConfigError, match=told):
                spaces[kind].encode([], modality + "s")


class unmoved_random_states:  # noqa: N801 - reads as a word
    def __enter__(self):
        self.before = self.now()

    def __exit__(self, *_):
        assert self.now() == self.before

    def now(self):
        return pickle.dumps((torch.get_rng_state().tolist(), np.random.get_state(), random.getstate()))


@pytest.mark.parametrize(("kind", "modality"), CASES)
class TestEncode:
    def test_rows_are_unit_rows_in_the_order_of_the_items(self, spaces, alone, kind, modality):
        rows = spaces[kind].encode(items(modality), modality)
        assert type(rows) is np.ndarray
        assert rows.dtype == np.float32
        assert rows.shape == (6, KINDS[kind].widths[modality])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.ones(6), atol=1e-6)
        np.testing.assert_allclose(rows, alone(kind, modality), atol=1e-5)
        apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)[np.triu_indices(6, 1)]
        assert apart.min() > 1e-4, "items that embed alike prove nothing about order"

    def test_a_single_item_is_a_row(self, spaces, alone, files, kind, modality):
        for item in (files[modality][0], str(files[modality][0])):
            row = spaces[kind].encode(item, modality)
            assert row.shape == (KINDS[kind].widths[modality],)
            np.testing.assert_allclose(row, alone(kind, modality)[0], atol=1e-5)

    def test_no_items_are_no_rows(self, spaces, alone, kind, modality):
        alone(kind, modality)
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
        if KINDS[kind].device:
            rows = spaces[kind].encode(items(modality)[:2], modality, device="cpu")
            np.testing.assert_allclose(rows, alone(kind, modality)[:2], atol=1e-5)
        else:
            with pytest.raises(ConfigError, match="put its model on 'cpu' yourself"):
                spaces[kind].encode(items(modality)[:2], modality, device="cpu")

    @pytest.mark.parametrize("batch_size", [0, -1, 2.0, "2", True, None])
    def test_wrong_batch_sizes(self, spaces, kind, modality, batch_size):
        with pytest.raises(ConfigError, match="batch_size: expected a whole number of at least 1, got"):
            spaces[kind].encode(items(modality), modality, batch_size=batch_size)

    def test_inputs_that_are_no_list(self, spaces, kind, modality):
        for wrong in (None, 5, {1, 2}, (item for item in [])):
            with pytest.raises(ConfigError, match="inputs: expected a list of items or a single one, got"):
                spaces[kind].encode(wrong, modality)

    @pytest.mark.parametrize("batch_size", [2, 32])
    def test_an_item_that_cannot_be_decoded_is_named_by_its_position(self, spaces, kind, modality, batch_size):
        if not KINDS[kind].decodes:
            pytest.skip("the user's function decodes")
        for unreadable in (UNREADABLE[modality], None):
            with pytest.raises(SampleError, match=r"^item 4: \S"):
                spaces[kind].encode([*items(modality)[:4], unreadable], modality, batch_size=batch_size)

    @settings(max_examples=5)
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 9))
    def test_batch_order_and_neighbours_do_not_matter(self, spaces, alone, kind, modality, chosen, batch_size):
        inputs = items(modality)
        rows = spaces[kind].encode([inputs[i] for i in chosen], modality, batch_size=batch_size)
        np.testing.assert_allclose(rows, alone(kind, modality)[chosen], rtol=0, atol=1e-5)

    def test_the_number_of_threads_does_not_matter(self, spaces, alone, kind, modality):
        expected, threads = alone(kind, modality), torch.get_num_threads()
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                rows = spaces[kind].encode(items(modality), modality, batch_size=3)
                np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)
        finally:
            torch.set_num_threads(threads)

    def test_another_process_finds_the_same_in_files(self, spaces, alone, elsewhere, kind, modality):
        here = spaces[kind].fingerprint
        fingerprint, rows = elsewhere[kind, modality]
        assert fingerprint == here
        np.testing.assert_allclose(rows, alone(kind, modality), rtol=0, atol=1e-5)

    def test_random_states_do_not_matter_and_stay(self, spaces, alone, kind, modality):
        expected = alone(kind, modality)
        before = torch.get_rng_state(), np.random.get_state()
        torch.manual_seed(5)
        np.random.seed(5)
        with unmoved_random_states():
            rows = spaces[kind].encode(items(modality), modality, batch_size=2)
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)

    def test_items_stay_as_they_were(self, spaces, kind, modality):
        inputs = items(modality)
        spaces[kind].encode(inputs, modality)
        for item, fresh in zip(inputs, items(modality), strict=True):
            item, fresh = (x["array"] if isinstance(x, dict) else x for x in (item, fresh))
            np.testing.assert_array_equal(np.asarray(item), np.asarray(fresh))
