"""The findings on a terminal."""

import io
import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfbench.doctor.findings import Finding

_STYLES = {"warning": "bold yellow", "note": "cyan", "ok": "green"}
_WIDTH_WITHOUT_TERMINAL = 120


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print each finding with its remedy below, then how many there are of each level."""
    console = console or _standard_output()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), Text(finding.what))
        if finding.remedy is not None:
            table.add_row("", Text(f"→ {finding.remedy}", style="bold" if finding.level == "warning" else "dim"))
    console.print(table)
    console.print()
    console.print(summary(findings))


def summary(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each level, in one sentence."""
    counts = Counter(finding.level for finding in findings)
    warnings, notes = counts["warning"], counts["note"]
    if not warnings and not notes:
        return "This machine is ready to measure."
    parts = [f"{count} {word}{'s' * (count > 1)}" for count, word in ((warnings, "warning"), (notes, "note")) if count]
    return f"{' and '.join(parts)}. " + (
        "Heed the warnings before trusting small differences." if warnings else "This machine is ready to measure."
    )


def _standard_output() -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that the locale lacks is no reason to fail
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
