"""Print the results of the last `dvc repro`, or all that is known of one point."""

import argparse
from pathlib import Path

HELP = "print the results of the last `dvc repro`, or all that is known of one point"
FORMATS = ("table", "markdown", "csv", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--sort", metavar="COLUMN[:desc]", help="by a metric or an axis, such as decode:desc")
    parser.add_argument(
        "--filter", metavar="CONDITION", help="such as 'attn_implementation == \"sdpa\" and batch_size >= 4'"
    )
    parser.add_argument("--columns", metavar="A,B,C", help="axes and metrics, by their full names or those displayed")
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="csv and json have full precision (%(default)s)"
    )
    parser.add_argument(
        "--point",
        metavar="KEY",
        help="one point: its key in metrics_by_point.json, its stage or record, or a part that fits no other",
    )
    parser.add_argument(
        "--tables", type=Path, default=Path("results/tables"), help="folder of the tables (%(default)s)"
    )
    parser.add_argument(
        "--measurements", type=Path, default=Path("results/measurements"), help="folder of the records (%(default)s)"
    )
    parser.add_argument("--report", type=Path, default=Path("results/report.html"), help="HTML report (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Print what was asked for. Raises `UserError` where it is not there, or a name is not known."""
    from hfbench.core.errors import UserError
    from hfbench.report.overview import Choice
    from hfbench.report.show import show_point, show_results

    names = tuple(filter(None, (name.strip() for name in (arguments.columns or "").split(","))))
    choice = Choice(arguments.filter, arguments.sort, names)
    if arguments.point is None:
        show_results(arguments.tables, choice, arguments.format, arguments.report)
    elif choice != Choice() or arguments.format != "table":
        raise UserError("--point shows one point whole; it goes with none of --sort, --filter, --columns and --format.")
    else:
        show_point(arguments.tables, arguments.measurements, arguments.point)
