"""The results as data: full precision, units in the names, what failed beside what was measured."""

from typing import Any

import polars as pl

from hfbench.reporting.results import failure_rows
from hfbench.reporting.view import View
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.metrics import METRIC_NAMES

_FRACTIONS = {"mbu": "mbu_fraction", "mfu": "mfu_fraction"}
_BREAK_EVEN = (*(f"break_even_new_tokens{end}" for end in ("", "_low", "_high")), "break_even")
_ROUNDS = ("rounds_asked", "rounds_ok")
NOT_OK = "not_ok"


def result_data(view: View, *, only_columns: bool = False) -> pl.DataFrame:
    """Return a row for each configuration, those that no round could measure last.

    Columns: the axes; `rounds_asked` and `rounds_ok`; each metric under its name, its 95% interval as METRIC_low and
    METRIC_high where it has one; `mbu_fraction` and `mfu_fraction`; `break_even` in words, and `break_even_new_tokens`
    with its limits; `output_differs`; and `not_ok`, which says what failed in which rounds. With `only_columns`, only
    what the columns of the view are made of.
    """
    failed = view.results.configurations.filter(pl.col("rounds_ok") == 0)
    rows = pl.concat([view.rows, failed.select(*CONFIGURATION_AXES, *_ROUNDS)], how="diagonal")
    rows = rows.join(_failures(view), on=CONFIGURATION_AXES, how="left", maintain_order="left")
    names = [*CONFIGURATION_AXES, *_ROUNDS]
    for metric in METRIC_NAMES:
        names += [name for name in (metric, f"{metric}_low", f"{metric}_high") if name in rows.columns]
    names += [*_FRACTIONS, *_BREAK_EVEN, "output_differs", NOT_OK]
    if only_columns:
        wanted = [name for column in view.columns for name in _parts(column.name, names)]
        names = list(dict.fromkeys(wanted))
    without_values = [
        name for name in names if name.endswith(("_low", "_high")) and rows[name].null_count() == rows.height
    ]
    return rows.select(name for name in names if name not in without_values).rename(_FRACTIONS, strict=False)


def result_json(view: View, *, only_columns: bool = False) -> dict[str, Any]:
    """Return `configurations`, the rows of `result_data`, and `warnings` with the key of their configuration."""
    return {
        "configurations": result_data(view, only_columns=only_columns).to_dicts(),
        "warnings": [
            {"point": each.point, "code": each.warning.code, "what": each.warning.what, "remedy": each.warning.remedy}
            for each in view.results.warnings
        ],
    }


def _parts(name: str, names: list[str]) -> list[str]:
    """Return the columns of data that stand for a column of text."""
    special = {
        "break_even_new_tokens": list(_BREAK_EVEN),
        "rounds_ok": list(_ROUNDS),
        "precision": ["end_to_end_seconds_low", "end_to_end_seconds_high"],
    }
    parts = special.get(name, [name, f"{name}_low", f"{name}_high"])
    return [part for part in parts if part in names]


def _failures(view: View) -> pl.DataFrame:
    failures = failure_rows(view.results.points).with_columns(
        rounds=pl.col("rounds").cast(pl.List(pl.String)).list.join(", "), status=pl.col("status").cast(pl.String)
    )
    what = pl.format("{} in round {}: {}", "status", "rounds", pl.col("reason").fill_null("no reason was recorded"))
    return failures.group_by(CONFIGURATION_AXES, maintain_order=True).agg(what.str.join("; ").alias(NOT_OK))
