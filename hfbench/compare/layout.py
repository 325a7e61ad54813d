"""The pages of a comparison: a brief one for a terminal, and a full one for Markdown, with most of it folded."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import log

from hfbench.compare.axis import AxisComparison, payoff, prices_in_quality
from hfbench.compare.compare import Comparison, Judged
from hfbench.compare.pairs import ComparedMetric, Pair, headline, limits, named, percent
from hfbench.compare.side import Side
from hfbench.core.point import value_text
from hfbench.report.pages import (
    Block,
    Bullet,
    Bullets,
    Cell,
    Column,
    Folded,
    Heading,
    Paragraph,
    Role,
    Table,
    bullets,
    number,
)
from hfbench.report.words import MISSING, counted, significant
from hfbench.statistics.ratios import IDENTICAL
from hfbench.statistics.verdicts import FASTER, INCOMPARABLE, MOST_MORE_ROUNDS, SAME, SLOWER, UNDECIDED, Verdict
from hfbench.tables.store import labels_of

_TITLE = "hfbench compare"
# Of more points only the notable ones are shown on a terminal; the other formats hold all.
_MOST_ROWS = 40
_MOST_NOTABLE = 20
_MOST_CHANGES = 8  # of one kind
_MOST_POINTS = 6  # named in one sentence
_SHORT_COMMIT = 7
_OUTPUT_MARK = "!"
_COUNTED = (SLOWER, FASTER, SAME, UNDECIDED, INCOMPARABLE)
_ORDER = (SLOWER, FASTER, INCOMPARABLE, UNDECIDED, SAME)
_CALLED = (SLOWER, FASTER)
_ROLES: dict[str, Role] = {FASTER: "good", SLOWER: "bad", SAME: "quiet", UNDECIDED: "unsure", INCOMPARABLE: "apart"}


def brief_page(comparison: Comparison) -> Iterator[Block]:
    """Yield the sides, what changed, the verdicts, what fails now, and what to beware of."""
    for name, side in (("baseline ", comparison.baseline), ("candidate", comparison.candidate)):
        yield Paragraph(f"{name}  {_side_text(side)}", "strong", is_one_line=True)
    yield _machines(comparison)
    yield bullets(_change_lines(comparison) or ["nothing that hfbench records"], "What changed")
    yield from _brief_verdicts(comparison)
    yield bullets(comparison.notes, role="quiet")


def _brief_verdicts(comparison: Comparison) -> Iterator[Block]:
    metrics = comparison.options.metrics
    full = headline(metrics)
    for metric in full:
        table = _metric_table(comparison, metric, _title(comparison, metric), _MOST_ROWS)
        yield table or Heading(f"{metric.label}: no value on either side")
    yield _overview_table(comparison, [metric for metric in metrics if metric not in full], "Other metrics")
    yield bullets(_incomparable_reasons(comparison), "Incomparable")
    yield Bullets((*_worse(comparison), *_other_points(comparison)), "Points")


def full_page(comparison: Comparison) -> Iterator[Block]:
    """Yield the verdicts and what fails now, and everything else to unfold."""
    yield Heading(_TITLE, level=1)
    sides = (("baseline", comparison.baseline), ("candidate", comparison.candidate))
    yield Paragraph("\n".join(f"{name}: {_side_text(side)}" for name, side in sides))
    yield _machines(comparison)
    yield from _full_verdicts(comparison)


def axis_page(comparison: AxisComparison, *, is_full: bool) -> Iterator[Block]:
    """Yield which value is best where, then each value against the reference: in brief, or with the rest to unfold."""
    values = [comparison.reference, *(value for value, _ in comparison.comparisons)]
    title = f"{comparison.axis} in {comparison.side.label}: {', '.join(map(value_text, values))}"
    yield Heading(f"{_TITLE}: {title}", level=1) if is_full else Paragraph(title, "strong", is_one_line=True)
    yield from _winner_tables(comparison)
    metric = headline(comparison.comparisons[0][1].options.metrics)[0]
    told = {value_text(value): payoff(each, metric) for value, each in comparison.comparisons}
    title = f"Where it pays, against {value_text(comparison.reference)} by {metric.label}"
    yield bullets((f"{value}: {text}" for value, text in told.items() if text), title)
    prices = (f"{value_text(value)}: {text}" for value, text in prices_in_quality(comparison).items())
    yield bullets(prices, "Price in quality: the prompt's negative log-likelihood less the reference's")
    for _, each in comparison.comparisons:
        yield Heading(" against ".join(reversed(each.side_names)), level=2)
        yield from _full_verdicts(each) if is_full else _brief_verdicts(each)
    if not is_full:
        yield bullets(dict.fromkeys(note for _, each in comparison.comparisons for note in each.notes), role="quiet")


def _full_verdicts(comparison: Comparison) -> Iterator[Block]:
    metrics = comparison.options.metrics
    for metric in headline(metrics):
        mean, counts = _mean_text(comparison, metric), _counts_text(comparison.counts(metric), metric)
        told = counts + (f"; geometric mean {mean}" if mean else "")
        yield Paragraph(f"{metric.label}: {told or 'no value on either side'}", "strong")
    yield Bullets(tuple(_worse(comparison)), "Fails now")
    yield _notable_table(comparison)
    yield bullets(_incomparable_reasons(comparison), "Incomparable")
    yield Folded("What changed", (bullets(f"{each.kind}: {each.sentence}" for each in comparison.changes),))
    yield Folded("Other points", (Bullets(tuple(_other_points(comparison))),))
    yield Folded("All metrics", (_overview_table(comparison, metrics),))
    for metric in metrics:
        if table := _metric_table(comparison, metric):
            yield Folded(_title(comparison, metric), (table,))
    yield Folded("How to read this", (bullets(comparison.notes),))


def _label(comparison: Comparison, pair: Pair) -> str:
    """Return the point, marked where its output is not its reference's."""
    label = comparison.labels[pair.axes]
    return f"{label} {_OUTPUT_MARK}" if pair.output_differs else label


