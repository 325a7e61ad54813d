"""How values spread: between rounds and within them, by drift, by outliers, and into two modes.

Modes are two groups into which iterations fall, as with two clock or cache states.
"""

from collections.abc import Mapping, Sequence
from math import ceil, exp, log, sqrt
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit
from scipy.stats import kendalltau, theilslopes

from hfbench.statistics.bootstrap import Floats, Rounds, round_medians

# Of stationary processes one in a hundred is flagged: a sweep has hundreds, and at 5% each table would cry wolf.
SIGNIFICANCE = 0.01
# Of five values even those in perfect order have p = 2/5! = 0.017.
FEWEST_FOR_TREND = 6


def drift(values: Sequence[float]) -> float:
    """Return the change from the first to the last value as a share of the median: 0.05 is 5% slower, if of latencies.

    That is the median of the slopes between all pairs (P. K. Sen, JASA 63 (1968) 1379) times the steps from first to
    last, of two values at least, in the order measured. Whether they drift at all: `trend_p_values`. Neither is misled
    by an outlier. Both take the noise of consecutive iterations as independent; where it is not, the process wandered,
    which is drift to whoever reads the number.
    """
    return (len(values) - 1) / abs(median(values)) * float(theilslopes(values).slope)


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
        if length < FEWEST_FOR_TREND:
            continue
        rows = np.array([series[index] for index in members], dtype=np.float64)
        found = kendalltau(np.broadcast_to(np.arange(length), rows.shape), rows, axis=1).pvalue
        # Where all values are equal tau is not defined, and nothing speaks for a trend.
        for index, p_value in zip(members, np.nan_to_num(found, nan=1.0), strict=True):
            p_values[index] = float(p_value)
    return p_values


# B. Iglewicz and D. C. Hoaglin, How to Detect and Handle Outliers (1993): the modified z-score and this threshold.
THRESHOLD = 3.5
_MAD_PER_SIGMA = 0.6745  # the median of |z|, z standard normal
# For more than half of the values equal, where the MAD is zero: the mean of |z| instead, sqrt(2/π) = 1 / 1.2533.
_MEAN_DEVIATION_PER_SIGMA = 0.7979


def outliers(values: Sequence[float]) -> list[bool]:
    """Return, for each value, whether its modified z-score |x - median| · 0.6745 / MAD exceeds 3.5.

    Where more than half of the values are equal the MAD is zero and the mean absolute deviation stands in for it; where
    all are equal, none is an outlier. Median and MAD do not notice up to half of the values, so that one outlier hides
    neither itself nor another, as it can with mean and standard deviation.
    """
    if not len(values):
        return []
    middle = median(values)
    distances = [abs(value - middle) for value in values]
    spread = median(distances) / _MAD_PER_SIGMA or fmean(distances) / _MEAN_DEVIATION_PER_SIGMA
    return [distance > THRESHOLD * spread for distance in distances]


def between_rounds(rounds: Rounds) -> float | None:
    """Return the standard deviation of the rounds' medians (n - 1 in the divisor) over their mean; a share of 1.

    None for one round or where the mean is zero. Raises `ValueError` where a round is empty.
    """
    if len(rounds) < 2:
        return None
    medians = round_medians(rounds)
    mean = float(np.mean(medians))
    return float(np.std(medians, ddof=1)) / abs(mean) if mean else None


def within_rounds(rounds: Rounds) -> float | None:
    """Return the pooled coefficient of variation of the iterations of one round; a share of 1.

    That is the square root of the mean of the rounds' squared coefficients (standard deviation, n - 1 in the divisor,
    over mean), each weighted by its n - 1. None where no round has two values and a mean other than zero.

    One slow iteration in twenty can double it, and it should: this says how restless the machine was. What is not to
    notice such an iteration is 1.4826 · MAD / median (P. J. Rousseeuw and C. Croux, JASA 88 (1993) 1273); the interval
    of the median (`bootstrap`) does not use either.
    """
    usable = [(values, mean) for values in rounds if len(values) > 1 and (mean := fmean(values))]
    if not usable:
        return None
    # A round's squared coefficient times its n - 1: of so few values, faster than numpy.
    squares = sum(sum((value / mean - 1) ** 2 for value in values) for values, mean in usable)
    return float((squares / sum(len(values) - 1 for values, _ in usable)) ** 0.5)


