"""Drift within a process: whether its iterations get slower or faster from the first to the last."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, theilslopes

# Of stationary processes one in a hundred is flagged: a sweep has hundreds, and at 5% each table would cry wolf.
SIGNIFICANCE = 0.01
# Of five values even those in perfect order have p = 2/5! = 0.017.
FEWEST_VALUES = 6


class Drift(NamedTuple):
    """The change from the first to the last iteration as a share of the median: 0.05 is 5% slower, if of latencies.

    `low` and `high` enclose `relative_change` with 99% confidence; `p_value` is that of no trend at all.
    """

    relative_change: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether a stationary process would show such a trend less than once in a hundred times."""
        return self.p_value < SIGNIFICANCE


def drift(values: Sequence[float]) -> Drift | None:
    """Return the drift of values that are in the order they were measured; None for fewer than six.

    Whether: the test of Mann (Econometrica 13 (1945) 245) and Kendall, which is Kendall's tau between value and
    position, exact for so few values, and takes no distribution for granted. How much: the median of the slopes between
    all pairs, with its interval (P. K. Sen, JASA 63 (1968) 1379), times the steps from first to last. Neither is misled
    by an outlier. Both take the noise of consecutive iterations as independent; where it is not, the process wandered,
    which is drift to whoever reads the number.
    """
    count = len(values)
    if count < FEWEST_VALUES:
        return None
    series = np.asarray(values, dtype=np.float64)
    if np.all(series == series[0]):
        return Drift(0.0, 0.0, 0.0, 1.0)
    p_value = float(kendalltau(np.arange(count), series).pvalue)
    slopes = theilslopes(series, alpha=1 - SIGNIFICANCE)
    scale = (count - 1) / abs(float(np.median(series)))
    return Drift(
        relative_change=float(slopes.slope) * scale,
        low=float(slopes.low_slope) * scale,
        high=float(slopes.high_slope) * scale,
        p_value=p_value,
    )
