"""The table of configurations: one row each, over the rounds that are ok."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from hfbench.core.point import CONFIGURATION_AXES, NONE, REFERENCE, UNIFORM, value_text
from hfbench.core.record import OK, Sampling
from hfbench.params.schema import Limits
from hfbench.statistics.bootstrap import FEWEST_ROUNDS, Floats, Interval
from hfbench.statistics.ratios import contrast, estimate
from hfbench.statistics.verdicts import interval
from hfbench.tables.facts import start_time
from hfbench.tables.reading import ReadRecord
from hfbench.tables.roofline import utilisation_table
from hfbench.tables.summary import observer_table


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a row of the table says of a configuration with at least one round that is ok.

    Only such rounds count, but for `rounds_asked`. None stands for what the records do not tell; no warning follows
    from it. Ratios, shares and utilisations are fractions of 1.
    """

    rounds_asked: int
    rounds_ok: int

    # The median end-to-end latency. The precision is half the 95% interval over the median.
    target_precision: float | None = None  # None where the stopping rule asks for none
    precision: float | None = None
    rounds_ended_early: int = 0  # at the most iterations or seconds, before the target was reached
    rounds_with_few_iterations: int = 0  # fewer than asked, for want of time
    iterations_asked: int | None = None
    iterations_sampled: int | None = None  # the fewest of all rounds
    asked_iterations_seconds: float | None = None  # what those asked take, with all around them
    end_to_end_seconds: float | None = None
    drifting_rounds: int = 0
    largest_drift: float | None = None  # from the first iteration to the last
    bimodal: bool = False
    lower_mode: float | None = None  # seconds
    upper_mode: float | None = None

    # The processes.
    rounds_never_steady: int = 0
    recompiles_while_sampling: int = 0
    inter_token_seconds: float | None = None
    clock_resolution_seconds: float | None = None
    tokens_handed_out_late: bool = False  # by `generate`, when it has queued the step after
    recurring_gap_ratio: float | None = None  # of the gap before one and the same token, over the median gap
    recurring_gap_token: int | None = None  # counted from 1
    observer_cost_ratio: float | None = None  # with the token observer over without, and its 95% interval
    observer_cost_low: float | None = None
    observer_cost_high: float | None = None

    # The machine: the worst of the rounds, while they sampled unless the name says otherwise.
    throttle_reasons: Sequence[str] = ()
    rounds_throttled: int = 0
    quota_throttled_share: float | None = None  # CPU seconds that a container's limit withheld, over seconds
    other_processes: int | None = None  # on the accelerator
    others_cpu_share: float | None = None  # of all CPUs
    cpu_share_before: float | None = None  # of all CPUs, just before a worker started
    swap_used_bytes: int | None = None
    monitor_readings: int | None = None  # of the hardware; the fewest of all rounds
    clock_spread: float | None = None  # (highest - lowest) / median, of the device's clock

    # The output.
    reference: str | None = None
    reference_wanted: str = ""  # the axes in which it is another, and their values there
    top1_agreement: float | None = None
    nll_difference: float | None = None
    first_different_token: int | None = None
    output_beyond_limits: bool = False
    min_top1_agreement: float | None = None
    max_nll_difference: float | None = None
    rounds_disagreeing: int = 0  # whose output is not that of the first round
    rounds_with_other_kernels: int = 0  # than the first round's
    path_checked: bool | None = None  # whether what is timed could be compared with one plain forward pass
    path_agrees: bool | None = None
    path_difference: float | None = None  # of the logits, relative to their size
    path_tolerance: float | None = None  # what rounding explains of it

    # How many times a ceiling it would be, where that is more than once, and what may be the cause.
    decode_bandwidth_above_roof: float | None = None
    decode_products_above_roof: float | None = None
    prefill_bandwidth_above_roof: float | None = None
    prefill_products_above_roof: float | None = None
    ceilings_others_cpu_share: float | None = None  # of all CPUs, while the ceilings were measured
    rows_choose_experts: bool | None = None  # several rows, of a mixture of experts
    compile_mode: str = "off"
    use_kernels: bool = False

    # Of a dtype that is slower than float32, FLOP/s of both; whether the processor is known to emulate it, None of
    # others.
    dtype: str | None = None
    dtype_emulated: bool | None = None
    dtype_flops_per_second: float | None = None
    float32_flops_per_second: float | None = None
    dtype_row_flops_per_second: float | None = None  # one row, as in decoding
    float32_row_flops_per_second: float | None = None


