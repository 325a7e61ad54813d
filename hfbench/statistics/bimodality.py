"""Bimodality: whether the iterations of a configuration fall into two groups, as with two clock or cache states."""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from hfbench.statistics.bootstrap import Floats

FEWEST_VALUES = 20
# Two normal groups of equal size, four standard deviations apart, have 0.80 of their variance between them. One normal
# distribution, cut in two, has 2/π = 0.64 between the halves, and a uniform one 0.75; few values look more split than
# they are, which the second constant makes up for, over the degrees of freedom within rounds. Of normal and log-normal
# series (σ up to 0.3) at most 1% then are above (tests/statistics/test_bimodality.py).
SPLIT_SHARE = 0.80
_SMALL_SAMPLE = 2.0
SMALLEST_GROUP = 0.10  # of the values: less is a matter of outliers
# Of the values, left out at either end: one outlier would make any two groups look like one, or two of one round.
_TRIMMED = 0.05
_TRIMMED_OF_ROUND = 0.10


class Modes(NamedTuple):
    """Two groups of values: the mean of each, in the unit of the values, and the share of values in the upper one."""

    lower: float
    upper: float
    upper_share: float


class _Split(NamedTuple):
    modes: Modes
    boundary: float
    share_of_variance: float


def two_modes(rounds: Sequence[Sequence[float]]) -> Modes | None:
    """Return the two groups that the iterations fall into; None where they do not, or are fewer than 20.

    `rounds` holds the values of each round. Rounds are first moved to one centre, so that only what happens within
    processes counts; processes that differ as a whole show in `variation.between_rounds`. A round's centre depends on
    how many of its values lie in which group; so the groups found are used to centre each round again, once.

    The values are cut in two where that leaves the least variance within the parts, and are called bimodal if the share
    of variance between them is above a threshold. Source: L. Engelman and J. A. Hartigan, Percentage points of a test
    for clusters, JASA 64 (1969) 1647. A coefficient of skewness and kurtosis, the usual short cut, takes one outlier or
    a long tail for a second mode.
    """
    series = [np.asarray(values, dtype=np.float64) for values in rounds if len(values)]
    count = sum(len(values) for values in series)
    if count < FEWEST_VALUES or count <= len(series):
        return None
    centres = [_middle(values) for values in series]
    level = float(np.median(centres))
    for _ in range(2):
        centred = [values - centre + level for values, centre in zip(series, centres, strict=True)]
        split = _best_split(np.sort(np.concatenate(centred)))
        modes = split.modes
        groups = [np.where(values > split.boundary, modes.upper, modes.lower) for values in centred]
        centres = [_middle(values - group) + level for values, group in zip(series, groups, strict=True)]
    threshold = SPLIT_SHARE + _SMALL_SAMPLE / (count - len(series))
    return modes if split.share_of_variance > threshold else None


def _middle(values: Floats) -> float:
    """Return a trimmed mean; a median would jump from group to group."""
    return float(_trimmed(np.sort(values), _TRIMMED_OF_ROUND).mean())


def _trimmed(ordered: Floats, share: float) -> Floats:
    cut = ceil(share * len(ordered))
    return ordered[cut:-cut] if len(ordered) > 2 * cut else ordered


def _best_split(ordered: Floats) -> _Split:
    """Cut ascending values in two, each with a tenth of them at least, where most variance is between the parts."""
    inner = _trimmed(ordered, _TRIMMED)
    count = len(inner)
    deviations = inner - inner.mean()
    lower = np.arange(1, count)
    between = np.cumsum(deviations)[:-1] ** 2 * (1 / lower + 1 / (count - lower))
    smallest = ceil(SMALLEST_GROUP * count)
    at = smallest + int(np.argmax(between[smallest - 1 : count - smallest]))
    boundary = float(inner[at - 1] + inner[at]) / 2
    total = float(np.sum(deviations**2))
    return _Split(
        modes=Modes(float(inner[:at].mean()), float(inner[at:].mean()), float(np.mean(ordered > boundary))),
        boundary=boundary,
        share_of_variance=float(between[at - 1]) / total if total else 0.0,
    )