def _size(judged: Judged) -> float:
    ratio = judged.contrast.ratio
    return abs(log(ratio.estimate)) if ratio else 0.0


def _change(judged: Judged) -> str:
    """Return the change, a dash where there is no ratio."""
    contrast = judged.contrast
    if contrast.obstacle is not None or contrast.baseline is None or contrast.candidate is None:
        return MISSING
    return percent(contrast.ratio.estimate if contrast.ratio else contrast.candidate / contrast.baseline)


def _values(judged: Judged) -> tuple[float | None, float | None]:
    return judged.contrast.baseline, judged.contrast.candidate


def _cells(judged: Judged, unit_size: float, unit: str = "") -> list[str]:
    """Return the values on both sides, the change with the interval that decided, and the verdict."""
    values = (significant(None if value is None else value / unit_size) + unit for value in _values(judged))
    change, verdict = _change(judged), judged.metric.word(judged.verdict.word)
    if verdict == UNDECIDED:
        verdict += f": {_more_rounds(judged.verdict)}"
    elif verdict == SAME and judged.contrast.method == IDENTICAL:
        verdict += ": not measured again"
    return [*values, change, limits(judged.verdict.interval) if change != MISSING else MISSING, verdict]


def _heads(comparison: Comparison, *words: str, unit: str = "") -> list[Column]:
    """Return the heads above these cells, after those of these words."""
    values = (number(name, unit) for name in comparison.side_names)
    return [*map(Column, words), *values, number("change"), number("95% interval"), Column("verdict")]


def _worst_first(entries: Iterable[Judged], words: Container[str]) -> list[Judged]:
    """Return those with one of these verdicts, the worst and largest first."""
    kept = [each for each in entries if each.verdict.word in words]
    return sorted(kept, key=lambda each: (_ORDER.index(each.verdict.word), -_size(each)))


