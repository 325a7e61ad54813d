"""The first commit of an editable checkout that made a point slower, by `git bisect` with measurements as tests."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hfbench.checkouts.fit import require_fit
from hfbench.checkouts.interleave import find_point
from hfbench.checkouts.processes import HERE, ending_in_order
from hfbench.checkouts.trial import FAILED, CommitVerdict, Rule, Trial, decisions_among
from hfbench.checkouts.workspace import dvc, require_measured
from hfbench.core.errors import UserError, say
from hfbench.core.results import PARAMS, stages_before
from hfbench.git import Commit, Repository, run_git, try_git, uninterrupted
from hfbench.params.schema import load_params
from hfbench.statistics.verdicts import FAST, SLOW, UNDECIDED
from hfbench.tables.metrics import METRICS

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
