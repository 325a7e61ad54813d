"""How many times as fast as its baseline each configuration is, with intervals."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.report.charts.chart import (
    FAINT,
    ROW_PIXELS,
    Chart,
    Key,
    compact,
    dash_scale,
    line_keys,
    one_mark,
    panel_spec,
    shape_scale,
    text_column,
    told_fill,
    way_axis,
    way_scale,
    within,
)
from hfbench.report.frames import ReportData, shown_names
from hfbench.report.speedups import Comparison, interval_words, speedups, times_as_fast
from hfbench.report.words import MISSING, TextColumn, significant

_LATENCY, _THROUGHPUT = "inter_token_seconds", "decode_tokens_per_second"
_PANEL_HEIGHT = 240
_LOGARITHMIC_FROM = 20  # highest over lowest value, where a linear axis would heap the small ones


def frontier_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where nothing was decoded."""
    values = frontier_values(data.rows)
    if values.is_empty():
        return None
    return Chart(
        name="frontier",
        title=_frontier_title(values),
        alternative="Decode throughput in tokens a second, upwards, against inter-token latency in milliseconds, to "
        "the right. A line joins the batch sizes of each way.",
        note="Medians with 95% intervals, which are drawn to twice the highest and half the lowest median at most; the "
        "number at a mark is its batch size, and a line joins the batch sizes of one way. Filled: no other median of "
        "the panel has both more tokens a second and a shorter wait between tokens (the frontier), and its output is "
        "not flagged as different. Up and to the left is better.",
        spec=_frontier_spec(values, data.ways),
        values=compact(values.drop("output_differs")),
        panel_field="scene",
        panels=tuple(values["scene"].unique(maintain_order=True)),
        table=_frontier_table(values),
        keys=[
            *line_keys(data.ways, values["way"]),
            Key("on the frontier", FAINT, "circle"),
            Key("behind it", FAINT, "ring"),
        ],
        own_axes=("x", "y"),
    )


def frontier_values(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration that decodes: way, scene, batch size, latency in ms, throughput, intervals.

    `frontier` says that no configuration of the scene has a lower latency and at least the throughput, or the same
    latency and more: the Pareto frontier of the medians. What computes something else, by its output, is not on it.
    """
    if not {_LATENCY, _THROUGHPUT} <= set(rows.columns):
        return pl.DataFrame()
    values = rows.drop_nulls([_LATENCY, _THROUGHPUT]).select(
        "way",
        "scene",
        "name",
        "output_differs",
        batch="batch_size",
        ms=pl.col(_LATENCY) * 1e3,
        ms_low=_end(_LATENCY, "low") * 1e3,
        ms_high=_end(_LATENCY, "high") * 1e3,
        rate=_THROUGHPUT,
        rate_low=_end(_THROUGHPUT, "low"),
        rate_high=_end(_THROUGHPUT, "high"),
    )
    groups = [_with_frontier(group) for group in values.partition_by("scene", maintain_order=True)]
    return pl.concat(groups) if groups else pl.DataFrame()


def _end(metric: str, end: str) -> pl.Expr:
    """Return where this end of a metric's interval is drawn."""
    return within(pl.col(f"{metric}_{end}"), pl.col(metric)).over("scene")


def _with_frontier(group: pl.DataFrame) -> pl.DataFrame:
    """Walk from the lowest latency up: a point is on the frontier where its throughput exceeds all before it."""
    rate = pl.when(~pl.col("output_differs")).then("rate").otherwise(0.0)
    return group.sort("ms", rate * -1, maintain_order=True).with_columns(
        frontier=rate > rate.cum_max().shift(1, fill_value=0.0)
    )


def _frontier_title(values: pl.DataFrame) -> str:
    """Return what the way with the highest throughput was measured at, with its smallest and its largest batch."""
    ranked = values.filter("frontier") if values["frontier"].any() else values
    top = ranked.row(int(ranked["rate"].arg_max() or 0), named=True)
    line = values.filter(pl.col("way") == top["way"], pl.col("scene") == top["scene"]).sort("batch").to_dicts()
    scene = f" ({top['scene']})" if values["scene"].n_unique() > 1 else ""
    ends = [line[0], line[-1]] if len(line) > 1 else line
    parts = [f"{significant(row['rate'])} tokens/s at batch {row['batch']}" for row in ends]
    waits = [f"{significant(row['ms'])} ms" for row in ends]
    return f"{top['way']} decodes {', '.join(parts)}, with {' and '.join(waits)} between tokens{scene}"


def _frontier_spec(values: pl.DataFrame, ways: Sequence[str]) -> dict[str, Any]:
    latency: dict[str, Any] = {"title": "inter-token latency (ms)", "scale": _scale(values["ms"])}
    throughput: dict[str, Any] = {"title": "decode throughput (tokens/s)", "scale": _scale(values["rate"])}
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("batch:O", title="batch"),
        alt.Tooltip("rate:Q", title="tokens/s", format=".4~r"),
        alt.Tooltip("ms:Q", title="ms between tokens", format=".4~r"),
    ]
    colour = alt.Color("way:N", scale=way_scale(ways), legend=None)
    shape = alt.Shape("way:N", scale=shape_scale(ways), legend=None)
    base = alt.Chart().encode(
        x=alt.X("ms:Q", **latency), y=alt.Y("rate:Q", **throughput), color=colour, tooltip=tooltip
    )
    line = base.mark_line(strokeWidth=1.5, opacity=0.6).encode(
        order="batch:Q",
        strokeDash=alt.StrokeDash("way:N", scale=dash_scale(ways), legend=None),
        tooltip=alt.value(None),
    )
    wide = base.mark_rule(opacity=0.6).encode(x=alt.X("ms_low:Q", **latency), x2="ms_high:Q")
    tall = base.mark_rule(opacity=0.6).encode(y=alt.Y("rate_low:Q", **throughput), y2="rate_high:Q")
    mark = base.mark_point(size=60, strokeWidth=2, opacity=1).encode(
        shape=shape, fill=told_fill("datum.frontier", ways)
    )
    label = base.mark_text(align="left", dx=8, dy=-8, fontSize=11).encode(text="batch:N", tooltip=alt.value(None))
    has_intervals = values["ms_low"].is_not_null().any()  # one round has none
    layers = [line, *((wide, tall) if has_intervals else ()), mark, label]
    return panel_spec(alt.layer(*layers).properties(height=_PANEL_HEIGHT))


