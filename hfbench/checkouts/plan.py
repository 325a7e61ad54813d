"""What each step of a bisection is to do, as a file: `git bisect run` starts every step as a process of its own."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path

from hfbench.core.point import Configuration
from hfbench.core.record import Stored
from hfbench.git import Commit
from hfbench.statistics.intervals import Interval, paired_ratio_interval

FAST, SLOW, UNDECIDED, FAILED = "fast", "slow", "undecided", "failed"
# What they mean to `git bisect run`: 0 is good, 1 to 124 bad, 125 cannot be told, 128 and more ends it.
EXIT_STATUSES = {FAST: 0, SLOW: 1, UNDECIDED: 125, FAILED: 125}
STOP_STATUS = 255
_ERROR = 0.05  # the chance that any verdict of a bisection is wrong


@dataclass(frozen=True)
class Rule:
    """When a commit counts as slower: by more than `threshold`, a share, of the commit it is compared with.

    After `rounds` rounds the interval of the ratio is looked at, again after twice as many, and so on, and last after
    `max_rounds`. `decisions` is how many commits are judged until the first slow one is known.
    """

    threshold: float
    rounds: int
    max_rounds: int
    decisions: int

    @property
    def looks(self) -> list[int]:
        """The numbers of rounds after which the interval is looked at: few, since each look takes of the confidence."""
        doubled = [self.rounds * 2**times for times in range(self.max_rounds.bit_length())]
        return [*(number for number in doubled if number < self.max_rounds), self.max_rounds]

    @property
    def confidence(self) -> float:
        """The confidence of each interval, such that all verdicts together are right with 95%.

        A verdict is wrong where the true ratio is on the other side of the threshold, beyond one end of the interval.
        Each look and each decision gets an equal share of the 5% (C. E. Bonferroni; see O. J. Dunn, Journal of the
        American Statistical Association 56 (1961) 52), and the interval leaves twice that outside, on two sides.
        """
        return 1 - 2 * _ERROR / (len(self.looks) * self.decisions)


@dataclass(frozen=True)
class Verdict(Stored):
    """What is known of a commit: `ratio` is its metric over that of the good commit, after so many rounds.

    `environment` tells the code that was measured. `reason` says why there is no ratio.
    """

    word: str
    environment: str
    rounds: int = 0
    ratio: Interval | None = None
    reason: str | None = None


def decide(
    good: Sequence[float], candidate: Sequence[float], *, higher_is_better: bool, rule: Rule
) -> tuple[str, Interval | None]:
    """Return `slow`, `fast` or `undecided`, and the ratio of candidate to good with its interval.

    Values are one for each round, the two of a round measured side by side. A ratio of a metric where higher is better
    is turned round for the decision, so that 5% slower is a ratio of 1 / 1.05 there.
    """
    ratio = paired_ratio_interval([[x] for x in good], [[x] for x in candidate], confidence=rule.confidence)
    if ratio is None:
        return UNDECIDED, None
    low, high = (1 / ratio.high, 1 / ratio.low) if higher_is_better else (ratio.low, ratio.high)
    limit = 1 + rule.threshold
    return SLOW if low > limit else FAST if high < limit else UNDECIDED, ratio


def decisions_among(commits: int) -> int:
    """Return how many verdicts a bisection takes: one on the bad commit, and one for each halving of the rest."""
    return 1 + ceil(log2(max(commits, 1)))


@dataclass(frozen=True)
class Plan(Stored):
    """One bisection: where, which point and metric, against which commit, and by which rule.

    `command` is the point's measure stage as DVC would run it in this folder; `folder` takes records, logs and
    verdicts. `owner` is the process that bisects, without which no step goes on.
    """

    checkout: str
    folder: str
    good: Commit
    point: Configuration
    command: str
    metric: str
    higher_is_better: bool
    unit: str
    rule: Rule
    owner: int

    @property
    def path(self) -> Path:
        """Where the plan is."""
        return Path(self.folder) / "plan.json"

    @property
    def complaint(self) -> Path:
        """Where a step that cannot go on says why."""
        return Path(self.folder) / "complaint.txt"

    @property
    def verdicts(self) -> Path:
        """The folder of what is known of each commit."""
        return Path(self.folder) / "verdicts"

    def verdict(self, sha: str) -> Path:
        """Where the verdict on a commit is."""
        return self.verdicts / f"{sha}.json"

    def environment(self, commit: Commit) -> Path:
        """Where the environment of a commit is described."""
        return Path(self.folder) / "environments" / f"{commit.sha}.json"

    def has_owner(self) -> bool:
        """Whether the process that bisects is still there."""
        try:
            os.kill(self.owner, 0)
        except ProcessLookupError:
            return False
        return True
