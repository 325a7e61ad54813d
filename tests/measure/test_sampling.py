"""When warming up and sampling stop, on series of known mean and noise."""

import dataclasses
import gc
import os
import random
import time
from collections.abc import Callable
from itertools import product
from math import comb
from pathlib import Path
from typing import get_args

import pytest

from hfbench.core.record import Sampling
from hfbench.measure.generation import Call, Probe
from hfbench.measure.process import Reporter
from hfbench.measure.sampling import RULES, Sampler, is_steady, reason_to_stop, relative_precision, sequential_interval
from hfbench.params.sections import StoppingRule
from hfbench.statistics.spread import SIGNIFICANCE, trend_p_values

RUNS = 1000
TRUE_MEDIAN = 1.0

Series = Callable[[random.Random, int], float]


def make_sampling(**values: object) -> Sampling:
    fields = {field.name: 0 for field in dataclasses.fields(Sampling)}
    defaults = {
        "stopping_rule": "precision",
        "min_iterations": 6,
        "max_iterations": 30,
        "target_precision": 0.01,
        "max_seconds": 1e9,
    }
    return Sampling(**{**fields, **defaults, **values})  # type: ignore[arg-type]


SAMPLING = make_sampling()


def run(series: Series, generator: random.Random, sampling: Sampling) -> tuple[list[float], str]:
    """Sample a series of latencies until the rule stops."""
    latencies: list[float] = []
    while True:
        latencies.append(series(generator, len(latencies)))
        reason = reason_to_stop(latencies, sum(latencies), sampling)
        if reason is not None:
            return latencies, reason


def normal(sigma: float) -> Series:
    return lambda generator, _: generator.gauss(1, sigma)


def log_normal(sigma: float) -> Series:
    return lambda generator, _: generator.lognormvariate(0, sigma)


def bimodal(generator: random.Random, _: int) -> float:
    return generator.choice((0.99, 1.01)) + generator.gauss(0, 0.002)


def one_outlier(generator: random.Random, index: int) -> float:
    return 5.0 if index == 3 else generator.gauss(1, 0.01)


def drifting(generator: random.Random, index: int) -> float:
    return 1 + 0.01 * index + generator.gauss(0, 0.02)


STATIONARY: dict[str, Series] = {
    "normal": normal(0.01),
    "normal, quiet": normal(0.004),
    "normal, loud": normal(0.03),
    "log-normal": log_normal(0.015),
    "log-normal, long tail": log_normal(0.3),
    "bimodal": bimodal,
    "one outlier": one_outlier,
    "constant": lambda _, __: 1.0,
}


@pytest.mark.parametrize("name", STATIONARY)
@pytest.mark.parametrize("max_seconds", [1e9, 12.0])
def test_the_reached_interval_covers_the_true_median(name: str, max_seconds: float) -> None:
    generator, limits = random.Random(1), make_sampling(max_seconds=max_seconds)
    covered = 0
    for _ in range(RUNS):
        latencies, _ = run(STATIONARY[name], generator, limits)
        low, high = sequential_interval(latencies, limits.min_iterations, limits.max_iterations) or (2.0, 0.0)
        covered += low <= TRUE_MEDIAN <= high
    assert covered >= 0.93 * RUNS


@pytest.mark.parametrize(("sigma", "mean_iterations"), [(0.002, 6.01), (0.005, 7.0), (0.01, 15.0)])
def test_quiet_series_stop_early(sigma: float, mean_iterations: float) -> None:
    generator = random.Random(2)
    counts = [len(run(normal(sigma), generator, SAMPLING)[0]) for _ in range(300)]
    assert sum(counts) / len(counts) <= mean_iterations


def test_a_limit_that_nobody_reaches_costs_no_time() -> None:
    latencies, limits = [1.0, 1.01] * 50, make_sampling(max_iterations=10**6)
    start = time.perf_counter()
    assert relative_precision(latencies, limits) is not None
    assert time.perf_counter() - start < 5, "the walk is followed to the values that there are"


def test_a_drifting_series_is_flagged_whatever_stopped_it() -> None:
    generator = random.Random(3)
    p_values = trend_p_values([run(drifting, generator, SAMPLING)[0] for _ in range(200)])
    assert sum(p_value is not None and p_value < SIGNIFICANCE for p_value in p_values) >= 190


def test_the_interval_by_hand() -> None:
    # The only look at six values: their range misses in 2/64 = 3.1%. The only look at nine: the second smallest and
    # largest miss in 2 (1 + 9)/512 = 3.9%. At eight they would miss in 2 (1 + 8)/256 = 7.0%, so the range it is.
    assert sequential_interval([6, 1, 5, 2, 4, 3], 6, 6) == (1, 6)
    assert sequential_interval([9, 1, 8, 2, 7, 3, 6, 4, 5], 9, 9) == (2, 8)
    assert sequential_interval([1, 2, 3, 4, 5, 6, 7, 8], 8, 8) == (1, 8)


