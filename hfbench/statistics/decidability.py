"""How many more rounds would settle a comparison that is too noisy to settle."""

from math import log

from hfbench.statistics.ratios import Ratio, margin

# Nobody runs more, and the standard error of few rounds is no guide to so many.
MOST_MORE_ROUNDS = 200


def rounds_to_decide(
    ratio: Ratio, tolerance: float, confidence: float, significance: float, most: int = MOST_MORE_ROUNDS
) -> int | None:
    """Return how many more rounds on each side would decide, if ratio and noise stayed as they are; None for too many.

    Either of two things decides: the interval of `confidence` lies within ±`tolerance` (of the logarithm), or that of
    1 - `significance` excludes 1. Standard errors shrink with the square root of the rounds, and Student's t has more
    degrees of freedom; both come closer with every round, so that the first number is found by halving. Source: the
    sample size of an interval of given width, W. G. Cochran, Sampling Techniques, 3rd ed. (1977), section 4.
    """
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _decided(ratio, tolerance, confidence, significance, middle) else (middle, high)
    return high if high <= most else None


def _decided(ratio: Ratio, tolerance: float, confidence: float, significance: float, more_rounds: int) -> bool:
    logarithm = log(ratio.estimate)
    lowest = logarithm - margin(ratio.below, confidence, more_rounds)
    highest = logarithm + margin(ratio.above, confidence, more_rounds)
    if max(-lowest, highest) <= tolerance:
        return True
    towards_one = ratio.below if logarithm > 0 else ratio.above
    return margin(towards_one, 1 - significance, more_rounds) < abs(logarithm)
