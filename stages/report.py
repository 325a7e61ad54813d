"""Makes the HTML report from the tables and what is known of the machine."""

import argparse
import os
from pathlib import Path

from hfbench.foundation.errors import run
from hfbench.foundation.files import read_json, write_text
from hfbench.reporting.page import report_page
from hfbench.tables.storage import read_table
from hfbench.tables.warning_file import read_warnings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the parquet files")
    parser.add_argument("--environment", type=Path, required=True, help="JSON file of the stage environment")
    parser.add_argument("--ceilings", type=Path, help="JSON file of the stage ceilings; it may be missing")
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")
    arguments = parser.parse_args()
    has_ceilings = arguments.ceilings is not None and arguments.ceilings.exists()
    page = report_page(
        summary=read_table(arguments.tables, "summary"),
        points=read_table(arguments.tables, "points"),
        configurations=read_table(arguments.tables, "configurations"),
        warnings=read_warnings(arguments.tables),
        environment=read_json(arguments.environment),
        ceilings=read_json(arguments.ceilings) if has_ceilings else {},
    )
    write_text(arguments.output, page)
    if os.environ.get("HFBENCH_TABLE") != "off":
        print(f"report: {arguments.output}")


if __name__ == "__main__":
    run(main)
