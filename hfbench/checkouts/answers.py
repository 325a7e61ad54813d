"""What a bisection found, in words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hfbench.checkouts.plan import Plan
from hfbench.checkouts.repository import Commit
from hfbench.checkouts.verdicts import FAILED, FAST, SLOW, UNDECIDED, Verdict
from hfbench.foundation.errors import UserError

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


def unfit(verdict: Verdict, plan: Plan, bad: Commit) -> UserError | None:
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


def answer(marks: Marks, verdicts: Mapping[str, Verdict], plan: Plan) -> str:
    """Return the answer: the first slower commit and by how much, or those that it can be and why."""
    if marks.first is not None:
        return f"The first slower commit is {marks.first}.\n{_evidence(verdicts[marks.first.sha], plan)}"
    lines = [f"\n  {commit}{_doubt(verdicts.get(commit.sha), plan)}" for commit in marks.possible]
    return f"undecided: the first slower commit is one of{''.join(lines)}{_remedy(marks, verdicts, plan)}"


def failures(verdicts: Mapping[Commit, Verdict]) -> Sequence[str]:
    """Return a sentence for each commit at which the point could not be measured: that is a finding too."""
    return [
        f"{commit} was left out: {verdict.reason}" for commit, verdict in verdicts.items() if verdict.word == FAILED
    ]


def _remedy(marks: Marks, verdicts: Mapping[str, Verdict], plan: Plan) -> str:
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


def _doubt(verdict: Verdict | None, plan: Plan) -> str:
    if verdict is None:
        return ""
    return f": {verdict.word}. {_evidence(verdict, plan)}"


def _evidence(verdict: Verdict, plan: Plan) -> str:
    """Return the ratio as a sentence, or the reason why there is none."""
    if verdict.ratio is None:
        return f"{verdict.reason or 'it was not measured'}."
    estimate, low, high = verdict.ratio
    return (
        f"Its {plan.metric} is {estimate:.3f} times that of {plan.good} ({plan.rule.confidence:.1%} interval {low:.3f} "
        f"to {high:.3f}, {verdict.rounds} rounds)."
    )
