"""Makes the tables and the headline numbers of the current sweep from its measurement records, and prints them."""

import argparse
import os
from pathlib import Path

from hfbench.core.errors import run
from hfbench.core.files import read_json, write_json
from hfbench.params.schema import load_params
from hfbench.report.pages import print_results
from hfbench.tables.build import build_tables, headline, headline_by_point
from hfbench.tables.reading import read_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--measurements", type=Path, required=True, help="folder of records, searched with sub-folders")
    parser.add_argument("--ceilings", type=Path, required=True, help="JSON file of the stage ceilings")
    parser.add_argument("--tables", type=Path, required=True, help="folder for tables and warnings")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for `dvc metrics`")
    parser.add_argument("--metrics-by-point", type=Path, help="JSON file with those of each point")
    arguments = parser.parse_args()
    params = load_params(arguments.params)
    records = read_records(arguments.measurements, params.points())
    tables = build_tables(records, read_json(arguments.ceilings), params.limits)
    tables.write(arguments.tables)
    write_json(arguments.metrics, headline(tables))
    if arguments.metrics_by_point is not None:
        write_json(arguments.metrics_by_point, headline_by_point(tables))
    if os.environ.get("HFBENCH_TABLE") != "off":
        print_results(arguments.tables)


if __name__ == "__main__":
    run(main)
