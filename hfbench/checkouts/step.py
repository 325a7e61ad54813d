"""One step of a bisection, for `git bisect run`: judges one commit, and says it by its exit status.

`python -m hfbench.checkouts.step PLAN [COMMIT]` runs in the folder of the pipeline. Without a commit, it is the one
that git bisect asks about. See `hfbench.checkouts.verdicts.EXIT_STATUSES`.
"""

import hashlib
import sys
import traceback
from pathlib import Path

from hfbench.checkouts.pairs import describe_commit, measure_pairs
from hfbench.checkouts.plan import Plan
from hfbench.checkouts.repository import Commit, Repository
from hfbench.checkouts.verdicts import EXIT_STATUSES, FAILED, FAST, STOP_STATUS, UNDECIDED, Verdict, decide
from hfbench.foundation.errors import UserError
from hfbench.foundation.files import write_text

_CANDIDATE = "BISECT_HEAD"  # what `git bisect start --no-checkout` calls the commit that it asks about


def judge(plan: Plan, commit: Commit) -> Verdict:
    """Return the verdict on a commit: measured beside the good one, unless the code that is measured has one already.

    Raises `UserError` where no verdict is possible, on this or any other commit.
    """
    Repository(Path(plan.checkout)).switch(commit)
    environment = hashlib.sha256(describe_commit(plan, commit)).hexdigest()
    if environment == hashlib.sha256(plan.environment(plan.good).read_bytes()).hexdigest():
        return Verdict(FAST, environment, reason=f"to a measurement, it is the same as {plan.good}")
    for path in sorted(plan.verdicts.glob("*.json")):
        verdict = Verdict.load(path)
        if verdict.environment == environment:
            return verdict
    return _measure(plan, commit, environment)


def _measure(plan: Plan, commit: Commit, environment: str) -> Verdict:
    values: tuple[list[float], list[float]] = ([], [])
    word, ratio = UNDECIDED, None
    for outcomes in measure_pairs(plan, commit):
        for side, outcome in zip(values, outcomes, strict=True):
            if outcome.value is None:
                return Verdict(FAILED, environment, len(values[0]), reason=f"{outcome.commit} {outcome.reason}")
            side.append(outcome.value)
        rounds = len(values[0])
        if rounds in plan.rule.looks:
            word, ratio = decide(*values, higher_is_better=plan.higher_is_better, rule=plan.rule)
        if word != UNDECIDED or rounds == plan.rule.max_rounds:
            break
    return Verdict(word, environment, len(values[0]), ratio)


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
