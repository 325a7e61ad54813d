"""A comparison on a terminal."""

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hfbench.compare.axis import AxisComparison, Winner
from hfbench.compare.changes import Change
from hfbench.compare.compare import Comparison, Judged, Mean, PairResult
from hfbench.compare.layout import (
    MOST_ROWS,
    Row,
    TextTable,
    axis_title,
    findings,
    full_metrics,
    incomparable_reasons,
    labels,
    metric_table,
    notable_table,
    overview_table,
    side_text,
    summary_sentence,
    winner_table,
)
from hfbench.compare.pairs import Point, StatusChange
from hfbench.compare.side import Side
from hfbench.core.files import readable_json
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.report.pages import markdown_text
from hfbench.report.words import printable
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import Ratio
from hfbench.statistics.verdicts import FASTER, INCOMPARABLE, SAME, SLOWER, UNDECIDED, interval, p_value

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
        **_ratio(contrast.ratio, judged.verdict.interval),
        "p_value": p_value(contrast.ratio) if contrast.ratio else None,
        "adjusted_p_value": judged.adjusted_p_value,
    }


def _ratio(ratio: Ratio | None, limits: Interval | None) -> dict[str, float | None]:
    """Return a ratio with the interval that decided, null where there is none."""
    low, high = (limits.low, limits.high) if limits else (None, None)
    return {"ratio": ratio.estimate if ratio else None, "low": low, "high": high}


def _mean(mean: Mean) -> dict[str, Any]:
    return {**_ratio(mean.ratio, interval(mean.ratio) if mean.ratio else None), "pairs": mean.pairs}


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
        "next": winner.rival,
        "verdict": winner.verdict.word,
        "reason": winner.verdict.reason,
        "best": winner.contrast.candidate,
        **_ratio(winner.contrast.ratio, winner.verdict.interval),
        "left_out": list(winner.left_out),
    }


_TITLE = "### hfbench compare"
_MOST_NOTABLE = 20


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    sides = (("baseline", comparison.baseline), ("candidate", comparison.candidate))
    names = "<br>".join(f"{name}: {markdown_text(side_text(side))}" for name, side in sides)
    machines = comparison.environment_differences if comparison.across_environments else ()
    return _joined([_TITLE, names, _list("Two machines, compared on purpose", machines), *_body(comparison)])


def axis_markdown(comparison: AxisComparison) -> str:
    """Return which value is best where, and each value against the reference, as Markdown."""
    parts = [f"{_TITLE}: {markdown_text(axis_title(comparison))}", *map(_titled_table, winner_table(comparison))]
    for _, each in comparison.comparisons:
        parts += [f"#### {markdown_text(' against '.join(reversed(each.side_names)))}", *_body(each)]
    return _joined(parts)


def _body(comparison: Comparison) -> Iterator[str]:
    for metric in full_metrics(comparison):
        yield f"**{markdown_text(summary_sentence(comparison, metric))}**"
    found = findings(comparison)
    yield _list("Fails now", [sentence for sentence, is_regression in found if is_regression])
    yield _notable(comparison)
    yield _list("Incomparable", incomparable_reasons(comparison))
    yield _folded("What changed", _list("", [f"{each.kind}: {each.sentence}" for each in comparison.changes]))
    yield _folded("Other points", _list("", [sentence for sentence, is_regression in found if not is_regression]))
    overview = overview_table(comparison, comparison.metrics)
    yield _folded("All metrics", _table(overview)) if overview else ""
    for metric in comparison.metrics:
        table = metric_table(comparison, metric)
        yield _folded(table.title, _table(table)) if table else ""
    yield _folded("How to read this", _list("", comparison.notes))


def _notable(comparison: Comparison) -> str:
    table = notable_table(comparison)
    if table is None:
        return ""
    left_out = len(table.rows) - _MOST_NOTABLE
    shown = _table(TextTable(table.title, table.header, table.rows[:_MOST_NOTABLE]))
    return shown + (f"\n\nand {left_out} more, in the tables below" if left_out > 0 else "")


def _titled_table(table: TextTable) -> str:
    return f"**{markdown_text(table.title)}**\n\n{_table(table)}"


