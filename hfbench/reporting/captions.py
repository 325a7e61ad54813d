"""The sentences around the results: what was measured on what, what is constant, and what to beware of."""

from dataclasses import dataclass

import polars as pl

from hfbench.foundation.configuration import UNIFORM, USUAL
from hfbench.foundation.records import OK
from hfbench.reporting.results import varying_axes
from hfbench.tables.columns import CONFIGURATION_AXES

AXIS_LABELS = {
    "model": "model",
    "attn_implementation": "attention",
    "compile_mode": "compile",
    "cache_implementation": "cache",
    "use_kernels": "kernels",
    "continuous_batching": "continuous batching",
    "prefill_chunk_size": "prefill chunk",
    "dtype": "dtype",
    "request_lengths": "requests",
    "batch_size": "batch",
    "sequence_length": "prompt tokens",
    "max_new_tokens": "new tokens",
    "context_depth": "context depth",
}
_LONGEST = ("sequence_length", "max_new_tokens")  # of the longest request, where they are unequal
_TITLE_AXES = ("model", "dtype")
_SAID_WHERE_UNUSUAL = ("cache_implementation", "prefill_chunk_size", "request_lengths", "context_depth")


@dataclass(frozen=True)
class Captions:
    """`title` names models, devices and dtypes; `constants` the other axes with one value; `counts` the records."""

    title: str
    constants: str
    counts: str
    notes: tuple[str, ...]


def captions(points: pl.DataFrame, rows: pl.DataFrame) -> Captions:
    """Return the captions of the results (`rows` is from `result_rows`)."""
    varying = varying_axes(points)
    constant = [axis for axis in CONFIGURATION_AXES if axis not in varying and axis not in _TITLE_AXES]
    ok = int((points["status"] == OK).sum())
    configurations = points.select(CONFIGURATION_AXES).n_unique()
    told = [axis for axis in constant if axis not in _SAID_WHERE_UNUSUAL or points[axis][0] != USUAL[axis]]
    shared = ", ".join(f"{AXIS_LABELS[axis]} {axis_text(points[axis][0])}" for axis in told)
    return Captions(
        title=" · ".join([_values(points["model"]), ", ".join(device_names(points)), _values(points["dtype"])]),
        constants=f"all with {shared}" if shared else "",
        counts=f"{_counted(configurations, 'configuration')}, {ok} of {_counted(points.height, 'record')} ok",
        notes=tuple(_notes(rows)),
    )


def axis_text(value: object) -> str:
    """Return an axis value as shown: yes and no for booleans."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def device_names(points: pl.DataFrame) -> list[str]:
    """Return the names of the devices that were measured on, or the device asked for where no record names one."""
    names = points["device_name"].drop_nulls().unique(maintain_order=True).to_list()
    return names or points["device"].unique(maintain_order=True).to_list()


def _notes(rows: pl.DataFrame) -> list[str]:
    if rows.is_empty():
        return ["No point could be measured."]
    notes = []
    if any(rows[name].any() for name in rows.columns if name.endswith("_best")):
        notes.append("* the best median among configurations with the same work; no test of significance.")
    if (rows["rounds_ok"] == 1).any():
        notes.append(
            "One round does not tell how much processes differ: it has no interval, and establishes no difference."
        )
    return notes + _workloads(rows)


def _workloads(rows: pl.DataFrame) -> list[str]:
    """Return a sentence on each workload of unequal requests: what it is in all."""
    unequal = rows.filter(pl.col("request_lengths") != UNIFORM)
    found = unequal.select("request_lengths", "requests", "prompt_tokens", "new_tokens", *_LONGEST)
    return [
        f"{name} requests: {requests}, with {prompt:,} prompt and {new:,} new tokens in all, at most {longest:,} and "
        f"{most:,} each. They arrive together, and batch is how many run at a time."
        for name, requests, prompt, new, longest, most in found.unique(maintain_order=True).drop_nulls().rows()
    ]


def _values(column: pl.Series) -> str:
    return ", ".join(column.unique(maintain_order=True).to_list())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
