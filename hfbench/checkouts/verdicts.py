"""Whether one commit is slower than another: decided from paired rounds, or not decided."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, log2
from pathlib import Path
from typing import Any

from hfbench.foundation.files import read_json, write_json
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
class Verdict:
    """What is known of a commit: `ratio` is its metric over that of the good commit, after so many rounds.

    `environment` tells the code that was measured. `reason` says why there is no ratio.
    """

    word: str
    environment: str
    rounds: int = 0
    ratio: Interval | None = None
    reason: str | None = None

    def save(self, path: Path) -> None:
        """Write the verdict as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Verdict":
        """Read what `save` wrote."""
        content: dict[str, Any] = read_json(path)
        return cls(**{**content, "ratio": Interval(*content["ratio"]) if content["ratio"] else None})


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
