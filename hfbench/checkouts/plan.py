"""What each step of a bisection is to do, as a file: `git bisect run` starts every step as a process of its own."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path

from hfbench.core.point import Configuration
from hfbench.core.record import Stored
from hfbench.git import Commit
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import paired_ratio
from hfbench.statistics.verdicts import FAST, SLOW, UNDECIDED, decide_slower, slower_error

FAILED = "failed"
# What they mean to `git bisect run`: 0 is good, 1 to 124 bad, 125 cannot be told, 128 and more ends it.
EXIT_STATUSES = {FAST: 0, SLOW: 1, UNDECIDED: 125, FAILED: 125}
STOP_STATUS = 255


@dataclass(frozen=True)
class Rule:
    """When a commit counts as slower: by more than `threshold`, a share, of the commit it is compared with.

    The interval of the ratio is looked at after `rounds` rounds and after each one more, last after `max_rounds`.
    `decisions` is how many commits are judged until the first slow one is known.
    """

    threshold: float
    rounds: int
    max_rounds: int
    decisions: int

    @property
    def error(self) -> float:
        """What each interval may err, such that all verdicts together are right with 95%."""
        return slower_error(self.decisions)


@dataclass(frozen=True)
class CommitVerdict(Stored):
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

    Values are one for each round, the two of a round measured side by side.
    """
    ratio = paired_ratio([[x] for x in good], [[x] for x in candidate])
    return decide_slower(ratio, rule.threshold, rule.error, higher_is_better=higher_is_better)


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
