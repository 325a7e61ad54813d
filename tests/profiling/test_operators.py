"""Operators by their time. The averages of a GPU are stand-ins: none is here. Those of the CPU are torch's own."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hfbench.profiling.operators import device_times, host_times


def _average(key: str, host: float, device: float, **other: Any) -> SimpleNamespace:
    known = {"count": 2, "device_type": SimpleNamespace(name="CPU"), "is_user_annotation": False}
    return SimpleNamespace(
        **{"key": key, "self_cpu_time_total": host, "self_device_time_total": device, **known, **other}
    )


def test_a_kernel_counts_to_the_operator_that_started_it_and_only_once() -> None:
    averages = [
        _average("aten::mm", 100.0, 900.0),
        _average("aten::add", 300.0, 100.0),
        _average("aten::view", 50.0, 0.0),
        _average("sm90_xmma_gemm", 0.0, 900.0, device_type=SimpleNamespace(name="CUDA")),
        _average("iteration", 5000.0, 0.0, is_user_annotation=True),
    ]
    device, device_seconds = device_times(averages)
    assert [(each.name, each.calls) for each in device] == [("aten::mm", 2), ("aten::add", 2)]
    assert device_seconds == pytest.approx(1e-3)
    host, host_seconds = host_times(averages)
    assert [each.name for each in host] == ["aten::add", "aten::mm", "aten::view"]
    assert host_seconds == pytest.approx(450e-6)


def test_the_operators_of_the_cpu_without_what_only_marks() -> None:
    with profile(activities=[ProfilerActivity.CPU]) as running, record_function("a mark"):
        for _ in range(3):
            torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    rows, seconds = host_times(running.key_averages())
    calls = {each.name: each.calls for each in rows}
    assert calls["aten::mm"] == 3
    assert "a mark" not in calls
    assert seconds == pytest.approx(sum(each.seconds for each in rows))
    assert device_times(running.key_averages()) == ((), 0)
