"""The monitor beside real processes, and what it reads of machines that are not here.

For these, trees of files are written after the kernel's documentation; none was copied from a real machine.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hfbench.monitoring.gauges import Columns, Gauge, WatchedDevice
from hfbench.monitoring.host import count_others, processor_gauges, quota_gauge
from hfbench.monitoring.monitor import Monitor, machine_before
from hfbench.tables.facts import LEAST_ENERGY_READINGS
from tests.conftest import WriteTree, some

CPUS = "sys/devices/system/cpu"

# Takes CPU time itself and in a child, waits for the child, tells how much it took, and stays.
_WORKER = """
import os, subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.2: pass"
child = subprocess.Popen([sys.executable, "-c", burn])
exec(burn)
child.wait()
times = os.times()
print(times.user + times.system + times.children_user + times.children_system, flush=True)
sys.stdin.read()
"""


def _watch(monitor: Monitor, samples: int) -> None:
    for _ in range(samples):
        time.sleep(monitor.seconds_until_due(time.perf_counter()))
        monitor.sample(time.perf_counter())


def test_cpu_time_of_the_worker_and_its_children_adds_up() -> None:
    worker = subprocess.Popen([sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    started = time.perf_counter()
    monitor = Monitor(worker.pid, 0.05, started, [])
    try:
        _watch(monitor, 4)
        taken = float(some(worker.stdout).readline())
        _watch(monitor, 1)
    finally:
        worker.communicate()
    summary = monitor.summary()
    times, cores = summary["time_seconds"], summary["host"]["series"]["worker_cpu_cores"]
    steps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    # The rates are over the steps between samples: summed up they give back the time. Ticks are of 10 ms.
    assert sum(step * rate for step, rate in zip(steps, cores, strict=True)) == pytest.approx(taken, abs=0.1)
    assert taken > 0.35  # the child's half is in it
    assert max(summary["host"]["series"]["worker_rss_bytes"]) > 5e6


def test_columns_have_one_value_a_sample_on_the_clock_of_the_iterations() -> None:
    zero = time.perf_counter() - 100  # as a measure stage that began 100 s ago
    monitor = Monitor(os.getpid(), 0.02, zero, [])
    begun = time.perf_counter() - zero
    _watch(monitor, 5)
    ended = time.perf_counter() - zero
    summary = json.loads(json.dumps(monitor.summary(), allow_nan=False))
    times = summary["time_seconds"]
    assert summary["samples"] == 5
    assert begun < times[0] < times[-1] < ended
    assert times == sorted(set(times))
    assert {len(column) for column in summary["host"]["series"].values()} == {5}
    assert {"cpu_percent", "worker_cpu_cores", "worker_rss_bytes", "swap_used_bytes"} <= set(summary["host"]["series"])
    assert all(0 <= share <= 100 for share in summary["host"]["series"]["cpu_percent"] if share is not None)
    # What a machine does not tell has a reason in place of a column.
    assert not set(summary["host"]["series"]) & set(summary["host"]["unavailable"])
    assert all(summary["host"]["unavailable"].values())


def test_cost_is_stated_and_small() -> None:
    monitor = Monitor(os.getpid(), 0.02, time.perf_counter(), [])
    wall = time.perf_counter()
    _watch(monitor, 20)
    wall = time.perf_counter() - wall
    summary = monitor.summary()
    assert summary["own_median_seconds"] > 0
    assert summary["own_cpu_seconds"] / 20 < 0.002
    assert 0 < summary["own_cpu_seconds"] <= summary["own_seconds"] < wall
    assert summary["own_share"] == pytest.approx(summary["own_cpu_seconds"] / wall, rel=0.5)


def test_missed_samples_are_not_made_up_for() -> None:
    monitor = Monitor(os.getpid(), 0.05, time.perf_counter(), [])
    begun = time.perf_counter()
    assert monitor.seconds_until_due(begun) == pytest.approx(0.05, abs=0.02)
    late = begun + 1.03
    assert monitor.seconds_until_due(late) == 0
    monitor.sample(late)
    assert 0 < monitor.seconds_until_due(late) <= 0.05


def test_interval_of_zero_switches_the_monitor_off() -> None:
    monitor = Monitor(os.getpid(), 0, time.perf_counter(), [])
    assert monitor.seconds_until_due(time.perf_counter()) == math.inf
    summary = json.loads(json.dumps(monitor.summary(), allow_nan=False))
    assert (summary["interval_seconds"], summary["samples"], summary["own_median_seconds"]) == (0, 0, None)


def test_worker_that_ends_while_it_is_watched_leaves_gaps() -> None:
    worker = subprocess.Popen([sys.executable, "-c", ""])
    monitor = Monitor(worker.pid, 0.02, time.perf_counter(), [])
    worker.wait()
    _watch(monitor, 2)
    summary = monitor.summary()
    assert "worker_cpu_cores" in summary["host"]["unavailable"]
    assert len(summary["host"]["series"]["swap_used_bytes"]) == 2


def test_gauge_that_fails_leaves_the_others() -> None:
    answers = iter([1, None, 3])

    def broken() -> Sequence[int]:
        raise OSError("the device sleeps")

    columns = Columns([Gauge(("good",), lambda: [next(answers)], "never"), Gauge(("bad",), broken, "never")])
    for _ in range(3):
        columns.sample()
    reasons = {"bad": "OSError: the device sleeps"}
    assert columns.content() == {"series": {"good": [1, None, 3]}, "unavailable": reasons}


@pytest.mark.parametrize(
    ("listed", "here", "others"),
    [
        ([], True, 0),
        ([10, 11], True, 0),  # both ours
        ([10, 99], False, 1),  # ours is known, so the other is another's, though its id is not seen here
        ([98, 99], True, 2),
        ([98], False, None),  # in a container that lists the host's ids, this may be ours
    ],
)
def test_processes_that_are_not_ours(listed: list[int], here: bool, others: int | None) -> None:
    assert count_others(listed, {10, 11}, lambda _: here) == others


def test_state_of_the_machine_before_the_start() -> None:
    began = time.process_time()
    before = json.loads(json.dumps(machine_before([]), allow_nan=False))
    assert time.process_time() - began < 0.02
    assert 0 <= before["cpu_percent"] <= 100
    assert len(before["load_averages"]) == 3
    assert before["available_memory_bytes"] > 1e6
    assert before["swap_used_bytes"] >= 0
    assert before["devices"] == []


def test_busy_machine_is_seen_before_the_start() -> None:
    burner = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        some(burner.stdout).readline()
        busy = machine_before([], window_seconds=0.3)
    finally:
        burner.kill()
        burner.communicate()
    assert busy["cpu_percent"] > 0.5 * 100 / (os.cpu_count() or 1)
    if busy["running_threads"] is not None:
        assert busy["running_threads"] >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_supervisor_with_the_monitor_stays_small() -> None:
    script = (
        "import sys\n"
        "import hfbench.measure.supervisor, pynvml\n"
        "from hfbench.monitoring.devices import open_devices\n"
        "open_devices('cuda')\n"
        "assert not {'torch', 'numpy', 'polars', 'pydantic'} & set(sys.modules)\n"
        "print([int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert int(output) * 1024 < 80e6


def sampled(columns: Columns) -> tuple[dict[str, Any], dict[str, str]]:
    """Sample once, and return the values and why there is none."""
    columns.sample()
    content = columns.content()
    return {name: values[-1] for name, values in content["series"].items()}, content["unavailable"]


def test_processor_of_which_clocks_are_sampled_evenly(write_tree: WriteTree) -> None:
    root = write_tree(
        {
            **{f"{CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq": 3_000_000 + cpu * 200_000 for cpu in range(3)},
            f"{CPUS}/cpu0/thermal_throttle/core_throttle_count": 3,
            f"{CPUS}/cpu0/thermal_throttle/package_throttle_count": 4,
            "sys/class/hwmon/hwmon0/name": "nvme",
            "sys/class/hwmon/hwmon0/temp1_input": 90_000,
            "sys/class/hwmon/hwmon1/name": "coretemp",
            "sys/class/hwmon/hwmon1/temp1_input": 71_000,
            "sys/class/hwmon/hwmon2/name": "coretemp",
            "sys/class/hwmon/hwmon2/temp1_input": 67_500,
        }
    )
    told, unavailable = sampled(Columns(processor_gauges([0, 1], root)))  # CPU 2 is not the worker's
    assert told == {
        "cpu_clock_mhz": 3100.0,
        "cpu_highest_clock_mhz": 3200.0,
        "cpu_temperature_celsius": 71.0,
        "cpu_throttle_count": 7,
    }
    assert set(unavailable) == {"cpu_energy_joules"}
    large = write_tree({f"{CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq": cpu * 1000 for cpu in range(128)})
    told, _ = sampled(Columns(processor_gauges(range(128), large)))
    assert told["cpu_highest_clock_mhz"] == 120  # every eighth: 0, 8, … 120
    assert told["cpu_clock_mhz"] == 60


def test_energy_goes_on_where_the_counter_starts_again(write_tree: WriteTree) -> None:
    zone = "sys/class/powercap/intel-rapl:"
    for package, energy in ((0, 9_000_000), (1, 1_000_000)):
        write_tree({f"{zone}{package}/name": f"package-{package}", f"{zone}{package}/energy_uj": energy})
        write_tree({f"{zone}{package}/max_energy_range_uj": 10_000_000})
    columns = Columns(processor_gauges([0], write_tree({f"{zone}0:0/name": "dram", f"{zone}0:0/energy_uj": 77})))
    columns.sample()
    # The first package's counter passes 10 J and stands at 2 J: 3 J more. The second took 1 J, and once tells nothing.
    for second in ("", 2_000_000):
        write_tree({f"{zone}0/energy_uj": 2_000_000, f"{zone}1/energy_uj": second})
        columns.sample()
    assert columns.content()["series"]["cpu_energy_joules"] == [0, None, 4]


def test_machine_that_tells_nothing_says_why(tmp_path: Path) -> None:
    told, unavailable = sampled(Columns([*processor_gauges([0], tmp_path), quota_gauge(tmp_path)]))
    assert told == {}
    assert len(unavailable) == 6
    assert "virtual machines" in unavailable["cpu_clock_mhz"]


@pytest.mark.parametrize(
    ("groups", "files", "seconds"),
    [
        (
            "0::/user.slice/run.scope",  # the limit may stand at any level
            {"user.slice/run.scope": "nr_throttled 0\nthrottled_usec 0", "user.slice": "throttled_usec 1500000"},
            1.5,
        ),
        ("0::/", {"": "nr_periods 9\nnr_throttled 3\nthrottled_usec 250000"}, 0.25),
        ("4:memory:/x\n1:cpu,cpuacct:/docker/77", {"cpu,cpuacct": "nr_throttled 2\nthrottled_time 2000000000"}, 2.0),
    ],
)
def test_time_held_back_by_a_container(
    write_tree: WriteTree, groups: str, files: dict[str, str], seconds: float
) -> None:
    stats = {f"sys/fs/cgroup/{group}/cpu.stat": text for group, text in files.items()}
    root = write_tree({"proc/self/cgroup": groups, **stats})
    (root / "sys/fs/cgroup/cpu").symlink_to("cpu,cpuacct")  # as Linux distributions do; it counts once
    told, _ = sampled(Columns([quota_gauge(root)]))
    assert told == {"quota_throttled_seconds": seconds}


def test_a_device_is_read_often_enough_for_its_energy_in_the_shortest_sampling() -> None:
    device = WatchedDevice("cuda:0", "a device that is made up", "GPU-0", [], lambda: None)
    began, least_seconds = time.perf_counter(), 2.0
    for devices, enough in (([device], True), ([], False)):
        monitor = Monitor(os.getpid(), 0.5, 0.0, devices)
        monitor.begin(began, least_seconds)
        now, inside = began, 0
        while (now := now + monitor.seconds_until_due(now)) <= began + least_seconds:
            monitor.sample(now)
            inside += 1
        assert (inside >= LEAST_ENERGY_READINGS) is enough
        monitor.begin(now)
        for _ in range(6):
            now += monitor.seconds_until_due(now)
            monitor.sample(now)
        assert monitor.seconds_until_due(now) == pytest.approx(0.5)  # as usual after sampling
        assert monitor.summary()["interval_seconds"] == 0.5


def test_what_is_watched_closely_is_read_at_once_and_then_at_growing_steps() -> None:
    monitor = Monitor(os.getpid(), 0.8, 0.0, [])
    began = time.perf_counter()
    monitor.begin(began)
    now, steps = began, []
    for _ in range(5):
        steps.append(monitor.seconds_until_due(now))
        now += steps[-1]
        monitor.sample(now)
    assert steps == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.8], abs=1e-3)
    assert monitor.summary()["samples"] == 6
    off = Monitor(os.getpid(), 0, 0.0, [])
    off.begin(began)
    assert off.summary()["samples"] == 0
