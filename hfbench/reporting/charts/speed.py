"""How many times as fast as its baseline each configuration is, with intervals."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.reporting.cells import TextColumn
from hfbench.reporting.charts.chart import (
    ROW_PIXELS,
    Chart,
    Key,
    compact,
    one_mark,
    panel_spec,
    text_column,
    told_fill,
    way_axis,
    within,
)
from hfbench.reporting.charts.theme import FAINT, way_scale
from hfbench.reporting.numbers import significant
from hfbench.reporting.phrases import interval_text, times_as_fast
from hfbench.reporting.report_data import ReportData, shown_names
from hfbench.reporting.winners import Comparison, speedups
from hfbench.statistics.intervals import CONFIDENCE


def speed_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where no workload has two ways to compare."""
    comparisons = speedups(data)
    if not comparisons:
        return None
    values = _values(comparisons)
    return Chart(
        name="speed",
        title=_title(comparisons, strongest(data, len(comparisons))),
        alternative="A dot for each way of each workload on an axis of speed relative to a baseline, whose speed is 1, "
        "with its 95% interval as a line.",
        note="Ratio of end-to-end latencies, paired by round, with its 95% interval; to the right is faster. A ring is "
        "a difference that cannot be told from noise. Each interval holds for itself: of twenty comparisons of what is "
        "equal, one lies beside the line by chance. Intervals are drawn to twice the highest ratio and half the lowest "
        "at most. Ways whose output is flagged as different are left out.",
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


def strongest(data: ReportData, comparisons: int) -> Comparison | None:
    """Return the largest difference from a baseline that holds among all of them, or None.

    The one that is picked has an interval with 1 - 0.05 / comparisons confidence (Bonferroni), so that picking the
    largest makes no claim out of noise.
    """
    held = [each for each in speedups(data, 1 - (1 - CONFIDENCE) / comparisons) if each.is_clear]
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
        text_column("95% interval", [interval_text(each.interval) for each in comparisons]),
    ]
