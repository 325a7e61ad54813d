"""Measure commits of an editable checkout in interleaved rounds, and save each one's results as an experiment."""

import argparse
from pathlib import Path

HELP = "measure commits of an editable checkout in interleaved rounds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--checkout", type=Path, required=True, help="git checkout of a package that is installed with pip install -e"
    )
    parser.add_argument("revisions", nargs="+", metavar="REVISION", help="two commits, tags or branches of it, or more")
    parser.add_argument("--rounds", type=int, help="how many, in place of sweep.round of params.yaml")
    parser.add_argument("--names", nargs="+", default=[], metavar="NAME", help="experiment of each (CHECKOUT-COMMIT)")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print how to compare what was measured."""
    from hfbench.checkouts.interleave import interleave
    from hfbench.core.errors import UserError

    if len(arguments.revisions) == 1:
        raise UserError("one revision was given. Give two or more to compare, the baseline first.")
    if arguments.rounds is not None and arguments.rounds < 1:
        raise UserError(f"--rounds is {arguments.rounds}; expected 2 or more.")
    sides = interleave(arguments.checkout, arguments.revisions, rounds=arguments.rounds, experiments=arguments.names)
    for side in sides:
        print(f"experiment {side.experiment}: {side.commit}")
    print(f"To compare them: hfbench compare {' '.join(side.experiment for side in sides)}")
