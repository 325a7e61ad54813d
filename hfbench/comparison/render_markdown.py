"""A comparison as Markdown for a pull request: the summary, what is notable, and the rest folded away."""

from collections.abc import Iterable, Iterator

from hfbench.comparison.axis import AxisComparison
from hfbench.comparison.comparison import Comparison
from hfbench.comparison.layout import (
    TextTable,
    findings,
    full_metrics,
    incomparable_reasons,
    metric_table,
    notable_table,
    overview_table,
)
from hfbench.comparison.layout_axis import axis_title, winner_table
from hfbench.comparison.wording import side_text, summary_sentence
from hfbench.reporting.markdown import markdown_text

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