PAID, NEVER, NOT_KNOWN = "paid", "never", "not known"
BREAK_EVEN_TYPES: dict[str, type[pl.DataType]] = {
    "break_even": pl.String,
    "break_even_new_tokens": pl.Float64,
    "break_even_new_tokens_low": pl.Float64,
    "break_even_new_tokens_high": pl.Float64,
}
_OFF, _AUTO = "off", "auto"
_Axes = tuple[Any, ...]


class _Round(NamedTuple):
    overhead: float  # what the first call takes beyond a sample
    seconds: Floats  # of each sample
    started: datetime | None


_Rounds = dict[int, _Round]  # by number


def break_even(
    overhead_seconds: float, uncompiled_seconds: float, ratio: Interval | None, iteration_tokens: float
) -> dict[str, Any]:
    """Return the new tokens after which a compiled process and an uncompiled one have taken the same time.

    `overhead_seconds` is what the first call of the compiled process takes beyond its steady iterations, less the same
    of the uncompiled process, which warms up too. `uncompiled_seconds` is a steady uncompiled iteration, `ratio` what a
    compiled one takes of that, and `iteration_tokens` the new tokens of an iteration, all rows together.

    n calls take overhead + n · iteration. So they are even at n = overhead_seconds / saving, the first call counted,
    where a compiled iteration saves uncompiled_seconds · (1 - ratio): the break-even point of a fixed cost over the
    saving of each unit. Where the interval of the ratio includes 1, the saving may be none, and nothing is known. Where
    compiled iterations are slower, they never pay. Where the compiled start costs no more, they pay from the first.

    It has `BREAK_EVEN_TYPES`, without the numbers of tokens where it is not `paid`. The last two are the tokens at the
    limits of the 95% interval of the ratio; the start-up costs in them are the estimates.
    """
    if ratio is None or ratio.low <= 1 <= ratio.high:
        return {"break_even": NOT_KNOWN}
    if ratio.low > 1:
        return {"break_even": NEVER}
    cost = max(0.0, overhead_seconds) * iteration_tokens / uncompiled_seconds
    return dict(zip(BREAK_EVEN_TYPES, (PAID, *(cost / (1 - each) for each in ratio)), strict=True))


