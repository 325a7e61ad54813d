"""The most memory that each configuration used."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.reporting.cells import TextColumn
from hfbench.reporting.charts.chart import ROW_PIXELS, Chart, Key, compact, panel_spec, text_column, way_axis
from hfbench.reporting.charts.theme import FAINT, INK, way_scale
from hfbench.reporting.numbers import memory_unit, significant
from hfbench.reporting.phrases import extremes, range_text
from hfbench.reporting.report_data import ReportData, shown_names

_PEAK = "peak_memory_bytes"
_BAR, _ROUND = "estimate", "round"


def memory_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where no memory was measured."""
    points = data.points.drop_nulls(_PEAK)
    if points.is_empty():
        return None
    unit, size_bytes = memory_unit(float(points[_PEAK].max()))  # type: ignore[arg-type]
    shown = pl.col(_PEAK) / size_bytes
    rounds = points.select("way", "workload", "name", "configuration", kind=pl.lit(_ROUND), memory=shown)
    medians = (
        rounds.group_by("configuration", "way", "workload", "name", maintain_order=True)
        .agg(pl.col("memory").median())
        .with_columns(kind=pl.lit(_BAR))
    )
    values = pl.concat([medians, rounds], how="diagonal").drop("configuration", "name")
    lowest, highest = extremes(medians["memory"].to_list(), medians["name"].to_list())
    return Chart(
        name="memory",
        title=f"Peak memory: {range_text(lowest, highest, unit)}",
        alternative=f"A bar for the peak memory of each configuration in {unit}, from 0, with a tick for each round.",
        note="The median of the rounds' peaks, and a tick for each round: the resident set of the process on a CPU, "
        "what torch held on an accelerator.",
        spec=_spec(values, data.ways, unit),
        values=compact(values),
        panel_field="workload",
        panels=tuple(shown_names(data.workloads, values["workload"])),
        table=_table(medians, unit),
        keys=[Key("median", FAINT, "square"), Key("a round", INK, "bar")],
    )


def _spec(values: pl.DataFrame, ways: Sequence[str], unit: str) -> dict[str, Any]:
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("kind:N", title="shown"),
        alt.Tooltip("memory:Q", title=f"peak ({unit})", format=".4~r"),
    ]
    base = alt.Chart().encode(
        y=way_axis(ways, values["way"]), x=alt.X("memory:Q", title=f"peak memory ({unit})"), tooltip=tooltip
    )
    bars = base.mark_bar(size=ROW_PIXELS * 0.6).encode(color=alt.Color("way:N", scale=way_scale(ways), legend=None))
    ticks = base.mark_tick(thickness=2, size=ROW_PIXELS * 0.8, color=INK)
    layers = [bars.transform_filter(f"datum.kind === '{_BAR}'"), ticks.transform_filter(f"datum.kind === '{_ROUND}'")]
    return panel_spec(alt.layer(*layers).properties(height=alt.Step(ROW_PIXELS)))


def _table(medians: pl.DataFrame, unit: str) -> list[TextColumn]:
    return [
        text_column("configuration", medians["name"].to_list(), is_number=False),
        text_column("peak memory", [significant(each) for each in medians["memory"]], unit),
    ]
