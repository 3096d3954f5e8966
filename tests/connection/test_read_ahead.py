"""Blocks come in order, one ahead, and errors where they happen."""

import pytest

from cmcr.connection.read_ahead import read_ahead


def test_blocks_come_in_their_order():
    assert list(read_ahead(range(7))) == list(range(7))
    assert list(read_ahead([])) == []


def test_one_block_is_read_ahead_and_no_more():
    read = []

    def blocks():
        for number in range(5):
            read.append(number)
            yield number

    coming = read_ahead(blocks())
    assert next(coming) == 0
    assert next(coming) == 1
    coming.close()
    assert len(read) <= 4


def test_an_error_reaches_the_reader():
    def blocks():
        yield 1
        raise OSError("gone")

    coming = read_ahead(blocks())
    assert next(coming) == 1
    with pytest.raises(OSError, match="gone"):
        next(coming)
