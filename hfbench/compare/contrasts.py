"""The ratio of one metric between two points, and by which method: computed here, judged elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import log

import numpy as np

from hfbench.compare.pairs import ComparedMetric, Rounds
from hfbench.statistics.bootstrap import CONFIDENCE, FEWEST_ROUNDS
from hfbench.statistics.decidability import MOST_MORE_ROUNDS, rounds_to_decide
from hfbench.statistics.multiplicity import FALSE_DISCOVERY_RATE, adjusted_p_values
from hfbench.statistics.ratios import Ratio, independent_ratio, paired_ratio

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


PAIRED, INDEPENDENT, IDENTICAL = "paired", "independent", "identical"


@dataclass(frozen=True)
class Contrast:
    """One metric of a pair: the median of the rounds' medians on each side, and their ratio.

    `method` is `paired` where the rounds interleave, `independent` where they do not, `identical` where both sides hold
    the same records, which DVC did not measure again because nothing that they depend on had changed. `ratio` is None
    where a side has under two rounds; `obstacle` says what else stands against a ratio.
    """

    baseline: float | None
    candidate: float | None
    baseline_rounds: int
    candidate_rounds: int
    method: str
    ratio: Ratio | None
    obstacle: str | None = None


def contrast(
    baseline: Rounds,
    candidate: Rounds,
    baseline_started: Mapping[int, datetime],
    candidate_started: Mapping[int, datetime],
    obstacle: str | None = None,
) -> Contrast:
    """Return the contrast of the values of two points; a side without values is an obstacle too."""
    method = _method(baseline, candidate, baseline_started, candidate_started)
    ratio, obstacle = None, obstacle or _obstacle(baseline, candidate)
    if obstacle is None and method == IDENTICAL:
        ratio = Ratio(1.0, (), ())
    elif obstacle is None:
        compute = independent_ratio if method == INDEPENDENT else paired_ratio
        ratio = compute(_ordered(baseline), _ordered(candidate))
    return Contrast(
        baseline=estimate(baseline) if baseline else None,
        candidate=estimate(candidate) if candidate else None,
        baseline_rounds=len(baseline),
        candidate_rounds=len(candidate),
        method=method,
        ratio=ratio,
        obstacle=obstacle,
    )


def interleaved(baseline: Mapping[int, datetime], candidate: Mapping[int, datetime]) -> bool:
    """Whether each round of both sides started before the next round of either: same numbers, at least two.

    Then what the machine did meanwhile is in both, and leaves their ratio. Next is the next in time: a round that both
    sides measured again later, side by side, is as good as in its old place.
    """
    if len(baseline) < 2 or set(baseline) != set(candidate):
        return False
    rounds = sorted(sorted((baseline[number], candidate[number])) for number in baseline)
    return all(last < first for (_, last), (first, _) in pairwise(rounds))


def _method(baseline: Rounds, candidate: Rounds, old: Mapping[int, datetime], new: Mapping[int, datetime]) -> str:
    if set(baseline) != set(candidate) or not set(baseline) <= set(old) or not set(candidate) <= set(new):
        return INDEPENDENT
    shared = [old[number] == new[number] and np.array_equal(baseline[number], candidate[number]) for number in baseline]
    if shared and all(shared):
        return IDENTICAL
    started = ({number: times[number] for number in baseline} for times in (old, new))
    # Rounds that are the same record on both sides would stand for as many rounds without any difference.
    return PAIRED if interleaved(*started) and not any(shared) else INDEPENDENT


def _obstacle(baseline: Rounds, candidate: Rounds) -> str | None:
    sides = {"baseline": baseline, "candidate": candidate}
    missing = [name for name, rounds in sides.items() if not rounds]
    if missing:
        return f"the {missing[0]} has no value"
    if any(not np.all(values > 0) for rounds in sides.values() for values in rounds.values()):
        return "a value is not positive, so that there is no ratio"
    return None


def _ordered(rounds: Rounds) -> list[list[float]]:
    return [rounds[number] for number in sorted(rounds)]  # type: ignore[misc]  # arrays are sequences of floats


def estimate(rounds: Rounds) -> float:
    """Return the median of the rounds' medians."""
    return float(np.median([np.median(values) for values in rounds.values()]))


@dataclass(frozen=True)
class Judged:
    """A contrast with its verdict; the adjusted p-value is None where nothing was tested."""

    contrast: Contrast
    verdict: Verdict
    adjusted_p_value: float | None


_IDENTICAL = "the same records: nothing that they depend on changed, and DVC measured nothing again"


def judge(contrasts: Sequence[tuple[ComparedMetric, Contrast]], threshold: float) -> list[Judged]:
    """Return each contrast with its verdict, in their order.

    The family over which the false discovery rate is controlled is everything that is tested: all pairs with all
    metrics that were asked for, since the exit status rests on any of them.
    """
    tested = [index for index, (_, contrast) in enumerate(contrasts) if _is_tested(contrast)]
    p_values = [contrasts[index][1].ratio.p_value for index in tested]  # type: ignore[union-attr]
    adjusted = dict(zip(tested, adjusted_p_values(p_values), strict=True))
    return [
        Judged(contrast, _verdict(metric, contrast, adjusted.get(index), threshold), adjusted.get(index))
        for index, (metric, contrast) in enumerate(contrasts)
    ]


def _is_tested(contrast: Contrast) -> bool:
    return contrast.ratio is not None and contrast.obstacle is None and contrast.method != IDENTICAL


def _verdict(metric: ComparedMetric, contrast: Contrast, adjusted: float | None, threshold: float) -> Verdict:
    if contrast.obstacle is not None:
        return Verdict(INCOMPARABLE, contrast.obstacle)
    if contrast.method == IDENTICAL:
        return Verdict(SAME, _IDENTICAL)
    if contrast.ratio is None or adjusted is None:
        return too_few_rounds(contrast.baseline_rounds, contrast.candidate_rounds)
    better = metric.metric.higher_is_better
    return decide(contrast.ratio, contrast.ratio.p_value, adjusted, threshold, higher_is_better=better)
