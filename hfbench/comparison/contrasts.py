"""The ratio of one metric between two points, and by which method: computed here, judged elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from hfbench.comparison.values import Rounds
from hfbench.statistics.ratios import Ratio, independent_ratio, paired_ratio

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
