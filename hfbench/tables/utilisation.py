"""How much of the device's bandwidth and matrix rate each configuration uses."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hfbench.foundation.records import OK
from hfbench.roofline.utilisation import (
    decode_bytes_per_step,
    matmul_ceiling,
    model_bandwidth_utilisation,
    model_flops_utilisation,
    prefill_flops,
    read_ceiling,
)
from hfbench.tables.columns import CONFIGURATION_AXES, axes_frame
from hfbench.tables.reading import ReadRecord

_TYPES = {"mbu": pl.Float64, "mfu": pl.Float64}


def utilisation_table(
    records: Sequence[ReadRecord], summary: pl.DataFrame, ceilings: Mapping[str, Any]
) -> pl.DataFrame:
    """Return, for each configuration whose model's needs are known, `mbu` of decoding and `mfu` of prefill.

    Both are fractions of 1, from the estimates in the summary and what `ceilings` say, and null where a part is unknown
    (the formulas: `hfbench.roofline.utilisation`).
    """
    known = [record for record in records if record.facts["status"] == OK and record.needs]
    axes = axes_frame(record.configuration for record in known).drop("round")
    first = axes.to_struct().is_first_distinct().arg_true().to_list()
    estimates = summary.pivot("metric", index=CONFIGURATION_AXES, values="estimate")
    rows = axes[first].join(estimates, on=CONFIGURATION_AXES, how="left", maintain_order="left").to_dicts()
    values = [_utilisation(known[index].needs, row, ceilings) for index, row in zip(first, rows, strict=True)]
    return pl.concat([axes[first], pl.DataFrame(values, schema=_TYPES)], how="horizontal")


def _utilisation(needs: Mapping[str, Any], row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> dict[str, Any]:
    return {"mbu": _bandwidth(needs, row, ceilings), "mfu": _flops(needs, row, ceilings)}


def _bandwidth(needs: Mapping[str, Any], row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> float | None:
    lengths = (row["batch_size"], row["sequence_length"], row["max_new_tokens"], row["context_depth"])
    step_bytes = decode_bytes_per_step(needs, *lengths)
    ceiling = None if step_bytes is None else read_ceiling(ceilings, step_bytes)
    seconds = row.get("inter_token_seconds")
    if not seconds or not ceiling or step_bytes is None:
        return None
    return model_bandwidth_utilisation(step_bytes, seconds, ceiling)


def _flops(needs: Mapping[str, Any], row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> float | None:
    """Return MFU over the seconds until the last row has its first token: with `generate` all have it at once."""
    flops, ceiling = (
        prefill_flops(needs, row["batch_size"], row["sequence_length"], row["context_depth"]),
        matmul_ceiling(ceilings, row["dtype"]),
    )
    tokens_per_second = row.get("prefill_tokens_per_second")
    if flops is None or not ceiling or not tokens_per_second:
        return None
    seconds = row["batch_size"] * row["sequence_length"] / tokens_per_second
    return model_flops_utilisation(flops, seconds, ceiling)