def test_few_values_have_no_interval() -> None:
    assert sequential_interval([1, 2, 3, 4, 5], 1, 30) is None
    assert sequential_interval([1, 2, 3, 4, 5, 6, 7], 8, 30) is None
    assert relative_precision([1, 2, 3, 4, 5], SAMPLING) is None


def test_precision_is_half_the_width_over_the_median() -> None:
    assert relative_precision([1.0, 1.0, 1.0, 1.0, 1.2, 0.8], SAMPLING) == pytest.approx(0.2)


def misses_at_any_look(last: int, rank_of: Callable[[int], int]) -> float:
    """How likely, over all ways to fall above and below the median, that some look from six values on misses it."""
    missed = 0
    for signs in product((0, 1), repeat=last):
        missed += any(
            not rank_of(count) <= sum(signs[:count]) <= count - rank_of(count) for count in range(6, last + 1)
        )
    return missed / float(2**last)


def test_all_looks_together_miss_in_five_percent() -> None:
    last = 12

    def sequential_rank(count: int) -> int:
        low, _ = sequential_interval(range(1, count + 1), 6, last) or (0, 0)
        return int(low)

    def rank_of_one_look(count: int) -> int:
        return max(k for k in range(count // 2) if 2 * sum(comb(count, below) for below in range(k)) / 2**count <= 0.05)

    sequential, naive = misses_at_any_look(last, sequential_rank), misses_at_any_look(last, rank_of_one_look)
    assert 0.04 < sequential <= 0.05
    assert naive > 0.07, "an interval made for one look does not hold for nine"


SHORT = {"max_iterations": 10, "max_seconds": 60.0}
FEW = {"min_iterations": 2, "max_iterations": 3}  # than an interval needs
FIXED = {"stopping_rule": "fixed", "min_iterations": 5}  # ignores precision
BRIEF = {"max_seconds": 3.0}


@pytest.mark.parametrize(
    ("asked", "latencies", "seconds", "reason"),
    [
        ({}, [1.0] * 5, 0, None),
        (BRIEF, [9.0] * 2, 18, None),  # three samples are taken, whatever an iteration takes
        (BRIEF, [9.0] * 3, 27, "max_seconds reached"),  # and the minimum does not hold against it
        (BRIEF, [0.6] * 3, 3.0, None),
        (BRIEF, [0.6] * 3, 3.1, "max_seconds reached"),  # one more would end after it
        (BRIEF, [0.4] * 6, 3.1, "target_precision reached"),
        ({}, [1.0] * 6, 0, "target_precision reached"),
        (SHORT, [1.0, 2.0] * 4, 0, None),
        (SHORT, [1.0, 2.0] * 4, 61.0, "max_seconds reached"),
        (SHORT, [1.0, 2.0] * 5, 0, "max_iterations reached"),
        (FEW, [1.0] * 2, 0, None),
        (FEW, [1.0] * 3, 0, "max_iterations reached"),
        (FIXED, [1.0] * 4, 4, None),
        (FIXED, [1.0, 9.0, 5.0, 1.0, 7.0], 0, "min_iterations reached"),
        (FIXED | BRIEF, [1.0] * 2, 2.5, None),
        (FIXED | BRIEF, [1.0] * 3, 3.5, "max_seconds reached"),
        ({"stopping_rule": "fixed", "min_iterations": 2} | BRIEF, [9.0] * 2, 18, "min_iterations reached"),
    ],
)
def test_when_sampling_stops(
    asked: dict[str, object], latencies: list[float], seconds: float, reason: str | None
) -> None:
    assert reason_to_stop(latencies, seconds, make_sampling(**asked)) == reason


def test_every_rule_that_params_name_exists() -> None:
    assert set(RULES) == set(get_args(StoppingRule))


def test_an_accelerator_is_sampled_until_it_was_watched_and_no_longer_than_max_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "collect", int)  # which takes a second in a process with this many tests

    def run(observed: bool, probe: Probe | None = None) -> Call:
        del probe
        start = time.perf_counter()
        time.sleep(0.001)
        end = time.perf_counter()
        return Call(start, end, end, [[end]] if observed else [], [[1]])

    for max_seconds in (1e9, 0.05):
        with (tmp_path / "reports").open("w") as reports:
            sampler = Sampler(run, (1,), Reporter(os.dup(reports.fileno()), 0.0))
            began = time.perf_counter()
            reason = sampler.sample(make_sampling(max_seconds=max_seconds, target_precision=1e9), 0.2)
            took = time.perf_counter() - began
        assert reason == "target_precision reached"
        assert min(0.2, max_seconds) <= took < min(0.2, max_seconds) + 0.5


@pytest.mark.parametrize(
    ("iteration_seconds", "max_seconds", "at_least", "warmups", "samples"),
    [(0.05, 0.04, 0, 0, 3), (0.05, 0.04, 1, 1, 3), (0.05, 0.21, 0, 1, 3), (0.05, 0.56, 0, 2, 9), (0.01, 30, 0, 2, 30)],
)
def test_warm_up_and_samples_share_max_seconds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    iteration_seconds: float,
    max_seconds: float,
    at_least: int,
    warmups: int,
    samples: int,
) -> None:
    """By a clock that calls alone advance, exactly."""
    now = 0.0

    def run(observed: bool, probe: Probe | None = None) -> Call:
        del probe
        nonlocal now
        start, now = now, now + iteration_seconds
        return Call(start, now, now, [[now]] if observed else [], [[1]])

    monkeypatch.setattr(gc, "collect", int)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    limits = {"max_seconds": max_seconds, "max_warmup_iterations": 5, "min_warmup_iterations": 1}
    sampling = make_sampling(**limits, target_precision=-1.0)
    with (tmp_path / "reports").open("w") as reports:
        sampler = Sampler(run, (1,), Reporter(os.dup(reports.fileno()), 0.0))
        sampler.first_call()
        began = now
        steady = sampler.warm_up(sampling, expected_seconds=iteration_seconds, at_least=at_least)
        assert round((now - began) / iteration_seconds) == warmups
        assert steady == (warmups == 2)
        reason = sampler.sample(sampling)
    count = round((now - began) / iteration_seconds) - warmups
    assert (count, reason) == (samples, "max_seconds reached" if max_seconds < 1 else "max_iterations reached")
    assert now - began <= max(max_seconds, (3 + at_least) * iteration_seconds) + 1e-9


