"""The engine on Ray: the same memory as that of one process, whatever happens to its workers."""

import os
import pickle
import signal
import sys
import threading
import time

import pytest
from crashing import tree_of
from stored import unit
from test_embed import Stop, stop_at

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

    monkeypatch.setattr("cmcr.memories.embed.map_shards", mapped)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"number {number}\n" for number in range(10)) + "\n\0x\n")
    return path


def space_of_own(on_encode=lambda inputs: None):
    """A space that travels as an object, as one from a notebook would; `on_encode` sees the items first."""

    class Own:
        name = "own"
        widths = {"text": 128}  # noqa: RUF012
        fingerprint = "own-1"

        def encode(self, inputs, modality, *args, **options):
            import cmcr

            on_encode(inputs)
            return cmcr.space("mini-clip").encode(inputs, modality, *args, **options)

    return Own()


def test_same_bytes_as_in_one_process_of_which_a_worker_is_lost(texts, tmp_path):
    died = tmp_path / "died"

    def die_once(inputs):
        if "number 6" in inputs and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    events = []
    embed(space_of_own(), "text", texts, tmp_path / "here", **OPTIONS)
    with pytest.raises(Stop):
        embed(space_of_own(), "text", texts, tmp_path / "there", on_event=stop_at("shard"), **OPTIONS)
    memory = embed(
        space_of_own(die_once), "text", texts, tmp_path / "there", engine="ray", **OPTIONS,
        on_event=lambda event, facts: events.append((event, facts)),
    )  # fmt: skip
    assert died.exists()
    assert tree_of(tmp_path / "there") == tree_of(tmp_path / "here")
    assert [item.id for item in memory.quarantine()] == ["texts.txt:11", "texts.txt:12"]
    assert events[0] == ("started", {"items": 12, "done": 2, "shards": 6})
    assert sum(facts["count"] for event, facts in events if event == "items") == 10
    assert events[-1] == ("finished", {"rows": 10, "quarantined": 2})


@pytest.mark.usefixtures("near")
def test_append_begun_by_workers_is_finished_here(texts, tmp_path):
    for folder in ("here", "there"):
        embed("mini-clip", "text", texts, tmp_path / folder, **OPTIONS)
    texts.write_text(texts.read_text() + "".join(f"number {number}\n" for number in range(20, 26)))
    embed("mini-clip", "text", texts, tmp_path / "here", append=True, **OPTIONS)
    with pytest.raises(Stop):
        embed("mini-clip", "text", texts, tmp_path / "there", append=True, engine="ray", workers=1,
              on_event=stop_at("shard"), **OPTIONS)  # fmt: skip
    embed("mini-clip", "text", texts, tmp_path / "there", append=True, **OPTIONS)
    assert tree_of(tmp_path / "there") == tree_of(tmp_path / "here")


@pytest.mark.usefixtures("near")
def test_too_many_failures_over_all_workers_stop_the_run(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\0a\n\0b\n\0c\n\0d\n")
    with pytest.raises(TooManyFailuresError, match="2 of 2 items failed, more than the 1 allowed"):
        embed("mini-clip", "text", texts, tmp_path / "out", shard_items=1, max_failures=1, engine="ray", workers=1)


def test_semantic_consistency_by_workers(tmp_path):
    queries, memory = (
        cmcr.write_memory(tmp_path / name, unit(30, 8, seed), space="a", modality=modality)
        for name, modality, seed in (("q", "text", 1), ("m", "image", 2))
    )
    for folder, options in (("here", {}), ("there", {"engine": "ray"})):
        write_consistent(queries, memory, tmp_path / folder, temperature=0.1, **options)
    assert tree_of(tmp_path / "there") == tree_of(tmp_path / "here")


def test_errors_of_workers_are_what_they_were():
    def refuse(number):
        raise WriteError(28, "No space left", "out")

    with pytest.raises(WriteError, match=r"No space left \[on ") as caught:
        list(map_shards(None, lambda: refuse, [0], engine="ray"))
    assert (caught.value.errno, caught.value.filename) == (28, "out")

    def burst(number):
        raise MemoryError("no room for 7 rows")

    with pytest.raises(WorkerError, match="MemoryError: no room for 7 rows") as caught:
        list(map_shards(None, lambda: burst, [0], engine="ray"))
    assert "in burst" in caught.value.__notes__[0]


def test_shard_that_kills_its_workers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_map, "_TRIES", 2)
    tried = tmp_path / "tried"

    def die(number):
        with tried.open("ab") as file:
            file.write(b".")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerError, match=r"2 workers were lost .* with shard 7"):
        list(map_shards(None, lambda: die, [7], engine="ray"))
    assert tried.read_bytes() == b".."


def test_stopped_run_stops_its_workers(tmp_path):
    def work(number):
        if number:
            (tmp_path / "begun").touch()
            time.sleep(3)
            (tmp_path / "ended").touch()
        else:
            while not (tmp_path / "begun").exists():
                time.sleep(0.01)

    runs = map_shards(None, lambda: work, [1, 0], engine="ray")
    assert next(runs)[0] == 0
    runs.close()
    time.sleep(3.5)
    assert not (tmp_path / "ended").exists()


@pytest.mark.usefixtures("near")
def test_weights_must_be_the_same_everywhere(texts, tmp_path):
    class Own:
        name, widths = "own", {"text": 2}
        fingerprint = "here"

        def encode(self, *args, **options):
            raise AssertionError

        def __reduce__(self):
            return space_of_own, ()

    with pytest.raises(ResumeError, match="its fingerprint is own-1, that of the run here"):
        embed(Own(), "text", texts, tmp_path / "out", engine="ray")


@pytest.mark.usefixtures("near")
def test_shards_in_any_order_are_those_of_a_run_in_order(texts, tmp_path, monkeypatch):
    embed("mini-clip", "text", texts, tmp_path / "here", **OPTIONS)
    monkeypatch.setattr(
        "cmcr.memories.writer.MemoryWriter.missing", [1, 3, 4, 0, 5, 2]
    )  # the walk goes back for 0 and 2
    with pytest.raises(ConfigError, match="6 of 6 shards are missing"):
        embed("mini-clip", "text", texts, tmp_path / "there", engine="ray", **OPTIONS)
    monkeypatch.undo()
    embed("mini-clip", "text", texts, tmp_path / "there", **OPTIONS)
    assert tree_of(tmp_path / "there") == tree_of(tmp_path / "here")


def test_what_cannot_travel_is_refused(texts, tmp_path):
    space = space_of_own()
    space.lock = threading.Lock()
    with pytest.raises(ConfigError, match="cannot be sent to other processes"):
        embed(space, "text", texts, tmp_path / "out", engine="ray")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 4}, r"4 workers with 1 CPU\(s\) each: expected 4 CPUs in the Ray cluster, got 2"),
        ({"gpus_per_worker": 16}, "expected 32 GPUs"),
        ({"workers": 0}, "workers: expected a whole number of at least 1, got 0"),
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
    with pytest.raises(MissingDependencyError, match=r"pip install 'cmcr\[ray\]'"):
        check_engine("ray", 2, 1, 0)
