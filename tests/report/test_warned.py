"""Warnings as a person sees them, on a terminal and in the report."""

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from hfbench.core.point import Configuration
from hfbench.core.record import Record
from hfbench.report.frames import warning_groups
from hfbench.report.show import print_results
from hfbench.tables.build import Tables
from tests.report.report_records import page_of
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of

EAGER, SDPA, FLEX = (point(attn_implementation=name) for name in ("eager", "sdpa", "flex_attention"))


def _measured(configuration: Configuration, load: float = 0.0) -> Record:
    before = {"cpu_percent": load} if load else {}
    return ok_record(configuration, observed([0.5, 0.6]), machine_before=before)


def _printed(folder: Path, tables: Tables, width: int = 100) -> list[str]:
    tables.write(folder)
    stream = io.StringIO()
    print_results(folder, Console(file=stream, width=width, highlight=False))
    return stream.getvalue().splitlines()


def test_one_finding_of_all_is_said_once(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, _measured(EAGER), _measured(SDPA), failed_record(FLEX, "no"))
    (group,) = warning_groups(tables.warnings, tables.points)
    assert group.title == "few rounds"
    assert group.remedy == "Give sweep.round at least 3 values."
    assert group.findings == (("both configurations", "one round, and it takes 3 to tell noise from effect"),)


def test_the_only_configuration_needs_no_name(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, _measured(SDPA), failed_record(EAGER, "no"))
    groups = {group.title: group for group in warning_groups(tables.warnings, tables.points)}
    assert groups.keys() == {"reference missing", "few rounds"}
    assert groups["few rounds"].findings[0][0] == ""
    lines = _printed(tmp_path / "tables", tables)
    start = lines.index("few rounds")
    assert lines[start + 1 : start + 3] == [
        "  one round, and it takes 3 to tell noise from effect",
        "  → Give sweep.round at least 3 values.",
    ]


def test_findings_that_differ_stand_one_by_one(tmp_path: Path) -> None:
    sizes = (1, 2, 4, 8, 16)
    records = [
        _measured(point(attn_implementation="eager", batch_size=size), load)
        for size, load in zip(sizes, range(50, 100, 10), strict=True)
    ]
    tables = tables_of(tmp_path, *records, _measured(point(attn_implementation="eager", batch_size=32), 50))
    group = warning_groups(tables.warnings, tables.points)[-1]
    assert group.title == "machine loaded"
    assert group.findings[:2] == (
        ("b1, b32", "50% of the CPUs were busy just before a round began"),
        ("b2", "60% of the CPUs were busy just before a round began"),
    )
    lines = _printed(tmp_path / "tables", tables)
    start = lines.index("machine loaded")
    assert [line.split(":")[0] for line in lines[start + 1 : start + 5]] == [
        "  b1, b32",
        "  b2",
        "  b4",
        "  and 2 more, in the report",
    ]


@pytest.mark.parametrize("width", [120, 50])
def test_warnings_stand_below_the_results_at_any_width(tmp_path: Path, width: int) -> None:
    tables = tables_of(tmp_path, _measured(EAGER, 80), _measured(SDPA), failed_record(FLEX, "no"))
    lines = _printed(tmp_path / "tables", tables, width)
    assert lines.index("Warnings") < lines.index("Not ok")
    assert max(map(cell_len, lines)) <= width
    assert "hfbench doctor" in " ".join(" ".join(lines).split())


def test_no_warning_no_heading(tmp_path: Path) -> None:
    rounds = [_measured(point(round=number, attn_implementation="eager")) for number in (1, 2, 3)]
    tables = tables_of(tmp_path, *rounds)
    assert tables.warnings == []
    assert "Warnings" not in _printed(tmp_path / "tables", tables)


def test_the_report_has_them_all(tmp_path: Path) -> None:
    records = [_measured(point(attn_implementation="eager", batch_size=size), 40 + size) for size in range(1, 8)]
    tables = tables_of(tmp_path, *records)
    page = page_of(tables)
    for size in range(1, 8):
        assert f"{40 + size}% of the CPUs were busy" in page
    assert "Give sweep.round at least 3 values." in page


def test_the_report_has_margins_beside_its_numbers(tmp_path: Path) -> None:
    records = [
        ok_record(point(round=number), observed([0.5, 0.6], end_to_end=seconds))
        for number, seconds in ((1, 0.99), (2, 1.0), (3, 1.01))
    ]
    tables = tables_of(tmp_path, *records)
    (row,) = tables.summary.filter(metric="end_to_end_seconds").to_dicts()
    page = page_of(tables)
    assert f"±{100 * (row['high'] - row['low']) / 2:.2g}%" in page
