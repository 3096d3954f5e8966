"""Makes the numpy twins importable as `reference` and keeps property tests reproducible."""

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("cmcr", deadline=None, database=None, derandomize=True, max_examples=25)
settings.load_profile("cmcr")


signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background commands ignore Ctrl-C


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20230523)
