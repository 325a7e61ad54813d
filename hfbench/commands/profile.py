"""Trace one iteration of a point with torch.profiler, and print the operators that take longest."""

import argparse
from pathlib import Path

HELP = "trace one iteration of a point, and print the operators that take longest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "point",
        metavar="POINT",
        help="a point of params.yaml, measured or not: its key, words of it, its stage, or a part that fits no other",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the trace, gzipped (results/profiles/NAME.json.gz)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Profile the point, in a process of its own."""
    from hfbench.profile.command import profile_point

    profile_point(arguments.point, arguments.output)