def _table(table: TextTable) -> str:
    lines = [[markdown_text(title) for title, _ in table.header]]
    lines.append(["--:" if alignment == "right" else ":--" for _, alignment in table.header])
    lines += [[markdown_text(cell) for cell in row.cells] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(title: str, sentences: Iterable[str]) -> str:
    lines = "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)
    return f"**{title}**\n\n{lines}" if title and lines else lines


def _folded(title: str, content: str) -> str:
    # GitHub reads Markdown within HTML after an empty line.
    return f"<details><summary>{markdown_text(title)}</summary>\n\n{content}\n\n</details>" if content else ""


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


_WIDTH_WITHOUT_TERMINAL = 100
_STYLES = {FASTER: "green", SLOWER: "red", SAME: "dim", UNDECIDED: "yellow", INCOMPARABLE: "magenta"}
_MOST_CHANGES = 8  # of one kind


def standard_output() -> Console:
    """Return the console of the standard output, 100 columns wide where it is no terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that the locale lacks is no reason to fail
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the sides, what changed, the verdicts, what fails now, and what to beware of."""
    for name, side in (("baseline ", comparison.baseline), ("candidate", comparison.candidate)):
        console.print(_one_line(f"{name}  {side_text(side)}", console, "bold"))
    if comparison.across_environments:
        _print_list(console, "Two machines, compared on purpose", comparison.environment_differences)
    _print_changes(console, comparison)
    _print_tables(console, comparison)
    _print_findings(console, comparison)
    _print_notes(console, comparison.notes)


def print_axis(comparison: AxisComparison, console: Console) -> None:
    """Print which value is best where, then each value against the reference."""
    console.print(_one_line(axis_title(comparison), console, "bold"))
    for table in winner_table(comparison):
        _print_table(console, table)
    for _, each in comparison.comparisons:
        console.print()
        console.rule(Text(" against ".join(reversed(each.side_names)), style="bold"), align="left")
        _print_tables(console, each)
        _print_findings(console, each)
    _print_notes(console, dict.fromkeys(note for _, each in comparison.comparisons for note in each.notes))


def _print_tables(console: Console, comparison: Comparison) -> None:
    full = full_metrics(comparison)
    for metric in full:
        table = metric_table(comparison, metric, MOST_ROWS)
        if table is None:
            console.print(Text(f"\n{metric.label}: no value on either side", style="bold"))
        else:
            _print_table(console, table)
    overview = overview_table(comparison, [metric for metric in comparison.metrics if metric not in full])
    if overview is not None:
        _print_table(console, overview)
    _print_list(console, "Incomparable", incomparable_reasons(comparison))


def _print_table(console: Console, table: TextTable) -> None:
    console.print()
    console.print(_one_line(table.title, console, "bold"))
    rich_table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title, alignment in table.header:
        is_number = alignment == "right"
        rich_table.add_column(title, justify="right" if is_number else "left", no_wrap=is_number, min_width=6)
    for row in table.rows:
        rich_table.add_row(*_cells(row))
    console.print(rich_table)
    if table.footer:
        console.print(Text(table.footer, style="dim"))


def _cells(row: Row) -> list[Text]:
    style = _STYLES.get(row.verdict or "", "")
    cells = [Text(printable(cell)) for cell in row.cells]
    cells[-1].stylize(style)
    if row.verdict in (FASTER, SLOWER) and len(cells) > 3:
        cells[-3].stylize(style)
    return cells


def _print_changes(console: Console, comparison: Comparison) -> None:
    kinds: dict[str, list[Change]] = {}
    for change in comparison.changes:
        if not (change.kind == "hardware" and comparison.across_environments):
            kinds.setdefault(change.kind, []).append(change)
    lines = []
    for kind, changes in kinds.items():
        shown = [change.sentence for change in changes[:_MOST_CHANGES]]
        if len(changes) > _MOST_CHANGES:
            shown.append(f"and {len(changes) - _MOST_CHANGES} more; --format json has them all")
        lines += [f"{kind if place == 0 else '':<9} {sentence}" for place, sentence in enumerate(shown)]
    _print_list(console, "What changed", lines or ["nothing that hfbench records"])


def _print_findings(console: Console, comparison: Comparison) -> None:
    found = findings(comparison)
    if found:
        console.print(Text("\nPoints", style="bold"))
    for sentence, is_regression in found:
        console.print(
            Padding(Text(printable(sentence), style="red" if is_regression else ""), (0, 0, 0, 2), expand=False)
        )


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(Text(f"\n{title}", style="bold"))
    for line in lines:
        console.print(Padding(Text(printable(line)), (0, 0, 0, 2), expand=False))


def _print_notes(console: Console, notes: Iterable[str]) -> None:
    for place, note in enumerate(notes):
        if place == 0:
            console.print()
        console.print(Text(printable(note), style="dim"))


def _one_line(text: str, console: Console, style: str) -> Text:
    line = Text(printable(text).replace("\n", " "), style=style)
    line.truncate(console.width, overflow="ellipsis")
    return line
