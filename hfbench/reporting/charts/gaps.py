"""The gaps between consecutive tokens along the sequence: computed, not drawn."""

import polars as pl

from hfbench.reporting.report_data import Rounds
from hfbench.statistics.intervals import Interval, paired_ratio_interval

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
