"""Nothing in the report acts as markup or code that was not meant to, and nothing is loaded."""

import base64
import hashlib
import json
import re
from pathlib import Path

import altair
import pytest
import vl_convert

from hfbench.report.charts.capacity import memory_chart
from hfbench.report.charts.chart import VEGA_LITE, charts_json
from hfbench.report.charts.rounds import rounds_chart
from hfbench.report.frames import report_data
from hfbench.report.html import document, script
from tests.report.page_reader import CEILINGS, ENVIRONMENT, NASTY, Reader, page_of, write_tables
from tests.tables.hand_records import observed, ok_record, point, tables_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("tables"))


def test_nothing_that_was_measured_becomes_markup(folder: Path) -> None:
    page = page_of(folder, {**ENVIRONMENT, "variables": {NASTY: NASTY}}, {**CEILINGS, "device": NASTY})
    reader, plain = Reader(page), Reader(page_of(folder, ENVIRONMENT, CEILINGS))
    assert not {"img", "b"} & set(reader.tags)
    assert reader.tags.count("script") == plain.tags.count("script")
    assert "\x1b" not in page
    assert reader.texts.count(NASTY.replace("\x1b", "")) == 3  # the reason, the variable's name and its value


def test_no_name_ends_the_script_that_holds_the_charts(tmp_path: Path) -> None:
    names = (NASTY.replace("\x1b", ""), "</script><script>alert(2)</script>", "<!--<script>", "sdpa")
    records = [ok_record(point(attn_implementation=name), observed([0.5, 0.6, 0.8, 1.1])) for name in names]
    tables = tables_of(tmp_path / "measurements", *records)
    data = report_data(tables.samples, tables.summary, tables.points, tables.configurations)
    chart = memory_chart(data) or rounds_chart(data)
    assert chart is not None
    embedded = charts_json([chart])
    assert "<" not in embedded
    assert {row[0] for row in json.loads(embedded)["charts"][0]["table"]["rows"]} == set(names)
    assert Reader(document("t", "", [script(embedded, type="application/json")])).scripts == [embedded]


def test_only_the_scripts_of_the_page_may_run(folder: Path) -> None:
    reader = Reader(page_of(folder, ENVIRONMENT, CEILINGS))
    policy = next(value for name, value in reader.attributes if name == "content" and str(value).startswith("default"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in reader.scripts]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert len(allowed) == 3  # Vega, what draws with it, what sorts tables
    assert set(allowed) < set(digests)  # the data is no script that runs


def test_what_draws_is_what_the_charts_are_written_for() -> None:
    assert VEGA_LITE in vl_convert.get_vegalite_versions()
    assert altair.SCHEMA_VERSION.startswith(f"v{VEGA_LITE}.")


def test_a_script_that_would_end_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="end"):
        script("'</SCRIPT>'")


def test_the_page_needs_no_other_file(folder: Path) -> None:
    page = page_of(folder, ENVIRONMENT, CEILINGS)
    reader = Reader(page)
    assert not {"link", "img", "iframe"} & set(reader.tags)
    assert not {"src", "srcset"} & {name for name, _ in reader.attributes}
    assert all(str(value).startswith("#") for name, value in reader.attributes if name == "href")
    for text in reader.scripts:
        page = page.replace(text, "")
    assert not re.search(r"url\(|@import|https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert ("name", "viewport") in reader.attributes
