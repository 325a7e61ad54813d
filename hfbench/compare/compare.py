"""Comparing sides: their points are paired, their values contrasted, and all contrasts judged together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np

from hfbench.compare.changes import Change, environment_differences, find_changes
from hfbench.compare.pairs import (
    COMPARED,
    Axes,
    ComparedMetric,
    Pair,
    Pairing,
    Values,
    obstacles,
    pair_points,
    points_of,
    values_of,
)
from hfbench.compare.side import Side
from hfbench.report.words import counted
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import (
    IDENTICAL,
    INDEPENDENT,
    PAIRED,
    Contrast,
    Ratio,
    RatioOfRounds,
    contrast,
    geometric_mean,
)
from hfbench.statistics.verdicts import (
    DEFAULT_THRESHOLD,
    ERROR,
    INCOMPARABLE,
    SLOWER,
    Verdict,
    adjusted_p_values,
    family_error,
    interval,
    tested_p_value,
    verdict_on,
)
from hfbench.tables.store import labels_of


@dataclass(frozen=True)
class Options:
    """What to compare: metrics, the share of change that counts as none, and whether machines may differ."""

    metrics: tuple[ComparedMetric, ...] = COMPARED
    threshold: float = DEFAULT_THRESHOLD
    across_environments: bool = False


@dataclass(frozen=True)
class Contrasted:
    """The contrast of a metric that either point of a pair has."""

    pair: Pair
    metric: ComparedMetric
    contrast: Contrast


@dataclass(frozen=True)
class Judged(Contrasted):
    """A contrast with its verdict; the adjusted p-value is None where nothing was tested."""

    verdict: Verdict
    adjusted_p_value: float | None


@dataclass(frozen=True)
class Mean:
    """The geometric mean of one metric's ratios over `pairs`; `ratio` without errors where a side has one round."""

    ratio: Ratio | None
    pairs: int

    @property
    def interval(self) -> Interval | None:
        """The interval that holds however often one looks."""
        return interval(self.ratio) if self.ratio else None


