"""Every sample: by round, so that noise is seen, and token by token along the sequence."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.core.point import NONE
from hfbench.report.charts.chart import INK, Chart, Key, Ways, largest_change, panel, tooltips
from hfbench.report.frames import ReportData, shown_names
from hfbench.report.words import END_TO_END, number_column, percent, significant, word_column
from hfbench.statistics.bootstrap import CONFIDENCE, Interval
from hfbench.statistics.verdicts import paired_ratio_interval

_MOST_SAMPLES = 40  # of a round that are drawn
_SAMPLE, _MEDIAN = "sample", "median"
_ROUND_PIXELS = 9


def rounds_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where there is no sample."""
    samples = data.samples.drop_nulls(END_TO_END)
    if samples.is_empty():
        return None
    latency = pl.col(END_TO_END)
    medians = (
        samples.group_by("configuration", "way", "workload", "name", "round", maintain_order=True)
        .agg(seconds=latency.median(), lowest=latency.min(), highest=latency.max(), samples=pl.len())
        .with_columns(kind=pl.lit(_MEDIAN))
    )
    drawn = _drawn(samples)
    values = pl.concat([drawn, medians.select(drawn.columns)])
    thinned = bool((medians["samples"] > _MOST_SAMPLES).any())
    return Chart(
        title=_rounds_title(medians),
        spec=_rounds_spec(values, Ways(data.ways)),
        values=values,
        panels=shown_names(data.workloads, values["workload"]),
        table=[
            word_column("configuration", medians["name"]),
            number_column("round", medians["round"]),
            number_column("samples", medians["samples"]),
            number_column("lowest", medians["lowest"], "s"),
            number_column("median", medians["seconds"], "s"),
            number_column("highest", medians["highest"], "s"),
        ],
        keys=[Key("sample", "bar"), Key("median of its round", "bar", INK)],
        own_axes=("x",),
        words={"most_samples": _MOST_SAMPLES if thinned else None},
    )


