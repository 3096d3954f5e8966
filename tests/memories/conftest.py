"""A warm process for the tests that kill runs, and a disk that is spared in all others."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import crashing
import pytest


@pytest.fixture(scope="session")
def crashes():
    """Do runs in that process, see `crashing.run_all`."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), crashing.warm_up) as process:
        yield lambda *arguments, **options: process.submit(crashing.run_all, *arguments, **options).result()


@pytest.fixture(scope="module", autouse=True)
def unflushed():
    """Spare the disk: what a crash leaves is tested in processes of their own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield
