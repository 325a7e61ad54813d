"""Records written by hand for the tests of tables and report, and what models need, small enough to work by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.synthetic_records import SAMPLING, record_path
from hfbench.core.point import Configuration
from hfbench.core.record import FAILED, OK, Iteration, Record
from hfbench.params.schema import Limits
from hfbench.tables.build import Tables, build_tables
from hfbench.tables.reading import read_records

LIMITS = Limits(min_top1_agreement=0.9, max_nll_difference=0.05)
POINT = Configuration(
    round=1, model="tiny", attn_implementation="sdpa", batch_size=2, sequence_length=10, max_new_tokens=4
)

# Two layers that keep 10 bytes a token.
KIND = {
    "layers": 2,
    "bytes_per_token_per_row": 10,
    "key_dim": 4,
    "value_dim": 4,
    "query_heads": 3,
    "window_tokens": None,
}
# Weights of 1000 bytes, and one product of 100 parameters.
DENSE: dict[str, Any] = {
    "dense_weight_bytes": 1000,
    "repeated_weight_bytes": 0,
    "dense_matmul_parameters": 100,
    "head_matmul_parameters": 50,
    "routed_experts": [],
    "unknown": {},
    "cache": {"attention": [KIND], "state_bytes_per_row": 0},
}


def point(**changes: Any) -> Configuration:
    """A configuration that differs from POINT in these axes."""
    return replace(POINT, **changes)


def observed(*token_seconds: Sequence[float], end_to_end: float | None = None, phase: str = "sample") -> Iteration:
    """An iteration with these token times, which ends with its last token unless said otherwise."""
    end = max(times[-1] for times in token_seconds) if end_to_end is None else end_to_end
    return Iteration(phase, True, 1.0, end, end, (len(token_seconds[0]),), tuple(map(tuple, token_seconds)))


def unobserved(end_to_end: float) -> Iteration:
    """A sample iteration without the token observer."""
    return Iteration("sample", False, 1.0, end_to_end, end_to_end, (4, 4), ())


def ok_record(configuration: Configuration, *iterations: Iteration, **fields: Any) -> Record:
    """A record of a point that was measured, in the minute of its round."""
    values: dict[str, Any] = {
        "status": OK,
        "started_at": f"2025-03-01T10:{configuration.round:02}:00+00:00",
        "iterations": list(iterations),
        "load_seconds": 0.5,
    } | fields
    return Record(configuration, "auto", SAMPLING, **values)


def failed_record(
    configuration: Configuration, reason: str | None = None, status: str = FAILED, **fields: Any
) -> Record:
    """A record of a point that could not be measured."""
    return Record(configuration, "auto", SAMPLING, status=status, reason=reason, **fields)


def save(folder: Path, *records: Record) -> None:
    """Write the records below the folder, in a sub-folder for each round."""
    for record in records:
        record.save(record_path(folder, record.configuration))


def tables_of(folder: Path, *records: Record, ceilings: dict[str, Any] | None = None) -> Tables:
    """The tables of these records, written to the folder and read again as the stage does."""
    save(folder, *records)
    return build_tables(read_records(folder, [record.configuration for record in records]), ceilings or {}, LIMITS)
