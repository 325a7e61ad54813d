"""How much of the device's bandwidth and matrix rate each configuration uses."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hfbench.foundation.configuration import UNIFORM
from hfbench.foundation.records import OK
from hfbench.roofline.utilisation import (
    decode_bytes_per_step,
    decode_flops_per_step,
    matmul_ceiling,
    model_bandwidth_utilisation,
    model_flops_utilisation,
    prefill_bytes,
    prefill_flops,
    read_ceiling,
)
from hfbench.tables.columns import CONFIGURATION_AXES, axes_frame
from hfbench.tables.reading import ReadRecord

_PHASES = ("decode", "prefill")
# Where each phase stands beside its roof: FLOPs that it needs for each byte that it needs, the rates reached and the
# device's for reading as many bytes.
_COORDINATES = ("flops_per_byte", "flops_per_second", "roof_bytes_per_second")
_TYPES = dict.fromkeys(
    ("mbu", "mfu", *(f"{phase}_{name}" for phase in _PHASES for name in _COORDINATES), "roof_flops_per_second"),
    pl.Float64,
)


def utilisation_table(
    records: Sequence[ReadRecord], summary: pl.DataFrame, ceilings: Mapping[str, Any]
) -> pl.DataFrame:
    """Return, for each configuration of known needs, `mbu` of decoding, `mfu` of prefill, and their roofline.

    The first two are fractions of 1, from the estimates in the summary and what `ceilings` say; the roofline has, for
    decode and prefill, PHASE_flops_per_byte, PHASE_flops_per_second and PHASE_roof_bytes_per_second, and
    roof_flops_per_second of the dtype. Null is what is unknown (the formulas: `hfbench.roofline.utilisation`); and all
    is where requests of unequal lengths come and go, as the formulas are of steps and prefills that are all alike.
    """
    known = [record for record in records if record.facts["status"] == OK and record.needs]
    axes = axes_frame(record.configuration for record in known).drop("round")
    first = axes.to_struct().is_first_distinct().arg_true().to_list()
    estimates = summary.pivot("metric", index=CONFIGURATION_AXES, values="estimate")
    rows = axes[first].join(estimates, on=CONFIGURATION_AXES, how="left", maintain_order="left").to_dicts()
    values = [_utilisation(known[index].needs, row, ceilings) for index, row in zip(first, rows, strict=True)]
    return pl.concat([axes[first], pl.DataFrame(values, schema=_TYPES)], how="horizontal")


def _utilisation(needs: Mapping[str, Any], row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> dict[str, Any]:
    if row["request_lengths"] != UNIFORM:
        return dict.fromkeys(_TYPES)
    lengths, depth = (row["batch_size"], row["sequence_length"]), row["context_depth"]
    steps = (needs, *lengths, row["max_new_tokens"], depth)
    decode = (decode_flops_per_step(*steps), decode_bytes_per_step(*steps), row.get("inter_token_seconds"))
    prefill = (prefill_flops(needs, *lengths, depth), prefill_bytes(needs, *lengths, depth), _prefill_seconds(row))
    return {
        "mbu": _bandwidth(needs, row, ceilings),
        "mfu": _flops(needs, row, ceilings),
        **_coordinates("decode", *decode, ceilings),
        **_coordinates("prefill", *prefill, ceilings),
        "roof_flops_per_second": matmul_ceiling(ceilings, row["dtype"]),
    }


def _coordinates(
    phase: str, flops: float | None, read_bytes: float | None, seconds: float | None, ceilings: Mapping[str, Any]
) -> dict[str, float | None]:
    """Return where a phase that needs so many FLOPs and bytes, and took so long, stands beside its roof."""
    values = (
        flops / read_bytes if flops is not None and read_bytes else None,
        flops / seconds if flops is not None and seconds else None,
        None if read_bytes is None else read_ceiling(ceilings, read_bytes),
    )
    return {f"{phase}_{name}": value for name, value in zip(_COORDINATES, values, strict=True)}


def _bandwidth(needs: Mapping[str, Any], row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> float | None:
    lengths = (row["batch_size"], row["sequence_length"], row["max_new_tokens"], row["context_depth"])
    step_bytes = decode_bytes_per_step(needs, *lengths)
    ceiling = None if step_bytes is None else read_ceiling(ceilings, step_bytes)
    seconds = row.get("inter_token_seconds")
    if not seconds or not ceiling or step_bytes is None:
        return None
    return model_bandwidth_utilisation(step_bytes, seconds, ceiling)


def _flops(needs: Mapping[str, Any], row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> float | None:
    flops, ceiling = (
        prefill_flops(needs, row["batch_size"], row["sequence_length"], row["context_depth"]),
        matmul_ceiling(ceilings, row["dtype"]),
    )
    seconds = _prefill_seconds(row)
    if flops is None or not ceiling or not seconds:
        return None
    return model_flops_utilisation(flops, seconds, ceiling)


def _prefill_seconds(row: Mapping[str, Any]) -> float | None:
    """Return the seconds until the last row has its first token: with `generate` all have it at once."""
    tokens_per_second = row.get("prefill_tokens_per_second")
    return float(row["batch_size"] * row["sequence_length"] / tokens_per_second) if tokens_per_second else None