def test_a_first_call_that_compiled_does_not_cost_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, now = iter([30.0, *[0.1] * 100]), 0.0

    def run(observed: bool, probe: Probe | None = None) -> Call:
        del probe
        nonlocal now
        start, now = now, now + next(seconds)
        return Call(start, now, now, [[now]] if observed else [], [[1]])

    monkeypatch.setattr(gc, "collect", int)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    with (tmp_path / "reports").open("w") as reports:
        sampler = Sampler(run, (1,), Reporter(os.dup(reports.fileno()), 0.0))
        sampler.first_call()
        assert sampler.warm_up(make_sampling(max_seconds=8, max_warmup_iterations=5), expected_seconds=0.5)
    assert now == pytest.approx(30.3)


MOST = 10
WARM_UPS = 500


def steady_at(latencies: list[float]) -> int | None:
    """How many iterations a warm-up of at most ten takes; None where it never was steady."""
    return next((count for count in range(1, len(latencies) + 1) if is_steady(latencies[:count])), None)


def noisy(curve: list[float], sigma: float, generator: random.Random) -> list[float]:
    return [value * generator.lognormvariate(0, sigma) for value in curve]


@pytest.mark.parametrize(
    ("latencies", "count"),
    [
        ([1.0, 1.0], None),  # two iterations tell nothing
        ([1.0, 1.0, 1.0], 3),
        # A record of more than two percent is notable.
        ([1.0, 0.985, 0.975], 3),
        ([1.0, 0.979, 1.0], None),
        ([1.0, 1.0, 0.979], None),
        ([1.5, 1.0, 1.0, 1.0, 1.0], 4),  # a slow iteration at first costs one more
        # A late drop is waited for: CUDA graphs are recorded in the second call and replayed from the third.
        ([1.5, 1.5, 1.0, 1.0, 1.0, 1.0], 5),
        ([1.0, 5.0, 1.0], 3),  # an outlier is no warm-up
        ([1.5 - 0.05 * index for index in range(MOST)], None),  # a falling curve is never steady
    ],
)
def test_how_many_iterations_a_warm_up_takes(latencies: list[float], count: int | None) -> None:
    assert not is_steady([])
    assert steady_at(latencies) == count


@pytest.mark.parametrize(("sigma", "mean_iterations"), [(0.002, 3.0), (0.01, 3.3), (0.05, 4.5)])
def test_noise_does_not_prolong_the_warm_up(sigma: float, mean_iterations: float) -> None:
    generator = random.Random(0)
    counts = [steady_at(noisy([1.0] * MOST, sigma, generator)) for _ in range(WARM_UPS)]
    assert sum(count is None for count in counts) <= 0.01 * WARM_UPS
    assert sum(count or MOST for count in counts) / WARM_UPS <= mean_iterations


def test_a_warm_up_in_noise_is_mostly_waited_for() -> None:
    generator = random.Random(0)
    curve = [1 + 0.5 * 0.6**index for index in range(MOST)]
    counts = [steady_at(noisy(curve, 0.01, generator)) for _ in range(WARM_UPS)]
    left_in_first_sample = [0.5 * 0.6 ** (count or MOST) for count in counts]
    assert sum(left_in_first_sample) / WARM_UPS < 0.01
    assert sum(share > 0.05 for share in left_in_first_sample) <= 0.02 * WARM_UPS


def test_noise_seldom_ends_a_warm_up_that_goes_on() -> None:
    generator = random.Random(0)
    curve = [1.5 - 0.05 * index for index in range(MOST)]
    never = [steady_at(noisy(curve, 0.01, generator)) is None for _ in range(WARM_UPS)]
    assert sum(never) >= 0.95 * WARM_UPS
