"""Comparing sides: their points are paired, their values contrasted, and all contrasts judged together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hfbench.compare.changes import Change, environment_differences, find_changes
from hfbench.compare.pairs import (
    COMPARED,
    Axes,
    ComparedMetric,
    Pair,
    Pairing,
    Rounds,
    StatusChange,
    Values,
    obstacles,
    pair_points,
    points_of,
    status_changes,
    values_of,
)
from hfbench.compare.side import Side
from hfbench.core.point import CONFIGURATION_AXES
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
    INCOMPARABLE,
    SLOWER,
    Verdict,
    adjusted_p_values,
    family_error,
    interval,
    tested_p_value,
    verdict_on,
)
from hfbench.tables.store import point_label


@dataclass(frozen=True)
class Options:
    """What to compare: metrics, the share of change that counts as none, and whether machines may differ."""

    metrics: tuple[ComparedMetric, ...] = COMPARED
    threshold: float = DEFAULT_THRESHOLD
    across_environments: bool = False


@dataclass(frozen=True)
class Judged:
    """A contrast with its verdict; the adjusted p-value is None where nothing was tested."""

    contrast: Contrast
    verdict: Verdict
    adjusted_p_value: float | None


@dataclass(frozen=True)
class PairResult:
    """A pair with a judged contrast for each metric that either side has."""

    pair: Pair
    judged: Mapping[str, Judged]

    @property
    def output_differs(self) -> tuple[str, ...]:
        """The sides on which the output is not that of its reference."""
        sides = {"baseline": self.pair.baseline, "candidate": self.pair.candidate}
        return tuple(name for name, point in sides.items() if point.output_differs)


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
    """Two sides, their pairs and verdicts, what changed between them, and what to beware of.

    `tests` is the size of the family over which false alarms are controlled, and `error` what each interval of it may
    err; `side_names` are the headings of columns.
    """

    baseline: Side
    candidate: Side
    metrics: tuple[ComparedMetric, ...]
    threshold: float
    pairing: Pairing
    results: tuple[PairResult, ...]
    means: Mapping[str, Mean]
    status_changes: tuple[StatusChange, ...]
    changes: tuple[Change, ...]
    environment_differences: tuple[str, ...]
    across_environments: bool
    tests: int
    error: float
    notes: tuple[str, ...]
    side_names: tuple[str, str] = ("baseline", "candidate")

    def judged(self, metric: ComparedMetric) -> list[tuple[PairResult, Judged]]:
        """Return the pairs that have this metric."""
        return [(result, result.judged[metric.name]) for result in self.results if metric.name in result.judged]

    def counts(self, metric: ComparedMetric) -> dict[str, int]:
        """Return how many pairs got each verdict, for those that any got."""
        return dict(Counter(judged.verdict.word for _, judged in self.judged(metric)))

    @cached_property
    def labels(self) -> dict[Axes, str]:
        """A short name for each point of either side, by the axes that differ between them."""
        pairing = self.pairing
        points = [*(pair.baseline for pair in pairing.pairs), *pairing.only_baseline, *pairing.only_candidate]
        varying = [axis for axis in CONFIGURATION_AXES if len({point.axes[axis] for point in points}) > 1]
        return {tuple(point.axes.values()): point_label(point.axes, varying) for point in points}

    @property
    def is_slower(self) -> bool:
        """Whether any verdict is `slower`, or a point that was ok fails, wholly or in some rounds."""
        verdicts = (judged.verdict.word for result in self.results for judged in result.judged.values())
        return SLOWER in verdicts or any(change.is_regression for change in self.status_changes)


@dataclass(frozen=True)
class _Row:
    pair: Pair
    metric: ComparedMetric
    contrast: Contrast


@dataclass(frozen=True)
class _Contrasted:
    """Two sides with the contrasts of their pairs, not yet judged."""

    baseline: Side
    candidate: Side
    pairing: Pairing
    values: tuple[Values, Values]
    machine: tuple[str, ...]
    rows: tuple[_Row, ...]


def compare_sides(baseline: Side, candidate: Side, options: Options, folder: Path = Path()) -> Comparison:
    """Return the comparison of the candidate with the baseline; `folder` is in the git repository of their code."""
    return compare_all([(baseline, candidate)], options, folder)[0]


def compare_all(
    sides: Sequence[tuple[Side, Side]], options: Options, folder: Path = Path(), besides: Sequence[float] = ()
) -> list[Comparison]:
    """Return the comparison of each candidate with its baseline, all tests being one family with those `besides`."""
    contrasted = [_contrast_sides(baseline, candidate, options) for baseline, candidate in sides]
    contrasts = [(row.metric, row.contrast) for each in contrasted for row in each.rows]
    judged, error = judge(contrasts, options.threshold, besides)
    tests = sum(each.adjusted_p_value is not None for each in judged) + len(besides)
    rest = iter(judged)
    by_sides = [[next(rest) for _ in each.rows] for each in contrasted]
    return [
        _comparison(each, some, options, (tests, error), folder)
        for each, some in zip(contrasted, by_sides, strict=True)
    ]


def judge(
    contrasts: Sequence[tuple[ComparedMetric, Contrast]], threshold: float, besides: Sequence[float] = ()
) -> tuple[list[Judged], float]:
    """Return each contrast with its verdict, in their order, and what each interval of their family may err.

    The family over which the false discovery rate is controlled is everything that is tested: all pairs with all
    metrics that were asked for, since the exit status rests on any of them, and what has the p-values `besides`.
    """
    p_values = [tested_p_value(contrast) for _, contrast in contrasts]
    family = [p_value for p_value in (*p_values, *besides) if p_value is not None]
    adjusted, error = iter(adjusted_p_values(family)), family_error(family)
    judged = [
        Judged(
            contrast,
            verdict_on(contrast, threshold, error, higher_is_better=metric.metric.higher_is_better),
            None if p_value is None else next(adjusted),
        )
        for (metric, contrast), p_value in zip(contrasts, p_values, strict=True)
    ]
    return judged, error


def _contrast_sides(baseline: Side, candidate: Side, options: Options) -> _Contrasted:
    pairing = pair_points(points_of(baseline), points_of(candidate))
    values = (values_of(baseline), values_of(candidate))
    machine = tuple(each.sentence for each in environment_differences(baseline.environment, candidate.environment))
    rows: list[_Row] = []
    for pair in pairing.compared:
        against = obstacles(pair, baseline, candidate, across_environments=options.across_environments)
        if not options.across_environments:
            against = [*machine, *against]
        rows += _rows(pair, options.metrics, values, "; ".join(against) or None)
    return _Contrasted(baseline, candidate, pairing, values, machine, tuple(rows))


def _rows(
    pair: Pair, metrics: Iterable[ComparedMetric], values: tuple[Values, Values], obstacle: str | None
) -> list[_Row]:
    """Return the contrast of each metric that either point has."""
    rows = []
    for metric in metrics:
        old, new = (side.get(pair.axes, {}).get(metric.name, {}) for side in values)
        if old or new:
            each = contrast(old, new, pair.baseline.started, pair.candidate.started, obstacle)
            rows.append(_Row(pair, metric, each))
    return rows


def _comparison(
    contrasted: _Contrasted, judged: Sequence[Judged], options: Options, family: tuple[int, float], folder: Path
) -> Comparison:
    baseline, candidate, pairing = contrasted.baseline, contrasted.candidate, contrasted.pairing
    results = _results(contrasted.rows, judged)
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        metrics=options.metrics,
        threshold=options.threshold,
        pairing=pairing,
        results=results,
        means={metric.name: _mean(contrasted, metric) for metric in options.metrics},
        status_changes=status_changes(pairing),
        changes=find_changes(baseline, candidate, pairing, folder),
        environment_differences=contrasted.machine,
        across_environments=options.across_environments,
        tests=family[0],
        error=family[1],
        notes=_notes(baseline, candidate, results, family[0]),
    )


def _results(rows: Sequence[_Row], judged: Sequence[Judged]) -> tuple[PairResult, ...]:
    results: dict[tuple[object, ...], tuple[Pair, dict[str, Judged]]] = {}
    for row, each in zip(rows, judged, strict=True):
        results.setdefault(row.pair.axes, (row.pair, {}))[1][row.metric.name] = each
    return tuple(PairResult(pair, by_metric) for pair, by_metric in results.values())


def _mean(contrasted: _Contrasted, metric: ComparedMetric) -> Mean:
    """Return the geometric mean over the pairs that have a ratio and, on both sides, the output of their reference."""
    ratios, methods = [], set()
    for row in contrasted.rows:
        differs = row.pair.baseline.output_differs or row.pair.candidate.output_differs
        if row.metric is metric and row.contrast.ratio is not None and not differs:
            medians = (_medians(side[row.pair.axes][metric.name]) for side in contrasted.values)
            ratios.append(RatioOfRounds(row.contrast.ratio.estimate, *medians))
            methods.add(row.contrast.method)
    return Mean(geometric_mean(ratios, paired=INDEPENDENT not in methods), len(ratios))


def _medians(rounds: Rounds) -> dict[int, float]:
    return {number: float(np.median(values)) for number, values in rounds.items()}


def _notes(baseline: Side, candidate: Side, results: Sequence[PairResult], tests: int) -> tuple[str, ...]:
    """Return how the rounds were compared, what is not known, and what the sides themselves say."""
    methods = Counter(method for result in results for method in _methods(result))
    pairs = [result.pair for result in results]
    said = (
        (
            methods[PAIRED],
            "compared round by round: the rounds of the two sides alternate, so that the machine's drift cancels.",
        ),
        (
            methods[INDEPENDENT],
            "compared as two separate runs: their rounds do not alternate, so that a drift of the machine from one run "
            "to the other would pass for a change.",
        ),
        (
            methods[IDENTICAL],
            "not measured again: both sides hold the same records, since nothing that they depend on changed.",
        ),
        (
            sum(bool(result.output_differs) for result in results),
            "marked !: the output is not its reference's. Geometric means leave such points out.",
        ),
        (
            sum(not (pair.baseline.inputs and pair.candidate.inputs) for pair in pairs),
            "without a record of the prompt on a side: that both were given the same is assumed.",
        ),
    )
    family = (
        f"Of the changes that are called among these {tests} comparisons, at most 5% are expected to be noise "
        "(Benjamini-Hochberg), however often one looks. The interval beside a verdict is the one that decided it."
    )
    return (
        *dict.fromkeys((*baseline.notes, *candidate.notes)),
        *(f"{counted(count, 'point')} {sentence}" for count, sentence in said if count),
        *([family] if tests > 1 else []),
    )


def _methods(result: PairResult) -> set[str]:
    return {each.contrast.method for each in result.judged.values() if each.verdict.word != INCOMPARABLE}
