"""Check params.yaml and name whatever is wrong in it."""

import argparse
from pathlib import Path

HELP = "check params.yaml and name whatever is wrong in it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="file to check (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Check the file; raises `UserError` for what is wrong in it."""
    from hfbench.params.schema import load_params

    load_params(arguments.params)
