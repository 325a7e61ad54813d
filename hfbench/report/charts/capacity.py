"""What the device can hold and do: peak memory, the roofline of decode and prefill, and their shares of the roof.

Source of the roofline: S. Williams, A. Waterman and D. Patterson, Roofline, CACM 52 (2009) 65.
"""

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.report.charts.chart import FAINT, INK, PAPER, ROW_PIXELS, Chart, Key, Ways, one_mark, panel, tooltips
from hfbench.report.frames import ReportData, shown_names
from hfbench.report.words import memory_unit, number_column, percent, range_text, rate, significant, word_column

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
    return Chart(
        title=f"Peak memory: {range_text(medians['memory'], medians['name'], unit)}",
        spec=_memory_spec(values, Ways(data.ways), unit),
        values=values,
        panels=shown_names(data.workloads, values["workload"]),
        table=[word_column("configuration", medians["name"]), number_column("peak memory", medians["memory"], unit)],
        keys=[Key("median"), Key("a round", "bar", INK)],
        words={"unit": unit},
    )


def _memory_spec(values: pl.DataFrame, ways: Ways, unit: str) -> dict[str, Any]:
    base = alt.Chart().encode(
        y=ways.rows(values["way"]),
        x=alt.X("memory:Q", title=f"peak memory ({unit})"),
        tooltip=tooltips(("kind:N", "shown"), ("memory:Q", f"peak ({unit})", ".4~r")),
    )
    bars = base.mark_bar(size=ROW_PIXELS * 0.6).encode(color=ways.colour())
    ticks = base.mark_tick(thickness=2, size=ROW_PIXELS * 0.8, color=INK)
    layers = [bars.transform_filter(f"datum.kind === '{_BAR}'"), ticks.transform_filter(f"datum.kind === '{_ROUND}'")]
    return panel(*layers, height=alt.Step(ROW_PIXELS))


_PHASES = ("decode", "prefill")
_PHASE_SHAPES = alt.Scale(domain=list(_PHASES), range=["circle", "diamond"])
_SHARES = {  # of each phase the utilisation, and what it says
    "decode": ("mbu", "decoding reads at {} of the measured read bandwidth"),
    "prefill": ("mfu", "prefill computes at {} of the measured rate of matrix products"),
}


def shares_chart(data: ReportData) -> Chart | None:
    """Return the chart of each known utilisation, or None where no model's needs or no ceilings are known."""
    values = pl.concat(
        data.rows.drop_nulls(column).select(
            "way", "workload", "name", phase=pl.lit(phase), percent=pl.col(column) * 100
        )
        for phase, (column, _) in _SHARES.items()
    )
    if values.is_empty():
        return None
    found = {text: values.filter(phase=phase)["percent"].to_list() for phase, (_, text) in _SHARES.items()}
    told = [text.format(_from_to(shares, percent)) for text, shares in found.items() if shares]
    return Chart(
        title=_sentence(told, ", "),
        spec=_shares_spec(values, Ways(data.ways)),
        values=values,
        panels=shown_names(data.workloads, values["workload"]),
        table=[
            word_column("configuration", values["name"]),
            word_column("phase", values["phase"]),
            number_column("of the roof", values["percent"], "%"),
        ],
        keys=[
            Key("decode, of the read bandwidth (MBU)", "circle"),
            Key("prefill, of the matrix-product rate (MFU)", "diamond"),
            Key("the roof", "line"),
        ],
    )


def _from_to(values: Sequence[float], shown: Callable[[float], str]) -> str:
    return " to ".join(dict.fromkeys((shown(min(values)), shown(max(values)))))


def _sentence(parts: Sequence[str], between: str) -> str:
    text = between.join(parts)
    return text[0].upper() + text[1:]


