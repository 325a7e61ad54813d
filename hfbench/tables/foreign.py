"""Tables of what another benchmark measured: the same schemas, null for all that it does not tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from hfbench.core.point import Configuration
from hfbench.params.schema import Limits
from hfbench.tables.build import Tables, points_table
from hfbench.tables.configurations import configurations_table
from hfbench.tables.facts import FACT_TYPES, uniform_facts
from hfbench.tables.reading import ITERATION_TYPES, Output, ReadRecord
from hfbench.tables.summary import samples_table, summary_table
from hfbench.tables.warnings import configuration_warnings

_LIMITS = Limits(min_top1_agreement=0.9, max_nll_difference=0.05)  # of outputs, which foreign rounds do not have
_TOLD = ("time_to_first_token_seconds", "inter_token_seconds")


@dataclass(frozen=True)
class ForeignSample:
    """An iteration, in float64 seconds; None or empty for what was not told.

    `token_seconds` count from the iteration's start, a list for the whole batch or one a request. Where it is empty,
    `time_to_first_token_seconds` and `inter_token_seconds` stand for what would be computed of it.
    """

    end_to_end_seconds: float | None
    call_seconds: float | None
    token_seconds: tuple[tuple[float, ...], ...] = ()
    time_to_first_token_seconds: float | None = None
    inter_token_seconds: float | None = None


@dataclass(frozen=True)
class ForeignRound:
    """A configuration in one process; `facts` are columns of the table of points (`FACT_TYPES`), at least `status`."""

    configuration: Configuration
    facts: Mapping[str, Any]
    samples: tuple[ForeignSample, ...]


def foreign_tables(rounds: Sequence[ForeignRound]) -> Tables:
    """Return the tables of these rounds."""
    records = [_record(each) for each in rounds]
    samples = _with_told(samples_table(records), [sample for each in rounds for sample in each.samples])
    points = points_table(records, samples)
    summary = summary_table(samples, points)
    configurations = configurations_table(records, samples, points, summary, {}, _LIMITS)
    return Tables(samples, summary, points, configurations, configuration_warnings(configurations))


def _record(each: ForeignRound) -> ReadRecord:
    rows = [
        {
            "phase": "sample",
            "observed": True,
            "start_seconds": None,
            "end_to_end_seconds": sample.end_to_end_seconds,
            "call_seconds": sample.call_seconds,
            "token_seconds": [list(times) for times in sample.token_seconds],
        }
        for sample in each.samples
    ]
    alike = uniform_facts(vars(each.configuration))  # no other benchmark has requests of unequal lengths
    return ReadRecord(
        configuration=each.configuration,
        facts={name: each.facts.get(name, alike.get(name)) for name in FACT_TYPES},
        timeline={},
        iterations=pl.DataFrame(rows, schema=ITERATION_TYPES),
        output=Output(),
        needs={},
    )


def _with_told(samples: pl.DataFrame, told: Sequence[ForeignSample]) -> pl.DataFrame:
    """Fill in what was told instead of token times, and the throughputs that follow from it for a whole batch."""
    columns = {name: pl.Series([getattr(each, name) for each in told], dtype=pl.Float64) for name in _TOLD}
    samples = samples.with_columns(pl.coalesce(name, column) for name, column in columns.items())
    prompt_tokens = pl.col("batch_size") * pl.col("sequence_length")
    throughputs = {
        "prefill_tokens_per_second": prompt_tokens / pl.col("time_to_first_token_seconds"),
        "decode_tokens_per_second": pl.col("batch_size") / pl.col("inter_token_seconds"),
    }
    together = ~pl.col("continuous_batching")  # rows that do not advance in step share no first token and no pace
    return samples.with_columns(pl.coalesce(name, pl.when(together).then(value)) for name, value in throughputs.items())
