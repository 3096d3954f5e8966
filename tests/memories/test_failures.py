"""How many items may fail."""

import numpy as np
import pytest

from cmcr.errors import ConfigError, TooManyFailuresError
from cmcr.memories.embed_failures import JUDGED_AFTER, FailureLimit, parsed_limit


def test_a_number_of_items():
    limit = FailureLimit(2)
    limit.count(10, 1, "a")
    limit.count(10, 1, "b")
    told = r"^3 of 21 items failed, more than the 2 allowed \(max_failures\); the last one: torn\. What was finished is kept"
    with pytest.raises(TooManyFailuresError, match=told):
        limit.count(1, 1, "torn.")


def test_none_at_all():
    for none in (0, 0.0):
        limit = FailureLimit(none)
        limit.count(5000, 0)
        with pytest.raises(TooManyFailuresError, match="1 of 5001 items failed"):
            limit.count(1, 1, "")


def test_a_share_is_taken_of_a_thousand_at_least():
    limit = FailureLimit(0.1)
    limit.count(100, 100)
    limit.count(JUDGED_AFTER, 10)
    with pytest.raises(TooManyFailuresError, match=r"111 of 1101 items failed, more than the 0.1 allowed"):
        limit.count(1, 1)


def test_a_limit_that_was_passed_earlier_is_not_told_again_by_good_items():
    limit = FailureLimit(0)
    with pytest.raises(TooManyFailuresError):
        limit.count(1, 1)
    limit.count(1, 0)
    assert (limit.tried, limit.failed) == (2, 1)


@pytest.mark.parametrize("allowed", [-1, 1.0, 1.5, -0.1, True, "5", None, float("nan"), float("inf"), np.float64(2)])
def test_limits_that_are_none(allowed):
    with pytest.raises(ConfigError, match="max_failures: expected a number of items or a share below 1, such as"):
        FailureLimit(allowed)


@pytest.mark.parametrize(
    ("text", "limit"), [("100", 100), ("0", 0), ("0.05", 0.05), ("5%", 0.05), ("0.5%", 0.005), ("50 %", 0.5)]
)
def test_limits_as_people_write_them(text, limit):
    assert parsed_limit(text) == limit
    assert isinstance(parsed_limit(text), type(limit))
    FailureLimit(parsed_limit(text))


@pytest.mark.parametrize("text", ["", "%", "many", "5%%", "²", "1,5"])
def test_limits_that_nobody_can_read(text):
    with pytest.raises(ConfigError, match=rf"--max-failures: expected a number or a share, such as .*, got '{text}'"):
        parsed_limit(text)


@pytest.mark.parametrize("text", ["-5", "100%", "1.5", "nan", "1e3"])
def test_limits_out_of_range(text):
    with pytest.raises(ConfigError, match="expected a number of items or a share below 1"):
        FailureLimit(parsed_limit(text))
