"""Every sample by round, so that noise is seen."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from hfbench.report.charts.chart import FAINT, INK, Chart, Key, compact, panel_spec, text_column, way_axis, way_scale
from hfbench.report.frames import ReportData, shown_names
from hfbench.report.speedups import LATENCY, percent
from hfbench.report.words import TextColumn, significant

_MOST_SAMPLES = 40  # of a round that are drawn
_SAMPLE, _MEDIAN = "sample", "median"
_ROUND_PIXELS = 9


def rounds_chart(data: ReportData) -> Chart | None:
    """Return the chart, or None where there is no sample."""
    samples = data.samples.drop_nulls(LATENCY)
    if samples.is_empty():
        return None
    medians = _medians(samples)
    values = pl.concat([_drawn(samples), medians.select(*_COLUMNS)])
    thinned = medians["samples"].max() > _MOST_SAMPLES  # type: ignore[operator]
    return Chart(
        name="rounds",
        title=_title(medians),
        alternative="A tick for the end-to-end latency of each sample, in a row of its own for each round of each "
        "configuration, with a longer tick at the round's median.",
        note="Each row is a round, a fresh process; each tick is a sample, the long one its median. Where the rows "
        "of a way do not overlap, processes differ by more than iterations do."
        + (f" Of rounds with more than {_MOST_SAMPLES} samples, as many evenly spaced ones are drawn." * thinned),
        spec=_spec(values, data.ways),
        values=compact(values),
        panel_field="workload",
        panels=tuple(shown_names(data.workloads, values["workload"])),
        table=_table(medians),
        keys=[Key("sample", FAINT, "bar"), Key("median of its round", INK, "bar")],
        own_axes=("x",),
    )


_COLUMNS = ("way", "workload", "round", "kind", "seconds")


def _drawn(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the samples, of large rounds evenly spaced order statistics from the least to the greatest."""
    place = pl.int_range(pl.len()).over("configuration", "round")
    count = pl.len().over("configuration", "round")
    step = (count - 1) / (_MOST_SAMPLES - 1)
    is_nearest = (place / step).round() * step
    kept = (count <= _MOST_SAMPLES) | ((is_nearest - place).abs() < 0.5)
    return (
        samples.sort("configuration", "round", LATENCY)
        .filter(kept)
        .select("way", "workload", "round", kind=pl.lit(_SAMPLE), seconds=LATENCY)
    )


def _medians(samples: pl.DataFrame) -> pl.DataFrame:
    latency = pl.col(LATENCY)
    return (
        samples.group_by("configuration", "way", "workload", "name", "round", maintain_order=True)
        .agg(seconds=latency.median(), lowest=latency.min(), highest=latency.max(), samples=pl.len())
        .with_columns(kind=pl.lit(_MEDIAN))
    )


def _title(medians: pl.DataFrame) -> str:
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


def _spec(values: pl.DataFrame, ways: Sequence[str]) -> dict[str, Any]:
    tooltip = [
        alt.Tooltip("way:N", title="way"),
        alt.Tooltip("round:O", title="round"),
        alt.Tooltip("kind:N", title="shown"),
        alt.Tooltip("seconds:Q", title="end-to-end (s)", format=".4~r"),
    ]
    base = alt.Chart().encode(
        y=way_axis(ways, values["way"]),
        yOffset=alt.YOffset("round:O", scale=alt.Scale(domain=sorted(set(values["round"])))),
        x=alt.X("seconds:Q", title="end-to-end latency (s)", scale=alt.Scale(zero=False)),
        tooltip=tooltip,
    )
    samples = base.mark_tick(thickness=1.5, size=_ROUND_PIXELS - 2, opacity=0.75).encode(
        color=alt.Color("way:N", scale=way_scale(ways), legend=None)
    )
    medians = base.mark_tick(thickness=1.8, size=_ROUND_PIXELS + 1, color=INK)
    layers = [
        samples.transform_filter(f"datum.kind === '{_SAMPLE}'"),
        medians.transform_filter(f"datum.kind === '{_MEDIAN}'"),
    ]
    return panel_spec(alt.layer(*layers).properties(height=alt.Step(_ROUND_PIXELS)))


def _table(medians: pl.DataFrame) -> list[TextColumn]:
    return [
        text_column("configuration", medians["name"].to_list(), is_number=False),
        text_column("round", [str(each) for each in medians["round"]]),
        text_column("samples", [str(each) for each in medians["samples"]]),
        text_column("lowest", [significant(each) for each in medians["lowest"]], "s"),
        text_column("median", [significant(each) for each in medians["seconds"]], "s"),
        text_column("highest", [significant(each) for each in medians["highest"]], "s"),
    ]
