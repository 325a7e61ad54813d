"""Tables as parquet files."""

from io import BytesIO
from pathlib import Path

import polars as pl

from hfbench.foundation.errors import UserError
from hfbench.foundation.files import atomic_path


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
