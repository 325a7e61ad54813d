"""When to stop sampling: pure rules over the latencies so far."""

from collections.abc import Sequence
from math import comb
from statistics import median

from hfbench.records import Sampling

CONFIDENCE = 0.95


def reason_to_stop(latencies: Sequence[float], elapsed_seconds: float, sampling: Sampling) -> str | None:
    """Return why to stop, or None to go on.

    `latencies` are the end-to-end seconds of the instrumented iterations so far, `elapsed_seconds` the time since
    sampling began.
    """
    count = len(latencies)
    if count < sampling.min_iterations:
        return None
    if sampling.stopping_rule == "fixed":
        return "min_iterations reached"
    precision = relative_precision(latencies)
    if precision is not None and precision <= sampling.target_precision:
        return "target_precision reached"
    if count >= sampling.max_iterations:
        return "max_iterations reached"
    if elapsed_seconds >= sampling.max_seconds:
        return "max_seconds reached"
    return None


def relative_precision(values: Sequence[float]) -> float | None:
    """Return the half-width of the median's 95% interval over the median; None where there are too few values."""
    interval = median_interval(values)
    if interval is None:
        return None
    low, high = interval
    return (high - low) / 2 / median(values)


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return a distribution-free confidence interval of the median, from order statistics.

    The k-th smallest and k-th largest value enclose the median with probability 1 - 2 P(B < k), where B counts values
    below it and is binomial(n, 1/2); k is the largest that keeps `confidence`. Fewer than 6 values have no 95%
    interval: None. Source: W. J. Conover, Practical Nonparametric Statistics, 3rd ed. (1999), section 3.2.
    """
    ordered = sorted(values)
    count = len(ordered)
    tail, rank = 0.0, 0
    for successes in range(count // 2):
        tail += comb(count, successes) / 2**count
        if 1 - 2 * tail < confidence:
            break
        rank = successes + 1
    return (ordered[rank - 1], ordered[-rank]) if rank else None