FEWEST_FOR_MODES = 20
# Two normal groups of equal size, four standard deviations apart, have 0.80 of their variance between them. One normal
# distribution, cut in two, has 2/π = 0.64 between the halves, and a uniform one 0.75; few values look more split than
# they are, which the second constant makes up for, over the degrees of freedom within rounds. Of normal and log-normal
# series (σ up to 0.3) at most 1% then are above (tests/statistics/test_spread.py).
SPLIT_SHARE = 0.80
_SMALL_SAMPLE = 2.0
SMALLEST_GROUP = 0.10  # of the values: less is a matter of outliers
# Of the values, left out at either end: one outlier would make any two groups look like one, or two of one round.
_TRIMMED = 0.05
_TRIMMED_OF_ROUND = 0.10


class Modes(NamedTuple):
    """Two groups of values: the mean of each, in the unit of the values."""

    lower: float
    upper: float


def two_modes(rounds: Rounds) -> Modes | None:
    """Return the two groups that the iterations fall into; None where they do not, or are fewer than 20.

    `rounds` holds the values of each round. Rounds are first moved to one centre, so that only what happens within
    processes counts; processes that differ as a whole show in `between_rounds`. A round's centre depends on how many of
    its values lie in which group; so the groups found are used to centre each round again, once.

    The values are cut in two where that leaves the least variance within the parts, and are called bimodal if the share
    of variance between them is above a threshold. Source: L. Engelman and J. A. Hartigan, Percentage points of a test
    for clusters, JASA 64 (1969) 1647. A coefficient of skewness and kurtosis, the usual short cut, takes one outlier or
    a long tail for a second mode.
    """
    series = [np.asarray(values, dtype=np.float64) for values in rounds if len(values)]
    count = sum(len(values) for values in series)
    if count < FEWEST_FOR_MODES or count <= len(series):
        return None
    centres = [_middle(values) for values in series]
    level = float(np.median(centres))
    for _ in range(2):
        centred = [values - centre + level for values, centre in zip(series, centres, strict=True)]
        modes, boundary, share_between = _best_split(np.sort(np.concatenate(centred)))
        groups = [np.where(values > boundary, modes.upper, modes.lower) for values in centred]
        centres = [_middle(values - group) + level for values, group in zip(series, groups, strict=True)]
    threshold = SPLIT_SHARE + _SMALL_SAMPLE / (count - len(series))
    return modes if share_between > threshold else None


def _middle(values: Floats) -> float:
    """Return a trimmed mean; a median would jump from group to group."""
    return float(_trimmed(np.sort(values), _TRIMMED_OF_ROUND).mean())


def _trimmed(ordered: Floats, share: float) -> Floats:
    cut = ceil(share * len(ordered))
    return ordered[cut:-cut] if len(ordered) > 2 * cut else ordered


def _best_split(ordered: Floats) -> tuple[Modes, float, float]:
    """Cut ascending values in two, each with a tenth of them at least, where most variance is between the parts.

    Return the parts, the boundary between them, and the share of the variance.
    """
    inner = _trimmed(ordered, _TRIMMED)
    count = len(inner)
    deviations = inner - inner.mean()
    lower = np.arange(1, count)
    between = np.cumsum(deviations)[:-1] ** 2 * (1 / lower + 1 / (count - lower))
    smallest = ceil(SMALLEST_GROUP * count)
    at = smallest + int(np.argmax(between[smallest - 1 : count - smallest]))
    total = float(np.sum(deviations**2))
    modes = Modes(float(inner[:at].mean()), float(inner[at:].mean()))
    return modes, float(inner[at - 1] + inner[at]) / 2, float(between[at - 1]) / total if total else 0.0


