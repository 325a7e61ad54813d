"""`hfbench doctor`: what it says of a machine whose readings are written, and of the one that the tests run on."""

import dataclasses
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from hfbench.core.errors import UserError
from hfbench.core.files import write_json
from hfbench.core.record import Manifest, ModelFile
from hfbench.doctor.checks import Finding, doctor, examine, print_findings
from hfbench.doctor.readings import Disk, Readings, TorchReadings, collect
from hfbench.params.schema import load_params
from tests.conftest import ROOT

PARAMS = ROOT / "params.yaml"
GB = 10**9
GPU = {
    "vendor": "nvidia",
    "torch_device": "cuda",
    "name": "NVIDIA H200",
    "memory_bytes": 150 * GB,
    "persistence_mode": True,
}
FREQUENCY = {"drivers": ["intel_pstate"], "governors": ["performance"], "boost": False}
HEALTHY = Readings(
    system={"cpu_limit_cores": None, "memory_limit_bytes": None, "virtual_machine": False},
    cpu={"available_logical_cores": 16, "smt": False, "frequency": FREQUENCY, "emulated_dtypes": []},
    memory={"total_gib": 64, "transparent_hugepages": "madvise"},
    accelerators=[GPU],
    present=[GPU],
    variables={},
    torch=TorchReadings("2.13.0", ["NVIDIA H200"], None),
    passed_over=None,
    now={"cpu_percent": 1.5, "load_averages": [0.2] * 3, "swap_used_bytes": 0, "available_memory_bytes": 60 * GB},
    watched={"device": "cuda:0", "name": "NVIDIA H200", "other_processes": 0, "memory_used_bytes": 1 * GB},
    memory_limit_bytes=float("inf"),
    fullest_disk=Disk("models of the hub", Path("/home/me/.cache/huggingface"), 80 * GB, "HF_HOME"),
    device="auto",
    dtypes=["bfloat16"],
    model_bytes={"small": 1 * GB, "large": 16 * GB},
    ceilings={},
)
FULL = Disk("compile caches", Path("/tmp"), 2 * GB, "TMPDIR")
FOR_THE_CPU = TorchReadings("2.13.0+cpu", [], None)
ON_CPU: dict[str, Any] = {"accelerators": [], "present": [], "watched": None, "torch": FOR_THE_CPU}
UNUSABLE = TorchReadings("2.13.0", [], "The NVIDIA driver on your system is too old.")
EMULATING = {**HEALTHY.cpu, "emulated_dtypes": ["bfloat16", "float16"]}
CEILINGS = {"matmul_flops_per_second": {"bfloat16": 14e9, "float32": 54e9}, "slower_than_float32": ["bfloat16"]}


def _with(part: str | None = None, **changes: Any) -> Readings:
    """The healthy machine with changes to itself or to one part of it."""
    return dataclasses.replace(HEALTHY, **({part: {**getattr(HEALTHY, part), **changes}} if part else changes))


def _clocks(**changes: Any) -> Readings:
    return _with("cpu", frequency=FREQUENCY | changes)


