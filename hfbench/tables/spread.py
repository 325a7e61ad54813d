"""The columns of the summary that `hfbench.statistics` computes: intervals, variation, outliers, drift, bimodality."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from hfbench.statistics.batch import median_intervals
from hfbench.statistics.bimodality import two_modes
from hfbench.statistics.confidence import Interval, Rounds
from hfbench.statistics.drift import SIGNIFICANCE, drift, trend_p_values
from hfbench.statistics.outliers import outliers
from hfbench.statistics.variation import between_rounds, within_rounds

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
    drifting = [values for values, p_value in p_values if p_value is not None and p_value < significance]
    # How much they drift takes as long to say as whether, and few do.
    drifts = [found.relative_change for values in drifting if (found := drift(values)) is not None]
    modes = two_modes(rounds)
    return {
        "drifting_rounds": len(drifts),
        "largest_drift": max(drifts, key=abs, default=None),
        "bimodal": modes is not None,
        "lower_mode": modes.lower if modes else None,
        "upper_mode": modes.upper if modes else None,
    }
