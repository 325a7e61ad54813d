"""The first commit of an editable checkout that made a point slower, by `git bisect run` with measurements as tests."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hfbench.checkouts.interleave import find_point
from hfbench.checkouts.plan import FAILED, CommitVerdict, Plan, Rule, decisions_among
from hfbench.checkouts.processes import ending_in_order, run_to_end
from hfbench.checkouts.workspace import describe_into, dvc, require_measured
from hfbench.core.errors import UserError
from hfbench.core.results import PARAMS
from hfbench.git import Commit, Repository, try_git, uninterrupted
from hfbench.params.schema import load_params
from hfbench.statistics.verdicts import FAST, SLOW, UNDECIDED
from hfbench.tables.metrics import METRICS

_MARK = re.compile(r"^# (first slow commit|possible first slow commit|slow|fast|skip): \[(\w+)\] ?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Marks:
    """What `git bisect log` holds: the first slow commit, or those that could be it, and each commit's mark."""

    first: Commit | None
    possible: tuple[Commit, ...]
    marked: Mapping[str, str]

    @classmethod
    def read(cls, log: str) -> "Marks":
        """Parse the log of a bisection whose terms are `fast` and `slow`."""
        found = [(word, Commit(sha, subject)) for word, sha, subject in _MARK.findall(log)]
        first = [commit for word, commit in found if word == "first slow commit"]
        return cls(
            first=first[0] if first else None,
            possible=tuple(commit for word, commit in found if word == "possible first slow commit"),
            marked={commit.sha: word for word, commit in found if word in (FAST, SLOW)},
        )


def unfit(verdict: CommitVerdict, plan: Plan, bad: Commit) -> UserError | None:
    """Return why there is nothing to bisect, or None where the bad commit is slower than the good one."""
    if verdict.word == SLOW:
        return None
    if verdict.word == FAILED:
        return UserError(f"{verdict.reason}. Give a good and a bad commit at which the point can be measured.")
    if verdict.word == FAST:
        return UserError(
            f"nothing to bisect: {bad} is not slower than {plan.good} by more than {plan.rule.threshold:.1%}. "
            f"{_evidence(verdict, plan)}"
        )
    return UserError(
        f"undecided whether {bad} is slower than {plan.good} by more than {plan.rule.threshold:.1%}, so there is no "
        f"telling which commit made it so. {_evidence(verdict, plan)} Have `hfbench doctor` look at the machine, or "
        "raise --max-rounds."
    )


def answer(marks: Marks, verdicts: Mapping[str, CommitVerdict], plan: Plan) -> str:
    """Return the answer: the first slower commit and by how much, or those that it can be and why."""
    if marks.first is not None:
        return f"The first slower commit is {marks.first}.\n{_evidence(verdicts[marks.first.sha], plan)}"
    lines = [f"\n  {commit}{_doubt(verdicts.get(commit.sha), plan)}" for commit in marks.possible]
    return f"undecided: the first slower commit is one of{''.join(lines)}{_remedy(marks, verdicts, plan)}"


def failures(verdicts: Mapping[Commit, CommitVerdict]) -> Sequence[str]:
    """Return a sentence for each commit at which the point could not be measured: that is a finding too."""
    return [
        f"{commit} was left out: {verdict.reason}" for commit, verdict in verdicts.items() if verdict.word == FAILED
    ]


def _remedy(marks: Marks, verdicts: Mapping[str, CommitVerdict], plan: Plan) -> str:
    """Return what would decide, where noise is what hides the first slower commit."""
    if not any(verdicts[commit.sha].word == UNDECIDED for commit in marks.possible if commit.sha in verdicts):
        return ""
    last = {
        word: Commit(sha, "").short for sha, word in marks.marked.items()
    }  # the good and the bad one are marked too
    return (
        f"\nMore rounds may tell them apart: ask again with --good {last[FAST]} --bad {last[SLOW]} "
        f"--max-rounds {2 * plan.rule.max_rounds}."
    )


def _doubt(verdict: CommitVerdict | None, plan: Plan) -> str:
    if verdict is None:
        return ""
    return f": {verdict.word}. {_evidence(verdict, plan)}"


def _evidence(verdict: CommitVerdict, plan: Plan) -> str:
    """Return the ratio as a sentence, or the reason why there is none."""
    if verdict.ratio is None:
        return f"{verdict.reason or 'it was not measured'}."
    estimate, low, high = verdict.ratio
    return (
        f"Its {plan.metric} is {estimate:.3f} times that of {plan.good} ({1 - plan.rule.error:.1%} interval {low:.3f} "
        f"to {high:.3f}, {verdict.rounds} rounds)."
    )


_LOG_LINES = 20  # of git, where it stops without a result
# git runs a step in the checkout, and stages run in the folder of the pipeline.
_IN_FOLDER = 'cd "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Question:
    """What is asked: between which commits a point became slower, in which metric and by how much."""

    good: str
    bad: str
    point: str
    metric: str
    threshold: float
    rounds: int
    max_rounds: int


