"""When to stop sampling: pure, interchangeable rules over the latencies so far."""

from collections.abc import Mapping, Sequence
from functools import cache
from math import comb, log
from statistics import median
from types import MappingProxyType
from typing import Protocol

from hfbench.foundation.records import Sampling

CONFIDENCE = 0.95
# Five values have no 95% interval of their median at all: their range encloses it in 1 - 2/2^5 = 93.75%.
FEWEST_VALUES = 6
# Of the 5% that all looks together may miss, what the first may: six values miss 2/2^6 = 3.125%, and most
# configurations on a quiet machine need no more than six.
FIRST_LOOK_SHARE = 0.65


class Rule(Protocol):
    """A stopping rule: pure, and knowing nothing but these three."""

    def __call__(self, latencies: Sequence[float], elapsed_seconds: float, sampling: Sampling, /) -> str | None:
        """Return why to stop, or None to go on.

        `latencies` are the end-to-end seconds of the instrumented iterations so far, `elapsed_seconds` the time since
        sampling began.
        """


def reason_to_stop(latencies: Sequence[float], elapsed_seconds: float, sampling: Sampling) -> str | None:
    """Return why to stop, or None to go on, by the rule that `sampling.stopping_rule` names."""
    return RULES[sampling.stopping_rule](latencies, elapsed_seconds, sampling)


def fixed(latencies: Sequence[float], _: float, sampling: Sampling) -> str | None:
    """Stop after `min_iterations`, whatever they show and however long they take."""
    return "min_iterations reached" if len(latencies) >= sampling.min_iterations else None


def precision(latencies: Sequence[float], elapsed_seconds: float, sampling: Sampling) -> str | None:
    """Stop where the median is known well enough, or at a limit; `min_iterations` holds against every limit."""
    count = len(latencies)
    if count < sampling.min_iterations:
        return None
    reached = relative_precision(latencies, sampling)
    if reached is not None and reached <= sampling.target_precision:
        return "target_precision reached"
    if count >= sampling.max_iterations:
        return "max_iterations reached"
    if elapsed_seconds >= sampling.max_seconds:
        return "max_seconds reached"
    return None


RULES: Mapping[str, Rule] = MappingProxyType({"fixed": fixed, "precision": precision})


def relative_precision(latencies: Sequence[float], sampling: Sampling) -> float | None:
    """Return the half-width of the median's interval over the median; None where there are too few values."""
    interval = sequential_interval(latencies, sampling.min_iterations, sampling.max_iterations)
    if interval is None:
        return None
    low, high = interval
    return (high - low) / 2 / median(latencies)


def sequential_interval(values: Sequence[float], first: int, last: int) -> tuple[float, float] | None:
    """Return an interval of the median that holds although it is looked at after each of `first` to `last` values.

    Looking again and again until an interval of 95% is narrow finds the moments at which it is narrow by luck: it then
    encloses the median in less than 95%. Here the intervals at all looks enclose it *together* with 95%, so the one at
    which a rule stops does, whatever the rule. It takes no distribution for granted: the interval lies between the k-th
    smallest and the k-th largest value. None for fewer than six values, or fewer than `first`.

    Source: C. Jennison and B. W. Turnbull, Repeated confidence intervals for group sequential clinical trials,
    Controlled Clinical Trials 5 (1984) 33.
    """
    count = len(values)
    first = max(first, FEWEST_VALUES)
    if count < first:
        return None
    rank = _ranks(first, max(first, last, count))[count]
    ordered = sorted(values)
    return ordered[rank - 1], ordered[-rank]


@cache
def _ranks(first: int, last: int) -> dict[int, int]:
    """Return the rank k of the interval for each number of values.

    How many of n values lie below the true median is a fair random walk, and the interval of rank k misses the median
    where fewer than k lie below it, or above. So the walk is followed exactly: `walk` holds the probability of each
    count without a miss so far, and at each look k is the largest with which the misses stay within what may be spent
    by then. That begins with `FIRST_LOOK_SHARE` and grows with the logarithm of the number of values (K. K. G. Lan and
    D. L. DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70 (1983) 659).
    """
    walk = [comb(first, below) / 2**first for below in range(first + 1)]
    missed = 0.0
    ranks: dict[int, int] = {}
    for count in range(first, last + 1):
        if count > first:
            walk = [(stay + step) / 2 for stay, step in zip([*walk, 0.0], [0.0, *walk], strict=True)]
        progress = log(count / first) / log(last / first) if last > first else 1.0
        spendable = (1 - CONFIDENCE) * (FIRST_LOOK_SHARE + (1 - FIRST_LOOK_SHARE) * progress)
        rank = 0
        while missed + 2 * walk[rank] <= spendable and rank < count // 2:
            missed += 2 * walk[rank]
            walk[rank] = walk[count - rank] = 0.0
            rank += 1
        ranks[count] = rank
    return ranks
