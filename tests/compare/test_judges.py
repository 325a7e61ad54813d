"""The judges held to each other: pairs, values of an axis, the report's winners and bisections say the same."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from benchmarks.synthetic_tables import Plan, sweep
from hfbench.checkouts.bisect import Rule, decide
from hfbench.compare.axis import AxisComparison, compare_axis
from hfbench.compare.compare import Contrasted, Judged, Options, compare_sides, judge
from hfbench.compare.pairs import COMPARED, HEADLINE, ComparedMetric, Pair, choose_metrics, values_of
from hfbench.compare.side import Side
from hfbench.core.errors import UserError
from hfbench.core.point import value_text
from hfbench.report.frames import report_data
from hfbench.report.speedups import Speedup, Winner, judge_ways
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import IDENTICAL, INDEPENDENT, Contrast, Error, Ratio, contrast
from hfbench.statistics.verdicts import FAST, FASTER, INCOMPARABLE, SAME, SLOW, SLOWER, UNDECIDED, VERDICTS, Verdict
from tests.compare.project import side

ATTENTION = "attn_implementation"
TABLES = 60
THRESHOLD = 0.02


def compared(found: Contrast, metric: ComparedMetric = HEADLINE) -> Contrasted:
    """A contrast whose points do not matter."""
    return Contrasted(cast(Pair, None), metric, found)


def change(estimate: float, metric: ComparedMetric = HEADLINE) -> Contrasted:
    return compared(Contrast(1.0, estimate, 7, 7, INDEPENDENT, Ratio(estimate, (Error(0.015, 7),))), metric)


def plans(ways: int) -> Iterator[Plan]:
    """Runs of several ways of two workloads, of 1 to 9 rounds, quiet and noisy, with small and large differences."""
    generator = np.random.default_rng(ways)
    for seed in range(TABLES):
        effects = dict(zip(("eager", "sdpa", "flex_attention"), np.exp(generator.normal(0, 0.05, 3)), strict=True))
        effects["eager"] /= 1.3  # is slower by that in the tables
        yield Plan(
            sweep(attn_implementation=list(effects)[:ways], batch_size=[1, 4]),
            rounds=range(1, 1 + int(generator.choice([1, 2, 3, 5, 9]))),
            iterations=4,
            effect=lambda each, effects=effects: effects[each.attn_implementation],  # type: ignore[misc]
            between=float(generator.choice([0.0005, 0.003, 0.01, 0.03])),
            within=0.001,
            seed=seed,
        )


def on_axis(run: Side, *metrics: str, threshold: float = THRESHOLD) -> AxisComparison:
    return compare_axis(run, ATTENTION, None, Options(choose_metrics(metrics or ["e2e"]), threshold))


def in_report(run: Side, threshold: float = THRESHOLD) -> tuple[list[Speedup], list[Winner]]:
    configurations = run.configurations.with_columns(inter_token_seconds=pl.lit(None))  # the report leaves it out
    found = judge_ways(report_data(run.samples, run.summary, run.points, configurations, threshold))
    return found.speedups, found.winners


def by_place(comparison: AxisComparison) -> dict[tuple[Any, int], Judged]:
    """The verdicts on each value against the reference, by value and batch size."""
    return {
        (value, judged.pair.baseline.axes["batch_size"]): judged
        for value, each in comparison.comparisons
        for judged in each.of_metric(HEADLINE)
    }


def same_interval(one: Interval | None, times_as_fast: Interval | None) -> bool:
    """Whether the interval of a ratio of times is that of how many times as fast."""
    if one is None or times_as_fast is None:
        return one is times_as_fast
    return tuple(one) == pytest.approx((1 / times_as_fast.estimate, 1 / times_as_fast.high, 1 / times_as_fast.low))


@pytest.mark.parametrize("threshold", [THRESHOLD, 0.05])
def test_the_report_and_the_axis_name_the_same_winners(threshold: float) -> None:
    words = set()
    for ways in (2, 3):
        for plan in plans(ways):
            run = side(plan)
            comparison, (faster, report) = on_axis(run, threshold=threshold), in_report(run, threshold)
            for told, shown in zip(comparison.winners, report, strict=True):
                assert shown.verdict is not None
                assert told.value == shown.configuration[ATTENTION]
                assert value_text(told.rival) == shown.rival
                assert replace(told.verdict, interval=None) == replace(shown.verdict, interval=None)
                assert told.verdict.interval == pytest.approx(shown.verdict.interval)
                words.add(told.verdict.word)
            pairs = by_place(comparison)
            assert len(pairs) == len(faster) == 2 * (ways - 1)
            for each in faster:
                judged = pairs[each.configuration[ATTENTION], each.configuration["batch_size"]]
                assert judged.verdict.word == each.verdict.word
                assert same_interval(judged.verdict.interval, each.interval)
    assert words == {FASTER, SAME, UNDECIDED}


def test_a_page_does_not_contradict_itself() -> None:
    for plan in plans(3):
        faster, found = in_report(side(plan))
        against = {(each.configuration["batch_size"], each.configuration[ATTENTION]): each for each in faster}
        for winner in found:
            if winner.is_clear:
                assert winner.rivals == ()
                assert winner.over_baseline is None or winner.over_baseline.is_clear
                place = winner.configuration["batch_size"]
                own = against.get((place, winner.configuration[ATTENTION]))
                others = [each for (where, _), each in against.items() if where == place and each is not own]
                assert own.verdict.word == FASTER if own else all(each.verdict.word == SLOWER for each in others)
            for each in (winner.runner_up, winner.over_baseline):
                assert each is None or is_consistent(each.verdict)


def is_consistent(verdict: Verdict) -> bool:
    """Whether a word says of a lower time what the interval beside it does."""
    if verdict.interval is None:
        return verdict.word in (UNDECIDED, INCOMPARABLE)
    low, high = verdict.interval[1:]
    if low >= 1 / (1 + THRESHOLD) and high <= 1 + THRESHOLD:
        return verdict.word == SAME
    return verdict.word == (SLOWER if low > 1 else FASTER if high < 1 else UNDECIDED)


def test_two_sides_get_the_verdicts_of_two_values_of_an_axis() -> None:
    seen = set()
    for plan in plans(2):
        run = side(plan)
        baseline, candidate = (run.with_axis(ATTENTION, value, "eager") for value in ("eager", "sdpa"))
        pairs = compare_sides(baseline, candidate, Options((HEADLINE,), THRESHOLD))
        told = by_place(on_axis(run))
        for judged in pairs.judged:
            other = told["sdpa", judged.pair.baseline.axes["batch_size"]]
            assert judged.verdict.word == other.verdict.word
            if judged.verdict.word != UNDECIDED:
                assert judged.verdict == other.verdict
            assert is_consistent(judged.verdict)
            seen.add(judged.verdict.word)
    assert seen == set(VERDICTS) - {INCOMPARABLE}


@pytest.mark.parametrize("threshold", [THRESHOLD, 0.05])
@pytest.mark.parametrize("decisions", [1, 2, 11])
def test_what_a_bisection_calls_slow_is_slower(threshold: float, decisions: int) -> None:
    """Of the same rounds, each commit judged by itself; the machine drifts, and the two of a round ran side by side."""
    rule = Rule(threshold, rounds=2, max_rounds=9, decisions=decisions)
    seen = set()
    for plan in plans(2):
        times = {number: plan.started + place * plan.round_every for place, number in enumerate(plan.rounds)}
        for rounds in two_ways(side(plan)):
            medians = [[float(np.median(each)) for each in of_side.values()] for of_side in rounds]
            word, interval = decide(*medians, higher_is_better=False, rule=rule)
            ((judged,), _) = judge([compared(contrast(*rounds, times, times))], threshold)
            seen.add((word, judged.verdict.word))
            if decisions <= 2 and judged.verdict.word != SAME:  # the same error
                assert interval == judged.verdict.interval
    assert seen >= {(SLOW, SLOWER), (FAST, FASTER), (FAST, SAME), (UNDECIDED, UNDECIDED)}
    assert seen.isdisjoint({(SLOW, FASTER), (SLOW, SAME), (SLOW, UNDECIDED), (FAST, SLOWER)})


def two_ways(run: Side) -> Iterator[tuple[Any, Any]]:
    """The rounds of eager and of sdpa, for each workload."""
    values = [values_of(run.with_axis(ATTENTION, value, "eager"), [HEADLINE]) for value in ("eager", "sdpa")]
    for axes in values[0]:
        yield values[0][axes][HEADLINE.name], values[1][axes][HEADLINE.name]


def test_all_tests_are_one_family() -> None:
    """One clear change among many without: alone it is called, and what is not tested does not count."""
    untested = compared(Contrast(1.0, None, 7, 0, INDEPENDENT, None, "the candidate has no value"))
    clear = change(1.07)
    assert judge([clear], THRESHOLD)[0][0].verdict.word == SLOWER
    assert judge([clear] + [untested] * 30, THRESHOLD)[0][0].verdict.word == SLOWER
    among, _ = judge([clear] + [change(1.0, metric) for metric in COMPARED * 3], THRESHOLD)
    assert [judged.verdict.word for judged in among] == [UNDECIDED] * 28
    with_races, error = judge([clear], THRESHOLD, [1.0] * 27)
    assert with_races[0].verdict == among[0].verdict
    assert error == pytest.approx(0.05 / 28)


def test_what_is_not_tested_has_no_p_value() -> None:
    one = {1: np.array([1.0, 1.1])}
    contrasts = [contrast(one, {1: 1.5 * one[1]}, {}, {}), Contrast(1.0, 1.0, 1, 1, IDENTICAL, Ratio(1.0, ()))]
    judged, _ = judge(list(map(compared, contrasts)), THRESHOLD)
    assert [(each.verdict.word, each.adjusted_p_value) for each in judged] == [(UNDECIDED, None), (SAME, None)]
    assert judged[0].verdict.more_rounds == 1


def test_metrics_go_by_short_and_full_names() -> None:
    assert [metric.name for metric in choose_metrics(["ttft", "e2e", "time_to_first_token_seconds"])] == [
        "time_to_first_token_seconds",
        "end_to_end_seconds",
    ]
    assert choose_metrics([]) == COMPARED
    with pytest.raises(UserError, match="Did you mean memory"):
        choose_metrics(["memry"])
