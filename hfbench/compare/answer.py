"""What `hfbench compare` answers, in the format that is asked for: a page, or JSON for other programs."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hfbench.compare.axis import AxisComparison, AxisWinner, compare_axis
from hfbench.compare.compare import Comparison, Judged, Options, compare_sides
from hfbench.compare.history import METHOD, History, history_page, is_history, notes_of, read_history
from hfbench.compare.layout import axis_page, brief_page, full_page
from hfbench.compare.pairs import HEADLINE, Axes, ComparedMetric, ComparedPoint, Pair, choose_metrics
from hfbench.compare.series import Series
from hfbench.compare.side import WORKSPACE, Side, read_side
from hfbench.core.errors import UserError
from hfbench.core.files import readable_json
from hfbench.core.results import PARAMS
from hfbench.params.schema import read_yaml
from hfbench.report.pages import Page, markdown, print_page, standard_output
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import Ratio
from hfbench.statistics.verdicts import DEFAULT_THRESHOLD, p_value

_SCHEMA_VERSION = 1
_WIDTH_WITHOUT_TERMINAL = 100
_MARKDOWN_WIDTH = 120  # of the tables of a history, which are split to fit


@dataclass(frozen=True)
class _Answer:
    """What a comparison has for each format: a page for a terminal of some width, one for Markdown, and JSON."""

    brief: Callable[[int], Page]
    full: Callable[[], Page]
    content: Callable[[], Mapping[str, Any]]
    is_slower: bool


def compare_command(arguments: Namespace) -> int:
    """Print what the arguments ask for (see `hfbench.cli`) and return the exit status.

    Raises `UserError` for unknown names, metrics, axes and filters, for sides without results, and where no point is on
    both sides: that nothing is slower would be said of nothing.
    """
    console = standard_output(_WIDTH_WITHOUT_TERMINAL)  # first: DVC puts something else in its place
    metrics = choose_metrics(arguments.metric)
    options = Options(metrics, _threshold(arguments.threshold), arguments.across_environments)
    if arguments.axis is not None:
        answer = _of_axis(arguments, options)
    elif arguments.reference is not None:
        raise UserError("--reference says which value of --axis the others stand against. Add --axis.")
    elif is_history(arguments.names):
        answer = _of_history(arguments, options)
    else:
        answer = _of_sides(arguments, options)
    if arguments.format == "json":
        print(readable_json(answer.content()))
    elif arguments.format == "markdown":
        print(markdown(answer.full()), end="")
    else:
        print_page(answer.brief(console.width), console)
    return 1 if arguments.fail_on == "slower" and answer.is_slower else 0


def _of_sides(arguments: Namespace, options: Options) -> _Answer:
    names = {0: ["HEAD", WORKSPACE], 1: [*arguments.names, WORKSPACE]}.get(len(arguments.names), arguments.names)
    baseline, candidate = (_side(name, arguments.filter) for name in names)
    comparison = compare_sides(baseline, candidate, options)
    if not comparison.pairing.pairs:
        raise UserError(
            f"{baseline.label} and {candidate.label} have no point in common: {baseline.configurations.height} and "
            f"{candidate.configurations.height} points that differ in an axis. Compare results of the same sweep."
        )
    return _Answer(
        lambda _: list(brief_page(comparison)),
        lambda: list(full_page(comparison)),
        lambda: {"schema_version": _SCHEMA_VERSION, **_comparison_json(comparison)},
        comparison.is_slower,
    )


def _of_axis(arguments: Namespace, options: Options) -> _Answer:
    if len(arguments.names) > 1:
        raise UserError(f"--axis compares within one side, and {len(arguments.names)} were named. Name one.")
    side = _side(arguments.names[0] if arguments.names else WORKSPACE, arguments.filter)
    comparison = compare_axis(side, arguments.axis, arguments.reference, options)
    return _Answer(
        lambda _: list(axis_page(comparison, is_full=False)),
        lambda: list(axis_page(comparison, is_full=True)),
        lambda: {"schema_version": _SCHEMA_VERSION, **_axis_json(comparison)},
        comparison.is_slower,
    )


def _of_history(arguments: Namespace, options: Options) -> _Answer:
    if options.across_environments:
        raise UserError("A history never mixes machines. Compare two revisions with --across-environments instead.")
    history = read_history(arguments.names, options.metrics, options.threshold, arguments.filter)
    shown = options.metrics if arguments.metric else (HEADLINE,)
    return _Answer(
        lambda width: history_page(history, shown, width),
        lambda: history_page(history, shown, _MARKDOWN_WIDTH),
        lambda: _history_json(history),
        history.is_slower,
    )


def _side(name: str, condition: str | None) -> Side:
    side = read_side(name)
    if condition is not None:
        side = side.filtered(condition)
    if side.points.is_empty():
        why = f"--filter {condition!r} keeps no point of {side.label}." if condition else f"{side.label} has no points."
        raise UserError(why)
    return side


def _threshold(asked: float | None) -> float:
    """Return the threshold asked for, or that of params.yaml, or else the default."""
    if asked is not None:
        return asked
    params: Any = read_yaml(PARAMS) if PARAMS.exists() else {}
    section = params.get("compare") if isinstance(params, Mapping) else None
    value = section.get("threshold", DEFAULT_THRESHOLD) if isinstance(section, Mapping) else DEFAULT_THRESHOLD
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError(f"{PARAMS}: compare.threshold is {value!r}; expected a share between 0 and 1, such as 0.02.")
    return float(value)


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for other programs.

    Ratios are candidate over baseline; `faster` and `slower` mean better and worse, also of memory and energy.
    """
    return {
        "baseline": _side_json(comparison.baseline),
        "candidate": _side_json(comparison.candidate),
        "threshold": comparison.options.threshold,
        "across_environments": comparison.options.across_environments,
        "environment_differences": list(comparison.environment_differences),
        "tests": comparison.tests,
        "slower": comparison.is_slower,
        "metrics": [_metric_json(comparison, metric) for metric in comparison.options.metrics],
        "pairs": _pairs_json(comparison),
        "status_changes": [_status_change_json(pair) for pair in comparison.pairing.changed],
        "only_baseline": [_point_json(point) for point in comparison.pairing.only_baseline],
        "only_candidate": [_point_json(point) for point in comparison.pairing.only_candidate],
        "changes": [vars(change) for change in comparison.changes],
        "notes": list(comparison.notes),
    }


