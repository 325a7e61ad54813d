"""A comparison as a whole: what was found, before it is put in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from hfbench.comparison.changes import Change
from hfbench.comparison.compared import ComparedMetric
from hfbench.comparison.contrasts import Contrast
from hfbench.comparison.pairs import Pair, Pairing, StatusChange
from hfbench.comparison.side import Side
from hfbench.comparison.verdicts import SLOWER, Verdict
from hfbench.foundation.records import OK
from hfbench.statistics.ratios import Ratio


@dataclass(frozen=True)
class Judged:
    """A contrast with its verdict; the adjusted p-value is None where nothing was tested."""

    contrast: Contrast
    verdict: Verdict
    adjusted_p_value: float | None


@dataclass(frozen=True)
class PairResult:
    """A pair with a judged contrast for each metric that either side has."""

    pair: Pair
    judged: Mapping[str, Judged]

    @property
    def output_differs(self) -> tuple[str, ...]:
        """The sides on which the output is not that of its reference."""
        sides = {"baseline": self.pair.baseline, "candidate": self.pair.candidate}
        return tuple(name for name, point in sides.items() if point.output_differs)


@dataclass(frozen=True)
class Mean:
    """The geometric mean of one metric's ratios over `pairs`; `ratio` without errors where a side has one round."""

    ratio: Ratio | None
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """Two sides, their pairs and verdicts, what changed between them, and what to beware of.

    `tests` is the size of the family over which false alarms are controlled; `side_names` are the headings of columns.
    """

    baseline: Side
    candidate: Side
    metrics: tuple[ComparedMetric, ...]
    threshold: float
    pairing: Pairing
    results: tuple[PairResult, ...]
    means: Mapping[str, Mean]
    status_changes: tuple[StatusChange, ...]
    changes: tuple[Change, ...]
    environment_differences: tuple[str, ...]
    across_environments: bool
    tests: int
    notes: tuple[str, ...]
    side_names: tuple[str, str] = ("baseline", "candidate")

    def judged(self, metric: ComparedMetric) -> list[tuple[PairResult, Judged]]:
        """Return the pairs that have this metric."""
        return [(result, result.judged[metric.name]) for result in self.results if metric.name in result.judged]

    def counts(self, metric: ComparedMetric) -> dict[str, int]:
        """Return how many pairs got each verdict, for those that any got."""
        counts: dict[str, int] = {}
        for _, judged in self.judged(metric):
            counts[judged.verdict.word] = counts.get(judged.verdict.word, 0) + 1
        return counts

    @property
    def is_slower(self) -> bool:
        """Whether any verdict is `slower`, or a point that was ok fails, wholly or in some rounds."""
        verdicts = (judged.verdict.word for result in self.results for judged in result.judged.values())
        return SLOWER in verdicts or any(change.is_regression for change in self.status_changes)


def compared_pairs(pairing: Pairing) -> tuple[Pair, ...]:
    """Return the pairs that are ok on both sides."""
    return tuple(pair for pair in pairing.pairs if pair.baseline.status == OK and pair.candidate.status == OK)
