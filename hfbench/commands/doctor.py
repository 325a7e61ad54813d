"""Check whether this machine is fit to measure, and say what to do."""

import argparse
import sys
from pathlib import Path

HELP = "check whether this machine is fit to measure, and say what to do"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="what is to be measured (%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 where there is a warning")


def run(arguments: argparse.Namespace) -> None:
    """Print the findings; with --strict, exit with 1 where one is a warning."""
    from hfbench.doctor import doctor

    if status := doctor(arguments.params, arguments.results, strict=arguments.strict):
        sys.exit(status)
