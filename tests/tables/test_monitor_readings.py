"""What the columns say about a span of time, with values worked out by hand."""

import pytest

from hfbench.tables.facts import (
    clocks_changed,
    energy_per_token,
    increase,
    others_cpu_cores,
    readings_within,
    throttled,
)

TIMES = [float(second) for second in range(21)]  # one sample a second, 0 to 20
ALL = slice(0, 21)


def test_samples_of_an_iteration_are_those_taken_in_it_with_both_ends() -> None:
    assert readings_within([0.5, 1.0, 1.5, 2.0, 2.5], 1.0, 2.0) == slice(1, 4)
    assert TIMES[readings_within(TIMES, 3.1, 3.9)] == []
    assert TIMES[readings_within(TIMES, 18.5, 99)] == [19.0, 20.0]


def test_energy_per_token_from_the_counter() -> None:
    # 100 W from the start on: 100 J a second. From 2.5 s to 14.5 s are 1200 J, over 60 tokens.
    counter = [5000 + 100 * second for second in TIMES]
    assert energy_per_token(TIMES, 2.5, 14.5, 60, energy_joules=counter) == pytest.approx(20)


def test_energy_per_token_from_power_is_its_integral() -> None:
    # Power rises by 10 W a second: between 4 s and 16 s it is 100 W in the mean, 1200 J, over 100 tokens.
    power = [10 * second for second in TIMES]
    assert energy_per_token(TIMES, 4, 16, 100, power_watts=power) == pytest.approx(12)


def test_span_that_ends_between_two_samples_is_cut_there() -> None:
    # 0 W until 10 s, then straight up to 100 W at 11 s. From 0 to 10.5 s: a triangle of 0.5 s by 50 W, 12.5 J.
    power = [0.0] * 11 + [100.0] * 10
    assert energy_per_token(TIMES, 0, 10.5, 1, power_watts=power) == pytest.approx(12.5)


def test_counter_is_preferred_and_power_stands_in_for_one_that_is_missing() -> None:
    counter, power = [100 * second for second in TIMES], [50.0] * 21
    assert energy_per_token(TIMES, 0, 20, 10, energy_joules=counter, power_watts=power) == pytest.approx(200)
    assert energy_per_token(TIMES, 0, 20, 10, energy_joules=[None] * 21, power_watts=power) == pytest.approx(100)


def test_reading_that_failed_is_bridged() -> None:
    counter: list[float | None] = [100 * second for second in TIMES]
    counter[7] = None
    assert energy_per_token(TIMES, 2, 18, 16, energy_joules=counter) == pytest.approx(100)


@pytest.mark.parametrize(("start", "end", "tokens"), [(2, 10.5, 5), (2, 20.5, 5), (-0.5, 18, 5), (2, 18, 0)])
def test_energy_is_unknown_for_few_readings_a_span_not_covered_or_no_tokens(
    start: float, end: float, tokens: int
) -> None:
    assert energy_per_token(TIMES, start, end, tokens, energy_joules=[100 * second for second in TIMES]) is None


def test_energy_is_unknown_without_power() -> None:
    assert energy_per_token(TIMES, 2, 18, 5) is None


def test_throttle_reasons_are_named_and_idleness_is_none() -> None:
    reasons = {"gpu_idle": 1, "sw_power_cap": 4, "hw_thermal_slowdown": 64}
    masks = [1, 0, 4, None, 5, 64]
    assert throttled(masks, reasons, slice(0, 5)) == ("sw_power_cap",)
    assert throttled(masks, reasons, slice(0, 6)) == ("sw_power_cap", "hw_thermal_slowdown")
    assert throttled(masks, reasons, slice(0, 2)) == ()


def test_counter_grows_from_the_sample_before_the_span() -> None:
    assert increase([7, 7, 9, 12, 12], slice(2, 4)) == 5  # 12 - 7
    assert increase([7, 7, 9, 12, 12], slice(0, 2)) == 0
    assert increase([None, 7, None], slice(0, 3)) is None


def test_spread_of_the_clock() -> None:
    assert clocks_changed([1980, 1980, None, 1485, 1980], slice(0, 5)) == pytest.approx(0.25)  # 495 / 1980
    assert clocks_changed([1980, 1485], slice(0, 1)) is None


def test_cores_of_others_are_what_the_worker_did_not_take() -> None:
    # Of 4 cores 75%, 50% and 100% are busy: 3, 2 and 4; the worker takes 2 of them each time.
    assert others_cpu_cores([75.0, 50.0, 100.0, None], [2.0, 2.0, 2.0, 2.0], 4, slice(0, 4)) == pytest.approx(1)
    assert others_cpu_cores([25.0], [1.02], 4, slice(0, 1)) == 0
    assert others_cpu_cores([None], [1.0], 4, slice(0, 1)) is None
