"""Ratios of two points, with errors that count the noise between rounds, and the geometric mean of many ratios.

**The estimate** is the mean of the logarithms of the rounds' medians without the lowest and the highest tenth, and at
least one of each (of three or four rounds, the median), of candidate over baseline. One disturbed process out of seven
hardly moves it, and swapping the sides inverts it.

**The standard error** is that of the mean of all rounds, s / √n, which a disturbed process makes larger: it is then not
known which round tells the truth. Over it the trimmed mean follows Student's t with n - 1 degrees of freedom: to within
a tenth of the significance for 3 to 20 rounds, far into the tails. Errors that are estimated from the middle rounds do
not: the bootstrap's semi-deviation of three rounds hangs on the distance of two of them, and at a significance of 1%
calls a change in 3% of cases without one; Winsorized ones (J. W. Tukey and D. H. McLaughlin, Sankhya A 25 (1963) 331)
leave five rounds two degrees of freedom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import exp, inf, log
from typing import NamedTuple

import numpy as np

from hfbench.statistics.bootstrap import FEWEST_ROUNDS, Floats, Rounds, round_medians


class Error(NamedTuple):
    """A standard error of a logarithm, and the number of rounds that it was estimated from."""

    standard_error: float
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """A ratio with the errors of its logarithm: one for each independent sample.

    Two samples are two sides whose rounds are independent; one is the rounds of a paired comparison; none is two times
    the same records. What interval it has, `hfbench.statistics.verdicts` says.
    """

    estimate: float
    errors: tuple[Error, ...]


def independent_ratio(baseline: Rounds, candidate: Rounds) -> Ratio | None:
    """Return the candidate's centre of rounds over the baseline's; None where a side has under two rounds.

    The rounds of the two sides are taken as independent: right for any two results, and wide where both follow the same
    drift of the machine (see `paired_ratio`). Raises `ValueError` where a round is empty or a value is not positive.
    """
    if min(len(baseline), len(candidate)) < FEWEST_ROUNDS:
        return None
    old, new = _logarithms(baseline), _logarithms(candidate)
    return Ratio(exp(_centre(new) - _centre(old)), (_error(new), _error(old)))


def paired_ratio(baseline: Rounds, candidate: Rounds) -> Ratio | None:
    """Return the centre over rounds of candidate over baseline; None for fewer than two rounds.

    Round i of the one ran next to round i of the other, so that the machine's drift from round to round is in both and
    leaves the ratio. Raises `ValueError` where the sides have different numbers of rounds, a round is empty or a value
    is not positive.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} rounds cannot be paired with {len(candidate)}")
    if len(baseline) < FEWEST_ROUNDS:
        return None
    logarithms = _logarithms(candidate) - _logarithms(baseline)
    return Ratio(exp(_centre(logarithms)), (_error(logarithms),))


def combined(errors: Sequence[Error], more_rounds: int = 0) -> tuple[float, float]:
    """Return the standard error of a difference of independent samples, and its degrees of freedom.

    Squares of standard errors add, and the degrees of freedom are those of B. L. Welch, Biometrika 34 (1947) 28; for
    one sample, one less than its rounds. With `more_rounds` in each sample, each square is smaller in proportion.
    """
    squares = [error.standard_error**2 * error.rounds / (error.rounds + more_rounds) for error in errors]
    total = sum(squares)
    if total == 0:
        return 0.0, inf
    # Each square's share first: of nearly equal rounds, the fourth power of the error is no number any more.
    weights = [
        (square / total) ** 2 / (error.rounds + more_rounds - 1) for square, error in zip(squares, errors, strict=True)
    ]
    return total**0.5, 1 / sum(weights)


def _logarithms(rounds: Rounds) -> Floats:
    """Return the logarithm of the median of each round."""
    if any(min(values, default=1.0) <= 0 for values in rounds):
        raise ValueError("ratios need positive values")
    logarithms: Floats = np.log(round_medians(rounds))
    return logarithms


