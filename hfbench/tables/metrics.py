"""The latency and throughput formulas, each one a polars expression over the column `token_seconds`.

`token_seconds` is a list of lists: the times of the new tokens, counted from the iteration's start. `arrival_seconds`
has when the request of each list arrived, 0 where all do at the start. With `generate` on rows of one length, one list
stands for the whole batch, whose rows advance in step; else each request has its own. It is empty where the iteration
ran without the observer, and the formulas are null there, but for `output_throughput`. `requests`, `prompt_tokens` and
`new_tokens` are those of all requests of an iteration.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from hfbench.core.point import AXIS_TYPES, Configuration
from hfbench.core.record import STATUSES

# Names carry their unit.
_UNITS = {
    **{"per_second": "tokens/s", "per_token": "J/token", "per_step": "tokens"},
    **{"seconds": "s", "bytes": "bytes", "share": "share"},
}


@dataclass(frozen=True)
class Metric:
    """One quantity that the summary has a row for; `definition` is the sentence that the report shows."""

    name: str
    definition: str

    @property
    def unit(self) -> str:
        """The unit of its values, as its name ends."""
        return next(unit for ending, unit in _UNITS.items() if self.name.endswith(ending))

    @property
    def higher_is_better(self) -> bool:
        """Whether it is a rate, or what an assistant or a shared prefix saves."""
        return self.name.endswith(("_per_second", "tokens_per_step", "acceptance_share", "hit_share"))


PERCENTILES = (50, 90, 95, 99)


def percentile_name(name: str, percent: int) -> str:
    """Return the name of the metric that is this percentile of a time, such as `inter_token_gap_p99_seconds`."""
    return f"{name}_p{percent}_seconds"


def _percentiles(name: str, of_what: str) -> Iterator[Metric]:
    """Yield the metrics of a time's percentiles, of which each round has one: tails differ from process to process."""
    for percent in PERCENTILES:
        how = "" if percent < 95 else f"; of fewer than {round(100 / (100 - percent))} it lies below the largest"
        yield Metric(
            percentile_name(name, percent),
            f"The {percent}th {of_what}, between two of them by linear interpolation{how}.",
        )


METRICS = (
    Metric(
        "end_to_end_seconds",
        "From the start of the call to its return (generate) or to its last token (continuous batching), in the "
        "iterations with the token observer.",
    ),
    Metric(
        "end_to_end_unobserved_seconds",
        "The same in the iterations without the token observer; the difference is what observing costs.",
    ),
    Metric(
        "time_to_first_token_seconds",
        "From the arrival (the start of the call, unless request_rate says otherwise) to the first new token, waiting "
        "for others included; "
        "the median over the requests where they do not advance in step (continuous batching, or unequal lengths).",
    ),
    *_percentiles(
        "time_to_first_token",
        "percentile of the time to the first new token, over every single request of every iteration of a round (rows "
        "that advance in step have it at once, and count as one)",
    ),
    Metric(
        "request_latency_seconds",
        "From the arrival of a request to its last token, the median over the requests, where they do not advance in "
        "step.",
    ),
    *_percentiles(
        "request_latency", "percentile of that time, over every single request of every iteration of a round"
    ),
    Metric(
        "inter_token_seconds",
        "Mean gap between an iteration's consecutive tokens, (last − first) / (n − 1) for n new tokens; the median "
        "over the requests where they do not advance in step. With an assistant, whose tokens come several at a time, "
        "n − 1 are the tokens after the first step.",
    ),
    Metric(
        "inter_token_gap_seconds",
        "Every single gap between two consecutive tokens, of all iterations (and requests) together; with an "
        "assistant, between two steps.",
    ),
    *_percentiles(
        "inter_token_gap",
        "percentile of every single gap between two consecutive tokens of a round (with an assistant, two steps)",
    ),
    Metric(
        "decode_tokens_per_second",
        "New tokens after the first one (with an assistant, the first step), of all rows or requests, per second "
        "between the first token and the last.",
    ),
    Metric(
        "output_tokens_per_second",
        "New tokens that the rows or requests asked for, per second of the end-to-end latency.",
    ),
    Metric(
        "prefill_tokens_per_second",
        "Prompt tokens of all rows of the batch per second from the start of the call until every row or request has "
        "its first new token. None where more requests come than run at a time, and some wait for others to end, and "
        "where they arrive one by one.",
    ),
    Metric(
        "padding_waste_share",
        "With requests of unequal lengths, the share of the token positions that the model computed for padding or "
        "for new tokens beyond a request's own, 1 − Σ (p + n − 1) / Σ rows × (P + N − 1): p and n are a request's "
        "prompt and new tokens, P and N the most in its padded batch. 0 for continuous batching, unless it pads for "
        "graphs.",
    ),
    Metric(
        "prefix_hit_share",
        "With prefix sharing (continuous_batching.allow_block_sharing), the share of the prompt tokens that were in "
        "the cache already, in a run that is not timed; once a round.",
    ),
    Metric(
        "tokens_per_step",
        "With an assistant, new tokens over forward passes of the model, in a call that is not timed; once a round.",
    ),
    Metric(
        "draft_acceptance_share",
        "With an assistant, the share of the tokens that it proposed which the model took, in that call.",
    ),
    Metric("draft_time_share", "With an assistant, the share of that call that went into drafts."),
    Metric("load_seconds", "Loading the model, once in each round's fresh process."),
    Metric(
        "first_call_seconds",
        "The first call of a fresh process, before which nothing ran through the model; it holds compilation. Once in "
        "each round, and no part of the samples.",
    ),
    Metric(
        "compile_seconds",
        "What torch.compile took in a fresh process with empty caches, once in each round; part of the first call.",
    ),
    Metric(
        "warm_first_call_seconds",
        "The first call of a second process, which finds the caches that compiling filled; once in each round.",
    ),
    Metric("warm_compile_seconds", "What torch.compile took in that second process; part of its first call."),
    Metric(
        "peak_memory_bytes",
        "The most memory used in a round: resident set of the process on the CPU, torch's share on an accelerator.",
    ),
    Metric("load_peak_memory_bytes", "The most memory used until the model was loaded."),
    Metric(
        "prefill_peak_memory_bytes",
        "The most memory used from the start of a call to its first logits, in a call that is not timed.",
    ),
    Metric("decode_peak_memory_bytes", "The most memory used from there to the end of that call."),
    Metric(
        "energy_joules_per_token",
        "Energy of the device while samples were taken, over the tokens made meanwhile; once in each round, and only "
        "where the machine tells.",
    ),
)
METRIC_NAMES = tuple(metric.name for metric in METRICS)


