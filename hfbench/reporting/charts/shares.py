"""How much of what the device can do decoding and prefill use."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.reporting.cells import TextColumn
from hfbench.reporting.charts.chart import ROW_PIXELS, Chart, Key, compact, one_mark, panel_spec, text_column, way_axis
from hfbench.reporting.charts.theme import FAINT, PAPER, way_scale
from hfbench.reporting.numbers import significant
from hfbench.reporting.phrases import percent
from hfbench.reporting.report_data import ReportData, shown_names

_DECODE, _PREFILL = "decode", "prefill"
_SHARES = {"mbu": (_DECODE, "bandwidth"), "mfu": (_PREFILL, "matrix products")}


def shares_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where neither the model's needs nor the device's ceilings are known."""
    values = _values(data.rows)
    if values.is_empty():
        return None
    return Chart(
        name="shares",
        title=_title(values),
        alternative="A circle for the decoding and a diamond for the prefill of each configuration, on an axis from 0 "
        "to 100% of what the device was measured to reach.",
        note="100% is the roof: for decoding, the rate at which the device was measured to read as many bytes; for "
        "prefill, its rate of matrix products in this dtype. Decoding at small batches is bound by the first, prefill "
        "of long prompts by the second.",
        spec=_spec(values, data.ways),
        values=compact(values),
        panel_field="workload",
        panels=tuple(shown_names(data.workloads, values["workload"])),
        table=_table(values),
        keys=[
            Key("decode, of the read bandwidth (MBU)", FAINT, "circle"),
            Key("prefill, of the matrix-product rate (MFU)", FAINT, "diamond"),
            Key("the roof", FAINT, "line"),
        ],
    )


def _values(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration and phase with a known utilisation, in percent."""
    return pl.concat(
        rows.filter(pl.col(column).is_not_null()).select(
            "way", "workload", "name", phase=pl.lit(phase), percent=pl.col(column) * 100
        )
        for column, (phase, _) in _SHARES.items()
    )


def _title(values: pl.DataFrame) -> str:
    parts = []
    for phase, resource in _SHARES.values():
        shares = values.filter(phase=phase)["percent"].to_list()
        if shares:
            verb = "Decoding reads at" if phase == _DECODE else "prefill computes at"
            low, high = percent(min(shares)), percent(max(shares))
            share = low if low == high else f"{low} to {high}"
            parts.append(f"{verb} {share} of the measured rate of {resource}")
    text = ", ".join(parts)
    return (text[0].upper() + text[1:]).replace("rate of bandwidth", "read bandwidth")


def _spec(values: pl.DataFrame, ways: Sequence[str]) -> dict[str, Any]:
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("phase:N", title="phase"),
        alt.Tooltip("percent:Q", title="% of the roof", format=".3~r"),
    ]
    largest: float = max(100.0, values["percent"].max())  # type: ignore[type-var,assignment]
    scale = alt.Scale(domain=[0, largest * 1.04], nice=False)
    x = alt.X("percent:Q", title="share of the measured roof (%)", scale=scale, axis=alt.Axis(grid=True))
    shapes = alt.Scale(domain=[_DECODE, _PREFILL], range=["circle", "diamond"])
    base = alt.Chart().encode(y=way_axis(ways, values["way"]), x=x, tooltip=tooltip)
    roof = one_mark().mark_rule(strokeWidth=2.5).encode(x=alt.datum(100))
    marks = base.mark_point(filled=True, size=85, opacity=1, stroke=PAPER, strokeWidth=0.5).encode(
        color=alt.Color("way:N", scale=way_scale(ways), legend=None),
        shape=alt.Shape("phase:N", scale=shapes, legend=None),
    )
    return panel_spec(alt.layer(roof, marks).properties(height=alt.Step(ROW_PIXELS)))


def _table(values: pl.DataFrame) -> list[TextColumn]:
    return [
        text_column("configuration", values["name"].to_list(), is_number=False),
        text_column("phase", values["phase"].to_list(), is_number=False),
        text_column("of the roof", [significant(each) for each in values["percent"]], "%"),
    ]
