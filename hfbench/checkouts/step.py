"""One step of a bisection, for `git bisect run`: judges one commit, and says it by its exit status.

`python -m hfbench.checkouts.step PLAN [COMMIT]` runs in the folder of the pipeline. Without a commit, it is the one
that git bisect asks about. See `hfbench.checkouts.plan.EXIT_STATUSES`.
"""

import hashlib
import shlex
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hfbench.checkouts.plan import EXIT_STATUSES, FAILED, STOP_STATUS, CommitVerdict, Plan, decide
from hfbench.checkouts.processes import run_to_end
from hfbench.checkouts.workspace import describe_into, what_changed
from hfbench.core.errors import UserError
from hfbench.core.files import write_text
from hfbench.core.record import OK
from hfbench.git import Commit, Repository
from hfbench.statistics.verdicts import FAST, UNDECIDED

_LOG_LINES = 20  # of a measurement that stopped, in the error


@dataclass(frozen=True)
class Outcome:
    """How the measurement of a commit ended: with a value of the metric, or with the reason why it has none."""

    commit: Commit
    value: float | None
    reason: str | None


def measure_pairs(plan: Plan, candidate: Commit) -> Iterator[tuple[Outcome, Outcome]]:
    """Yield, round by round, what was measured on the good commit and on the candidate.

    Every other round begins with the candidate, so that a machine that slows down favours neither. Raises `UserError`
    where a measurement cannot be made at all.
    """
    repository = Repository(Path(plan.checkout))
    number = 0
    while True:
        number += 1
        order = (plan.good, candidate) if number % 2 else (candidate, plan.good)
        outcomes = {}
        for commit in order:
            if not plan.has_owner():
                raise UserError("the process that bisects is gone.")
            repository.switch(commit)
            side = "good" if commit == plan.good else "candidate"
            outcomes[commit] = _measure_pair(plan, commit, number, Path(plan.folder, "records", candidate.sha, side))
        yield outcomes[plan.good], outcomes[candidate]


def describe_commit(plan: Plan, commit: Commit) -> bytes:
    """Describe the environment of the commit that is checked out, which must be as it was before. See `Plan`."""
    path = plan.environment(commit)
    before = path.read_bytes() if path.exists() else None
    described = describe_into(Path(), path)
    if before is not None and before != described:
        raise UserError(
            f"The environment changed while {commit} was measured ({what_changed(before, described)}): a package was "
            "installed, a setting of the machine changed, or the checkout was edited. Bisect again."
        )
    return described


def _measure_pair(plan: Plan, commit: Commit, number: int, folder: Path) -> Outcome:
    describe_commit(plan, commit)
    base = folder / str(number)
    base.mkdir(parents=True)
    # Of an option that is given twice, the last one counts.
    options = {"round": number, "environment": plan.environment(commit), "output": base / "record.json"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    log = base / "stage.txt"
    with log.open("wb") as stream:
        command = [*shlex.split(plan.command), *words, "--log", str(base / "worker.txt")]
        status = run_to_end(command, Path(), stdout=stream, stderr=stream, own_group=False)
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise UserError(f"the measurement of {commit} stopped with exit status {status}:\n{tail}")
    return _outcome(plan, commit, number, base)


def _outcome(plan: Plan, commit: Commit, number: int, folder: Path) -> Outcome:
    from hfbench.tables.build import points_table
    from hfbench.tables.reading import read_records
    from hfbench.tables.summary import samples_table, summary_table

    [record] = read_records(folder, [replace(plan.point, round=number)])
    if record.facts["status"] != OK:
        return Outcome(commit, None, f"{record.facts['status']}: {record.facts['reason']}")
    samples = samples_table([record])
    summary = summary_table(samples, points_table([record], samples))
    estimates = dict(zip(summary["metric"], summary["estimate"], strict=True))
    if plan.metric not in estimates:
        raise UserError(f"{commit} has no {plan.metric} at this point. Expected one of: {', '.join(estimates)}.")
    value = float(estimates[plan.metric])
    print(f"  round {number}: {value:.4g} {plan.unit}  {commit}", file=sys.stderr, flush=True)
    return Outcome(commit, value, None)


_CANDIDATE = "BISECT_HEAD"  # what `git bisect start --no-checkout` calls the commit that it asks about


def judge(plan: Plan, commit: Commit) -> CommitVerdict:
    """Return the verdict on a commit: measured beside the good one, unless the code that is measured has one already.

    Raises `UserError` where no verdict is possible, on this or any other commit.
    """
    Repository(Path(plan.checkout)).switch(commit)
    environment = hashlib.sha256(describe_commit(plan, commit)).hexdigest()
    if environment == hashlib.sha256(plan.environment(plan.good).read_bytes()).hexdigest():
        return CommitVerdict(FAST, environment, reason=f"to a measurement, it is the same as {plan.good}")
    for path in sorted(plan.verdicts.glob("*.json")):
        verdict = CommitVerdict.load(path)
        if verdict.environment == environment:
            return verdict
    return _measure(plan, commit, environment)


def _measure(plan: Plan, commit: Commit, environment: str) -> CommitVerdict:
    values: tuple[list[float], list[float]] = ([], [])
    word, ratio = UNDECIDED, None
    for outcomes in measure_pairs(plan, commit):
        for side, outcome in zip(values, outcomes, strict=True):
            if outcome.value is None:
                return CommitVerdict(FAILED, environment, len(values[0]), reason=f"{outcome.commit} {outcome.reason}")
            side.append(outcome.value)
        rounds = len(values[0])
        if rounds >= plan.rule.rounds:
            word, ratio = decide(*values, higher_is_better=plan.higher_is_better, rule=plan.rule)
        if word != UNDECIDED or rounds == plan.rule.max_rounds:
            break
    return CommitVerdict(word, environment, len(values[0]), ratio)


def main() -> int:
    """Judge the commit, and return the exit status: never one that means a verdict where there is none."""
    try:
        plan = Plan.load(Path(sys.argv[1]))
        name = sys.argv[2] if len(sys.argv) > 2 else _CANDIDATE
        commit = Repository(Path(plan.checkout)).commit(name)
        print(f"{commit}", file=sys.stderr, flush=True)
        try:
            verdict = judge(plan, commit)
        except UserError as error:
            write_text(plan.complaint, str(error))
            return STOP_STATUS
        verdict.save(plan.verdict(commit.sha))
        print(f"  {verdict.word}", file=sys.stderr, flush=True)
        return EXIT_STATUSES[verdict.word]
    except KeyboardInterrupt:
        return STOP_STATUS
    except BaseException:  # Python's own exit status, 1, would mean that the commit is slow
        traceback.print_exc()
        return STOP_STATUS


if __name__ == "__main__":
    sys.exit(main())