STATUS = pl.Enum(STATUSES)
PHASE = pl.Enum(["first", "warmup", "sample"])
METRIC = pl.Enum(METRIC_NAMES)

_POLARS_TYPES: dict[Any, type[pl.DataType]] = {int: pl.Int64, str: pl.String, bool: pl.Boolean}
AXIS_COLUMNS = {axis: _POLARS_TYPES[kind] for axis, kind in AXIS_TYPES.items()}


def axes_frame(configurations: Iterable[Configuration]) -> pl.DataFrame:
    """Return a frame with a typed column for each axis and a row for each configuration."""
    return pl.DataFrame([vars(configuration) for configuration in configurations], schema=AXIS_COLUMNS)


_TOKENS = pl.col("token_seconds")
_LIST = pl.element().list
# Tokens after the first step: all but one, or but those that an assistant had accepted in it.
_LATER = _LIST.eval(pl.element() > pl.element().first()).list.sum().cast(pl.Int64)
_FIRST, _LAST = _TOKENS.list.eval(_LIST.first()), _TOKENS.list.eval(_LIST.last())  # of each list
_ARRIVALS = pl.col("arrival_seconds")
_WAITED, _TAKEN = _FIRST - _ARRIVALS, _LAST - _ARRIVALS
# Without a gap there is no mean; dividing by the tokens in the place of the gaps would flatter short generations.
_MEAN_GAP = pl.when(_LATER > 0).then((_LIST.last() - _LIST.first()) / _LATER)
_PREFILL_SECONDS, _DECODE_SECONDS = _FIRST.list.max(), _LAST.list.max() - _FIRST.list.min()
_LISTS = _TOKENS.list.len()
# The first step of each request belongs to the prefill.
_DECODED = _TOKENS.list.eval(_LATER).list.sum() * pl.when(_LISTS == 1).then(pl.col("requests")).otherwise(1)
# Where more requests come than run at a time, the later ones wait while others decode, and that is no prefill.
# So may some of fewer, of which the paged cache has no room for all.
_NONE_WAITS = (_FIRST.list.max() <= _LAST.list.min()) | (pl.col("new_tokens") == pl.col("requests"))
_AT_ONCE = (pl.col("requests") <= pl.col("batch_size")) & (_ARRIVALS.list.max() == 0) & _NONE_WAITS

# All gaps in seconds between consecutive steps, one list of n - 1 gaps for each list of n steps: tokens of one step,
# which have the same time, have none between them.
INTER_TOKEN_GAPS = _TOKENS.list.eval(_LIST.unique(maintain_order=True).list.diff(null_behavior="drop"))
# What percentiles are taken of: the single times of an iteration.
SINGLE_TIMES = {
    "time_to_first_token": _WAITED,
    "request_latency": pl.when(_LISTS > 1).then(_TAKEN),
    "inter_token_gap": INTER_TOKEN_GAPS,
}
# The columns of an iteration that are computed of its times; null where the divisor would be 0.
FORMULAS = {
    "time_to_first_token_seconds": _WAITED.list.median(),
    "request_latency_seconds": pl.when(_LISTS > 1).then(_TAKEN.list.median()),
    "inter_token_seconds": _TOKENS.list.eval(_MEAN_GAP).list.median(),
    "decode_tokens_per_second": pl.when((_DECODED > 0) & (_DECODE_SECONDS > 0)).then(_DECODED / _DECODE_SECONDS),
    "prefill_tokens_per_second": pl.when(_AT_ONCE & (_PREFILL_SECONDS > 0)).then(
        pl.col("prompt_tokens") / _PREFILL_SECONDS
    ),
    "output_tokens_per_second": pl.when(pl.col("end_to_end_seconds") > 0).then(
        pl.col("new_tokens") / pl.col("end_to_end_seconds")
    ),
}
