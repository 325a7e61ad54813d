"""Measure again what failed, then bring the pipeline up to date."""

import argparse

HELP = "measure again what failed, then bring the pipeline up to date"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="stage of a point, a part of it, or a pattern (all that failed)"
    )
    parser.add_argument("--status", action="append", default=[], help="only points of this status; may be repeated")
    parser.add_argument("--dry", action="store_true", help="only say what would be measured again")


def run(arguments: argparse.Namespace) -> None:
    """Measure the points again, through DVC."""
    from hfbench.retry import retry

    retry(arguments.names, arguments.status, dry=arguments.dry)
