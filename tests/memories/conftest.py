"""A warm process for the tests that kill runs, and a disk that is spared in all others."""

import os

import pytest
from crashing import Crashes


@pytest.fixture(scope="session")
def crashes():
    with Crashes() as process:
        yield process


@pytest.fixture(scope="module", autouse=True)
def unflushed():
    """Spare the disk: what a crash leaves is tested in processes of their own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield
