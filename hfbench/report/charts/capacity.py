"""The roofline: FLOP/s reached by decoding and prefill over the FLOPs that they need for each byte."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.report.charts.chart import (
    FAINT,
    INK,
    PAPER,
    ROW_PIXELS,
    Chart,
    Key,
    compact,
    panel_spec,
    text_column,
    way_axis,
    way_colour,
    way_scale,
)
from hfbench.report.frames import ReportData, shown_names
from hfbench.report.speedups import extremes, range_text
from hfbench.report.words import TextColumn, memory_unit, rate, significant

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
        spec=_memory_spec(values, data.ways, unit),
        values=compact(values),
        panel_field="workload",
        panels=tuple(shown_names(data.workloads, values["workload"])),
        table=_memory_table(medians, unit),
        keys=[Key("median", FAINT, "square"), Key("a round", INK, "bar")],
    )


def _memory_spec(values: pl.DataFrame, ways: Sequence[str], unit: str) -> dict[str, Any]:
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


def _memory_table(medians: pl.DataFrame, unit: str) -> list[TextColumn]:
    return [
        text_column("configuration", medians["name"].to_list(), is_number=False),
        text_column("peak memory", [significant(each) for each in medians["memory"]], unit),
    ]


_PHASES = ("decode", "prefill")
_ROOF = "roof"
_PANEL_HEIGHT = 260
_ROOM = 2.0  # that the roof reaches beyond the first and the last point, as a factor
_SI = "~s"  # 1.5G, of FLOP/s


def roofline_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where neither the model's needs nor the device's ceilings are known."""
    points = _points(data.rows)
    roofs = _roofs(points)
    if roofs.is_empty():
        return None
    values = pl.concat([points.select(roofs.columns), roofs])
    return Chart(
        name="roofline",
        title=_title(points),
        alternative="FLOPs a second, upwards, against FLOPs a byte, to the right, both logarithmic. The roof rises "
        "with the read bandwidth until it is level at the rate of matrix products; a circle stands for the decoding "
        "and a diamond for the prefill of each configuration.",
        note="Both axes count the FLOPs and bytes that the model needs: weights read once a step or prefill, and the "
        "cache. The roof is what the device was measured to reach, for reading as many bytes (a smaller model may be "
        "read from a cache) and for matrix products in this dtype. The number at a mark is its batch size. A mark "
        "below the slope waits for memory, one below the level part for products; the distance to the roof is what is "
        "left. Source: S. Williams, A. Waterman and D. Patterson, Roofline, CACM 52 (2009) 65.",
        spec=_roofline_spec(data.ways),
        values=compact(values),
        panel_field="scene",
        panels=tuple(points["scene"].unique(maintain_order=True)),
        table=_roofline_table(points),
        keys=[
            *(Key(way, way_colour(data.ways.index(way))) for way in shown_names(data.ways, points["way"])),
            Key("decode", FAINT, "circle"),
            Key("prefill", FAINT, "diamond"),
            Key("the roof", FAINT, "line"),
        ],
        own_axes=("x", "y"),
    )


