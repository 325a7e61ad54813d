"""How long the report of 100 points takes to be written, and until its page can be used in headless Chromium.

`python -m benchmarks.report [REPEATS]` makes the tables of 100 configurations in 3 rounds of 20 iterations in a
temporary folder, runs the stage as a process of its own, and opens the page without a network: until it is loaded and
answers, until its charts are drawn, and the longest that it was deaf meanwhile. It prints the least of REPEATS runs
(3). Where the seconds are far above the CPU seconds, the machine had other work.
"""

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from hfbench.core import results
from hfbench.core.files import write_json
from tests.conftest import run_stage
from tests.report.report_records import CEILINGS, sweep_records
from tests.tables.hand_records import tables_of

_AXES: dict[str, list[Any]] = {
    "attn_implementation": ["eager", "sdpa"],
    "batch_size": [1, 2, 4, 8, 16],
    "sequence_length": [32 * (1 + index) for index in range(10)],
}
_ROUNDS, _ITERATIONS = 3, 20
_MOST_SECONDS, _MOST_INTERACTIVE_SECONDS, _MOST_BYTES = 10.0, 2.0, 5_000_000
_DRAWN_TIMEOUT_MS = 120_000
# Tasks of more than 50 ms keep a page from answering: https://www.w3.org/TR/longtasks-1/
_OBSERVE = """window.longest = 0; new PerformanceObserver(list => list.getEntries().forEach(each => {
  window.longest = Math.max(window.longest, each.duration); })).observe({type: 'longtask', buffered: true});
addEventListener('load', () => setTimeout(() => { window.answers = performance.now(); }, 0));"""


def main() -> None:
    """Write the report, open it, and print how long that took."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory(prefix="hfbench-report-") as temporary:
        folder = Path(temporary)
        records = sweep_records(_ROUNDS, _ITERATIONS, noise=0.01, **_AXES)
        tables_of(folder / "measurements", *records, ceilings=CEILINGS).write(folder / results.TABLES)
        write_json(folder / results.ENVIRONMENT, {"packages": {}})
        write_json(folder / results.CEILINGS, CEILINGS)
        written, cpu = (min(each) for each in zip(*(_write(folder) for _ in range(repeats)), strict=True))
        page = folder / results.REPORT
        loaded, drawn, longest = (min(each) for each in zip(*_opened(page, repeats), strict=True))
        rows = [
            ("written", written, _MOST_SECONDS, "s"),
            ("written, CPU time", cpu, None, "s"),
            ("size", page.stat().st_size / 1e6, _MOST_BYTES / 1e6, "MB"),
            ("loaded, and answers", loaded, _MOST_INTERACTIVE_SECONDS, "s"),
            ("longest task until drawn", longest, None, "s"),
            ("all charts drawn", drawn, None, "s"),
        ]
    table = Table("report of 100 points", "measured", "at most", "")
    for name, value, limit, unit in rows:
        mark = "" if limit is None else "✓" if value <= limit else "✗"
        table.add_row(name, f"{value:.2f} {unit}", "" if limit is None else f"{limit:g} {unit}", mark)
    Console().print(table)


def _write(folder: Path) -> tuple[float, float]:
    """Run the stage, and return how many seconds and CPU seconds it took."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run_stage("report", folder, HFBENCH_TABLE="off").check_returncode()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _opened(path: Path, repeats: int) -> list[tuple[float, float, float]]:
    """Return seconds until the page answers and until it is drawn, and its longest task, of each opening."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is not on the path. Install it, on Debian with `apt-get install chromium`.")
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] * (os.geteuid() == 0)
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        return [_open(browser, path) for _ in range(repeats)]


def _open(browser: Browser, path: Path) -> tuple[float, float, float]:
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.add_init_script(_OBSERVE)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn=yes]", state="attached", timeout=_DRAWN_TIMEOUT_MS)
    answers, drawn, longest = page.evaluate("[window.answers, performance.now(), window.longest]")
    context.close()
    return answers / 1e3, drawn / 1e3, longest / 1e3


if __name__ == "__main__":
    main()
