"""`hfbench show`: the results in the format asked for, or one point."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from hfbench.core.files import readable_json
from hfbench.core.record import Record
from hfbench.core.results import LISTED_STAGE, PARAMS
from hfbench.params.schema import load_params
from hfbench.report.detail import PointView, choose_point, print_point
from hfbench.report.frames import Results, read_results, warning_groups
from hfbench.report.overview import Choice, View, chosen_view, result_data, result_json
from hfbench.report.pages import markdown_results, print_view, standard_output
from hfbench.tables.store import MeasuredPoint, load_records, measured_points


def show_results(tables: Path, choice: Choice, format_name: str, report: Path) -> None:
    """Print the results in this format (`table`, `markdown`, `csv` or `json`); below a table, where the report is.

    Raises `UserError` where there are no tables, or the choice is not understood.
    """
    view = chosen_view(read_results(tables), choice)
    if format_name == "table":
        print_view(view, standard_output())
        if report.exists():
            print(f"\nreport: {report}")
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(_text(view, format_name, only_columns=bool(choice.columns)))


def show_point(tables: Path, measurements: Path, text: str) -> None:
    """Print all that is known of the point that `text` means. Raises `UserError`; see `choose_point`.

    A stage of a listed configuration has a number for a name: params.yaml tells whose that is.
    """
    results = read_results(tables)
    chosen = choose_point(_listed_name(text) or text, measured_points(results.points))
    records = load_records(chosen, measurements)
    print_point(_point_view(chosen, records, results), standard_output())


def _listed_name(text: str) -> str | None:
    """Return the name of the point's files where the text is a stage `measure_listed@…` of params.yaml."""
    if not text.startswith(LISTED_STAGE):
        return None
    stages = load_params(PARAMS).stages()
    return next((point.file_name for point, stage in stages.items() if stage == text), None)


def _point_view(chosen: Sequence[MeasuredPoint], records: Sequence[Record], results: Results) -> PointView:
    axes = chosen[0].configuration
    is_chosen = pl.all_horizontal(pl.col(axis) == value for axis, value in axes.items())
    points = results.points.filter(is_chosen)
    warnings = [each for each in results.warnings if each.configuration == axes]
    return PointView(
        key=chosen[0].key,
        records=records,
        points=points,
        metrics=results.summary.filter(is_chosen),
        warnings=warning_groups(warnings, points),
    )


def _text(view: View, format_name: str, *, only_columns: bool) -> str:
    if format_name == "markdown":
        return markdown_results(view)
    if format_name == "csv":
        return result_data(view, only_columns=only_columns).write_csv()
    return readable_json(result_json(view, only_columns=only_columns)) + "\n"
