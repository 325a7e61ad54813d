"""The tables of the report as columns of text, the same for the terminal and for HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from hfbench.core.point import AXIS_TABLE, CONFIGURATION_AXES, UNIFORM, USUAL
from hfbench.core.record import OK
from hfbench.report.frames import WarningGroup, varying_axes
from hfbench.tables.store import point_label

MISSING = "–"
_DIGITS = 3
_LARGEST_PLAIN = 1e9  # more digits than these are read by nobody
_MIB, _GIB = 2**20, 2**30
_SAYS_NOTHING = 10  # a limit this many times the value, or this many times smaller


def significant(value: float | None) -> str:
    """Return three significant digits: 0.0123, 1.49, 40.0, 1230, and 3.46e17 from a billion on; a dash for None."""
    if value is None:
        return MISSING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{_DIGITS}g}")  # first, since it may carry to one more digit: 9.996 is 10.0
    if abs(rounded) >= _LARGEST_PLAIN:
        digits, exponent = f"{rounded:.{_DIGITS - 1}e}".split("e")
        return f"{digits}e{int(exponent)}"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(0, decimals)}f}"


def margin(value: float | None, low: float | None, high: float | None) -> str:
    """Return half an interval as a share of its value: ±1.4%, at most > ±100%; nothing where there is no interval."""
    if not value or low is None or high is None:
        return ""
    percent = 100 * (high - low) / 2 / value
    return f"±{percent:.2g}%" if percent < 99.5 else "> ±100%"


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """Return the limits of an interval, unless they are so far from the value that they say nothing of it."""
    if value is None or low is None or high is None:
        return MISSING
    if low <= 0 or high > _SAYS_NOTHING * value or low * _SAYS_NOTHING < value:
        return "not known"
    return f"{significant(low)} … {significant(high)}"


def memory_unit(largest_bytes: float) -> tuple[str, float]:
    """Return the name and size in bytes of the unit in which a table of memory sizes is shown."""
    return ("GiB", _GIB) if largest_bytes >= _GIB else ("MiB", _MIB)


def rate(per_second: float, unit: str) -> str:
    """Return a rate with the decimal prefix that keeps it short: `rate(2.1e10, "B")` is 21.0 GB/s."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if per_second >= size:
            return f"{significant(per_second / size)} {prefix}{unit}/s"
    return f"{significant(per_second)} {unit}/s"


_LONGEST = ("sequence_length", "max_new_tokens")  # of the longest request, where they are unequal
_TITLE_AXES = ("model", "dtype")


@dataclass(frozen=True)
class Captions:
    """`title` names models, devices and dtypes; `constants` the other axes with one value; `counts` the records."""

    title: str
    constants: str
    counts: str
    notes: tuple[str, ...]


def captions(points: pl.DataFrame, rows: pl.DataFrame) -> Captions:
    """Return the captions of the results (`rows` is from `result_rows`)."""
    varying = varying_axes(points)
    constant = [axis for axis in CONFIGURATION_AXES if axis not in varying and axis not in _TITLE_AXES]
    ok = int((points["status"] == OK).sum())
    configurations = points.select(CONFIGURATION_AXES).n_unique()
    told = [axis for axis in constant if AXIS_TABLE[axis].always_told or points[axis][0] != USUAL.get(axis)]
    shared = ", ".join(f"{AXIS_TABLE[axis].label} {axis_text(points[axis][0])}" for axis in told)
    return Captions(
        title=" · ".join(
            [_axis_values(points["model"]), ", ".join(device_names(points)), _axis_values(points["dtype"])]
        ),
        constants=f"all with {shared}" if shared else "",
        counts=f"{_counted(configurations, 'configuration')}, {ok} of {_counted(points.height, 'record')} ok",
        notes=tuple(_notes(rows)),
    )


