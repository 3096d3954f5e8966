"""The engine of Ray Data: the same memory as that of one process, whatever happens to its workers."""

import os
import re
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmcr.errors import ConfigError, MissingDependencyError, TooManyFailuresError, WorkerError
from cmcr.memories.embed import embed
from cmcr.memories.embed_ray import RayEngine
from cmcr.memories.embed_worker import Worker


@pytest.fixture(scope="module")
def engine():
    """Two workers on the Ray that the engine starts on a machine of two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 2)
        two = RayEngine(workers=2)
        on_terminate = signal.getsignal(signal.SIGTERM)
        with two._connected(2):
            assert signal.getsignal(signal.SIGTERM) is on_terminate
            yield two
    import ray

    assert not ray.is_initialized()


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"number {number}\n" for number in range(12)))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stop_after(shards: int):
    """Do what Ctrl-C does once some shards are there."""
    seen = []

    def tell(event, facts):
        if event == "shard":
            seen.append(facts)
            if len(seen) == shards:
                raise KeyboardInterrupt

    return tell


def space_of_own(on_encode):
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


def test_the_same_bytes_as_in_one_process(engine, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(11):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(pictures / f"{number:02d}.png")
    for number in (3, 7):
        (pictures / f"{number:02d}.png").write_bytes(b"no picture")
    events = []
    options = {"batch_size": 2, "shard_items": 3, "max_failures": 2}
    embed("mini-clip", "image", pictures, tmp_path / "here", **options)
    memory = embed(
        "mini-clip",
        "image",
        pictures,
        tmp_path / "there",
        engine=engine,
        on_event=lambda event, facts: events.append((event, facts)),
        **options,
    )
    assert len(memory) == 9
    assert [item.id for item in memory.quarantine()] == ["03.png", "07.png"]
    assert tree(tmp_path / "there") == tree(tmp_path / "here")
    assert events[0] == ("started", {"items": 11, "done": 0, "shards": 4})
    assert sum(facts["count"] for event, facts in events if event == "items") == 11
    assert sorted(facts["shard"] for event, facts in events if event == "shard") == [f"shard-0000{n}" for n in range(4)]
    assert events[-1] == ("finished", {"rows": 9, "quarantined": 2})


def test_a_run_begun_in_one_process_is_finished_by_workers_of_which_one_is_lost(engine, texts, tmp_path):
    died = tmp_path / "died"

    def die_once(inputs):
        if "number 6" in inputs and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    options = {"batch_size": 2, "shard_items": 2}
    here, there = tmp_path / "here", tmp_path / "there"
    harmless = space_of_own(lambda inputs: None)
    embed(harmless, "text", texts, here, **options)
    with pytest.raises(KeyboardInterrupt):
        embed(harmless, "text", texts, there, on_event=stop_after(2), **options)
    embed(space_of_own(die_once), "text", texts, there, engine=engine, **options)
    assert died.exists()
    assert tree(there) == tree(here)


@pytest.fixture
def near(engine, monkeypatch):
    """The engine with one worker in this process, where what lies between it and the driver is no matter."""

    def replies(self, task, numbers, workers):
        worker = Worker(task)
        return (worker({"item": number})["reply"] for number in numbers)

    monkeypatch.setattr(RayEngine, "_replies", replies)
    return engine


def test_what_workers_have_appended_is_gone_on_with_in_one_process(near, texts, tmp_path):
    options = {"batch_size": 2, "shard_items": 2}
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        embed("mini-clip", "text", texts, folder, **options)
    texts.write_text(texts.read_text() + "".join(f"number {number}\n" for number in range(20, 28)))
    embed("mini-clip", "text", texts, here, append=True, **options)
    with pytest.raises(KeyboardInterrupt):
        embed("mini-clip", "text", texts, there, append=True, engine=near, on_event=stop_after(1), **options)
    assert [path.name for path in sorted((there / ".run").glob("shard-*.json"))] == ["shard-00006.json"]
    embed("mini-clip", "text", texts, there, append=True, **options)
    assert tree(there) == tree(here)


def test_too_many_failures_over_all_workers_stop_the_run(near, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        (pictures / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(TooManyFailuresError, match=r"2 of 2 items failed, more than the 1 allowed.*What was finished"):
        embed("mini-clip", "image", pictures, tmp_path / "out", shard_items=1, max_failures=1, engine=near)
    assert len(list((tmp_path / "out").glob("*.quarantine.jsonl"))) == 2


def test_errors_of_workers_are_what_they_were(near, texts, tmp_path):
    def refuse(inputs):
        raise MissingDependencyError("soundfile is not installed.")

    with pytest.raises(MissingDependencyError, match=r"^soundfile is not installed\. \[on .*\]$"):
        embed(space_of_own(refuse), "text", texts, tmp_path / "out", engine=near)


def test_what_nobody_foresaw_is_said_in_one_sentence(near, texts, tmp_path):
    def burst(inputs):
        raise MemoryError("no room for 7 rows")

    expected = r"^a worker failed: MemoryError: no room for 7 rows\. Finished shards are safe: .* \[on .*\]"
    with pytest.raises(WorkerError, match=expected) as caught:
        embed(space_of_own(burst), "text", texts, tmp_path / "out", engine=near)
    assert "in burst" in caught.value.__notes__[0]


def test_when_ray_gives_up_the_finished_shards_are_spoken_of(engine, texts, tmp_path, monkeypatch):
    import ray

    def lost(*args, **kwargs):
        raise ray.exceptions.RayActorError(error_msg="the node is gone.\nMore.")

    monkeypatch.setattr(ray.data.Dataset, "iter_batches", lost)
    with pytest.raises(
        WorkerError, match=r"^Ray lost the workers: RayActorError: .*the node is gone\. Finished shards are safe"
    ):
        embed("mini-clip", "text", texts, tmp_path / "out", engine=engine)


def test_a_space_that_cannot_travel_is_refused(engine, texts, tmp_path):
    space = space_of_own(lambda inputs: None)
    space.lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"the space cannot be sent to other processes .*lock.*\. Give its name"):
        embed(space, "text", texts, tmp_path / "out", engine=engine)


def test_more_workers_than_the_cluster_has_room_for_are_refused(engine, texts, tmp_path):
    with pytest.raises(ConfigError, match=r"4 workers with 1 CPU.*expected more than 4 CPUs .* got 4\. Take fewer"):
        embed("mini-clip", "text", texts, tmp_path / "a", shard_items=2, engine=RayEngine(workers=4))
    with pytest.raises(ConfigError, match=r"2 workers with 16 GPU\(s\) each: expected 32 GPUs"):
        embed("mini-clip", "text", texts, tmp_path / "b", shard_items=2, engine=RayEngine(2, gpus_per_worker=16))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'cmcr[ray]'")):
        RayEngine()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers: expected a whole number of at least 1, got 0"),
        ({"cpus_per_worker": 1.5}, "cpus_per_worker: expected a whole number of at least 1, got 1.5"),
        ({"gpus_per_worker": -1}, "gpus_per_worker: expected a number of at least 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        RayEngine(**settings)
