"""Stage `report`: the HTML report, the data of DVC's plots, and the table on the terminal."""

import os

from hfbench.core.errors import run
from hfbench.core.results import PLOTS, REPORT, TABLES
from hfbench.report.frames import read_results, write_plots
from hfbench.report.html import write_report
from hfbench.report.show import Choice, show_results
from hfbench.tables.store import read_table


def main() -> None:
    results, samples = read_results(TABLES), read_table(TABLES, "samples")
    write_report(results, samples, REPORT)
    write_plots(results.summary, samples, results.points, PLOTS)
    if os.environ.get("HFBENCH_TABLE") != "off":
        show_results(TABLES, Choice(), "table", REPORT)


if __name__ == "__main__":
    run(main)
