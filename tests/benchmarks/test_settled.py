"""Times are taken until the machine has been as fast twice."""

from __future__ import annotations

import pytest

from benchmarks.settled import AGREEING, least, settled


@pytest.mark.parametrize(
    ("times", "done"),
    [
        ([], False),
        ([3.0], False),
        ([3.0, 2.0], False),
        ([9.0, 2.0, 5.0, 2.0 * AGREEING], True),
        ([2.0, 2.0, 9.0], True),
    ],
)
def test_two_that_agree_settle_it(times: list[float], done: bool) -> None:
    assert settled(times) is done


def test_it_goes_on_until_then_and_no_further() -> None:
    times = iter([5.0, 3.0, 4.0, 3.01, 1.0])
    assert least(lambda: next(times), 9) == 3.0
    assert next(times) == 1.0


def test_it_ends_with_the_turns_that_were_allowed() -> None:
    times = iter([5.0, 4.0, 3.0, 2.0])
    assert least(lambda: next(times), 3) == 3.0
