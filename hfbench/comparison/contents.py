"""The content of a side's files: tables, JSON and params.yaml."""

import json
from collections.abc import Collection
from io import BytesIO
from typing import Any

import polars as pl

from hfbench.comparison.sources import Files
from hfbench.foundation.errors import UserError


def read_table(files: Files, name: str, without: Collection[str] = ()) -> pl.DataFrame:
    """Return a table of the results, without these columns. Raises `UserError` where it is missing or broken."""
    path = f"{files.results}/tables/{name}.parquet"
    try:
        content = BytesIO(files.read(path))
    except FileNotFoundError:
        raise files.missing(path) from None
    try:
        columns = [column for column in pl.read_parquet_schema(content) if column not in without]
        content.seek(0)
        return pl.read_parquet(content, columns=columns)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is no readable table ({error}). Make it again.") from None


def read_mapping(files: Files, name: str) -> dict[str, Any]:
    """Return what a JSON file of the results holds, empty where there is none. Raises `UserError` for a broken one."""
    return _json(files, f"{files.results}/{name}")


def read_mappings(files: Files, folder: str) -> dict[str, dict[str, Any]]:
    """Return what each JSON file in a folder of the results holds, by its name without suffix."""
    names = sorted(name for name in files.names(f"{files.results}/{folder}") if name.endswith(".json"))
    return {name.removesuffix(".json"): read_mapping(files, f"{folder}/{name}") for name in names}


def read_params(files: Files) -> dict[str, Any]:
    """Return what params.yaml holds, or else params.json; empty where there is neither. Raises `UserError`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = f"{files.root}/params.yaml"
    try:
        content = YAML(typ="safe").load(files.read(path).decode())
    except FileNotFoundError:
        return _json(files, f"{files.root}/params.json")
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    return content if isinstance(content, dict) else {}


def _json(files: Files, path: str) -> dict[str, Any]:
    try:
        content = json.loads(files.read(path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Make it again.") from None
    return content if isinstance(content, dict) else {}