def _scale(values: pl.Series) -> alt.Scale:
    numbers = values.to_list()
    spread = max(numbers) / min(numbers)
    return alt.Scale(type="log") if spread >= _LOGARITHMIC_FROM else alt.Scale(zero=spread == 1)


def _frontier_table(values: pl.DataFrame) -> list[TextColumn]:
    return [
        text_column("configuration", values["name"].to_list(), is_number=False),
        text_column("inter-token", [significant(each) for each in values["ms"]], "ms"),
        text_column("decode", [significant(each) for each in values["rate"]], "tokens/s"),
        text_column("frontier", ["yes" if each else MISSING for each in values["frontier"]], is_number=False),
    ]


def speed_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where no workload has two ways to compare."""
    comparisons = speedups(data)
    if not comparisons:
        return None
    values = _values(comparisons)
    return Chart(
        name="speed",
        title=_title(comparisons, strongest(comparisons)),
        alternative="A dot for each way of each workload on an axis of speed relative to a baseline, whose speed is 1, "
        "with its 95% interval as a line.",
        note="Ratio of end-to-end latencies, paired by round, with its 95% interval; to the right is faster. A ring is "
        "a difference that is too small to matter or cannot be told from noise. The intervals hold however often one "
        "looks, and for all comparisons of this page together. Intervals are drawn to twice the highest ratio and half "
        "the lowest at most. Ways whose output is flagged as different are left out.",
        spec=_spec(values, data.ways),
        values=compact(values),
        panel_field="workload",
        panels=tuple(shown_names(data.workloads, values["workload"])),
        table=_table(comparisons),
        keys=[
            Key("beyond noise", FAINT, "circle"),
            Key("not told from noise", FAINT, "ring"),
            Key("same speed", FAINT, "line"),
        ],
    )


def strongest(comparisons: Sequence[Comparison]) -> Comparison | None:
    """Return the largest difference from a baseline among those that hold for all of them together, or None."""
    held = [each for each in comparisons if each.is_clear]
    return max(held, key=lambda each: max(each.estimate, 1 / each.estimate), default=None)


def _title(comparisons: Sequence[Comparison], claim: Comparison | None) -> str:
    """Return what the intervals bear, and no more."""
    if all(each.interval is None for each in comparisons):
        return (
            "Speed relative to the baseline; one round bears no interval, so none of these differences is established"
        )
    if claim is None:
        return "No way is faster or slower than its baseline by more than noise, over all comparisons together"
    return times_as_fast(claim)


def _values(comparisons: Sequence[Comparison]) -> pl.DataFrame:
    rows = [
        {
            "way": each.configuration["way"],
            "workload": each.configuration["workload"],
            "against": each.against["way"],
            "speed": each.estimate,
            "low": each.interval.low if each.interval else None,
            "high": each.interval.high if each.interval else None,
            "told": each.is_clear,
        }
        for each in comparisons
    ]
    values = pl.DataFrame(rows, schema_overrides={"low": pl.Float64, "high": pl.Float64})
    return values.with_columns(within(pl.col("low", "high"), pl.col("speed")).name.prefix("drawn_"))


def _spec(values: pl.DataFrame, ways: Sequence[str]) -> dict[str, Any]:
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("workload:N", title="workload"),
        alt.Tooltip("speed:Q", title="times as fast", format=".3~f"),
        alt.Tooltip("against:N", title="as"),
        alt.Tooltip("low:Q", title="95% interval from", format=".3~f"),
        alt.Tooltip("high:Q", title="to", format=".3~f"),
    ]
    axis: dict[str, Any] = {
        "title": "speed relative to the baseline (×)",
        "scale": alt.Scale(zero=False),
        "axis": alt.Axis(grid=True),
    }
    base = alt.Chart().encode(
        y=way_axis(ways, values["way"]), color=alt.Color("way:N", scale=way_scale(ways), legend=None), tooltip=tooltip
    )
    same = one_mark().mark_rule(strokeWidth=1.5).encode(x=alt.datum(1))
    interval = base.mark_rule(strokeWidth=2).encode(x=alt.X("drawn_low:Q", **axis), x2="drawn_high:Q")
    x = alt.X("speed:Q", **axis)
    dot = base.mark_point(size=60, strokeWidth=2, opacity=1).encode(x=x, fill=told_fill("datum.told", ways))
    has_intervals = values["low"].is_not_null().any()  # one round has none
    return panel_spec(
        alt.layer(same, *((interval,) if has_intervals else ()), dot).properties(height=alt.Step(ROW_PIXELS))
    )


def _table(comparisons: Sequence[Comparison]) -> list[TextColumn]:
    return [
        text_column("workload", [each.configuration["workload"] for each in comparisons], is_number=False),
        text_column("way", [each.configuration["way"] for each in comparisons], is_number=False),
        text_column("baseline", [each.against["way"] for each in comparisons], is_number=False),
        text_column("times as fast", [significant(each.estimate) for each in comparisons]),
        text_column("95% interval", [interval_words(each.interval) for each in comparisons]),
    ]
