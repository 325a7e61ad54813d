"""One point measured on two commits, round by round, apart from DVC: nothing of an earlier bisection is taken.

A bisection compares every candidate with the good commit of the same minutes. DVC would bring the good commit's rounds
back from the first comparison.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hfbench.checkouts.environments import describe_into, what_changed
from hfbench.checkouts.plan import Plan
from hfbench.checkouts.processes import run_to_end
from hfbench.checkouts.repository import Commit, Repository
from hfbench.foundation.errors import UserError
from hfbench.foundation.records import OK

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
            outcomes[commit] = _measure(plan, commit, number, Path(plan.folder, "records", candidate.sha, side))
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


def _measure(plan: Plan, commit: Commit, number: int, folder: Path) -> Outcome:
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
    from hfbench.tables.points import points_table
    from hfbench.tables.reading import read_records
    from hfbench.tables.samples import samples_table
    from hfbench.tables.summary import summary_table

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
