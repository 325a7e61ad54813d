"""Sentences about comparisons and ranges of numbers: each says no more than its interval bears."""

from collections.abc import Sequence

from hfbench.reporting.numbers import MISSING, significant
from hfbench.reporting.winners import Comparison
from hfbench.statistics.intervals import Interval


def interval_text(interval: Interval | None) -> str:
    """Return the limits of an interval, or a dash."""
    return MISSING if interval is None else f"{significant(interval.low)} … {significant(interval.high)}"


def times_as_fast(comparison: Comparison) -> str:
    """Return who is how many times as fast as whom, with the workload where it has a name."""
    workload = comparison.configuration["workload"]
    where = f" with {workload}" if workload else ""
    speed = significant(comparison.estimate)
    return f"{comparison.configuration['way']} is {speed}× as fast as {comparison.against['way']}{where}"


def percent(value: float) -> str:
    """Return a percentage with two significant digits."""
    return f"{float(f'{value:.2g}'):g}%"


def range_text(lowest: tuple[float, str], highest: tuple[float, str], unit: str) -> str:
    """Return two numbers, each with whose it is, such as `740 MiB (sdpa) to 781 MiB (eager)`."""
    (low, low_name), (high, high_name) = lowest, highest
    if low_name == high_name:
        return f"{significant(low)} {unit} ({low_name})"
    return f"{significant(low)} {unit} ({low_name}) to {significant(high)} {unit} ({high_name})"


def extremes(values: Sequence[float], names: Sequence[str]) -> tuple[tuple[float, str], tuple[float, str]]:
    """Return the lowest and the highest value, each with its name. Raises `ValueError` where there is none."""
    pairs = list(zip(values, names, strict=True))
    return min(pairs), max(pairs)
