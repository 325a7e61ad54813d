"""The tables of a sweep whose true times, noise and changes are known: to try a comparison where the answer is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from hfbench.core.point import AXES, CONFIGURATION_AXES, Configuration
from hfbench.core.record import FAILED, OK
from hfbench.tables.agreement import AGREEMENT_TYPES
from hfbench.tables.facts import FACT_TYPES
from hfbench.tables.metrics import AXIS_COLUMNS, PHASE, STATUS, axes_frame
from hfbench.tables.store import write_table
from hfbench.tables.summary import summary_table

START = datetime(2025, 1, 1, tzinfo=UTC)
_TTFT_SHARE = 0.2
_FACTS: dict[str, Any] = {
    "device": "cpu",
    "device_name": "Synthetic device",
    "intra_op_threads": 2,
    "kernels": [],
}


def one(_: Configuration) -> float:
    """Return the effect of no change."""
    return 1.0


@dataclass(frozen=True)
class Plan:
    """What is measured, and the truth: time times `effect`, and noise as standard deviations of logarithms.

    Round k starts at `started` + k · `round_every`, so that two plans with the same rounds and starts that differ by
    less than it interleave. Failing configurations have no samples. `drift` multiplies each round, by its place.
    """

    configurations: Sequence[Configuration]
    rounds: Sequence[int] = (1, 2, 3, 4, 5, 6, 7)
    iterations: int = 12
    effect: Callable[[Configuration], float] = one
    between: float = 0.01
    within: float = 0.02
    seed: int = 0
    started: datetime = START
    round_every: timedelta = timedelta(minutes=10)
    drift: Sequence[float] = ()
    fails: Callable[[Configuration], str | None] = lambda _: None
    output_differs: Callable[[Configuration], bool] = lambda _: False
    nll_change: Callable[[Configuration], float | None] = lambda _: None
    facts: tuple[tuple[str, Any], ...] = (("input_tensors_sha256", "0" * 64),)


@dataclass(frozen=True)
class SyntheticTables:
    """The four tables that the stage `tables` writes, with the columns that a comparison reads."""

    samples: pl.DataFrame
    summary: pl.DataFrame
    points: pl.DataFrame
    configurations: pl.DataFrame


def sweep(**axes: Sequence[Any]) -> list[Configuration]:
    """Return every combination of these axes' values, round 1; an axis not named has one value."""
    plain = Configuration(
        round=1, model="synthetic", attn_implementation="sdpa", batch_size=1, sequence_length=128, max_new_tokens=32
    )
    return [replace(plain, **dict(zip(axes, values, strict=True))) for values in product(*axes.values())]


def synthetic_tables(plan: Plan) -> SyntheticTables:
    """Return the tables of the plan; the same plan gives the same tables."""
    generator = np.random.default_rng(plan.seed)
    records = [replace(each, round=number) for number in plan.rounds for each in plan.configurations]
    points = _points(plan, records, generator)
    samples = _samples(plan, [each for each in records if plan.fails(each) is None], generator)
    ok = pl.col("status") == OK
    configurations = points.group_by(CONFIGURATION_AXES, maintain_order=True).agg(
        rounds_asked=pl.len().cast(pl.Int64), rounds_ok=ok.sum().cast(pl.Int64)
    )
    each = [Configuration(round=1, **axes) for axes in configurations.select(CONFIGURATION_AXES).to_dicts()]
    return SyntheticTables(
        samples=samples,
        summary=summary_table(samples, points),
        points=points,
        configurations=configurations.with_columns(
            output_differs=pl.Series(map(plan.output_differs, each), dtype=pl.Boolean),
            nll_change=pl.Series(map(plan.nll_change, each), dtype=pl.Float64),
        ),
    )


def write_tables(tables: SyntheticTables, folder: Any) -> None:
    """Write the tables to `folder`, as the stage `tables` does."""
    for name, table in vars(tables).items():
        write_table(table, folder, name)


