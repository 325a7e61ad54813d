"""A table as CSV."""

import json
from typing import Any

import polars as pl

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
