"""Processes that compute together, played by threads of one process: collective calls meet at a barrier."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from cmcr.connection.peers import Peers

PATIENCE = 60  # seconds until a call that not all make fails


class Table:
    """Where the threads lay down what each brings."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=PATIENCE)
        self.brought = [None] * size

    def gathered(self, rank, tensor):
        self.brought[rank] = tensor.detach().clone()
        self.barrier.wait()
        found = torch.stack(self.brought)
        self.barrier.wait()
        return found


@dataclass(frozen=True)
class ThreadPeers(Peers):
    table: Table | None = None

    def sum_(self, tensor):
        return tensor.detach().copy_(self.table.gathered(self.rank, tensor).sum(dim=0))

    def max_(self, tensor):
        return tensor.detach().copy_(self.table.gathered(self.rank, tensor).amax(dim=0))


def together(size, work):
    """Call `work(peers)` in as many threads as there shall be processes; returns what each returned, by rank."""
    table = Table(size)
    with ThreadPoolExecutor(size) as pool:
        done = [pool.submit(work, ThreadPeers(rank, size, table)) for rank in range(size)]
        return [one.result() for one in done]
