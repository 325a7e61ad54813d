"""The first commit of an editable checkout that made a point slower, by `git bisect` with measurements as tests."""

import hashlib
import json
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil, log2
from pathlib import Path

from hfbench.checkouts.fit import require_fit
from hfbench.checkouts.interleave import find_point
from hfbench.checkouts.processes import HERE, ending_in_order, run_to_end
from hfbench.checkouts.workspace import describe_into, dvc, require_measured, require_same_environment
from hfbench.core.errors import UserError, say
from hfbench.core.point import Configuration
from hfbench.core.record import OK, Stored
from hfbench.core.results import PARAMS, stages_before
from hfbench.git import Commit, Repository, run_git, try_git, uninterrupted
from hfbench.params.schema import load_params
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.ratios import paired_ratio
from hfbench.statistics.verdicts import FAST, SLOW, UNDECIDED, decide_slower, slower_error
from hfbench.tables.metrics import METRICS, Metric

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


_MARK = re.compile(r"^# (first slow commit|possible first slow commit|slow|fast): \[(\w+)\] ?(.*)$", re.MULTILINE)


def bisect(
    checkout: Path,
    commits: tuple[str, str],
    *,
    point: str,
    metric: str,
    threshold: float,
    rounds: int,
    max_rounds: int,
    records: Path | None = None,
) -> tuple[str, Commit | None]:
    """Return in words, and as a commit, since when a point is slower by more than the threshold; None if undecided.

    `commits` are the good and the bad one, between which it is looked for; rounds and threshold are those of a `Rule`.
    The checkout is as before afterwards, after an interruption too. `records` is a folder to keep the measurements in.
    Raises `UserError` where the commits, the point or the metric do not serve, and
    where there is nothing to bisect: the bad commit is not slower than the good one, or that is undecided.
    """
    repository = Repository(checkout)
    good, bad = map(repository.commit, commits)
    between = _commits_between(repository, good, bad)
    rule = Rule(threshold, rounds, max_rounds, decisions_among(between))
    with ending_in_order(), _folder(records) as folder, repository.borrowed():
        trial = _trial(repository, folder, good, point, metric, rule)
        for commit in (good, bad):
            repository.switch(commit)
            require_fit(str(commit), HERE, repository.folder)
        described = {str(commit): json.loads(trial.describe(commit)) for commit in (good, bad)}
        require_measured(described, f"Install the checkout (`pip install --editable {checkout}`) where hfbench is.")
        confidence = f"{1 - trial.rule.error:.1%} confidence, however many rounds it takes"
        say(f"Is {bad} slower than {good}? Each verdict at {confidence}.")
        require_slower(trial.judge(bad), trial, bad)
        say(f"It is. Looking for the first slower one of {between} commits.")
        marks = find_first_slow(repository, good, bad, trial.judge)
    return answer(marks, trial), marks.first


def _commits_between(repository: Repository, good: Commit, bad: Commit) -> int:
    """Return how many commits could be the first slower one."""
    if try_git(repository.folder, "merge-base", "--is-ancestor", good.sha, bad.sha) is None or good == bad:
        raise UserError(
            f"--good {good} is no ancestor of --bad {bad}. Give a good commit that the bad one was made from, such as "
            "what `git merge-base` prints for the two."
        )
    return int(repository.git("rev-list", "--count", f"{good.sha}..{bad.sha}"))


@contextmanager
def _folder(records: Path | None) -> Iterator[Path]:
    if records is None:
        with tempfile.TemporaryDirectory(prefix="hfbench-bisect-") as folder:
            yield Path(folder)
        return
    if records.exists() and (not records.is_dir() or any(records.iterdir())):
        raise UserError(f"--records {records} is not an empty folder. Name one that is, or that does not exist.")
    records.mkdir(parents=True, exist_ok=True)
    yield records.resolve()


def _trial(repository: Repository, folder: Path, good: Commit, wanted: str, metric: str, rule: Rule) -> Trial:
    """Bring up to date what the point needs, and return what commits are judged by."""
    from dvc.repo import Repo

    stages = load_params(PARAMS).stages()
    point, _ = find_point(stages, wanted)
    dvc("repro", *stages_before(point))
    with Repo() as repo:
        command = repo.stage.load_one(name=stages[point]).cmd
    return Trial(repository, folder, good, point, command, next(each for each in METRICS if each.name == metric), rule)


