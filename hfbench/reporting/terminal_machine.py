"""The memory and the machine of a point's rounds on a terminal."""

from collections.abc import Sequence

from rich.console import Console

from hfbench.foundation.records import Record
from hfbench.reporting.point_facts import memory_text
from hfbench.reporting.point_monitoring import before_text, monitor_text, readings, unavailable
from hfbench.reporting.sparkline import slowest_of_each, sparkline
from hfbench.reporting.terminal import plain_table
from hfbench.reporting.terminal_parts import align_right, print_rows

_MOST_SPARKS = 24


def print_machine(records: Sequence[Record], console: Console, marks: str) -> None:
    """Print peak memory, the state of the machine before, and what was read while the rounds ran."""
    number = "round {}: {}".format
    rows = [("peak memory", text)] if (text := memory_text(records)) else []
    rows += [("before", number(each.configuration.round, text)) for each in records if (text := before_text(each))]
    rows += [("monitor", text)] if (text := monitor_text(records)) else []
    if missing := unavailable(records[0]):
        rows.append(("not told here", ", ".join(missing)))
    print_rows("Memory and machine", rows, console)
    found = readings(records)
    if not found:
        return
    table = plain_table("reading", "unit", "min", "median", "max", "over time")
    for reading in found:
        values, _ = slowest_of_each(reading.values, _MOST_SPARKS)
        over_time = "increase" if reading.is_counter else sparkline(values, min(values), max(values), marks)
        table.add_row(reading.name, reading.unit, *reading.range, over_time)
    align_right(table, "min", "median", "max")
    console.print()
    console.print(table)
