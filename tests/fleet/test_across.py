"""The page on kinds of machines: which is how many times as fast, with what certainty, and what is not known."""

from dataclasses import replace
from pathlib import Path

from hfbench.fleet.across import kinds_page, write_html
from hfbench.report.charts.throughput import kinds_chart
from hfbench.report.frames import ReportData
from hfbench.report.pages import Table, markdown
from tests.report.report_records import data_of, rounds_of

FAST, SLOW = [1.0, 1.01, 0.99], [2.0, 2.02, 1.98]


def kinds(folder: Path) -> dict[str, ReportData]:
    """A desktop, and a laptop that takes twice as long, and on which eager failed."""
    return {
        "desktop": data_of(folder / "desktop", rounds_of(eager=SLOW, sdpa=FAST)),
        "laptop": data_of(folder / "laptop", rounds_of(sdpa=SLOW)),
    }


def test_each_way_is_held_against_the_first_kind(tmp_path: Path) -> None:
    tables = [block for block in kinds_page(kinds(tmp_path)) if isinstance(block, Table)]
    times = next(table for table in tables if "as on desktop" in table.title)
    cells = {row[0].text: row[-1].text for row in times.rows}
    estimate, _, span = cells["sdpa"].partition(" ")
    assert float(estimate) == 0.5
    low, high = (float(each) for each in span.strip("()").split(" … "))
    assert 0.4 < low < 0.5 < high < 0.6
    assert cells["eager"] == "–", "it was measured on one of the kinds alone"


def test_one_kind_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    alone = {"desktop": kinds(tmp_path)["desktop"]}
    page = markdown(list(kinds_page(alone)))
    assert "How many times" not in page
    assert "sdpa" in page


def test_what_no_kind_tells_is_no_table(tmp_path: Path) -> None:
    page = markdown(list(kinds_page(kinds(tmp_path))))
    assert "Tokens a second" in page
    assert "Tokens a joule" not in page, "these machines count no energy"


def test_one_round_is_drawn_without_an_interval(tmp_path: Path) -> None:
    once = rounds_of(sdpa=[1.0])
    chart = kinds_chart({"desktop": data_of(tmp_path, once)})
    assert chart is not None
    assert "x2" not in str(chart.spec)


def test_a_fleet_that_measured_nothing_has_a_page_without_a_chart(tmp_path: Path) -> None:
    data = kinds(tmp_path)["laptop"]
    nothing = replace(data, rows=data.rows.clear(), points=data.points.clear(), samples=data.samples.clear())
    found = {"laptop": nothing}
    write_html(found, list(kinds_page(found)), tmp_path / "fleet.html")
    page = (tmp_path / "fleet.html").read_text()
    assert "laptop" in page
    assert "data-chart" not in page
