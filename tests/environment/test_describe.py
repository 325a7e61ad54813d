"""The description of a machine: of this one, by the stage as DVC runs it, and of others, from trees of their files."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.results import DTYPES, ENVIRONMENT
from hfbench.core.system import cpu_limit, usable_cores
from hfbench.environment.describe import (
    describe_chosen_files,
    describe_memory,
    describe_system,
    memory_limit,
    relevant_variables,
    require_usable,
)
from hfbench.environment.processor import describe_cpu, emulated_dtypes
from hfbench.monitoring.devices import VENDORS, every_accelerator
from tests.conftest import ROOT, WriteTree

CPUS = "sys/devices/system/cpu"
X86 = """processor : 0
vendor_id : GenuineIntel
model name : Sample Xeon
microcode : 0x2b000590
cpu MHz : 1999.999
flags : fpu sse4_2 smep avx2 avx512f amx_bf16 hypervisor

processor : 1
model name : never read"""


def describe(folder: Path, **variables: str) -> dict[str, Any]:
    """Have the stage describe this machine in `folder`, with these variables alone, and return what it wrote."""
    command = [sys.executable, "-m", "stages.environment", "--output", "environment.json"]
    inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    for name in ("params.yaml", "configs"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    subprocess.run(command, cwd=folder, env=inherited, check=True)
    return dict(json.loads((folder / "environment.json").read_bytes()))


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return describe(tmp_path_factory.mktemp("description"))


def test_two_processes_in_different_places_write_equal_bytes(tmp_path: Path) -> None:
    outputs = []
    for place, seed in (("first", "1"), ("second", "2")):
        folder = tmp_path / place
        folder.mkdir()
        variables = dict.fromkeys(("HOME", "TMPDIR", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR"), str(folder))
        variables |= {"HOSTNAME": place, "USER": place, "LANG": f"{place}.UTF-8", "PYTHONHASHSEED": seed}
        describe(folder, **variables)
        outputs.append((folder / "environment.json").read_bytes())
    assert outputs[0] == outputs[1]


def test_description_names_neither_a_place_nor_the_host(description: dict[str, Any]) -> None:
    texts = re.findall(r'"([^"]*)"', json.dumps(description))
    assert "machine" in texts
    assert not [text for text in texts if text.startswith(("/", "~")) or str(Path.home()) in text or str(ROOT) in text]
    assert socket.gethostname() not in texts


def test_description_is_of_this_machine(description: dict[str, Any]) -> None:
    assert description["system"]["kernel"] == os.uname().release
    assert description["python"]["version"] == sys.version.split()[0]
    assert description["cpu"]["available_logical_cores"] == len(os.sched_getaffinity(0))
    assert description["cpu"]["brand"]
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert description["memory"]["total_gib"] == pytest.approx(physical / 2**30, abs=0.5)
    assert "hfbench" not in description["packages"]
    assert set(description["packages"]["accelerate"]) == {"version"}, "an environment within a checkout is no checkout"
    assert {"torch", "transformers", "tokenizers", "numpy"} <= set(description["packages"])
    assert not {"certifi", "rich", "dvc", "huggingface-hub", "nvidia-ml-py"} & set(description["packages"])
    assert list(description["packages"]) == sorted(description["packages"])


def test_variables_that_matter_are_all_that_a_variable_changes(tmp_path: Path, description: dict[str, Any]) -> None:
    found = describe(tmp_path, OMP_NUM_THREADS="1", HF_TOKEN="hf_secret")
    assert found == {**description, "variables": {"OMP_NUM_THREADS": "1"}}


def test_affinity_of_the_process_counts(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})  # a child inherits it
        found = describe(tmp_path)
    finally:
        os.sched_setaffinity(0, allowed)
    assert found["cpu"]["available_logical_cores"] == 1


def test_the_stage_imports_no_heavy_library(tmp_path: Path) -> None:
    program = """
