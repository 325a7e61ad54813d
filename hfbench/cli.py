"""The command `hfbench`: what a person asks of the results beside `dvc`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hfbench.foundation.errors import run


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments; `command` is the function that runs them."""
    parser = argparse.ArgumentParser(prog="hfbench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="check params.yaml and name whatever is wrong in it")
    check.add_argument("--params", type=Path, default=Path("params.yaml"), help="file to check (%(default)s)")
    check.set_defaults(command=_check)
    doctor = commands.add_parser("doctor", help="check whether this machine is fit to measure, and say what to do")
    doctor.add_argument("--params", type=Path, default=Path("params.yaml"), help="what is to be measured (%(default)s)")
    doctor.add_argument("--results", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    doctor.add_argument("--strict", action="store_true", help="exit with status 1 where there is a warning")
    doctor.set_defaults(command=_doctor)
    show = commands.add_parser("show", help="print the results of the last `dvc repro`")
    show.add_argument("--tables", type=Path, default=Path("results/tables"), help="folder of the tables (%(default)s)")
    show.add_argument("--report", type=Path, default=Path("results/report.html"), help="HTML report (%(default)s)")
    show.set_defaults(command=_show)
    retry = commands.add_parser("retry", help="measure again what failed, then bring the pipeline up to date")
    retry.add_argument(
        "names", nargs="*", metavar="NAME", help="stage of a point, a part of it, or a pattern (all that failed)"
    )
    retry.add_argument("--status", action="append", default=[], help="only points of this status; may be repeated")
    retry.add_argument("--dry", action="store_true", help="only say what would be measured again")
    retry.set_defaults(command=_retry)
    return parser.parse_args(words)


def main() -> None:
    """Run the command that the command line asks for."""
    arguments = parse_arguments()
    run(lambda: arguments.command(arguments))


def _check(arguments: argparse.Namespace) -> None:
    from hfbench.foundation.params import load_params

    load_params(arguments.params)


def _doctor(arguments: argparse.Namespace) -> None:
    from hfbench.doctor.command import doctor

    if status := doctor(arguments.params, arguments.results, strict=arguments.strict):
        sys.exit(status)


def _show(arguments: argparse.Namespace) -> None:
    from hfbench.reporting.terminal import print_results

    print_results(arguments.tables)
    if arguments.report.exists():
        print(f"\nreport: {arguments.report}")


def _retry(arguments: argparse.Namespace) -> None:
    from hfbench.retry import retry

    retry(arguments.names, arguments.status, dry=arguments.dry)


if __name__ == "__main__":
    main()
