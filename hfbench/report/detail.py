"""One point as a page: everything that its records and the tables say of it."""

from collections.abc import Sequence
from statistics import median

import polars as pl

from hfbench.core.point import INF
from hfbench.core.record import OK, Record
from hfbench.report.frames import Results, warning_groups
from hfbench.report.pages import Block, Cell, Column, Heading, Page, Paragraph, Properties, Table, number
from hfbench.report.point_facts import (
    asked_and_ran,
    before_text,
    differing_rounds,
    evidence,
    memory_text,
    monitor_text,
    output_rows,
    phases,
    readings,
    request_times,
    unavailable,
)
from hfbench.report.words import METRICS_SHOWN, counted, device_names, significant, span_text, warning_list
from hfbench.tables.store import MeasuredPoint

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-:=+*#"  # for a terminal without Unicode
_INDENT = 2


def point_page(
    point: MeasuredPoint, records: Sequence[Record], results: Results, width: int, marks: str = BLOCKS
) -> Page:
    """Return all that is known of the point from the records of its rounds and the tables.

    Sparklines and bars are drawn with `marks`, from the lowest to the highest, on a page of `width` characters.
    """
    axes = point.configuration
    is_chosen = pl.all_horizontal(pl.col(axis) == value for axis, value in axes.items())
    points = results.points.filter(is_chosen)
    ok = [record for record in records if record.status == OK]
    telling = ok or records  # what a round that is not ok tells is all there is, where none is
    agreement = points.filter(pl.col("round") == telling[0].configuration.round).to_dicts()
    text = (telling[0].output.get("text") or "").strip()
    return [
        Heading(point.key),
        Paragraph(f"{', '.join(device_names(points))} · {len(ok)} of {counted(len(records), 'round')} ok", "quiet"),
        *_failures(records),
        _samples(records, width, marks),
        _metrics(results.summary.filter(is_chosen)),
        _requests(records),
        _phases(records, width, marks),
        *_configuration(telling),
        Properties("Output", tuple(output_rows(telling[0], agreement[0] if agreement else {}))),
        *([Paragraph(f"“{text}”", "quoted", _INDENT)] if text else []),
        *_machine(records, marks),
        warning_list(warning_groups([each for each in results.warnings if each.configuration == axes], points)),
    ]


_LOG_LINES = 12


def _failures(records: Sequence[Record]) -> list[Block]:
    """Return what went wrong; the rounds that failed in the same way together, with the log of the last."""
    alike: dict[tuple[str, str | None, str | None], list[Record]] = {}
    for record in records:
        if record.status != OK:
            alike.setdefault((record.status, record.reason, record.phase), []).append(record)
    blocks: list[Block] = []
    for (status, reason, phase), group in alike.items():
        rounds = ", ".join(str(record.configuration.round) for record in group)
        blocks += [
            Heading(f"Round{'s' * (len(group) > 1)} {rounds}: {status.replace('_', ' ')}", "alarm"),
            Paragraph(f"{reason or 'no reason was recorded'}{f' (phase: {phase})' if phase else ''}", indent=_INDENT),
            *map(_difference, group[-1].differences),
        ]
        if log := group[-1].log_tail[-_LOG_LINES:]:
            blocks.append(Paragraph("the end of its log:", "quiet", _INDENT))
            blocks += [Paragraph(line, "quiet", 2 * _INDENT) for line in log]
    return blocks


def _difference(text: str) -> Paragraph:
    return Paragraph(f"≠ {text}", "bad", _INDENT)


_MOST_SPARKS = 40
_MOST_REQUESTS = 32
_MOST_ROUNDS = 6  # of which each has a column of phases; of more, only the median


def _samples(records: Sequence[Record], width: int, marks: str) -> Table:
    """Return a sparkline for each round, all on one scale, so that the noise between rounds is seen too."""
    rounds = [[each for each in record.iterations if each.phase == "sample"] for record in records]
    every = [each.end_to_end_seconds for samples in rounds for each in samples]
    low, high, size = min(every, default=0.0), max(every, default=0.0), 1
    rows: list[list[str | Cell]] = []
    for record, samples in zip(records, rounds, strict=True) if every else ():
        room = max(10, min(_MOST_SPARKS, width - 62))
        values, joined = slowest_of_each([each.end_to_end_seconds for each in samples], room)
        # A sample without the token observer is dim where it has a mark of its own.
        dim = [place for place, each in enumerate(samples) if not each.observed] if joined == 1 else []
        seconds = [each.end_to_end_seconds for each in samples if each.observed]
        numbers = (min(seconds), median(seconds), max(seconds)) if seconds else (None,) * 3
        sparks = Cell(sparkline(values, low, high, marks), quiet_at=tuple(dim))
        ended = record.stopped_because or record.status.replace("_", " ")
        rows.append([str(record.configuration.round), sparks, str(len(seconds)), *map(significant, numbers), ended])
        size = max(size, joined)
    notes = [f"{marks[0]} is {significant(low)}, {marks[-1]} is {significant(high)}"]
    if not all(each.observed for samples in rounds for each in samples):
        notes.append("the dim ones ran without the token observer and are not counted")
    if size > 1:
        notes.append(f"each bar is the slowest of {size}")
    heads = [Column("round"), Column("in order"), *map(number, ("n", "min", "median", "max")), Column("ended by")]
    return Table.of_rows(heads, rows, title="End-to-end latency of the samples (s)", footer="; ".join(notes))


