"""Inter-token latency along the sequence: whether later tokens take longer, and which stall."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.report.charts.chart import (
    FAINT,
    Chart,
    Key,
    compact,
    dash_scale,
    line_keys,
    panel_spec,
    text_column,
    way_scale,
)
from hfbench.report.frames import ReportData, Rounds, shown_names
from hfbench.report.words import TextColumn, significant
from hfbench.statistics.intervals import CONFIDENCE, Interval, paired_ratio_interval

MOST_PLACES = 64  # along the sequence; more are joined
_FEWEST_GAPS = 8  # of a sequence that has a beginning and an end to compare

GAP_TYPES = {
    "token": pl.Int64,
    "last_token": pl.Int64,
    "median": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


def gaps_along(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps of one configuration's samples by their place in the sequence, of `GAP_TYPES`.

    A gap belongs to the token that ends it, the second being the first that has one. `median`, `low` and `high` are the
    median and the 5th and 95th percentile (linearly interpolated), in seconds, over all samples and requests, of the
    gaps from `token` to `last_token`: of one token, or of several where the sequence has more than `MOST_PLACES` gaps.
    """
    gaps = _gaps(samples)
    if gaps.is_empty():
        return pl.DataFrame(schema=GAP_TYPES)
    per_place = -(-int(gaps["token"].max() - 1) // MOST_PLACES)  # type: ignore[operator]
    gap = pl.col("gap")
    return (
        gaps.group_by(place=(pl.col("token") - 2) // per_place)
        .agg(
            token=pl.col("token").min(),
            last_token=pl.col("token").max(),
            median=gap.median(),
            low=gap.quantile(0.05, interpolation="linear"),
            high=gap.quantile(0.95, interpolation="linear"),
        )
        .sort("place")
        .select(*GAP_TYPES)
    )


def slowdown(samples: pl.DataFrame, confidence: float) -> Interval | None:
    """Return the last quarter's gap over the first quarter's: the median over rounds, with its interval.

    Of each sample the median gap in either quarter counts. None for fewer than two rounds or eight gaps.
    """
    gaps = _gaps(samples)
    if gaps.is_empty() or gaps["token"].max() <= _FEWEST_GAPS:  # type: ignore[operator]
        return None
    quarter = pl.col("token").max().over("sample") // 4
    early = _by_round(gaps.filter(pl.col("token") <= 1 + quarter))
    late = _by_round(gaps.filter(pl.col("token") > pl.col("token").max().over("sample") - quarter))
    return paired_ratio_interval(list(early.values()), list(late.values()), confidence=confidence)


def _by_round(gaps: pl.DataFrame) -> Rounds:
    medians = gaps.group_by("round", "sample", maintain_order=True).agg(pl.col("gap").median())
    rounds = medians.group_by("round", maintain_order=True).agg("gap").sort("round")
    return dict(rounds.iter_rows())


def _gaps(samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each gap: `round`, `sample`, `token` (from 2) and `gap` in seconds."""
    lists = samples.with_row_index("sample").select("round", "sample", "token_seconds").explode("token_seconds")
    return (
        lists.with_columns(gap=pl.col("token_seconds").list.diff(null_behavior="drop"))
        .with_columns(token=pl.int_ranges(2, pl.col("gap").list.len().cast(pl.Int64) + 2))
        .select("round", "sample", "token", "gap")
        .explode("token", "gap")
        .drop_nulls("gap")
    )


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
