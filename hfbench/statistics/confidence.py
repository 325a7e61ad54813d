"""What all intervals are made of: their form, how sure they are, and Student's t."""

from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtrit

CONFIDENCE = 0.95
# The standard error of 2,000 resamples is itself off by 1 / sqrt(2 · 2000) = 1.6%, which no decision hangs on.
RESAMPLES = 2000
FEWEST_ROUNDS = 2

Rounds = Sequence[Sequence[float]]


class Interval(NamedTuple):
    """An estimate between its confidence limits, in the unit of the values or, for a ratio, in none."""

    estimate: float
    low: float
    high: float


def student(confidence: float, degrees_of_freedom: float) -> float:
    """Return the quantile of Student's t that bounds this share of the distribution on both sides."""
    return float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))
