"""Commits of a checkout, each measured side by side with a good one until it is decided whether it is slower."""

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log2
from pathlib import Path

from hfbench.checkouts.processes import run_to_end
from hfbench.checkouts.workspace import describe_into, require_same_environment
from hfbench.core.errors import UserError, say
from hfbench.core.point import Configuration
from hfbench.core.record import OK, Stored
from hfbench.git import Commit, Repository
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import paired_ratio
from hfbench.statistics.verdicts import FAST, UNDECIDED, decide_slower, slower_error
from hfbench.tables.metrics import Metric

FAILED = "failed"
_LOG_LINES = 20  # of a measurement that stopped, in the error


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
class Trial:
    """What commits are judged by: a point's metric, against the good commit, by a rule; and the verdicts so far.

    `command` is the point's measure stage as DVC would run it in this folder; `folder` takes descriptions of the
    environment, records, logs and verdicts.
    """

    repository: Repository
    folder: Path
    good: Commit
    point: Configuration
    command: str
    metric: Metric
    rule: Rule
    verdicts: dict[Commit, CommitVerdict] = field(default_factory=dict)

    def judge(self, commit: Commit) -> CommitVerdict:
        """Return the verdict on a commit: measured beside the good one, unless the code that is measured has one.

        Raises `UserError` where no verdict is possible, on this or any other commit.
        """
        say(f"{commit}")
        described = self.describe(commit)
        environment = hashlib.sha256(described).hexdigest()
        verdict = next((each for each in self.verdicts.values() if each.environment == environment), None)
        if described == self.environment(self.good).read_bytes():
            verdict = CommitVerdict(FAST, environment, reason=f"to a measurement, it is the same as {self.good}")
        elif verdict is None:
            verdict = self._measure_rounds(commit, environment)
        self.verdicts[commit] = verdict
        verdict.save(self.folder / "verdicts" / f"{commit.sha}.json")
        say(f"  {verdict.word}")
        return verdict

    def environment(self, commit: Commit) -> Path:
        """Return where the environment of a commit is described."""
        return self.folder / "environments" / f"{commit.sha}.json"

    def describe(self, commit: Commit) -> bytes:
        """Check the commit out and describe its environment. Raises `UserError` where that is not as it was before."""
        self.repository.switch(commit)
        path = self.environment(commit)
        before = path.read_bytes() if path.exists() else None
        described = describe_into(path)
        require_same_environment(commit, before or described, described, "Bisect again.")
        return described

    def _measure_rounds(self, commit: Commit, environment: str) -> CommitVerdict:
        """Measure round by round until the rule decides, or a measurement fails."""
        values: dict[Commit, list[float]] = {self.good: [], commit: []}
        word, ratio, number = UNDECIDED, None, 0
        while word == UNDECIDED and number < self.rule.max_rounds:
            number += 1
            # Every other round begins with the candidate, so that a machine that slows down favours neither.
            order = (self.good, commit) if number % 2 else (commit, self.good)
            outcomes = {each: self._measure_once(each, commit, number) for each in order}
            for each in values:
                outcome = outcomes[each]
                if isinstance(outcome, str):
                    return CommitVerdict(FAILED, environment, number, reason=f"{each} {outcome}")
                values[each].append(outcome)
            if number >= self.rule.rounds:
                better = self.metric.higher_is_better
                word, ratio = decide(values[self.good], values[commit], higher_is_better=better, rule=self.rule)
        return CommitVerdict(word, environment, number, ratio)

    def _measure_once(self, commit: Commit, candidate: Commit, number: int) -> float | str:
        """Return the metric of a commit in one round of a candidate, or in words why the point has none."""
        self.describe(commit)
        side = "good" if commit == self.good else "candidate"
        base = self.folder / "records" / candidate.sha / side / str(number)
        base.mkdir(parents=True)
        # Of an option that is given twice, the last one counts.
        options = {"round": number, "environment": self.environment(commit), "output": base / "record.json"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        log = base / "stage.txt"
        with log.open("wb") as stream:
            command = [*shlex.split(self.command), *words, "--log", str(base / "worker.txt")]
            status = run_to_end(command, stream)
        if status:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
            raise UserError(f"the measurement of {commit} stopped with exit status {status}:\n{tail}")
        return self._outcome(commit, number, base)

    def _outcome(self, commit: Commit, number: int, folder: Path) -> float | str:
        from hfbench.tables.build import points_table
        from hfbench.tables.reading import read_records
        from hfbench.tables.summary import samples_table, summary_table

        [record] = read_records(folder, [replace(self.point, round=number)])
        if record.facts["status"] != OK:
            return f"{record.facts['status']}: {record.facts['reason']}"
        samples = samples_table([record])
        summary = summary_table(samples, points_table([record], samples))
        estimates = dict(zip(summary["metric"], summary["estimate"], strict=True))
        if self.metric.name not in estimates:
            expected = ", ".join(estimates)
            raise UserError(f"{commit} has no {self.metric.name} at this point. Expected one of: {expected}.")
        value = float(estimates[self.metric.name])
        if value <= 0:
            return f"has a {self.metric.name} of {value:g}, of which there is no ratio"
        say(f"  round {number}: {value:.4g} {self.metric.unit}  {commit}")
        return value