def axis_text(value: object) -> str:
    """Return an axis value as shown: yes and no for booleans."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def device_names(points: pl.DataFrame) -> list[str]:
    """Return the names of the devices that were measured on, or the device asked for where no record names one."""
    names = points["device_name"].drop_nulls().unique(maintain_order=True).to_list()
    return names or points["device"].unique(maintain_order=True).to_list()


def _notes(rows: pl.DataFrame) -> list[str]:
    if rows.is_empty():
        return ["No point could be measured."]
    notes = []
    if any(rows[name].any() for name in rows.columns if name.endswith("_best")):
        notes.append("* the best median among configurations with the same work; no test of significance.")
    if (rows["rounds_ok"] == 1).any():
        notes.append(
            "One round does not tell how much processes differ: it has no interval, and establishes no difference."
        )
    return notes + _workloads(rows)


def _workloads(rows: pl.DataFrame) -> list[str]:
    """Return a sentence on each workload of unequal requests: what it is in all."""
    unequal = rows.filter(pl.col("request_lengths") != UNIFORM)
    found = unequal.select("request_lengths", "requests", "prompt_tokens", "new_tokens", *_LONGEST)
    return [
        f"{name} requests: {requests}, with {prompt:,} prompt and {new:,} new tokens in all, at most {longest:,} and "
        f"{most:,} each. They arrive together, and batch is how many run at a time."
        for name, requests, prompt, new, longest, most in found.unique(maintain_order=True).drop_nulls().rows()
    ]


def _axis_values(column: pl.Series) -> str:
    return ", ".join(column.unique(maintain_order=True).to_list())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


BEST_MARK = "*"


@dataclass(frozen=True)
class TextColumn:
    """A column of text: `best` says which cells to mark; the higher its `rank`, the sooner a narrow page drops it.

    Axes have rank 0 and are never dropped. `margins`, where there are any, belong beside the cells of a wide page.
    `name` is the column's in the tables: an axis, a metric, or what else it is made of.
    """

    label: str
    unit: str
    texts: tuple[str, ...]
    best: tuple[bool, ...]
    rank: int
    is_number: bool = True
    is_prose: bool = False
    margins: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class ShownMetric:
    """How a metric is shown; `factor` turns its unit into the one shown."""

    metric: str
    label: str
    unit: str
    factor: float
    rank: int


_TIME_TO_FIRST_TOKEN = ShownMetric("time_to_first_token_seconds", "TTFT", "ms", 1e3, 3)
_INTER_TOKEN = ShownMetric("inter_token_seconds", "inter-token", "ms", 1e3, 6)
_DECODE = ShownMetric("decode_tokens_per_second", "decode", "tok/s", 1, 2)
_PREFILL = ShownMetric("prefill_tokens_per_second", "prefill", "tok/s", 1, 9)
_END_TO_END = ShownMetric("end_to_end_seconds", "end-to-end", "s", 1, 1)
_LOAD = ShownMetric("load_seconds", "load", "s", 1, 10)
_PEAK_MEMORY = ShownMetric("peak_memory_bytes", "peak memory", "MiB", 2**-20, 8)
_BANDWIDTH = ShownMetric("mbu", "MBU", "%", 100, 11)
_FLOPS = ShownMetric("mfu", "MFU", "%", 100, 12)
_ENERGY = ShownMetric("energy_joules_per_token", "energy", "J/tok", 1, 13)
# Shown where request lengths are not all uniform.
REQUEST_METRICS = (
    ShownMetric("time_to_first_token_p95_seconds", "TTFT p95", "ms", 1e3, 4),
    ShownMetric("output_tokens_per_second", "output", "tok/s", 1, 2),
    ShownMetric("padding_waste_share", "padding waste", "%", 100, 3),
)
SHOWN_METRICS = (_END_TO_END, _TIME_TO_FIRST_TOKEN, _INTER_TOKEN, _DECODE, _PREFILL, _LOAD, _PEAK_MEMORY, _ENERGY)
_OUTPUT_RANK, _INTERVAL_RANK, _ROUNDS_RANK, _BREAK_EVEN_RANK = 2, 4, 5, 7


def result_columns(rows: pl.DataFrame, points: pl.DataFrame) -> list[TextColumn]:
    """Return the columns of the results: an axis each where it varies, then rounds and metrics with their units.

    A metric that no row has a value of gets no column.
    """
    axes = [axis_column(rows, axis) for axis in varying_axes(points)]
    return axes + [column for column in number_columns(rows) if set(column.texts) - {MISSING, ""}]


def number_columns(rows: pl.DataFrame) -> list[TextColumn]:
    """Return the columns beside the axes, also those that no row has a value of."""
    latencies = [_TIME_TO_FIRST_TOKEN, _INTER_TOKEN, _DECODE, _PREFILL, _END_TO_END]
    rest = [_BANDWIDTH, _FLOPS, _LOAD, _memory_shown(rows), _ENERGY]
    unequal = REQUEST_METRICS if has_unequal_requests(rows) else ()
    return [
        _rounds_column(rows),
        *(metric_column(rows, shown) for shown in latencies),
        _interval_column(rows),
        *(metric_column(rows, shown) for shown in unequal),
        *(metric_column(rows, shown) for shown in rest),
        break_even_column(rows),
        _output_column(rows),
    ]


def has_unequal_requests(rows: pl.DataFrame) -> bool:
    """Return whether some row's requests are of unequal lengths."""
    return bool((rows["request_lengths"] != UNIFORM).any())


def axis_column(rows: pl.DataFrame, axis: str) -> TextColumn:
    """Return the column of an axis."""
    texts = [MISSING if value is None else axis_text(value) for value in rows[axis]]
    return _plain(AXIS_TABLE[axis].label, texts, rank=0, is_number=rows[axis].dtype.is_numeric(), name=axis)


