"""Write the results for other programs: benchmark_v2's dashboards, spreadsheets, data frames."""

import argparse
from pathlib import Path

HELP = "write the results in the layout of benchmark_v2, as CSV or as parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--format", choices=("benchmark-v2", "csv", "parquet"), required=True)
    parser.add_argument(
        "--output", type=Path, default=Path("results/exported"), help="folder, or a .json file (%(default)s)"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the results (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Write the files and name them. Raises `UserError` where there are no results."""
    from hfbench.exchange.export import export_benchmark_v2, export_flat

    if arguments.format == "benchmark-v2":
        written = export_benchmark_v2(arguments.results, arguments.output)
    else:
        written = export_flat(arguments.results / "tables", arguments.output, arguments.format)
    for path in written:
        print(path)
