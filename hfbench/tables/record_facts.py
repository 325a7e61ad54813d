"""What the table of points says of a record: its columns and how each is taken from the record's JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from hfbench.tables.columns import STATUS
from hfbench.tables.machine_facts import machine_facts
from hfbench.tables.request_facts import REQUEST_TYPES, request_facts

FACT_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "status": STATUS,
    "reason": pl.String,
    "phase": pl.String,
    "device": pl.String,
    "device_name": pl.String,
    "started_at": pl.String,
    "stopped_because": pl.String,
    "target_precision": pl.Float64,
    "warmup_steady": pl.Boolean,
    "recompiles_while_sampling": pl.Int64,
    "prompt_nll": pl.Float64,
    "load_seconds": pl.Float64,
    "first_call_seconds": pl.Float64,
    "compile_seconds": pl.Float64,
    "warm_first_call_seconds": pl.Float64,
    "warm_compile_seconds": pl.Float64,
    "peak_memory_bytes": pl.Int64,
    "energy_joules_per_token": pl.Float64,
    "throttle_reasons": pl.List(pl.String),
    "quota_throttled_share": pl.Float64,
    "clock_mhz": pl.Float64,
    "clock_spread": pl.Float64,
    "other_processes": pl.Int64,
    "others_cpu_share": pl.Float64,
    "cpu_share_before": pl.Float64,
    "swap_used_bytes": pl.Int64,
    "intra_op_threads": pl.Int64,
    "clock_resolution_seconds": pl.Float64,
    "kernels": pl.List(pl.String),
    **REQUEST_TYPES,
    "environment_sha256": pl.String,
    "manifest_sha256": pl.String,
    "inputs_sha256": pl.String,
}
_STATUSES = frozenset(STATUS.categories)
_SHORT_HASH = 12  # digits that tell two commits or folders apart, and a reader can compare
_PRECISION = "precision"  # the stopping rule that asks for `target_precision`


def record_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return a value for each of `FACT_TYPES`, None where the record does not tell.

    `target_precision` is None where the stopping rule asks for none. Raises `AttributeError`, `KeyError`, `TypeError`
    or `ValueError` where the record holds something else than it should.
    """
    if content["status"] not in _STATUSES:
        raise ValueError(f"{content['status']!r} is no status")
    sampling, effective, provenance = content["sampling"], content["effective"], content["provenance"]
    compilation = effective.get("compilation") or {}
    return {
        "status": content["status"],
        "reason": _optional(str, content["reason"]),
        "phase": _optional(str, content["phase"]),
        "device": str(content["device"]),
        "device_name": _optional(str, effective.get("device_name")),
        "started_at": str(content["started_at"]),
        "stopped_because": _optional(str, content["stopped_because"]),
        "target_precision": float(sampling["target_precision"]) if sampling["stopping_rule"] == _PRECISION else None,
        "warmup_steady": _optional(bool, content["warmup_steady"]),
        "recompiles_while_sampling": _optional(len, compilation.get("recompiles_while_sampling")),
        "prompt_nll": _optional(float, content["output"].get("prompt_nll")),
        "load_seconds": _optional(float, content["load_seconds"]),
        "first_call_seconds": _optional(float, content["first_call_seconds"]),
        # What was not asked to compile has no compile time, rather than none of it.
        "compile_seconds": _optional(float, compilation.get("seconds")) if compilation.get("graphs") else None,
        "warm_first_call_seconds": _optional(float, content["warm_start"].get("first_call_seconds")),
        "warm_compile_seconds": _optional(float, content["warm_start"].get("compile_seconds")),
        "peak_memory_bytes": _optional(int, content["memory"].get("peak_bytes")),
        **machine_facts(content),
        "intra_op_threads": _optional(int, effective.get("intra_op_threads")),
        "clock_resolution_seconds": _optional(float, effective.get("clock_resolution_seconds")),
        "kernels": _kernels(effective.get("kernelized_layers", ())),
        **request_facts(content),
        **{f"{name}_sha256": _optional(str, provenance.get(name)) for name in ("environment", "manifest", "inputs")},
    }


def _kernels(layers: Iterable[dict[str, Any]]) -> list[str]:
    """Return what replaced each kind of layer, each in one line, such as `RMSNorm: OWNER/NAME@1a2b3c4d5e6f`."""
    return list(dict.fromkeys(f"{layer['layer']}: {kernel_origin(layer)}" for layer in layers if layer["replaced"]))


def kernel_origin(layer: Mapping[str, Any]) -> str:
    """Return where a kernel came from: `OWNER/NAME@1a2b3c4d5e6f`, `FOLDER sha256:1a2b3c4d5e6f`, or its function."""
    if "repository" in layer:
        return f"{layer['repository']}@{layer['revision'][:_SHORT_HASH]}"
    if "path" in layer:
        return f"{layer['path']} sha256:{layer['sha256'][:_SHORT_HASH]}"
    return str(layer["kernel"])


def _optional(convert: Any, value: Any) -> Any:
    """Return the converted value, or None for None."""
    return None if value is None else convert(value)