def _side_json(side: Side) -> dict[str, Any]:
    """Return what a side is."""
    committed_at = side.committed_at.isoformat() if side.committed_at else None
    return {"label": side.label, "revision": side.revision, "committed_at": committed_at, "subject": side.subject}


def _ratio_json(ratio: Ratio | None, limits: Interval | None) -> dict[str, float | None]:
    """Return a ratio with the interval that decided, null where there is none."""
    return {"ratio": ratio.estimate if ratio else None, **_limits_json(limits)}


def _metric_json(comparison: Comparison, metric: ComparedMetric) -> dict[str, Any]:
    mean = comparison.means[metric.name]
    return {
        "metric": metric.name,
        "unit": metric.metric.unit,
        "higher_is_better": metric.metric.higher_is_better,
        "verdicts": comparison.counts(metric),
        "geometric_mean": {**_ratio_json(mean.ratio, mean.interval), "pairs": mean.pairs},
    }


def _pairs_json(comparison: Comparison) -> list[dict[str, Any]]:
    pairs: dict[Axes, dict[str, Any]] = {}
    for each in comparison.judged:
        pair = each.pair
        found = pairs.setdefault(
            pair.axes,
            {
                "point": comparison.labels[pair.axes],
                "configuration": pair.baseline.axes,
                "output_differs": list(pair.output_differs),
                "metrics": {},
            },
        )
        found["metrics"][each.metric.name] = _judged_json(each)
    return list(pairs.values())


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
        **_ratio_json(contrast.ratio, judged.verdict.interval),
        "p_value": p_value(contrast.ratio) if contrast.ratio else None,
        "adjusted_p_value": judged.adjusted_p_value,
    }


def _status_change_json(pair: Pair) -> dict[str, Any]:
    return {
        "configuration": pair.baseline.axes,
        "is_regression": pair.is_regression,
        "baseline": _status_json(pair.baseline),
        "candidate": _status_json(pair.candidate),
    }


def _status_json(point: ComparedPoint) -> dict[str, Any]:
    rounds = len(point.statuses)
    return {"status": point.status, "rounds_ok": point.rounds_ok, "rounds": rounds, "reason": point.reason}


def _point_json(point: ComparedPoint) -> dict[str, Any]:
    return {"configuration": point.axes, **_status_json(point)}


def _axis_json(comparison: AxisComparison) -> dict[str, Any]:
    """Return the comparison of an axis for other programs; a winner's ratio is that of the best over the next."""
    return {
        "side": _side_json(comparison.side),
        "axis": comparison.axis,
        "reference": comparison.reference,
        "winners": [_winner_json(winner, comparison.axis) for winner in comparison.winners],
        "comparisons": [{"value": value, **_comparison_json(each)} for value, each in comparison.comparisons],
    }


def _winner_json(winner: AxisWinner, axis: str) -> dict[str, Any]:
    return {
        "metric": winner.metric.name,
        "configuration": {name: value for name, value in winner.place.items() if name != axis},
        "value": winner.value,
        "next": winner.rival,
        "verdict": winner.verdict.word,
        "reason": winner.verdict.reason,
        "best": winner.contrast.candidate,
        **_ratio_json(winner.contrast.ratio, winner.verdict.interval),
        "left_out": list(winner.left_out),
    }


def _history_json(history: History) -> dict[str, Any]:
    """Return everything for other programs: rows, and for each series of each metric its values and change points.

    `row` and `previous_row` are places in `rows`; ratios are the level after over the level before.
    """
    return {
        "method": METHOD,
        "threshold": history.threshold,
        "rows": [
            {
                "name": row.name,
                "commit": row.commit,
                "committed_at": row.committed_at.isoformat() if row.committed_at else None,
                "subject": row.subject,
                "environment": row.machine,
                "commits_without_results_before": unmeasured,
            }
            for row, unmeasured in zip(history.rows, history.unmeasured, strict=False)
        ],
        "series": [_series_json(series) for series in history.series],
        "notes": notes_of(history),
    }


def _series_json(series: Series) -> dict[str, Any]:
    """Return a series for other programs: `row` and `previous_row` are places among the rows of the history."""
    return {
        "configuration": series.configuration,
        "metric": series.metric.name,
        "unit": series.metric.metric.unit,
        "higher_is_better": series.metric.metric.higher_is_better,
        "environment": series.machine,
        "values": [
            {
                "row": value.commit,
                "estimate": value.result.estimate,
                **_limits_json(value.result.interval),
                "rounds": value.result.rounds,
                "same_measurement_as_before": value.is_carried,
                "output_differs": value.result.output_differs,
            }
            for value in series.values
        ],
        "noise_known": series.changes is not None,
        "changes": [
            {
                "row": change.commit,
                "previous_row": change.previous,
                "verdict": change.verdict,
                "ratio": change.ratio.estimate,
                **_limits_json(change.ratio),
                "p_value": change.p_value,
            }
            for change in series.changes or ()
        ],
    }


def _limits_json(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}
