"""The table of summaries: for each configuration and metric, statistics over the samples of its rounds."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from hfbench.core.point import CONFIGURATION_AXES
from hfbench.core.record import OK
from hfbench.statistics.bootstrap import Interval, Rounds, median_intervals
from hfbench.statistics.spread import (
    SIGNIFICANCE,
    between_rounds,
    drift,
    outliers,
    trend_p_values,
    two_modes,
    within_rounds,
)
from hfbench.statistics.verdicts import paired_ratio_interval
from hfbench.tables import metrics
from hfbench.tables.metrics import AXIS_COLUMNS, METRIC, METRICS, STATUS, Metric, axes_frame
from hfbench.tables.reading import ReadRecord


def samples_table(records: Sequence[ReadRecord]) -> pl.DataFrame:
    """Return a row for each iteration of each record, in their order.

    Columns: the axes, `status`, `phase`, `iteration` (0 is the record's first call), `observed`, times in seconds,
    throughputs in tokens/s, and `token_seconds` with `arrival_seconds` as lists (see `hfbench.tables.metrics`).
    """
    iterations = pl.concat([record.iterations for record in records])
    lengths = [record.iterations.height for record in records]
    row = pl.Series([row for row, length in enumerate(lengths) for _ in range(length)], dtype=pl.Int64)
    iteration = pl.Series([index for length in lengths for index in range(length)], dtype=pl.Int64)
    axes = axes_frame(record.configuration for record in records).with_columns(
        pl.Series(name, [record.facts[name] for record in records], dtype=dtype) for name, dtype in _OF_RECORD.items()
    )
    return pl.concat([axes[row], iterations], how="horizontal").select(
        *AXIS_COLUMNS,
        "status",
        "phase",
        iteration.alias("iteration"),
        *("observed", "start_seconds", "end_to_end_seconds", "call_seconds"),
        *(formula.alias(name) for name, formula in metrics.FORMULAS.items()),
        "token_seconds",
        "arrival_seconds",
    )


_OF_RECORD: dict[str, Any] = {"status": STATUS, "requests": pl.Int64, "prompt_tokens": pl.Int64, "new_tokens": pl.Int64}

# The others have one value a round, or thousands of gaps, and no decision hangs on their intervals.
WITH_INTERVAL = (
    "end_to_end_seconds",
    "time_to_first_token_seconds",
    "inter_token_seconds",
    "decode_tokens_per_second",
    "prefill_tokens_per_second",
)
# What the stopping rule watches; it holds the others, so that what drifts or jumps in them does so here.
_WITH_SHAPE = "end_to_end_seconds"
SPREAD_TYPES: dict[str, type[pl.DataType]] = {
    "low": pl.Float64,
    "high": pl.Float64,
    "cv_between": pl.Float64,
    "cv_within": pl.Float64,
    "outliers": pl.Int64,
    "drifting_rounds": pl.Int64,
    "largest_drift": pl.Float64,
    "bimodal": pl.Boolean,
    "lower_mode": pl.Float64,
    "upper_mode": pl.Float64,
}


def spread_columns(metrics: Sequence[str], samples: Sequence[Rounds | None]) -> pl.DataFrame:
    """Return a row of `SPREAD_TYPES` for each sample of a metric: the values of each round, in the order measured.

    `low` and `high` bound the 95% interval of the median of the rounds' medians, null for one round. `largest_drift` is
    the relative change within the round that changes most, null where none drifts; the modes are null where the values
    are of one kind. Drift and modes are those of the end-to-end latency, null for other metrics, and all is null where
    the sample is None.
    """
    intervals = median_intervals([rounds or () for rounds in samples])
    rows = [
        _spread(metric, rounds, interval) if rounds else {}
        for metric, rounds, interval in zip(metrics, samples, intervals, strict=True)
    ]
    return pl.DataFrame(rows, schema=SPREAD_TYPES)


def _spread(metric: str, rounds: Rounds, interval: Interval | None) -> dict[str, Any]:
    return {
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "cv_between": between_rounds(rounds),
        "cv_within": within_rounds(rounds),
        "outliers": sum(sum(outliers(values)) for values in rounds),
        **(_shape(rounds) if metric == _WITH_SHAPE else {}),
    }


def _shape(rounds: Rounds) -> dict[str, Any]:
    # Of configurations, not of rounds, one in a hundred may drift by chance alone.
    significance = SIGNIFICANCE / len(rounds)
    p_values = zip(rounds, trend_p_values(rounds), strict=True)
    drifts = [drift(values) for values, p_value in p_values if p_value is not None and p_value < significance]
    modes = two_modes(rounds)
    return {
        "drifting_rounds": len(drifts),
        "largest_drift": max(drifts, key=abs, default=None),
        "bimodal": modes is not None,
        "lower_mode": modes.lower if modes else None,
        "upper_mode": modes.upper if modes else None,
    }


OBSERVER_TYPES = dict.fromkeys(("observer_cost_ratio", "observer_cost_low", "observer_cost_high"), pl.Float64)


def observer_table(ok_samples: pl.DataFrame) -> pl.DataFrame:
    """Return, for each configuration, the end-to-end latency with the token observer over that without.

    The ratio is the median of the rounds' ratios of medians, between `low` and `high` with 95% confidence. It is null
    where there are not two rounds with samples of both kinds: a single one tells no cost from chance.
    """
    seconds = pl.col("end_to_end_seconds")
    rounds = (
        ok_samples.group_by(*CONFIGURATION_AXES, "round", maintain_order=True)
        .agg(observed=seconds.filter("observed"), unobserved=seconds.filter(~pl.col("observed")))
        .filter(pl.col("observed").list.len() > 0, pl.col("unobserved").list.len() > 0)
        .group_by(CONFIGURATION_AXES, maintain_order=True)
        .agg("observed", "unobserved")
    )
    pairs = rounds.select("unobserved", "observed").rows()
    intervals = [paired_ratio_interval(*pair) or (None, None, None) for pair in pairs]
    costs = pl.DataFrame(intervals, schema=OBSERVER_TYPES, orient="row")
    return pl.concat([rounds.select(CONFIGURATION_AXES), costs], how="horizontal")


_PERCENTILES = (5, 90, 95, 99)
# Configurations at once: the gaps between the tokens of all of them would take several times the memory of the samples.
_AT_ONCE = 200


def summary_table(samples: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each (configuration without round, metric) with a value in a round whose status is ok.

    Columns: the axes without `round`, `metric`, `unit`, `higher_is_better`, `rounds` and `samples` (how many of each
    have a value); `estimate`, the median of the rounds' medians, with the columns of `hfbench.tables.summary`;
    statistics over all samples together (`std` with n - 1; percentiles interpolate linearly); and `round_medians`, the
    median of each round. Samples are the iterations after first call and warm-up, those with the token observer except
    for `end_to_end_unobserved_seconds`.
    """
    configurations = points.select(CONFIGURATION_AXES).unique(maintain_order=True).with_row_index("configuration")
    ok = pl.col("status") == OK
    # Grouping by one integer is many times faster than by all axes.
    ok_points, ok_samples = (
        frame.join(configurations, on=CONFIGURATION_AXES, how="left", maintain_order="left")
        for frame in (points.filter(ok), samples.filter(ok, pl.col("phase") == "sample"))
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
        .select(
            *CONFIGURATION_AXES,
            *("metric", "unit", "higher_is_better", "rounds", "samples", "estimate"),
            *SPREAD_TYPES,
            *("median", "mean", "std", "min", "max", "^p[0-9]+$", "round_medians"),
        )
    )


def _summaries(samples: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Return the summary of all metrics but for its spread, with the `values` of each round where that needs them."""
    of_rounds = round_percentiles(samples)
    summaries = [_summary(metric, _values(metric.name, samples, points, of_rounds)) for metric in METRICS]
    return pl.concat(summaries, how="diagonal")


def round_percentiles(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the columns `configuration` and `round`, and the percentiles of a round's single times by their names."""
    keys = ["configuration", "round"]
    observed = samples.filter("observed")
    found = observed.select(keys).unique(maintain_order=True)
    for name, times in metrics.SINGLE_TIMES.items():
        value = pl.col("value")
        percentiles = {
            metrics.percentile_name(name, percent): value.quantile(percent / 100, interpolation="linear")
            for percent in metrics.PERCENTILES
        }
        singles = _exploded(observed.select(*keys, value=times))
        found = found.join(singles.group_by(keys).agg(**percentiles), on=keys, how="left", maintain_order="left")
    return found


def _values(metric: str, samples: pl.DataFrame, points: pl.DataFrame, of_rounds: pl.DataFrame) -> pl.DataFrame:
    """Return the columns `configuration`, `round` and `value`: a row for each value that the metric has."""
    if metric in points.columns:  # has one value a round
        frame, value = points, pl.col(metric)
    elif metric in of_rounds.columns:
        frame, value = of_rounds, pl.col(metric)
    elif metric == "end_to_end_unobserved_seconds":
        frame, value = samples.filter(~pl.col("observed")), pl.col("end_to_end_seconds")
    elif metric == "inter_token_gap_seconds":
        frame, value = samples.filter("observed"), metrics.INTER_TOKEN_GAPS
    else:
        frame, value = samples.filter("observed"), pl.col(metric)
    return _exploded(frame.select("configuration", "round", value=value))


def _exploded(values: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each single `value`, in lists or not."""
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
