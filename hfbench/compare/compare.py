"""Comparing sides: their points are paired, their values contrasted, and all contrasts judged together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hfbench.compare.changes import Change, environment_differences, find_changes
from hfbench.compare.contrasts import (
    IDENTICAL,
    INCOMPARABLE,
    INDEPENDENT,
    PAIRED,
    SAME,
    SLOWER,
    Contrast,
    Verdict,
    contrast,
    decide,
    too_few_rounds,
)
from hfbench.compare.pairs import (
    COMPARED,
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
from hfbench.core.errors import UserError
from hfbench.core.point import AXES
from hfbench.core.record import OK
from hfbench.statistics.multiplicity import adjusted_p_values
from hfbench.statistics.ratios import Ratio, RatioOfRounds, geometric_mean


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


@dataclass(frozen=True)
class Comparison:
    """Two sides, their pairs and verdicts, what changed between them, and what to beware of.

    `tests` is the size of the family over which false alarms are controlled; `side_names` are the headings of columns.
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
    notes: tuple[str, ...]
    side_names: tuple[str, str] = ("baseline", "candidate")

    def judged(self, metric: ComparedMetric) -> list[tuple[PairResult, Judged]]:
        """Return the pairs that have this metric."""
        return [(result, result.judged[metric.name]) for result in self.results if metric.name in result.judged]

    def counts(self, metric: ComparedMetric) -> dict[str, int]:
        """Return how many pairs got each verdict, for those that any got."""
        counts: dict[str, int] = {}
        for _, judged in self.judged(metric):
            counts[judged.verdict.word] = counts.get(judged.verdict.word, 0) + 1
        return counts

    @property
    def is_slower(self) -> bool:
        """Whether any verdict is `slower`, or a point that was ok fails, wholly or in some rounds."""
        verdicts = (judged.verdict.word for result in self.results for judged in result.judged.values())
        return SLOWER in verdicts or any(change.is_regression for change in self.status_changes)


def compared_pairs(pairing: Pairing) -> tuple[Pair, ...]:
    """Return the pairs that are ok on both sides."""
    return tuple(pair for pair in pairing.pairs if pair.baseline.status == OK and pair.candidate.status == OK)


_IDENTICAL = "the same records: nothing that they depend on changed, and DVC measured nothing again"


def judge(contrasts: Sequence[tuple[ComparedMetric, Contrast]], threshold: float) -> list[Judged]:
    """Return each contrast with its verdict, in their order.

    The family over which the false discovery rate is controlled is everything that is tested: all pairs with all
    metrics that were asked for, since the exit status rests on any of them.
    """
    tested = [index for index, (_, contrast) in enumerate(contrasts) if _is_tested(contrast)]
    p_values = [contrasts[index][1].ratio.p_value for index in tested]  # type: ignore[union-attr]
    adjusted = dict(zip(tested, adjusted_p_values(p_values), strict=True))
    return [
        Judged(contrast, _verdict(metric, contrast, adjusted.get(index), threshold), adjusted.get(index))
        for index, (metric, contrast) in enumerate(contrasts)
    ]


def _is_tested(contrast: Contrast) -> bool:
    return contrast.ratio is not None and contrast.obstacle is None and contrast.method != IDENTICAL


def _verdict(metric: ComparedMetric, contrast: Contrast, adjusted: float | None, threshold: float) -> Verdict:
    if contrast.obstacle is not None:
        return Verdict(INCOMPARABLE, contrast.obstacle)
    if contrast.method == IDENTICAL:
        return Verdict(SAME, _IDENTICAL)
    if contrast.ratio is None or adjusted is None:
        return too_few_rounds(contrast.baseline_rounds, contrast.candidate_rounds)
    better = metric.metric.higher_is_better
    return decide(contrast.ratio, contrast.ratio.p_value, adjusted, threshold, higher_is_better=better)


def notes(baseline: Side, candidate: Side, results: Sequence[PairResult], tests: int) -> tuple[str, ...]:
    """Return how the rounds were compared, what is not known, and what the sides themselves say."""
    return (
        *baseline.notes,
        *(note for note in candidate.notes if note not in baseline.notes),
        *_methods(results),
        *_outputs(results),
        *_unknown_inputs(results),
        *_family(tests),
    )