def _points(plan: Plan, records: Sequence[Configuration], generator: np.random.Generator) -> pl.DataFrame:
    rows = []
    for index, record in enumerate(records):
        reason = plan.fails(record)
        begun = plan.started + plan.rounds.index(record.round) * plan.round_every
        noise = generator.normal(0, plan.between, 2)
        rows.append(
            {
                **_FACTS,
                "status": OK if reason is None else FAILED,
                "reason": reason,
                "started_at": (begun + timedelta(seconds=index % len(plan.configurations))).isoformat(),
                "load_seconds": 0.5 * float(np.exp(noise[0])) if reason is None else None,
                "peak_memory_bytes": int(2**29 * np.exp(noise[1] / 5)) if reason is None else None,
                **dict(plan.facts),
            }
        )
    facts = pl.DataFrame([{**dict.fromkeys(FACT_TYPES), **row} for row in rows], schema=FACT_TYPES)
    agreement = pl.DataFrame([{}] * len(rows), schema=AGREEMENT_TYPES)
    return pl.concat([axes_frame(records), facts, agreement], how="horizontal")


def _samples(plan: Plan, records: Sequence[Configuration], generator: np.random.Generator) -> pl.DataFrame:
    """Return a first call and `iterations` samples of each record, every fourth of them without the observer."""
    shape = (len(records), plan.iterations + 1)
    drift = np.array([plan.drift[plan.rounds.index(each.round)] if plan.drift else 1.0 for each in records])
    truth = drift * np.array([_seconds(each) * plan.effect(each) for each in records])
    process = np.exp(generator.normal(0, plan.between, (len(records), 1)))
    end_to_end = truth[:, None] * process * np.exp(generator.normal(0, plan.within, shape))
    first_token = _TTFT_SHARE * end_to_end * np.exp(generator.normal(0, plan.within / 2, shape))
    number = np.arange(shape[1])
    observed = (number % 4 != 3) | (number == 0)
    row = np.repeat(np.arange(len(records)), shape[1])
    axes = axes_frame(records)[row] if records else pl.DataFrame(schema=AXIS_COLUMNS)
    frame = axes.with_columns(
        status=pl.lit(OK, dtype=STATUS),
        phase=pl.Series(["first" if index == 0 else "sample" for index in np.tile(number, shape[0])], dtype=PHASE),
        iteration=pl.Series(np.tile(number, shape[0])),
        observed=pl.Series(np.tile(observed, shape[0])),
        start_seconds=pl.lit(0.0),
        end_to_end_seconds=pl.Series(end_to_end.ravel()),
        call_seconds=pl.Series(end_to_end.ravel()),
        first_token=pl.Series(first_token.ravel()),
    )
    return _with_tokens(frame)


def _with_tokens(frame: pl.DataFrame) -> pl.DataFrame:
    """Add what is derived from evenly spaced tokens; null where the iteration was not observed."""
    observed, batch = pl.col("observed"), pl.col("batch_size")
    gaps = pl.col("max_new_tokens") - 1
    decode_seconds = pl.col("end_to_end_seconds") - pl.col("first_token")
    tokens = [
        [np.linspace(first, last, count).tolist()] if is_observed else []
        for first, last, count, is_observed in frame.select(
            "first_token", "end_to_end_seconds", "max_new_tokens", "observed"
        ).iter_rows()
    ]
    return frame.with_columns(
        time_to_first_token_seconds=pl.when(observed).then("first_token"),
        request_latency_seconds=pl.lit(None, dtype=pl.Float64),  # rows advance in step
        inter_token_seconds=pl.when(observed).then(decode_seconds / gaps),
        decode_tokens_per_second=pl.when(observed).then(batch * gaps / decode_seconds),
        prefill_tokens_per_second=pl.when(observed).then(batch * pl.col("sequence_length") / pl.col("first_token")),
        output_tokens_per_second=batch * pl.col("max_new_tokens") / pl.col("end_to_end_seconds"),
        token_seconds=pl.Series(tokens, dtype=pl.List(pl.List(pl.Float64))),
        arrival_seconds=pl.Series([[0.0] * len(each) for each in tokens], dtype=pl.List(pl.Float64)),
    ).drop("first_token")


def _seconds(configuration: Configuration) -> float:
    """Return the true end-to-end time of a configuration without any effect."""
    slow = 1.3 if configuration.attn_implementation == "eager" else 1.0
    return slow * (
        0.01 * configuration.max_new_tokens + 0.001 * configuration.sequence_length * configuration.batch_size
    )


assert tuple(AXIS_COLUMNS) == AXES
