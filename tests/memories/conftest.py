"""A warm process for the tests that kill extractions, and what they embed."""

import pytest
from crashing import Crashes
from extractions import SHARD_ITEMS, write_texts


@pytest.fixture(scope="session")
def crashes():
    with Crashes() as process:
        yield process


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A list of 230 texts in 5 shards; some cannot be embedded."""
    return write_texts(tmp_path_factory.mktemp("texts") / "texts.txt", 230)


@pytest.fixture(scope="session")
def few_texts(tmp_path_factory):
    """The first 130 of them, in 3 shards."""
    return write_texts(tmp_path_factory.mktemp("few") / "texts.txt", 130)


@pytest.fixture(scope="session")
def embedding(texts):
    return {"input": str(texts), "options": {"shard_items": SHARD_ITEMS}}


@pytest.fixture(scope="session")
def embedding_few(few_texts):
    return {"input": str(few_texts), "options": {"shard_items": SHARD_ITEMS}}


@pytest.fixture(scope="session")
def whole(crashes, embedding, tmp_path_factory):
    """The tree, the state and the moments of a run that nobody stopped."""
    return undisturbed(crashes, embedding, tmp_path_factory)


@pytest.fixture(scope="session")
def whole_few(crashes, embedding_few, tmp_path_factory):
    return undisturbed(crashes, embedding_few, tmp_path_factory)


def undisturbed(crashes, run, tmp_path_factory):
    (done,), tree = crashes.do(tmp_path_factory.mktemp("whole") / "memory", {**run, "watched": True})
    assert done["code"] == 0
    return {"tree": tree, "state": done["state"], "moments": done["end"]["moments"]}
