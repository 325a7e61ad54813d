"""Results as flat tables in CSV or parquet: the summary, the samples and the points."""

from pathlib import Path

from hfbench.foundation.files import write_text
from hfbench.tables.flat import flat_csv
from hfbench.tables.storage import read_table, write_table

_TABLES = ("summary", "samples", "points")


def export_flat(tables: Path, output: Path, format_name: str) -> list[Path]:
    """Write each table to the folder `output` as NAME.csv or NAME.parquet (`format_name`), and return the files.

    Values have full precision and the units of their names. Parquet keeps all columns; in CSV the times of single
    tokens are left out, and lists are JSON. Raises `UserError` where a table is missing.
    """
    for name in _TABLES:
        table = read_table(tables, name)
        if format_name == "parquet":
            write_table(table, output, name)
        else:
            write_text(output / f"{name}.csv", flat_csv(table))
    return [output / f"{name}.{format_name}" for name in _TABLES]