import runpy, sys
sys.argv = ["environment"]
runpy.run_module("stages.environment", run_name="__main__")
print(sorted({"torch", "transformers", "polars", "numpy", "huggingface_hub"} & set(sys.modules)))
"""
    for name in ("params.yaml", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
    assert json.loads((tmp_path / DTYPES).read_text()) == ["bfloat16"]
    assert (tmp_path / ENVIRONMENT).is_file()


def server() -> dict[str, str | int]:
    """Two sockets of two cores with two threads each: 0-1 and 4-5 on the first, 2-3 and 6-7 on the second."""
    files: dict[str, str | int] = {
        "proc/cpuinfo": X86,
        f"{CPUS}/online": "0-7",
        f"{CPUS}/intel_pstate/no_turbo": 1,
        "sys/devices/system/node/node0/cpulist": "0-1,4-5",
        "sys/devices/system/node/node1/cpulist": "2-3,6-7",
    }
    for cpu in range(8):
        core, socket = cpu % 4, cpu % 4 // 2
        files |= {
            f"{CPUS}/cpu{cpu}/topology/core_cpus_list": f"{core},{core + 4}",
            f"{CPUS}/cpu{cpu}/topology/physical_package_id": socket,
            f"{CPUS}/cpu{cpu}/cpufreq/cpuinfo_max_freq": 3800000,
            f"{CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq": 1200000 + cpu,
            f"{CPUS}/cpu{cpu}/cpufreq/scaling_driver": "intel_pstate",
            f"{CPUS}/cpu{cpu}/cpufreq/scaling_governor": "powersave" if cpu else "performance",
        }
        caches = [(1, "Data", "48K", f"{core},{core + 4}"), (3, "Unified", "32768K", ("0-1,4-5", "2-3,6-7")[socket])]
        for index, (level, kind, size, shared) in enumerate(caches):
            cache = f"{CPUS}/cpu{cpu}/cache/index{index}"
            files |= {f"{cache}/level": level, f"{cache}/type": kind, f"{cache}/size": size}
            files[f"{cache}/shared_cpu_list"] = shared
    return files


def test_server_processor(write_tree: WriteTree) -> None:
    described = describe_cpu(write_tree(server()), frozenset(range(8)))
    assert described == {
        "brand": "Sample Xeon",
        "microcode": "0x2b000590",
        "sockets": 2,
        "numa_nodes": 2,
        "physical_cores": 4,
        "logical_cores": 8,
        "available_sockets": 2,
        "available_numa_nodes": 2,
        "available_physical_cores": 4,
        "available_logical_cores": 8,
        "smt": True,
        "caches": [
            {"level": 1, "type": "data", "size": "48K", "count": 4},
            {"level": 3, "type": "unified", "size": "32768K", "count": 2},
        ],
        "instruction_sets": ["amx_bf16", "avx2", "avx512f", "sse4_2"],
        "emulated_dtypes": ["float16"],
        "frequency": {
            "available_cores_by_max_mhz": {"3800": 8},
            "drivers": ["intel_pstate"],
            "governors": ["performance", "powersave"],
            "energy_preferences": [],
            "boost": False,
            "platform_profile": None,
        },
    }
    root = write_tree({f"{CPUS}/cpu0/cpufreq/scaling_cur_freq": 3800000, "proc/cpuinfo": X86.replace("1999", "3799")})
    assert describe_cpu(root, frozenset(range(8))) == described, "the current clock is no part of it"


def test_affinity_counts_by_its_shape_and_not_by_its_numbers(write_tree: WriteTree) -> None:
    root = write_tree(server())
    two_threads = describe_cpu(root, frozenset({1, 5}))
    two_cores = describe_cpu(root, frozenset({1, 6}))
    assert [two_threads[f"available_{name}"] for name in ("physical_cores", "sockets", "numa_nodes")] == [1, 1, 1]
    assert [two_cores[f"available_{name}"] for name in ("physical_cores", "sockets", "numa_nodes")] == [2, 2, 2]
    assert two_cores["available_logical_cores"] == two_threads["available_logical_cores"] == 2
    assert two_cores["logical_cores"] == 8
    assert describe_cpu(root, frozenset({2, 6})) == two_threads


def test_fast_and_slow_cores_are_told_apart(write_tree: WriteTree) -> None:
    files = server()
    files |= {f"{CPUS}/cpu{cpu}/cpufreq/cpuinfo_max_freq": 2400000 for cpu in (1, 3, 5, 7)}
    root = write_tree(files)
    assert describe_cpu(root, frozenset(range(5)))["frequency"]["available_cores_by_max_mhz"] == {"2400": 2, "3800": 3}


@pytest.mark.parametrize(
    ("part", "brand"), [("0xd4f", "Arm Neoverse V2 r0p1"), ("0xfff", "Arm core 0xfff of implementer 0x41 r0p1")]
)
def test_arm_processor(write_tree: WriteTree, part: str, brand: str) -> None:
    cpuinfo = "processor : 0\nFeatures : fp asimd sve2 bf16\nCPU implementer : 0x41\nCPU variant : 0x0\n"
    root = write_tree({"proc/cpuinfo": f"{cpuinfo}CPU part : {part}\nCPU revision : 1"})
    cpu = describe_cpu(root, frozenset({0, 1}))
    assert (cpu["brand"], cpu["instruction_sets"]) == (brand, ["asimd", "bf16", "sve2"])
    assert (cpu["logical_cores"], cpu["physical_cores"], cpu["numa_nodes"]) == (2, 2, 1)
    assert describe_system(root)["virtual_machine"] is None


@pytest.mark.parametrize(
    ("instruction_sets", "emulated"),
    [
        ("avx avx2 f16c sse4_2", ["bfloat16", "float16"]),  # AMD Zen 3
        ("avx2 avx512_bf16 avx512bw avx512f", ["float16"]),  # AMD Zen 4
        ("amx_bf16 amx_tile avx2 avx512_bf16 avx512_fp16 avx512f", []),  # Intel Sapphire Rapids
        ("asimd asimdhp", ["bfloat16"]),  # Arm Neoverse N1
        ("asimd asimdhp bf16 svebf16", []),
        ("", []),  # a processor that does not tell
    ],
)
def test_dtypes_without_instructions_of_their_own_are_emulated(instruction_sets: str, emulated: list[str]) -> None:
    assert emulated_dtypes(instruction_sets.split()) == emulated


def test_policies_and_parameters_of_the_kernel(write_tree: WriteTree) -> None:
    huge_pages = "sys/kernel/mm/transparent_hugepage"
    line = "root=UUID=1234 ro quiet nosmt mitigations=off console=ttyS0 isolcpus=2-3 -- mitigations=auto"
    root = write_tree(
        {
            "proc/cmdline": line,
            "proc/cpuinfo": X86,
            f"{huge_pages}/enabled": "always [madvise] never",
            f"{huge_pages}/defrag": "always defer defer+madvise [madvise] never",
            "proc/sys/kernel/numa_balancing": 1,
            "proc/self/numa_maps": "5570 interleave:0-1 file=/usr/bin/cat mapped=2\n5571 default heap",
        }
    )
    memory = describe_memory(root)
    assert memory["transparent_hugepages"] == memory["transparent_hugepages_defrag"] == "madvise"
    assert (memory["numa_balancing"], memory["numa_policy"]) == (1, "interleave:0-1")
    system = describe_system(root)
    assert system["kernel_parameters"] == ["isolcpus=2-3", "mitigations=off", "nosmt"]
    assert system["virtual_machine"] is True


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        (
            "0::/pod/box",
            {
                "pod/memory.max": 8 * 2**30,
                "pod/cpu.max": "max 100000",
                "pod/box/memory.max": "max",
                "pod/box/cpu.max": "250000 100000",
            },
            (8 * 2**30, 2.5),
        ),
        (  # version 1, in a container
            "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n1:name=systemd:/docker/0123\n0::/",
            {
                "memory/memory.limit_in_bytes": 4 * 2**30,
                "cpu,cpuacct/cpu.cfs_quota_us": 150000,
                "cpu,cpuacct/cpu.cfs_period_us": 100000,
            },
            (4 * 2**30, 1.5),
        ),
        (
            "5:memory:/\n4:cpu:/\n0::/user.slice",
            {
                "user.slice/memory.max": "max",
                "memory/memory.limit_in_bytes": 9223372036854771712,
                "cpu/cpu.cfs_quota_us": -1,
                "cpu/cpu.cfs_period_us": 100000,
            },
            (None, None),
        ),
    ],
)
def test_limits_of_control_groups(
    write_tree: WriteTree, groups: str, files: dict[str, str | int], limits: tuple[int | None, float | None]
) -> None:
    root = write_tree({"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}})
    assert (memory_limit(root), cpu_limit(root)) == limits


def test_notes_hold_no_places() -> None:
    def broken(notes: list[str]) -> dict[str, dict[str, Any]]:
        notes.append(f"sample: the handle {id(notes):#x} is no more")
        raise FileNotFoundError(2, "No such file", "/home/someone/driver")

    expected = ["sample: the handle … is no more", "sample: FileNotFoundError: [Errno 2] No such file: '…'"]
    assert every_accelerator({"sample": replace(VENDORS["nvidia"], describe=broken)}) == ([], expected)


def test_apple_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that answers as macOS's sysctl does stands in for it."""
    sysctl = tmp_path / "sysctl"
    sysctl.write_text('#!/bin/sh\ncase $2 in hw.memsize) echo 25769803776;; *) echo "Apple M4 Pro";; esac\n')
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert every_accelerator({"apple": VENDORS["apple"]}) == ([], [])
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    (device,), notes = every_accelerator({"apple": VENDORS["apple"]})
    assert device == {
        "vendor": "apple",
        "torch_device": "mps",
        "name": "Apple M4 Pro",
        "memory_bytes": 25769803776,
        "driver_version": "15.5",
    }
    assert notes == []


