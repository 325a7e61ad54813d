"""Comparing sides: their points are paired, their values contrasted, and all contrasts judged together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfbench.compare.changes import Change, environment_differences, find_changes
from hfbench.compare.contrasts import (
    IDENTICAL,
    INCOMPARABLE,
    INDEPENDENT,
    PAIRED,
    SLOWER,
    Contrast,
    Judged,
    contrast,
    judge,
)
from hfbench.compare.pairs import (
    COMPARED,
    Axes,
    ComparedMetric,
    ComparedPoint,
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
from hfbench.statistics.ratios import Ratio, RatioOfRounds, geometric_mean
from hfbench.tables.store import point_label

DEFAULT_THRESHOLD = 0.02


@dataclass(frozen=True)
class Options:
    """What to compare: metrics, the share of change that counts as none, and whether machines may differ."""

    metrics: tuple[ComparedMetric, ...] = COMPARED
    threshold: float = DEFAULT_THRESHOLD
    across_environments: bool = False


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
        return dict(Counter(judged.verdict.word for _, judged in self.judged(metric)))

    @property
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
        notes=_notes(baseline, candidate, results, tests),
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
    counted = (
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
        "(Benjamini-Hochberg); each interval is a 95% one for itself."
    )
    return (
        *dict.fromkeys((*baseline.notes, *candidate.notes)),
        *(f"{count} point{'s' * (count != 1)} {sentence}" for count, sentence in counted if count),
        *([family] if tests > 1 else []),
    )


def _methods(result: PairResult) -> set[str]:
    return {each.contrast.method for each in result.judged.values() if each.verdict.word != INCOMPARABLE}


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for other programs.

    Ratios are candidate over baseline; `faster` and `slower` mean better and worse, also of memory and energy.
    """
    names = comparison.labels
    return {
        "baseline": side_json(comparison.baseline),
        "candidate": side_json(comparison.candidate),
        "threshold": comparison.threshold,
        "across_environments": comparison.across_environments,
        "environment_differences": list(comparison.environment_differences),
        "tests": comparison.tests,
        "slower": comparison.is_slower,
        "metrics": [_metric_json(comparison, metric) for metric in comparison.metrics],
        "pairs": [_pair_json(result, names[result.pair.axes]) for result in comparison.results],
        "status_changes": [_status_change_json(change) for change in comparison.status_changes],
        "only_baseline": [_point_json(point) for point in comparison.pairing.only_baseline],
        "only_candidate": [_point_json(point) for point in comparison.pairing.only_candidate],
        "changes": [vars(change) for change in comparison.changes],
        "notes": list(comparison.notes),
    }


def side_json(side: Side) -> dict[str, Any]:
    """Return what a side is."""
    committed_at = side.committed_at.isoformat() if side.committed_at else None
    return {"label": side.label, "revision": side.revision, "committed_at": committed_at, "subject": side.subject}


def ratio_json(ratio: Ratio | None) -> dict[str, float | None]:
    """Return a ratio with the limits of its 95% interval."""
    estimate, low, high = ratio.interval() if ratio else (None, None, None)
    return {"ratio": estimate, "low": low, "high": high}


def _metric_json(comparison: Comparison, metric: ComparedMetric) -> dict[str, Any]:
    mean = comparison.means[metric.name]
    return {
        "metric": metric.name,
        "unit": metric.metric.unit,
        "higher_is_better": metric.metric.higher_is_better,
        "verdicts": comparison.counts(metric),
        "geometric_mean": {**ratio_json(mean.ratio), "pairs": mean.pairs},
    }


def _pair_json(result: PairResult, label: str) -> dict[str, Any]:
    return {
        "point": label,
        "configuration": result.pair.baseline.axes,
        "output_differs": list(result.output_differs),
        "metrics": {name: _judged_json(each) for name, each in result.judged.items()},
    }


def _judged_json(judged: Judged) -> dict[str, Any]:
    contrast = judged.contrast
    return {
        "verdict": judged.verdict.word,
        "reason": judged.verdict.reason,
        "more_rounds": judged.verdict.more_rounds,
        "baseline": contrast.baseline,
        "candidate": contrast.candidate,
        "baseline_rounds": contrast.baseline_rounds,
        "candidate_rounds": contrast.candidate_rounds,
        "method": contrast.method,
        **ratio_json(contrast.ratio),
        "p_value": contrast.ratio.p_value if contrast.ratio else None,
        "adjusted_p_value": judged.adjusted_p_value,
    }


def _status_change_json(change: StatusChange) -> dict[str, Any]:
    return {
        "configuration": change.pair.baseline.axes,
        "is_regression": change.is_regression,
        "baseline": _status_json(change.pair.baseline),
        "candidate": _status_json(change.pair.candidate),
    }


def _status_json(point: ComparedPoint) -> dict[str, Any]:
    rounds = len(point.statuses)
    return {"status": point.status, "rounds_ok": point.rounds_ok, "rounds": rounds, "reason": point.reason}


def _point_json(point: ComparedPoint) -> dict[str, Any]:
    return {"configuration": point.axes, **_status_json(point)}
