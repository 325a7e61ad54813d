"""One point on a terminal: everything that its records and the tables say of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import polars as pl
from rich.console import Console
from rich.text import Text

from hfbench.core.errors import UserError
from hfbench.core.record import OK, Record
from hfbench.report.frames import WarningGroup
from hfbench.report.overview import METRICS_SHOWN
from hfbench.report.pages import (
    INDENT,
    align_right,
    plain_table,
    print_heading,
    print_indented,
    print_rows,
    print_warnings,
)
from hfbench.report.point_facts import (
    asked_and_ran,
    before_text,
    differing_rounds,
    evidence,
    memory_text,
    monitor_text,
    output_rows,
    readings,
    unavailable,
)
from hfbench.report.point_times import (
    ASCII,
    BLOCKS,
    Phase,
    RequestTimes,
    RoundSamples,
    phases,
    request_times,
    round_samples,
    slowest_of_each,
    span_bar,
    sparkline,
)
from hfbench.report.words import MISSING, device_names, printable, significant
from hfbench.tables.store import MeasuredPoint

_LISTED = 12  # candidates in an error message


def choose_point(
    text: str, known: Sequence[MeasuredPoint], *, asked: str = "--point", among: str = "the results"
) -> list[MeasuredPoint]:
    """Return the rounds of the one configuration that `text` means, or one round where it names a stage or record.

    It is, the first that fits: a configuration's key, a stage (`measure@…`) or the file of a record; words of a key; a
    part of a key; a part of a stage. Raises `UserError` with the candidates where it fits several, or none; it names
    the argument that `asked` for the point, and `among` what it was looked for.
    """
    wanted = (
        text.strip()
        .removesuffix(".json")
        .removeprefix("measure@")
        .replace("-False", "-false")
        .replace("-True", "-true")
    )
    wanted = wanted.removeprefix("./").removeprefix("results/measurements/")
    words = set(wanted.split())
    fits: tuple[Callable[[MeasuredPoint], bool], ...] = (
        lambda point: wanted == point.key,
        lambda point: wanted == point.name,
        lambda point: words <= set(point.key.split()),
        lambda point: wanted in point.key,
        lambda point: wanted in point.name,
    )
    for fit in fits if wanted else ():
        found = [point for point in known if fit(point)]
        if len({point.key for point in found}) == 1:
            return found
        if found:
            raise UserError(f"{asked} {text!r} fits several points. Name one of:{_listed(found)}")
    raise UserError(f"{asked} {text!r} fits no point of {among}. There are:{_listed(known)}")


def _listed(found: Sequence[MeasuredPoint]) -> str:
    keys = list(dict.fromkeys(point.key for point in found))
    more = f"\n  and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return "".join(f"\n  {key}" for key in keys[:_LISTED]) + more


_MOST_MACHINE_SPARKS = 24


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
        values, _ = slowest_of_each(reading.values, _MOST_MACHINE_SPARKS)
        over_time = "increase" if reading.is_counter else sparkline(values, min(values), max(values), marks)
        table.add_row(reading.name, reading.unit, *reading.range, over_time)
    align_right(table, "min", "median", "max")
    console.print()
    console.print(table)


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