def test_variables_that_change_performance_are_kept_sorted() -> None:
    kept = {
        "HF_DEACTIVATE_ASYNC_LOAD": "1",
        "HSA_OVERRIDE_GFX_VERSION": "9.0.0",
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "MALLOC_ARENA_MAX": "2",
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": "4",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
        "USE_HUB_KERNELS": "0",
    }
    others = {"EDITOR": "vi", "HOSTNAME": "host", "PATH": "/usr/bin", "SHLVL": "1", "NVIDIA_VISIBLE_DEVICES": "all"}
    result = relevant_variables({**dict(reversed(kept.items())), **others})
    assert result == kept
    assert list(result) == list(kept)


def test_secrets_and_places_stay_out() -> None:
    secrets = "HF_TOKEN HF_HUB_TOKEN TORCH_API_KEY CUDA_SECRET TRANSFORMERS_PASSWORD NCCL_CREDENTIALS"
    assert relevant_variables(dict.fromkeys(secrets.split(), "hidden")) == {}
    places = """
        CUDA_CACHE_PATH CUDA_HOME CUDA_MPS_PIPE_DIRECTORY HF_HOME HF_HUB_OFFLINE NCCL_TOPO_FILE ONEAPI_ROOT
        TORCHINDUCTOR_CACHE_DIR TORCH_HOME TRANSFORMERS_CACHE TRITON_CACHE_DIR
    """
    assert relevant_variables(dict.fromkeys(places.split(), "/data/somewhere")) == {}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2:/opt/intel/lib/libiomp5.so", "libjemalloc.so.2:libiomp5.so"),
        ("LD_PRELOAD", "/usr/lib/a.so ~/b.so ~someone/lib/c.so", "a.so b.so c.so"),
        ("CXX", "/opt/gcc-14/bin/g++", "g++"),
        (
            "LOCAL_KERNELS",
            "kernels-community/activation=/home/someone/activation",
            "kernels-community/activation=activation",
        ),
        ("LD_LIBRARY_PATH", "/usr/local/cuda-13.1/lib64:/opt/lib", "lib64:lib"),
    ],
)
def test_paths_in_values_are_cut_to_their_last_part(name: str, value: str, kept: str) -> None:
    assert relevant_variables({name: value}) == {name: kept}


