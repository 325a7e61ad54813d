"""What `hfbench compare` answers, in the format that is asked for: a page, or JSON for other programs."""

from argparse import Namespace
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from hfbench.compare.axis import AxisComparison, AxisWinner, compare_axis
from hfbench.compare.compare import Comparison, Judged, Options, compare_sides
from hfbench.compare.history import METHOD, History, history_page, is_history, notes_of, read_history
from hfbench.compare.layout import axis_page, brief_page, full_page
from hfbench.compare.pairs import ComparedMetric, ComparedPoint, choose_metrics, headline, named
from hfbench.compare.series import Series
from hfbench.compare.side import WORKSPACE, Side, read_side
from hfbench.core.errors import UserError, reader_may_leave
from hfbench.core.files import readable_json
from hfbench.core.results import PARAMS
from hfbench.params.schema import read_yaml, threshold_of
from hfbench.report.pages import Block, markdown, print_page, standard_output
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import Ratio
from hfbench.statistics.verdicts import p_value

_SCHEMA_VERSION = 1
_WIDTH_WITHOUT_TERMINAL = 100
_MARKDOWN_WIDTH = 120  # of the tables of a history, which are split to fit


def compare_command(arguments: Namespace) -> int:
    """Print what the arguments ask for (see `hfbench.cli`) and return the exit status.

    Raises `UserError` for unknown names, metrics, axes and filters, for sides without results, and where no point is on
    both sides: that nothing is slower would be said of nothing.
    """
    console = standard_output(_WIDTH_WITHOUT_TERMINAL)  # first: DVC puts something else in its place
    metrics = choose_metrics(arguments.metric)
    options = Options(metrics, _threshold(arguments.threshold), arguments.across_environments)
    answer = _answer(arguments, options)
    if arguments.metric:
        _require_values(answer, metrics)
    with reader_may_leave():
        if arguments.format == "json":
            print(readable_json(_content(answer)))
        elif arguments.format == "markdown":
            print(markdown(list(_page(answer, metrics, _MARKDOWN_WIDTH, is_full=True))), end="")
        else:
            print_page(list(_page(answer, metrics, console.width, is_full=False)), console)
    return 1 if arguments.fail_on == "slower" and answer.is_slower else 0


def _answer(arguments: Namespace, options: Options) -> Comparison | AxisComparison | History:
    names = arguments.names
    if arguments.axis is not None:
        if len(names) > 1:
            raise UserError(f"--axis compares within one side, and {len(names)} were named. Name one.")
        side = _side(names[0] if names else WORKSPACE, arguments.filter)
        compared = compare_axis(side, arguments.axis, arguments.reference, options)
        if not any(each.pairing.pairs for _, each in compared.comparisons):
            raise UserError(
                f"--axis {arguments.axis}: no two points of {side.label} differ in it alone, so that nothing can be "
                "compared. Measure its values with the same other axes."
            )
        return compared
    if arguments.reference is not None:
        raise UserError("--reference says which value of --axis the others stand against. Add --axis.")
    if is_history(names):
        if options.across_environments:
            raise UserError("A history never mixes machines. Compare two revisions with --across-environments instead.")
        return read_history(names, options.metrics, options.threshold, arguments.filter)
    both = {0: ["HEAD", WORKSPACE], 1: [*names, WORKSPACE]}.get(len(names), names)
    baseline, candidate = (_side(name, arguments.filter) for name in both)
    comparison = compare_sides(baseline, candidate, options)
    if not comparison.pairing.pairs:
        raise UserError(
            f"{baseline.label} and {candidate.label} have no point in common: {baseline.configurations.height} and "
            f"{candidate.configurations.height} points that differ in an axis. Compare results of the same sweep."
        )
    return comparison


def _side(name: str, condition: str | None) -> Side:
    side = read_side(name)
    if condition is not None:
        side = side.filtered(condition)
    if side.points.is_empty():
        why = f"--filter {condition!r} keeps no point of {side.label}." if condition else f"{side.label} has no points."
        raise UserError(why)
    return side


