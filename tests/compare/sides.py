"""Sides of known truth, without a repository around them."""

from dataclasses import replace
from typing import Any

from benchmarks.synthetic_tables import Plan, synthetic_tables
from hfbench.compare.side import Side
from tests.compare.project import MACHINE, MANIFEST


def side(plan: Plan, label: str = "side", **fields: Any) -> Side:
    """The tables of a plan as a side of the standard machine and model; `fields` replace others."""
    built = Side(
        label=label,
        revision=None,
        committed_at=None,
        subject=None,
        **vars(synthetic_tables(plan)),
        environment=MACHINE,
        manifests={"synthetic": MANIFEST},
        params={},
        ceilings={},
    )
    return replace(built, **fields)
