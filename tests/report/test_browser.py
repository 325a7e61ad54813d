"""The report in a real browser without a network: every chart is drawn, nothing fails, and pictures are kept.

The pictures go to the folder that HFBENCH_SCREENSHOTS names, or to pytest's temporary folder.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from hfbench.core.record import UNSUPPORTED, Record
from hfbench.fleet.across import kinds_page, write_html
from tests.report import report_records
from tests.report.report_records import data_of, page_of, sweep_records
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the path: `apt-get install chromium` lets these tests run"
)
# High enough for every point of the sweep to lie under the roof.
CEILINGS = {**report_records.CEILINGS, "matmul_flops_per_second": {"bfloat16": 1e15}}
CHARTS = ("speed", "frontier", "roofline", "shares", "rounds", "tokens", "startup", "memory")
NASTY = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
WIDE, PHONE, PAPER = (1280, 900), (390, 844), (718, 1000)
REST = "details.more svg.marks"
MOST_PANELS = 12  # that are drawn at once
MARKS = "g.role-mark > path, g.role-mark > line, g.role-mark > text"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND"] + ["--no-sandbox"] * (os.geteuid() == 0)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("HFBENCH_SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


def _write(folder: Path, records: Sequence[Record]) -> Path:
    tables = tables_of(folder / "measurements", *records, ceilings=CEILINGS)
    path = folder / "report.html"
    path.write_text(page_of(tables, {"packages": {"polars": {"version": "2.1.0"}}}, CEILINGS))
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two attentions at 3 batch sizes and 2 lengths, in 3 rounds, and one attention that cannot run."""
    records = sweep_records(attn_implementation=["eager", "sdpa"], batch_size=[1, 4, 16], sequence_length=[128, 512])
    axes = [point(round=number, attn_implementation="flash_attention_2", max_new_tokens=32) for number in (1, 2, 3)]
    missing = [failed_record(each, "ImportError: flash_attn is not installed", status=UNSUPPORTED) for each in axes]
    return _write(tmp_path_factory.mktemp("report"), [*records, *missing])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 points of 3 rounds and 20 iterations."""
    attentions, sizes, lengths = ["eager", "sdpa"], [1, 2, 4, 8, 16], [32 * (1 + index) for index in range(10)]
    records = sweep_records(3, 20, attn_implementation=attentions, batch_size=sizes, sequence_length=lengths)
    return _write(tmp_path_factory.mktemp("large"), records)


@contextmanager
def _opened(browser: Browser, path: Path, size: tuple[int, int] = WIDE, *, dark: bool = False) -> Iterator[Page]:
    """The drawn page, without a network. Fails where anything was said on the console, or anything else was loaded."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", offline=True
    )
    said: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    if page.query_selector("[data-chart]"):
        page.wait_for_selector("html[data-drawn=yes]", state="attached", timeout=30_000)
    yield page
    assert said == []
    context.close()


def _marks(page: Page, chart: str) -> int:
    return page.locator(f"[data-chart={chart}]").first.locator(MARKS).count()


def _style(page: Page, selector: str, name: str) -> Any:
    return page.locator(selector).first.evaluate(f"element => getComputedStyle(element)['{name}']")


def test_each_chart_draws_its_marks(browser: Browser, report: Path, pictures: Path) -> None:
    with _opened(browser, report) as page:
        page.screenshot(path=pictures / "report-light.png", full_page=True)
        marks = {chart: _marks(page, chart) for chart in CHARTS}
        panels = page.locator("[data-chart=roofline] g.cell > g").count()
        assert page.locator("[role=img][aria-label]").count() == len(CHARTS)
    # 6 workloads of 2 ways: a line for the same speed, an interval and a dot for sdpa.
    assert marks["speed"] == 6 * 3
    # For each of 2 scenes and 2 ways a line, and for each of 3 batch sizes two intervals, a mark and a number.
    assert marks["frontier"] == 2 * 2 * (1 + 3 * 4)
    # For each of 2 scenes the roof, and for decode and prefill at 3 batch sizes a mark for each way and one number.
    assert marks["roofline"] == 2 * (1 + 2 * 3 * (2 + 1))
    assert panels == 2
    # For each workload the roof, and for each way two marks.
    assert marks["shares"] == 6 * (1 + 2 * 2)
    # For each workload, way and round 6 observed samples and a median.
    assert marks["rounds"] == 6 * 2 * 3 * 7
    # For each workload and way a band, a line, and a point for each of 31 gaps.
    assert marks["tokens"] == 6 * 2 * (1 + 1 + 31)
    # For each workload and way seven phases and the first token.
    assert marks["startup"] == 6 * 2 * (7 + 1)
    # For each workload and way a bar, and a tick for each round.
    assert marks["memory"] == 6 * 2 * (1 + 3)


def test_the_charts_follow_a_dark_page(browser: Browser, report: Path, pictures: Path) -> None:
    selectors = ("body", "[data-chart=memory] g.role-axis-label text", "[data-chart=memory] g.mark-rect.role-mark path")
    colours = []
    for dark in (False, True):
        with _opened(browser, report, dark=dark) as page:
            if dark:
                page.screenshot(path=pictures / "report-dark.png", full_page=True)
            names = ("backgroundColor", "fill", "fill")
            colours.append([_style(page, *each) for each in zip(selectors, names, strict=True)])
    assert colours[0][0] == "rgb(255, 255, 255)"
    assert all(light != dark for light, dark in zip(*colours, strict=True))


