"""One point on a terminal: everything that its records and the tables say of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from rich.console import Console
from rich.text import Text

from hfbench.foundation.records import OK, Record
from hfbench.reporting.captions import device_names
from hfbench.reporting.cells import printable
from hfbench.reporting.known_columns import METRICS_SHOWN
from hfbench.reporting.numbers import MISSING, significant
from hfbench.reporting.point_facts import asked_and_ran, differing_rounds, evidence, output_rows
from hfbench.reporting.point_requests import request_times
from hfbench.reporting.point_times import phases, round_samples
from hfbench.reporting.sparkline import ASCII, BLOCKS
from hfbench.reporting.terminal import plain_table
from hfbench.reporting.terminal_machine import print_machine
from hfbench.reporting.terminal_parts import INDENT, align_right, print_heading, print_indented, print_rows
from hfbench.reporting.terminal_times import print_phases, print_requests, print_samples
from hfbench.reporting.terminal_warnings import print_warnings
from hfbench.reporting.warned import WarningGroup

_LOG_LINES = 12


@dataclass(frozen=True)
class PointView:
    """A point: its key, the records of its rounds, and its rows of the tables of points and of the summary."""

    key: str
    records: Sequence[Record]
    points: pl.DataFrame
    metrics: pl.DataFrame
    warnings: Sequence[WarningGroup]


def print_point(view: PointView, console: Console) -> None:
    """Print the point, its rounds in order."""
    marks = BLOCKS if (console.encoding or "").lower().startswith("utf") else ASCII
    ok = [record for record in view.records if record.status == OK]
    device = ", ".join(device_names(view.points))
    console.print(Text(printable(view.key), style="bold"))
    rounds = f"{len(ok)} of {len(view.records)} round{'s' * (len(view.records) != 1)} ok"
    console.print(Text(printable(f"{device} · {rounds}"), style="dim"))
    _print_failures(view.records, console)
    if any(record.iterations for record in view.records):
        print_samples(round_samples(view.records), console, marks)
    _print_metrics(view.metrics, console)
    print_requests(request_times(view.records), console)
    print_phases(phases(view.records), view.records, console, marks)
    # What a round that is not ok tells is all there is, where none is.
    _print_configuration((ok or view.records), console)
    _print_output(view, (ok or view.records)[0], console)
    print_machine(view.records, console, marks)
    print_warnings(console, view.warnings)


def _print_failures(records: Sequence[Record], console: Console) -> None:
    for rounds, record in _alike([record for record in records if record.status != OK]):
        word = "Round" if len(rounds) == 1 else "Rounds"
        heading = f"{word} {', '.join(map(str, rounds))}: {record.status.replace('_', ' ')}"
        print_heading(heading, console, style="bold red")
        phase = f" (phase: {record.phase})" if record.phase else ""
        print_indented(f"{record.reason or 'no reason was recorded'}{phase}", console)
        for difference in record.differences:
            print_indented(f"≠ {difference}", console, "red")
        if record.log_tail:
            print_indented("the end of its log:", console, "dim")
            for line in record.log_tail[-_LOG_LINES:]:
                print_indented(line, console, "dim", INDENT * 2)


def _alike(records: Sequence[Record]) -> list[tuple[list[int], Record]]:
    """Return the rounds that failed in the same way together, with the last of them."""
    groups: dict[tuple[str, str | None, str | None], list[Record]] = {}
    for record in records:
        groups.setdefault((record.status, record.reason, record.phase), []).append(record)
    return [([each.configuration.round for each in group], group[-1]) for group in groups.values()]


def _print_metrics(metrics: pl.DataFrame, console: Console) -> None:
    if metrics.is_empty():
        return
    print_heading("Metrics", console)
    table = plain_table("metric", "unit", "median", "95% interval", "of each round")
    order = list(METRICS_SHOWN)
    for row in sorted(metrics.to_dicts(), key=lambda row: order.index(row["metric"])):
        shown = METRICS_SHOWN[row["metric"]]
        factor = shown.factor
        middle, low, high = (None if row[each] is None else row[each] * factor for each in ("estimate", "low", "high"))
        interval = MISSING if low is None else f"{significant(low)} … {significant(high)}"
        rounds = "  ".join(significant(value * factor) for value in row["round_medians"])
        table.add_row(shown.label, shown.unit, significant(middle), interval, rounds)
    align_right(table, "median", "95% interval")
    console.print(table)


def _print_configuration(records: Sequence[Record], console: Console) -> None:
    record = records[0]
    if not (record.requested or record.effective):
        return
    print_heading("What was asked for, and what ran", console)
    table = plain_table("", "asked for", "ran")
    for setting, asked, ran in asked_and_ran(record):
        table.add_row(setting, printable(asked), printable(ran))
    console.print(table)
    for difference in record.differences if record.status == OK else ():
        print_indented(f"≠ {difference}", console, "red")
    if others := differing_rounds(records):
        print_indented(f"≠ something else ran in round {', '.join(map(str, others))}", console, "red")
    print_rows("What was verified", evidence(record), console)


def _print_output(view: PointView, record: Record, console: Console) -> None:
    rows = view.points.filter(pl.col("round") == record.configuration.round).to_dicts()
    text = record.output.get("text")
    print_rows("Output", output_rows(record, rows[0] if rows else {}), console)
    if text:
        print_indented(f"“{text.strip()}”", console, "italic")
