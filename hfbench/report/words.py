"""The tables of the report as columns of text, the same for the terminal and for HTML."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import polars as pl

from hfbench.core.point import AXIS_TABLE, CONFIGURATION_AXES, INF, NONE, UNIFORM, USUAL
from hfbench.core.record import OK
from hfbench.report.frames import WarningGroup, varying_axes
from hfbench.report.pages import Bullet, Bullets, Cell, Column, Kind, Role, number, printable
from hfbench.tables.configurations import IS_QUANTIZED
from hfbench.tables.metrics import PERCENTILES, SINGLE_TIMES, percentile_name
from hfbench.tables.store import point_label

MISSING = "–"
NOT_KNOWN = "not known"
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


def span_text(low: float | None, high: float | None, missing: str = MISSING) -> str:
    """Return two limits, or `missing` where they are not known."""
    return missing if low is None or high is None else f"{significant(low)} … {significant(high)}"


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """Return the limits of an interval, unless they are so far from the value that they say nothing of it."""
    if value is None or low is None or high is None:
        return MISSING
    if low <= 0 or high > _SAYS_NOTHING * value or low * _SAYS_NOTHING < value:
        return "not known"
    return span_text(low, high)


def range_text(values: Iterable[float], names: Iterable[str], unit: str) -> str:
    """Return the lowest and the highest value, each with whose it is: `740 MiB (sdpa) to 781 MiB (eager)`.

    Raises `ValueError` where there is none.
    """
    pairs = list(zip(values, names, strict=True))
    return " to ".join(
        dict.fromkeys(f"{significant(value)} {unit} ({name})" for value, name in (min(pairs), max(pairs)))
    )


def percent(value: float) -> str:
    """Return a percentage with two significant digits."""
    return f"{float(f'{value:.2g}'):g}%"


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
    elsewhere = {*varying_axes(points), *_TITLE_AXES}
    constant = {axis: points[axis][0] for axis in CONFIGURATION_AXES if axis not in elsewhere}
    told = {axis: value for axis, value in constant.items() if AXIS_TABLE[axis].always_told or value != USUAL.get(axis)}
    shared = ", ".join(f"{AXIS_TABLE[axis].label} {axis_text(value)}" for axis, value in told.items())
    ok, configurations = int((points["status"] == OK).sum()), points.select(CONFIGURATION_AXES).n_unique()
    names = (_distinct(points["model"]), device_names(points), _distinct(points["dtype"]))
    return Captions(
        title=" · ".join(map(", ".join, names)),
        constants=f"all with {shared}" if shared else "",
        counts=f"{counted(configurations, 'configuration')}, {ok} of {counted(points.height, 'record')} ok",
        notes=tuple(_notes(rows)),
    )


def axis_text(value: object) -> str:
    """Return an axis value as shown: yes and no for booleans."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def device_names(points: pl.DataFrame) -> list[str]:
    """Return the names of the devices that were measured on, or the device asked for where no record names one."""
    return _distinct(points["device_name"].drop_nulls()) or _distinct(points["device"])


def _distinct(names: pl.Series) -> list[str]:
    return names.unique(maintain_order=True).to_list()


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
    unequal = rows.filter(pl.col("request_lengths") != UNIFORM)
    found = unequal.select("request_lengths", "requests", "prompt_tokens", "new_tokens", *_LONGEST)
    all_together = (rows["request_rate"] == INF).all()
    arrive = "They arrive together, and" if all_together else "Without a request rate they arrive together;"
    notes += [
        f"{name} requests: {requests}, with {prompt:,} prompt and {new:,} new tokens in all, at most {longest:,} and "
        f"{most:,} each. {arrive} batch is how many run at a time."
        for name, requests, prompt, new, longest, most in found.unique(maintain_order=True).drop_nulls().rows()
    ]
    return notes