def _points(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration and phase whose place and at least one of whose roofs are known."""
    frames = [
        rows.select(
            "way",
            "scene",
            "name",
            "dtype",
            batch="batch_size",
            kind=pl.lit(phase),
            intensity=f"{phase}_flops_per_byte",
            flops=f"{phase}_flops_per_second",
            bandwidth=f"{phase}_roof_bytes_per_second",
            products="roof_flops_per_second",
        ).filter(
            pl.col("intensity").is_not_null(),
            pl.col("flops").is_not_null(),
            pl.col("bandwidth").is_not_null() | pl.col("products").is_not_null(),
        )
        for phase in _PHASES
    ]
    same = ["scene", "kind", "batch"]
    # Of several ways at one batch size, which stand above each other, the lowest bears the number.
    label = pl.when(pl.col("flops") == pl.col("flops").min().over(same)).then("batch")
    return pl.concat(frames).with_columns(part=pl.lit(0), label=label)


def _roofs(points: pl.DataFrame) -> pl.DataFrame:
    """Return the ends and the corner of each roof of each scene, numbered as `part`."""
    rows = []
    for scene in points.partition_by("scene", maintain_order=True):
        roofs = list(scene.select("dtype", "bandwidth", "products").unique(maintain_order=True).iter_rows())
        corners = [products / bandwidth for _, bandwidth, products in roofs if bandwidth and products]
        reached = [*scene["intensity"].to_list(), *corners]
        ends = (min(reached) / _ROOM, max(reached) * _ROOM)
        for part, (dtype, bandwidth, products) in enumerate(roofs, start=1):
            name = f"{_rate(bandwidth, 'B')}, {_rate(products, 'FLOP')} in {dtype}"
            corner = [products / bandwidth] if bandwidth and products else []
            for intensity in sorted([*ends, *corner]):
                height = min(limit for limit in (intensity * (bandwidth or 0), products) if limit)
                rows.append((name, scene["scene"][0], None, _ROOF, intensity, height, part, None))
    columns = ("way", "scene", "batch", "kind", "intensity", "flops", "part", "label")
    return pl.DataFrame(rows, schema={name: points.schema[name] for name in columns}, orient="row")


def _rate(value: float | None, unit: str) -> str:
    return "not measured" if value is None else rate(value, unit)


def _title(points: pl.DataFrame) -> str:
    """Return how many FLOPs a byte each phase needs, and how many a second it reaches at most."""
    parts = []
    for phase in _PHASES:
        some = points.filter(kind=phase)
        if not some.is_empty():
            intensities, flops = some["intensity"].to_list(), some["flops"].to_list()
            low, high = significant(min(intensities)), significant(max(intensities))
            needs = low if low == high else f"{low} to {high}"
            parts.append(f"{phase} needs {needs} FLOPs a byte and reaches {rate(max(flops), 'FLOP')}")
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def _roofline_spec(ways: Sequence[str]) -> dict[str, Any]:
    x_scale, y_scale = alt.Scale(type="log", nice=False), alt.Scale(type="log", nice=False, padding=14)
    x = alt.X("intensity:Q", title="FLOPs a byte (FLOP/B)", scale=x_scale, axis=alt.Axis(format=_SI))
    y = alt.Y("flops:Q", title="reached (FLOP/s)", scale=y_scale, axis=alt.Axis(format=_SI, tickCount=4))
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("kind:N", title="phase"),
        alt.Tooltip("batch:O", title="batch"),
        alt.Tooltip("intensity:Q", title="FLOPs a byte", format=".3~r"),
        alt.Tooltip("flops:Q", title="FLOP/s", format=".3~s"),
    ]
    base = alt.Chart().encode(x=x, y=y)
    roof = (
        base.mark_line(strokeWidth=2.5, color=FAINT)
        .transform_filter(f"datum.kind == '{_ROOF}'")
        .encode(detail="part:N", order="intensity:Q", tooltip=[tooltip[0], *tooltip[3:]])
    )
    measured = base.transform_filter(f"datum.kind != '{_ROOF}'")
    shapes = alt.Scale(domain=list(_PHASES), range=["circle", "diamond"])
    marks = measured.mark_point(filled=True, size=85, opacity=1, stroke=PAPER, strokeWidth=0.5).encode(
        color=alt.Color("way:N", scale=way_scale(ways), legend=None),
        shape=alt.Shape("kind:N", scale=shapes, legend=None),
        tooltip=tooltip,
    )
    numbered = measured.transform_filter("datum.label != null")
    number = numbered.mark_text(align="left", dx=7, dy=8, fontSize=10).encode(text="label:N")
    return panel_spec(alt.layer(roof, marks, number).properties(height=_PANEL_HEIGHT))


def _roofline_table(points: pl.DataFrame) -> list[TextColumn]:
    return [
        text_column("configuration", points["name"].to_list(), is_number=False),
        text_column("phase", points["kind"].to_list(), is_number=False),
        text_column("needs", [significant(each) for each in points["intensity"]], "FLOP/B"),
        text_column("reached", _giga(points["flops"]), "GFLOP/s"),
        text_column("roof: reading", _giga(points["bandwidth"]), "GB/s"),
        text_column("roof: products", _giga(points["products"]), "GFLOP/s"),
    ]


def _giga(column: pl.Series) -> list[str]:
    return [significant(each) for each in (column / 1e9).to_list()]
