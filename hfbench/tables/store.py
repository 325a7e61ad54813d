"""The tables on disk, the points that they know by key, label and record, and the filters over their axes."""

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.core.errors import UserError
from hfbench.core.files import atomic_path
from hfbench.core.point import (
    AXES,
    AXIS_TYPES,
    CONFIGURATION_AXES,
    INF,
    LOAD_AXES,
    Configuration,
    telling_axes,
    token_of,
)
from hfbench.core.record import Record


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


# A thousand numbers a sample, which no cell of a CSV file should hold.
_NESTED = ("token_seconds", "arrival_seconds")


def flat_csv(table: pl.DataFrame) -> str:
    """Return the table as CSV with full precision: lists as JSON, and without the times of single tokens."""
    flat = table.drop(*_NESTED, strict=False)
    lists = [column for column, dtype in flat.schema.items() if dtype.is_nested()]
    return flat.with_columns(
        pl.Series(column, [None if value is None else json.dumps(value) for value in flat[column].to_list()])
        for column in lists
    ).write_csv()


def configuration_keys(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a readable key for each, such as `smollm2-135m-instruct eager b1 s128 n32`.

    A key depends on its configuration alone, and leaves out what is usual, so that adding a value to an axis renames no
    point. Dots and slashes, which mean levels in DVC's paths, become hyphens; where that, or a name that two axes have,
    makes two keys equal, a digest tells them apart.
    """
    named = [
        (_key(configuration), " ".join(f"{axis}={configuration[axis]}" for axis in telling_axes(configuration)))
        for configuration in configurations
    ]
    spelt: dict[str, set[str]] = {}
    for key, whole in named:
        spelt.setdefault(key, set()).add(whole)
    return [
        f"{key} {hashlib.sha256(whole.encode()).hexdigest()[:6]}" if len(spelt[key]) > 1 else key
        for key, whole in named
    ]


def point_label(configuration: Mapping[str, Any], axes: Iterable[str]) -> str:
    """Return the tokens of these axes that are not usual, of all of them where every one is, or else of the model."""
    wanted = set(axes)
    asked = [axis for axis in CONFIGURATION_AXES if axis in wanted]
    kept = [axis for axis in telling_axes(configuration) if axis in wanted] or asked
    return " ".join(token_of(axis, configuration[axis]) for axis in kept or ["model"])


def labels_of(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a short name for each configuration, by the axes in which they differ."""
    varying = [axis for axis in CONFIGURATION_AXES if len({each[axis] for each in configurations}) > 1]
    return [point_label(each, varying) for each in configurations]


def _key(configuration: Mapping[str, Any]) -> str:
    tokens = (token_of(axis, configuration[axis]) for axis in telling_axes(configuration))
    return " ".join(re.sub(r"[^A-Za-z0-9_-]+", "-", token) for token in tokens)


@dataclass(frozen=True)
class MeasuredPoint:
    """A point: the key of its configuration, its axes, and the name of its files."""

    key: str
    axes: dict[str, Any]
    name: str

    @property
    def configuration(self) -> dict[str, Any]:
        """The axes without the round."""
        return {axis: self.axes[axis] for axis in CONFIGURATION_AXES}


def measured_points(points: pl.DataFrame) -> list[MeasuredPoint]:
    """Return a point for each row of the table of points, in its order."""
    rows = points.select(AXES).to_dicts()
    keys = configuration_keys(rows)
    return [MeasuredPoint(key, row, Configuration(**row).file_name) for key, row in zip(keys, rows, strict=True)]


def load_records(points: Sequence[MeasuredPoint], measurements: Path) -> list[Record]:
    """Return the records of the points. Raises `UserError` where one is missing."""
    records = []
    for point in points:
        path = measurements / f"{point.name}.json"
        if not path.exists():
            raise UserError(
                f"{path} does not exist, though the tables know the point. `dvc checkout` or `dvc pull` brings back a "
                "record that was measured, `dvc repro` measures it."
            )
        records.append(Record.load(path))
    return records


_EXAMPLE = 'attn_implementation == "sdpa" and batch_size >= 4'
_KINDS = {int: "a number", str: "text", bool: "true or false"}
_VALUE = r"""(?:-?\d+(?:\.\d+)?\b|"[^"']*"|'[^"']*'|\b[A-Za-z_]\w*\b)"""
_COMPARISON = re.compile(
    rf"(?P<one>{_VALUE})\s*(?:(?P<operator>[=!]=|[<>]=?)\s*(?P<other>{_VALUE})"
    rf"|(?:\bnot\s+)?\bin\s*[(\[{{]\s*(?P<list>{_VALUE}(?:\s*,\s*{_VALUE})*)\s*,?\s*[)\]}}])",
    re.IGNORECASE,
)
_LOAD = re.compile(rf"{INF}|-?\d+(?:\.\d+)?")  # a value beside a load
_REMEDIES = {int: "Write a number without quotes", str: "Write text in quotes", bool: "Write true or false"}
_OPERATORS = "==, !=, <, <=, >, >=, in or not in"
# By what is found beside the comparisons.
_HINTS = {
    r"\bin\b": 'A list follows `in`, as in dtype in ["bfloat16", "float16"]',
    "[&|]": "Write `and` for &, `or` for |",
    "(?<![=!<>])=(?!=)": "Two values are compared by ==",
    "": f"Compare a column with one value at a time by {_OPERATORS}",
}
_AS_SQL = str.maketrans('"[]{}', "'()()")


def parse_filter(text: str, axes: Collection[str]) -> pl.Expr:
    """Return the expression that `text` says, such as `attn_implementation == "sdpa" and batch_size >= 4`.

    There are comparisons of these axes (==, !=, <, <=, >, >=, in, not in), and, or, not and parentheses; true and false
    are spelt either way. Polars reads it as SQL, which has functions too, and takes `1 < batch_size < 16` for
    `(1 < batch_size) < 16`; so what is compared is checked first. Raises `UserError` for anything else, an unknown
    name, and a comparison of text with a number.
    """
    if not text.strip():
        raise UserError(f"The filter is empty. Write one such as {_EXAMPLE}.")
    problems = (
        *(_comparison_problem(comparison, axes) for comparison in _COMPARISON.finditer(text)),
        _rest_problem(_COMPARISON.sub("()", text), axes),
    )
    problem = next(filter(None, problems), None)
    try:
        if problem is None:
            sql = _COMPARISON.sub(_of_numbers, text).translate(_AS_SQL)
            return pl.sql_expr(f"({sql})")  # without the parentheses a second word is an alias
    except pl.exceptions.PolarsError:
        problem = f"it cannot be read. Write one such as {_EXAMPLE}."
    line = " ".join(text.split())
    raise UserError(f"The filter `{line if len(line) <= 120 else line[:120] + '…'}`: {problem}")


def _of_numbers(comparison: re.Match[str]) -> str:
    """Return a comparison with a load, whose numbers the tables hold as text, as one of numbers."""
    words = [comparison["one"], *re.findall(_VALUE, comparison["other"] or comparison["list"])]
    if not LOAD_AXES.intersection(words):
        return comparison[0]
    text = re.sub(r"""["']([^"']*)["']""", r"\1", comparison[0])
    text = re.sub(rf"\b{INF}\b", f"CAST('{INF}' AS DOUBLE)", text)
    return re.sub(rf"\b({'|'.join(LOAD_AXES)})\b", r"CAST(\1 AS DOUBLE)", text)


def _comparison_problem(comparison: re.Match[str], axes: Collection[str]) -> str | None:
    one, *others = [comparison["one"], *re.findall(_VALUE, comparison["other"] or comparison["list"])]
    if load := LOAD_AXES.intersection([one, *others]) & set(axes):  # whose values may stand in quotes
        wrong = [each for each in (one, *others) if each not in axes and not _LOAD.fullmatch(each.strip("\"'"))]
        if wrong:
            return f"{min(load)} is a number of requests a second, or {INF}, and {wrong[0]} is none."
        one, *others = ("0" if each not in axes else each for each in (one, *others))
    kind = _kind(one, axes)
    for other in others:
        other_kind = _kind(other, axes)
        if kind is None or other_kind is None:
            return _unknown(one if kind is None else other, axes)
        if one not in axes and other not in axes:
            return f"{one} and {other} are both values. Compare a column with a value."
        if kind is not other_kind:
            remedy = _REMEDIES[kind if one in axes else other_kind]
            return f"{one} is {_KINDS[kind]}, and {other} is {_KINDS[other_kind]}. {remedy}."
    if kind is bool and comparison["operator"] in ("<", "<=", ">", ">="):
        return f"{one} and {others[0]} have no order. Write == or !=."
    return None


def _rest_problem(rest: str, axes: Collection[str]) -> str | None:
    """Return what is wrong beside the comparisons, in the place of each of which stands ()."""
    if stray := re.search(r"[^\w\s()]+", rest):
        hint = next(hint for sign, hint in _HINTS.items() if re.search(sign, rest))
        return f"{stray[0]!r} stands between no two values. {hint}."
    for word in re.findall(r"\w+", rest):
        if word.lower() in ("and", "or", "not"):
            continue
        kind = _kind(word, axes)
        if kind is None:
            return _unknown(word, axes)
        if kind is not bool:
            return f"{word} is {_KINDS[kind]} and no condition. Compare it with a value by {_OPERATORS}."
    return None


def _kind(value: str, axes: Collection[str]) -> type | None:
    """Return the type of a value or an axis as it is written, None for an unknown name."""
    if value in axes:
        return int if value in LOAD_AXES else AXIS_TYPES[value]
    if value.lower() in ("true", "false"):
        return bool
    return str if value[0] in "\"'" else None if value[0].isalpha() or value[0] == "_" else int


def _unknown(name: str, axes: Collection[str]) -> str:
    close = difflib.get_close_matches(name, axes, n=1)
    if close:
        return f"there is no {name}. Did you mean {close[0]}?"
    return f'there is no {name}; text stands in quotes, as "{name}". Known are: {", ".join(axes)}.'
