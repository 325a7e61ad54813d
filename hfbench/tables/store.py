"""A table as CSV."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.core.errors import UserError
from hfbench.core.files import atomic_path


def write_table(table: pl.DataFrame, folder: Path, name: str) -> None:
    """Write the table to `folder` as NAME.parquet."""
    content = BytesIO()  # written by polars itself, a full disk would be an error of its own kind
    table.write_parquet(content)
    with atomic_path(folder / f"{name}.parquet") as temporary:
        temporary.write_bytes(content.getbuffer())


def read_table(folder: Path, name: str) -> pl.DataFrame:
    """Read one table (a name of `hfbench.tables.build.Tables`). Raises `UserError` where it is missing or broken."""
    path = folder / f"{name}.parquet"
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run `dvc repro` to make it.") from None
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is no readable table ({error}). Delete it and run `dvc repro`.") from None


_NESTED = "token_seconds"  # a thousand numbers a sample, which no cell of a CSV file should hold


def flat_csv(table: pl.DataFrame) -> str:
    """Return the table as CSV with full precision: lists as JSON, and without the times of single tokens."""
    flat = table.drop(_NESTED, strict=False)
    lists = [column for column, dtype in flat.schema.items() if dtype.is_nested()]
    return flat.with_columns(
        pl.Series(column, [_json(value) for value in flat[column].to_list()]) for column in lists
    ).write_csv()


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)
