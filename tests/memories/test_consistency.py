"""Semantically consistent rows as a memory: those of the equation, resumed and verified like any other."""

import numpy as np
import pytest
from helpers import unit

import cmcr
import reference.enhancement as twin
from cmcr.errors import DimensionError, ResumeError
from cmcr.memories import consistency
from cmcr.memories.consistency import write_consistent
from cmcr.memories.memories import MatchedRows
from cmcr.memories.verification import verify


def on_disk(folder, modality, count, seed, width=6):
    ids = [f"{modality}{n}" for n in range(count)]
    return cmcr.write_memory(folder, unit(count, width, seed), ids, space="a", modality=modality)


@pytest.fixture
def queries(tmp_path):
    return on_disk(tmp_path / "queries", "text", 20, 1)


@pytest.fixture
def memory(tmp_path):
    return on_disk(tmp_path / "memory", "image", 40, 2)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(consistency, "shard_items_for", lambda width, dtype: 6)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("normalize", [False, True])
def test_rows_are_those_of_the_equation(queries, memory, tmp_path, normalize):
    shares, some = [], MatchedRows(queries, np.arange(19, 2, -1))
    options = {"normalize": normalize, "on_progress": shares.append}
    made = write_consistent(some, memory, tmp_path / "out", temperature=0.2, **options)
    rows = twin.normalize(some[:].astype(np.float64))  # float16 has changed their length a little
    expected = twin.semantic_consistency(rows, memory[:].astype(np.float64), 0.2)
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(made[:], expected, atol=1e-6)
    assert (made.space, made.modality, made.dtype, made.ids) == ("a", "image", "float32", some.ids)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert verify(tmp_path / "out")["rows"] == 17


@pytest.mark.usefixtures("small_shards")
def test_a_run_is_resumed_under_the_same_settings_only(queries, memory, tmp_path, monkeypatch):
    real, calls = consistency.semantic_consistency, []

    def stopping(rows, *arguments, **options):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(rows, *arguments, **options)

    monkeypatch.setattr(consistency, "semantic_consistency", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_consistent(queries, memory, tmp_path / "out", temperature=0.2)
    with pytest.raises(ResumeError, match=r"temperature was 0\.2, now 0\.3"):
        write_consistent(queries, memory, tmp_path / "out", temperature=0.3)
    with pytest.raises(ResumeError, match="memory was"):
        write_consistent(queries, on_disk(tmp_path / "other", "image", 40, 9), tmp_path / "out", temperature=0.2)
    made = write_consistent(queries, memory, tmp_path / "out", temperature=0.2)
    assert calls == [6, 6, 6, 6, 2]
    whole = write_consistent(queries, memory, tmp_path / "whole", temperature=0.2)
    assert made.digest() == whole.digest()
    write_consistent(queries, memory, tmp_path / "whole", temperature=0.2)
    assert len(calls) == 9  # nothing is computed again


def test_other_widths_and_devices_are_refused(queries, memory, tmp_path):
    with pytest.raises(DimensionError, match="6 wide, the memory 4"):
        write_consistent(queries, on_disk(tmp_path / "four", "image", 9, 3, width=4), tmp_path / "out", temperature=0.1)
    with pytest.raises(cmcr.CmcrError, match="unknown device"):
        write_consistent(queries, memory, tmp_path / "out", temperature=0.1, device="tpu")
    assert not (tmp_path / "out").exists()