def _centre(values: Floats) -> float:
    """Return the mean without the lowest and the highest tenth, and at least one of each where three are.

    Source of a tenth, which did best on data of real experiments: S. M. Stigler, Annals of Statistics 5
    (1977) 1055.
    """
    cut = max(len(values) // 10, 1) if len(values) > 2 else 0
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _error(logarithms: Floats) -> Error:
    return Error(float(np.std(logarithms, ddof=1)) / len(logarithms) ** 0.5, len(logarithms))


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
    baseline, candidate = (_over_pairs(ratios, side) for side in ("baseline", "candidate"))
    compute = paired_ratio if paired and baseline.keys() == candidate.keys() else independent_ratio
    ratio = compute(*([[value] for _, value in sorted(side.items())] for side in (baseline, candidate)))
    if ratio is None:
        return None
    return Ratio(exp(float(np.mean([log(each.estimate) for each in ratios]))), ratio.errors)


def _over_pairs(ratios: Sequence[RatioOfRounds], side: str) -> dict[int, float]:
    """Return the geometric mean of each round over the pairs that have it, each relative to its baseline."""
    logarithms: dict[int, list[float]] = {}
    for ratio in ratios:
        level = float(np.median(list(ratio.baseline.values())))
        for number, value in getattr(ratio, side).items():
            logarithms.setdefault(number, []).append(log(value / level))
    return {number: exp(float(np.mean(values))) for number, values in logarithms.items()}


PAIRED, INDEPENDENT, IDENTICAL = "paired", "independent", "identical"
RoundValues = Mapping[int, Floats]  # the values of each round, by its number


@dataclass(frozen=True)
class Contrast:
    """One metric of two points: the median of the rounds' medians of each, and their ratio.

    `method` is `paired` where the rounds interleave, `independent` where they do not, `identical` where both sides hold
    the same records, which DVC did not measure again because nothing that they depend on had changed. `ratio` is None
    where a side has under two rounds; `obstacle` says what else stands against a ratio. Sides that do not have the
    same rounds, as where one failed, are independent too.
    """

    baseline: float | None
    candidate: float | None
    baseline_rounds: int
    candidate_rounds: int
    method: str
    ratio: Ratio | None
    obstacle: str | None = None
    has_same_rounds: bool = True

    @property
    def is_apart(self) -> bool:
        """Whether it is of two separate runs: of the same rounds, which do not alternate."""
        return self.ratio is not None and self.method == INDEPENDENT and self.has_same_rounds


def contrast(
    baseline: RoundValues,
    candidate: RoundValues,
    baseline_started: Mapping[int, datetime],
    candidate_started: Mapping[int, datetime],
    obstacle: str | None = None,
) -> Contrast:
    """Return the contrast of the values of two points; a side without values is an obstacle too."""
    method = _method(baseline, candidate, baseline_started, candidate_started)
    ratio, obstacle = None, obstacle or _obstacle(baseline, candidate)
    if obstacle is None and method == IDENTICAL:
        ratio = Ratio(1.0, ())
    elif obstacle is None:
        compute = independent_ratio if method == INDEPENDENT else paired_ratio
        # Arrays are sequences of floats, though not to mypy.
        old, new = ([side[number] for number in sorted(side)] for side in (baseline, candidate))
        ratio = compute(old, new)  # type: ignore[arg-type]
    return Contrast(
        baseline=estimate(baseline) if baseline else None,
        candidate=estimate(candidate) if candidate else None,
        baseline_rounds=len(baseline),
        candidate_rounds=len(candidate),
        method=method,
        ratio=ratio,
        obstacle=obstacle,
        has_same_rounds=set(baseline) == set(candidate),
    )


def interleaved(baseline: Mapping[int, datetime], candidate: Mapping[int, datetime]) -> bool:
    """Whether each round of both sides started before the next round of either: same numbers, at least two.

    Then what the machine did meanwhile is in both, and leaves their ratio. Next is the next in time: a round that both
    sides measured again later, side by side, is as good as in its old place.
    """
    if len(baseline) < FEWEST_ROUNDS or set(baseline) != set(candidate):
        return False
    rounds = sorted(sorted((baseline[number], candidate[number])) for number in baseline)
    return all(last < first for (_, last), (first, _) in pairwise(rounds))


def estimate(rounds: RoundValues) -> float:
    """Return the median of the rounds' medians."""
    return float(np.median([np.median(values) for values in rounds.values()]))


def _method(
    baseline: RoundValues, candidate: RoundValues, old: Mapping[int, datetime], new: Mapping[int, datetime]
) -> str:
    if set(baseline) != set(candidate) or not set(baseline) <= set(old) or not set(candidate) <= set(new):
        return INDEPENDENT
    shared = [old[number] == new[number] and np.array_equal(baseline[number], candidate[number]) for number in baseline]
    if shared and all(shared):
        return IDENTICAL
    started = ({number: times[number] for number in baseline} for times in (old, new))
    # Rounds that are the same record on both sides would stand for as many rounds without any difference.
    return PAIRED if interleaved(*started) and not any(shared) else INDEPENDENT


def _obstacle(baseline: RoundValues, candidate: RoundValues) -> str | None:
    sides = {"baseline": baseline, "candidate": candidate}
    missing = [name for name, rounds in sides.items() if not rounds]
    if missing:
        return f"the {missing[0]} has no value"
    if any(not np.all(values > 0) for rounds in sides.values() for values in rounds.values()):
        return "a value is not positive, so that there is no ratio"
    return None