def _told(readings: Readings) -> str:
    return " ".join(finding.what for finding in examine(readings))


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
        (_clocks(governors=["powersave"]), "warning", "powersave", "cpupower frequency-set -g performance"),
        (_clocks(governors=["performance", "schedutil"]), "warning", "schedutil", "cpupower"),
        (_clocks(boost=True), "note", "Turbo is on", "intel_pstate/no_turbo"),
        (_clocks(boost=True, drivers=["acpi-cpufreq"]), "note", "Turbo is on", "cpufreq/boost"),
        (_with("now", cpu_percent=25.0), "warning", "25% of the CPUs", "top"),
        (_with("now", load_averages=[4.5, 0, 0]), "note", "4.50", "stop it"),
        (_with("cpu", smt=True), "note", "SMT", "smt/control"),
        (
            _with("system", cpu_limit_cores=3.5),
            "note",
            "hfbench starts no more threads than 3",
            "--cpuset-cpus",
        ),
        (_with("system", virtual_machine=True), "note", "virtual machine", "rounds"),
        (_with("now", swap_used_bytes=2 * GB), "warning", "2.0 GB of swap", "swapoff"),
        (_with("memory", transparent_hugepages="never"), "note", "huge pages", "transparent_hugepage/enabled"),
        (_with("watched", other_processes=1), "warning", "1 other process holds memory on NVIDIA H200", "nvidia-smi"),
        (_with("watched", other_processes=2), "warning", "2 other processes hold memory", "nvidia-smi"),
        (_with(accelerators=[GPU | {"persistence_mode": False}]), "warning", "Persistence mode is off", "smi -pm 1"),
        (_with("watched", memory_used_bytes=140 * GB), "warning", "does not fit", "smaller model"),
        (_with("watched", memory_used_bytes=125 * GB), "note", "float32", "out_of_memory"),
        (_with(model_bytes={"large": 151 * GB}), "warning", "151.0 GB: it does not fit", "smaller model"),
        (_with(fullest_disk=FULL), "warning", "/tmp (compile caches) has 2.0 GB free", "set TMPDIR"),
        (
            _with(device="cuda:1", accelerators=[]),
            "warning",
            "cuda:1, and 1 cuda device was found",
            "device: auto",
        ),
        (_with(device="xpu", accelerators=[]), "warning", "no xpu device", "xpu-smi"),
        (
            _with(torch=UNUSABLE),
            "warning",
            "cannot use NVIDIA H200: The NVIDIA driver on your",
            "pytorch.org",
        ),
        (_with(accelerators=[], torch=FOR_THE_CPU), "warning", "2.13.0+cpu cannot use NVIDIA H200", "pytorch.org"),
        (_with(**ON_CPU, cpu=EMULATING), "warning", "no instructions for bfloat16 products", "`dvc repro ceilings`"),
        (
            _with(device="cpu", cpu=EMULATING, ceilings=CEILINGS),
            "warning",
            "the fastest reach 14 GFLOP/s, and 54 in float32",
            "Set sweep.dtype to [float32]",
        ),
    ],
)
def test_what_is_wrong_is_found_and_has_a_remedy(readings: Readings, level: str, what: str, remedy: str) -> None:
    finding = _worst(readings)
    assert finding.level == level
    assert what in finding.what
    assert remedy in str(finding.remedy)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtypes": ["float32"], **ON_CPU},
        {},  # on the GPU
        {"ceilings": {**CEILINGS, "slower_than_float32": []}, **ON_CPU},
    ],
)
def test_emulation_that_costs_nothing_is_no_warning(changes: dict[str, Any]) -> None:
    assert {finding.level for finding in examine(_with(**{"cpu": EMULATING, **changes}))} == {"ok"}


def test_ceilings_count_where_they_were_measured_on_this_processor(tmp_path: Path) -> None:
    params = load_params(PARAMS)
    write_json(tmp_path / "ceilings.json", CEILINGS)
    assert collect(params, tmp_path).ceilings == {}
    for cpu, known in (({"brand": "another"}, False), (dict(collect(params, tmp_path).cpu), True)):
        write_json(tmp_path / "environment.json", {"cpu": cpu})
        assert bool(collect(params, tmp_path).ceilings) is known


@pytest.mark.parametrize("value", ["", "-1"])
def test_hidden_gpu_is_told_from_a_missing_one(value: str) -> None:
    finding = _worst(_with(device="cuda", accelerators=[], watched=None, variables={"CUDA_VISIBLE_DEVICES": value}))
    assert f"CUDA_VISIBLE_DEVICES is {value!r}" in finding.what
    assert finding.remedy == "unset CUDA_VISIBLE_DEVICES"


def test_an_accelerator_that_is_hidden_on_purpose_is_no_fault() -> None:
    readings = _with(accelerators=[], watched=None, torch=FOR_THE_CPU, variables={"CUDA_VISIBLE_DEVICES": ""})
    assert {finding.level for finding in examine(readings)} == {"ok"}
    assert "device: auto means the CPU here." in _told(readings)


def test_memory_of_the_machine_counts_where_there_is_no_accelerator() -> None:
    assert "The main memory has 60.0 GB free; the weights of large take 16.0 GB" in _told(_with(**ON_CPU))
    readings = _with(**ON_CPU, memory_limit_bytes=10 * GB)
    assert "The main memory has 10.0 GB free; the weights of large take 16.0 GB" in _worst(readings).what


def test_nothing_is_said_of_what_is_not_known() -> None:
    readings = _with(
        model_bytes={},
        cpu={"available_logical_cores": 16, "smt": None},
        system={"cpu_limit_cores": None, "virtual_machine": None},
        memory={"total_gib": 64, "transparent_hugepages": None},
        now={**HEALTHY.now, "cpu_percent": None},
        watched={"device": "cuda:0", "name": "NVIDIA H200", "other_processes": None},
    )
    assert not any(word in _told(readings) for word in ("governor", "Turbo", "weights", "process", "None"))
    assert "its need of memory is not known" in _told(readings)
    of_unknown_use = _with(watched={"device": "cuda:0", "name": "NVIDIA H200", "other_processes": 0})
    assert "weights" not in _told(of_unknown_use)


