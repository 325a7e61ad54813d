"""The HTML report: well-formed, whole in itself, and nothing in it acts as markup that was not meant to."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hfbench.foundation.files import write_json
from hfbench.reporting.machine import environment_groups
from hfbench.reporting.page import report_page
from hfbench.tables.metrics import METRICS
from hfbench.tables.storage import read_table
from hfbench.tables.warning_file import read_warnings
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of, unobserved

ROOT = Path(__file__).resolve().parents[2]
NASTY = "<script>alert(\"1\")</script> & </td></table> 'quoted' <img src=x onerror=alert(1)> \x1b[31m ]]>"
ENVIRONMENT = {
    "schema_version": 1,
    "system": {"name": "Linux", "kernel": "6.1"},
    "cpu": {"brand": "Fast <b>CPU</b>", "physical_cores": 2},
    "memory": {"total_gib": 24},
    "accelerators": [{"vendor": "nvidia", "name": "H200", "memory_bytes": None}],
    "python": "3.11.9",
    "compiler": None,
    "packages": {"torch": {"version": "2.13.0", "build": "cpu"}, "polars": {"version": "2.1.0"}},
    "variables": {},
}
CEILINGS = {
    "schema_version": 1,
    "device": "cpu",
    "copy_bytes_per_second": 2.13e10,
    "matmul_flops_per_second": {"bfloat16": 1.1e12, "float16": None},
}
_VOID = {"meta", "br"}


class _Reader(HTMLParser):
    """Collects tags, attributes and text, and fails where an element is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    records = [
        ok_record(point(), observed([0.5, 0.6, 0.8, 1.1]), started_at="2025-03-01T10:00:00+00:00"),
        ok_record(
            point(attn_implementation="eager"),
            observed([0.5, 0.7, 0.9, 1.3]),
            started_at="2025-03-01T10:05:00+00:00",
            effective={"device_name": "Fast <b>CPU</b>"},
        ),
        failed_record(point(attn_implementation="flex_attention"), NASTY),
    ]
    tables_of(folder / "measurements", *records).write(folder)
    return folder


def _page(folder: Path, environment: dict[str, Any], ceilings: dict[str, Any]) -> str:
    return report_page(
        **{name: read_table(folder, name) for name in ("summary", "points", "configurations")},
        warnings=read_warnings(folder),
        environment=environment,
        ceilings=ceilings,
    )


def test_the_page_says_what_was_measured_on_what(folder: Path) -> None:
    reader = _Reader(_page(folder, ENVIRONMENT, CEILINGS))
    text = " ".join(reader.texts)
    for wanted in (
        "tiny · Fast <b>CPU</b> · bfloat16",
        "3 configurations, 2 of 3 records ok.",
        "Measured 2025-03-01T10:00:00+00:00 to 2025-03-01T10:05:00+00:00.",
        "1.10*",
        "2.13.0",
        "vendor nvidia, H200",
        "21.3 GB/s",
        "1.10 TFLOP/s",
        *(metric.name for metric in METRICS),
    ):
        assert wanted in text


def test_nothing_that_was_measured_becomes_markup(folder: Path) -> None:
    page = _page(folder, {**ENVIRONMENT, "variables": {NASTY: NASTY}}, {**CEILINGS, "device": NASTY})
    reader = _Reader(page)
    assert not {"script", "img", "b"} & set(reader.tags)
    assert "\x1b" not in page
    assert reader.texts.count(NASTY.replace("\x1b", "")) == 3  # the reason, the variable's name and its value


def test_the_page_needs_no_other_file(folder: Path) -> None:
    page = _page(folder, ENVIRONMENT, CEILINGS)
    reader = _Reader(page)
    assert not {"link", "script", "img", "iframe"} & set(reader.tags)
    assert not {"src", "href", "srcset"} & {name for name, _ in reader.attributes}
    assert not re.search(r"url\(|@import|https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert ("name", "viewport") in reader.attributes


@pytest.mark.parametrize("environment", [{}, {"packages": None, "accelerators": [], "cpu": {}}, {"packages": ["a", 1]}])
def test_the_environment_may_lack_anything(folder: Path, environment: dict[str, Any]) -> None:
    reader = _Reader(_page(folder, environment, {}))
    assert "Results" in reader.texts
    assert "What the device can do" not in reader.texts


def test_the_environment_is_grouped() -> None:
    caches = [{"level": 1, "size": "48K"}, {"level": 2, "size": "2M"}]
    assert environment_groups({"schema_version": 1, "cpu": {"smt": False, "caches": caches}, "compiler": "g++"}) == [
        ("general", [("compiler", "g++")]),
        ("cpu", [("smt", "no"), ("caches", "level 1, size 48K; level 2, size 2M")]),
    ]


def test_the_cost_of_observing_is_that_of_all_records(tmp_path: Path) -> None:
    costs = {1: 0.5, 2: 1.0, 3: 4.0}
    records = [
        ok_record(point(round=number), observed([0.1, 0.2], end_to_end=cost), unobserved(1.0))
        for number, cost in costs.items()
    ]
    tables_of(tmp_path / "measurements", *records).write(tmp_path)
    text = " ".join(_Reader(_page(tmp_path, {}, {})).texts)
    assert "is 1.00 in the middle record, 0.500 in the lowest and 4.00 in the highest" in text


def test_nothing_measured(tmp_path: Path) -> None:
    tables_of(tmp_path / "measurements", failed_record(point(), NASTY)).write(tmp_path)
    reader = _Reader(_page(tmp_path, ENVIRONMENT, CEILINGS))
    assert "No point could be measured." in reader.texts
    assert NASTY.replace("\x1b", "") in reader.texts


def test_the_stage_writes_the_page(folder: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "environment.json", ENVIRONMENT)
    output = tmp_path / "results/report.html"
    words = ["--tables", folder, "--environment", tmp_path / "environment.json", "--output", output]
    command = [sys.executable, "-m", "stages.report", *map(str, words), "--ceilings", str(tmp_path / "missing.json")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"report: {output}\n", "")
    assert output.read_text() == _page(folder, ENVIRONMENT, {})


def test_the_stage_without_tables_ends_with_a_sentence(tmp_path: Path) -> None:
    words = ["--tables", tmp_path, "--environment", tmp_path / "e.json", "--output", tmp_path / "report.html"]
    command = [sys.executable, "-m", "stages.report", *map(str, words)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "summary.parquet does not exist. Run `dvc repro`" in result.stderr
    assert "Traceback" not in result.stderr


def test_show_prints_the_results_and_where_the_report_is(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("")
    command = [sys.executable, "-m", "hfbench.cli", "show", "--tables", str(folder), "--report", str(report)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "end-to-end" in result.stdout
    assert result.stdout.endswith(f"report: {report}\n")
