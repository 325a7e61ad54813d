"""What of the results is shown: the rows, their order, and the columns."""

from dataclasses import dataclass

import polars as pl

from hfbench.reporting.cells import TextColumn, result_columns
from hfbench.reporting.results import Results, result_rows


@dataclass(frozen=True)
class View:
    """`rows` are those of `result_rows`; rows with the same number in `sections` stand together.

    `columns` have a cell for each row; `notes` say how the view differs from the whole.
    """

    results: Results
    rows: pl.DataFrame
    columns: tuple[TextColumn, ...]
    sections: tuple[int, ...]
    notes: tuple[str, ...] = ()


def whole_view(results: Results) -> View:
    """Return the view of everything: by workload, fastest first, with the columns that have values."""
    rows = result_rows(results.summary, results.configurations)
    return View(results, rows, tuple(result_columns(rows, results.points)), tuple(rows["workload"]))