def _require_values(answer: Comparison | AxisComparison | History, metrics: Sequence[ComparedMetric]) -> None:
    """Raise `UserError` where points were compared and none has a value of a metric that was asked for by its name."""
    if isinstance(answer, History):
        known = {series.metric for series in answer.series}
        is_any = bool(answer.rows)
    else:
        comparisons = [each for _, each in answer.comparisons] if isinstance(answer, AxisComparison) else [answer]
        known = {judged.metric for each in comparisons for judged in each.judged}
        is_any = any(each.pairing.compared for each in comparisons)
    missing = [metric.name for metric in metrics if metric not in known]
    if is_any and missing:
        raise UserError(f"--metric {missing[0]}: no point that is compared has a value of it.")


def _threshold(asked: float | None) -> float:
    """Return the threshold asked for, or that of params.yaml, or else the default."""
    return asked if asked is not None else threshold_of(read_yaml(PARAMS) if PARAMS.exists() else {})


def _page(
    answer: Comparison | AxisComparison | History, metrics: Sequence[ComparedMetric], width: int, *, is_full: bool
) -> Iterable[Block]:
    """Return the answer in brief, as wide as `width` characters, or in full."""
    if isinstance(answer, Comparison):
        return full_page(answer) if is_full else brief_page(answer)
    if isinstance(answer, AxisComparison):
        return axis_page(answer, is_full=is_full)
    return history_page(answer, headline(metrics), width)


def _content(answer: Comparison | AxisComparison | History) -> dict[str, Any]:
    """Return the answer for other programs; of an axis, a winner's ratio is that of the best over the next."""
    if isinstance(answer, History):
        return _history_json(answer)
    if isinstance(answer, Comparison):
        return {"schema_version": _SCHEMA_VERSION, **_comparison_json(answer)}
    return {
        "schema_version": _SCHEMA_VERSION,
        "side": _side_json(answer.side),
        "axis": answer.axis,
        "reference": answer.reference,
        "winners": [_winner_json(winner, answer.axis) for winner in answer.winners],
        "comparisons": [{"value": value, **_comparison_json(each)} for value, each in answer.comparisons],
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for other programs.

    Ratios are candidate over baseline; `faster` and `slower` mean better and worse, also of memory and energy.
    """
    pairing, by_pair = comparison.pairing, groupby(comparison.judged, key=lambda each: each.pair)
    return {
        "baseline": _side_json(comparison.baseline),
        "candidate": _side_json(comparison.candidate),
        "threshold": comparison.options.threshold,
        "across_environments": comparison.options.across_environments,
        "environment_differences": list(comparison.environment_differences),
        "tests": comparison.tests,
        "slower": comparison.is_slower,
        "metrics": [_metric_json(comparison, metric) for metric in comparison.options.metrics],
        "pairs": [
            {
                "point": comparison.labels[pair.axes],
                "configuration": pair.baseline.axes,
                "output_differs": list(pair.output_differs),
                "nll_change": {"baseline": pair.baseline.nll_change, "candidate": pair.candidate.nll_change},
                "metrics": {each.metric.name: _judged_json(each) for each in judged},
            }
            for pair, judged in by_pair
        ],
        "status_changes": [
            {
                "configuration": pair.baseline.axes,
                "is_regression": pair.is_regression,
                "baseline": _status_json(pair.baseline),
                "candidate": _status_json(pair.candidate),
            }
            for pair in pairing.changed
        ],
        "only_baseline": [{"configuration": each.axes, **_status_json(each)} for each in pairing.only_baseline],
        "only_candidate": [{"configuration": each.axes, **_status_json(each)} for each in pairing.only_candidate],
        "changes": [vars(change) for change in comparison.changes],
        "notes": list(comparison.notes),
    }


def _side_json(side: Side) -> dict[str, Any]:
    """Return what a side is."""
    committed_at = _time(side.committed_at)
    return {"label": side.label, "revision": side.revision, "committed_at": committed_at, "subject": side.subject}


def _time(committed_at: datetime | None) -> str | None:
    return committed_at.isoformat() if committed_at else None


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


def _status_json(point: ComparedPoint) -> dict[str, Any]:
    rounds = len(point.statuses)
    return {"status": point.status, "rounds_ok": point.rounds_ok, "rounds": rounds, "reason": point.reason}


def _winner_json(winner: AxisWinner, axis: str) -> dict[str, Any]:
    return {
        "metric": winner.metric.name,
        "configuration": {name: value for name, value in named(winner.axes).items() if name != axis},
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
                "committed_at": _time(row.committed_at),
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
        "configuration": named(series.axes),
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
