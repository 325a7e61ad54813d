"""Print the results of the last `dvc repro`."""

import argparse
from pathlib import Path

HELP = "print the results of the last `dvc repro`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--tables", type=Path, default=Path("results/tables"), help="folder of the tables (%(default)s)"
    )
    parser.add_argument("--report", type=Path, default=Path("results/report.html"), help="HTML report (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Print the results, and where the report is."""
    from hfbench.reporting.terminal import print_results

    print_results(arguments.tables)
    if arguments.report.exists():
        print(f"\nreport: {arguments.report}")
