"""Projected rows as a memory: those of the connection, resumed, appended to, and refused where they are of something else."""

import json

import numpy as np
import pytest
import torch
from helpers import origin, store, surveyed, unit

import cmcr
from cmcr.cli import main
from cmcr.errors import ConfigError, ResumeError
from cmcr.memories import projection
from cmcr.memories.projection import connection_hash, write_projected
from cmcr.memories.verification import verify
from cmcr.memories.writer import open_writer


@pytest.fixture(scope="module")
def connections():
    def texts(seed):
        return {"text": unit(60, 5, seed)}

    spaces = (
        cmcr.Memories("mine", **texts(1), image=unit(50, 5, 2)),
        cmcr.Memories("other", **texts(3), audio=unit(40, 5, 4)),
    )
    return [cmcr.connect(*spaces, method=method) for method in ("cca", "ridge")]


@pytest.fixture
def connection(connections, monkeypatch):
    monkeypatch.setattr(projection, "shard_items_for", lambda width, dtype: 6)
    return connections[0]


@pytest.fixture
def memory(tmp_path):
    store(tmp_path / "memory", unit(20), bad=(3,), modality="image")
    return cmcr.Memory(tmp_path / "memory")


@pytest.mark.parametrize("own", [False, True])
def test_rows_are_those_of_the_connection(connection, memory, tmp_path, own):
    shares = []
    made = write_projected(connection, memory, tmp_path / "out", own=own, on_progress=shares.append)
    expected = (connection.project if own else connection.common)(memory[:], "mine")
    np.testing.assert_allclose(made[:], expected, atol=1e-6)
    assert (made.ids, made.modality, made.dtype) == (memory.ids, "image", "float32")
    assert made.fingerprint == connection_hash(connection)[:16]  # nobody takes them for rows of the space
    assert shares == [1 / 4, 2 / 4, 3 / 4, 1]
    assert verify(tmp_path / "out")["rows"] == 20


def test_projected_rows_know_the_files_of_their_items(connection, tmp_path):
    (tmp_path / "a.png").touch()
    with open_writer(
        tmp_path / "memory", origin(modality="image"), surveyed(["a.png"]), shard_items=4, root=tmp_path
    ) as writer:
        writer.write(0, torch.from_numpy(unit(1)), [("a.png", "a.png")])
        writer.finish()
    made = write_projected(connection, cmcr.Memory(tmp_path / "memory"), tmp_path / "out")
    assert list(made.paths()) == [tmp_path / "a.png"]


def test_a_run_is_resumed_and_only_new_rows_are_projected(connection, memory, tmp_path, monkeypatch):
    real, projected = type(connection).common, []

    def stopping(self, rows, space, **options):
        projected.append(len(rows))
        if len(projected) == 4:
            raise KeyboardInterrupt
        return real(self, rows, space, **options)

    monkeypatch.setattr(type(connection), "common", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_projected(connection, memory, tmp_path / "out")
    before = write_projected(connection, memory, tmp_path / "out")
    assert projected == [1, 6, 6, 6, 1, 6, 2]  # the first row says how wide they are
    write_projected(connection, memory, tmp_path / "out")
    store(tmp_path / "memory", unit(7, seed=5), append=True, ids=[f"more-{n}" for n in range(7)], modality="image")
    grown = cmcr.Memory(tmp_path / "memory")
    after = write_projected(connection, grown, tmp_path / "out")
    assert projected[7:] == [1, 1, 6, 1]
    np.testing.assert_allclose(after[:], real(connection, grown[:], "mine"), atol=1e-6)
    assert after.ids == grown.ids
    first = cmcr.Memory(tmp_path / "out", shards=[4])  # as it was, while and after it grows
    assert (len(first), first.digest()) == (20, before.digest()) == (20, after.digest(20))


def test_what_was_made_of_something_else_is_left_alone(connection, connections, memory, tmp_path):
    made = write_projected(connection, memory, tmp_path / "out")
    with pytest.raises(ResumeError, match="connection was"):
        write_projected(connections[1], memory, tmp_path / "out")
    store(tmp_path / "others", unit(20, seed=9), modality="image")
    with pytest.raises(ResumeError, match="memory was"):
        write_projected(connection, cmcr.Memory(tmp_path / "others"), tmp_path / "out")
    store(tmp_path / "strange", unit(20), space="strange", modality="image")
    with pytest.raises(ConfigError, match="strange"):
        write_projected(connection, cmcr.Memory(tmp_path / "strange"), tmp_path / "strange-out")
    assert not (tmp_path / "strange-out").exists()
    assert cmcr.Memory(tmp_path / "out").digest() == made.digest()


def test_a_connection_takes_a_memory_as_it_takes_its_rows(connection, memory):
    for carry in (connection.project, connection.common):
        np.testing.assert_array_equal(carry(memory, memory.space), carry(memory[:], memory.space))
    with pytest.raises(ConfigError, match="of space 'mine'"):
        connection.project(memory, "other")


def test_the_verb_writes_what_the_connection_gives(connection, memory, tmp_path, capsys):
    connection.save(tmp_path / "saved")
    call = ["project", str(tmp_path / "saved"), str(memory.folders[0]), "--out"]
    assert main([*call, str(tmp_path / "whole"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": str(tmp_path / "whole"), "rows": len(memory), "width": connection.width,
    }  # fmt: skip
    assert main([*call, str(tmp_path / "common"), "--common"]) == 0
    for name, carry in (("whole", connection.project), ("common", connection.common)):
        written = cmcr.Memory(tmp_path / name)
        assert written.ids == memory.ids
        np.testing.assert_allclose(written[:], carry(memory, memory.space), atol=1e-6)
    assert main([*call[:1], str(tmp_path / "saved"), str(tmp_path / "saved"), "--out", str(tmp_path / "x")]) == 1
