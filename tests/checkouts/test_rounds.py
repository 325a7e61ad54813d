"""Which records of a round were measured side by side."""

import pytest

from hfbench.checkouts.interleave import Measured, SideOfRound, apart

NOW = 1_000_000.0


def side(began: float, **starts: float) -> SideOfRound:
    """Records that took 20 s each, by their start."""
    return SideOfRound(began, {stage: Measured(start, 20.0) for stage, start in starts.items()})


def test_measured_now_one_after_the_other() -> None:
    # The start is in whole seconds, and so can lie before the moment at which the round began.
    sides = {"a": side(NOW + 0.9, p=NOW, q=NOW + 21), "b": side(NOW + 45, p=NOW + 46, q=NOW + 67)}
    assert apart(sides) == {"a": [], "b": []}


def test_measured_together_another_day() -> None:
    day = NOW - 86400
    sides = {"a": side(NOW, p=day, q=day + 21), "b": side(NOW + 3, p=day + 45, q=day + 67)}
    assert apart(sides) == {"a": [], "b": []}


def test_one_side_is_of_another_day() -> None:
    sides = {"a": side(NOW, p=NOW - 86400), "b": side(NOW + 3, p=NOW + 4)}
    assert apart(sides) == {"a": ["p"], "b": []}


def test_both_sides_are_of_different_days() -> None:
    sides = {"a": side(NOW, p=NOW - 86400), "b": side(NOW + 3, p=NOW - 2 * 86400)}
    assert apart(sides) == {"a": ["p"], "b": ["p"]}


def test_only_the_points_that_are_apart_count() -> None:
    sides = {"a": side(NOW, p=NOW - 86400, q=NOW + 1), "b": side(NOW + 30, p=NOW + 31, q=NOW + 52)}
    assert apart(sides) == {"a": ["p"], "b": []}


@pytest.mark.parametrize(("gap", "again"), [(159, []), (161, ["p"])])
def test_the_limit_is_the_round_and_a_minute_for_each_side(gap: float, again: list[str]) -> None:
    # By hand: two measurements of 20 s and two minutes are 160 s.
    sides = {"a": side(NOW, p=NOW - gap), "b": side(NOW - 1, p=NOW)}
    assert apart(sides) == {"a": again, "b": []}


def test_three_sides() -> None:
    sides = {"a": side(NOW, p=NOW - 86400), "b": side(NOW, p=NOW + 1), "c": side(NOW, p=NOW + 22)}
    assert apart(sides) == {"a": ["p"], "b": [], "c": []}
