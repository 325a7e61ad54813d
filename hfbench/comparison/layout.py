"""A comparison as tables of text: the same for the terminal and for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from hfbench.comparison.compared import ComparedMetric, headline
from hfbench.comparison.comparison import Comparison, Judged, PairResult
from hfbench.comparison.verdicts import FASTER, INCOMPARABLE, SAME, SLOWER, UNDECIDED
from hfbench.comparison.wording import change, counts_text, mean_text, unit_of, value_text, verdict_text
from hfbench.reporting.numbers import MISSING
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import point_label

# Of more points only the notable ones are shown on a terminal; the other formats hold all.
MOST_ROWS = 40
OUTPUT_MARK = "!"
_ORDER = (SLOWER, FASTER, INCOMPARABLE, UNDECIDED, SAME)


@dataclass(frozen=True)
class Row:
    """One row of a table of text, and the verdict that colours it, if it is about one."""

    cells: tuple[str, ...]
    verdict: str | None = None


@dataclass(frozen=True)
class TextTable:
    """A title, the header with the alignment of each column (`left` or `right`), rows, and what is left out."""

    title: str
    header: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    footer: str = ""


def labels(comparison: Comparison) -> dict[tuple[object, ...], str]:
    """Return a short name for each point of either side, by the axes that differ between them."""
    pairing = comparison.pairing
    points = [*(pair.baseline for pair in pairing.pairs), *pairing.only_baseline, *pairing.only_candidate]
    varying = [axis for axis in CONFIGURATION_AXES if len({point.axes[axis] for point in points}) > 1]
    return {tuple(point.axes.values()): point_label(point.axes, varying) for point in points}


def metric_table(comparison: Comparison, metric: ComparedMetric, most_rows: int | None = None) -> TextTable | None:
    """Return the pairs of one metric, a row each; None where no pair has it.

    Of more pairs than `most_rows`, those that are the same or undecided are left out, and the footer says so.
    """
    pairs = comparison.judged(metric)
    if not pairs:
        return None
    shown = pairs if most_rows is None or len(pairs) <= most_rows else notable(pairs)[:most_rows]
    unit, size = unit_of(
        metric, (value for _, each in pairs for value in (each.contrast.baseline, each.contrast.candidate))
    )
    names = labels(comparison)
    rows = [
        Row(
            (
                _marked(names[result.pair.axes], result),
                value_text(each.contrast.baseline, size),
                value_text(each.contrast.candidate, size),
                *change(each),
                verdict_text(metric, each),
            ),
            each.verdict.word,
        )
        for result, each in shown
    ]
    header = headers(
        "point", *(f"{name} ({unit})>" for name in comparison.side_names), "change>", "95% interval>", "verdict"
    )
    hidden = comparison.counts(metric)
    for _, each in shown:
        hidden[each.verdict.word] -= 1
    left_out = (
        f"Not shown: {counts_text(hidden, metric)}. --format markdown and json have them all."
        if len(shown) < len(pairs)
        else ""
    )
    return TextTable(_title(comparison, metric), header, tuple(rows), left_out)


def overview_table(comparison: Comparison, metrics: Sequence[ComparedMetric]) -> TextTable | None:
    """Return a row for each of these metrics: its geometric mean, the verdicts, and the largest change called."""
    names, rows = labels(comparison), []
    for metric in metrics:
        pairs = comparison.judged(metric)
        if not pairs:
            continue
        called = [pair for pair in notable(pairs) if pair[1].verdict.word in (SLOWER, FASTER)]
        largest = max(called, key=lambda pair: _size(pair[1]), default=None)
        where = f"{change(largest[1])[0]} {_marked(names[largest[0].pair.axes], largest[0])}" if largest else ""
        worst = next((word for word in _ORDER if comparison.counts(metric).get(word)), None)
        rows.append(
            Row(
                (
                    metric.label,
                    mean_text(comparison.means[metric.name]) or MISSING,
                    counts_text(comparison.counts(metric), metric),
                    where,
                ),
                worst if worst in (SLOWER, FASTER) else None,
            )
        )
    header = headers("metric", "geometric mean>", "verdicts", "largest change")
    return TextTable("Other metrics", header, tuple(rows)) if rows else None


def notable_table(comparison: Comparison) -> TextTable | None:
    """Return a row for each change that is called, of any metric: slower first, the largest first."""
    names = labels(comparison)
    called = [
        (metric, result, each)
        for metric in comparison.metrics
        for result, each in comparison.judged(metric)
        if each.verdict.word in (SLOWER, FASTER)
    ]
    called.sort(key=lambda row: (_ORDER.index(row[2].verdict.word), -_size(row[2])))
    rows = []
    for metric, result, each in called:
        unit, size = unit_of(metric, (each.contrast.baseline, each.contrast.candidate))
        values = (f"{value_text(value, size)} {unit}" for value in (each.contrast.baseline, each.contrast.candidate))
        cells = (
            metric.label,
            _marked(names[result.pair.axes], result),
            *values,
            *change(each),
            verdict_text(metric, each),
        )
        rows.append(Row(cells, each.verdict.word))
    header = headers(
        "metric", "point", *(f"{name}>" for name in comparison.side_names), "change>", "95% interval>", "verdict"
    )
    return TextTable("Changes", header, tuple(rows)) if rows else None


def findings(comparison: Comparison) -> list[tuple[str, bool]]:
    """Return sentences on points whose status changed and on points of one side, and whether each is a regression."""
    names = labels(comparison)
    found = [
        (f"{names[each.pair.axes]}: {each.sentence}", each.is_regression)
        for each in sorted(comparison.status_changes, key=lambda each: not each.is_regression)
    ]
    sides = (("baseline", comparison.pairing.only_baseline), ("candidate", comparison.pairing.only_candidate))
    return found + [
        (f"only in the {name} ({len(points)}): {_some([names[tuple(point.axes.values())] for point in points])}", False)
        for name, points in sides
        if points
    ]


def incomparable_reasons(comparison: Comparison) -> list[str]:
    """Return each reason for `incomparable` once, with how many points it holds for."""
    reasons: dict[str, set[object]] = {}
    for result in comparison.results:
        for each in result.judged.values():
            if each.verdict.word == INCOMPARABLE and each.verdict.reason:
                reasons.setdefault(each.verdict.reason, set()).add(result.pair.axes)
    return [f"{reason} ({len(points)} point{'s' * (len(points) > 1)})" for reason, points in reasons.items()]


def full_metrics(comparison: Comparison) -> tuple[ComparedMetric, ...]:
    """Return the metrics that have a table of their own."""
    return headline(comparison.metrics)


def notable(pairs: Sequence[tuple[PairResult, Judged]]) -> list[tuple[PairResult, Judged]]:
    """Return the pairs that are not the same or undecided, or whose output differs: slower first, largest first."""
    kept = [pair for pair in pairs if pair[1].verdict.word in _ORDER[:3] or pair[0].output_differs]
    return sorted(kept, key=lambda pair: (_ORDER.index(pair[1].verdict.word), -_size(pair[1])))


def headers(*titles: str) -> tuple[tuple[str, str], ...]:
    """Return each title with its alignment: to the right where it ends in >."""
    return tuple((title.removesuffix(">"), "right" if title.endswith(">") else "left") for title in titles)


def _size(judged: Judged) -> float:
    return abs(log(judged.contrast.ratio.estimate)) if judged.contrast.ratio else 0.0


def _title(comparison: Comparison, metric: ComparedMetric) -> str:
    mean = comparison.means[metric.name]
    better = "more is better" if metric.metric.higher_is_better else "less is better"
    text = mean_text(mean)
    return f"{metric.label} · {better}" + (
        f" · geometric mean of {mean.pairs}: {text}" if text and mean.pairs > 1 else ""
    )


def _marked(label: str, result: PairResult) -> str:
    return f"{label} {OUTPUT_MARK}" if result.output_differs else label


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
