"""A worker process, without an engine around it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cmcr
from cmcr import errors
from cmcr.data.items import open_items
from cmcr.memories.embed import embed, origin_of
from cmcr.memories.embed_worker import Task, Worker, shard_of_reply
from cmcr.memories.writer import open_writer


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"number {number}\n" for number in range(10)))
    return path


@pytest.fixture
def task(texts, tmp_path):
    """A run of five shards that has begun."""
    space = cmcr.space("mini-clip")
    survey = open_items(texts, "text").survey()
    folder = tmp_path / "memory"
    origin = origin_of(space, "text", "float16")
    with open_writer(folder, origin, survey.count, survey.digest, shard_items=2) as writer:
        yield Task(
            folder=str(folder),
            plan=writer.plan,
            number_of_run=0,
            space="mini-clip",
            space_options={},
            inputs=str(texts),
            modality="text",
            column=None,
            id_column=None,
            append=False,
            batch_size=2,
            device=None,
            threads=torch.get_num_threads(),
            tries=2,
            nonce="n",
        )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_shards_in_any_order_are_those_of_a_run_in_one_process(task, texts, tmp_path):
    worker = Worker(task)
    for number in (1, 3, 4, 0, 2):  # the walk goes on, then begins again
        shard, reason = shard_of_reply(worker({"item": number})["reply"])
        assert (shard.name, shard.first_item, shard.rows, reason) == (f"shard-{number:05d}", 2 * number, 2, "")
    embed("mini-clip", "text", texts, tmp_path / "here", batch_size=2, shard_items=2)
    expected = files(tmp_path / "here")
    del expected["config.json"]
    assert files(Path(task.folder)) == expected


def reply_of(task):
    return shard_of_reply(Worker(task)({"item": 0})["reply"])


def test_a_folder_that_is_not_shared_is_refused(task, tmp_path):
    with pytest.raises(
        errors.ConfigError, match=r"the plan of this run is not there.*that all machines share"
    ) as caught:
        reply_of(replace(task, folder=str(tmp_path / "elsewhere")))
    assert str(caught.value).endswith("]")  # the machine
    assert not (tmp_path / "elsewhere").exists()


def test_another_list_is_refused(task, texts):
    texts.write_text("number 1\nnumber 2\n")
    with pytest.raises(errors.ResumeError, match="the list of items is another one"):
        reply_of(task)


def test_other_versions_are_refused(task, monkeypatch):
    monkeypatch.setattr("cmcr.memories.embed_worker.versions_here", lambda: {**task.plan.run.versions, "torch": "1.0"})
    expected = f"torch {task.plan.run.versions['torch']} where the run began, 1.0 here. Install the same"
    with pytest.raises(errors.ResumeError, match=expected.replace("+", r"\+")):
        reply_of(task)


def test_other_weights_are_refused(task):
    with pytest.raises(errors.ResumeError, match=r"space mini-clap: its fingerprint is .* must be the same"):
        reply_of(replace(task, space="mini-clap"))


def test_an_error_of_the_system_keeps_its_class_and_number(task, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cmcr.memories.writer.write_shard", full)
    with pytest.raises(errors.WriteError, match="finished shards are safe: free space") as caught:
        reply_of(task)
    assert (caught.value.errno, caught.value.filename) == (28, task.folder)


def test_a_shard_whose_workers_are_lost_is_given_up(task):
    mark = Path(task.folder) / ".run" / ".0.n.part"
    mark.write_bytes(b".")  # one was lost
    reply_of(task)
    assert not mark.exists()
    mark.write_bytes(b"..")
    with pytest.raises(
        errors.WorkerError, match=r"2 workers were lost .* the items from 0 on\. Finished shards are safe"
    ):
        reply_of(task)
