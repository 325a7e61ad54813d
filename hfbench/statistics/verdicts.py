"""Verdicts: whether a ratio is a change, none, or not known yet, so that one can look at it however often.

**One look.** The interval of a ratio is estimate · exp(± t · SE), with the quantile of Student's t at what one look may
err (`look_error`), and its degrees of freedom (`hfbench.statistics.ratios`).

**All looks.** Who adds rounds until something is decided gives chance as many occasions as he looks: at 95% each, looks
after 3, 5, 7, 9, 12 and 15 rounds call a change where there is none in nearly a fifth of cases. So the 5% are spent
over all the looks that there can be. What a look may spend follows from its number of rounds alone, since nobody knows
who looked before: 1% after each of 3 to 7 rounds, and from there on less with the square of the rounds. The intervals
after *every* number of rounds then enclose the truth together with 95%, so that any one does, whenever and why ever one
stopped. Source: C. Jennison and B. W. Turnbull, Repeated confidence intervals for group sequential clinical trials,
Controlled Clinical Trials 5 (1984) 33; spending by a function fixed beforehand: K. K. G. Lan and D. L. DeMets,
Biometrika 70 (1983) 659. That these levels spend 5% was found by simulation (`python -m benchmarks.looks`, which tests
repeat): consecutive looks share most of their rounds, which no formula of the normal distribution follows for Student's
t of few rounds.

**Many ratios.** Of the changes that are called together, 5% at most are expected to be none: Y. Benjamini and
Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289. Tests that tend to agree, as the latencies of one point do, keep this:
Y. Benjamini and D. Yekutieli, Annals of Statistics 29 (2001) 1165. With it comes what each interval may err for the
calls and the intervals to say the same (`family_error`): Y. Benjamini and D. Yekutieli, JASA 100 (2005) 71.

**The interval beside a verdict is the one that decided**, so that no word contradicts its interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

from scipy.special import stdtr
from scipy.stats import false_discovery_control

from hfbench.statistics.bootstrap import CONFIDENCE, FEWEST_ROUNDS, KNOWS_NOTHING, Interval, Rounds, student
from hfbench.statistics.ratios import IDENTICAL, Contrast, Ratio, combined, paired_ratio

FASTER, SLOWER, SAME, UNDECIDED, INCOMPARABLE = "faster", "slower", "same", "undecided", "incomparable"
VERDICTS = (FASTER, SLOWER, SAME, UNDECIDED, INCOMPARABLE)
FAST, SLOW = "fast", "slow"  # of a commit: not slower, or slower, than the good one by more than the threshold

ERROR = 0.05  # how often all looks at what is decided together may be wrong
DEFAULT_THRESHOLD = 0.02  # a change within ±2% counts as none
# Nobody runs more, and the standard error of few rounds is no guide to so many.
MOST_MORE_ROUNDS = 200

_LOOK_ERROR = 0.01
_FULL_UNTIL = 7  # rounds; who needs many more to decide has a narrow interval by then
# Two rounds know their own noise so badly that an interval of 99% is 64 standard errors wide on either side.
_TWO_ROUNDS_SHARE = 0.1
# The smaller the error, the less do consecutive looks share: a hundredth of it leaves less than a hundredth to a look.
_STEEPNESS = 1.125


@dataclass(frozen=True)
class Verdict:
    """A word, with the interval of the ratio that decided it and why in a sentence, where that is not in the numbers.

    `faster` and `slower` mean better and worse, also of memory and energy. `more_rounds`: how many more rounds on each
    side would decide what is `undecided`, None where that is more than `MOST_MORE_ROUNDS`. Without a ratio there is no
    interval.
    """

    word: str
    interval: Interval | None = None
    reason: str | None = None
    more_rounds: int | None = None


def look_error(rounds: float, error: float = ERROR) -> float:
    """Return how often the interval of one look after so many rounds may miss, for all looks together to keep `error`.

    The rounds of two sides with unequal numbers are their mean, which grows with every round.
    """
    # Of what a look after seven rounds may spend.
    share = _TWO_ROUNDS_SHARE if rounds <= FEWEST_ROUNDS else min(1.0, (_FULL_UNTIL / rounds) ** 2)
    return float(_LOOK_ERROR * (share * (error / ERROR) ** _STEEPNESS))


def interval(ratio: Ratio, error: float = ERROR) -> Interval:
    """Return the ratio with the interval that misses the truth in no more than `error`, however often one looks."""
    margin = min(_margin(ratio, error), KNOWS_NOTHING)
    return Interval(ratio.estimate, ratio.estimate * exp(-margin), ratio.estimate * exp(margin))


def paired_ratio_interval(baseline: Rounds, candidate: Rounds, *, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the centre of candidate over baseline, round by round, with its interval; None for fewer than two rounds.

    See `hfbench.statistics.ratios.paired_ratio`, also for the errors that it raises, and `interval`.
    """
    ratio = paired_ratio(baseline, candidate)
    return interval(ratio, 1 - confidence) if ratio else None


