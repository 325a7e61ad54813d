"""The table of samples: one row an iteration, with its latencies and throughputs."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from hfbench.tables import latency
from hfbench.tables.columns import AXIS_TYPES, STATUS, axes_frame
from hfbench.tables.reading import ReadRecord


def samples_table(records: Sequence[ReadRecord]) -> pl.DataFrame:
    """Return a row for each iteration of each record, in their order.

    Columns: the axes, `status`, `phase`, `iteration` (0 is the record's first call), `observed`, times in seconds,
    throughputs in tokens/s, and `token_seconds` as a list of lists (see `hfbench.tables.latency`).
    """
    iterations = pl.concat([record.iterations for record in records])
    lengths = [record.iterations.height for record in records]
    row = pl.Series([row for row, length in enumerate(lengths) for _ in range(length)], dtype=pl.Int64)
    iteration = pl.Series([index for length in lengths for index in range(length)], dtype=pl.Int64)
    axes = axes_frame(record.configuration for record in records).with_columns(
        pl.Series(name, [record.facts[name] for record in records], dtype=dtype) for name, dtype in _OF_RECORD.items()
    )
    return (
        pl.concat([axes[row], iterations], how="horizontal")
        .with_columns(
            iteration=iteration,
            time_to_first_token_seconds=latency.time_to_first_token(),
            time_to_first_token_p95_seconds=latency.slow_first_token(),
            inter_token_seconds=latency.inter_token_latency(),
            decode_tokens_per_second=latency.decode_throughput(),
            prefill_tokens_per_second=latency.prefill_throughput(),
            output_tokens_per_second=latency.output_throughput(),
        )
        .select(_COLUMNS)
    )


_OF_RECORD: dict[str, Any] = {"status": STATUS, "requests": pl.Int64, "prompt_tokens": pl.Int64, "new_tokens": pl.Int64}
_COLUMNS = (
    *AXIS_TYPES,
    "status",
    "phase",
    "iteration",
    "observed",
    "start_seconds",
    "end_to_end_seconds",
    "call_seconds",
    "time_to_first_token_seconds",
    "time_to_first_token_p95_seconds",
    "inter_token_seconds",
    "decode_tokens_per_second",
    "prefill_tokens_per_second",
    "output_tokens_per_second",
    "token_seconds",
)
