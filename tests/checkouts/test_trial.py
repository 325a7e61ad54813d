"""When a commit is slower: worked out by hand, and on synthetic rounds whose truth is known."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hfbench.checkouts.trial import Rule, decide, decisions_among
from hfbench.statistics.verdicts import FAST, SLOW, UNDECIDED

RULE = Rule(threshold=0.05, rounds=4, max_rounds=16, decisions=4)


def test_the_rounds_of_a_metric_are_judged_by_the_rule() -> None:
    good = [1.0, 1.3, 0.8]  # the machine drifts, and both sides with it
    for ratio, higher_is_better, word in ((1.06, False, SLOW), (1.04, False, FAST), (0.95, True, SLOW)):
        found, interval = decide(good, [ratio * x for x in good], higher_is_better=higher_is_better, rule=RULE)
        assert found == word
        assert interval == pytest.approx((ratio, ratio, ratio))
    noisy, interval = decide([1.0] * 4, [1.0, 1.2, 1.1, 1.3], higher_is_better=False, rule=RULE)
    assert noisy == UNDECIDED
    assert interval is not None
    assert interval.low < 1.05 < interval.high


def test_one_round_decides_nothing() -> None:
    assert decide([1.0], [9.0], higher_is_better=False, rule=RULE) == (UNDECIDED, None)


def test_the_error_is_shared_by_the_decisions() -> None:
    # By hand: 5% over 4 commits is 1.25% at the end of the interval where it would be wrong, and as much at the other.
    assert RULE.error == pytest.approx(0.025)
    # Never more than `hfbench compare` allows: of one commit, 5% at both ends together.
    assert replace(RULE, decisions=1).error == pytest.approx(0.05)


@pytest.mark.parametrize(("commits", "decisions"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 4), (9, 5), (1000, 11)])
def test_decisions_of_a_bisection(commits: int, decisions: int) -> None:
    assert decisions_among(commits) == decisions


def judged(effect: float, seed: int) -> Counter[str]:
    """The verdicts on 200 commits, looked at after every round; noise of 2% on each side, and drift that both share."""
    generator = np.random.default_rng(seed)
    words: Counter[str] = Counter()
    for _ in range(200):
        drift = np.exp(generator.normal(0, 0.2, RULE.max_rounds))
        good, candidate = drift * np.exp(generator.normal(0, 0.02, (2, RULE.max_rounds)))
        word = UNDECIDED
        for rounds in range(RULE.rounds, RULE.max_rounds + 1):
            word, _ = decide(list(good[:rounds]), list(effect * candidate[:rounds]), higher_is_better=False, rule=RULE)
            if word != UNDECIDED:
                break
        words[word] += 1
    return words


@pytest.mark.parametrize(("effect", "wrong", "right"), [(1.0, SLOW, FAST), (1.15, FAST, SLOW)])
def test_verdicts_on_synthetic_rounds(effect: float, wrong: str, right: str) -> None:
    words = judged(effect, seed=1)
    assert words[wrong] <= 200 * 0.05 / RULE.decisions
    assert words[right] >= 180


def test_at_the_threshold_verdicts_are_rare() -> None:
    """The hardest case: the truth is the threshold itself, where each verdict would be a matter of luck."""
    words = judged(1 + RULE.threshold, seed=2)
    # Either word counts as wrong here, each at 5% / 4 decisions: 5 of 200, and as much again for chance.
    assert words[SLOW] + words[FAST] <= 10
