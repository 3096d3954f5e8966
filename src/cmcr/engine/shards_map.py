"""Map a worker over the numbers of shards: in this process, or by several processes on Ray.

Workers write what they make; the process that maps them holds the locks and hears what they return. See docs/memories.md.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from cmcr.arrays import check_count, is_number
from cmcr.errors import CmcrError, ConfigError, WorkerError, missing_dependency, unknown_name

T = TypeVar("T")
Worker = Callable[[int], T]
"""Does the work of the shard of this number."""

ENGINES = ("here", "ray")
_TRIES = 4
"""Processes that may begin a shard before it is taken for what kills them."""


def map_shards(
    worker: Worker[T],
    open_worker: Callable[[], Worker[T]],
    numbers: Sequence[int],
    *,
    engine: str = "here",
    workers: int = 2,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
) -> Generator[tuple[int, T], None, None]:
    """Do the work of every shard: here one after another, on Ray in any order.

    With `engine="ray"` the cluster at RAY_ADDRESS is joined, or the Ray that runs in this process already is used, or else
    one is started on this machine until the work is done. Each process opens its worker once. A process that is lost is
    replaced, and its shard is done again.

    Args:
        worker: does the work of a shard in this process.
        open_worker: makes such a worker in each process on Ray; it must be picklable.
        numbers: of the shards.
        engine: "here" or "ray".
        workers: processes on Ray.
        cpus_per_worker: cores for each, and threads with which torch computes in it.
        gpus_per_worker: for each; a fraction shares one.

    Yields:
        the number of a shard, and what its worker returned.

    Raises:
        ConfigError: a setting out of range, a cluster that is too small or not there, a worker that cannot be sent to it.
        MissingDependencyError: Ray is not installed.
        WorkerError: the processes of one shard were lost again and again, or a worker failed in a way nobody foresaw.
        CmcrError: whatever a worker raised.
    """
    check_engine(engine, workers, cpus_per_worker, gpus_per_worker)
    if not numbers:
        return
    if engine == "here":
        yield from ((number, worker(number)) for number in numbers)
        return
    count = min(workers, len(numbers))
    with _connected(count * cpus_per_worker):
        _check_size(count, cpus_per_worker, gpus_per_worker)
        yield from _on_ray(open_worker, numbers, count, cpus_per_worker, gpus_per_worker)


def check_engine(engine: str, workers: int = 2, cpus_per_worker: int = 1, gpus_per_worker: float = 0) -> None:
    """Make sure, before any work, that shards can be mapped so.

    Raises:
        ConfigError, MissingDependencyError: as `map_shards`.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    check_count("workers", workers)
    check_count("cpus_per_worker", cpus_per_worker)
    if not is_number(gpus_per_worker) or not gpus_per_worker >= 0:
        raise ConfigError(f"gpus_per_worker: expected a number of at least 0, got {gpus_per_worker!r}.")
    if engine == "ray":
        _ray()


class _Process:
    """What runs in each process: nothing is opened before the first shard, so that errors come back as results do."""

    def __init__(self, open_worker: Callable[[], Worker[Any]], threads: int) -> None:
        self._open_worker, self._threads = open_worker, threads
        self._worker: Worker[Any] | None = None

    def run(self, number: int) -> Any:
        """Do the work of a shard.

        Returns:
            what the worker returns, or the error that it raised.
        """
        try:
            if self._worker is None:
                torch.set_num_threads(self._threads)
                self._worker = self._open_worker()
            return self._worker(number)
        except CmcrError as error:
            first, *rest = error.args  # of which it is built again after its way through a pickle
            here = f" [on {socket.gethostname()}]"
            if isinstance(error, OSError) and rest:  # the system's number comes first
                error.args = (first, f"{rest[0]}{here}", *rest[1:])
            else:
                error.args = (f"{first}{here}", *rest)
            return error


def _on_ray(
    open_worker: Callable[[], Worker[T]], numbers: Sequence[int], workers: int, cpus: int, gpus: float
) -> Iterator[tuple[int, T]]:
    ray = _ray()
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus)(_Process)
    try:
        sent = ray.put(open_worker)  # once, not with every process
    except (TypeError, AttributeError, NotImplementedError, pickle.PicklingError) as error:
        raise ConfigError(
            f"the work cannot be sent to other processes ({error}). Give a space by its name and items by their path."
        ) from error
    waiting, lost, busy = deque(numbers), Counter[int](), dict[Any, tuple[Any, int]]()

    def start(process: Any, number: int) -> None:
        busy[process.run.remote(number)] = process, number

    try:
        for _ in range(workers):
            start(actor.remote(sent, cpus), waiting.popleft())
        while busy:
            (done,), _ = ray.wait(list(busy), num_returns=1)
            process, number = busy.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayActorError as error:
                lost[number] += 1
                if lost[number] == _TRIES:
                    raise WorkerError(
                        f"{_TRIES} workers were lost (killed, out of memory?) with shard {number}. Finished shards are safe: "
                        "look for what kills them, or take smaller batches; then run it again."
                    ) from error
                start(actor.remote(sent, cpus), number)
                continue
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                said = str(cause).strip().partition("\n")[0]
                raised = WorkerError(
                    f"a worker failed: {type(cause).__name__}: {said}. Finished shards are safe: run it again once that is "
                    "fixed; without Ray it runs in one process."
                )
                raised.add_note(str(error))  # with the trace of the worker
                raise raised from error
            if isinstance(result, CmcrError):
                raise result
            if waiting:
                start(process, waiting.popleft())
            yield number, result
    finally:
        for process, _ in busy.values():
            ray.kill(process)


@contextmanager
def _connected(cpus: int) -> Iterator[None]:
    """Join or start Ray; leave or stop it at the end, unless it was there before."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:  # workers may share the cores of this machine
        options |= {"num_cpus": max(os.cpu_count() or 1, cpus), "include_dashboard": False}
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", **options)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            f"there is no Ray cluster at {address!r} that can be joined ({error}). Start one with: ray start --head"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own there
    try:
        yield
    finally:
        ray.shutdown()


def _check_size(workers: int, cpus: int, gpus: float) -> None:
    """Refuse what Ray would wait for without end."""
    there = _ray().cluster_resources()
    for each, kind in ((cpus, "CPU"), (gpus, "GPU")):
        if there.get(kind, 0) < workers * each:
            raise ConfigError(
                f"{workers} workers with {each:g} {kind}(s) each: expected {workers * each:g} {kind}s in the Ray cluster, got "
                f"{there.get(kind, 0):g}. Take fewer workers, a smaller share, or add machines."
            )


def _ray() -> Any:
    """Import Ray, which is set to send no usage statistics.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.exceptions
    except ImportError as error:
        raise missing_dependency("ray", extra="ray", purpose="work by several processes") from error
    return ray