def break_even_table(ok_points: pl.DataFrame, ok_samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row of `BREAK_EVEN_TYPES` for each compiled configuration whose twin was measured too.

    `ok_points` are the rows of the table of points that are ok, `ok_samples` the sample iterations of these. The times
    are end to end, with the token observer. Rounds are paired where those of the twins alternate (`contrast`); the
    overhead is the median over them. Requests of unequal lengths are left out: an iteration's tokens are in no table.
    """
    rounds = _rounds(ok_points, ok_samples)
    rows = []
    for key, compiled in rounds.items():
        axes = dict(zip(CONFIGURATION_AXES, key, strict=True))
        twin = rounds.get(tuple({**axes, "compile_mode": _OFF, "cache_implementation": _AUTO}.values()))
        if axes["compile_mode"] != _OFF and axes["request_lengths"] == UNIFORM and twin:
            rows.append({**axes, **_against_twin(compiled, twin, axes["batch_size"] * axes["max_new_tokens"])})
    types = {axis: ok_points.schema[axis] for axis in CONFIGURATION_AXES}
    return pl.DataFrame(rows, schema={**types, **BREAK_EVEN_TYPES})


def _rounds(ok_points: pl.DataFrame, ok_samples: pl.DataFrame) -> dict[_Axes, _Rounds]:
    axes = [*CONFIGURATION_AXES, "round"]
    values = (
        ok_samples.filter("observed")
        .group_by(axes, maintain_order=True)
        .agg(seconds="end_to_end_seconds")
        .join(ok_points.select(*axes, "first_call_seconds", "started_at"), on=axes, maintain_order="left")
        .drop_nulls("first_call_seconds")
    )
    found: dict[_Axes, _Rounds] = {}
    for *key, number, seconds, first_call, started in values.iter_rows():
        its = _Round(first_call - median(seconds), np.array(seconds), start_time(started))
        found.setdefault(tuple(key), {})[number] = its
    return found


def _against_twin(compiled: _Rounds, twin: _Rounds, tokens: int) -> dict[str, Any]:
    shared = sorted(compiled.keys() & twin.keys())
    if len(shared) < FEWEST_ROUNDS:
        return break_even(0.0, 1.0, None, tokens)
    overhead = median(compiled[number].overhead - twin[number].overhead for number in shared)
    baseline, candidate = ({number: side[number].seconds for number in shared} for side in (twin, compiled))
    found = contrast(baseline, candidate, _started(twin, shared), _started(compiled, shared))
    return break_even(overhead, estimate(baseline), interval(found.ratio) if found.ratio else None, tokens)


def _started(rounds: _Rounds, numbers: Sequence[int]) -> dict[int, datetime]:
    return {number: time for number in numbers if (time := rounds[number].started) is not None}


_OK = pl.col("status") == OK
_SHAPE = ("drifting_rounds", "largest_drift", "bimodal", "lower_mode", "upper_mode")


def configurations_table(
    records: Sequence[ReadRecord],
    samples: pl.DataFrame,
    points: pl.DataFrame,
    summary: pl.DataFrame,
    ceilings: Mapping[str, Any],
    limits: Limits,
) -> pl.DataFrame:
    """Return a row for each configuration, in the order of the sweep: its `Facts`, its roofline and its break-even.

    Null is what no round tells.
    """
    ok_samples = samples.filter(_OK, pl.col("phase") == "sample")
    latency = summary.filter(pl.col("metric") == "end_to_end_seconds")
    precision = (pl.col("high") - pl.col("low")) / 2 / pl.col("estimate")
    parts = (
        latency.select(*CONFIGURATION_AXES, *_SHAPE, precision=precision, end_to_end_seconds="estimate"),
        summary.filter(pl.col("metric") == "inter_token_seconds").select(
            *CONFIGURATION_AXES, inter_token_seconds="estimate"
        ),
        observer_table(ok_samples),
        utilisation_table(records, summary, ceilings),
        break_even_table(points.filter(_OK), ok_samples),
    )
    table = _over_rounds(points)
    for part in parts:
        table = table.join(part, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    return _with_output(
        table.with_columns(
            pl.col("drifting_rounds").fill_null(0),
            pl.col("bimodal").fill_null(value=False),
            reference_wanted=pl.Series(map(_reference_wanted, table.to_dicts()), dtype=pl.String),
            min_top1_agreement=_limit(limits.min_top1_agreement, limits.min_quantized_top1_agreement),
            max_nll_difference=_limit(limits.max_nll_difference, limits.max_quantized_nll_difference),
        )
    )


def _reference_wanted(axes: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis} {value_text(value)}" for axis, value in REFERENCE.items() if axes[axis] != value)


# Whether quantised weights or a quantised cache have a price in quality by design.
IS_QUANTIZED = (pl.col("quantization") != NONE) | (pl.col("cache_implementation") == "quantized")


def _limit(plain: float, quantized: float) -> pl.Expr:
    return pl.when(IS_QUANTIZED).then(pl.lit(quantized)).otherwise(pl.lit(plain))


def _with_output(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with what its output is called; what computes something else has not paid for its compiling."""
    beyond_limits = pl.any_horizontal(
        pl.col("top1_agreement") < pl.col("min_top1_agreement"),
        pl.col("nll_difference") > pl.col("max_nll_difference"),
        # In half precision rounding alone may choose another token.
        (pl.col("dtype") == "float32") & ~IS_QUANTIZED & pl.col("first_different_token").is_not_null(),
        ~pl.col("path_agrees"),
    ).fill_null(value=False)
    # Rounds in which kernels replaced other layers are no measurement of one thing.
    differs = beyond_limits | (pl.col("rounds_with_other_kernels") > 0)
    paid = (pl.when(~differs).then(pl.col(name)).alias(name) for name in BREAK_EVEN_TYPES)
    return table.with_columns(*paid, output_beyond_limits=beyond_limits, output_differs=differs)


def _over_rounds(points: pl.DataFrame) -> pl.DataFrame:
    clock, gap_token = pl.col("clock_mhz"), pl.col("recurring_gap_token")
    is_same_token = gap_token.n_unique() == 1  # another one in another round came late by chance
    largest = ("target_precision", "nll_difference", "path_difference", "path_tolerance", "quota_throttled_share")
    most_of_others = ("other_processes", "others_cpu_share", "cpu_share_before", "swap_used_bytes")
    few = (pl.col("stopped_because") == Sampling.OUT_OF_TIME) & (
        pl.col("iterations_sampled") < pl.col("iterations_asked")
    )
    conditions = {
        "rounds_ok": _OK,
        "rounds_ended_early": pl.col("target_precision").is_not_null()
        & pl.col("stopped_because").str.starts_with("max_"),
        "rounds_with_few_iterations": few,
        "rounds_never_steady": ~pl.col("warmup_steady") & ~few.fill_null(value=False),  # which had no time for it
        "rounds_throttled": pl.col("throttle_reasons").list.len() > 0,
        "rounds_disagreeing": ~pl.col("same_as_first_round"),
        "rounds_with_other_kernels": ~pl.col("same_kernels_as_first_round"),
    }
    ok_rounds = (
        points.filter(_OK)
        .group_by(CONFIGURATION_AXES)
        .agg(
            pl.col(*largest, *most_of_others, "clock_resolution_seconds", "iterations_asked").max(),
            pl.col("asked_iterations_seconds").median(),
            pl.col(
                "iterations_sampled", "monitor_readings", "top1_agreement", "first_different_token", "path_agrees"
            ).min(),
            pl.col("requests", "prompt_tokens", "new_tokens", "reference", "prompt_nll", "nll_change").first(),
            pl.col("recompiles_while_sampling").sum(),
            pl.col("throttle_reasons").explode().drop_nulls().unique(maintain_order=True),
            pl.col("path_checked").all(ignore_nulls=False),
            (pl.col("tokens_handed_out_late") & ~pl.col("continuous_batching")).any(),
            pl.when(is_same_token).then(pl.col("recurring_gap_ratio").min()),
            pl.when(is_same_token).then(gap_token.first()).alias("recurring_gap_token"),
            # Within a round, or from one to another.
            clock_spread=pl.max_horizontal(pl.col("clock_spread").max(), (clock.max() - clock.min()) / clock.median()),
            **{name: condition.sum().cast(pl.Int64) for name, condition in conditions.items()},
        )
    )
    rounds = points.group_by(CONFIGURATION_AXES, maintain_order=True).agg(rounds_asked=pl.len().cast(pl.Int64))
    return rounds.join(ok_rounds, on=CONFIGURATION_AXES, how="left", maintain_order="left").with_columns(
        pl.col(*conditions, "recompiles_while_sampling").fill_null(0)
    )
