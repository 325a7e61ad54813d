"""Comparing sides: their points are paired, their values contrasted, and all contrasts judged together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfbench.comparison.changes import find_changes
from hfbench.comparison.compared import COMPARED, ComparedMetric
from hfbench.comparison.comparison import Comparison, Judged, Mean, PairResult, compared_pairs
from hfbench.comparison.contrasts import INDEPENDENT, Contrast, contrast
from hfbench.comparison.environments import environment_differences
from hfbench.comparison.judging import judge
from hfbench.comparison.notes import notes
from hfbench.comparison.pairs import Pair, Pairing, obstacles, pair_points, status_changes
from hfbench.comparison.points import points_of
from hfbench.comparison.side import Side
from hfbench.comparison.values import Rounds, Values, values_of
from hfbench.statistics.geometric_mean import RatioOfRounds, geometric_mean

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
