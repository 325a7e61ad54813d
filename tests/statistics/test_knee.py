"""The knee of curves that are known."""

import pytest

from hfbench.statistics.knee import knee


def test_by_hand() -> None:
    # Scaled: loads 0, 1/4, 1/2, 1; responses 0, 0.05, 0.1, 1; below the diagonal by 0, 0.2, 0.4, 0.
    assert knee([2, 4, 6, 10], [10, 15, 20, 110]) == 2


@pytest.mark.parametrize("capacity", [6.5, 10.5, 15.5])
def test_a_queue_turns_before_its_capacity(capacity: float) -> None:
    # M/M/1: the time in the system is 1 / (capacity - load).
    loads = [float(load) for load in range(1, int(capacity) + 1)]
    place = knee(loads, [1 / (capacity - load) for load in loads])
    assert place is not None
    assert 0.5 * capacity < loads[place] < capacity


@pytest.mark.parametrize(
    ("loads", "responses"),
    [
        ([1, 2], [1, 9]),  # two points
        ([1, 2, 3], [5, 5, 5]),  # flat
        ([1, 2, 3, 4], [1, 2, 3, 4]),  # a line
        ([1, 2, 3, 4], [1, 8, 9, 10]),  # it bends the other way
    ],
)
def test_what_does_not_bend_upwards_has_none(loads: list[float], responses: list[float]) -> None:
    assert knee(loads, responses) is None
