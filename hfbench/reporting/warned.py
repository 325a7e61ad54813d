"""The warnings as they are shown: those with one remedy together, and of one finding once."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from hfbench.foundation.records import OK
from hfbench.reporting.results import varying_axes
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import point_label
from hfbench.tables.warning_file import ConfigurationWarning


@dataclass(frozen=True)
class WarningGroup:
    """Warnings of one kind with one remedy; `findings` says of whom (a text, empty for the only configuration) what."""

    title: str
    remedy: str
    findings: tuple[tuple[str, str], ...]


def warning_groups(warnings: Sequence[ConfigurationWarning], points: pl.DataFrame) -> list[WarningGroup]:
    """Return the warnings in groups, in their order."""
    axes = varying_axes(points)
    measured = points.filter(pl.col("status") == OK).select(CONFIGURATION_AXES).n_unique()
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for each in warnings:
        group = groups.setdefault((each.warning.title, each.warning.remedy), {})
        group.setdefault(each.warning.what, []).append(point_label(each.configuration, axes))
    return [
        WarningGroup(title, remedy, tuple((_whose(labels, measured), what) for what, labels in group.items()))
        for (title, remedy), group in groups.items()
    ]


def _whose(labels: Sequence[str], measured: int) -> str:
    if len(labels) < measured:
        return ", ".join(labels)
    return {1: "", 2: "both configurations"}.get(measured, f"all {measured} configurations")
