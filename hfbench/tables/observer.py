"""What the token observer costs each configuration."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from hfbench.statistics.intervals import paired_ratio_interval
from hfbench.tables.columns import CONFIGURATION_AXES

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
    pairs = zip(rounds["observed"].to_list(), rounds["unobserved"].to_list(), strict=True)
    costs = pl.DataFrame([_cost(*pair) for pair in pairs], schema=OBSERVER_TYPES)
    return pl.concat([rounds.select(CONFIGURATION_AXES), costs], how="horizontal")


def _cost(observed: Sequence[Sequence[float]], unobserved: Sequence[Sequence[float]]) -> dict[str, Any]:
    interval = paired_ratio_interval(unobserved, observed)
    return dict(zip(OBSERVER_TYPES, interval or (None, None, None), strict=True))
