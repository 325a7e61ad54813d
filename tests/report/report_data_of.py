"""What the charts draw from, made of records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfbench.core.point import Configuration
from hfbench.core.record import Record
from hfbench.report.charts.chart import Chart
from hfbench.report.frames import ReportData, report_data
from tests.tables.hand_records import observed, ok_record, tables_of


def data_of(folder: Path, records: Sequence[Record], ceilings: dict[str, Any] | None = None) -> ReportData:
    tables = tables_of(folder, *records, ceilings=ceilings)
    return report_data(tables.samples, tables.summary, tables.points, tables.configurations)


def drawn(chart: Chart | None) -> Chart:
    assert chart is not None
    return chart


def measured(configuration: Configuration, *seconds: float) -> Record:
    return ok_record(configuration, *(observed([0.1, each]) for each in seconds))