def _metric_table(
    comparison: Comparison, metric: ComparedMetric, title: str = "", most: int | None = None
) -> Table | None:
    """Return a row for each pair of one metric; None without any.

    Of more pairs than `most`, those that are the same or undecided are left out, and the footer says so.
    """
    entries = comparison.of_metric(metric)
    shown, footer = entries, ""
    if most is not None and len(entries) > most:
        notable = [each for each in entries if each.verdict.word in _ORDER[:3] or each.pair.output_differs]
        shown = _worst_first(notable, _ORDER)[:most]
        hidden = Counter(comparison.counts(metric)) - Counter(each.verdict.word for each in shown)
        footer = f"Not shown: {_counts_text(hidden, metric)}. --format markdown and json have them all."
    unit, size = metric.unit_of(value for each in entries for value in _values(each))
    rows = [_coloured([_label(comparison, each.pair), *_cells(each, size)], each.verdict.word) for each in shown]
    heads = _heads(comparison, "point", unit=unit)
    return Table.of_rows(heads, rows, title=title, footer=footer) if entries else None


def _overview_table(comparison: Comparison, metrics: Sequence[ComparedMetric], title: str = "") -> Table:
    """Return a row for each of these metrics: its geometric mean, the verdicts, and the largest change called."""
    rows = []
    for metric in metrics:
        counts = comparison.counts(metric)
        if not counts:
            continue
        called = _worst_first(comparison.of_metric(metric), _CALLED)
        largest = max(called, key=_size, default=None)
        cells = [
            metric.label,
            _mean_text(comparison, metric) or MISSING,
            _counts_text(counts, metric),
            f"{_change(largest)} {_label(comparison, largest.pair)}" if largest else "",
        ]
        rows.append(_coloured(cells, called[0].verdict.word if called else ""))
    heads = [Column("metric"), number("geometric mean"), Column("verdicts"), Column("largest change")]
    return Table.of_rows(heads, rows, title=title)


def _notable_table(comparison: Comparison) -> Table:
    """Return a row for each change that is called, of any metric: slower first, the largest first."""
    by_metric = (each for metric in comparison.options.metrics for each in comparison.of_metric(metric))
    called = _worst_first(by_metric, _CALLED)
    rows = []
    for each in called[:_MOST_NOTABLE]:
        unit, size = each.metric.unit_of(_values(each))
        cells = [each.metric.label, _label(comparison, each.pair), *_cells(each, size, f" {unit}")]
        rows.append(_coloured(cells, each.verdict.word))
    left_out = len(called) - len(rows)
    footer = f"and {left_out} more, in the tables below" if left_out else ""
    return Table.of_rows(_heads(comparison, "metric", "point"), rows, footer=footer)


def _winner_tables(comparison: AxisComparison) -> Iterator[Table]:
    """Yield a table for each metric: a row for each place of the other axes, with the best value and its lead.

    The lead is over the next best value, or the one that the best is not told from.
    """
    for metric, group in groupby(comparison.winners, key=lambda winner: winner.metric):
        winners = list(group)
        unit, size = metric.unit_of(winner.contrast.candidate for winner in winners)
        rows = []
        for label, winner in zip(labels_of([named(winner.axes) for winner in winners]), winners, strict=True):
            ratio, median, rival = winner.contrast.ratio, winner.contrast.candidate, value_text(winner.rival)
            told = {FASTER: f"ahead of {rival}", SAME: f"level with {rival}"}
            text = told.get(winner.verdict.word, f"not told apart from {rival}")
            if winner.verdict.word == UNDECIDED:
                text += f": {_more_rounds(winner.verdict)}"
            if winner.left_out:
                text += f"; {', '.join(map(value_text, winner.left_out))} left out for its output"
            shown = significant(None if median is None else median / size)
            lead = (percent(ratio.estimate) if ratio else MISSING, limits(winner.verdict.interval))
            rows.append(_coloured([label, value_text(winner.value), shown, *lead, text], winner.verdict.word))
        numbers = (number(f"median ({unit})"), number("difference"), number("95% interval"))
        heads = [Column("workload"), Column("best"), *numbers, Column("")]
        yield Table.of_rows(heads, rows, title=f"Best {comparison.axis} by {metric.label}")


def _coloured(cells: Sequence[str], verdict: str) -> list[Cell]:
    """Return the cells of a row whose verdict colours the last one, and where it is a change the one that tells it."""
    role = _ROLES.get(verdict, "")
    coloured = {len(cells) - 1, *([len(cells) - 3] if verdict in _CALLED else [])}
    return [Cell(text, role if place in coloured else "") for place, text in enumerate(cells)]


