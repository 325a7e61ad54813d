"""What the doctor says of a machine; the readings are written, each check sees one thing go wrong."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hfbench.doctor import (
    Accelerator,
    Disk,
    Finding,
    Memory,
    Plan,
    Processor,
    Readings,
    Watched,
    examine,
    print_findings,
)

GB = 10**9
GPU = Accelerator("nvidia", "cuda", "NVIDIA H200", 150 * GB, persistence_mode=True)
HEALTHY = Readings(
    processor=Processor(
        usable_cores=16,
        smt=False,
        governors=("performance",),
        boost=False,
        boost_off="echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo",
        limit_cores=None,
        is_virtual=False,
        busy_percent=1.5,
        load_average=0.2,
    ),
    memory=Memory(available_bytes=60 * GB, total_bytes=64 * GB, swap_used_bytes=0, transparent_hugepages="madvise"),
    accelerators=(GPU,),
    watched=Watched("cuda:0", "NVIDIA H200", other_processes=0, memory_used_bytes=1 * GB, memory_bytes=150 * GB),
    disks=(Disk("models of the hub", Path("/home/me/.cache/huggingface"), 80 * GB, "HF_HOME"),),
    torch_version="2.13.0",
    hidden=None,
    plan=Plan("auto", {"small": 1 * GB, "large": 16 * GB}),
)
ON_CPU: dict[str, Any] = {"accelerators": (), "watched": None, "torch_version": "2.13.0+cpu"}


def _with(part: str | None = None, **changes: Any) -> Readings:
    """The healthy machine with changes to itself or to one part of it."""
    if part is None:
        return dataclasses.replace(HEALTHY, **changes)
    return dataclasses.replace(HEALTHY, **{part: dataclasses.replace(getattr(HEALTHY, part), **changes)})


def _worst(readings: Readings) -> Finding:
    """The one finding that is not ok."""
    (finding,) = [finding for finding in examine(readings) if finding.level != "ok"]
    return finding


@pytest.mark.parametrize("readings", [HEALTHY, _with(**ON_CPU)], ids=["gpu", "cpu"])
def test_healthy_machine_has_nothing_to_remedy(readings: Readings) -> None:
    findings = examine(readings)
    assert {finding.level for finding in findings} == {"ok"}
    assert all(finding.remedy is None for finding in findings)


@pytest.mark.parametrize(
    ("readings", "level", "what", "remedy"),
    [
        (_with("processor", governors=("powersave",)), "warning", "powersave", "cpupower frequency-set -g performance"),
        (_with("processor", governors=("performance", "schedutil")), "warning", "schedutil", "cpupower"),
        (_with("processor", boost=True), "note", "Turbo is on", "intel_pstate/no_turbo"),
        (_with("processor", busy_percent=25.0), "warning", "25% of the CPUs", "top"),
        (_with("processor", load_average=4.5), "note", "4.50", "stop it"),
        (_with("processor", smt=True), "note", "SMT", "smt/control"),
        (_with("processor", limit_cores=3.5), "warning", "16 CPUs and may use the time of 3.5", "OMP_NUM_THREADS=3"),
        (_with("processor", is_virtual=True), "note", "virtual machine", "rounds"),
        (_with("memory", swap_used_bytes=2 * GB), "warning", "2.0 GB of swap", "swapoff"),
        (_with("memory", transparent_hugepages="never"), "note", "huge pages", "transparent_hugepage/enabled"),
        (_with("watched", other_processes=1), "warning", "1 other process holds memory on NVIDIA H200", "nvidia-smi"),
        (_with("watched", other_processes=2), "warning", "2 other processes hold memory", "nvidia-smi"),
        (
            _with(accelerators=(dataclasses.replace(GPU, persistence_mode=False),)),
            "warning",
            "Persistence mode is off",
            "nvidia-smi -pm 1",
        ),
        (_with("watched", memory_used_bytes=140 * GB), "warning", "does not fit", "smaller model"),
        (_with("watched", memory_used_bytes=125 * GB), "note", "float32", "out_of_memory"),
        (_with("plan", model_bytes={"large": 151 * GB}), "warning", "151.0 GB: it does not fit", "smaller model"),
        (
            _with(disks=(*HEALTHY.disks, Disk("compile caches", Path("/tmp"), 2 * GB, "TMPDIR"))),
            "warning",
            "/tmp (compile caches) has 2.0 GB free",
            "set TMPDIR",
        ),
        (_with("plan", device="cuda:1"), "warning", "device cuda:1, and 1 cuda device was found", "device: auto"),
        (_with("plan", device="xpu"), "warning", "no xpu device", "xpu-smi"),
        (_with(torch_version="2.13.0+cpu"), "warning", "not built for NVIDIA H200", "pytorch.org"),
        (_with(torch_version="2.13.0+rocm7.2"), "warning", "not built for NVIDIA H200", "pytorch.org"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_has_a_remedy(readings: Readings, level: str, what: str, remedy: str) -> None:
    finding = _worst(readings)
    assert finding.level == level
    assert what in finding.what
    assert remedy in str(finding.remedy)


def test_hidden_gpu_is_told_from_a_missing_one() -> None:
    readings = _with("plan", device="cuda")
    finding = _worst(dataclasses.replace(readings, hidden="", watched=None))
    assert "CUDA_VISIBLE_DEVICES" in finding.what
    assert finding.remedy == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize("version", ["2.13.0", "2.13.0+cu130"])
def test_builds_of_torch_for_nvidia(version: str) -> None:
    assert {finding.level for finding in examine(_with(torch_version=version))} == {"ok"}


def test_builds_of_torch_for_other_vendors() -> None:
    amd = dataclasses.replace(GPU, vendor="amd", name="MI300X", persistence_mode=None)
    assert {finding.level for finding in examine(_with(accelerators=(amd,), torch_version="2.13.0+rocm7.2"))} == {"ok"}
    assert "not built for MI300X" in _worst(_with(accelerators=(amd,), torch_version="2.13.0+cu130")).what
    intel = dataclasses.replace(GPU, vendor="intel", kind="xpu", name="B580", persistence_mode=None)
    assert {finding.level for finding in examine(_with(accelerators=(intel,), torch_version="2.13.0+xpu"))} == {"ok"}


def test_device_that_torch_cannot_use_is_not_named_as_the_one_in_use() -> None:
    texts = [finding.what for finding in examine(_with(torch_version="2.13.0+cpu"))]
    assert "device: auto means the CPU here." in texts


def test_memory_of_the_machine_counts_where_there_is_no_accelerator() -> None:
    readings = dataclasses.replace(_with("memory", available_bytes=10 * GB), **ON_CPU)
    assert "The main memory has 10.0 GB free; the weights of large take 16.0 GB" in _worst(readings).what


def test_nothing_is_said_of_what_is_not_known() -> None:
    readings = dataclasses.replace(
        _with("plan", model_bytes={}),
        processor=dataclasses.replace(
            HEALTHY.processor, governors=(), boost=None, smt=None, is_virtual=None, busy_percent=None
        ),
        watched=Watched("cuda:0", "NVIDIA H200", None, None, None),
        disks=(),
    )
    texts = " ".join(finding.what for finding in examine(readings))
    assert not any(word in texts for word in ("governor", "Turbo", "weights", "process", "None", "free"))
    assert "its need of memory is not known" in texts


def test_warnings_are_printed_first_and_commands_are_not_broken() -> None:
    output = io.StringIO()
    readings = dataclasses.replace(
        _with("processor", governors=("powersave",), smt=True), accelerators=(), watched=None, torch_version=None
    )
    print_findings(examine(readings), Console(file=output, width=70))
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    levels = [line.split()[0] for line in lines if line.startswith(("warning", "note", "ok"))]
    assert levels[:3] == ["warning", "note", "ok"]
    assert "         → sudo cpupower frequency-set -g performance" in lines
    assert " ".join(lines[-2:]) == "1 warning and 1 note. Heed the warnings before trusting small differences."


def test_machine_without_findings_is_ready() -> None:
    output = io.StringIO()
    print_findings(examine(HEALTHY), Console(file=output, width=100))
    assert output.getvalue().splitlines()[-1] == "This machine is ready to measure."
