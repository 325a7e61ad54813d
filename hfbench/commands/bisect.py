"""Find the first commit of an editable checkout that made a point slower, by `git bisect run`."""

import argparse
import sys
from pathlib import Path

HELP = "find the commit of an editable checkout that made a point slower"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--checkout", type=Path, required=True, help="git checkout of a package that is installed with pip install -e"
    )
    parser.add_argument("--good", required=True, metavar="COMMIT", help="a commit before it became slower")
    parser.add_argument("--bad", required=True, metavar="COMMIT", help="a later commit that is slower")
    parser.add_argument("--point", required=True, metavar="KEY", help="key of a point, or a part of it")
    parser.add_argument("--metric", default="end_to_end_seconds", help="what became slower (%(default)s)")
    parser.add_argument("--threshold", type=float, default=0.05, help="by more than which share (%(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="after how many to look first (%(default)s)")
    parser.add_argument("--max-rounds", type=int, default=16, help="after how many to give a commit up (%(default)s)")
    parser.add_argument("--records", type=Path, metavar="FOLDER", help="keep what is measured in an empty folder")


def run(arguments: argparse.Namespace) -> None:
    """Print the first slower commit; exit with 1 where that is undecided."""
    from hfbench.checkouts.bisect import Question, bisect
    from hfbench.core.errors import UserError
    from hfbench.tables.metrics import METRIC_NAMES

    if arguments.metric not in METRIC_NAMES:
        raise UserError(f"--metric {arguments.metric!r} is none. Expected one of: {', '.join(METRIC_NAMES)}.")
    if not 0 < arguments.threshold < 1:
        raise UserError(f"--threshold is {arguments.threshold:g}; expected a share between 0 and 1, such as 0.05.")
    if not 2 <= arguments.rounds <= arguments.max_rounds:
        raise UserError(
            f"--rounds is {arguments.rounds} and --max-rounds {arguments.max_rounds}; expected at least 2 rounds, and "
            "no more than --max-rounds."
        )
    question = Question(
        good=arguments.good,
        bad=arguments.bad,
        point=arguments.point,
        metric=arguments.metric,
        threshold=arguments.threshold,
        rounds=arguments.rounds,
        max_rounds=arguments.max_rounds,
    )
    found = bisect(arguments.checkout, question, arguments.records)
    print(found.text)
    if found.commit is None:
        sys.exit(1)
