"""The table of summaries: for each configuration and metric, statistics over the samples of its rounds."""

import polars as pl

from hfbench.foundation.records import OK
from hfbench.tables import latency
from hfbench.tables.columns import CONFIGURATION_AXES, METRIC
from hfbench.tables.metrics import METRICS, Metric
from hfbench.tables.spread import SPREAD_TYPES, WITH_INTERVAL, spread_columns

_ONE_VALUE_A_ROUND = (
    "load_seconds",
    "first_call_seconds",
    "compile_seconds",
    "warm_first_call_seconds",
    "warm_compile_seconds",
    "peak_memory_bytes",
    "energy_joules_per_token",
    "padding_waste_share",
)
_PERCENTILES = (5, 95, 99)
# Configurations at once: the gaps between the tokens of all of them would take several times the memory of the samples.
_AT_ONCE = 200


def summary_table(samples: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each (configuration without round, metric) with a value in a round whose status is ok.

    Columns: the axes without `round`, `metric`, `unit`, `higher_is_better`, `rounds` and `samples` (how many of each
    have a value); `estimate`, the median of the rounds' medians, with the columns of `hfbench.tables.spread`;
    statistics over all samples together (`std` with n - 1; percentiles interpolate linearly); and `round_medians`, the
    median of each round. Samples are the iterations after first call and warm-up, those with the token observer except
    for `end_to_end_unobserved_seconds`.
    """
    configurations = points.select(CONFIGURATION_AXES).unique(maintain_order=True).with_row_index("configuration")
    ok_points = _of_configuration(points.filter(pl.col("status") == OK), configurations)
    ok_samples = _of_configuration(
        samples.filter(pl.col("status") == OK, pl.col("phase") == "sample"),
        configurations,
    )
    blocks = [
        pl.col("configuration").is_between(first, first + _AT_ONCE, closed="left")
        for first in range(0, configurations.height, _AT_ONCE)
    ]
    summaries = pl.concat([_summaries(ok_samples.filter(block), ok_points.filter(block)) for block in blocks])
    spread = spread_columns(summaries["metric"].to_list(), summaries["values"].to_list())
    return (
        pl.concat([summaries, spread], how="horizontal")
        .join(configurations, on="configuration")
        .sort("configuration", "metric")
        .select(*CONFIGURATION_AXES, *_COLUMNS)
    )


def _of_configuration(frame: pl.DataFrame, configurations: pl.DataFrame) -> pl.DataFrame:
    """Number the configurations: grouping by one integer is many times faster than by nine axes."""
    return frame.join(configurations, on=CONFIGURATION_AXES, how="left", maintain_order="left")


def _summaries(samples: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Return the summary of all metrics but for its spread, with the `values` of each round where that needs them."""
    summaries = [_summary(metric, _values(metric.name, samples, points)) for metric in METRICS]
    return pl.concat(summaries, how="diagonal")


def _values(metric: str, samples: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Return the columns `configuration`, `round` and `value`: a row for each value that the metric has."""
    if metric in _ONE_VALUE_A_ROUND:
        frame, value = points, pl.col(metric)
    elif metric == "end_to_end_unobserved_seconds":
        frame, value = samples.filter(~pl.col("observed")), pl.col("end_to_end_seconds")
    elif metric == "inter_token_gap_seconds":
        frame, value = samples.filter("observed"), latency.inter_token_gaps()
    else:
        frame, value = samples.filter("observed"), pl.col(metric)
    values = frame.select("configuration", "round", value=value)
    while isinstance(values.schema["value"], pl.List):
        values = values.explode("value")
    return values.drop_nulls("value").with_columns(pl.col("value").cast(pl.Float64))


def _summary(metric: Metric, values: pl.DataFrame) -> pl.DataFrame:
    value = pl.col("value")
    statistics = values.group_by("configuration").agg(
        rounds=pl.col("round").n_unique().cast(pl.Int64),
        samples=pl.len().cast(pl.Int64),
        median=value.median(),
        mean=value.mean(),
        std=value.std(ddof=1),
        min=value.min(),
        max=value.max(),
        **{f"p{percent}": value.quantile(percent / 100, interpolation="linear") for percent in _PERCENTILES},
    )
    return statistics.join(_rounds(metric, values), on="configuration").select(
        pl.lit(metric.name, dtype=METRIC).alias("metric"),
        pl.lit(metric.unit).alias("unit"),
        pl.lit(metric.higher_is_better).alias("higher_is_better"),
        pl.all(),
    )


def _rounds(metric: Metric, values: pl.DataFrame) -> pl.DataFrame:
    """Return, for each configuration, what is computed of its rounds apart; their values only where they are needed."""
    lists = {"values": pl.col("value")} if metric.name in WITH_INTERVAL else {}
    return (
        values.group_by("configuration", "round", maintain_order=True)
        .agg(median=pl.col("value").median(), **lists)
        .sort("configuration", "round")
        .group_by("configuration", maintain_order=True)
        .agg("^values$", round_medians="median", estimate=pl.col("median").median())
    )


_COLUMNS = (
    "metric",
    "unit",
    "higher_is_better",
    "rounds",
    "samples",
    "estimate",
    *SPREAD_TYPES,
    "median",
    "mean",
    "std",
    "min",
    "max",
    *(f"p{percent}" for percent in _PERCENTILES),
    "round_medians",
)
