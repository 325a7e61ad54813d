"""A comparison as JSON: everything, under keys that stay."""

from typing import Any

from hfbench.comparison.axis import AxisComparison
from hfbench.comparison.comparison import Comparison, Judged, Mean, PairResult
from hfbench.comparison.layout import labels
from hfbench.comparison.pairs import StatusChange
from hfbench.comparison.points import Point
from hfbench.comparison.side import Side
from hfbench.comparison.winners import Winner
from hfbench.foundation.files import readable_json
from hfbench.statistics.ratios import Ratio
from hfbench.tables.columns import CONFIGURATION_AXES

SCHEMA_VERSION = 1


def comparison_json(comparison: Comparison) -> str:
    """Return the comparison as JSON.

    Ratios are candidate over baseline; `faster` and `slower` mean better and worse, also of memory and energy.
    """
    return readable_json({"schema_version": SCHEMA_VERSION, **_comparison(comparison)})


def axis_json(comparison: AxisComparison) -> str:
    """Return the comparison of an axis as JSON; a winner's ratio is that of the best over the next."""
    return readable_json(
        {
            "schema_version": SCHEMA_VERSION,
            "side": _side(comparison.side),
            "axis": comparison.axis,
            "reference": comparison.reference,
            "winners": [_winner(winner, comparison.axis) for winner in comparison.winners],
            "comparisons": [{"value": value, **_comparison(each)} for value, each in comparison.comparisons],
        }
    )


def _comparison(comparison: Comparison) -> dict[str, Any]:
    names = labels(comparison)
    pairing = comparison.pairing
    return {
        "baseline": _side(comparison.baseline),
        "candidate": _side(comparison.candidate),
        "threshold": comparison.threshold,
        "across_environments": comparison.across_environments,
        "environment_differences": list(comparison.environment_differences),
        "tests": comparison.tests,
        "slower": comparison.is_slower,
        "metrics": [
            {
                "metric": metric.name,
                "unit": metric.metric.unit,
                "higher_is_better": metric.metric.higher_is_better,
                "verdicts": comparison.counts(metric),
                "geometric_mean": _mean(comparison.means[metric.name]),
            }
            for metric in comparison.metrics
        ],
        "pairs": [_pair(result, names[result.pair.axes]) for result in comparison.results],
        "status_changes": [_status_change(change) for change in comparison.status_changes],
        "only_baseline": [_point(point) for point in pairing.only_baseline],
        "only_candidate": [_point(point) for point in pairing.only_candidate],
        "changes": [vars(change) for change in comparison.changes],
        "notes": list(comparison.notes),
    }


def _side(side: Side) -> dict[str, Any]:
    committed_at = side.committed_at.isoformat() if side.committed_at else None
    return {"label": side.label, "revision": side.revision, "committed_at": committed_at, "subject": side.subject}


def _pair(result: PairResult, label: str) -> dict[str, Any]:
    return {
        "point": label,
        "configuration": result.pair.baseline.axes,
        "output_differs": list(result.output_differs),
        "metrics": {name: _judged(each) for name, each in result.judged.items()},
    }


def _judged(judged: Judged) -> dict[str, Any]:
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
        **_ratio(contrast.ratio),
        "p_value": contrast.ratio.p_value if contrast.ratio else None,
        "adjusted_p_value": judged.adjusted_p_value,
    }


def _ratio(ratio: Ratio | None) -> dict[str, float | None]:
    if ratio is None:
        return {"ratio": None, "low": None, "high": None}
    interval = ratio.interval()
    return {"ratio": interval.estimate, "low": interval.low, "high": interval.high}


def _mean(mean: Mean) -> dict[str, Any]:
    return {**_ratio(mean.ratio), "pairs": mean.pairs}


def _status_change(change: StatusChange) -> dict[str, Any]:
    return {
        "configuration": change.pair.baseline.axes,
        "is_regression": change.is_regression,
        "baseline": _status(change.pair.baseline),
        "candidate": _status(change.pair.candidate),
    }


def _status(point: Point) -> dict[str, Any]:
    rounds = len(point.statuses)
    return {"status": point.status, "rounds_ok": point.rounds_ok, "rounds": rounds, "reason": point.reason}


def _point(point: Point) -> dict[str, Any]:
    return {"configuration": point.axes, **_status(point)}


def _winner(winner: Winner, axis: str) -> dict[str, Any]:
    place = dict(zip(CONFIGURATION_AXES, winner.axes, strict=True))
    place.pop(axis)
    return {
        "metric": winner.metric.name,
        "configuration": place,
        "value": winner.value,
        "next": winner.runner_up,
        "verdict": winner.verdict.word,
        "reason": winner.verdict.reason,
        "best": winner.contrast.candidate,
        **_ratio(winner.contrast.ratio),
        "left_out": list(winner.left_out),
    }
