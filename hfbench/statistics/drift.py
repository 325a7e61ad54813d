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

    Whether: `trend_p_values`. How much: the median of the slopes between all pairs, with its interval (P. K. Sen, JASA
    63 (1968) 1379), times the steps from first to last. Neither is misled by an outlier. Both take the noise of
    consecutive iterations as independent; where it is not, the process wandered, which is drift to whoever reads the
    number.
    """
    (p_value,) = trend_p_values([values])
    if p_value is None:
        return None
    series, count = np.asarray(values, dtype=np.float64), len(values)
    if np.all(series == series[0]):
        return Drift(0.0, 0.0, 0.0, p_value)
    slopes = theilslopes(series, alpha=1 - SIGNIFICANCE)
    scale = (count - 1) / abs(float(np.median(series)))
    return Drift(
        relative_change=float(slopes.slope) * scale,
        low=float(slopes.low_slope) * scale,
        high=float(slopes.high_slope) * scale,
        p_value=p_value,
    )


def trend_p_values(series: Sequence[Sequence[float]]) -> list[float | None]:
    """Return, for each series in the order measured, the p-value of there being no trend; None for fewer than six.

    The test of Mann (Econometrica 13 (1945) 245) and Kendall, which is Kendall's tau between value and position, exact
    for so few values, and takes no distribution for granted. Series of one length are tested together: half the time.
    """
    by_length: dict[int, list[int]] = {}
    for index, values in enumerate(series):
        by_length.setdefault(len(values), []).append(index)
    p_values: list[float | None] = [None] * len(series)
    for length, members in by_length.items():
        if length < FEWEST_VALUES:
            continue
        rows = np.array([series[index] for index in members], dtype=np.float64)
        found = kendalltau(np.broadcast_to(np.arange(length), rows.shape), rows, axis=1).pvalue
        # Where all values are equal tau is not defined, and nothing speaks for a trend.
        for index, p_value in zip(members, np.nan_to_num(found, nan=1.0), strict=True):
            p_values[index] = float(p_value)
    return p_values
