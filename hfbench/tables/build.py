"""The tables together, built from the records of a sweep, and the warnings that its configurations raise."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.core.errors import UserError
from hfbench.core.files import read_json, write_json
from hfbench.core.point import AXES, CONFIGURATION_AXES
from hfbench.core.record import OK
from hfbench.params.schema import Limits
from hfbench.tables.agreement import AGREEMENT_TYPES, agreement_table
from hfbench.tables.configurations import Facts, configurations_table
from hfbench.tables.doubts import CHECKS, POINT
from hfbench.tables.facts import FACT_TYPES
from hfbench.tables.metrics import axes_frame
from hfbench.tables.reading import ReadRecord
from hfbench.tables.store import configuration_keys, write_table
from hfbench.tables.summary import samples_table, summary_table


@dataclass(frozen=True)
class MeasurementWarning:
    """What makes a configuration's numbers doubtful.

    `code` names the kind, such as `few_rounds`; `what` is a clause with the numbers; `remedy` a sentence; `point` the
    configuration's key in metrics_by_point.json, and `configuration` its axes.
    """

    code: str
    what: str
    remedy: str
    point: str
    configuration: dict[str, Any]

    @property
    def title(self) -> str:
        """The code as words: `few rounds`."""
        return self.code.replace("_", " ")


_WARNINGS = "warnings.json"
_WARNINGS_VERSION = 1


def write_warnings(warnings: Sequence[MeasurementWarning], folder: Path) -> None:
    """Write the warnings to `folder` as JSON."""
    write_json(folder / _WARNINGS, {"schema_version": _WARNINGS_VERSION, "warnings": [vars(each) for each in warnings]})


def read_warnings(folder: Path) -> list[MeasurementWarning]:
    """Read the warnings that `write_warnings` wrote. Raises `UserError` where there are none of this version."""
    content = read_json(folder / _WARNINGS)
    if not isinstance(content, dict) or content.get("schema_version") != _WARNINGS_VERSION:
        raise UserError(f"{folder / _WARNINGS} is of another version of hfbench. Delete it and run `dvc repro`.")
    return [MeasurementWarning(**entry) for entry in content["warnings"]]


def configuration_warnings(configurations: pl.DataFrame) -> list[MeasurementWarning]:
    """Return all warnings, in the order of the checks and then of the sweep.

    A configuration without a round that is ok has none: that it failed is all there is to say of it.
    """
    rows = configurations.to_dicts()
    names = [field.name for field in dataclasses.fields(Facts)]
    measured = [
        (key, row, Facts(**{name: row[name] for name in names}))
        for key, row in zip(configuration_keys(rows), rows, strict=True)
        if row["rounds_ok"]
    ]
    return [
        MeasurementWarning(
            check.__name__,
            what,
            remedy.replace(POINT, f"'{key}'"),
            key,
            {axis: row[axis] for axis in CONFIGURATION_AXES},
        )
        for check in CHECKS
        for key, row, facts in measured
        for what, remedy in check(facts)
    ]


def points_table(records: Sequence[ReadRecord], samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each record, in their order.

    Columns: the axes; status, reason and the phase in which it failed; the device; what was measured once; what the
    machine did meanwhile (`hfbench.tables.facts`); how the output agrees (`hfbench.tables.agreement`);
    `samples`, the number of sample iterations; `observer_cost_ratio`, median end-to-end seconds with the token observer
    over without (null where either is missing); and a column `timeline_NAME_seconds` for each entry of the timeline.
    """
    configurations = [record.configuration for record in records]
    seconds = pl.col("end_to_end_seconds")
    cost = seconds.filter("observed").median() / seconds.filter(~pl.col("observed")).median()
    of_point = samples.filter(pl.col("phase") == "sample").group_by(AXES)
    counts = of_point.agg(samples=pl.len().cast(pl.Int64), observer_cost_ratio=cost)
    return pl.concat(
        [
            axes_frame(configurations).join(counts, on=AXES, how="left", maintain_order="left"),
            pl.DataFrame([record.facts for record in records], schema=FACT_TYPES),
            agreement_table(configurations, [each.output if each.facts["status"] == OK else None for each in records]),
            pl.DataFrame([record.timeline for record in records], infer_schema_length=None),
        ],
        how="horizontal",
    ).select(
        *AXES,
        *FACT_TYPES,
        *AGREEMENT_TYPES,
        pl.col("samples").fill_null(0),
        "observer_cost_ratio",
        pl.col("^timeline_.*$"),
    )


@dataclass(frozen=True)
class Tables:
    """`samples` has a row an iteration, `points` one a record, `configurations` one for the rounds of a configuration,
    and `summary` one for each of its metrics.
    """

    samples: pl.DataFrame
    summary: pl.DataFrame
    points: pl.DataFrame
    configurations: pl.DataFrame
    warnings: list[MeasurementWarning]

    def write(self, folder: Path) -> None:
        """Write each table to `folder` as NAME.parquet, and the warnings as JSON."""
        for name in ("samples", "summary", "points", "configurations"):
            write_table(getattr(self, name), folder, name)
        write_warnings(self.warnings, folder)


def build_tables(records: Sequence[ReadRecord], ceilings: Mapping[str, Any], limits: Limits) -> Tables:
    """Return the tables of these records; `ceilings` is the content of ceilings.json."""
    samples = samples_table(records)
    points = points_table(records, samples)
    summary = summary_table(samples, points)
    configurations = configurations_table(records, samples, points, summary, ceilings, limits)
    return Tables(samples, summary, points, configurations, configuration_warnings(configurations))


_BEST = ("decode_tokens_per_second", "end_to_end_seconds", "time_to_first_token_seconds")
_OF_EACH_POINT = (*_BEST, "peak_memory_bytes")
_SIGNIFICANT_DIGITS = 4


def headline(tables: Tables) -> dict[str, Any]:
    """Return the content of metrics.json: counts of records and warnings, and the best medians.

    Medians are the summary's estimates. A configuration whose output differs is no best. What has no value is left out:
    DVC shows null and NaN as if they were measured.
    """
    ok = int((tables.points["status"] == OK).sum())
    content: dict[str, Any] = {
        "points_ok": ok,
        "points_not_ok": tables.points.height - ok,
        "warnings": len(tables.warnings),
    }
    comparable = tables.summary.join(
        tables.configurations.filter("output_differs"), on=CONFIGURATION_AXES, how="anti", maintain_order="left"
    )
    for metric in _BEST:
        rows = comparable.filter(pl.col("metric") == metric)
        if rows.height:
            best = rows["estimate"].max() if rows["higher_is_better"][0] else rows["estimate"].min()
            content[f"best_{metric}"] = _rounded(metric, best)
    return content


def headline_by_point(tables: Tables) -> dict[str, dict[str, float]]:
    """Return the medians of each configuration that was measured, under its key."""
    groups = tables.summary.group_by(CONFIGURATION_AXES, maintain_order=True).agg("metric", "estimate").to_dicts()
    points: dict[str, dict[str, float]] = {}
    for key, group in zip(configuration_keys(groups), groups, strict=True):
        medians = dict(zip(group["metric"], group["estimate"], strict=True))
        points[key] = {metric: _rounded(metric, medians[metric]) for metric in _OF_EACH_POINT if metric in medians}
    return points


def _rounded(metric: str, value: Any) -> float:
    rounded = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    return int(rounded) if metric.endswith("_bytes") else rounded