def metric_column(rows: pl.DataFrame, shown: ShownMetric) -> TextColumn:
    """Return the column of a metric, dashes where it has no value."""
    values, low, high = (_values(rows, f"{shown.metric}{end}") for end in ("", "_low", "_high"))
    return TextColumn(
        label=shown.label,
        unit=shown.unit,
        texts=tuple(significant(None if value is None else value * shown.factor) for value in values),
        best=tuple(bool(is_best) for is_best in _values(rows, f"{shown.metric}_best")),
        rank=shown.rank,
        margins=tuple(map(margin, values, low, high)),
        name=shown.metric,
    )


def break_even_column(rows: pl.DataFrame) -> TextColumn:
    """Return after how many new tokens compiling has paid for itself, or in words that it never does, or is unknown."""
    name = "break_even_new_tokens"
    verdicts, values, lows, highs = (
        _values(rows, each) for each in ("break_even", name, f"{name}_low", f"{name}_high")
    )
    texts = [
        (verdict or MISSING) if value is None else significant(value)
        for verdict, value in zip(verdicts, values, strict=True)
    ]
    ranges = [
        "" if low is None or high is None else f"{significant(low)} … {significant(high)}"
        for low, high in zip(lows, highs, strict=True)
    ]
    plain = _plain("break-even", texts, rank=_BREAK_EVEN_RANK, name=name)
    return replace(plain, unit="new tok", margins=tuple(ranges))


def point_column(rows: pl.DataFrame, points: pl.DataFrame) -> TextColumn:
    """Return one column that stands for all axes that vary, where there is no room for a column each."""
    varying = varying_axes(points)
    return _words("point", [point_label(row, varying) for row in rows.to_dicts()])


def failure_columns(failures: pl.DataFrame, points: pl.DataFrame) -> list[TextColumn]:
    """Return the columns point, rounds, status and reason of the points that are not ok."""
    rows = failures.to_dicts()
    return [
        point_column(failures, points),
        _words("rounds", [", ".join(map(str, row["rounds"])) for row in rows]),
        _words("status", [row["status"] for row in rows]),
        _words("reason", [_reason(row) for row in rows], is_prose=True),
    ]


def warning_columns(groups: Sequence[WarningGroup]) -> list[TextColumn]:
    """Return the columns warning, point, what was found, and remedy."""
    rows = [(group, whose, what) for group in groups for whose, what in group.findings]
    return [
        _words("warning", [group.title for group, _, _ in rows]),
        _words("point", [whose for _, whose, _ in rows]),
        _words("finding", [what for _, _, what in rows], is_prose=True),
        _words("remedy", [group.remedy for group, _, _ in rows], is_prose=True),
    ]


def printable(text: str) -> str:
    """Return the text without control characters, which would act on a terminal and break HTML; lines stay lines."""
    return "".join(character for character in text if character == "\n" or character.isprintable())


def _reason(row: dict[str, Any]) -> str:
    reason = printable(row["reason"] or "no reason was recorded").strip()
    return f"{reason} (phase: {printable(row['phase'])})" if row["phase"] else reason


def _rounds_column(rows: pl.DataFrame) -> TextColumn:
    counts = zip(rows["rounds_ok"], rows["rounds_asked"], strict=True)
    texts = [str(ok) if ok == asked else f"{ok} of {asked}" for ok, asked in counts]
    return _plain("rounds", texts, rank=_ROUNDS_RANK, name="rounds_ok")


def _interval_column(rows: pl.DataFrame) -> TextColumn:
    """Return the 95% interval of the end-to-end latency; one round has none."""
    name = _END_TO_END.metric
    texts = [interval_text(*(row.get(key) for key in (name, f"{name}_low", f"{name}_high"))) for row in rows.to_dicts()]
    return replace(_plain("95% interval", texts, rank=_INTERVAL_RANK, name="precision"), unit=_END_TO_END.unit)


def _output_column(rows: pl.DataFrame) -> TextColumn:
    """Return a word for each configuration whose output is not its reference's."""
    texts = ["differs" if differs else "" for differs in rows["output_differs"]]
    return _plain("output", texts, rank=_OUTPUT_RANK, is_number=False, name="output_differs")


def _values(rows: pl.DataFrame, name: str) -> list[Any]:
    return rows[name].to_list() if name in rows.columns else [None] * rows.height


def _memory_shown(rows: pl.DataFrame) -> ShownMetric:
    unit, size_bytes = memory_unit(max((value or 0 for value in _values(rows, _PEAK_MEMORY.metric)), default=0))
    return replace(_PEAK_MEMORY, unit=unit, factor=1 / size_bytes)


def _words(label: str, texts: list[str], is_prose: bool = False) -> TextColumn:
    return replace(_plain(label, texts, rank=0, is_number=False), is_prose=is_prose)


def _plain(label: str, texts: list[str], rank: int, is_number: bool = True, name: str = "") -> TextColumn:
    return TextColumn(label, "", tuple(texts), (False,) * len(texts), rank, is_number, name=name)
