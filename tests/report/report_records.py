"""Records as a real sweep makes them, with invented times, and what charts are drawn from, for tests of the report."""

import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.synthetic_records import SAMPLING
from hfbench.core.point import Configuration, telling_axes
from hfbench.core.record import OK, Iteration, Record
from hfbench.report.charts.chart import Chart
from hfbench.report.frames import ReportData, Results, report_data
from hfbench.report.html import report_page
from hfbench.tables.build import Tables
from tests.tables.hand_records import observed, ok_record, point, tables_of

CEILINGS: dict[str, Any] = {
    "schema_version": 1,
    "device": "cpu",
    "copy_bytes_per_second": 2.13e10,
    "read_bytes_per_second": 2.9e10,
    "read_bytes_per_second_by_size": {str(2**26): 6.1e10, str(2**28): 3.4e10, str(2**30): 2.9e10},
    "matmul_flops_per_second": {"bfloat16": 1.1e12, "float32": 4.0e11},
}
# Of a model of 135 million parameters in bfloat16.
NEEDS: dict[str, Any] = {
    "dense_weight_bytes": 2.7e8,
    "routed_expert_weight_bytes": 0,
    "experts": None,
    "experts_per_token": None,
    "dense_matmul_parameters": 1.06e8,
    "routed_expert_matmul_parameters": 0,
    "head_matmul_parameters": 2.8e7,
    "attention_heads": 9,
    "cache": {
        "state_bytes_per_row": 0,
        "attention": [
            {"layers": 30, "bytes_per_token_per_row": 768, "window_tokens": None, "key_dim": 64, "value_dim": 64}
        ],
    },
}
_SPEED = {"eager": 1.0, "sdpa": 0.86, "sdpa:math": 0.99, "flex_attention": 0.93}


def sweep_records(rounds: int = 3, iterations: int = 8, *, noise: float = 0.01, **axes: list[Any]) -> list[Record]:
    """Records of every combination of these axes, in the order of a sweep."""
    values = {"round": list(range(1, rounds + 1)), "max_new_tokens": [32], "sequence_length": [128], **axes}
    points = [point(**dict(zip(values, each, strict=True))) for each in product(*values.values())]
    return [sweep_record(each, iterations, noise) for each in points]


def sweep_record(configuration: Configuration, iterations: int, noise: float = 0.01) -> Record:
    """A record of one process: its luck is drawn once, and its iterations scatter around that."""
    told = {axis: getattr(configuration, axis) for axis in telling_axes(vars(configuration))}
    draw = random.Random(f"{configuration.round} {told}")  # which an axis more does not change
    luck = draw.gauss(1, noise)
    compiled = configuration.compile_mode != "off"
    pace = _SPEED.get(configuration.attn_implementation, 1.0) * luck * (0.7 if compiled else 1.0)
    imported = draw.gauss(0.35, 0.01)
    begins = _begins(imported, draw)
    record = Record(
        configuration,
        device="auto",
        sampling=SAMPLING,
        status=OK,
        started_at=f"2025-03-01T10:{configuration.round:02}:00+00:00",
        effective={"device_name": "AMD EPYC 9654 96-Core Processor"},
        accounting=NEEDS,
        output={"prompt_nll": 2.5, "prompt_top1": [1, 2, 3], "tokens": [4, 5]},
        memory={"peak_bytes": int(7.4e8 + 2.4e6 * configuration.batch_size * draw.gauss(1, 0.05))},
        load_seconds=begins["first call"] - begins["load"],
        warmup_steady=True,
        stopped_because="fixed",
    )
    at = begins["first call"] + 0.01
    compile_seconds = draw.gauss(14, 0.3) if compiled else 0.0
    for index in range(iterations + 2):
        phase = ("first", "warmup")[index] if index < 2 else "sample"
        observed = phase != "sample" or index % 4 != 1
        iteration = _iteration(configuration, phase, observed, at, pace * draw.lognormvariate(0, noise / 2), draw)
        if index == 0:
            iteration = _stretched(iteration, compile_seconds)
        record.iterations.append(iteration)
        at += iteration.call_seconds + 0.002
        begins.setdefault({0: "verify", 1: "sample"}.get(index, "conclude"), at)
        if index == 0:
            begins["warm-up"] = at = at + 0.3
    if compiled:
        record.effective["compilation"] = {"graphs": 1, "seconds": compile_seconds}
    record.first_call_seconds = record.iterations[0].call_seconds
    record.timeline = {**begins, "conclude": at, "end": at + 0.3}
    return record


def _begins(imported: float, draw: random.Random) -> dict[str, float]:
    """When the phases up to the first call begin."""
    lengths = {"prepare": draw.gauss(2.1, 0.05), "load": 0.06, "first call": draw.gauss(0.25, 0.02)}
    begins = {"import": imported}
    for name, seconds in lengths.items():
        begins[name] = begins[list(begins)[-1]] + seconds
    return begins


def _iteration(
    configuration: Configuration, phase: str, observed: bool, start: float, pace: float, draw: random.Random
) -> Iteration:
    """A prefill and tokens whose gaps grow a little with the context and with the batch."""
    batch, prompt = configuration.batch_size, configuration.sequence_length
    lists = []
    for _ in range(batch if configuration.continuous_batching else 1):
        times = [pace * 0.0005 * batch * prompt * draw.gauss(1, 0.01)]
        for token in range(1, configuration.max_new_tokens):
            gap = 0.036 * (1 + 0.015 * batch) * (1 + 0.0004 * (prompt + token))
            stall = 1.6 if draw.random() < 0.01 else 1.0
            times.append(times[-1] + pace * gap * stall * draw.lognormvariate(0, 0.02))
        lists.append(tuple(times))
    end = max(times[-1] for times in lists) + 1e-4
    return Iteration(
        phase=phase,
        observed=observed,
        start_seconds=start,
        end_to_end_seconds=end,
        call_seconds=end + 1e-4,
        new_tokens=(configuration.max_new_tokens,) * batch,
        token_seconds=tuple(lists) if observed else (),
    )


def _stretched(iteration: Iteration, seconds: float) -> Iteration:
    """The iteration with so many seconds more between its first and its second token."""
    content = vars(iteration)
    lists = tuple((times[0], *(time + seconds for time in times[1:])) for times in iteration.token_seconds)
    longer = {name: content[name] + seconds for name in ("end_to_end_seconds", "call_seconds")}
    return Iteration(**{**content, **longer, "token_seconds": lists})


def data_of(folder: Path, records: Sequence[Record], ceilings: dict[str, Any] | None = None) -> ReportData:
    tables = tables_of(folder, *records, ceilings=ceilings)
    return report_data(tables.samples, tables.summary, tables.points, tables.configurations)


def drawn(chart: Chart | None) -> Chart:
    assert chart is not None
    return chart


def measured(configuration: Configuration, *seconds: float) -> Record:
    return ok_record(configuration, *(observed([0.1, each]) for each in seconds))


def page_of(
    tables: Tables, environment: dict[str, Any] | None = None, ceilings: dict[str, Any] | None = None, **more: Any
) -> str:
    results = Results(tables.summary, tables.points, tables.configurations, tables.warnings)
    return report_page(results, tables.samples, environment=environment or {}, ceilings=ceilings or {}, **more)
