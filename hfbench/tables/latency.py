"""The latency and throughput formulas, each one a polars expression over the column `token_seconds`.

`token_seconds` is a list of lists: the times of the new tokens, counted from the iteration's start, when all requests
arrive. With `generate` on rows of one length, one list stands for the whole batch, whose rows advance in step; else
each request has its own. It is empty where the iteration ran without the observer, and the formulas are null there, but
for `output_throughput`. `requests`, `prompt_tokens` and `new_tokens` are those of all requests of an iteration.
"""

import polars as pl

_TOKENS = pl.col("token_seconds")
_LIST = pl.element().list
_GAPS = _LIST.len().cast(pl.Int64) - 1


def time_to_first_token() -> pl.Expr:
    """Seconds until the first new token: of the only list, or the median over the requests."""
    return _TOKENS.list.eval(_LIST.first()).list.median()


def slow_first_token() -> pl.Expr:
    """Seconds until the first new token of the 95th percentile of the requests, linearly interpolated.

    Null for one list, whose rows all have it at once.
    """
    slow = _TOKENS.list.eval(_LIST.first().quantile(0.95, interpolation="linear")).list.first()
    return pl.when(_TOKENS.list.len() > 1).then(slow)


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
    """Prompt tokens of all requests over the seconds until the last of them has its first new token.

    Null where more requests come than run at a time: the later ones wait while others decode, and that is no prefill.
    """
    seconds = _TOKENS.list.eval(_LIST.first()).list.max()
    at_once = pl.col("requests") <= pl.col("batch_size")
    return pl.when(at_once & (seconds > 0)).then(pl.col("prompt_tokens") / seconds)


def decode_throughput() -> pl.Expr:
    """New tokens a second of all requests: sum over them of (n - 1), over (last token - first token of any).

    The first token of each belongs to the prefill. Null where n is 1.
    """
    lists = _TOKENS.list.len()
    requests_per_list = pl.when(lists == 1).then(pl.col("requests")).otherwise(1)
    new_tokens = _TOKENS.list.eval(_GAPS).list.sum() * requests_per_list
    seconds = _TOKENS.list.eval(_LIST.last()).list.max() - _TOKENS.list.eval(_LIST.first()).list.min()
    return pl.when((new_tokens > 0) & (seconds > 0)).then(new_tokens / seconds)


def output_throughput() -> pl.Expr:
    """New tokens that the requests asked for over the end-to-end seconds, prefill and waiting included."""
    return pl.when(pl.col("end_to_end_seconds") > 0).then(pl.col("new_tokens") / pl.col("end_to_end_seconds"))
