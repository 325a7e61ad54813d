"""What the monitor's columns say of a record, counted by hand. The readings are invented: this hardware is not here."""

from typing import Any

import pytest

from hfbench.tables.facts import machine_facts

TIMES = [float(second) for second in range(13)]
# Two samples from 1.0 to 11.5 s, of 2 rows with 10 tokens each: 40 tokens.
ITERATIONS = [
    {"phase": "first", "start_seconds": 0.0, "call_seconds": 0.5, "new_tokens": [10, 10]},
    {"phase": "sample", "start_seconds": 1.0, "call_seconds": 5.0, "new_tokens": [10, 10]},
    {"phase": "sample", "start_seconds": 6.5, "call_seconds": 5.0, "new_tokens": [10, 10]},
]
DEVICE = {"device": "cuda:0", "throttle_reasons": {"gpu_idle": 1, "sw_power_cap": 4, "hw_thermal": 64}}


def _facts(
    host: dict[str, Any] | None = None, devices: tuple[dict[str, Any], ...] = (), **before: Any
) -> dict[str, Any]:
    monitoring = {
        "time_seconds": TIMES,
        "host": {"logical_cores": 4, "series": host or {}},
        "devices": [{**DEVICE, "series": series} for series in devices],
    }
    return machine_facts({"iterations": ITERATIONS, "monitoring": monitoring, "machine_before": before})


def test_a_record_without_monitoring_tells_nothing() -> None:
    facts = machine_facts({"iterations": ITERATIONS, "monitoring": {}, "machine_before": {}})
    assert facts.pop("throttle_reasons") == []
    assert set(facts.values()) == {None}


def test_a_record_without_samples_tells_of_the_time_before_only() -> None:
    content = {"iterations": [], "monitoring": {"time_seconds": TIMES}, "machine_before": {"cpu_percent": 25.0}}
    facts = machine_facts(content)
    assert facts.pop("cpu_share_before") == 0.25
    assert facts.pop("throttle_reasons") == []
    assert set(facts.values()) == {None}


def test_energy_is_that_of_the_devices() -> None:
    # 10.5 s of 100 W from the one and 10.5 s of 60 W from the other, over 40 tokens.
    devices = ({"energy_joules": [100 * at for at in TIMES]}, {"power_watts": [60.0] * 13})
    cpu = {"cpu_energy_joules": [1000 * at for at in TIMES]}
    assert _facts(cpu, devices)["energy_joules_per_token"] == pytest.approx(10.5 * 160 / 40)
    assert _facts(cpu)["energy_joules_per_token"] == pytest.approx(10.5 * 1000 / 40)
    assert _facts(cpu, (*devices, {}))["energy_joules_per_token"] is None  # one of three is not known


def test_a_token_has_no_energy_of_its_own_where_the_cache_is_filled_between_samples() -> None:
    monitoring = {"time_seconds": TIMES, "host": {"series": {"cpu_energy_joules": [1000 * at for at in TIMES]}}}
    content = {"iterations": ITERATIONS, "monitoring": monitoring, "machine_before": {}}
    assert machine_facts(content)["energy_joules_per_token"] == pytest.approx(10.5 * 1000 / 40)
    after_context = {**content, "configuration": {"context_depth": 1024}}
    assert machine_facts(after_context)["energy_joules_per_token"] is None


def test_throttling_counts_while_sampling() -> None:
    masks = [64] + [1] * 5 + [5] + [1] * 5 + [64]  # heat before and after, a power cap at 6 s, idleness always
    heat = [3] * 13
    assert _facts({"cpu_throttle_count": heat}, ({"throttle_mask": masks},))["throttle_reasons"] == ["sw_power_cap"]
    heat[7:] = [4] * 6
    assert _facts({"cpu_throttle_count": heat})["throttle_reasons"] == ["cpu_heat"]


def test_the_time_that_a_cpu_limit_withheld() -> None:
    # It grows by 0.5 s each second, from the reading at 0 s, the last one before the samples, to that at 11 s.
    share = _facts({"quota_throttled_seconds": [0.5 * at for at in TIMES]})["quota_throttled_share"]
    assert share == pytest.approx(5.5 / 10.5)


def test_clocks_are_the_devices_where_there_are_any() -> None:
    cpu = {"cpu_highest_clock_mhz": [2000.0] * 6 + [3000.0] * 7}
    gpu = {"clock_mhz": [500] + [1900] * 6 + [2000] * 5 + [500]}
    assert _facts(cpu)["clock_spread"] == pytest.approx(1000 / 3000)
    facts = _facts(cpu, (gpu,))
    assert (facts["clock_mhz"], facts["clock_spread"]) == (1900, pytest.approx(100 / 1900))


def test_other_processes_before_and_meanwhile() -> None:
    meanwhile = {"other_processes": [0] * 5 + [2] * 4 + [None] * 4}
    assert _facts(devices=(meanwhile,))["other_processes"] == 2
    before = {"devices": [{"other_processes": 3}]}
    content = {"iterations": ITERATIONS, "monitoring": {}, "machine_before": before}
    assert machine_facts(content)["other_processes"] == 3


def test_the_share_of_other_programs() -> None:
    # 4 cores at 75% are 3 cores, of which the worker took 2.6: 0.4 cores are a tenth of the machine.
    facts = _facts({"cpu_percent": [75.0] * 13, "worker_cpu_cores": [2.6] * 13})
    assert facts["others_cpu_share"] == pytest.approx(0.1)


def test_swap_is_the_most_that_was_seen() -> None:
    assert _facts({"swap_used_bytes": [0] * 6 + [700] + [0] * 6}, swap_used_bytes=500)["swap_used_bytes"] == 700
    assert _facts(swap_used_bytes=500)["swap_used_bytes"] == 500
