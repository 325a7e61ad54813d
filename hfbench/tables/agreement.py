"""Whether points with the same work give the same output: each against its reference, and each round against the first.

The reference of a point is the one with its model, dtype, batch and lengths that is plainest: eager attention, not
compiled, no kernels, no continuous batching, the prompt at once.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from hfbench.core.point import REFERENCE, WORKLOAD_AXES, Configuration
from hfbench.core.record import OK
from hfbench.tables.reading import Output, ReadRecord, difference
from hfbench.tables.warnings import MISSING_REFERENCE

COMPARED = "compared"
_WORK = ("model", "dtype", *WORKLOAD_AXES)

AGREEMENT_TYPES: dict[str, type[pl.DataType]] = {
    "reference": pl.String,
    "top1_agreement": pl.Float64,
    "nll_difference": pl.Float64,
    "first_different_token": pl.Int64,
    "same_as_first_round": pl.Boolean,
}
_Axes = tuple[Any, ...]


def agreement_table(records: Sequence[ReadRecord]) -> pl.DataFrame:
    """Return a row of `AGREEMENT_TYPES` for each record, in their order.

    `reference` is `compared`, or `missing` where no round of the reference is ok, and then what is compared with it is
    null. Of the reference, and of a configuration's rounds, the first that is ok stands for all. A record that is not
    ok has no values.
    """
    measured = [record for record in records if record.facts["status"] == OK]
    references: dict[_Axes, Output] = {}
    first_rounds: dict[_Axes, Output] = {}
    for record in measured:
        first_rounds.setdefault(_without_round(record.configuration), record.output)
        if _is_reference(record.configuration):
            references.setdefault(_work(record.configuration), record.output)
    rows = [_row(record, references, first_rounds) if record.facts["status"] == OK else {} for record in records]
    return pl.DataFrame(rows, schema=AGREEMENT_TYPES)


def _row(record: ReadRecord, references: dict[_Axes, Output], first_rounds: dict[_Axes, Output]) -> dict[str, Any]:
    reference = references.get(_work(record.configuration))
    first_round = first_rounds[_without_round(record.configuration)]
    return {
        "reference": MISSING_REFERENCE if reference is None else COMPARED,
        **vars(difference(record.output, reference or Output())),
        "same_as_first_round": difference(record.output, first_round).is_none,
    }


def _is_reference(configuration: Configuration) -> bool:
    return all(getattr(configuration, axis) == value for axis, value in REFERENCE.items())


def _work(configuration: Configuration) -> _Axes:
    return tuple(getattr(configuration, axis) for axis in _WORK)


def _without_round(configuration: Configuration) -> _Axes:
    return tuple(value for axis, value in vars(configuration).items() if axis != "round")
