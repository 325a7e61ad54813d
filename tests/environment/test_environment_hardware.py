"""Processors, memory and containers, from trees of files as Linux shows them for machines that are not here."""

import pytest

from hfbench.environment.describe import cpu_limit, describe_memory, describe_system, memory_limit
from hfbench.environment.processor import describe_cpu
from tests.conftest import WriteTree

CPUS = "sys/devices/system/cpu"
X86 = """processor : 0
vendor_id : GenuineIntel
model name : Sample Xeon
microcode : 0x2b000590
cpu MHz : 1999.999
flags : fpu sse4_2 smep avx2 avx512f amx_bf16 hypervisor

processor : 1
model name : never read"""


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
        for index, (level, kind, size, shared) in enumerate(
            [
                (1, "Data", "48K", f"{core},{core + 4}"),
                (3, "Unified", "32768K", "0-1,4-5" if socket == 0 else "2-3,6-7"),
            ]
        ):
            cache = f"{CPUS}/cpu{cpu}/cache/index{index}"
            files |= {f"{cache}/level": level, f"{cache}/type": kind, f"{cache}/size": size}
            files[f"{cache}/shared_cpu_list"] = shared
    return files


def test_server_processor(write_tree: WriteTree) -> None:
    cpu = describe_cpu(write_tree(server()), frozenset(range(8)))
    assert cpu == {
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
        "frequency": {
            "available_cores_by_max_mhz": {"3800": 8},
            "drivers": ["intel_pstate"],
            "governors": ["performance", "powersave"],
            "energy_preferences": [],
            "boost": False,
            "platform_profile": None,
        },
    }


def test_current_clock_changes_nothing(write_tree: WriteTree) -> None:
    before = describe_cpu(write_tree(server()), frozenset(range(8)))
    root = write_tree({f"{CPUS}/cpu0/cpufreq/scaling_cur_freq": 3800000, "proc/cpuinfo": X86.replace("1999", "3799")})
    assert describe_cpu(root, frozenset(range(8))) == before


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
    ("part", "brand"),
    [("0xd4f", "Arm Neoverse V2 r0p1"), ("0xfff", "Arm core 0xfff of implementer 0x41 r0p1")],
)
def test_arm_processor(write_tree: WriteTree, part: str, brand: str) -> None:
    cpuinfo = "processor : 0\nFeatures : fp asimd sve2 bf16\nCPU implementer : 0x41\nCPU variant : 0x0\n"
    root = write_tree({"proc/cpuinfo": f"{cpuinfo}CPU part : {part}\nCPU revision : 1"})
    cpu = describe_cpu(root, frozenset({0, 1}))
    assert (cpu["brand"], cpu["instruction_sets"]) == (brand, ["asimd", "bf16", "sve2"])
    assert (cpu["logical_cores"], cpu["physical_cores"], cpu["numa_nodes"]) == (2, 2, 1)
    assert describe_system(root)["virtual_machine"] is None


def test_memory_policies(write_tree: WriteTree) -> None:
    huge_pages = "sys/kernel/mm/transparent_hugepage"
    root = write_tree(
        {
            f"{huge_pages}/enabled": "always [madvise] never",
            f"{huge_pages}/defrag": "always defer defer+madvise [madvise] never",
            "proc/sys/kernel/numa_balancing": 1,
            "proc/self/numa_maps": "5570 interleave:0-1 file=/usr/bin/cat mapped=2\n5571 default heap",
        }
    )
    memory = describe_memory(root)
    assert memory["transparent_hugepages"] == memory["transparent_hugepages_defrag"] == "madvise"
    assert (memory["numa_balancing"], memory["numa_policy"]) == (1, "interleave:0-1")


def test_kernel_parameters_that_matter(write_tree: WriteTree) -> None:
    line = "root=UUID=1234 ro quiet nosmt mitigations=off console=ttyS0 isolcpus=2-3 -- mitigations=auto"
    system = describe_system(write_tree({"proc/cmdline": line, "proc/cpuinfo": X86}))
    assert system["kernel_parameters"] == ["isolcpus=2-3", "mitigations=off", "nosmt"]
    assert system["virtual_machine"] is True


def test_limits_of_control_groups_version_2(write_tree: WriteTree) -> None:
    root = write_tree(
        {
            "proc/self/cgroup": "0::/pod/box",
            "sys/fs/cgroup/pod/memory.max": 8 * 2**30,
            "sys/fs/cgroup/pod/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/box/memory.max": "max",
            "sys/fs/cgroup/pod/box/cpu.max": "250000 100000",
        }
    )
    assert (memory_limit(root), cpu_limit(root)) == (8 * 2**30, 2.5)


def test_limits_of_control_groups_version_1_in_a_container(write_tree: WriteTree) -> None:
    root = write_tree(
        {
            "proc/self/cgroup": "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n1:name=systemd:/docker/0123\n0::/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 4 * 2**30,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 150000,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
        }
    )
    assert (memory_limit(root), cpu_limit(root)) == (4 * 2**30, 1.5)


def test_no_limit_is_none(write_tree: WriteTree) -> None:
    root = write_tree(
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu:/\n0::/user.slice",
            "sys/fs/cgroup/user.slice/memory.max": "max",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
        }
    )
    assert (memory_limit(root), cpu_limit(root)) == (None, None)