def _metrics(metrics: pl.DataFrame) -> Table:
    found = {row["metric"]: row for row in metrics.to_dicts()}
    rows = []
    for row, shown in ((found[name], shown) for name, shown in METRICS_SHOWN.items() if name in found):
        ends = (row[each] for each in ("estimate", "low", "high"))
        middle, low, high = (None if each is None else each * shown.factor for each in ends)
        rounds = "  ".join(significant(value * shown.factor) for value in row["round_medians"])
        rows.append((shown.label, shown.unit, significant(middle), span_text(low, high), rounds))
    heads = [Column("metric"), Column("unit"), number("median"), number("95% interval"), Column("of each round")]
    return Table.of_rows(heads, rows, title="Metrics")


def _requests(records: Sequence[Record]) -> Table:
    """Return a row for each request, the first of many."""
    requests = request_times(records)
    rows = []
    for place, each in enumerate(requests[:_MOST_REQUESTS], 1):
        gap = None if each.inter_token_seconds is None else each.inter_token_seconds * 1e3
        times = map(significant, (each.time_to_first_token_seconds * 1e3, gap, each.tokens_per_second))
        rows.append((str(place), str(each.prompt_tokens), str(each.new_tokens), *times))
    others = len(requests) - _MOST_REQUESTS
    more = f"; {others} more are in the record" if others > 0 else ""
    arrive = "all arrive when an iteration starts"
    if records[0].configuration.request_rate != INF:
        arrive = (
            f"{records[0].configuration.request_rate} arrive a second, and times count from a request's own arrival"
        )
    return Table.of_rows(
        list(map(number, ("request", "prompt", "new", "TTFT (ms)", "inter-token (ms)", "tok/s"))),
        rows,
        title="Each request, the median of the samples",
        footer=f"{arrive}; tok/s until a request's last token{more}",
    )


def _phases(records: Sequence[Record], width: int, marks: str) -> Table:
    """Return how long each phase took in each round, and a bar for when it was."""
    found = phases(records)
    has_columns = len(records) <= _MOST_ROUNDS
    columns = [f"round {record.configuration.round}" for record in records] if has_columns else ["median"]
    room = max(8, min(_MOST_SPARKS, width - 14 - 10 * len(columns)))
    end = max((sum(span) for spans in found.values() for span in spans if span), default=0.0)
    rows: list[list[str | Cell]] = []
    for name, spans in found.items():
        start, seconds = (median(values) for values in zip(*filter(None, spans), strict=True))
        shown = [span and span[1] for span in spans] if has_columns else [seconds]
        bar = Cell(span_bar(start, start + seconds, end, room, marks), "bar")
        rows.append([name, *map(significant, shown), bar])
    heads = [Column("phase"), *map(number, columns), Column("when")]
    return Table.of_rows(heads, rows, title="From the start of the stage, phase by phase (s)")


def _configuration(records: Sequence[Record]) -> list[Block]:
    record = records[0]
    if not (record.requested or record.effective):
        return []
    heads = [Column(""), Column("asked for"), Column("ran")]
    others = ", ".join(map(str, differing_rounds(records)))
    return [
        Table.of_rows(heads, asked_and_ran(record), title="What was asked for, and what ran"),
        *map(_difference, record.differences if record.status == OK else ()),
        *([_difference(f"something else ran in round {others}")] if others else []),
        Properties("What was verified", tuple(evidence(record))),
    ]


_MOST_MACHINE_SPARKS = 24


def _machine(records: Sequence[Record], marks: str) -> list[Block]:
    """Return peak memory, the state of the machine before, and what was read while the rounds ran."""
    befores = [f"round {record.configuration.round}: {text}" for record in records if (text := before_text(record))]
    facts = [
        ("peak memory", memory_text(records)),
        *(("before", text) for text in befores),
        ("monitor", monitor_text(records)),
        ("not told here", ", ".join(unavailable(records[0]))),
    ]
    rows = []
    for name, unit, values, is_counter in readings(records):
        least, most = min(values), max(values)
        sparks, _ = slowest_of_each(values, _MOST_MACHINE_SPARKS)
        over_time = "increase" if is_counter else sparkline(sparks, min(sparks), most, marks)
        rows.append((name, unit, *map(significant, (least, median(values), most)), over_time))
    heads = [Column("reading"), Column("unit"), *map(number, ("min", "median", "max")), Column("over time")]
    return [Properties("Memory and machine", tuple(fact for fact in facts if fact[1])), Table.of_rows(heads, rows)]


def sparkline(values: Sequence[float | None], low: float, high: float, marks: str = BLOCKS) -> str:
    """Return a mark for each value, its height the place between `low` and `high`; a blank for None.

    All are lowest where `low` and `high` are equal.
    """
    steps = len(marks)
    span = high - low
    return "".join(
        " " if value is None else marks[0 if span <= 0 else min(steps - 1, max(0, int((value - low) / span * steps)))]
        for value in values
    )


def slowest_of_each(values: Sequence[float], most: int) -> tuple[list[float], int]:
    """Return at most `most` values, each the largest of so many neighbours, and how many that is."""
    size = max(1, -(-len(values) // most))
    return [max(values[start : start + size]) for start in range(0, len(values), size)], size


def span_bar(start: float, end: float, whole: float, width: int, marks: str = BLOCKS) -> str:
    """Return a bar of `width` characters from `start` to `end` of `whole`, at least one mark long."""
    if whole <= 0 or width <= 0:
        return ""
    first = min(width - 1, max(0, int(start / whole * width)))
    last = min(width, max(first + 1, round(end / whole * width)))
    return " " * first + marks[-1] * (last - first)
