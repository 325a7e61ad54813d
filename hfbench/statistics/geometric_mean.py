"""The geometric mean of many ratios, with errors that count what the pairs of one round share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from hfbench.statistics.ratios import Ratio, independent_ratio, paired_ratio

RoundMedians = Mapping[int, float]  # the median of each round, by its number


@dataclass(frozen=True)
class RatioOfRounds:
    """A ratio of candidate over baseline, and the medians of the rounds that it is of."""

    estimate: float
    baseline: RoundMedians
    candidate: RoundMedians


def geometric_mean(ratios: Sequence[RatioOfRounds], *, paired: bool) -> Ratio | None:
    """Return the geometric mean of the estimates, with its errors; None for no ratios or where a side has one round.

    The mean of many ratios is the geometric one: it does not depend on which side is the baseline. Source: P. J.
    Fleming and J. J. Wallace, How not to lie with statistics, CACM 29 (1986) 218.

    The errors of the pairs are not independent: round 3 of all of them met the same machine. So the unit is again the
    round. Each side is reduced to the geometric mean over pairs of each round, and the errors are those of the ratio of
    the two. Pairs that lack a round do not shift it: each is taken relative to its own baseline.
    """
    if not ratios:
        return None
    baseline, candidate = ([_over_pairs(ratios, side)] for side in ("baseline", "candidate"))
    rounds = [[[value] for _, value in sorted(side[0].items())] for side in (baseline, candidate)]
    is_paired = paired and baseline[0].keys() == candidate[0].keys()
    ratio = (paired_ratio if is_paired else independent_ratio)(*rounds)
    if ratio is None:
        return None
    return Ratio(exp(float(np.mean([log(each.estimate) for each in ratios]))), ratio.below, ratio.above)


def _over_pairs(ratios: Sequence[RatioOfRounds], side: str) -> dict[int, float]:
    """Return the geometric mean of each round over the pairs that have it, each relative to its baseline."""
    logarithms: dict[int, list[float]] = {}
    for ratio in ratios:
        level = float(np.median(list(ratio.baseline.values())))
        for number, value in getattr(ratio, side).items():
            logarithms.setdefault(number, []).append(log(value / level))
    return {number: exp(float(np.mean(values))) for number, values in logarithms.items()}
