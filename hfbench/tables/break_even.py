"""After how many new tokens each compiled configuration has paid for its compilation, against its uncompiled twin.

The twin has the same axes, but for no compilation and the cache that this runs with by itself: it is what a person
would run instead.
"""

from collections.abc import Mapping
from statistics import median
from typing import Any

import polars as pl

from hfbench.foundation.configuration import UNIFORM
from hfbench.statistics.break_even import BreakEven, break_even
from hfbench.statistics.confidence import FEWEST_ROUNDS
from hfbench.statistics.intervals import paired_ratio_interval
from hfbench.tables.columns import CONFIGURATION_AXES

BREAK_EVEN_TYPES: dict[str, type[pl.DataType]] = {
    "break_even": pl.String,
    "break_even_new_tokens": pl.Float64,
    "break_even_new_tokens_low": pl.Float64,
    "break_even_new_tokens_high": pl.Float64,
}
_OFF, _AUTO = "off", "auto"
_Axes = tuple[Any, ...]


def break_even_table(ok_points: pl.DataFrame, ok_samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row of `BREAK_EVEN_TYPES` for each compiled configuration whose twin was measured too.

    `ok_points` are the rows of the table of points that are ok, `ok_samples` the sample iterations of these. The times
    are end to end, with the token observer. Rounds are paired, since twins run next to each other in each; the overhead
    is the median over them. Requests of unequal lengths are left out: an iteration's tokens are in no table.
    """
    rounds = _rounds(ok_points, ok_samples)
    rows = []
    for key, compiled in rounds.items():
        axes = dict(zip(CONFIGURATION_AXES, key, strict=True))
        twin = rounds.get(tuple({**axes, "compile_mode": _OFF, "cache_implementation": _AUTO}.values()))
        if axes["compile_mode"] != _OFF and axes["request_lengths"] == UNIFORM and twin:
            result = _break_even(compiled, twin, axes["batch_size"] * axes["max_new_tokens"])
            rows.append({**axes, **dict(zip(BREAK_EVEN_TYPES, vars(result).values(), strict=True))})
    types = {axis: ok_points.schema[axis] for axis in CONFIGURATION_AXES}
    return pl.DataFrame(rows, schema={**types, **BREAK_EVEN_TYPES})


def _rounds(ok_points: pl.DataFrame, ok_samples: pl.DataFrame) -> dict[_Axes, dict[int, tuple[float, list[float]]]]:
    """Return, for each configuration and round, the seconds of the first call and of each sample."""
    values = (
        ok_samples.filter("observed")
        .group_by(*CONFIGURATION_AXES, "round", maintain_order=True)
        .agg(seconds="end_to_end_seconds")
        .join(
            ok_points.drop_nulls("first_call_seconds").select(*CONFIGURATION_AXES, "round", "first_call_seconds"),
            on=[*CONFIGURATION_AXES, "round"],
            maintain_order="left",
        )
    )
    found: dict[_Axes, dict[int, tuple[float, list[float]]]] = {}
    for *axes, number, seconds, first_call in values.select(
        *CONFIGURATION_AXES, "round", "seconds", "first_call_seconds"
    ).iter_rows():
        found.setdefault(tuple(axes), {})[number] = (first_call, seconds)
    return found


def _break_even(
    compiled: Mapping[int, tuple[float, list[float]]], twin: Mapping[int, tuple[float, list[float]]], tokens: int
) -> BreakEven:
    shared = sorted(compiled.keys() & twin.keys())
    if len(shared) < FEWEST_ROUNDS:
        return break_even(0.0, 1.0, None, tokens)
    overhead = median(_overhead(*compiled[number]) - _overhead(*twin[number]) for number in shared)
    baseline, candidate = ([side[number][1] for number in shared] for side in (twin, compiled))
    return break_even(overhead, median(map(median, baseline)), paired_ratio_interval(baseline, candidate), tokens)


def _overhead(first_call_seconds: float, seconds: list[float]) -> float:
    return first_call_seconds - median(seconds)
