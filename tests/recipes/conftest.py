"""A recipe of few items for the tests of plans and dry runs."""

import shutil

import pytest
from small_recipe import write_items


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """The lists and files of a recipe, which nobody changes."""
    folder = tmp_path_factory.mktemp("items")
    write_items(folder, 40)
    return folder


@pytest.fixture
def folder(items, tmp_path):
    """A copy of them for one test."""
    return shutil.copytree(items, tmp_path / "data")