def p_value(ratio: Ratio) -> float:
    """Return the least error whose interval excludes 1: how often rounds without any change would give such a ratio at
    any look, two-sided, and at most 1. Without any spread between rounds it is 0 for a ratio other than 1.
    """
    error, degrees_of_freedom = combined(ratio.errors)
    if ratio.estimate == 1:
        return 1.0
    if error == 0:
        return 0.0
    single = 2 * float(stdtr(degrees_of_freedom, -abs(log(ratio.estimate)) / error))
    error_of_all: float = ERROR * (single / look_error(_rounds(ratio))) ** (1 / _STEEPNESS)
    return min(1.0, error_of_all)


def adjusted_p_values(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of one family adjusted after Benjamini and Hochberg: at most `ERROR` are those to call.

    Where there is no difference at all, any is called in at most that share of families.
    """
    return [float(value) for value in false_discovery_control(list(p_values))] if p_values else []


def family_error(p_values: Sequence[float]) -> float:
    """Return what the interval of each test of a family may err for it to exclude 1 where the test is to be called.

    That is the share of the family that is called, of the 5%: of intervals which were picked because they exclude 1, so
    few then miss the truth.
    """
    called = sum(adjusted <= ERROR for adjusted in adjusted_p_values(p_values))
    return ERROR * max(called, 1) / max(len(p_values), 1)


def decide(ratio: Ratio, threshold: float, error: float, *, higher_is_better: bool) -> Verdict:
    """Return the verdict on a ratio of candidate over baseline, in a family with this `family_error`.

    A threshold of 2% means ratios from 1 / 1.02 to 1.02: as much in either direction, also when the sides are swapped.
    `same` where the 95% interval lies within them, and so also where it excludes 1: a change too small to matter. Else
    `undecided` where it holds 1; `faster` or `slower` where the family's interval, which is no narrower, excludes 1 as
    well; and else `undecided` for the sake of the family.
    """
    found = interval(ratio)
    if found.low * (1 + threshold) >= 1 and found.high <= 1 + threshold:
        return Verdict(SAME, found)
    if not found.low <= 1 <= found.high:
        found = interval(ratio, error)
        if not found.low <= 1 <= found.high:
            return Verdict(FASTER if (found.low > 1) == higher_is_better else SLOWER, found)
    more = rounds_to_decide(ratio, threshold, error)
    number = f"more than {MOST_MORE_ROUNDS}" if more is None else f"about {more}"
    return Verdict(UNDECIDED, found, f"{number} more round{'s' * (more != 1)} on each side would decide", more)


def verdict_on(contrast: Contrast, threshold: float, error: float, *, higher_is_better: bool) -> Verdict:
    """Return the verdict on a contrast, also where there is nothing to decide; see `decide`."""
    if contrast.obstacle is not None:
        return Verdict(INCOMPARABLE, reason=contrast.obstacle)
    if contrast.ratio is None:
        return _one_round(contrast)
    if contrast.method == IDENTICAL:
        same = "the same records: nothing that they depend on changed, and DVC measured nothing again"
        return Verdict(SAME, interval(contrast.ratio), same)
    return decide(contrast.ratio, threshold, error, higher_is_better=higher_is_better)


def tested_p_value(contrast: Contrast) -> float | None:
    """Return the p-value of a contrast; None where nothing is tested."""
    if contrast.obstacle is not None or contrast.ratio is None or contrast.method == IDENTICAL:
        return None
    return p_value(contrast.ratio)


def race_p_value(contrasts: Sequence[Contrast]) -> float | None:
    """Return the p-value of the best being told from every other: the largest of those of its contrasts with them.

    None where one of them is not tested. Source: the intersection-union test, R. L. Berger, Technometrics 24 (1982)
    295.
    """
    p_values = [p for each in contrasts if (p := tested_p_value(each)) is not None]
    return max(p_values) if p_values and len(p_values) == len(contrasts) else None


def verdict_on_race(
    contrasts: Sequence[Contrast], threshold: float, error: float, *, higher_is_better: bool
) -> tuple[int, Verdict]:
    """Return the verdict on the best against all others, and the place of the other that it hangs on.

    `contrasts` are those of the best with each other one, the next best first. `faster` where it is so against every
    one, and then the next best is named. `same` where the next best is within the threshold, or only others are not
    told from it and those are within it. Else the one that is told least is named: with `undecided` and the rounds that
    would tell all of them, or with what stands against a verdict.
    """
    verdicts = [verdict_on(each, threshold, error, higher_is_better=higher_is_better) for each in contrasts]
    if verdicts[0].word == SAME:
        return 0, verdicts[0]
    for word in (INCOMPARABLE, UNDECIDED, SLOWER, SAME):
        places = [place for place, verdict in enumerate(verdicts) if verdict.word == word]
        if places:
            place = max(places, key=lambda each: _doubt(verdicts[each], contrasts[each]))
            return place, verdicts[place]
    return 0, verdicts[0]


def slower_error(decisions: int) -> float:
    """Return what the interval of one of so many decisions may err, for all of them together to be right with 95%.

    A decision is wrong where the truth is on the other side of the threshold, beyond one end of the interval. Each gets
    an equal share of the 5% (C. E. Bonferroni; see O. J. Dunn, JASA 56 (1961) 52), and the interval leaves twice that
    outside, on two sides: but never more than the interval of `decide` does, so that what is `slow` is `slower`.
    """
    return min(ERROR, 2 * ERROR / decisions)


def decide_slower(
    ratio: Ratio | None, threshold: float, error: float, *, higher_is_better: bool
) -> tuple[str, Interval | None]:
    """Return `slow`, `fast` or `undecided`: whether a ratio is worse than 1 by more than the threshold.

    A ratio of a metric where higher is better is turned round for the decision, so that 5% slower is a ratio of
    1 / 1.05 there. The interval is that of the ratio as it is; None without a ratio.
    """
    if ratio is None:
        return UNDECIDED, None
    found = interval(ratio, error)
    low, high = (1 / found.high, 1 / found.low) if higher_is_better else (found.low, found.high)
    return SLOW if low > 1 + threshold else FAST if high < 1 + threshold else UNDECIDED, found


def rounds_to_decide(ratio: Ratio, threshold: float, error: float) -> int | None:
    """Return how many more rounds on each side would decide, if ratio and noise stayed as they are; None for too many.

    Standard errors shrink with the square root of the rounds, Student's t has more degrees of freedom, and a look may
    err less; the margin shrinks with every round, so that the first number is found by halving. Source: the sample size
    of an interval of given width, W. G. Cochran, Sampling Techniques, 3rd ed. (1977), section 4.
    """
    change, tolerance = abs(log(ratio.estimate)), log(1 + threshold)
    low, high = 0, MOST_MORE_ROUNDS + 1
    while high - low > 1:
        more = (low + high) // 2
        decided = _margin(ratio, ERROR, more) <= tolerance - change or _margin(ratio, error, more) < change
        low, high = (low, more) if decided else (more, high)
    return high if high <= MOST_MORE_ROUNDS else None


def _rounds(ratio: Ratio) -> float:
    return sum(error.rounds for error in ratio.errors) / len(ratio.errors)


def _margin(ratio: Ratio, error: float, more_rounds: int = 0) -> float:
    """Return the distance from the logarithm of a ratio to its limits, with so many more rounds on each side."""
    standard_error, degrees_of_freedom = combined(ratio.errors, more_rounds)
    if standard_error == 0:
        return 0.0
    return student(1 - look_error(_rounds(ratio) + more_rounds, error), degrees_of_freedom) * standard_error


def _doubt(verdict: Verdict, contrast: Contrast) -> tuple[float, float]:
    """Return how far a verdict is from being told, to find the one that is farthest."""
    more = inf if verdict.more_rounds is None else verdict.more_rounds
    return (more if verdict.word == UNDECIDED else 0.0, tested_p_value(contrast) or 0.0)


def _one_round(contrast: Contrast) -> Verdict:
    """Return the verdict where a side has one round, which does not tell how much processes differ."""
    side = "baseline" if contrast.baseline_rounds < FEWEST_ROUNDS else "candidate"
    whose = "each side" if contrast.baseline_rounds == contrast.candidate_rounds else f"the {side}"
    reason = f"{whose} has one round, which does not tell noise from change: at least 1 more is needed"
    return Verdict(UNDECIDED, reason=reason, more_rounds=1)
