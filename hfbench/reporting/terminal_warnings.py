"""The warnings on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from hfbench.reporting.cells import printable
from hfbench.reporting.warned import WarningGroup

_MOST_FINDINGS = 3  # of one kind; the report has all
_INDENT = 2


def print_warnings(console: Console, groups: Sequence[WarningGroup]) -> None:
    """Print each kind of warning with the first of its findings and what to do; nothing where there is none."""
    if not groups:
        return
    console.print()
    console.print(Text("Warnings", style="bold"))
    for group in groups:
        console.print(Text(group.title, style="yellow"))
        for whose, what in group.findings[:_MOST_FINDINGS]:
            _print_indented(console, f"{whose}: {what}" if whose else what)
        left_out = len(group.findings) - _MOST_FINDINGS
        if left_out > 0:
            _print_indented(console, f"and {left_out} more, in the report")
        _print_indented(console, f"→ {group.remedy}", style="dim")


def _print_indented(console: Console, line: str, style: str = "") -> None:
    console.print(Padding(Text(printable(line), style=style), (0, 0, 0, _INDENT), expand=False))
