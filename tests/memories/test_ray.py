"""The engine on Ray: the same memory as that of one process, whatever happens to its workers."""

import os
import pickle
import signal
import sys
import threading
import time

import psutil
import pytest
from helpers import Stop, stop_at, tree_of, unit, write_lines

import cmcr
from cmcr.engine import shards_map
from cmcr.engine.shards_map import check_engine, map_shards
from cmcr.errors import ConfigError, MissingDependencyError, ResumeError, TooManyFailuresError, WorkerError, WriteError
from cmcr.memories.consistency import write_consistent
from cmcr.memories.embed import embed

OPTIONS = {"batch_size": 2, "shard_items": 2}


@pytest.fixture(scope="module", autouse=True)
def ray():
    """One Ray for all tests, as a run starts it on a machine of two cores."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 2)
        patch.delenv("RAY_ADDRESS", raising=False)
        on_terminate = signal.getsignal(signal.SIGTERM)
        with shards_map._connected(2):
            assert signal.getsignal(signal.SIGTERM) is on_terminate
            yield ray
    assert not ray.is_initialized()


@pytest.fixture
def near(ray, monkeypatch):
    """One worker in this process, which went through a pickle: starting one takes seconds."""

    def mapped(here, open_worker, numbers, **options):
        worker = pickle.loads(ray.cloudpickle.dumps(open_worker))()
        yield from ((number, worker(number)) for number in numbers)

    for module in ("embed", "consistency"):
        monkeypatch.setattr(f"cmcr.memories.{module}.map_shards", mapped)


@pytest.fixture
def texts(tmp_path):
    return write_lines(tmp_path / "texts.txt", [f"number {number}" for number in range(10)] + ["", "\0x"])


def custom_space(on_encode=lambda inputs: None):
    """A space that travels as an object, as one from a notebook would; `on_encode` sees the items first."""

    class Custom:
        name = "own"
        widths = {"text": 128}  # noqa: RUF012
        fingerprint, temperature = "own-1", None

        def encode(self, inputs, modality, *args, **options):
            import cmcr

            on_encode(inputs)
            return cmcr.space("mini-clip").encode(inputs, modality, *args, **options)

    return Custom()


def test_the_same_bytes_although_a_worker_is_lost(texts, tmp_path):
    died = tmp_path / "died"

    def die_once(inputs):
        if "number 6" in inputs and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    events, there = [], tmp_path / "there"
    embed(custom_space(), "text", texts, tmp_path / "here", **OPTIONS)
    with pytest.raises(Stop):
        embed(custom_space(), "text", texts, there, on_event=stop_at("shard"), **OPTIONS)
    on_ray = {"engine": "ray", "on_event": lambda *event: events.append(event)}
    memory = embed(custom_space(die_once), "text", texts, there, **on_ray, **OPTIONS)
    assert died.exists()
    assert tree_of(there) == tree_of(tmp_path / "here")
    assert [item.id for item in memory.quarantine()] == ["texts.txt:11", "texts.txt:12"]
    assert events[0] == ("started", {"items": 12, "done": 2, "shards": 6})
    assert sum(facts["count"] for event, facts in events if event == "items") == 10
    assert events[-1] == ("finished", {"rows": 10, "quarantined": 2})


def test_an_error_of_a_worker_comes_back_as_it_was():
    def refuse(number):
        raise WriteError(28, "No space left", "out")

    with pytest.raises(WriteError, match=r"No space left \[on ") as caught:
        list(map_shards(None, lambda: refuse, [0], engine="ray"))
    assert (caught.value.errno, caught.value.filename) == (28, "out")


def test_an_error_that_nobody_foresaw_is_named_and_the_other_workers_are_stopped(tmp_path):
    pid = tmp_path / "pid"

    def work(number):
        if number:
            pid.with_suffix(".part").write_text(str(os.getpid()))
            pid.with_suffix(".part").rename(pid)
            time.sleep(600)
        while not pid.exists():
            time.sleep(0.01)
        raise ArithmeticError("7 rows")

    with pytest.raises(WorkerError, match="ArithmeticError: 7 rows") as caught:
        list(map_shards(None, lambda: work, [1, 0], engine="ray"))
    assert "in work" in caught.value.__notes__[0]
    due = time.monotonic() + 60
    while psutil.pid_exists(int(pid.read_text())) and time.monotonic() < due:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(pid.read_text()))


def test_a_shard_that_kills_its_workers_is_given_up(monkeypatch):
    monkeypatch.setattr(shards_map, "_TRIES", 1)
    with pytest.raises(WorkerError, match="with shard 7"):
        list(map_shards(None, lambda: lambda number: os.kill(os.getpid(), signal.SIGKILL), [7], engine="ray"))


@pytest.mark.usefixtures("near")
def test_an_append_begun_by_workers_is_finished_here(texts, tmp_path):
    here, there, append = tmp_path / "here", tmp_path / "there", {**OPTIONS, "append": True}
    for folder in (here, there):
        embed("mini-clip", "text", texts, folder, **OPTIONS)
    texts.write_text(texts.read_text() + "".join(f"number {number}\n" for number in range(20, 26)))
    embed("mini-clip", "text", texts, here, **append)
    with pytest.raises(Stop):
        embed("mini-clip", "text", texts, there, engine="ray", on_event=stop_at("shard"), **append)
    embed("mini-clip", "text", texts, there, **append)
    assert tree_of(there) == tree_of(here)


@pytest.mark.usefixtures("near")
def test_shards_may_come_in_any_order(texts, tmp_path, monkeypatch):
    embed("mini-clip", "text", texts, tmp_path / "here", **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr("cmcr.memories.writer.MemoryWriter.missing", [1, 3, 4, 0, 5, 2])  # the walk goes back for 0 and 2
        with pytest.raises(ConfigError, match="6 of 6 shards are missing"):
            embed("mini-clip", "text", texts, tmp_path / "there", engine="ray", **OPTIONS)
    embed("mini-clip", "text", texts, tmp_path / "there", **OPTIONS)
    assert tree_of(tmp_path / "there") == tree_of(tmp_path / "here")


@pytest.mark.usefixtures("near")
def test_failures_of_all_workers_count_together(tmp_path):
    texts = write_lines(tmp_path / "texts.txt", ["", "", "", ""])
    with pytest.raises(TooManyFailuresError, match="2 of 2 items failed"):
        embed("mini-clip", "text", texts, tmp_path / "out", shard_items=1, max_failures=1, engine="ray")


@pytest.mark.usefixtures("near")
def test_semantic_consistency_by_workers(tmp_path):
    queries, memory = (
        cmcr.write_memory(tmp_path / modality, unit(30, 8, seed), space="a", modality=modality)
        for modality, seed in (("text", 1), ("image", 2))
    )
    for engine in ("here", "ray"):
        write_consistent(queries, memory, tmp_path / engine, temperature=0.1, engine=engine)
    assert tree_of(tmp_path / "ray") == tree_of(tmp_path / "here")


@pytest.mark.usefixtures("near")
def test_weights_must_be_the_same_everywhere(texts, tmp_path):
    class Custom:
        name, widths, fingerprint, temperature = "own", {"text": 2}, "here", None

        def encode(self, *args, **options):
            raise AssertionError

        def __reduce__(self):
            return custom_space, ()

    with pytest.raises(ResumeError, match="its fingerprint is own-1, that of the run here"):
        embed(Custom(), "text", texts, tmp_path / "out", engine="ray")


def test_what_cannot_travel_is_refused(texts, tmp_path):
    space = custom_space()
    space.lock = threading.Lock()
    with pytest.raises(ConfigError, match="cannot be sent"):
        embed(space, "text", texts, tmp_path / "out", engine="ray")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 4}, "expected 4 CPUs in the Ray cluster, got 2"),
        ({"gpus_per_worker": 16}, "expected 32 GPUs"),
        ({"workers": 0}, "workers"),
        ({"cpus_per_worker": 1.5}, "cpus_per_worker"),
        ({"gpus_per_worker": -1}, "gpus_per_worker"),
        ({"engine": "rai"}, "Did you mean 'ray'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        list(map_shards(None, lambda: lambda number: number, range(4), **{"engine": "ray", **settings}))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"cmcr\[ray\]"):
        check_engine("ray", 2, 1, 0)
