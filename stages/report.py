"""Makes the HTML report, and the data of DVC's plots, from the tables and what is known of machine and models."""

import argparse
import os
from pathlib import Path

from hfbench.core.errors import run
from hfbench.core.files import read_json, write_text
from hfbench.report.html import read_ceilings, read_manifests, read_params, report_page
from hfbench.report.plots import write_plots
from hfbench.tables.store import read_table
from hfbench.tables.warnings import read_warnings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("tables", "environment", "output", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="what to read or write, as dvc.yaml names it")
    for name in ("ceilings", "models", "params"):
        parser.add_argument(f"--{name}", type=Path, help="what the page quotes where it is there")
    arguments = parser.parse_args()
    tables = {name: read_table(arguments.tables, name) for name in ("points", "samples", "summary", "configurations")}
    page = report_page(
        **tables,
        warnings=read_warnings(arguments.tables),
        environment=read_json(arguments.environment),
        ceilings=read_ceilings(arguments.ceilings),
        manifests=read_manifests(arguments.models, tables["points"]),
        params=read_params(arguments.params),
    )
    write_text(arguments.output, page)
    write_plots(tables["summary"], tables["samples"], tables["points"], arguments.plots)
    if os.environ.get("HFBENCH_TABLE") != "off":
        print("report:", arguments.output)


if __name__ == "__main__":
    run(main)
