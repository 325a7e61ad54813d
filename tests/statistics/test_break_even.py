"""After how many tokens compiling has paid: worked by hand, and against two processes added up call by call."""

from itertools import accumulate

import pytest

from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.break_even import NEVER, NOT_KNOWN, PAID, break_even


def test_by_hand() -> None:
    # A call takes 2 s uncompiled and 1.5 s compiled, so it saves 0.5 s. The first compiled call takes 21.5 s, 20 s more
    # than a steady one; the first uncompiled one takes 3 s, 1 s more. 19 s / 0.5 s = 38 calls of 64 tokens.
    found = break_even(20 - 1, 2.0, Interval(0.75, 0.62, 0.81), 64)
    assert (found.verdict, found.new_tokens) == (PAID, 38 * 64)
    # At the limits a call saves 0.76 s and 0.38 s: 25 and 50 calls.
    assert found.low == pytest.approx(25 * 64)
    assert found.high == pytest.approx(50 * 64)


def test_the_two_processes_have_then_taken_the_same_time() -> None:
    calls = 38
    compiled = list(accumulate([21.5, *[1.5] * (calls - 1)]))
    uncompiled = list(accumulate([3.0, *[2.0] * (calls - 1)]))
    assert compiled[-1] == uncompiled[-1]
    assert compiled[-2] > uncompiled[-2]


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Interval(1.2, 1.1, 1.3), NEVER),
        (Interval(1.1, 0.9, 1.3), NOT_KNOWN),
        (Interval(0.9, 0.8, 1.0), NOT_KNOWN),
        (None, NOT_KNOWN),
    ],
)
def test_no_saving_has_no_number(ratio: Interval | None, verdict: str) -> None:
    found = break_even(19.0, 2.0, ratio, 64)
    assert (found.verdict, found.new_tokens, found.low, found.high) == (verdict, None, None, None)


def test_a_start_that_costs_no_more_pays_from_the_first_token() -> None:
    assert break_even(-3.0, 2.0, Interval(0.5, 0.4, 0.6), 64).new_tokens == 0