def _methods(results: Sequence[PairResult]) -> Iterable[str]:
    """Say for how many points the rounds were paired, and what it means where they were not."""
    methods = [
        {each.contrast.method for each in result.judged.values() if each.verdict.word != INCOMPARABLE}
        for result in results
    ]
    counted = {method: sum(method in each for each in methods) for method in (PAIRED, INDEPENDENT, IDENTICAL)}
    if counted[PAIRED]:
        yield (
            f"{_points(counted[PAIRED])} compared round by round: the rounds of the two sides alternate, so that the "
            "machine's drift cancels."
        )
    if counted[INDEPENDENT]:
        yield (
            f"{_points(counted[INDEPENDENT])} compared as two separate runs: their rounds do not alternate, so that a "
            "drift of the machine from one run to the other would pass for a change."
        )
    if counted[IDENTICAL]:
        yield (
            f"{_points(counted[IDENTICAL])} not measured again: both sides hold the same records, since nothing that "
            "they depend on changed."
        )


def _outputs(results: Sequence[PairResult]) -> Iterable[str]:
    count = sum(bool(result.output_differs) for result in results)
    if count:
        yield f"{_points(count)} marked !: the output is not its reference's. Geometric means leave such points out."


def _unknown_inputs(results: Sequence[PairResult]) -> Iterable[str]:
    count = sum(not (result.pair.baseline.inputs and result.pair.candidate.inputs) for result in results)
    if count:
        yield f"{_points(count)} without a record of the prompt on a side: that both were given the same is assumed."


def _family(tests: int) -> Iterable[str]:
    if tests > 1:
        yield (
            f"Of the changes that are called among these {tests} comparisons, at most 5% are expected to be noise "
            "(Benjamini-Hochberg); each interval is a 95% one for itself."
        )


def _points(count: int) -> str:
    return f"{count} points" if count != 1 else "1 point"


_TABLES = ("samples", "summary", "points", "configurations")


def filtered(side: Side, text: str) -> Side:
    """Return the side with the points that a filter over the axes keeps. Raises `UserError` for a wrong filter."""
    from hfbench.tables.store import parse_filter

    kept = side.points.filter(parse_filter(text, AXES)).select(AXES).unique()
    tables = {}
    for name in _TABLES:
        table = getattr(side, name)
        axes = [axis for axis in AXES if axis in table.columns]
        tables[name] = table.join(kept.select(axes).unique(), on=axes, how="semi", maintain_order="left")
    return replace(side, **tables)


def axis_values(side: Side, axis: str) -> list[Any]:
    """Return the values that an axis has, in the order measured."""
    return side.points[axis].unique(maintain_order=True).to_list()


def with_axis(side: Side, axis: str, value: Any, stands_for: Any) -> Side:
    """Return the points whose `axis` is `value`, under the name of `stands_for`, so that they pair with those of it."""
    dtype = side.points.schema[axis]
    renamed = pl.lit(stands_for, dtype=dtype).alias(axis)
    tables = {name: getattr(side, name).filter(pl.col(axis) == value).with_columns(renamed) for name in _TABLES}
    return replace(side, label=f"{axis}={value}", **tables)


def check_has_points(side: Side, text: str | None) -> None:
    """Raise `UserError` where a side has no points (left), saying so."""
    if side.points.is_empty():
        why = f"--filter {text!r} keeps no point of {side.label}." if text else f"{side.label} has no points."
        raise UserError(why)


DEFAULT_THRESHOLD = 0.02


@dataclass(frozen=True)
class Options:
    """What to compare: metrics, the share of change that counts as none, and whether machines may differ."""

    metrics: tuple[ComparedMetric, ...] = COMPARED
    threshold: float = DEFAULT_THRESHOLD
    across_environments: bool = False


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


def compare_all(sides: Sequence[tuple[Side, Side]], options: Options, folder: Path = Path()) -> list[Comparison]:
    """Return the comparison of each candidate with its baseline, all tests being one family."""
    contrasted = [_contrast_sides(baseline, candidate, options) for baseline, candidate in sides]
    judged = iter(judge([(row.metric, row.contrast) for each in contrasted for row in each.rows], options.threshold))
    by_sides = [[next(judged) for _ in each.rows] for each in contrasted]
    tests = sum(each.adjusted_p_value is not None for some in by_sides for each in some)
    return [_comparison(each, some, options, tests, folder) for each, some in zip(contrasted, by_sides, strict=True)]


def _contrast_sides(baseline: Side, candidate: Side, options: Options) -> _Contrasted:
    pairing = pair_points(points_of(baseline), points_of(candidate))
    values = (values_of(baseline), values_of(candidate))
    machine = tuple(each.sentence for each in environment_differences(baseline.environment, candidate.environment))
    rows: list[_Row] = []
    for pair in compared_pairs(pairing):
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
    contrasted: _Contrasted, judged: Sequence[Judged], options: Options, tests: int, folder: Path
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
        tests=tests,
        notes=notes(baseline, candidate, results, tests),
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