class NodeEffect(NamedTuple):
    """How many times as long as the other nodes one takes, with an interval, over all that both have measured."""

    node: str
    ratio: float
    low: float
    high: float
    is_out_of_line: bool


def node_effects(
    seconds: Mapping[str, Mapping[int, float]], nodes: Mapping[int, str], confidence: float = 0.95
) -> tuple[float, list[NodeEffect]]:
    """Return the spread between nodes, as a share, and each node held against the others.

    `seconds` are the medians of each configuration by round, `nodes` who measured the round. A round's value is the
    mean over its configurations of log(median / geometric mean over rounds): which configuration it is no longer
    matters, and a node is as fast as its rounds are. The spread is the standard deviation between nodes in a one-way
    random-effects model, by the method of moments, 0 where nodes differ no more than rounds of one do (S. R. Searle,
    G. Casella, C. E. McCulloch, Variance Components (1992), 3.5). A node is out of line where its interval, which errs
    once in 20 times for all of them together (Bonferroni), leaves 1 out; the farthest is told first, and the others are
    then held against each other without it (B. Rosner, Technometrics 25 (1983) 165). It takes two rounds of some node;
    without, there are no effects.
    """
    values = {number: _round_value(number, seconds) for number in nodes}
    groups: dict[str, list[float]] = {}
    for number, node in nodes.items():
        if (value := values[number]) is not None:
            groups.setdefault(node, []).append(value)
    count, free = sum(map(len, groups.values())), sum(len(each) - 1 for each in groups.values())
    if len(groups) < 2 or free < 1:
        return 0.0, []
    means = {node: fmean(each) for node, each in groups.items()}
    within = sum((value - means[node]) ** 2 for node, each in groups.items() for value in each) / free
    middle = fmean(value for each in groups.values() for value in each)
    between = sum(len(each) * (means[node] - middle) ** 2 for node, each in groups.items()) / (len(groups) - 1)
    usual = (count - sum(len(each) ** 2 for each in groups.values()) / count) / (len(groups) - 1)
    error = sqrt(within) * float(stdtrit(free, 1 - (1 - confidence) / len(groups) / 2))
    return sqrt(max(0.0, (between - within) / usual)), _out_of_line(groups, error)


def _out_of_line(groups: Mapping[str, Sequence[float]], error: float) -> list[NodeEffect]:
    """Hold each node against the others, farthest first: one that is out of line is no measure for the next."""
    rest, found = dict(groups), list[NodeEffect]()
    while len(rest) > 1:
        effects = [_effect(node, rest, error) for node in rest]
        farthest = max(effects, key=lambda each: (abs(log(each.ratio)) / len(groups[each.node]) ** -0.5, each.ratio))
        if not farthest.is_out_of_line:
            return [*found, *effects]
        found.append(farthest)
        del rest[farthest.node]
    return found


def _effect(node: str, groups: Mapping[str, Sequence[float]], error: float) -> NodeEffect:
    others = [value for other, values in groups.items() if other != node for value in values]
    effect = fmean(groups[node]) - fmean(others)
    reach = error * sqrt(1 / len(groups[node]) + 1 / len(others))
    low, high = exp(effect - reach), exp(effect + reach)
    return NodeEffect(node, exp(effect), low, high, not low <= 1 <= high)


def _round_value(number: int, seconds: Mapping[str, Mapping[int, float]]) -> float | None:
    """Return by how much a round is slower than others, as a logarithm; None where it has nothing to go by."""
    shares = [
        log(rounds[number]) - fmean(map(log, rounds.values()))
        for rounds in seconds.values()
        if number in rounds and len(rounds) > 1
    ]
    return fmean(shares) if shares else None