@dataclass(frozen=True)
class Comparison:
    """Two sides, their pairs and verdicts, what changed between them, and whether they are two machines.

    `tests` is the size of the family over which false alarms are controlled, and `error` what each interval of it may
    err; `side_names` are the headings of columns.
    """

    baseline: Side
    candidate: Side
    options: Options
    pairing: Pairing
    means: Mapping[str, Mean]
    changes: tuple[Change, ...]
    environment_differences: tuple[str, ...]
    judged: tuple[Judged, ...] = ()
    tests: int = 0
    error: float = ERROR
    side_names: tuple[str, str] = ("baseline", "candidate")

    def of_metric(self, metric: ComparedMetric) -> list[Judged]:
        """Return the verdicts on one metric."""
        return [each for each in self.judged if each.metric is metric]

    def counts(self, metric: ComparedMetric) -> dict[str, int]:
        """Return how many pairs got each verdict, for those that any got."""
        return dict(Counter(each.verdict.word for each in self.of_metric(metric)))

    @cached_property
    def labels(self) -> dict[Axes, str]:
        """A short name for each point of either side, by the axes that differ between them."""
        pairing = self.pairing
        points = [*(pair.baseline for pair in pairing.pairs), *pairing.only_baseline, *pairing.only_candidate]
        configurations = [point.axes for point in points]
        return dict(zip((tuple(each.values()) for each in configurations), labels_of(configurations), strict=True))

    @property
    def is_slower(self) -> bool:
        """Whether any verdict is `slower`, or a point that was ok fails, wholly or in some rounds."""
        is_called = any(each.verdict.word == SLOWER for each in self.judged)
        return is_called or any(pair.is_regression for pair in self.pairing.pairs)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the rounds were compared, what is not known, and what the sides themselves say."""
        pairs = list({each.pair.axes: each.pair for each in self.judged}.values())
        compared = [each for each in self.judged if each.verdict.word != INCOMPARABLE]
        contrasts = {(each.pair.axes, each.contrast.method, each.contrast.has_same_rounds) for each in compared}
        methods = Counter(method for _, method, is_whole in contrasts if is_whole)
        paired, apart, carried = (methods[method] for method in (PAIRED, INDEPENDENT, IDENTICAL))
        lacking = sum(not is_whole for _, _, is_whole in contrasts)
        differing = sum(bool(pair.output_differs) for pair in pairs)
        untold = sum(not (pair.baseline.inputs and pair.candidate.inputs) for pair in pairs)
        said = {
            "compared round by round: the rounds of the two sides alternate, so that the machine's drift "
            "cancels.": paired,
            "compared as two separate runs: their rounds do not alternate, so that a drift of the machine from one run "
            "to the other would pass for a change.": apart,
            "compared without pairing rounds, of which a side lacks some that the other has.": lacking,
            "not measured again: both sides hold the same records, since nothing that they depend on changed.": carried,
            "marked !: the output is not its reference's. Geometric means leave such points out.": differing,
            "without a record of the prompt on a side: that both were given the same is assumed.": untold,
        }
        family = (
            f"Of the changes that are called among these {self.tests} comparisons, at most 5% are expected to be noise "
            "(Benjamini-Hochberg), however often one looks. The interval beside a verdict is the one that decided it."
        )
        return (
            *dict.fromkeys((*self.baseline.notes, *self.candidate.notes)),
            *(f"{counted(count, 'point')} {sentence}" for sentence, count in said.items() if count),
            *([family] if self.tests > 1 else []),
        )


def compare_sides(baseline: Side, candidate: Side, options: Options) -> Comparison:
    """Return the comparison of the candidate with the baseline."""
    return compare_all([(baseline, candidate)], options)[0]


def compare_all(
    sides: Sequence[tuple[Side, Side]], options: Options, besides: Sequence[float] = ()
) -> list[Comparison]:
    """Return the comparison of each candidate with its baseline, all tests being one family with those `besides`."""
    found = [_contrast_sides(baseline, candidate, options) for baseline, candidate in sides]
    judged, error = judge([each for _, contrasts in found for each in contrasts], options.threshold, besides)
    tests = sum(each.adjusted_p_value is not None for each in judged) + len(besides)
    rest = iter(judged)
    return [
        replace(comparison, judged=tuple(islice(rest, len(contrasts))), tests=tests, error=error)
        for comparison, contrasts in found
    ]


def judge(
    contrasts: Sequence[Contrasted], threshold: float, besides: Sequence[float] = ()
) -> tuple[list[Judged], float]:
    """Return each contrast with its verdict, in their order, and what each interval of their family may err.

    The family over which the false discovery rate is controlled is everything that is tested: all pairs with all
    metrics that were asked for, since the exit status rests on any of them, and what has the p-values `besides`.
    """
    p_values = [tested_p_value(each.contrast) for each in contrasts]
    family = [p_value for p_value in (*p_values, *besides) if p_value is not None]
    adjusted, error = iter(adjusted_p_values(family)), family_error(family)
    judged = []
    for each, p_value in zip(contrasts, p_values, strict=True):
        better = each.metric.metric.higher_is_better
        verdict = verdict_on(each.contrast, threshold, error, higher_is_better=better)
        adjusted_p_value = None if p_value is None else next(adjusted)
        judged.append(Judged(each.pair, each.metric, each.contrast, verdict, adjusted_p_value))
    return judged, error


def _contrast_sides(baseline: Side, candidate: Side, options: Options) -> tuple[Comparison, list[Contrasted]]:
    """Return what is compared of two sides, not yet judged."""
    pairing = pair_points(points_of(baseline), points_of(candidate))
    values = (values_of(baseline, options.metrics), values_of(candidate, options.metrics))
    machine = tuple(each.sentence for each in environment_differences(baseline.environment, candidate.environment))
    contrasts = []
    for pair in pairing.compared:
        against = obstacles(pair, baseline, candidate, across_environments=options.across_environments)
        obstacle = "; ".join(against if options.across_environments else [*machine, *against]) or None
        for metric in options.metrics:
            old, new = (side.get(pair.axes, {}).get(metric.name, {}) for side in values)
            if old or new:  # a metric that either point has
                each = contrast(old, new, pair.baseline.started, pair.candidate.started, obstacle)
                contrasts.append(Contrasted(pair, metric, each))
    means = {metric.name: _mean(contrasts, values, metric) for metric in options.metrics}
    changes = find_changes(baseline, candidate, pairing)
    return Comparison(baseline, candidate, options, pairing, means, changes, machine), contrasts


def _mean(contrasts: Sequence[Contrasted], values: tuple[Values, Values], metric: ComparedMetric) -> Mean:
    """Return the geometric mean over the pairs that have a ratio and, on both sides, the output of their reference."""
    ratios, methods = [], set()
    for each in contrasts:
        if each.metric is metric and each.contrast.ratio is not None and not each.pair.output_differs:
            rounds = (side[each.pair.axes][metric.name] for side in values)
            medians = ({number: float(np.median(some)) for number, some in each_side.items()} for each_side in rounds)
            ratios.append(RatioOfRounds(each.contrast.ratio.estimate, *medians))
            methods.add(each.contrast.method)
    return Mean(geometric_mean(ratios, paired=INDEPENDENT not in methods), len(ratios))
