"""Embed the shards of a run on Ray Data: by several processes, on one machine or on many.

Ray Data places the workers, hands them shards and starts lost ones again; the run itself, its lock, plan and manifest stay
with the process that asked for it. See docs/cluster.md.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import uuid
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmcr.arrays import is_number
from cmcr.errors import ConfigError, WorkerError, missing_dependency
from cmcr.memories.embed_engine import Job
from cmcr.memories.embed_failures import FailureLimit
from cmcr.memories.embed_shards import OnItems
from cmcr.memories.embed_worker import Task, Worker, shard_of_reply
from cmcr.memories.layout import Shard
from cmcr.memories.writer import MemoryWriter

_TRIES = 4
"""Processes that may begin a shard. Ray Data starts lost ones again without end; a shard that kills them all must stop it."""


@dataclass(frozen=True)
class RayEngine:
    """Embeds with workers of Ray Data (a `cmcr.memories.embed_engine.Engine`).

    Joins the cluster at `address` or RAY_ADDRESS, uses the Ray that is running in this process already, or else starts one
    on this machine for the time of the run. Failures are counted shard by shard, so a run with too many of them stops a
    little later than in one process.

    Args:
        workers: processes that embed.
        cpus_per_worker: cores for each, and threads with which torch computes in it.
        gpus_per_worker: for each; a fraction shares one.
        address: of a running cluster, such as "auto" or "10.0.0.1:6379"; None takes RAY_ADDRESS if it is set.

    Raises:
        ConfigError: a setting out of range.
        MissingDependencyError: Ray Data is not installed.
    """

    workers: int = 2
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "cpus_per_worker"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: expected a whole number of at least 1, got {value!r}.")
        if not is_number(self.gpus_per_worker) or not self.gpus_per_worker >= 0:
            raise ConfigError(f"gpus_per_worker: expected a number of at least 0, got {self.gpus_per_worker!r}.")
        _ray()

    def __call__(
        self, job: Job, writer: MemoryWriter, limit: FailureLimit, on_items: OnItems
    ) -> Generator[Shard, None, None]:
        """Embed and write the missing shards, in any order. See `cmcr.memories.embed_engine.Engine`.

        Raises:
            ConfigError: the cluster is too small or not there, or the space or the list cannot be sent to it.
            WorkerError: a worker was lost again and again, or failed in a way that is not the user's doing.
        """
        numbers = writer.missing
        workers = min(self.workers, len(numbers))
        if not numbers:
            return
        with _quiet(), self._connected(workers):
            self._check_room(workers)
            for reply in self._replies(_task(job, writer, self), numbers, workers):
                shard, reason = shard_of_reply(reply)
                # From the reply, not from the disk: a network file system may be slow to show what others have written.
                writer.shards[shard.first_item // writer.plan.run.shard_items] = shard
                limit.count(shard.items, shard.quarantined, reason)
                on_items(shard.items)
                yield shard

    def _replies(self, task: Task, numbers: list[int], workers: int) -> Iterator[str]:
        """Have the shards embedded, and give the replies as they come."""
        ray = _ray()
        _check_sendable(ray, task)
        # A block a shard, and one shard at a time a worker, so that all workers end at about the same time.
        shards = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map(
            Worker,
            fn_constructor_args=(task,),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=self.cpus_per_worker,
            num_gpus=self.gpus_per_worker,
        )
        try:
            # Nothing is fetched ahead: a reply would be held back until the next one is there.
            for batch in shards.iter_batches(batch_size=None, prefetch_batches=0):
                yield from (str(reply) for reply in batch["reply"])
        except ray.exceptions.RayError as error:
            said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
            raise WorkerError(
                f"Ray lost the workers: {type(error).__name__}: {said}. Finished shards are safe: see Ray's logs, then run it "
                "again."
            ) from error

    @contextmanager
    def _connected(self, workers: int) -> Iterator[None]:
        """Join or start Ray; leave or stop it at the end, unless it was there before."""
        ray = _ray()
        if ray.is_initialized():
            yield
            return
        address = self.address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if not address:
            # Ray Data needs cores beside those of the workers, or waits for ever. They need not exist.
            cpus = max(os.cpu_count() or 1, 2 * workers * self.cpus_per_worker)
            options |= {"num_cpus": cpus, "include_dashboard": False}
        try:
            with _own_signals():
                ray.init(address or "local", **options)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"there is no Ray cluster at {address!r} that can be joined ({error}). Start one with: ray start --head"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _check_room(self, workers: int) -> None:
        """Refuse what Ray would wait for without end."""
        there = _ray().cluster_resources()
        cpus, gpus = there.get("CPU", 0), there.get("GPU", 0)
        if cpus <= workers * self.cpus_per_worker:
            raise ConfigError(
                f"{workers} workers with {self.cpus_per_worker} CPU(s) each: expected more than "
                f"{workers * self.cpus_per_worker} CPUs in the Ray cluster (one must stay free for Ray Data itself), got "
                f"{cpus:g}. Take fewer workers, or add machines."
            )
        if gpus < workers * self.gpus_per_worker:
            raise ConfigError(
                f"{workers} workers with {self.gpus_per_worker:g} GPU(s) each: expected "
                f"{workers * self.gpus_per_worker:g} GPUs in the Ray cluster, got {gpus:g}. Take fewer workers, a smaller "
                "share, or add machines."
            )


def _ray() -> Any:
    """Import Ray Data, which is told to send no usage statistics.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.data
            import ray.exceptions
    except ImportError as error:
        raise missing_dependency("ray[data]", extra="ray", purpose="embedding with several workers") from error
    return ray


def _task(job: Job, writer: MemoryWriter, engine: RayEngine) -> Task:
    inputs = job.given_inputs
    return Task(
        folder=os.path.abspath(writer.folder),  # noqa: PTH100 - must not follow links, which may differ elsewhere
        plan=writer.plan,
        number_of_run=len(writer.before.runs) if writer.before else 0,
        space=job.given_space,
        space_options=job.space_options,
        inputs=os.path.abspath(inputs) if isinstance(inputs, str | Path) else inputs,  # noqa: PTH100
        modality=job.modality,
        column=job.column,
        id_column=job.id_column,
        append=job.append,
        batch_size=job.batch_size,
        device="cuda" if job.device is None and engine.gpus_per_worker else job.device,
        threads=engine.cpus_per_worker,
        tries=_TRIES,
        nonce=uuid.uuid4().hex,
    )


def _check_sendable(ray: Any, task: Task) -> None:
    """Make sure that a space or a list that was given as an object can travel to other processes."""
    for name, given, instead in (
        ("space", task.space, "its name, for which see cmcr.register_space and entry points"),
        ("list of items", task.inputs, "a path"),
    ):
        if isinstance(given, str):
            continue
        try:
            ray.cloudpickle.dumps(given)
        except (TypeError, AttributeError, NotImplementedError, pickle.PicklingError) as error:
            raise ConfigError(
                f"the {name} cannot be sent to other processes ({error}). Give {instead} instead."
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray from drawing bars and telling what it does; its warnings are about its own code."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray\.")
        context = _ray().data.DataContext.get_current()
        bars, context.enable_progress_bars = context.enable_progress_bars, False
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            context.enable_progress_bars = bars
            logger.setLevel(level)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this program does on SIGTERM, which Ray would take over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