def _shares_spec(values: pl.DataFrame, ways: Ways) -> dict[str, Any]:
    largest: float = max(100.0, values["percent"].max())  # type: ignore[type-var,assignment]
    scale = alt.Scale(domain=[0, largest * 1.04], nice=False)
    base = alt.Chart().encode(
        y=ways.rows(values["way"]),
        x=alt.X("percent:Q", title="share of the measured roof (%)", scale=scale, axis=alt.Axis(grid=True)),
        tooltip=tooltips(("phase:N", "phase"), ("percent:Q", "% of the roof", ".3~r")),
    )
    roof = one_mark().mark_rule(strokeWidth=2.5).encode(x=alt.datum(100))
    return panel(roof, _phase_marks(base, ways, "phase"), height=alt.Step(ROW_PIXELS))


def _phase_marks(base: alt.Chart, ways: Ways, field: str) -> alt.Chart:
    """Return a circle for each decoding and a diamond for each prefill, as this field says."""
    shape = alt.Shape(f"{field}:N", scale=_PHASE_SHAPES, legend=None)
    points: alt.Chart = base.mark_point(filled=True, size=85, opacity=1, stroke=PAPER, strokeWidth=0.5)
    marks: alt.Chart = points.encode(color=ways.colour(), shape=shape)
    return marks


_ROOF = "roof"
_ROOFLINE_HEIGHT = 260  # pixels of a panel
_ROOM = 2.0  # that the roof reaches beyond the first and the last point, as a factor
_SI = "~s"  # 1.5G, of FLOP/s


def roofline_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where neither the model's needs nor the device's ceilings are known."""
    points = _points(data.rows)
    roofs = _roofs(points)
    if roofs.is_empty():
        return None
    ways = Ways(data.ways)
    return Chart(
        title=_roofline_title(points),
        spec=_roofline_spec(ways),
        values=pl.concat([points.select(roofs.columns), roofs]),
        panel_field="scene",
        panels=points["scene"].unique(maintain_order=True).to_list(),
        table=[
            word_column("configuration", points["name"]),
            word_column("phase", points["kind"]),
            number_column("needs", points["intensity"], "FLOP/B"),
            number_column("reached", points["flops"] / 1e9, "GFLOP/s"),
            number_column("roof: reading", points["bandwidth"] / 1e9, "GB/s"),
            number_column("roof: products", points["products"] / 1e9, "GFLOP/s"),
        ],
        keys=[
            *ways.keys(points["way"], are_lines=False),
            Key("decode", "circle"),
            Key("prefill", "diamond"),
            Key("the roof", "line"),
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


def _roofline_title(points: pl.DataFrame) -> str:
    """Return how many FLOPs a byte each phase needs, and how many a second it reaches at most."""
    parts = []
    for phase in _PHASES:
        some = points.filter(kind=phase)
        if not some.is_empty():
            needs = _from_to(some["intensity"].to_list(), significant)
            parts.append(f"{phase} needs {needs} FLOPs a byte and reaches {rate(max(some['flops']), 'FLOP')}")
    return _sentence(parts, "; ")


def _roofline_spec(ways: Ways) -> dict[str, Any]:
    x_scale, y_scale = alt.Scale(type="log", nice=False), alt.Scale(type="log", nice=False, padding=14)
    base = alt.Chart().encode(
        x=alt.X("intensity:Q", title="FLOPs a byte (FLOP/B)", scale=x_scale, axis=alt.Axis(format=_SI)),
        y=alt.Y("flops:Q", title="reached (FLOP/s)", scale=y_scale, axis=alt.Axis(format=_SI, tickCount=4)),
    )
    place = (("intensity:Q", "FLOPs a byte", ".3~r"), ("flops:Q", "FLOP/s", ".3~s"))
    line = base.mark_line(strokeWidth=2.5, color=FAINT).transform_filter(f"datum.kind == '{_ROOF}'")
    roof = line.encode(detail="part:N", order="intensity:Q", tooltip=tooltips(*place))
    measured = base.transform_filter(f"datum.kind != '{_ROOF}'")
    marks = _phase_marks(measured, ways, "kind").encode(
        tooltip=tooltips(("kind:N", "phase"), ("batch:O", "batch"), *place)
    )
    numbered = measured.transform_filter("datum.label != null")
    number = numbered.mark_text(align="left", dx=7, dy=8, fontSize=10).encode(text="label:N")
    return panel(roof, marks, number, height=_ROOFLINE_HEIGHT)
