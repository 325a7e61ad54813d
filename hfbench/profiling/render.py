"""A profile on a terminal: how long each phase took, and the operators that took it."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfbench.profiling.outcome import CONTEXT, DECODE, LOAD, PREFILL, OperatorTime, Outcome
from hfbench.reporting.numbers import significant
from hfbench.reporting.terminal_parts import align_right, print_heading, print_indented

_SHOWN = (LOAD, CONTEXT, PREFILL, DECODE)
_PHASES = "phases"


def print_outcome(key: str, outcome: Outcome, trace: Path, console: Console) -> None:
    """Print what a profile that is ok found, and where its trace is."""
    print_heading(f"{key} on {outcome.device_name}", console)
    spans = {span.name: span.seconds for span in outcome.spans if span.line == _PHASES}
    parts = [f"{name} {significant(spans[name] * 1e3)} ms" for name in _SHOWN if name in spans]
    print_indented(", ".join(parts), console)
    print_indented(
        "Under a profiler everything takes longer: `dvc repro` measures, this shows where time goes.", console
    )
    if outcome.device is None:
        print_indented("There are times of the host only: the point runs on it.", console)
    else:
        _print_operators("Operators by device time", outcome.device, outcome.device_seconds, console)
    _print_operators("Operators by host time", outcome.host, outcome.host_seconds, console)
    iteration, in_operators = (significant(each * 1e3) for each in (outcome.iteration_seconds, outcome.host_seconds))
    print_indented(
        f"of {in_operators} ms in all operators, on all threads; the iteration took {iteration} ms", console, "dim"
    )
    console.print()
    console.print(f"trace: {trace}", soft_wrap=True)
    console.print("       open it at https://ui.perfetto.dev, which keeps it on this computer, or in chrome://tracing")


def _print_operators(heading: str, operators: Sequence[OperatorTime], total_seconds: float, console: Console) -> None:
    print_heading(heading, console)
    table = Table("operator", "calls", "self (ms)", "share (%)", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    align_right(table, "calls", "self (ms)", "share (%)")
    for each in operators:
        share = 100 * each.seconds / total_seconds
        table.add_row(Text(each.name), str(each.calls), significant(each.seconds * 1e3), f"{share:.1f}")
    console.print(table)
