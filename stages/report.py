"""Stage `report`: the HTML report, the data of DVC's plots, and the table on the terminal."""

import os

from hfbench.core.errors import run
from hfbench.core.files import read_json, write_text
from hfbench.core.results import CEILINGS, ENVIRONMENT, MODELS, PARAMS, PLOTS, REPORT, TABLES
from hfbench.report.page import report_page
from hfbench.report.plots import write_plots
from hfbench.report.printed import print_results
from hfbench.report.sources import read_ceilings, read_manifests, read_params
from hfbench.tables.store import read_table
from hfbench.tables.warnings import read_warnings


def main() -> None:
    tables = {name: read_table(TABLES, name) for name in ("points", "samples", "summary", "configurations")}
    page = report_page(
        **tables,
        warnings=read_warnings(TABLES),
        environment=read_json(ENVIRONMENT),
        ceilings=read_ceilings(CEILINGS),
        manifests=read_manifests(MODELS, tables["points"]),
        params=read_params(PARAMS),
    )
    write_text(REPORT, page)
    write_plots(tables["summary"], tables["samples"], tables["points"], PLOTS)
    if os.environ.get("HFBENCH_TABLE") != "off":
        print_results(TABLES)
        print("report:", REPORT)


if __name__ == "__main__":
    run(main)
