"""What the table of points says of a record, counted by hand. The readings are invented: this hardware is not here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hfbench.core.errors import UserError
from hfbench.tables.facts import energy_per_token, machine_facts, recurring_gap
from tests.tables.hand_records import POINT, failed_record, observed, ok_record, point, tables_of

SECONDS = [float(second) for second in range(21)]  # one sample a second, 0 to 20
COUNTER = [5000 + 100 * second for second in SECONDS]  # 100 W


@pytest.mark.parametrize(
    ("columns", "start", "end", "tokens", "joules"),
    [
        ({"energy_joules": COUNTER}, 2.5, 14.5, 60, 20),  # 1200 J
        # Power rises by 10 W a second: between 4 s and 16 s it is 100 W in the mean, 1200 J.
        ({"power_watts": [10 * second for second in SECONDS]}, 4, 16, 100, 12),
        # 0 W until 10 s, then straight up to 100 W at 11 s. From 0 to 10.5 s: a triangle of 0.5 s by 50 W.
        ({"power_watts": [0.0] * 11 + [100.0] * 10}, 0, 10.5, 1, 12.5),
        ({"energy_joules": COUNTER, "power_watts": [50.0] * 21}, 0, 20, 10, 200),
        ({"energy_joules": [None] * 21, "power_watts": [50.0] * 21}, 0, 20, 10, 100),
        ({"energy_joules": [*COUNTER[:7], None, *COUNTER[8:]]}, 2, 18, 16, 100),
    ],
    ids=["counter", "integral", "cut between samples", "counter preferred", "power stands in", "failure bridged"],
)
def test_energy_per_token(columns: dict[str, Any], start: float, end: float, tokens: int, joules: float) -> None:
    assert energy_per_token(SECONDS, start, end, tokens, **columns) == pytest.approx(joules)


@pytest.mark.parametrize(("start", "end", "tokens"), [(2, 10.5, 5), (2, 20.5, 5), (-0.5, 18, 5), (2, 18, 0)])
def test_energy_is_unknown_for_few_readings_a_span_not_covered_or_no_tokens(
    start: float, end: float, tokens: int
) -> None:
    assert energy_per_token(SECONDS, start, end, tokens, energy_joules=COUNTER) is None
    assert energy_per_token(SECONDS, 2, 18, 5) is None


TIMES = [float(second) for second in range(13)]
# Two samples from 1.0 to 11.5 s, of 2 rows with 10 tokens each: 40 tokens.
ITERATIONS = [
    {"phase": "first", "start_seconds": 0.0, "call_seconds": 0.5, "new_tokens": [10, 10]},
    {"phase": "sample", "start_seconds": 1.0, "call_seconds": 5.0, "new_tokens": [10, 10]},
    {"phase": "sample", "start_seconds": 6.5, "call_seconds": 5.0, "new_tokens": [10, 10]},
]
DEVICE = {"device": "cuda:0", "throttle_reasons": {"gpu_idle": 1, "sw_power_cap": 4, "hw_thermal": 64}}


def _facts(
    host: dict[str, Any] | None = None,
    devices: tuple[dict[str, Any], ...] = (),
    *,
    before: dict[str, Any] | None = None,
    **content: Any,
) -> dict[str, Any]:
    monitoring = {
        "time_seconds": TIMES,
        "host": {"logical_cores": 4, "series": host or {}},
        "devices": [{**DEVICE, "series": series} for series in devices],
    }
    return machine_facts(
        {"iterations": ITERATIONS, "monitoring": monitoring, "machine_before": before or {}, **content}
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"iterations": ITERATIONS, "monitoring": {}, "machine_before": {}}, {}),
        (
            {"iterations": [], "monitoring": {"time_seconds": TIMES}, "machine_before": {"cpu_percent": 25.0}},
            {"cpu_share_before": 0.25},
        ),
    ],
)
def test_without_monitoring_or_samples_it_tells_nothing_or_of_the_time_before(
    content: dict[str, Any], told: dict[str, Any]
) -> None:
    facts = machine_facts(content)
    assert facts == {**dict.fromkeys(facts), "throttle_reasons": [], **told}


def test_energy_is_that_of_the_devices() -> None:
    # 10.5 s of 100 W from the one and 10.5 s of 60 W from the other, over 40 tokens.
    devices = ({"energy_joules": [100 * at for at in TIMES]}, {"power_watts": [60.0] * 13})
    cpu = {"cpu_energy_joules": [1000 * at for at in TIMES]}
    assert _facts(cpu, devices)["energy_joules_per_token"] == pytest.approx(10.5 * 160 / 40)
    assert _facts(cpu)["energy_joules_per_token"] == pytest.approx(10.5 * 1000 / 40)
    assert _facts(cpu, (*devices, {}))["energy_joules_per_token"] is None  # one of three is not known
    # Of an accelerator that no driver tells of, that of the CPU beside it says nothing.
    unwatched = _facts({**cpu, "cpu_highest_clock_mhz": [3000] * 13}, effective={"device": "cuda:0"})
    assert (unwatched["energy_joules_per_token"], unwatched["clock_mhz"]) == (None, None)
    # A token has no energy of its own where the cache is filled between samples.
    assert _facts(cpu, configuration={"context_depth": 1024})["energy_joules_per_token"] is None


def _masks(while_sampling: list[int | None], before_and_after: int = 64) -> tuple[dict[str, Any], ...]:
    """The throttle reasons of the one device, at 0 s and from 12 s on, and at 1 s to 11 s."""
    return ({"throttle_mask": [before_and_after, *(while_sampling + [1] * 11)[:11], before_and_after]},)


@pytest.mark.parametrize(
    ("masks", "reasons"),
    [
        ([], []),  # heat before and after, idleness always
        ([1, 0, 4, None, 5], ["sw_power_cap"]),
        ([1, 0, 4, None, 5, 64], ["sw_power_cap", "hw_thermal"]),
        ([1] * 10 + [4], ["sw_power_cap"]),  # both ends of the samples count
    ],
)
def test_throttling_counts_while_sampling_and_idleness_is_none(masks: list[int | None], reasons: list[str]) -> None:
    assert _facts({"cpu_throttle_count": [3] * 13}, _masks(masks))["throttle_reasons"] == reasons
    assert _facts({"cpu_throttle_count": [3] * 7 + [4] * 6})["throttle_reasons"] == ["cpu_heat"]


@pytest.mark.parametrize(
    ("readings", "seconds"),
    [
        # By 0.5 s each second, from the reading at 0 s, the last one before the samples, to that at 11 s.
        ([0.5 * at for at in TIMES], 5.5),
        ([7.0] * 12 + [9.0], 0),
        ([None] * 5 + [7.0] + [None] * 7, None),
    ],
)
def test_the_time_that_a_cpu_limit_withheld(readings: list[float | None], seconds: float | None) -> None:
    share = _facts({"quota_throttled_seconds": readings})["quota_throttled_share"]
    assert share == (None if seconds is None else pytest.approx(seconds / 10.5))


def test_clocks_are_the_devices_where_there_are_any() -> None:
    cpu = {"cpu_highest_clock_mhz": [2000.0] * 6 + [None] + [3000.0] * 6}
    gpu = {"clock_mhz": [500] + [1900] * 6 + [2000] * 5 + [500]}
    assert _facts(cpu)["clock_spread"] == pytest.approx(1000 / 2500)
    facts = _facts(cpu, (gpu,))
    assert (facts["clock_mhz"], facts["clock_spread"]) == (1900, pytest.approx(100 / 1900))
    once = _facts(devices=({"clock_mhz": [None, 1980, *[None] * 11]},))
    assert (once["clock_mhz"], once["clock_spread"]) == (1980, None)


def test_other_processes_before_and_meanwhile() -> None:
    meanwhile = {"other_processes": [0] * 5 + [2] * 4 + [None] * 4}
    assert _facts(devices=(meanwhile,))["other_processes"] == 2
    assert _facts(devices=(meanwhile,), before={"devices": [{"other_processes": 3}]})["other_processes"] == 3


@pytest.mark.parametrize(
    ("cpu_percent", "worker_cpu_cores", "share"),
    [
        # 4 cores at 75% are 3 cores, of which the worker took 2.6: 0.4 cores are a tenth of the machine.
        ([75.0] * 13, [2.6] * 13, 0.1),
        # 3, 2 and 4 cores are busy, and the worker takes 2 of them each time: 1 core in the median.
        ([0, 75.0, 50.0, 100.0] + [None] * 9, [2.0] * 13, 0.25),
        ([25.0] * 13, [1.02] * 13, 0),
        ([None] * 13, [1.0] * 13, None),
    ],
)
def test_the_share_of_other_programs(cpu_percent: Any, worker_cpu_cores: Any, share: float | None) -> None:
    facts = _facts({"cpu_percent": cpu_percent, "worker_cpu_cores": worker_cpu_cores})
    assert facts["others_cpu_share"] == (None if share is None else pytest.approx(share))


def test_swap_is_the_most_that_was_seen() -> None:
    before = {"swap_used_bytes": 500}
    assert _facts({"swap_used_bytes": [0] * 6 + [700] + [0] * 6}, before=before)["swap_used_bytes"] == 700
    assert _facts(before=before)["swap_used_bytes"] == 500


REVISION = "0123456789abcdef0123456789abcdef01234567"
KERNELS = [
    {"layer": "RMSNorm", "replaced": 61, "kernel": "forward", "repository": "o/norm", "revision": REVISION},
    {"layer": "SiLU", "replaced": 30, "kernel": "SiLU.forward", "path": "k/silu", "sha256": "5" * 64},
    {"layer": "rotary_pos_emb", "replaced": 0},
]
PROVENANCE = {"environment": "e" * 64, "manifest": "d" * 64, "input_tensors": "a" * 64}


def _points(folder: Path, *effective: dict[str, Any], **fields: Any) -> pl.DataFrame:
    records = [
        ok_record(point(round=number), observed([0.5, 0.6]), effective=each, **fields)
        for number, each in enumerate(effective, start=1)
    ]
    return tables_of(folder, *records).points


def test_kernels_are_named_by_layer_and_origin(tmp_path: Path) -> None:
    points = _points(tmp_path, {"kernelized_layers": KERNELS}, {"kernelized_layers": KERNELS[2:]}, {})
    assert points["kernels"].to_list() == [["RMSNorm: o/norm@0123456789ab", "SiLU: k/silu sha256:555555555555"], [], []]


def test_the_files_and_threads_it_was_measured_with(tmp_path: Path) -> None:
    names = ("environment_sha256", "manifest_sha256", "input_tensors_sha256")
    assert _points(tmp_path / "all", {}, provenance=PROVENANCE).select(names).row(0) == ("e" * 64, "d" * 64, "a" * 64)
    assert _points(tmp_path / "none", {}).select(names).row(0) == (None, None, None)
    gomp = {"file": "libgomp.so.1", "owner": "torch", "size_bytes": 8}
    points = _points(tmp_path / "libraries", {"libraries": {"libgomp": gomp}}, {})
    assert points["libraries"].to_list() == [["libgomp: libgomp.so.1 of torch, 8 bytes"], []]
    points = _points(tmp_path / "threads", {"intra_op_threads": 8, "clock_resolution_seconds": 1e-9}, {})
    assert points.select("intra_op_threads", "clock_resolution_seconds").rows() == [(8, 1e-9), (None, None)]


STARTED = {"first_call_seconds": 3.25, "compile_seconds": 2.5, "cache_hits": 1}
COMPILED = {"graphs": 2, "seconds": 14.5}


@pytest.mark.parametrize(
    ("compilation", "warm_start", "seconds"),
    [
        (COMPILED, {}, (14.5, None, None)),
        (COMPILED, STARTED, (14.5, 2.5, 3.25)),  # the second start is apart from the first
        (COMPILED, {"reason": "timed_out"}, (14.5, None, None)),
        ({"graphs": 0, "seconds": 0}, {}, (None, None, None)),  # not asked to: no compile time, rather than none of it
        ({"graphs": 0, "seconds": 3.0}, {}, (None, None, None)),  # given up: what runs is not compiled
        ({}, {}, (None, None, None)),
        (None, {}, (None, None, None)),
    ],
)
def test_compile_time_is_that_of_compiled_code(tmp_path: Path, compilation: Any, warm_start: Any, seconds: Any) -> None:
    points = _points(tmp_path, {"compilation": compilation}, warm_start=warm_start)
    assert points.select("compile_seconds", "warm_compile_seconds", "warm_first_call_seconds").rows() == [seconds]


def test_a_record_that_failed_early_has_none_of_them(tmp_path: Path) -> None:
    early = failed_record(POINT, "no such kernel", provenance=PROVENANCE)
    (row,) = tables_of(tmp_path, early).points.to_dicts()
    assert (row["kernels"], row["intra_op_threads"], row["compile_seconds"]) == ([], None, None)
    assert row["environment_sha256"] == "e" * 64


@pytest.mark.parametrize(
    "effective",
    [
        {"kernelized_layers": [{"layer": "RMSNorm", "replaced": 1}]},
        {"kernelized_layers": 7},
        {"intra_op_threads": "many"},
        {"compilation": {"graphs": 1, "seconds": "long"}},
    ],
)
def test_a_record_with_something_else_there_is_none(tmp_path: Path, effective: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is no measurement record"):
        _points(tmp_path, effective)


def test_a_gap_before_other_tokens_in_other_rounds_does_not_recur(tmp_path: Path) -> None:
    def ratio(*places: int) -> float | None:
        rounds = [
            ok_record(point(round=number), *[observed([0.1 * (n + (n >= place)) for n in range(1, 12)])] * 3)
            for number, place in enumerate(places, start=1)
        ]
        found: float | None = tables_of(tmp_path, *rounds).configurations["recurring_gap_ratio"].item()
        return found

    assert ratio(6, 6, 6) == pytest.approx(2)
    assert ratio(6, 6, 4) is None


def _paced(*gaps: float) -> dict[str, Any]:
    return {"phase": "sample", "token_seconds": [[0.5, *(0.5 + sum(gaps[: count + 1]) for count in range(len(gaps)))]]}


def test_a_gap_that_recurs_at_the_same_token_is_not_averaged_away() -> None:
    usual, late = [0.1] * 9, [0.1] * 4 + [0.8] + [0.1] * 4
    found = recurring_gap([_paced(*late), _paced(*[2 * gap for gap in late]), _paced(*late)])
    assert found == {"recurring_gap_ratio": pytest.approx(8), "recurring_gap_token": 6}
    assert recurring_gap([_paced(*late)] * 3 + [_paced(*usual)]) == found  # which three of four reach
    by_chance = recurring_gap([_paced(*late), _paced(*late), _paced(*usual)])
    assert by_chance["recurring_gap_ratio"] == pytest.approx(1)
    few = {"recurring_gap_ratio": None, "recurring_gap_token": None}
    assert recurring_gap([_paced(*late)] * 2) == few  # iterations
    assert recurring_gap([_paced(0.1, 0.8, 0.1)] * 3) == few  # gaps
    assert recurring_gap([{"phase": "sample", "token_seconds": _paced(*late)["token_seconds"] * 2}] * 3) == few  # rows


@pytest.mark.parametrize(
    ("times", "device", "readings"),
    [
        ([-1.0, 0.5, 1.0, 99.0], [[1.0, 2.0, None, 3.0]], 1),  # the device told nothing at one of the two
        ([-1.0, 0.5, 1.0, 99.0], [], 2),
        ([-1.0, 99.0], [], 0),
        (None, [], None),
    ],
)
def test_readings_of_the_hardware_while_samples_were_taken(
    times: list[float] | None, device: list[list[float | None]], readings: int | None
) -> None:
    devices = [{"series": {"power_watts": column}} for column in device]
    monitoring = {"time_seconds": times, "devices": devices} if times else {}
    sample = {"phase": "sample", "start_seconds": 0.0, "call_seconds": 2.0, "new_tokens": [4]}
    content: dict[str, Any] = {"machine_before": {}, "monitoring": monitoring, "iterations": [sample]}
    assert machine_facts(content)["monitor_readings"] == readings
    if times and not devices:  # the host was read, and the accelerator was not
        content["effective"] = {"device": "mps"}
        assert machine_facts(content)["monitor_readings"] == 0


@pytest.mark.parametrize(("every", "seconds"), [(0, 9 * 5.5), (2, 15 * 5.5), (4, 11 * 5.5)])
def test_how_long_the_iterations_that_were_asked_for_take(tmp_path: Path, every: int, seconds: float) -> None:
    """Six with the token observer, those without it between them, and three of the warm-up; with what lies between."""
    record = ok_record(POINT, *(observed([0.1, 2.0]) for _ in range(3)))
    record.sampling = replace(record.sampling, min_iterations=6, unobserved_every=every)
    starts = iter((1.0, 6.5, 12.0))
    record.iterations = [
        replace(each, start_seconds=next(starts)) if each.phase == "sample" else each for each in record.iterations
    ]
    points = tables_of(tmp_path, record).points
    assert points["asked_iterations_seconds"].to_list() == [pytest.approx(seconds)]


def test_what_drafts_and_shared_prefixes_gave_is_counted(tmp_path: Path) -> None:
    drafting = {"steps": 4, "proposed_tokens": 40, "accepted_tokens": 10, "draft_seconds": 0.5, "call_seconds": 2.0}
    record = ok_record(POINT, observed([0.1, 2.0]), output={"drafting": drafting})
    record.effective["prefix_sharing"] = {"prompt_tokens": 48, "shared_tokens": 16}
    (row,) = tables_of(tmp_path, record).points.to_dicts()
    assert row["tokens_per_step"] == 14 / 4
    assert row["draft_acceptance_share"] == 0.25
    assert row["draft_time_share"] == 0.25
    assert row["prefix_hit_share"] == pytest.approx(1 / 3)
