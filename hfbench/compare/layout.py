"""The values of an axis as tables of text: which is best for each workload."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log

from hfbench.compare.axis import AxisComparison, Winner, value_name
from hfbench.compare.compare import Comparison, Judged, Mean, PairResult
from hfbench.compare.contrasts import FASTER, IDENTICAL, INCOMPARABLE, SAME, SLOWER, UNDECIDED, VERDICTS
from hfbench.compare.pairs import ComparedMetric, headline
from hfbench.compare.side import Side
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.report.words import MISSING, memory_unit, significant
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.decidability import MOST_MORE_ROUNDS
from hfbench.tables.store import point_label

_SHORT_COMMIT = 7
_MILLISECONDS = ("ms", 1e-3)
_SAYS_NOTHING = 10  # times the baseline, or a share of it as small


def unit_of(metric: ComparedMetric, values: Iterable[float | None]) -> tuple[str, float]:
    """Return the unit in which these values are short, and its size in the unit of the metric."""
    largest = max((value for value in values if value is not None), default=0.0)
    unit = metric.metric.unit
    if unit == "bytes":
        return memory_unit(largest)
    if unit == "s":
        return ("s", 1.0) if largest >= 1 else _MILLISECONDS
    return {"tokens/s": "tok/s", "J/token": "J/tok"}.get(unit, unit), 1.0


def percent(ratio: float) -> str:
    """Return a ratio as a change: +4.6%, −0.3%, +120%."""
    change = 100 * (ratio - 1)
    digits = 0 if abs(change) >= 99.95 else 1
    text = f"{abs(change):.{digits}f}"
    sign = "" if not float(text) else "+" if change > 0 else "−"
    return f"{sign}{text}%"


def limits(interval: Interval) -> str:
    """Return the limits of a ratio's interval as changes, −1.3 … +0.8%, unless they say nothing."""
    if interval.high > _SAYS_NOTHING or interval.low * _SAYS_NOTHING < 1:
        return "not known"
    return f"{percent(interval.low).removesuffix('%')} … {percent(interval.high)}"


def change(judged: Judged) -> tuple[str, str]:
    """Return the change and its interval; dashes where there is no ratio with one."""
    contrast = judged.contrast
    if contrast.obstacle is not None or contrast.baseline is None or contrast.candidate is None:
        return MISSING, MISSING
    if contrast.ratio is None:
        return percent(contrast.candidate / contrast.baseline), MISSING
    return percent(contrast.ratio.estimate), limits(contrast.ratio.interval())


def verdict_word(metric: ComparedMetric, word: str) -> str:
    """Return the verdict in the metric's words: `less` and `more` of memory and energy."""
    return {FASTER: metric.better, SLOWER: metric.worse}.get(word, word)


def verdict_text(metric: ComparedMetric, judged: Judged) -> str:
    """Return the verdict with what is short to say of it."""
    word = verdict_word(metric, judged.verdict.word)
    if judged.verdict.word == UNDECIDED:
        return f"{word}: {more_rounds(judged)}"
    if judged.contrast.method == IDENTICAL and judged.verdict.word == SAME:
        return f"{word}: not measured again"
    return word


def more_rounds(judged: Judged) -> str:
    """Return how many more rounds would decide, in a word or two."""
    more, was_tested = judged.verdict.more_rounds, judged.adjusted_p_value is not None
    if more is None:
        return f"> {MOST_MORE_ROUNDS} more rounds"
    return f"{'~' if was_tested else '≥ '}{more} more round{'s' * (more > 1)}"


def counts_text(counts: dict[str, int], metric: ComparedMetric | None = None) -> str:
    """Return how many pairs got each verdict: 2 slower, 14 same, 1 undecided."""
    words = {word: verdict_word(metric, word) if metric else word for word in VERDICTS}
    order = (SLOWER, FASTER, SAME, UNDECIDED, INCOMPARABLE)
    return ", ".join(f"{counts[word]} {words[word]}" for word in order if counts.get(word))


def mean_text(mean: Mean) -> str:
    """Return the geometric mean with its interval, and over how many points; empty where there is none."""
    if mean.ratio is None:
        return ""
    return f"{percent(mean.ratio.estimate)} ({limits(mean.ratio.interval())})"


def side_text(side: Side) -> str:
    """Return a side by its label, short commit, date and subject."""
    parts = [side.label]
    if side.revision and not side.revision.startswith(side.label):
        parts.append(side.revision[:_SHORT_COMMIT])
    if side.committed_at:
        parts.append(side.committed_at.date().isoformat())
    if side.subject:
        parts.append(side.subject)
    return "  ".join(parts)


def summary_sentence(comparison: Comparison, metric: ComparedMetric) -> str:
    """Return one line for one metric: counts of verdicts and the geometric mean."""
    counts = comparison.counts(metric)
    if not counts:
        return f"{metric.label}: no value on either side"
    mean = mean_text(comparison.means[metric.name])
    return f"{metric.label}: {counts_text(counts, metric)}" + (f"; geometric mean {mean}" if mean else "")


def value_text(value: float | None, size: float) -> str:
    """Return a value in a unit of this size."""
    return significant(None if value is None else value / size)


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


def axis_title(comparison: AxisComparison) -> str:
    """Return what is compared, in which results."""
    values = [comparison.reference, *(value for value, _ in comparison.comparisons)]
    return f"{comparison.axis} in {comparison.side.label}: {', '.join(map(value_name, values))}"


def winner_table(comparison: AxisComparison) -> list[TextTable]:
    """Return a table for each metric: a row for each place of the other axes, with the best value and its lead."""
    metrics = dict.fromkeys(winner.metric for winner in comparison.winners)
    return [_table(comparison, metric) for metric in metrics]


def _table(comparison: AxisComparison, metric: ComparedMetric) -> TextTable:
    winners = [winner for winner in comparison.winners if winner.metric is metric]
    places = [dict(zip(CONFIGURATION_AXES, winner.axes, strict=True)) for winner in winners]
    varying = [axis for axis in CONFIGURATION_AXES if len({place[axis] for place in places}) > 1]
    unit, size = unit_of(metric, (winner.contrast.candidate for winner in winners))
    rows = tuple(
        Row(
            (
                point_label(place, varying),
                value_name(winner.value),
                value_text(winner.contrast.candidate, size),
                *_lead(winner),
                winner_text(winner),
            ),
            winner.verdict.word,
        )
        for place, winner in zip(places, winners, strict=True)
    )
    header = headers("workload", "best", f"median ({unit})>", "against the next>", "95% interval>", "")
    return TextTable(f"Best {comparison.axis} by {metric.label}", header, rows)


def _lead(winner: Winner) -> tuple[str, str]:
    ratio = winner.contrast.ratio
    if ratio is None:
        return MISSING, MISSING
    return percent(ratio.estimate), limits(ratio.interval())


def winner_text(winner: Winner) -> str:
    """Return whether the best is told apart from the others."""
    others = value_name(winner.runner_up)
    if winner.verdict.word == FASTER:
        text = f"ahead of {others}"
    elif winner.verdict.word == SAME:
        text = f"level with {others}"
    else:
        text = f"not told apart from {others}"
    left_out = f"; {', '.join(map(value_name, winner.left_out))} left out for its output" if winner.left_out else ""
    return text + left_out
