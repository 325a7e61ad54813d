"""Decode and prefill throughput by context depth: what a longer context costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from hfbench.report.charts.chart import (
    Chart,
    compact,
    dash_scale,
    line_keys,
    panel_spec,
    shape_scale,
    text_column,
    way_scale,
    within,
)
from hfbench.report.frames import WORKLOAD_AXES, ReportData, paired, values_by_round, workload_name
from hfbench.report.words import MISSING, TextColumn, significant
from hfbench.statistics.intervals import CONFIDENCE, Interval, paired_ratio_interval

_RATES = {"decode": "decode_tokens_per_second", "prefill": "prefill_tokens_per_second"}
_VERBS = {"decode": "decoding", "prefill": "the prefill"}
_PANEL_HEIGHT = 200


@dataclass(frozen=True)
class _Change:
    """The throughput of a way at its greatest depth over that at its least, paired by round."""

    phase: str
    name: str
    least: int
    greatest: int
    ratio: Interval


def depth_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where nothing was measured at two depths."""
    values = _values(data.rows)
    if values.is_empty():
        return None
    return Chart(
        name="depth",
        title=_title(_changes(values, data)),
        alternative="Tokens a second, upwards, against the tokens in the cache before the call, to the right: a line "
        "for each way, in panels for decoding and for the prefill.",
        note="Medians with 95% intervals, which are drawn to twice the highest and half the lowest median at most. "
        "Prefill is the prompt's own tokens, and decode the new ones, after a context that was in the cache before the "
        "clock started. Ways whose output is flagged as different are left out.",
        spec=_spec(data.ways, has_intervals=bool(values["low"].is_not_null().any())),
        values=compact(values.select("way", "panel", "depth", "rate", "low", "high")),
        panel_field="panel",
        panels=tuple(values["panel"].unique(maintain_order=True)),
        table=_table(values),
        keys=line_keys(data.ways, values["way"]),
        own_axes=("x", "y"),
    )


def _values(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each phase and configuration whose way and work were measured at several depths."""
    parts = [_phase(rows, phase, rate) for phase, rate in _RATES.items() if rate in rows.columns]
    values = pl.concat(parts) if parts else pl.DataFrame()
    if values.is_empty():
        return values
    several = pl.col("depth").n_unique().over("phase", "series") > 1
    return values.filter(several)


def _phase(rows: pl.DataFrame, phase: str, rate: str) -> pl.DataFrame:
    axes = [axis for axis in WORKLOAD_AXES if axis != "context_depth" and rows[axis].n_unique() > 1]
    work = pl.Series([workload_name(row, axes) for row in rows.to_dicts()], dtype=pl.String)
    low, high = (
        within(pl.col(f"{rate}_{end}"), pl.col(rate)).over("panel").alias(end)  # as the marks are drawn
        for end in ("low", "high")
    )
    return (
        rows.with_columns(work=work)
        .filter(pl.col(rate).is_not_null() & ~pl.col("output_differs"))
        .with_columns(
            panel=pl.concat_str(
                pl.lit(phase), pl.when(pl.col("work") != "").then("work"), separator=", ", ignore_nulls=True
            ),
            series=pl.concat_str("way", pl.when(pl.col("work") != "").then("work"), separator=", ", ignore_nulls=True),
        )
        .select(
            "configuration",
            "way",
            "panel",
            "series",
            low,
            high,
            phase=pl.lit(phase),
            depth="context_depth",
            rate=rate,
            table_low=f"{rate}_low",
            table_high=f"{rate}_high",
        )
        .sort("depth", maintain_order=True)
    )


def _changes(values: pl.DataFrame, data: ReportData) -> list[_Change]:
    """Return how each series changes from its least depth to its greatest; the intervals hold for all together."""
    series = values.partition_by("phase", "series", maintain_order=True)
    confidence = 1 - (1 - CONFIDENCE) / len(series)  # Bonferroni: the title picks the largest
    rounds = {phase: values_by_round(data.samples, rate) for phase, rate in _RATES.items()}
    found = []
    for each in series:
        first, last = each.row(0, named=True), each.row(-1, named=True)
        known = rounds[first["phase"]]
        ratio = paired_ratio_interval(
            *paired(known[first["configuration"]], known[last["configuration"]]), confidence=confidence
        )
        if ratio is not None:
            found.append(_Change(first["phase"], first["series"], first["depth"], last["depth"], ratio))
    return found


def _title(changes: Sequence[_Change]) -> str:
    """Return the largest change that its interval bears."""
    if not changes:
        return "Throughput by context depth; one round bears no interval, so no change is established"
    told = [each for each in changes if not each.ratio.low <= 1 <= each.ratio.high]
    if not told:
        return "With a longer context, throughput changes by no more than noise"
    most = max(told, key=lambda each: max(each.ratio.estimate, 1 / each.ratio.estimate))
    times = f"{_VERBS[most.phase]} has {significant(most.ratio.estimate)}× the throughput"
    return f"After {most.greatest} tokens, {times} that it has after {most.least} ({most.name})"


def _spec(ways: Sequence[str], *, has_intervals: bool) -> dict[str, Any]:
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("depth:Q", title="tokens before"),
        alt.Tooltip("rate:Q", title="tokens/s", format=".4~r"),
    ]
    axis: dict[str, Any] = {"title": "throughput (tokens/s)", "scale": alt.Scale(zero=True)}
    y = alt.Y("rate:Q", **axis)
    base = alt.Chart().encode(
        x=alt.X("depth:Q", title="context depth (tokens)"), color=alt.Color("way:N", scale=way_scale(ways), legend=None)
    )
    line = base.mark_line(strokeWidth=1.8).encode(
        y=y, strokeDash=alt.StrokeDash("way:N", scale=dash_scale(ways), legend=None)
    )
    interval = base.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q", **axis), y2="high:Q")
    mark = base.mark_point(size=50, filled=True, opacity=1).encode(
        y=y, shape=alt.Shape("way:N", scale=shape_scale(ways), legend=None), tooltip=tooltip
    )
    layers = [line, *((interval,) if has_intervals else ()), mark]
    return panel_spec(alt.layer(*layers).properties(height=_PANEL_HEIGHT))


def _table(values: pl.DataFrame) -> list[TextColumn]:
    ends = zip(values["table_low"], values["table_high"], strict=True)
    return [
        text_column("phase", values["phase"].to_list(), is_number=False),
        text_column("way", values["series"].to_list(), is_number=False),
        text_column("context depth", [str(each) for each in values["depth"]], "tokens"),
        text_column("throughput", [significant(each) for each in values["rate"]], "tokens/s"),
        text_column(
            "95% interval",
            [MISSING if low is None else f"{significant(low)} … {significant(high)}" for low, high in ends],
            "tokens/s",
        ),
    ]