def test_the_page_fits_a_phone(browser: Browser, report: Path, pictures: Path) -> None:
    with _opened(browser, report, PHONE) as page:
        page.screenshot(path=pictures / "report-phone.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        widths = page.locator("[data-chart] svg.marks").evaluate_all("all => all.map(each => each.clientWidth)")
        assert len(widths) == len(CHARTS)
        assert max(widths) <= PHONE[0]


def test_a_wider_window_draws_wider_charts(browser: Browser, report: Path) -> None:
    with _opened(browser, report, PHONE) as page:
        page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
        for _ in range(100):
            if page.locator("[data-chart=memory] svg.marks").evaluate("svg => svg.clientWidth") > 600:
                break
            page.wait_for_timeout(100)
        else:
            pytest.fail("the chart kept its width")
        assert _marks(page, "memory") == 6 * 2 * (1 + 3)


def test_paper_is_light_and_without_what_is_to_be_clicked(browser: Browser, report: Path, pictures: Path) -> None:
    with _opened(browser, report, PAPER, dark=True) as page:
        page.emulate_media(media="print")
        page.screenshot(path=pictures / "report-paper.png", full_page=True)
        assert _style(page, "body", "backgroundColor") == "rgb(255, 255, 255)"
        assert _style(page, "nav", "display") == "none"
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_mark_tells_its_numbers(browser: Browser, report: Path) -> None:
    with _opened(browser, report) as page:
        page.locator("[data-chart=memory] g.mark-rect.role-mark path").first.hover()
        tooltip = page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for(timeout=5_000)
        assert "eager" in tooltip.inner_text()
        assert "peak (MiB)" in tooltip.inner_text()


def test_the_table_can_be_sorted_by_a_click(browser: Browser, report: Path) -> None:
    with _opened(browser, report) as page:
        header = page.locator("#results th", has_text="end-to-end").first
        cells = "rows => rows.map(row => parseFloat(row.cells[%d].textContent))"
        column = header.evaluate("header => header.cellIndex")
        rows = page.locator("#results tbody tr")
        header.locator("button").click()
        rising = rows.evaluate_all(cells % column)
        assert header.get_attribute("aria-sort") == "ascending"
        header.locator("button").click()
        assert rows.evaluate_all(cells % column) == sorted(rising, reverse=True) != rising == sorted(rising)


def test_a_hundred_points_are_small_quick_and_drawn_as_they_are_opened(browser: Browser, large: Path) -> None:
    assert large.stat().st_size < 5_000_000
    with _opened(browser, large) as page:
        interactive_ms = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        assert interactive_ms < 2000
        rest = page.locator("#chart-rounds details.more")
        assert rest.locator("svg.marks").count() == 0
        assert rest.locator("summary").inner_text() == f"The other {50 - MOST_PANELS} panels"
        rest.locator("summary").click()
        rest.locator("svg.marks").wait_for(timeout=20_000)
        assert rest.locator("[data-chart]").locator(MARKS).count() == (50 - MOST_PANELS) * 2 * 3 * (15 + 1)


def test_paper_has_every_panel(browser: Browser, large: Path) -> None:
    with _opened(browser, large) as page:
        count = f"window.drawn = document.querySelectorAll('{REST}').length"
        page.evaluate(f"addEventListener('afterprint', () => {{ {count}; }})")
        page.pdf(format="A4")
        page.wait_for_function("window.drawn !== undefined")
        assert page.evaluate("window.drawn") == page.locator("details.more").count() > 0


@pytest.mark.parametrize(
    ("records", "charts"),
    [
        ([failed_record(point(), "no")], 0),
        ([ok_record(point(), observed([0.1, 0.2]))], 3),
        (sweep_records(1, 2, attn_implementation=["eager", "sdpa"], batch_size=[1]), len(CHARTS)),
        (sweep_records(2, 2, attn_implementation=[NASTY, "sdpa"], batch_size=[1]), len(CHARTS)),
        (sweep_records(2, 2, continuous_batching=[False, True], batch_size=[2]), len(CHARTS)),
    ],
    ids=["all failed", "one sample", "one round", "names that are markup", "continuous batching"],
)
def test_little_data_and_odd_data_are_drawn_too(
    browser: Browser, tmp_path: Path, records: list[Record], charts: int
) -> None:
    with _opened(browser, _write(tmp_path, records)) as page:
        assert page.locator("[data-chart] svg.marks").count() == charts
        assert page.evaluate("window.hacked") is None


def test_kinds_of_machines_are_drawn_beside_each_other(browser: Browser, tmp_path: Path, pictures: Path) -> None:
    records = sweep_records(attn_implementation=["eager", "sdpa"], batch_size=[1, 4])
    kinds = {kind: data_of(tmp_path / str(place), records) for place, kind in enumerate(("desktop", NASTY))}
    write_html(kinds, list(kinds_page(kinds)), tmp_path / "fleet.html")
    with _opened(browser, tmp_path / "fleet.html") as page:
        page.screenshot(path=pictures / "fleet.png", full_page=True)
        # Of 2 workloads, 2 ways and 2 kinds an interval and a dot.
        assert _marks(page, "kinds") == 2 * 2 * 2 * 2
        assert page.evaluate("window.hacked") is None
