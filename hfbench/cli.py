"""The command `hfbench`: what a person asks of the results beside `dvc`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hfbench.errors import run


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments; `command` is the function that runs them."""
    parser = argparse.ArgumentParser(prog="hfbench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="check params.yaml and name whatever is wrong in it")
    check.add_argument("--params", type=Path, default=Path("params.yaml"), help="file to check (%(default)s)")
    check.set_defaults(command=_check)
    show = commands.add_parser("show", help="print the results of the last `dvc repro`")
    show.add_argument("--tables", type=Path, default=Path("results/tables"), help="folder of the tables (%(default)s)")
    show.add_argument("--report", type=Path, default=Path("results/report.html"), help="HTML report (%(default)s)")
    show.set_defaults(command=_show)
    return parser.parse_args(words)


def main() -> None:
    """Run the command that the command line asks for."""
    arguments = parse_arguments()
    run(lambda: arguments.command(arguments))


def _check(arguments: argparse.Namespace) -> None:
    from hfbench.params import load_params

    load_params(arguments.params)


def _show(arguments: argparse.Namespace) -> None:
    from hfbench.reporting.terminal import print_results

    print_results(arguments.tables)
    if arguments.report.exists():
        print(f"\nreport: {arguments.report}")


if __name__ == "__main__":
    main()