def _machines(comparison: Comparison) -> Bullets:
    differences = comparison.environment_differences if comparison.options.across_environments else ()
    return bullets(differences, "Two machines, compared on purpose")


def _change_lines(comparison: Comparison) -> list[str]:
    lines, is_on_purpose = [], comparison.options.across_environments
    for kind, group in groupby(comparison.changes, key=lambda change: change.kind):
        changes = [change.sentence for change in group if not (is_on_purpose and kind == "hardware")]
        if len(changes) > _MOST_CHANGES:
            changes[_MOST_CHANGES:] = [f"and {len(changes) - _MOST_CHANGES} more; --format json has them all"]
        lines += [f"{kind if place == 0 else '':<9} {sentence}" for place, sentence in enumerate(changes)]
    return lines


def _worse(comparison: Comparison) -> Iterator[Bullet]:
    """Yield a sentence on each point that fails now, wholly or in some rounds."""
    for pair in comparison.pairing.changed:
        if pair.is_regression:
            yield Bullet(f"{comparison.labels[pair.axes]}: {pair.status_change}", "bad")


def _other_points(comparison: Comparison) -> Iterator[Bullet]:
    """Yield a sentence on each point whose status changed for the better, and one on the points of each side alone."""
    for pair in comparison.pairing.changed:
        if not pair.is_regression:
            yield Bullet(f"{comparison.labels[pair.axes]}: {pair.status_change}")
    sides = {"baseline": comparison.pairing.only_baseline, "candidate": comparison.pairing.only_candidate}
    for name, points in sides.items():
        labels = [comparison.labels[tuple(point.axes.values())] for point in points]
        more = f" and {len(labels) - _MOST_POINTS} more" if len(labels) > _MOST_POINTS else ""
        if labels:
            yield Bullet(f"only in the {name} ({len(labels)}): {', '.join(labels[:_MOST_POINTS])}{more}")


def _incomparable_reasons(comparison: Comparison) -> list[str]:
    """Return each reason for `incomparable` once, with how many points it holds for."""
    reasons: dict[str, set[object]] = {}
    for each in comparison.judged:
        if each.verdict.word == INCOMPARABLE and each.verdict.reason:
            reasons.setdefault(each.verdict.reason, set()).add(each.pair.axes)
    return [f"{reason} ({counted(len(points), 'point')})" for reason, points in reasons.items()]


def _title(comparison: Comparison, metric: ComparedMetric) -> str:
    mean, pairs = _mean_text(comparison, metric), comparison.means[metric.name].pairs
    title = f"{metric.label} · {'more' if metric.metric.higher_is_better else 'less'} is better"
    return f"{title} · geometric mean of {pairs}: {mean}" if mean and pairs > 1 else title


def _mean_text(comparison: Comparison, metric: ComparedMetric) -> str:
    """Return the geometric mean with its interval; empty where there is none."""
    mean = comparison.means[metric.name]
    return f"{percent(mean.ratio.estimate)} ({limits(mean.interval)})" if mean.ratio else ""


def _counts_text(counts: Mapping[str, int], metric: ComparedMetric) -> str:
    """Return how many pairs got each verdict: 2 slower, 14 same, 1 undecided."""
    return ", ".join(f"{counts[word]} {metric.word(word)}" for word in _COUNTED if counts.get(word))


def _more_rounds(verdict: Verdict) -> str:
    """Return how many more rounds would decide, in a word or two: at least so many where there is no interval yet."""
    more = verdict.more_rounds
    if more is None:
        return f"> {MOST_MORE_ROUNDS} more rounds"
    return f"{'~' if verdict.interval else '≥ '}{counted(more, 'more round')}"


def _side_text(side: Side) -> str:
    """Return a side by its label, short commit, date and subject."""
    commit = side.revision[:_SHORT_COMMIT] if side.revision and not side.revision.startswith(side.label) else ""
    day = side.committed_at.date().isoformat() if side.committed_at else ""
    return "  ".join(filter(None, (side.label, commit, day, side.subject)))
