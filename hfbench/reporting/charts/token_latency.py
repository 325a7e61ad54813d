"""Inter-token latency along the sequence: whether later tokens take longer, and which stall."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.reporting.cells import TextColumn
from hfbench.reporting.charts.chart import Chart, Key, compact, line_keys, panel_spec, text_column
from hfbench.reporting.charts.gaps import GAP_TYPES, MOST_PLACES, gaps_along, slowdown
from hfbench.reporting.charts.theme import FAINT, dash_scale, way_scale
from hfbench.reporting.numbers import significant
from hfbench.reporting.report_data import ReportData, shown_names
from hfbench.statistics.intervals import CONFIDENCE, Interval

_PANEL_HEIGHT = 170
_MOST_OVER_MEDIANS = 3  # where bands are cut: one stall would squash all else
_NAMES = ("way", "workload", "name")


def token_latency_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where no sample has two tokens."""
    groups = data.samples.partition_by("configuration", maintain_order=True)
    parts = [gaps_along(group).select(*_names(group), *GAP_TYPES) for group in groups]
    values = pl.concat(parts) if parts else pl.DataFrame()
    if values.is_empty():
        return None
    in_ms = values.with_columns(pl.col("median", "low", "high") * 1e3)
    drawn = pl.min_horizontal("high", _MOST_OVER_MEDIANS * pl.col("median").max().over("workload"))
    joined = bool((values["last_token"] > values["token"]).any())
    return Chart(
        name="tokens",
        title=_title(_changes(groups), len(groups)),
        alternative="A line for each way: the median time between two tokens in milliseconds along the generated "
        "sequence, within a band from the 5th to the 95th percentile.",
        note="The gap before each token, over all samples and requests: its median, and a band from the 5th to the "
        f"95th percentile, cut at {_MOST_OVER_MEDIANS} times the highest median of the panel."
        + f" Neighbouring tokens are joined, so that there are at most {MOST_PLACES} places."
        * joined,
        spec=_spec(data.ways),
        values=compact(in_ms.drop("name", "last_token").with_columns(drawn_high=drawn)),
        panel_field="workload",
        panels=tuple(shown_names(data.workloads, values["workload"])),
        table=_table(in_ms),
        keys=[*line_keys(data.ways, values["way"]), Key("5th to 95th percentile", FAINT, "square")],
        own_axes=("x", "y"),
    )


def _names(group: pl.DataFrame) -> list[pl.Expr]:
    return [pl.lit(group[name][0]).alias(name) for name in _NAMES]


def _changes(groups: Sequence[pl.DataFrame]) -> list[tuple[str, Interval]]:
    """Return how the gap changes along the sequence, by configuration, with an interval that holds for all together."""
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(groups))  # Bonferroni: the title picks the largest
    found = [(str(group["name"][0]), slowdown(group, confidence)) for group in groups]
    return [(name, interval) for name, interval in found if interval is not None]


def _title(changes: Sequence[tuple[str, Interval]], configurations: int) -> str:
    """Return the largest change that its interval bears."""
    if not changes:
        return "The time between tokens along the sequence; with few rounds or tokens, no trend is established"
    told = [(name, change) for name, change in changes if change.low > 1 or change.high < 1]
    if not told:
        return "Along the sequence, the time between tokens changes by no more than noise"
    name, change = max(told, key=lambda each: max(each[1].estimate, 1 / each[1].estimate))
    times = f"The last quarter of the tokens takes {significant(change.estimate)}× the time of the first"
    return f"{times} ({name})" if configurations > 1 else times


def _spec(ways: Sequence[str]) -> dict[str, Any]:
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("token:Q", title="token"),
        alt.Tooltip("median:Q", title="median (ms)", format=".4~r"),
        alt.Tooltip("low:Q", title="5th percentile (ms)", format=".4~r"),
        alt.Tooltip("high:Q", title="95th percentile (ms)", format=".4~r"),
    ]
    colour = alt.Color("way:N", scale=way_scale(ways), legend=None)
    axis: dict[str, Any] = {"title": "time since the token before (ms)", "scale": alt.Scale(zero=False)}
    y = alt.Y("median:Q", **axis)
    base = alt.Chart().encode(
        x=alt.X("token:Q", title="token of the sequence", scale=alt.Scale(zero=False, nice=False)), color=colour
    )
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", **axis), y2="drawn_high:Q")
    line = base.mark_line(strokeWidth=1.8).encode(
        y=y, strokeDash=alt.StrokeDash("way:N", scale=dash_scale(ways), legend=None)
    )
    # A line has one tooltip for all of it: points that cannot be seen carry theirs.
    points = base.mark_point(size=50, filled=True, opacity=0).encode(y=y, tooltip=tooltip)
    return panel_spec(alt.layer(band, line, points).properties(height=_PANEL_HEIGHT))


def _table(values: pl.DataFrame) -> list[TextColumn]:
    """Return the gaps at five places of each sequence: the ends and the quarters."""
    last = pl.len().over("name") - 1
    place = pl.int_range(pl.len()).over("name")
    shown = values.filter(pl.any_horizontal((last * share / 4).round() == place for share in range(5)))
    return [
        text_column("configuration", shown["name"].to_list(), is_number=False),
        text_column("token", [str(each) for each in shown["token"]]),
        text_column("5th percentile", [significant(each) for each in shown["low"]], "ms"),
        text_column("median", [significant(each) for each in shown["median"]], "ms"),
        text_column("95th percentile", [significant(each) for each in shown["high"]], "ms"),
    ]
