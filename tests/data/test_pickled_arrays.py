"""Pickled dictionaries: the arrays come out as numpy would give them, and nothing in the file is ever called."""

import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cmcr.data.pickled_arrays import convert_pickled_point_cloud, read_pickled_arrays
from cmcr.data.point_clouds import read_coloured_point_cloud, read_point_cloud
from cmcr.errors import SampleError

DEMO = next(
    (folder for up in Path(__file__).resolve().parents if (folder := up / "shared/data/reference_demo").is_dir()), None
)
CLOUD = np.random.default_rng(0).random((20, 3))
NUMBERS = st.one_of(
    hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(sizes=(16, 32, 64)), hnp.boolean_dtypes()
)


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@given(hnp.arrays(NUMBERS, hnp.array_shapes(max_dims=3, max_side=4)), st.sampled_from([2, 3, 4, 5]), st.booleans())
def test_arrays_come_as_numpy_wrote_them(tmp_path_factory, array, protocol, fortran):
    path = tmp_path_factory.mktemp("pickles") / "a.pkl"
    array = np.asfortranarray(array) if fortran else array
    others = {"text": ["ümlaut", 1, 2.5, None, True, b"x", 1 << 70], "deep": [{"a": (1, 2, 3, 4)}], 3: array}
    path.write_bytes(pickle.dumps({"a": array, **others, "again": array}, protocol=protocol))
    found = read_pickled_arrays(path)
    assert set(found) == {"a", "again"}
    for read in found.values():
        assert read.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(read, array)


def test_files_of_numpy(tmp_path):
    np.save(tmp_path / "a.npy", {"xyz": CLOUD, "rgb": CLOUD.astype(np.float16), "id": "abc"}, allow_pickle=True)
    found = read_pickled_arrays(tmp_path / "a.npy")
    np.testing.assert_array_equal(found["xyz"], CLOUD)
    written = convert_pickled_point_cloud(tmp_path / "a.npy", tmp_path / "b.npy")
    cloud = read_coloured_point_cloud(written)
    np.testing.assert_array_equal(cloud.points, CLOUD.astype(np.float32))
    np.testing.assert_array_equal(cloud.colours, CLOUD.astype(np.float16).astype(np.float32))
    for target in ("b.npy", "c.txt"):
        with pytest.raises(SampleError, match=r"give a new file that ends in \.npy; nothing was written"):
            convert_pickled_point_cloud(tmp_path / "a.npy", tmp_path / target)


@pytest.mark.skipif(DEMO is None, reason="the published samples (shared/data/reference_demo) are not here")
@pytest.mark.parametrize("item", ["BBQ", "toilet", "train"])
def test_published_samples_equal_their_plain_twins(tmp_path, item):
    with pytest.raises(SampleError, match="never opened"):
        read_point_cloud(DEMO / f"{item}.npy")
    twin = np.load(DEMO / f"{item}.xyz.npy")
    np.testing.assert_array_equal(read_point_cloud(read_pickled_arrays(DEMO / f"{item}.npy")), twin)
    written = convert_pickled_point_cloud(DEMO / f"{item}.npy", tmp_path / "plain.npy")
    np.testing.assert_array_equal(read_point_cloud(written), twin)
    assert read_coloured_point_cloud(written).colours.shape == twin.shape


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["whole", "value", "list", "key"])
def test_no_code_runs(tmp_path, protocol, place):
    evil = Evil(tmp_path / "was-here")
    whole = {"whole": evil, "value": {"xyz": CLOUD, "e": evil}, "list": {"e": [evil]}, "key": {evil: 1}}[place]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(whole, protocol=protocol))
    with pytest.raises(SampleError, match="not a plain dictionary of arrays"):
        read_pickled_arrays(tmp_path / "a.pkl")
    assert not (tmp_path / "was-here").exists()


GOOD = pickle.dumps({"xyz": CLOUD}, protocol=3)
NAMES = b"\x80\x02cnumpy\nndarray\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged|does not end|not a plain"),
        (b"words", "damaged|not a plain"),
        (GOOD[:-1], "damaged"),
        (GOOD[:100], "damaged"),
        (pickle.dumps([1, 2]), "expected a pickled dictionary, got list"),
        (pickle.dumps(Path("a")), r"it names 'pathlib\w*\.\w*Posix"),
        (pickle.dumps({"a": np.float64}), "it names 'numpy.float64'"),
        (b"\x80\x02(S'ls'\nios\nsystem\n.", "it uses the opcode INST"),
        (b"\x80\x02cos\nsystem\n(S'ls'\ntR.", "it names 'os.system'"),
        (NAMES + b")R.", "it calls the array class"),
        (NAMES + b")\x81.", "it uses the opcode NEWOBJ"),
        (NAMES + b"(K\x01tb.", "it sets the state of a _Name"),
        (b"\x80\x02Pabc\n.", "it uses the opcode PERSID"),
        (b"\x80\x02\x82\x01.", "it uses the opcode EXT1"),
        (b"\x80\x02]K\x01K\x02s.", "expected a dict, got list"),
        (b"\x80\x02K\x01t.", "a mark is missing"),
        (b"\x80\x02\x86.", "its stack runs empty"),
        (b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.", "keys that are not texts or numbers"),
        (GOOD.replace(b"K\x14K\x03", b"K\x14K\x04"), r"'xyz': damaged: its data does not fill the shape \(20, 4\)"),
        (np.lib.format.magic(1, 0) + b"\x01\x00x", "damaged"),
    ],
)
def test_what_is_no_dictionary_of_arrays(tmp_path, content, message):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(SampleError, match=rf"a\.pkl: .*({message})"):
        read_pickled_arrays(tmp_path / "a.pkl")


@given(st.binary(max_size=60), st.integers(0, len(GOOD)))
def test_damage_never_raises_anything_else(tmp_path_factory, junk, at):
    path = tmp_path_factory.mktemp("pickles") / "a.pkl"
    for content in (junk, GOOD[:at] + junk + GOOD[at + len(junk) :], b"\x80\x02" + junk):
        path.write_bytes(content)
        with contextlib.suppress(SampleError):
            read_pickled_arrays(path)


def test_plain_arrays_are_sent_to_numpy(tmp_path):
    np.save(tmp_path / "a.npy", CLOUD)
    with pytest.raises(SampleError, match=r"an array that numpy\.load reads without unpickling"):
        read_pickled_arrays(tmp_path / "a.npy")