def counted(count: int, noun: str) -> str:
    """Return how many: `1 round`, `3 rounds`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True)
class ShownMetric:
    """How a metric is shown: `factor` turns its unit into the one shown; for `rank` see `Column`."""

    label: str
    unit: str
    factor: float = 1
    rank: int = 20  # of what is shown only where it is asked for


END_TO_END = "end_to_end_seconds"
_PEAK_MEMORY = "peak_memory_bytes"
_MEMORY_PHASES = ("load", "prefill", "decode")


def _percentiles_shown(name: str, label: str) -> dict[str, ShownMetric]:
    return {
        percentile_name(name, percent): ShownMetric(f"{label} p{percent}", "ms", 1e3, 4 if percent == 95 else 20)
        for percent in PERCENTILES
    }


METRICS_SHOWN = {
    END_TO_END: ShownMetric("end-to-end", "s", 1, 1),
    "time_to_first_token_seconds": ShownMetric("TTFT", "ms", 1e3, 3),
    "inter_token_seconds": ShownMetric("inter-token", "ms", 1e3, 6),
    "decode_tokens_per_second": ShownMetric("decode", "tok/s", 1, 2),
    "prefill_tokens_per_second": ShownMetric("prefill", "tok/s", 1, 9),
    "load_seconds": ShownMetric("load", "s", 1, 10),
    _PEAK_MEMORY: ShownMetric("peak memory", "MiB", 1 / _MIB, 8),
    **{f"{phase}_{_PEAK_MEMORY}": ShownMetric(f"{phase} peak", "MiB", 1 / _MIB) for phase in _MEMORY_PHASES},
    "energy_joules_per_token": ShownMetric("energy", "J/tok", 1, 13),
    **_percentiles_shown("time_to_first_token", "TTFT"),
    "output_tokens_per_second": ShownMetric("output", "tok/s", 1, 2),
    "padding_waste_share": ShownMetric("padding waste", "%", 100, 3),
    "request_latency_seconds": ShownMetric("request", "ms", 1e3, 4),
    **_percentiles_shown("request_latency", "request"),
    "prefix_hit_share": ShownMetric("prefix hits", "%", 100, 3),
    "tokens_per_step": ShownMetric("tokens a step", "", 1, 3),
    "draft_acceptance_share": ShownMetric("accepted", "%", 100, 3),
    "draft_time_share": ShownMetric("drafting", "%", 100, 3),
    "end_to_end_unobserved_seconds": ShownMetric("unobserved", "s"),
    "inter_token_gap_seconds": ShownMetric("token gap", "ms", 1e3),
    **_percentiles_shown("inter_token_gap", "gap"),
    "first_call_seconds": ShownMetric("first call", "s"),
    "compile_seconds": ShownMetric("compile time", "s"),
    "warm_first_call_seconds": ShownMetric("warm first call", "s"),
    "warm_compile_seconds": ShownMetric("warm compile time", "s"),
    "mbu": ShownMetric("MBU", "%", 100, 11),
    "mfu": ShownMetric("MFU", "%", 100, 12),
    "prompt_nll": ShownMetric("NLL", "nats/tok"),
    "nll_change": ShownMetric("NLL change", "nats/tok", 1, 3),
}
_LATENCIES = (
    "time_to_first_token_seconds",
    "inter_token_seconds",
    "decode_tokens_per_second",
    "prefill_tokens_per_second",
    END_TO_END,
)
_OF_REQUESTS = (
    "time_to_first_token_p95_seconds",
    "request_latency_p95_seconds",
    "output_tokens_per_second",
    "padding_waste_share",
    "prefix_hit_share",
)
_OF_QUANTIZATION = ("nll_change",)  # its price in quality
_OF_ASSISTANTS = ("tokens_per_step", "draft_acceptance_share", "draft_time_share")
_OTHERS = ("mbu", "mfu", "load_seconds", _PEAK_MEMORY, "energy_joules_per_token")


def result_columns(rows: pl.DataFrame, points: pl.DataFrame) -> list[Column]:
    """Return the columns of the results: an axis each where it varies, then rounds and metrics with their units.

    A metric that no row has a value of gets no column.
    """
    axes = [axis_column(rows, axis) for axis in varying_axes(points)]
    return axes + [column for column in _number_columns(rows) if set(column.texts) - {MISSING, ""}]


def known_columns(rows: pl.DataFrame) -> list[Column]:
    """Return every column that can be asked for: the axes, what the results show, and the other metrics."""
    shown = [*(axis_column(rows, axis) for axis in CONFIGURATION_AXES), *_number_columns(rows)]
    others = METRICS_SHOWN.keys() - {column.name for column in shown}
    return [*shown, *(metric_column(rows, metric) for metric in METRICS_SHOWN if metric in others)]


def _number_columns(rows: pl.DataFrame) -> list[Column]:
    """Return the columns beside the axes, also those that no row has a value of."""
    has_requests = bool(
        rows.select(((pl.col("request_lengths") != UNIFORM) | (pl.col("request_rate") != INF)).any()).item()
    )
    has_assistants = bool((rows["assistant"] != NONE).any())
    has_quantized = bool(rows.select(IS_QUANTIZED.any()).item())
    counts = zip(rows["rounds_ok"], rows["rounds_asked"], strict=True)
    rounds = (str(ok) if ok == asked else f"{ok} of {asked}" for ok, asked in counts)
    intervals = map(interval_text, *(_values(rows, f"{END_TO_END}{end}") for end in ("", "_low", "_high")))
    differ = ("differs" if differs else "" for differs in rows["output_differs"])
    return [
        number("rounds", rank=5, name="rounds_ok").filled(rounds),
        *(metric_column(rows, metric) for metric in _LATENCIES),
        number("95% interval", "s", rank=4, name="precision").filled(intervals),
        *(metric_column(rows, metric) for metric in _OF_REQUESTS if has_requests),
        *(metric_column(rows, metric) for metric in _OF_QUANTIZATION if has_quantized),
        *(metric_column(rows, metric) for metric in _OF_ASSISTANTS if has_assistants),
        *(metric_column(rows, metric) for metric in _OTHERS),
        break_even_column(rows),
        Column("output", "word", rank=2, name="output_differs").filled(differ),
    ]


def word_column(label: str, texts: Iterable[str]) -> Column:
    """Return a column of words."""
    return Column(label, "word").filled(texts)


def number_column(
    label: str, values: Iterable[float | str | None], unit: str = "", margins: Iterable[str] = ()
) -> Column:
    """Return a column of numbers: counts as they are, what was measured with three significant digits, or text."""
    texts = (str(each) if isinstance(each, int | str) else significant(each) for each in values)
    cells = (Cell(text, margin=each) for text, each in zip_longest(texts, margins, fillvalue=""))
    return number(label, unit).filled(cells)


def axis_column(rows: pl.DataFrame, axis: str) -> Column:
    """Return the column of an axis."""
    texts = (MISSING if value is None else axis_text(value) for value in rows[axis])
    kind: Kind = "number" if rows[axis].dtype.is_numeric() else "word"
    return Column(AXIS_TABLE[axis].label, kind, name=axis).filled(texts)


def metric_column(rows: pl.DataFrame, metric: str) -> Column:
    """Return the column of a metric, memory in a unit that keeps its numbers short.

    Where it has no value stands a dash, and words where there is a reason that it is not known.
    """
    shown = METRICS_SHOWN[metric]
    values, low, high, best = (_values(rows, f"{metric}{end}") for end in ("", "_low", "_high", "_best"))
    if metric.endswith(_PEAK_MEMORY):
        unit, size_bytes = memory_unit(max((value or 0 for value in values), default=0))
        shown = replace(shown, unit=unit, factor=1 / size_bytes)
    texts = (
        NOT_KNOWN if value is None and why else significant(None if value is None else value * shown.factor)
        for value, why in zip(values, _values(rows, f"{metric}_unknown"), strict=True)
    )
    roles: Iterable[Role] = ("best" if is_best else "" for is_best in best)
    cells = map(Cell, texts, roles, map(margin, values, low, high))
    return number(shown.label, shown.unit, rank=shown.rank, name=metric).filled(cells)


_PERCENTILES_SHOWN = tuple(percentile_name(name, percent) for name in SINGLE_TIMES for percent in PERCENTILES)
_PHASE_PEAKS = tuple(f"{phase}_{_PEAK_MEMORY}" for phase in _MEMORY_PHASES)


def percentile_columns(rows: pl.DataFrame, points: pl.DataFrame) -> list[Column]:
    """Return the configurations with the percentiles of their single times; none where nothing was observed."""
    return _known_of(rows, points, _PERCENTILES_SHOWN)


def phase_memory_columns(rows: pl.DataFrame, points: pl.DataFrame) -> list[Column]:
    """Return the configurations with the peak memory of each phase; none where no phase's is known."""
    return _known_of(rows, points, _PHASE_PEAKS)