@dataclass(frozen=True)
class Marks:
    """What `git bisect log` holds: the first slow commit, or those that could be it, and the last one of each mark.

    The good commit is marked `fast` and the bad one `slow` from the start.
    """

    first: Commit | None
    possible: tuple[Commit, ...]
    last: Mapping[str, Commit]

    @classmethod
    def read(cls, log: str) -> "Marks":
        """Parse the log of a bisection whose terms are `fast` and `slow`."""
        found = [(word, Commit(sha, subject)) for word, sha, subject in _MARK.findall(log)]
        possible = tuple(commit for word, commit in found if word == "possible first slow commit")
        return cls(dict(found).get("first slow commit"), possible, dict(found))


def find_first_slow(
    repository: Repository, good: Commit, bad: Commit, judge: Callable[[Commit], CommitVerdict]
) -> Marks:
    """Judge the commits that git chooses between a good and a bad one, until it knows the first slow one, or cannot.

    Commits that are neither fast nor slow are skipped. Git moves no files meanwhile, so that `judge` may.
    """
    folder = repository.folder
    try:
        terms = (f"--term-old={FAST}", f"--term-new={SLOW}")
        told = run_git(folder, "bisect", "start", "--no-checkout", *terms, bad.sha, good.sha)
        while True:
            marks = Marks.read(try_git(folder, "bisect", "log") or "")
            if marks.first is not None or marks.possible:
                return marks  # whatever the exit status: it is an error where all that is left was skipped
            if told.returncode:
                raise UserError(f"`git bisect` failed in {folder}: {told.stderr.strip()}")
            commit = repository.commit("BISECT_HEAD")  # what git calls the commit that it asks about
            word = judge(commit).word
            told = run_git(folder, "bisect", word if word in (FAST, SLOW) else "skip", commit.sha)
    finally:
        with uninterrupted():
            try_git(folder, "bisect", "reset")


def require_slower(verdict: CommitVerdict, trial: Trial, bad: Commit) -> None:
    """Raise `UserError` with why there is nothing to bisect, unless the bad commit is slower than the good one."""
    if verdict.word == SLOW:
        return
    if verdict.word == FAILED:
        raise UserError(f"{verdict.reason}. Give a good and a bad commit at which the point can be measured.")
    slower = f"slower than {trial.good} by more than {trial.rule.threshold:.1%}"
    if verdict.word == FAST:
        raise UserError(f"nothing to bisect: {bad} is not {slower}. {_evidence(verdict, trial)}")
    raise UserError(
        f"undecided whether {bad} is {slower}, so there is no telling which commit made it so. "
        f"{_evidence(verdict, trial)} Have `hfbench doctor` look at the machine, or raise --max-rounds."
    )


def answer(marks: Marks, trial: Trial) -> str:
    """Return the answer: the first slower commit and by how much, or those that it can be and why.

    Commits at which the point could not be measured are named after it: that is a finding too.
    """
    verdicts = trial.verdicts
    failed = [f"{each} was left out: {verdict.reason}" for each, verdict in verdicts.items() if verdict.word == FAILED]
    if marks.first is not None:
        lines = [f"The first slower commit is {marks.first}.", _evidence(verdicts[marks.first], trial)]
        return "\n".join([*lines, *failed])
    doubts = [
        f"  {each}: {verdicts[each].word}. {_evidence(verdicts[each], trial)}" if each in verdicts else f"  {each}"
        for each in marks.possible
    ]
    remedy = []
    if any(each in verdicts and verdicts[each].word == UNDECIDED for each in marks.possible):
        remedy = [
            f"More rounds may tell them apart: ask again with --good {marks.last[FAST].short} "
            f"--bad {marks.last[SLOW].short} --max-rounds {2 * trial.rule.max_rounds}."
        ]
    return "\n".join(["undecided: the first slower commit is one of", *doubts, *remedy, *failed])


def _evidence(verdict: CommitVerdict, trial: Trial) -> str:
    """Return the ratio as a sentence, or the reason why there is none."""
    if verdict.ratio is None:
        return f"{verdict.reason or 'it was not measured'}."
    estimate, low, high = verdict.ratio
    return (
        f"Its {trial.metric.name} is {estimate:.3f} times that of {trial.good} ({1 - trial.rule.error:.1%} interval "
        f"{low:.3f} to {high:.3f}, {verdict.rounds} rounds)."
    )
