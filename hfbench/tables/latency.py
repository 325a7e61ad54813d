"""The latency and throughput formulas, each one a polars expression over the column `token_seconds`.

`token_seconds` is a list of lists: the times of the new tokens, counted from the iteration's start. With `generate` one
list stands for the whole batch, whose rows advance in step; with continuous batching each request has its own. It is
empty where the iteration ran without the observer, and every formula is null there.
"""

import polars as pl

_TOKENS = pl.col("token_seconds")
_LIST = pl.element().list
_GAPS = _LIST.len().cast(pl.Int64) - 1


def time_to_first_token() -> pl.Expr:
    """Seconds until the first new token: of the only list, or the median over the requests."""
    return _TOKENS.list.eval(_LIST.first()).list.median()


def inter_token_latency() -> pl.Expr:
    """Mean gap in seconds, (last - first) / (n - 1): the median over the lists, null where n is 1.

    n tokens have n - 1 gaps between them; dividing by n would flatter short generations.
    """
    mean_gap = pl.when(_GAPS > 0).then((_LIST.last() - _LIST.first()) / _GAPS)
    return _TOKENS.list.eval(mean_gap).list.median()


def inter_token_gaps() -> pl.Expr:
    """All gaps in seconds between consecutive tokens, one list of n - 1 gaps for each list of n tokens."""
    return _TOKENS.list.eval(_LIST.diff(null_behavior="drop"))


def prefill_throughput() -> pl.Expr:
    """Prompt tokens of the whole batch over the seconds until the last request has its first new token."""
    prompt_tokens = pl.col("batch_size") * pl.col("sequence_length")
    seconds = _TOKENS.list.eval(_LIST.first()).list.max()
    return pl.when(seconds > 0).then(prompt_tokens / seconds)


def decode_throughput() -> pl.Expr:
    """New tokens a second of the whole batch: sum over rows of (n - 1), over (last token - first token of any row).

    The first token of each row belongs to the prefill. Null where n is 1.
    """
    rows_per_list = pl.when("continuous_batching").then(1).otherwise(pl.col("batch_size"))
    new_tokens = _TOKENS.list.eval(_GAPS).list.sum() * rows_per_list
    seconds = _TOKENS.list.eval(_LIST.last()).list.max() - _TOKENS.list.eval(_LIST.first()).list.min()
    return pl.when((new_tokens > 0) & (seconds > 0)).then(new_tokens / seconds)