def _known_of(rows: pl.DataFrame, points: pl.DataFrame, metrics: Sequence[str]) -> list[Column]:
    columns = [metric_column(rows, metric) for metric in metrics]
    known = [column for column in columns if set(column.texts) - {MISSING}]
    return [point_column(rows, points), *known] if known else []


def break_even_column(rows: pl.DataFrame) -> Column:
    """Return after how many new tokens compiling has paid for itself, or in words that it never does, or is unknown."""
    name = "break_even_new_tokens"
    columns = (_values(rows, each) for each in ("break_even", name, f"{name}_low", f"{name}_high"))
    cells = (
        Cell((verdict or MISSING) if value is None else significant(value), margin=span_text(low, high, ""))
        for verdict, value, low, high in zip(*columns, strict=True)
    )
    return number("break-even", "new tok", rank=7, name=name).filled(cells)


def point_column(rows: pl.DataFrame, points: pl.DataFrame) -> Column:
    """Return one column that stands for all axes that vary, where there is no room for a column each."""
    varying = varying_axes(points)
    return Column("point", "word").filled(point_label(row, varying) for row in rows.to_dicts())


def failure_columns(failures: pl.DataFrame, points: pl.DataFrame) -> list[Column]:
    """Return the columns point, rounds, status and reason of the points that are not ok."""
    return [
        point_column(failures, points),
        word_column("rounds", (", ".join(map(str, rounds)) for rounds in failures["rounds"])),
        word_column("status", failures["status"]),
        Column("reason", "prose").filled(map(_reason, failures["reason"], failures["phase"])),
    ]


