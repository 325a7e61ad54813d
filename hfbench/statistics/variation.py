"""Coefficients of variation: how much rounds differ from each other, and iterations within one round."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from hfbench.statistics.bootstrap import round_medians


def between_rounds(rounds: Sequence[Sequence[float]]) -> float | None:
    """Return the standard deviation of the rounds' medians (n - 1 in the divisor) over their mean; a share of 1.

    None for one round or where the mean is zero. Raises `ValueError` where a round is empty.
    """
    if len(rounds) < 2:
        return None
    medians = round_medians(rounds)
    mean = float(np.mean(medians))
    return float(np.std(medians, ddof=1)) / abs(mean) if mean else None


def within_rounds(rounds: Sequence[Sequence[float]]) -> float | None:
    """Return the pooled coefficient of variation of the iterations of one round; a share of 1.

    That is the square root of the mean of the rounds' squared coefficients (standard deviation, n - 1 in the divisor,
    over mean), each weighted by its n - 1. None where no round has two values and a mean other than zero.

    One slow iteration in twenty can double it, and it should: this says how restless the machine was. What is not to
    notice such an iteration is 1.4826 · MAD / median (P. J. Rousseeuw and C. Croux, JASA 88 (1993) 1273); the interval
    of the median (`intervals`) does not use either.
    """
    usable = [(values, mean) for values in rounds if len(values) > 1 and (mean := fmean(values))]
    if not usable:
        return None
    # A round's squared coefficient times its n - 1: of so few values, faster than numpy.
    squares = sum(sum((value / mean - 1) ** 2 for value in values) for values, mean in usable)
    return float((squares / sum(len(values) - 1 for values, _ in usable)) ** 0.5)
