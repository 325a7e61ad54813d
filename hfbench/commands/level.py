"""Write a coverage preset into params.yaml, as transformers' own benchmark has them.

0: one main configuration; 1: a few important ones; 2: one for each attention and option; 3: the cross product; 4: the
cross product with all compile modes. Model, rounds, batch sizes, lengths and all other axes stay as they are.
"""

import argparse
from pathlib import Path

HELP = "write a coverage preset, 0 to 4, into params.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("level", metavar="N", help="0 to 4, more at each; see docs/levels.md")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="file to write to (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Write the level. Raises `UserError` for a number that is no level, or where params.yaml is wrong."""
    from hfbench.core.errors import UserError
    from hfbench.params.levels import LEVELS, way_back, write_level

    if arguments.level not in map(str, LEVELS):
        raise UserError(f"level {arguments.level!r} is none. Expected one of: {', '.join(map(str, LEVELS))}.")
    back = way_back(arguments.params)
    count = write_level(int(arguments.level), arguments.params)
    print(f"{arguments.params}: level {arguments.level}, {count} configuration{'s' * (count != 1)} in each round")
    if back:
        print(f"Back to what it was: {back}")
