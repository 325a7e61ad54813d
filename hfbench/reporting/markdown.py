"""The results as Markdown, as GitHub shows it."""

from collections.abc import Sequence

from hfbench.reporting.captions import captions
from hfbench.reporting.cells import TextColumn, failure_columns, printable
from hfbench.reporting.results import failure_rows
from hfbench.reporting.view import View
from hfbench.reporting.warned import warning_groups


def markdown_results(view: View) -> str:
    """Return captions, table, notes, warnings and what is not ok; the best are in bold."""
    points = view.results.points
    text = captions(points, view.rows)
    parts = [
        f"**{markdown_text(text.title)}**",
        *(markdown_text(line) for line in (text.counts, text.constants) if line),
    ]
    if view.rows.height:
        parts.append(markdown_table(view.columns))
    parts += [markdown_text(note.removeprefix("* ").strip()) for note in _notes(view, text.notes)]
    groups = warning_groups(view.results.warnings, points)
    if groups:
        parts.append("**Warnings**")
    for group in groups:
        findings = [f"  - {markdown_text(f'{whose}: {what}' if whose else what)}" for whose, what in group.findings]
        parts.append("\n".join([f"- *{group.title}*: {markdown_text(group.remedy)}", *findings]))
    failures = failure_rows(points)
    if failures.height:
        parts += ["**Not ok**", markdown_table(failure_columns(failures, points))]
    return "\n\n".join(parts) + "\n"


def markdown_table(columns: Sequence[TextColumn]) -> str:
    """Return a table of these columns: numbers to the right, the best cells in bold."""
    headers = [f"{column.label} ({column.unit})" if column.unit else column.label for column in columns]
    lines = [headers, ["--:" if column.is_number else ":--" for column in columns]]
    for index in range(len(columns[0].texts)):
        cells = (markdown_text(column.texts[index]) for column in columns)
        lines.append(
            [f"**{cell}**" if column.best[index] else cell for cell, column in zip(cells, columns, strict=True)]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line of a table."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for character in "|*_`[]":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped.replace("\n", "<br>")


def _notes(view: View, notes: Sequence[str]) -> list[str]:
    bold = "In bold: the best median among configurations with the same work; no test of significance."
    shown = [note.replace("; * is the best of these.", "; bold is the best of these.") for note in view.notes]
    return [*shown, *(bold if note.startswith("*") else note for note in notes)]
