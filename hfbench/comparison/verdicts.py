"""The verdict on one ratio. Pure decisions: what is asked for is given, and nothing is read, computed or printed."""

from dataclasses import dataclass
from math import log

from hfbench.statistics.confidence import CONFIDENCE, FEWEST_ROUNDS
from hfbench.statistics.decidability import MOST_MORE_ROUNDS, rounds_to_decide
from hfbench.statistics.multiplicity import FALSE_DISCOVERY_RATE
from hfbench.statistics.ratios import Ratio

FASTER, SLOWER, SAME, UNDECIDED, INCOMPARABLE = "faster", "slower", "same", "undecided", "incomparable"
VERDICTS = (FASTER, SLOWER, SAME, UNDECIDED, INCOMPARABLE)


@dataclass(frozen=True)
class Verdict:
    """One of five words, why in a sentence where that is not in the numbers, and for `undecided` how many more rounds
    on each side would decide: None where that is more than `MOST_MORE_ROUNDS`.

    `faster` and `slower` mean better and worse, also of memory and energy.
    """

    word: str
    reason: str | None = None
    more_rounds: int | None = None


def tolerance(threshold: float) -> float:
    """Return the largest logarithm of a ratio that counts as no change.

    A threshold of 2% means ratios from 1 / 1.02 to 1.02: as much in either direction, also when the sides are swapped.
    """
    return log(1 + threshold)


def decide(
    ratio: Ratio, p_value: float, adjusted_p_value: float, threshold: float, *, higher_is_better: bool
) -> Verdict:
    """Return the verdict on a ratio of candidate over baseline that is known with its errors.

    The p-value is that of the ratio, or of all that the verdict is to bear; it comes adjusted, too, for everything that
    is tested together. `same` where the 95% interval lies within the threshold, and so also where it excludes 1: a
    change too small to matter. Else `faster` or `slower` where the adjusted p-value is at most 5%. Else `undecided`.
    """
    low, high = (log(limit) for limit in ratio.interval(CONFIDENCE)[1:])
    if max(-low, high) <= tolerance(threshold):
        return Verdict(SAME)
    if adjusted_p_value <= FALSE_DISCOVERY_RATE:
        return Verdict(FASTER if (ratio.estimate > 1) == higher_is_better else SLOWER)
    # The adjustment asks for a smaller p-value, here by as much as it does now.
    significance = FALSE_DISCOVERY_RATE * p_value / adjusted_p_value
    more = rounds_to_decide(ratio, tolerance(threshold), CONFIDENCE, significance)
    return Verdict(UNDECIDED, _rounds_sentence(more), more)


def too_few_rounds(baseline_rounds: int, candidate_rounds: int) -> Verdict:
    """Return the verdict where a side has one round, which does not tell how much processes differ."""
    missing = max(FEWEST_ROUNDS - min(baseline_rounds, candidate_rounds), 1)
    sides = {"baseline": baseline_rounds, "candidate": candidate_rounds}
    short = [name for name, rounds in sides.items() if rounds < FEWEST_ROUNDS]
    whose = "each side has" if len(short) == 2 else f"the {short[0]} has"
    return Verdict(
        UNDECIDED,
        f"{whose} one round, which does not tell noise from change: at least {missing} more is needed",
        missing,
    )


def _rounds_sentence(more: int | None) -> str:
    if more is None:
        return f"more than {MOST_MORE_ROUNDS} more rounds on each side would decide"
    return f"about {more} more round{'s' * (more > 1)} on each side would decide"