def _drawn(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the samples, of large rounds evenly spaced order statistics from the least to the greatest."""
    place = pl.int_range(pl.len()).over("configuration", "round")
    count = pl.len().over("configuration", "round")
    step = (count - 1) / (_MOST_SAMPLES - 1)
    is_nearest = (place / step).round() * step
    kept = (count <= _MOST_SAMPLES) | ((is_nearest - place).abs() < 0.5)
    return (
        samples.sort("configuration", "round", END_TO_END)
        .filter(kept)
        .select("way", "workload", "round", kind=pl.lit(_SAMPLE), seconds=END_TO_END)
    )


def _rounds_title(medians: pl.DataFrame) -> str:
    """Return how far the rounds' medians of one configuration are apart, over the middle of them."""
    apart = (
        medians.group_by("configuration", "name", maintain_order=True)
        .agg(
            rounds=pl.len(),
            percent=100 * (pl.col("seconds").max() - pl.col("seconds").min()) / pl.col("seconds").median(),
        )
        .filter(pl.col("rounds") > 1)
    )
    if apart.is_empty():
        return "One round each: how far processes differ cannot be seen here"
    top = apart.row(int(apart["percent"].arg_max() or 0), named=True)
    most = f"{percent(top['percent'])} ({top['name']})"
    if apart.height == 1:
        return f"The medians of the rounds differ by {most}"
    middle = percent(float(apart["percent"].median()))  # type: ignore[arg-type]
    return f"The medians of one configuration's rounds differ by {middle} in the middle case, and at most by {most}"


def _rounds_spec(values: pl.DataFrame, ways: Ways) -> dict[str, Any]:
    base = alt.Chart().encode(
        y=ways.rows(values["way"]),
        yOffset=alt.YOffset("round:O", scale=alt.Scale(domain=sorted(set(values["round"])))),
        x=alt.X("seconds:Q", title="end-to-end latency (s)", scale=alt.Scale(zero=False)),
        tooltip=tooltips(("round:O", "round"), ("kind:N", "shown"), ("seconds:Q", "end-to-end (s)", ".4~r")),
    )
    samples = base.mark_tick(thickness=1.5, size=_ROUND_PIXELS - 2, opacity=0.75).encode(color=ways.colour())
    medians = base.mark_tick(thickness=1.8, size=_ROUND_PIXELS + 1, color=INK)
    return panel(
        samples.transform_filter(f"datum.kind === '{_SAMPLE}'"),
        medians.transform_filter(f"datum.kind === '{_MEDIAN}'"),
        height=alt.Step(_ROUND_PIXELS),
    )


_MOST_PLACES = 64  # along the sequence; more are joined
_FEWEST_GAPS = 8  # of a sequence that has a beginning and an end to compare
_MOST_OVER_MEDIANS = 3  # where bands are cut: one stall would squash all else
_TOKENS_HEIGHT = 170  # pixels of a panel


def token_latency_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where no sample has two tokens."""
    groups = data.samples.partition_by("configuration", maintain_order=True)
    names = ("way", "workload", "name")
    parts = [group.head(1).select(names).join(gaps_along(group), how="cross") for group in groups]
    values = pl.concat(parts) if parts else pl.DataFrame()
    if values.is_empty():
        return None
    in_ms = values.with_columns(pl.col("median", "low", "high") * 1e3)
    drawn = pl.min_horizontal("high", _MOST_OVER_MEDIANS * pl.col("median").max().over("workload"))
    place, last = pl.int_range(pl.len()).over("name"), pl.len().over("name") - 1
    ends_and_quarters = pl.any_horizontal((last * share / 4).round() == place for share in range(5))
    shown = in_ms.filter(ends_and_quarters)
    ways, joined = Ways(data.ways), bool((values["last_token"] > values["token"]).any())
    return Chart(
        title=_tokens_title(groups),
        spec=_tokens_spec(ways),
        values=in_ms.drop("name", "last_token").with_columns(drawn_high=drawn),
        panels=shown_names(data.workloads, values["workload"]),
        table=[
            word_column("configuration", shown["name"]),
            number_column("token", shown["token"]),
            number_column("5th percentile", shown["low"], "ms"),
            number_column("median", shown["median"], "ms"),
            number_column("95th percentile", shown["high"], "ms"),
        ],
        keys=[*ways.keys(values["way"]), Key("5th to 95th percentile")],
        own_axes=("x", "y"),
        words={
            "cut_at": _MOST_OVER_MEDIANS,
            "most_places": _MOST_PLACES if joined else None,
            "in_steps": bool((data.samples["assistant"] != NONE).any()),
        },
    )


def gaps_along(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps of one configuration's samples by their place in the sequence.

    A gap belongs to the token that ends it, the second being the first that has one. `median`, `low` and `high` are the
    median and the 5th and 95th percentile (linearly interpolated), in seconds, over all samples and requests, of the
    gaps from `token` to `last_token`: of one token, or of several where the sequence has more than `_MOST_PLACES`.
    """
    token, gap = pl.col("token"), pl.col("gap")
    tokens_per_place = ((token.max() - 1) / _MOST_PLACES).ceil().cast(pl.Int64)
    return (
        _gaps(samples)
        .with_columns(place=(token - 2) // tokens_per_place)
        .group_by("place")
        .agg(
            token=token.min(),
            last_token=token.max(),
            median=gap.median(),
            low=gap.quantile(0.05, interpolation="linear"),
            high=gap.quantile(0.95, interpolation="linear"),
        )
        .sort("place")
        .drop("place")
    )


def slowdown(samples: pl.DataFrame, confidence: float) -> Interval | None:
    """Return the last quarter's gap over the first quarter's: the median over rounds, with its interval.

    Of each sample the median gap in either quarter counts. None for fewer than two rounds or eight gaps.
    """
    gaps = _gaps(samples)
    if gaps.is_empty() or gaps["token"].max() <= _FEWEST_GAPS:  # type: ignore[operator]
        return None
    token, gap = pl.col("token"), pl.col("gap")
    last, quarter = token.max(), token.max() // 4
    quarters = gaps.group_by("round", "sample", maintain_order=True).agg(
        early=gap.filter(token <= 1 + quarter).median(), late=gap.filter(token > last - quarter).median()
    )
    quarters = quarters.drop_nulls()  # of long steps, a quarter may hold none
    rounds = quarters.group_by("round", maintain_order=True).agg("early", "late").sort("round")
    return paired_ratio_interval(rounds["early"].to_list(), rounds["late"].to_list(), confidence=confidence)


def _gaps(samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each gap: `round`, `sample`, `token` (from 2) and `gap` in seconds.

    Where tokens come several at a time, as with an assistant, the gap is that before the first of them.
    """
    times = pl.col("token_seconds")
    lists = samples.with_row_index("sample").select("round", "sample", times).explode("token_seconds")
    gap = times.list.diff(null_behavior="ignore")
    token = pl.int_ranges(1, times.list.len().cast(pl.Int64) + 1)
    singles = lists.select("round", "sample", gap=gap, token=token).explode("token", "gap")
    return singles.filter(pl.col("gap") > 0)


def _tokens_title(groups: Sequence[pl.DataFrame]) -> str:
    """Return the largest change along the sequence that its interval bears, of intervals that hold all together."""
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(groups))  # Bonferroni: the title picks the largest
    found = [(str(group["name"][0]), slowdown(group, confidence)) for group in groups]
    changes = [(name, interval) for name, interval in found if interval is not None]
    if not changes:
        return "The time between tokens along the sequence; with few rounds or tokens, no trend is established"
    largest = largest_change(changes)
    if largest is None:
        return "Along the sequence, the time between tokens changes by no more than noise"
    name, change = largest
    times = f"The last quarter of the tokens takes {significant(change.estimate)}× the time of the first"
    return f"{times} ({name})" if len(groups) > 1 else times


def _tokens_spec(ways: Ways) -> dict[str, Any]:
    tooltip = tooltips(
        ("token:Q", "token"),
        ("median:Q", "median (ms)", ".4~r"),
        ("low:Q", "5th percentile (ms)", ".4~r"),
        ("high:Q", "95th percentile (ms)", ".4~r"),
    )
    axis: dict[str, Any] = {"title": "time since the token before (ms)", "scale": alt.Scale(zero=False)}
    x = alt.X("token:Q", title="token of the sequence", scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("median:Q", **axis)
    base = alt.Chart().encode(x=x, color=ways.colour())
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", **axis), y2="drawn_high:Q")
    line = base.mark_line(strokeWidth=1.8).encode(y=y, strokeDash=ways.dashes())
    # A line has one tooltip for all of it: points that cannot be seen carry theirs.
    points = base.mark_point(size=50, filled=True, opacity=0).encode(y=y, tooltip=tooltip)
    return panel(band, line, points, height=_TOKENS_HEIGHT)