def _printed(readings: Readings) -> list[str]:
    output = io.StringIO()
    print_findings(examine(readings), Console(file=output, width=70))
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_warnings_are_printed_first_and_commands_are_not_broken() -> None:
    cpu = {**HEALTHY.cpu, "smt": True, "frequency": FREQUENCY | {"governors": ["powersave"]}}
    lines = _printed(_with(cpu=cpu, **ON_CPU))
    levels = [line.split()[0] for line in lines if line.startswith(("warning", "note", "ok"))]
    assert levels[:3] == ["warning", "note", "ok"]
    assert "         → sudo cpupower frequency-set -g performance" in lines
    assert " ".join(lines[-2:]) == "1 warning and 1 note. Heed the warnings before trusting small differences."
    assert _printed(HEALTHY)[-1] == "This machine is ready to measure."


def _manifest(results: Path, name: str, weights_bytes: int) -> None:
    sizes = {"model.safetensors": weights_bytes, "tokenizer.json": 10**15}  # the second is not loaded onto a device
    files = tuple(ModelFile(path, size_bytes, "0" * 64) for path, size_bytes in sizes.items())
    manifest = Manifest(2, name, {}, {}, "LlamaForCausalLM", "llama", 600, 128, files)
    manifest.save(results / "models" / f"{name}.json")


def test_machine_is_examined_without_torch_and_whatever_is_found_is_no_failure() -> None:
    script = f"""if True:
        import sys
        from pathlib import Path
        from hfbench.doctor.checks import doctor
        status = doctor(Path({str(PARAMS)!r}), Path("results"))
        assert not {{"torch", "transformers", "polars"}} & set(sys.modules)
        sys.exit(status)
    """
    process = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (process.returncode, process.stderr) == (0, "")
    for words in ("device: auto means", "swap", "free."):
        assert words in process.stdout


def test_readings_of_this_machine(tmp_path: Path) -> None:
    readings = collect(load_params(PARAMS), tmp_path)
    assert 1 <= readings.cpu["available_logical_cores"] <= 10_000
    assert 0 <= (readings.now["cpu_percent"] or 0) <= 100
    assert 10**6 < readings.now["available_memory_bytes"] <= (readings.memory["total_gib"] + 1) * 2**30
    assert readings.memory_limit_bytes > 10**6
    assert str(readings.torch.version) == torch.__version__
    assert bool(readings.torch.devices) is torch.accelerator.is_available()
    assert readings.model_bytes == {}


def test_the_fullest_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    free = {tmp_path / "cache": 2 * GB, tmp_path: 3 * GB}
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free.get(folder, 9 * GB)))
    disk = collect(load_params(PARAMS), tmp_path / "not" / "there").fullest_disk
    assert disk == Disk("models that hfbench builds", tmp_path / "cache", 2 * GB, "HFBENCH_CACHE")
    free[tmp_path] = 1 * GB
    disk = collect(load_params(PARAMS), tmp_path / "not" / "there").fullest_disk
    assert disk == Disk("results and DVC's cache", tmp_path, 1 * GB, None)


def test_size_of_a_model_is_that_of_its_weights(tmp_path: Path) -> None:
    (name,) = load_params(PARAMS).sweep.model
    _manifest(tmp_path, name, 270_000_000)
    _manifest(tmp_path, "not-in-the-sweep", 10**15)
    assert collect(load_params(PARAMS), tmp_path).model_bytes == {name: 270_000_000}
    (tmp_path / "models" / f"{name}.json").write_text("{")  # as good as none
    assert collect(load_params(PARAMS), tmp_path).model_bytes == {}


def test_model_that_does_not_fit_is_a_warning_and_a_failure_when_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (name,) = load_params(PARAMS).sweep.model
    _manifest(tmp_path, name, 10**15)
    assert doctor(PARAMS, tmp_path) == 0
    assert doctor(PARAMS, tmp_path, strict=True) == 1
    assert f"the weights of {name} take 1000000.0 GB: it does not fit" in " ".join(capsys.readouterr().out.split())


def test_params_that_are_missing_are_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        doctor(tmp_path / "params.yaml", tmp_path)