def test_what_only_writes_a_log_or_chooses_a_device_changes_nothing() -> None:
    names = """
        TRANSFORMERS_VERBOSITY TORCH_LOGS TORCH_CPP_LOG_LEVEL TORCHDYNAMO_VERBOSE ONEDNN_VERBOSE MKL_VERBOSE NCCL_DEBUG
        CUDNN_LOGINFO_DBG CUBLASLT_LOG_LEVEL OMP_DISPLAY_ENV KMP_SETTINGS AMD_LOG_LEVEL MIOPEN_ENABLE_LOGGING
        CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES GPU_DEVICE_ORDINAL ZE_AFFINITY_MASK SLURM_JOB_GPUS
        SLURM_JOB_ID
    """
    assert relevant_variables(dict.fromkeys(names.split(), "1")) == {}


def test_libraries_that_the_loader_would_find_first_and_another_assembler_are_told(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, size in ((old, 10), (new, 20)):
        folder.mkdir()
        (folder / "libcublas.so.13").write_bytes(b"x" * size)
        (folder / "libpng.so.16").write_bytes(b"x")
    (new / "libcudnn.so.9").write_bytes(b"x")
    ptxas = tmp_path / "ptxas"
    ptxas.write_text("#!/bin/sh\necho 'ptxas: NVIDIA (R) Ptx optimizing assembler'\necho Build cuda_13.1.r13.1\n")
    ptxas.chmod(0o755)
    described = describe_chosen_files(
        {"LD_LIBRARY_PATH": f"{old}::{new}:{tmp_path / 'absent'}", "TRITON_PTXAS_PATH": str(ptxas)}
    )
    assert described == {
        "libraries": {"libcublas.so.13": 10, "libcudnn.so.9": 1},
        "ptxas": {"TRITON_PTXAS_PATH": "Build cuda_13.1.r13.1"},
    }
    assert describe_chosen_files({}) == {"libraries": {}, "ptxas": {}}


@pytest.mark.parametrize(
    ("cpus", "quota", "cores"),
    [
        (range(8), None, 4),  # two threads of each of four cores
        ((0, 4), None, 1),  # the two threads of one core
        ((0, 1), None, 2),
        (range(8), "250000 100000", 2),
        (range(8), "50000 100000", 1),
        ((0, 1), "800000 100000", 2),
    ],
)
def test_threads_are_the_cores_that_the_process_may_use(
    write_tree: WriteTree, cpus: Iterable[int], quota: str | None, cores: int
) -> None:
    groups = {"proc/self/cgroup": "0::/box", "sys/fs/cgroup/box/cpu.max": quota} if quota else {}
    assert usable_cores(write_tree({**server(), **groups}), frozenset(cpus)) == cores


PCI = "sys/bus/pci/devices/0000:01:00.0"
NVIDIA_GPU: dict[str, str | int] = {f"{PCI}/class": "0x030200", f"{PCI}/vendor": "0x10de"}
LOADED: dict[str, str | int] = {"proc/driver/nvidia/version": "NVRM version: 580.95"}


@pytest.mark.parametrize(
    ("files", "build", "words"),
    [
        (NVIDIA_GPU, {}, "torch 2.13.0+cpu is built for the CPU alone. Install the build"),
        (NVIDIA_GPU, {"cuda": "13.0"}, "driver is not loaded"),
        ({**NVIDIA_GPU, **LOADED}, {"cuda": "13.0"}, "/dev has no such device"),
        ({**NVIDIA_GPU, **LOADED, "dev/nvidia0": "x"}, {"cuda": "13.0"}, "does not answer"),
        ({f"{PCI}/class": "0x038000", f"{PCI}/vendor": "0x1002"}, {"hip": "7.2"}, "amdgpu, is not loaded"),
        ({f"{PCI}/class": "0x120000", f"{PCI}/vendor": "0x1002"}, {"hip": "7.2"}, "amdgpu, is not loaded"),
        ({f"{PCI}/class": "0x030000", f"{PCI}/vendor": "0x8086"}, {"xpu": "2026"}, "/dev/dri has no such device"),
    ],
)
def test_an_accelerator_that_torch_cannot_use_is_no_cpu(
    write_tree: WriteTree, files: dict[str, str | int], build: dict[str, str], words: str
) -> None:
    """Trees of files stand in for machines with a GPU."""
    environment: dict[str, Any] = {"accelerators": [], "accelerator_notes": [], "torch_build": build}
    environment["packages"] = {"torch": {"version": "2.13.0+cpu"}}
    root = write_tree(files)
    with pytest.raises(UserError, match=r"device is auto, and torch cannot use the .* GPU of this machine") as raised:
        require_usable("auto", environment, {}, root)
    assert words in str(raised.value)
    assert "`device: cpu`" in str(raised.value)
    require_usable("cpu", environment, {}, root)
    hidden = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"), "")
    require_usable("auto", environment, hidden, root)
    require_usable("auto", {**environment, "accelerators": [{}]}, {}, root)


@pytest.mark.parametrize(
    ("vendor", "build", "other"),
    [("0x8086", {}, {"xpu": "2026"}), ("0x1002", {"cuda": "13.0"}, {"hip": "7"}), ("0x10de", {"hip": "7"}, {})],
)
def test_a_gpu_for_which_torch_is_not_built_is_passed_over(
    write_tree: WriteTree, vendor: str, build: dict[str, str], other: dict[str, str]
) -> None:
    root = write_tree({f"{PCI}/class": "0x030000", f"{PCI}/vendor": vendor})

    def is_passed_over(build: dict[str, str]) -> bool:
        try:
            none: dict[str, Any] = {"accelerators": [], "accelerator_notes": [], "packages": {}}
            require_usable("auto", {**none, "torch_build": build}, {}, root)
        except UserError:
            return False
        return True

    assert is_passed_over(build)
    assert not is_passed_over(other)
