"""The table of configurations: one row each, over the rounds that are ok."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hfbench.foundation.params import Limits
from hfbench.foundation.records import OK
from hfbench.tables.break_even import BREAK_EVEN_TYPES, break_even_table
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.observer import observer_table
from hfbench.tables.reading import ReadRecord
from hfbench.tables.utilisation import utilisation_table

_OK = pl.col("status") == OK


def configurations_table(
    records: Sequence[ReadRecord],
    samples: pl.DataFrame,
    points: pl.DataFrame,
    summary: pl.DataFrame,
    ceilings: Mapping[str, Any],
    limits: Limits,
) -> pl.DataFrame:
    """Return a row for each configuration, in the order of the sweep, with what `hfbench.warnings.facts.Facts` holds.

    Null is what no round tells.
    """
    ok_samples = samples.filter(_OK, pl.col("phase") == "sample")
    parts = (
        _latency(summary),
        _inter_token(summary),
        observer_table(ok_samples),
        utilisation_table(records, summary, ceilings),
        break_even_table(points.filter(_OK), ok_samples),
    )
    table = _over_rounds(points)
    for part in parts:
        table = table.join(part, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    return (
        table.with_columns(
            pl.col("drifting_rounds").fill_null(0),
            pl.col("bimodal").fill_null(value=False),
            min_top1_agreement=pl.lit(limits.min_top1_agreement),
            max_nll_difference=pl.lit(limits.max_nll_difference),
        )
        .with_columns(
            output_differs=(
                (pl.col("top1_agreement") < pl.col("min_top1_agreement"))
                | (pl.col("nll_difference") > pl.col("max_nll_difference"))
            ).fill_null(value=False)
        )
        .with_columns(
            # What computes something else may be fast because it is wrong: it has not paid.
            pl.when(~pl.col("output_differs")).then(pl.col(name)).alias(name)
            for name in BREAK_EVEN_TYPES
        )
    )


def _over_rounds(points: pl.DataFrame) -> pl.DataFrame:
    clock = pl.col("clock_mhz").filter(_OK)
    most = (
        "quota_throttled_share",
        "other_processes",
        "others_cpu_share",
        "cpu_share_before",
        "swap_used_bytes",
        "clock_resolution_seconds",
    )
    throttled = pl.col("throttle_reasons").filter(_OK)
    return points.group_by(CONFIGURATION_AXES, maintain_order=True).agg(
        pl.col("target_precision").filter(_OK).max(),
        pl.col("recompiles_while_sampling").filter(_OK).sum(),
        throttled.explode().drop_nulls().unique(maintain_order=True),
        *(pl.col(name).filter(_OK).max() for name in most),
        *(pl.col(name).filter(_OK).first() for name in ("requests", "prompt_tokens", "new_tokens")),
        pl.col("reference").filter(_OK).first(),
        pl.col("top1_agreement").filter(_OK).min(),
        pl.col("nll_difference").filter(_OK).max(),
        pl.col("first_different_token").filter(_OK).min(),
        rounds_asked=pl.len().cast(pl.Int64),
        rounds_ok=_count(_OK),
        rounds_ended_early=_count(
            _OK & pl.col("target_precision").is_not_null() & pl.col("stopped_because").str.starts_with("max_")
        ),
        rounds_never_steady=_count(_OK & ~pl.col("warmup_steady")),
        rounds_throttled=_count(_OK & (pl.col("throttle_reasons").list.len() > 0)),
        rounds_disagreeing=_count(_OK & ~pl.col("same_as_first_round")),
        # Within a round, or from one to another.
        clock_spread=pl.max_horizontal(
            pl.col("clock_spread").filter(_OK).max(), (clock.max() - clock.min()) / clock.median()
        ),
    )


def _count(condition: pl.Expr) -> pl.Expr:
    return condition.sum().cast(pl.Int64)


def _latency(summary: pl.DataFrame) -> pl.DataFrame:
    return summary.filter(pl.col("metric") == "end_to_end_seconds").select(
        *CONFIGURATION_AXES,
        "drifting_rounds",
        "largest_drift",
        "bimodal",
        "lower_mode",
        "upper_mode",
        precision=(pl.col("high") - pl.col("low")) / 2 / pl.col("estimate"),
    )


def _inter_token(summary: pl.DataFrame) -> pl.DataFrame:
    rows = summary.filter(pl.col("metric") == "inter_token_seconds")
    return rows.select(*CONFIGURATION_AXES, inter_token_seconds="estimate")