@dataclass(frozen=True)
class Answer:
    """The answer in words, and the commit, None where it is undecided."""

    text: str
    commit: Commit | None


def bisect(checkout: Path, question: Question, records: Path | None = None) -> Answer:
    """Return the first commit of the checkout that is slower than the good one by more than the threshold.

    The checkout is as before afterwards, after an interruption too. `records` is a folder to keep the measurements in.
    Raises `UserError` where the commits, the point or the metric do not serve, and where there is nothing to bisect:
    the bad commit is not slower than the good one, or that is undecided.
    """
    repository = Repository(checkout)
    good, bad = repository.commit(question.good), repository.commit(question.bad)
    commits = _commits_between(repository, good, bad)
    with ending_in_order(), _folder(records) as folder, repository.borrowed():
        plan = _plan(repository, question, good, commits, folder)
        plan.save(plan.path)
        _require_difference(repository, plan, bad)
        confidence = f"{1 - plan.rule.error:.1%} confidence, however many rounds it takes"
        _say(f"Is {bad} slower than {good}? Each verdict at {confidence}.")
        _step(plan, bad)
        if error := unfit(CommitVerdict.load(plan.verdict(bad.sha)), plan, bad):
            raise error
        _say(f"It is. Looking for the first slower one of {commits} commits.")
        marks = _run_git_bisect(repository, plan, bad)
        verdicts = {path.stem: CommitVerdict.load(path) for path in plan.verdicts.glob("*.json")}
    named = {repository.commit(sha): verdict for sha, verdict in verdicts.items()}
    return Answer("\n".join([answer(marks, verdicts, plan), *failures(named)]), marks.first)


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


def _plan(repository: Repository, question: Question, good: Commit, commits: int, folder: Path) -> Plan:
    """Bring up to date what the point needs, and return the plan."""
    from dvc.repo import Repo

    stages = load_params(PARAMS).stages()
    point, _ = find_point(stages, question.point)
    [metric] = [each for each in METRICS if each.name == question.metric]
    dvc("repro", f"inputs@{point.model}")
    with Repo() as repo:
        command = repo.stage.load_one(name=stages[point]).cmd
    return Plan(
        checkout=str(repository.folder),
        folder=str(folder),
        good=good,
        point=point,
        command=command,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        unit=metric.unit,
        rule=Rule(question.threshold, question.rounds, question.max_rounds, decisions_among(commits)),
        owner=os.getpid(),
    )


def _require_difference(repository: Repository, plan: Plan, bad: Commit) -> None:
    for commit in (plan.good, bad):
        repository.switch(commit)
        describe_into(Path(), plan.environment(commit))
    require_measured(repository.folder, {commit: plan.environment(commit) for commit in (plan.good, bad)})


def _step_command(plan: Plan) -> list[str]:
    return [sys.executable, "-m", "hfbench.checkouts.step", str(plan.path)]


def _step(plan: Plan, commit: Commit) -> None:
    """Judge one commit as git bisect would have it judged."""
    status = run_to_end([*_step_command(plan), commit.sha], Path())
    if not plan.verdict(commit.sha).exists():
        raise _stopped(plan, f"the step exited with status {status}")


def _run_git_bisect(repository: Repository, plan: Plan, bad: Commit) -> Marks:
    log = Path(plan.folder) / "git.txt"
    try:
        # git moves no files: each step switches between the good commit and its candidate by itself.
        terms = (f"--term-old={FAST}", f"--term-new={SLOW}")
        repository.git("bisect", "start", "--no-checkout", *terms, bad.sha, plan.good.sha)
        command = ["git", "bisect", "run", "sh", "-c", _IN_FOLDER, "sh", str(Path().resolve()), *_step_command(plan)]
        with log.open("wb") as stream:
            run_to_end(command, repository.folder, stdout=stream)
        marks = Marks.read(repository.git("bisect", "log"))
    finally:
        with uninterrupted():
            try_git(repository.folder, "bisect", "reset")
    if marks.first is None and not marks.possible:
        raise _stopped(plan, "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]))
    _check(plan, marks)
    return marks


def _check(plan: Plan, marks: Marks) -> None:
    """Stop where git took an exit status for a verdict that no step gave: that of a Python which cannot start is 1."""
    for sha, word in marks.marked.items():
        path = plan.verdict(sha)
        if sha != plan.good.sha and not (path.exists() and CommitVerdict.load(path).word == word):
            raise RuntimeError(f"git bisect took {sha} for {word}, which no step found")


def _stopped(plan: Plan, otherwise: str) -> UserError:
    text = plan.complaint.read_text(encoding="utf-8") if plan.complaint.exists() else otherwise
    return UserError(f"the bisection stopped: {text}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