def warning_columns(groups: Sequence[WarningGroup]) -> list[Column]:
    """Return the columns warning, point, what was found, and remedy."""
    heads = [Column("warning", "word"), Column("point", "word"), Column("finding", "prose"), Column("remedy", "prose")]
    rows = [(group.title, whose, what, group.remedy) for group in groups for whose, what in group.findings]
    return [head.filled(row[place] for row in rows) for place, head in enumerate(heads)]


_MOST_FINDINGS = 3  # of one kind, where the report has the rest


def warning_list(groups: Sequence[WarningGroup], *, is_whole: bool = False) -> Bullets:
    """Return each kind of warning with its findings, of many only the first unless it is whole, and what to do."""
    items, most = [], None if is_whole else _MOST_FINDINGS
    for group in groups:
        findings = [f"{whose}: {what}" if whose else what for whose, what in group.findings]
        left_out = len(findings) - len(findings[:most])
        more = [f"and {left_out} more, in the report"] if left_out else []
        items.append(Bullet(group.title, "unsure", tuple(map(Bullet, [*findings[:most], *more])), group.remedy))
    return Bullets(tuple(items), "Warnings")


def _reason(reason: str | None, phase: str | None) -> str:
    text = printable(reason or "no reason was recorded").strip()
    return f"{text} (phase: {printable(phase)})" if phase else text


def _values(rows: pl.DataFrame, name: str) -> list[Any]:
    return rows[name].to_list() if name in rows.columns else [None] * rows.height
