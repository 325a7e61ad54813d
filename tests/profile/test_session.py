"""Operators by their time. The events of a GPU are stand-ins: none is here. Those of the CPU are torch's own."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hfbench.profile.session import DEVICE, HOST, Mark, events_since, operator_times


def _event(name: str, start: float, host: float, device: float, *, kind: str = "CPU", marks: bool = False) -> Any:
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start),
        self_cpu_time_total=host,
        self_device_time_total=device,
        device_type=SimpleNamespace(name=kind),
        is_user_annotation=marks,
    )


def test_a_kernel_counts_to_the_operator_that_started_it_and_only_once() -> None:
    operators = events_since(
        [
            _event("clock", 1000.0, 5000.0, 0.0, marks=True),
            _event("clock", 1010.0, 0.0, 5000.0, kind="CUDA", marks=True),
            _event("aten::mm", 1400.0, 70.0, 500.0),  # of the context, before the call
            _event("aten::mm", 1500.0, 60.0, 500.0),
            _event("aten::mm", 1600.0, 40.0, 400.0),
            _event("aten::add", 1700.0, 300.0, 100.0),
            _event("aten::view", 1800.0, 50.0, 0.0),
            _event("sm90_xmma_gemm", 1550.0, 0.0, 500.0, kind="CUDA"),
        ],
        Mark("clock", 3.0),
        3.0 + 450e-6,
    )
    device, device_seconds = operator_times(operators, DEVICE)
    assert [(each.name, each.calls) for each in device] == [("aten::mm", 2), ("aten::add", 1)]
    assert device_seconds == pytest.approx(1e-3)
    host, host_seconds = operator_times(operators, HOST)
    assert [each.name for each in host] == ["aten::add", "aten::mm", "aten::view"]
    assert host_seconds == pytest.approx(450e-6)


def test_the_operators_of_the_cpu_without_what_only_marks() -> None:
    square = torch.ones(64, 64)
    with profile(activities=[ProfilerActivity.CPU]) as running:
        mark = Mark("clock", time.perf_counter())
        with record_function(mark.name):
            torch.mm(square, square)
        time.sleep(0.01)
        later = time.perf_counter()
        time.sleep(0.01)
        for _ in range(3):
            torch.mm(square, square)
    operators = events_since(running.events() or (), mark, mark.reading)
    rows, seconds = operator_times(operators, HOST)
    calls = {each.name: each.calls for each in rows}
    assert calls["aten::mm"] == 4
    assert mark.name not in calls
    assert seconds == pytest.approx(sum(each.seconds for each in rows))
    assert operator_times(operators, DEVICE) == ((), 0)
    (after, _) = operator_times(events_since(running.events() or (), mark, later), HOST)
    assert [each.calls for each in after if each.name == "aten::mm"] == [3]
