"""The samples and the phases of a point's rounds on a terminal."""

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.text import Text

from hfbench.foundation.records import Record
from hfbench.reporting.cells import printable
from hfbench.reporting.numbers import significant
from hfbench.reporting.point_requests import RequestTimes
from hfbench.reporting.point_times import Phase, RoundSamples
from hfbench.reporting.sparkline import slowest_of_each, span_bar, sparkline
from hfbench.reporting.terminal import plain_table
from hfbench.reporting.terminal_parts import align_right, print_heading

_MOST_SPARKS = 40
_MOST_REQUESTS = 32
_MOST_ROUNDS = 6  # of which each has a column of phases; of more, only the median


def print_samples(rounds: Sequence[RoundSamples], console: Console, marks: str) -> None:
    """Print a sparkline for each round, all on one scale, so that the noise between rounds is seen too."""
    every = [value for each in rounds for value, _ in each.in_order]
    if not every:
        return
    print_heading("End-to-end latency of the samples (s)", console)
    room = max(10, min(_MOST_SPARKS, console.width - 62))
    table = plain_table("round", "in order", "n", "min", "median", "max", "ended by")
    low, high, sizes = min(every), max(every), set()
    for each in rounds:
        sparks, size = _sparks(each, low, high, room, marks)
        sizes.add(size)
        numbers = (significant(value) for value in (each.lowest, each.middle, each.highest))
        table.add_row(str(each.round), sparks, str(len(each.seconds)), *numbers, printable(each.ended))
    align_right(table, "n", "min", "median", "max")
    console.print(table)
    notes = [f"{marks[0]} is {significant(low)}, {marks[-1]} is {significant(high)}"]
    if any(not observed for each in rounds for _, observed in each.in_order):
        notes.append("the dim ones ran without the token observer and are not counted")
    if max(sizes) > 1:
        notes.append(f"each bar is the slowest of {max(sizes)}")
    console.print(Text("; ".join(notes), style="dim"))


def _sparks(each: RoundSamples, low: float, high: float, room: int, marks: str) -> tuple[Text, int]:
    values, size = slowest_of_each([value for value, _ in each.in_order], room)
    text = Text(sparkline(values, low, high, marks))
    if size == 1:
        for place, (_, observed) in enumerate(each.in_order):
            if not observed:
                text.stylize("dim", place, place + 1)
    return text, size


def print_requests(requests: Sequence[RequestTimes], console: Console) -> None:
    """Print a row for each request, the first of many; nothing where there are none."""
    if not requests:
        return
    print_heading("Each request, the median of the samples", console)
    numbers = ("request", "prompt", "new", "TTFT (ms)", "inter-token (ms)", "tok/s")
    table = plain_table(*numbers)
    for number, each in enumerate(requests[:_MOST_REQUESTS], 1):
        gap = None if each.inter_token_seconds is None else each.inter_token_seconds * 1e3
        times = (each.time_to_first_token_seconds * 1e3, gap, each.tokens_per_second)
        table.add_row(str(number), str(each.prompt_tokens), str(each.new_tokens), *map(significant, times))
    align_right(table, *numbers)
    console.print(table)
    others = len(requests) - _MOST_REQUESTS
    more = f"; {others} more are in the record" if others > 0 else ""
    console.print(Text(f"all arrive when an iteration starts; tok/s until a request's last token{more}", style="dim"))


def print_phases(found: Sequence[Phase], records: Sequence[Record], console: Console, marks: str) -> None:
    """Print how long each phase took in each round, and a bar for when it was; nothing where there are none."""
    if not found:
        return
    print_heading("From the start of the stage, phase by phase (s)", console)
    rounds = [f"round {record.configuration.round}" for record in records]
    columns = rounds if len(rounds) <= _MOST_ROUNDS else ["median"]
    table = plain_table("phase", *columns, "when")
    ends = [
        start + seconds
        for phase in found
        for start, seconds in zip(phase.starts, phase.seconds, strict=True)
        if start is not None and seconds is not None
    ]
    room = max(8, min(_MOST_SPARKS, console.width - 14 - 10 * len(columns)))
    for phase in found:
        starts = [start for start in phase.starts if start is not None]
        seconds = [value for value in phase.seconds if value is not None]
        bar = span_bar(median(starts), median(starts) + median(seconds), max(ends), room, marks)
        shown = phase.seconds if columns == rounds else (median(seconds),)
        table.add_row(phase.name, *(significant(value) for value in shown), Text(bar, style="cyan"))
    align_right(table, *columns)
    console.print(table)
