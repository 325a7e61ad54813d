"""The tables of the report as columns of text, the same for the terminal and for HTML."""

from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from hfbench.reporting.captions import AXIS_LABELS, axis_text
from hfbench.reporting.numbers import MISSING, memory_unit, significant
from hfbench.reporting.results import varying_axes
from hfbench.tables.keys import point_label

BEST_MARK = "*"


@dataclass(frozen=True)
class TextColumn:
    """A column of text: `best` says which cells to mark; the higher its `rank`, the sooner a narrow page drops it.

    Axes have rank 0 and are never dropped.
    """

    label: str
    unit: str
    texts: tuple[str, ...]
    best: tuple[bool, ...]
    rank: int
    is_number: bool = True


@dataclass(frozen=True)
class _Shown:
    """How a metric is shown; `factor` turns its unit into the one shown."""

    metric: str
    label: str
    unit: str
    factor: float
    rank: int


_TIME_TO_FIRST_TOKEN = _Shown("time_to_first_token_seconds", "TTFT", "ms", 1e3, 3)
_INTER_TOKEN = _Shown("inter_token_seconds", "inter-token", "ms", 1e3, 6)
_DECODE = _Shown("decode_tokens_per_second", "decode", "tok/s", 1, 2)
_PREFILL = _Shown("prefill_tokens_per_second", "prefill", "tok/s", 1, 8)
_END_TO_END = _Shown("end_to_end_seconds", "end-to-end", "s", 1, 1)
_LOAD = _Shown("load_seconds", "load", "s", 1, 9)
_PEAK_MEMORY = _Shown("peak_memory_bytes", "peak memory", "MiB", 2**-20, 7)
_RANGE_RANK, _ROUNDS_RANK = 4, 5


def result_columns(rows: pl.DataFrame, points: pl.DataFrame) -> list[TextColumn]:
    """Return the columns of the results: an axis each where it varies, then rounds and metrics with their units.

    A metric that no row has a value of gets no column.
    """
    before_range = [_TIME_TO_FIRST_TOKEN, _INTER_TOKEN, _DECODE, _PREFILL, _END_TO_END]
    axes = [_axis_column(rows[axis], AXIS_LABELS[axis]) for axis in varying_axes(points)]
    numbers = [
        _rounds_column(rows),
        *(_metric_column(rows, shown) for shown in before_range),
        _range_column(rows),
        _metric_column(rows, _LOAD),
        _metric_column(rows, _memory_shown(rows)),
    ]
    return axes + [column for column in numbers if set(column.texts) != {MISSING}]


def point_column(rows: pl.DataFrame, points: pl.DataFrame) -> TextColumn:
    """Return one column that stands for all axes that vary, where there is no room for a column each."""
    varying = varying_axes(points)
    return _plain("point", [point_label(row, varying) for row in rows.to_dicts()], rank=0, is_number=False)


def failure_columns(failures: pl.DataFrame, points: pl.DataFrame) -> list[TextColumn]:
    """Return the columns point, rounds, status and reason of the points that are not ok."""
    rows = failures.to_dicts()
    return [
        point_column(failures, points),
        _plain("rounds", [", ".join(map(str, row["rounds"])) for row in rows], rank=0, is_number=False),
        _plain("status", [row["status"] for row in rows], rank=0, is_number=False),
        _plain("reason", [_reason(row) for row in rows], rank=0, is_number=False),
    ]


def printable(text: str) -> str:
    """Return the text without control characters, which would act on a terminal and break HTML; lines stay lines."""
    return "".join(character for character in text if character == "\n" or character.isprintable())


def _reason(row: dict[str, Any]) -> str:
    reason = printable(row["reason"] or "no reason was recorded").strip()
    return f"{reason} (phase: {printable(row['phase'])})" if row["phase"] else reason


def _axis_column(values: pl.Series, label: str) -> TextColumn:
    return _plain(label, [axis_text(value) for value in values], rank=0, is_number=values.dtype.is_numeric())


def _rounds_column(rows: pl.DataFrame) -> TextColumn:
    counts = zip(rows["rounds_ok"], rows["rounds_asked"], strict=True)
    texts = [str(ok) if ok == asked else f"{ok} of {asked}" for ok, asked in counts]
    return _plain("rounds", texts, rank=_ROUNDS_RANK)


def _range_column(rows: pl.DataFrame) -> TextColumn:
    """Return the lowest and highest median of a round: how much one process differs from the next."""
    if "end_to_end_seconds_lowest" not in rows.columns:
        texts = [MISSING] * rows.height
    else:
        ends = zip(
            rows["end_to_end_seconds_lowest"], rows["end_to_end_seconds_highest"], rows["rounds_ok"], strict=True
        )
        texts = [f"{significant(low)} … {significant(high)}" if n > 1 else MISSING for low, high, n in ends]
    return replace(_plain("range of rounds", texts, rank=_RANGE_RANK), unit="s")


def _metric_column(rows: pl.DataFrame, shown: _Shown) -> TextColumn:
    empty = [None] * rows.height
    values = rows[shown.metric].to_list() if shown.metric in rows.columns else empty
    best = rows[f"{shown.metric}_best"].to_list() if f"{shown.metric}_best" in rows.columns else empty
    return TextColumn(
        label=shown.label,
        unit=shown.unit,
        texts=tuple(significant(None if value is None else value * shown.factor) for value in values),
        best=tuple(bool(is_best) for is_best in best),
        rank=shown.rank,
    )


def _memory_shown(rows: pl.DataFrame) -> _Shown:
    values = rows[_PEAK_MEMORY.metric].drop_nulls().to_list() if _PEAK_MEMORY.metric in rows.columns else []
    unit, size_bytes = memory_unit(max(values, default=0))
    return replace(_PEAK_MEMORY, unit=unit, factor=1 / size_bytes)


def _plain(label: str, texts: list[str], rank: int, is_number: bool = True) -> TextColumn:
    return TextColumn(label, "", tuple(texts), (False,) * len(texts), rank, is_number)
